"""A linear model as a differentiable function of its penalty, its data and its weights."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex.accelerated import minimise
from jaxreg.convex.datafits import Datafit, Multinomial
from jaxreg.convex.support import free, is_convex, require_support, solve_symmetric
from jaxreg.penalties import Penalty

POLISH = 20  # Newton steps at most


class _Problem(NamedTuple):
    datafit: Datafit
    penalty: Penalty
    X: jax.Array
    y: jax.Array
    weight: jax.Array  # sums to 1


def fit(
    datafit,
    penalty,
    X,
    y,
    *,
    sample_weight=None,
    fit_intercept: bool = True,
    tol: float | None = None,
    max_iter: int = 10_000,
):
    r"""argmin over W, b of Σᵢ sᵢ f(xᵢ·W + b, yᵢ) + Ω(W), s = `sample_weight`/Σ, for `jit`, `vmap` and `grad`.

    Accelerated proximal gradient finds the support, Newton's steps on it polish. Derivatives, of either mode and any
    order, are those of the solution, not of the iterations: with T = 0 the stationarity of the weights that are free,

        d(W, b) = −(∂T/∂(W, b))⁻¹ ∂T,    and 0 for the weights at a kink of Ω.

    They are derivatives on one side where a weight is about to enter or to leave. Where columns in the support repeat
    each other the solution is one of many, and the derivative is that of least norm.

    It says nothing of how well it solved; `solve` certifies. For a penalty that is not convex it is a local minimum,
    and the derivative follows that one.

    Args:
        datafit: `Squared()`, `Logistic()`, `Multinomial()`, `Huber()` or `Poisson()`.
        penalty: a penalty that is smooth in the weights that are not zero.
        X: examples, (n, *features).
        y: targets as numbers, (n,) or (n, targets): 0 and 1 for `Logistic`, a column per class for `Multinomial`.
            `datafit.encode(y)[0]` makes them from labels.
        sample_weight: (n,), of any sum; None is equal weights.
        fit_intercept: whether b is free; it is never penalized.
        tol: on the optimality of W over that of W = 0, where polishing begins; None is ε^⅔ of the dtype.
        max_iter: iterations of the proximal gradient at most.

    Returns:
        coef (features + targets) and intercept (targets), in the dtype of X.

    Raises:
        TypeError: if the penalty is not of those.
        ValueError: if shapes disagree.

    >>> import jaxreg as jr
    >>> X, y = jnp.array([[1.0, 0.0], [2.0, 1.0], [3.0, 0.0], [4.0, 1.0]]), jnp.array([1.0, 2.0, 3.0, 4.0])
    >>> slope = lambda lam: fit(jr.convex.Squared(), jr.L1(lam), X, y)[0][0]
    >>> [round(number.item(), 3) for number in jax.value_and_grad(slope)(0.25)]
    [0.8, -0.8]

    References:
        Bertrand et al., Implicit differentiation for fast hyperparameter selection in non-smooth convex learning, 2022.
    """
    problem = _prepared("fit", datafit, penalty, X, y, sample_weight)
    if tol is None:
        tol = float(jnp.finfo(problem.X.dtype).eps) ** (2 / 3)
    return _fit(problem, fit_intercept, tol, max_iter)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _fit(problem, fit_intercept, tol, max_iter):
    return _unpacked(problem, _solution(problem, fit_intercept, tol, max_iter))


def _prepared(api, datafit, penalty, X, y, sample_weight) -> _Problem:
    """Everything in one floating dtype, shapes checked."""
    require_support(penalty, api)
    if hasattr(X, "todense"):
        raise TypeError(f"`{api}` needs dense `X`, got {type(X).__name__} of shape {X.shape}.")
    if not isinstance(y, jax.Array) and np.asarray(y).dtype.kind not in "biuf":
        raise TypeError(f"`{api}` needs numbers as y, got {np.asarray(y).dtype}: of labels `datafit.encode(y)[0]`.")
    X = jnp.asarray(X)
    dtype = X.dtype if jnp.issubdtype(X.dtype, jnp.floating) else jnp.result_type(float)
    y, n = jnp.asarray(y, dtype), X.shape[0] if X.ndim else 0
    if X.ndim < 2 or n < 1 or y.ndim not in (1, 2) or y.shape[0] != n:
        raise ValueError(f"`{api}` needs X (n, features) and y (n,) or (n, targets), got {X.shape} and {y.shape}.")
    if isinstance(datafit, Multinomial) and y.ndim != 2:
        raise ValueError(f"`{api}` needs y (n, classes) with `Multinomial`: `datafit.encode(y)[0]`; got {y.shape}.")
    weight = jnp.ones(n, dtype) if sample_weight is None else jnp.asarray(sample_weight, dtype)
    if weight.shape != (n,):
        raise ValueError(f"`{api}` needs a weight for each of {n} examples, got shape {weight.shape}.")
    datafit, penalty = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (datafit, penalty))
    return _Problem(datafit, penalty, X.astype(dtype), y, weight / jnp.sum(weight))


def _outputs(problem, W):
    return jnp.tensordot(problem.X, W, problem.X.ndim - 1)


def _slopes(problem, eta):
    """∂f/∂η of each example, weighted."""
    slope = problem.datafit.slope(eta, problem.y)
    return problem.weight.reshape(-1, *(1,) * (eta.ndim - 1)) * slope


def _pull(problem, slopes):
    """∇f from the slopes, of the shape of W."""
    return jnp.tensordot(problem.X, slopes, (0, 0))


def _intercept(problem, eta):
    return problem.datafit.intercept(eta, problem.y, problem.weight)


def _shape(problem):
    return problem.X.shape[1:] + problem.y.shape[1:]


def _unpacked(problem, z):
    """W and b of the vector of all unknowns; without an intercept b = 0."""
    shape, targets = _shape(problem), problem.y.shape[1:]
    size = functools.reduce(lambda a, b: a * b, shape, 1)
    b = z[size:] if z.size > size else jnp.zeros(targets, z.dtype)
    return z[:size].reshape(shape), b.reshape(targets)


def _packed(W, b, fit_intercept):
    return jnp.concatenate([W.ravel(), b.ravel()]) if fit_intercept else W.ravel()


def _stationarity(problem, z, mask, fit_intercept):
    """The gradient in the unknowns that are free, 0 for the others."""
    W, b = _unpacked(problem, z)
    slopes = _slopes(problem, _outputs(problem, W) + b)
    pull = _pull(problem, slopes) + jax.grad(problem.penalty.value)(W)
    return _packed(jnp.where(mask, pull, 0), jnp.sum(slopes, 0), fit_intercept)


def _newton(problem, z, mask, fit_intercept, rhs):
    """∂T/∂z⁻¹ rhs on the free unknowns."""
    keep = _packed(mask, jnp.ones(problem.y.shape[1:], bool), fit_intercept)

    def gradient(z):
        return _stationarity(problem, z, mask, fit_intercept)

    x = solve_symmetric(lambda v: jax.jvp(gradient, (z,), (jnp.where(keep, v, 0),))[1], rhs)
    if fit_intercept and isinstance(problem.datafit, Multinomial):  # blind to a common shift, which is to be 0
        k = problem.y.shape[1]
        x = x.at[-k:].add(-jnp.mean(x[-k:]))
    return x


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _solution(problem, fit_intercept, tol, max_iter):
    """W and b as one vector."""
    targets = problem.y.shape[1:]

    def smooth(W):
        eta = _outputs(problem, W)
        eta = eta + (_intercept(problem, eta) if fit_intercept else 0)
        value = jnp.sum(problem.weight * problem.datafit.loss(eta, problem.y))
        return value, _pull(problem, _slopes(problem, eta))

    W = jnp.zeros(_shape(problem), problem.X.dtype)
    scale = jnp.max(jnp.abs(smooth(W)[1]), initial=0)
    bound = jnp.tensordot(problem.weight, jnp.square(problem.X), 1).sum() * (problem.datafit.curvature or 1.0)
    step = 1 / jnp.where(bound > 0, bound, 1)
    penalty = problem.penalty
    cost = None if is_convex(penalty) else penalty.value
    W, *_ = minimise(smooth, penalty.prox, W, step, tol * scale, max_iter, residual=penalty.optimality, cost=cost)
    b = _intercept(problem, _outputs(problem, W)) if fit_intercept else jnp.zeros(targets, W.dtype)
    return _polished(problem, _packed(W, b, fit_intercept), fit_intercept)


def _polished(problem, z, fit_intercept):
    """Newton's steps on the support, as long as each halves what is wrong in all unknowns."""

    def step(carry):
        best, least, z, _, count = carry
        W, b = _unpacked(problem, z)
        slopes = _slopes(problem, _outputs(problem, W) + b)
        wrong = problem.penalty.optimality(W, _pull(problem, slopes))
        if fit_intercept:
            wrong = jnp.maximum(wrong, jnp.max(jnp.abs(jnp.sum(slopes, 0))))
        better = wrong < least
        best, again = jnp.where(better, z, best), (wrong < least / 2) & (wrong > 0)
        mask = free(problem.penalty, W)
        z = z - _newton(problem, z, mask, fit_intercept, _stationarity(problem, z, mask, fit_intercept))
        return best, jnp.where(better, wrong, least), z, again, count + 1

    start = z, jnp.full((), jnp.inf, z.dtype), z, jnp.ones((), bool), 0
    return jax.lax.while_loop(lambda c: c[3] & (c[4] < POLISH), step, start)[0]


@_solution.defjvp
def _(fit_intercept, tol, max_iter, primals, tangents):
    (problem,), (change,) = primals, tangents
    z = _solution(problem, fit_intercept, tol, max_iter)
    mask = free(problem.penalty, jax.lax.stop_gradient(_unpacked(problem, z)[0]))
    _, moved = jax.jvp(lambda problem: _stationarity(problem, z, mask, fit_intercept), (problem,), (change,))
    return z, -_newton(problem, z, mask, fit_intercept, moved)
