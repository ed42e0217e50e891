"""A linear model as a differentiable function of its penalty, its data and its weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex.accelerated import GROW, SHRINK, minimise
from jaxreg.convex.datafits import Multinomial
from jaxreg.convex.implicit import attached, centred, floating_dtype, newton, stationarity
from jaxreg.convex.programs import host_array, program
from jaxreg.convex.support import is_convex, require_support

POLISH = 20  # Newton steps at most


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
    return solved(prepared("fit", datafit, penalty, X, y, sample_weight), fit_intercept, tol, max_iter)


def prepared(api, datafit, penalty, X, y, sample_weight) -> tuple:
    """(datafit, penalty, X, y, weight) with shapes checked; nothing is compiled for them."""
    require_support(penalty, api)
    if hasattr(X, "todense"):
        raise TypeError(f"`{api}` needs dense `X`, got {type(X).__name__} of shape {X.shape}.")
    if not isinstance(y, jax.Array) and np.asarray(y).dtype.kind not in "biuf":
        raise TypeError(f"`{api}` needs numbers as y, got {np.asarray(y).dtype}: of labels `datafit.encode(y)[0]`.")
    X = host_array(X)
    dtype = floating_dtype(X)
    y, n = host_array(y, dtype), X.shape[0] if X.ndim else 0
    if X.ndim < 2 or n < 1 or y.ndim not in (1, 2) or y.shape[0] != n:
        raise ValueError(f"`{api}` needs X (n, features) and y (n,) or (n, targets), got {X.shape} and {y.shape}.")
    if isinstance(datafit, Multinomial) and y.ndim != 2:
        raise ValueError(f"`{api}` needs y (n, classes) with `Multinomial`: `datafit.encode(y)[0]`; got {y.shape}.")
    weight = np.ones(n, dtype) if sample_weight is None else host_array(sample_weight, dtype)
    if weight.shape != (n,):
        raise ValueError(f"`{api}` needs a weight for each of {n} examples, got shape {weight.shape}.")
    datafit, penalty = jax.tree.map(lambda leaf: host_array(leaf, dtype), (datafit, penalty))
    return datafit, penalty, host_array(X, dtype), y, weight


def solved(data, fit_intercept, tol, max_iter):
    """W and b for data that are `prepared`."""
    if tol is None:
        tol = float(jnp.finfo(floating_dtype(data[2])).eps) ** (2 / 3)
    return _fit(data, fit_intercept, tol, max_iter)


@functools.partial(program, static_argnums=(1, 2, 3))
def _fit(data, fit_intercept, tol, max_iter):
    problem = centred(*data, fit_intercept)
    return problem.unpacked(attached(problem, _solution(jax.lax.stop_gradient(problem), fit_intercept, tol, max_iter)))


def _solution(problem, fit_intercept, tol, max_iter):
    datafit, penalty, y, weight = problem.datafit, problem.penalty, problem.y, problem.weight
    W = jnp.zeros(problem.center.shape + y.shape[1:], weight.dtype)
    z = problem.packed(W, datafit.constant(y, weight) if fit_intercept else jnp.zeros_like(y[0]))
    tol = tol * jnp.max(jnp.abs(problem.gradient(z)), initial=0)
    step = 1 / (jnp.square(problem.size) * problem.X.shape[1] * (datafit.curvature or 1.0))

    def prox(z, step):
        return problem.with_weights(z, penalty.prox(problem.weights(z), step))

    if is_convex(penalty):
        return _polished(problem, _accelerated(problem, prox, z, step, tol, max_iter))

    def smooth(z):
        eta = problem.X @ z
        return jnp.sum(weight * datafit.loss(eta, y)), problem.X.T @ problem.slopes(eta)

    def cost(z):
        return penalty.value(problem.weights(z))

    return _polished(problem, minimise(smooth, prox, z, step, tol, max_iter, cost=cost)[0])


def _accelerated(problem, prox, z, step, tol, max_iter):
    """As `minimise`, for η = Xz, which is linear: an iteration is one product with X and one with its transpose."""

    def iterate(carry):
        z, eta, ahead, eta_ahead, age, step, _, count = carry
        slopes = problem.slopes(eta_ahead)
        new = prox(ahead - step * (problem.X.T @ slopes), step)
        eta_new, moved = problem.X @ new, new - ahead
        length, size = jnp.vdot(moved, moved), jnp.max(jnp.abs(moved))
        short = jnp.vdot(problem.slopes(eta_new) - slopes, eta_new - eta_ahead) <= length / step
        restart = jnp.vdot(moved, new - z) < 0
        momentum = jnp.where(restart, 0, age / (age + 3))
        unfinished = ~(short & (size <= jnp.maximum(tol * step, eps * jnp.max(jnp.abs(new))))) & (count < max_iter)

        def choose(taken, again, back):  # back where the loss overflows at the point ahead
            return jnp.where(short, taken, jnp.where(jnp.isfinite(length), again, back))

        ahead = choose(new + momentum * (new - z), ahead, z)
        eta_ahead = choose(eta_new + momentum * (eta_new - eta), eta_ahead, eta)
        z, eta = jnp.where(short, new, z), jnp.where(short, eta_new, eta)
        age = choose(jnp.where(restart, 0, age + 1), age, 0)
        return z, eta, ahead, eta_ahead, age, jnp.where(short, GROW, SHRINK) * step, unfinished, count + 1

    eps, eta = jnp.finfo(z.dtype).eps, problem.X @ z
    start = z, eta, z, eta, jnp.zeros((), z.dtype), step, jnp.asarray(max_iter > 0), 1
    return jax.lax.while_loop(lambda c: c[6], iterate, start)[0]


def _polished(problem, z):
    """Newton's steps on the support, as long as each halves what is wrong in all unknowns."""

    def step(carry):
        best, least, z, _, count = carry
        gradient, mask = problem.gradient(z), problem.free(z)
        wrong = problem.penalty.optimality(problem.weights(z), problem.weights(gradient))
        wrong = jnp.maximum(wrong, jnp.max(jnp.abs(gradient[problem.center.size :]), initial=0))
        better, again = wrong < least, (wrong < least / 2) & (wrong > 0) & (count < POLISH)
        best, least = jnp.where(better, z, best), jnp.where(better, wrong, least)
        return best, least, z - newton(problem, z, mask, stationarity(problem, z, mask)), again, count + 1

    start = z, jnp.full((), jnp.inf, z.dtype), z, jnp.ones((), bool), 1
    return jax.lax.while_loop(lambda c: c[3], step, start)[0]
