"""A linear problem in one vector of unknowns, and its solution's derivatives by the implicit function theorem."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxreg.convex.datafits import Datafit, Multinomial
from jaxreg.convex.support import free, solve_symmetric
from jaxreg.penalties import Penalty


class Problem(NamedTuple):
    """Σᵢ sᵢ f(xᵢ·z, yᵢ) + Ω(W): z has a row for each weight, and a last one for the intercept where there is one."""

    datafit: Datafit
    penalty: Penalty
    X: jax.Array  # (n, rows of z)
    y: jax.Array
    weight: jax.Array  # s, of sum 1
    center: jax.Array  # of the shape of features: the means that their columns had, or zeros without an intercept
    size: jax.Array  # of the column that is constant: as large as the others are on average

    def packed(self, W, b) -> jax.Array:
        """z of the weights and the intercept."""
        rows = W.reshape(self.center.size, *self.y.shape[1:])
        b = (b + jnp.tensordot(self.center, W, self.center.ndim)) / self.size
        return jnp.concatenate([rows, b[None]])[: self.X.shape[1]]

    def unpacked(self, z) -> tuple[jax.Array, jax.Array]:
        """The weights and the intercept of z."""
        W = self.weights(z)
        b = self.size * z[-1] if self.X.shape[1] > self.center.size else jnp.zeros_like(z[0])
        return W, b - jnp.tensordot(self.center, W, self.center.ndim)

    def weights(self, z) -> jax.Array:
        """W of z."""
        return z[: self.center.size].reshape(self.center.shape + self.y.shape[1:])

    def with_weights(self, z, W) -> jax.Array:
        """z with other weights."""
        return jnp.concatenate([W.reshape(-1, *z.shape[1:]), z[self.center.size :]])

    def slopes(self, eta) -> jax.Array:
        """sᵢ ∂f/∂ηᵢ."""
        return self.weight.reshape(-1, *(1,) * (eta.ndim - 1)) * self.datafit.slope(eta, self.y)

    def gradient(self, z) -> jax.Array:
        """Of the loss."""
        return self.X.T @ self.slopes(self.X @ z)

    def free(self, z) -> jax.Array:
        """Which unknowns can move."""
        return self.with_weights(jnp.ones(z.shape, bool), free(self.penalty, self.weights(z)))


def centred(datafit, penalty, X, y, weight, fit_intercept) -> Problem:
    """The problem in the dtype of X. Its center and size move no solution, so that they need no derivatives."""
    datafit, penalty, X, y, weight = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, floating_dtype(X)), (datafit, penalty, X, y, weight)
    )
    features, X, weight = X.shape[1:], X.reshape(len(X), -1), weight / jnp.sum(weight)
    center = jax.lax.stop_gradient(weight @ X) if fit_intercept else jnp.zeros(X.shape[1:], X.dtype)
    X = X - center if fit_intercept else X
    square = jax.lax.stop_gradient(jnp.sum(weight @ jnp.square(X))) / max(center.size, 1)
    size = jnp.where(square > 0, jnp.sqrt(square), 1)
    if fit_intercept:
        X = jnp.concatenate([X, jnp.broadcast_to(size, (len(X), 1))], 1)
    return Problem(datafit, penalty, X, y, weight, center.reshape(features), size)


def floating_dtype(X):
    """The dtype of X, or the default one where that is not floating."""
    dtype = jnp.result_type(X)
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)


def stationarity(problem, z, mask) -> jax.Array:
    """T: the gradient in the unknowns that are free, 0 for the others."""
    slope = jax.grad(problem.penalty.value)(problem.weights(z))
    return jnp.where(mask, problem.gradient(z) + problem.with_weights(jnp.zeros_like(z), slope), 0)


def newton(problem, z, mask, rhs) -> jax.Array:
    """∂T/∂z⁻¹ rhs on the free unknowns."""

    def hessian(v):
        v = jnp.where(mask, v.reshape(z.shape), 0)
        return jax.jvp(lambda z: stationarity(problem, z, mask), (z,), (v,))[1].ravel()

    x = solve_symmetric(hessian, rhs.ravel()).reshape(z.shape)
    p = problem.center.size
    if isinstance(problem.datafit, Multinomial) and len(z) > p:  # blind to a common shift of b, which is to be 0
        x = problem.with_weights(x - jnp.mean(x[p]), x[:p])
    return x


@jax.custom_jvp
def attached(problem, z) -> jax.Array:
    """The solution z, with its derivatives in all of `problem`."""
    return z


@attached.defjvp
def _(primals, tangents):
    (problem, z), (change, _) = primals, tangents
    z = attached(problem, z)
    mask = problem.free(jax.lax.stop_gradient(z))
    moved = jax.jvp(lambda problem: stationarity(problem, z, mask), (problem,), (change,))[1]
    return z, -newton(problem, z, mask, moved)


def pulled_back(data, W, b, slopes, fit_intercept):
    """⟨slopes, ∂(W, b)/∂penalty⟩ at the solution W, b of `data` = (datafit, penalty, X, y, weight)."""
    datafit, penalty, *arrays = data

    def solution(penalty):
        problem = centred(datafit, penalty, *arrays, fit_intercept)
        return problem.unpacked(attached(problem, jax.lax.stop_gradient(problem.packed(W, b))))

    return jax.vjp(solution, penalty)[1](slopes)[0]
