"""A linear problem in one vector of unknowns, and its solution's derivatives by the implicit function theorem."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxreg.convex.datafits import Datafit, Multinomial
from jaxreg.convex.support import free, solve_symmetric
from jaxreg.penalties import Penalty


class Problem(NamedTuple):
    """Σᵢ sᵢ f(xᵢ·W + b, yᵢ) + Ω(W), as a function of z: W, and after it b/size where there is an intercept."""

    datafit: Datafit
    penalty: Penalty
    X: jax.Array  # with an intercept of columns of mean 0
    y: jax.Array
    weight: jax.Array  # s, of sum 1
    center: jax.Array | None  # what the means of the columns were, None without an intercept
    size: jax.Array | None  # of the constant column that b is the weight of: as large as the others are

    @property
    def shape(self) -> tuple[int, ...]:
        """Of W."""
        return self.X.shape[1:] + self.y.shape[1:]

    def packed(self, W, b) -> jax.Array:
        """z of the weights and of the intercept, for columns of mean 0."""
        return W.ravel() if self.size is None else jnp.concatenate([W.ravel(), b.ravel() / self.size])

    def unpacked(self, z) -> tuple[jax.Array, jax.Array]:
        """W and b of z, for columns of mean 0."""
        count, targets = math.prod(self.shape), self.y.shape[1:]
        b = jnp.zeros(targets, z.dtype) if self.size is None else self.size * z[count:].reshape(targets)
        return z[:count].reshape(self.shape), b

    def outputs(self, z) -> jax.Array:
        """η."""
        W, b = self.unpacked(z)
        return jnp.tensordot(self.X, W, self.X.ndim - 1) + b

    def slopes(self, eta) -> jax.Array:
        """sᵢ ∂f/∂ηᵢ."""
        return self.weight.reshape(-1, *(1,) * (eta.ndim - 1)) * self.datafit.slope(eta, self.y)

    def pull(self, slopes) -> jax.Array:
        """The gradient of the loss in W from its `slopes`."""
        return jnp.tensordot(self.X, slopes, (0, 0))

    def gradient(self, slopes) -> jax.Array:
        """The gradient of the loss in z from its `slopes`."""
        pull = self.pull(slopes).ravel()
        return pull if self.size is None else jnp.concatenate([pull, self.size * jnp.sum(slopes, 0).ravel()])

    def free(self, z) -> jax.Array:
        """Which unknowns can move."""
        mask = free(self.penalty, self.unpacked(z)[0]).ravel()
        return jnp.concatenate([mask, jnp.ones(z.size - mask.size, bool)])


def centred(datafit, penalty, X, y, weight, fit_intercept) -> Problem:
    """The problem in the dtype of X. Its center and size move no solution, so that they need no derivatives."""
    datafit, penalty, X, y, weight = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, floating_dtype(X)), (datafit, penalty, X, y, weight)
    )
    weight = weight / jnp.sum(weight)
    if not fit_intercept:
        return Problem(datafit, penalty, X, y, weight, None, None)
    center = jax.lax.stop_gradient(jnp.tensordot(weight, X, 1))
    X = X - center
    squares = jax.lax.stop_gradient(jnp.sum(jnp.tensordot(weight, jnp.square(X), 1)))
    size = jnp.sqrt(jnp.where(squares > 0, squares / max(center.size, 1), 1))
    return Problem(datafit, penalty, X, y, weight, center, size)


def uncentred(problem, z) -> tuple[jax.Array, jax.Array]:
    """W and b for the columns as they were."""
    W, b = problem.unpacked(z)
    return W, b if problem.size is None else b - jnp.tensordot(problem.center, W, problem.center.ndim)


def floating_dtype(X):
    """The dtype of X, or the default one where that is not floating."""
    dtype = jnp.result_type(X)
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)


def stationarity(problem, z, mask) -> jax.Array:
    """T: the gradient in the unknowns that are free, 0 for the others."""
    slope = jax.grad(lambda z: problem.penalty.value(problem.unpacked(z)[0]))(z)
    return jnp.where(mask, problem.gradient(problem.slopes(problem.outputs(z))) + slope, 0)


def newton(problem, z, mask, rhs) -> jax.Array:
    """∂T/∂z⁻¹ rhs on the free unknowns."""

    def hessian(v):
        return jax.jvp(lambda z: stationarity(problem, z, mask), (z,), (jnp.where(mask, v, 0),))[1]

    x = solve_symmetric(hessian, rhs)
    if problem.size is not None and isinstance(problem.datafit, Multinomial):
        k = problem.y.shape[1]  # blind to a common shift, which is to be 0
        x = x.at[-k:].add(-jnp.mean(x[-k:]))
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
        z = problem.packed(W, b + jnp.tensordot(problem.center, W, W.ndim) if fit_intercept else b)
        return uncentred(problem, attached(problem, jax.lax.stop_gradient(z)))

    return jax.vjp(solution, penalty)[1](slopes)[0]
