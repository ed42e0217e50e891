"""How far a solution of a convex problem can be from the best, by its data and in float64."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex.dual import feasible, has_dual
from jaxreg.convex.problem import Problem, prepare
from jaxreg.penalties import Penalty

CLOSE = 1e-10  # share of the largest coefficient by which coefficients may differ and count as the same
UNBALANCED = 1e-6  # share of its size that the dual point may have as its mean, where there is an intercept


class Certificate(NamedTuple):
    """What is known of (W, b).

    Attributes:
        value: by kind, 0 at a solution.
            "gap": (P(W, b) − D)/(P(0) − saturated), an upper bound of P(W, b) − min P in those units;
            "optimality": the distance of −∇f to the subdifferential of Ω, relative to ‖∇f‖_∞ at W = 0, where W is up to
            rounding;
            "fixed_point": ‖W − prox(W − t∇f)‖_∞/t, relative to the same.
        kind: which of them.
        objective: P(W, b) = Σ sᵢ f(xᵢ·W + b, yᵢ) + Ω(W).
        dual: D, a lower bound of P; −inf where none is known.
        null: P(0) at W = 0 with its fitted intercept.
    """

    value: float
    kind: str
    objective: float
    dual: float
    null: float


def certificate(datafit, penalty: Penalty, problem: Problem, coef, intercept) -> Certificate:
    """The certificate of one solution, for the columns as they are in `problem`."""
    with jax.enable_x64(True):
        W, b = np.asarray(coef, np.float64), np.asarray(intercept, np.float64)
        known = kind(penalty, W.shape)
        arguments = (problem.X, problem.y, problem.weight, problem.fit_intercept, W, b)
        value, objective, dual, null = map(float, _certify(known, datafit, penalty, *arguments))
    return Certificate(value, known, objective, dual, null)


def certify(
    datafit,
    penalty: Penalty,
    X,
    y,
    coef,
    intercept=0.0,
    *,
    sample_weight=None,
    fit_intercept: bool = True,
    standardize: str | bool | None = None,
) -> Certificate:
    r"""How far a solution can be from the best one, whoever found it: computed in float64 from the data.

    P(W, b) = Σᵢ sᵢ f(xᵢ·W + b, yᵢ) + Ω(W), s = `sample_weight`/Σ. The relative duality gap where the dual of the
    penalty is known; a local statement where the penalty is not convex: see `Certificate`.

    Args:
        datafit: f: `Squared`, `Logistic`, `Multinomial`, `Huber`, `Poisson`.
        penalty: Ω.
        X: (n, *features).
        y: (n,) or (n, targets), or labels.
        coef: W for X as it is given, of shape (*features, *targets).
        intercept: b, of shape targets.
        sample_weight: (n,) ≥ 0; None is equal weights.
        fit_intercept: whether b was to be fitted, without penalty.
        standardize: how the columns on whose coefficients Ω acts were scaled: None, "std", "sample_std" or "norm".

    Returns:
        `Certificate`.

    Raises:
        ValueError, TypeError: for data that no problem can be made of, and shapes that do not fit them.

    >>> from jaxreg import L1
    >>> from jaxreg.convex import Squared
    >>> X, y = jnp.array([[0.0], [1.0], [2.0]]), jnp.array([0.0, 1.0, 5.0])
    >>> certify(Squared(), L1(0.5), X, y, coef=[1.75], intercept=0.25).value < 1e-12
    True
    >>> certify(Squared(), L1(0.5), X, y, coef=[1.5], intercept=0.25).value > 1e-2
    True

    References:
        Boyd and Vandenberghe, Convex optimization, 2004, section 5.5.1.
    """
    problem = prepare("certify", datafit, X, y, sample_weight, fit_intercept, standardize)
    if not isinstance(penalty, Penalty) or not penalty.proximable:
        raise TypeError(f"`certify` needs a penalty with a prox, got {penalty!r}.")
    coef, intercept = np.asarray(coef, np.float64), np.asarray(intercept, np.float64)
    if coef.shape != problem.shape:
        raise ValueError(f"`certify` needs `coef` of shape {problem.shape} for these data, got {coef.shape}.")
    if intercept.ndim and intercept.shape != problem.y.shape[1:]:
        shape = problem.y.shape[1:]
        raise ValueError(f"`certify` needs `intercept` of shape {shape} for these data, got {intercept.shape}.")
    coef, intercept = problem.redo(coef, np.broadcast_to(intercept, problem.y.shape[1:]))
    return certificate(datafit, penalty, problem, coef, intercept)


def kind(penalty: Penalty, shape: tuple[int, ...]) -> str:
    """What can be certified for W of this shape, if the penalty fits it: a "gap", "optimality", or a "fixed_point"."""
    leaves, structure = jax.tree.flatten(penalty)
    known = _stationarity_kind(structure, tuple(np.shape(leaf) for leaf in leaves), shape)
    return "gap" if has_dual(penalty) else known


@functools.lru_cache
def _stationarity_kind(structure, leaves, shape) -> str:
    """Of penalties with leaves of these shapes; tracing takes longer than a short path."""
    x = jax.ShapeDtypeStruct(shape, np.float32)
    penalty = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(leaf, np.float32) for leaf in leaves])
    jax.eval_shape(lambda penalty, x: penalty.value(x), penalty, x)
    try:
        jax.eval_shape(lambda penalty, x: penalty.optimality(x, x), penalty, x)
    except (AttributeError, TypeError):  # it has none, or a sum has none by its rules
        return "fixed_point"
    return "optimality"


def gap(datafit, penalty, X, y, weight, fit_intercept: bool, W, b, *, refit: bool = True):
    """(value, objective, dual, null) by the duality gap, for penalties that have a dual; jittable, batched by `vmap`.

    The dual point is the slope at the outputs with the intercept refitted (b as it is, with `refit=False`), scaled by
    c ≤ 1 into the domain of Ω*. The gap is the sum of what Fenchel's inequality leaves in each example and in Ω: terms
    ≥ 0 that do not cancel as P − D.

    References:
        Ndiaye, Fercoq, Gramfort and Salmon, Gap safe screening rules for sparsity enforcing penalties, 2017, section 2.
    """
    eta = _outputs(X, W, b)
    fitted = eta + datafit.intercept(eta, y, weight) if fit_intercept and refit else eta
    theta = datafit.slope(fitted, y)
    v = _pull(X, theta, weight)
    c, conjugate = feasible(penalty, v)
    size = penalty.value(W)
    excess = _mean(datafit.excess(eta, c * theta, y), weight) + (size + conjugate + c * jnp.sum(v * W))
    if fit_intercept:  # of a dual point that is not balanced, D is −∞
        rounding = 32 * jnp.finfo(eta.dtype).eps * _mean(datafit.bend(fitted, y) * jnp.abs(fitted), weight)
        limit = UNBALANCED * _mean(jnp.abs(theta), weight) + rounding
        excess = jnp.where(jnp.all(jnp.abs(_mean(theta, weight)) <= limit), excess, jnp.inf)
    excess = jnp.where(jnp.isnan(excess), jnp.inf, excess)
    objective = _mean(datafit.loss(eta, y), weight) + size
    null, spread, _ = _null(datafit, penalty, X, y, weight, fit_intercept, W, b)
    return excess / jnp.where(spread > 0, spread, 1), objective, objective - excess, null


def optimality(datafit, penalty, X, y, weight, fit_intercept: bool, W, b):
    """As `gap`, by `penalty.optimality` and the mean slope, where there is an intercept."""
    return _stationarity(penalty.optimality, datafit, penalty, X, y, weight, fit_intercept, W, b)


def fixed_point(datafit, penalty, X, y, weight, fit_intercept: bool, W, b):
    """As `optimality`, by a proximal gradient step of 1/Σ sᵢ‖xᵢ‖²."""
    step = 1 / jnp.maximum(jnp.tensordot(weight, jnp.square(X), 1).sum(), jnp.finfo(X.dtype).tiny)

    def residual(W, g):
        return jnp.max(jnp.abs(W - penalty.prox(W - step * g, step)), initial=0) / step

    return _stationarity(residual, datafit, penalty, X, y, weight, fit_intercept, W, b)


KINDS = {"gap": gap, "optimality": optimality, "fixed_point": fixed_point}


@functools.partial(jax.jit, static_argnums=(0, 6))
def _certify(known, datafit, penalty, X, y, weight, fit_intercept, W, b):
    data = datafit, penalty, X, y, weight, fit_intercept
    found = KINDS[known](*data, W, b)
    if known != "optimality":
        return found
    # Coefficients that were equal, or at an anchor, part by rounding when they are scaled, and the subdifferential
    # jumps. A proximal step that moves nothing by more than `CLOSE` of the largest puts them together again.
    near, pull = CLOSE * jnp.max(jnp.abs(W), initial=0), _null(*data, W, b)[2]
    step = near / jnp.where(pull > 0, pull, 1)
    moved = penalty.prox(W - step * _pull(X, datafit.slope(_outputs(X, W, b), y), weight), step)
    there = optimality(*data, jnp.where(jnp.max(jnp.abs(moved - W), initial=0) <= near, moved, W), b)
    return jnp.minimum(found[0], there[0]), *found[1:]


def _stationarity(residual, datafit, penalty, X, y, weight, fit_intercept, W, b):
    eta = _outputs(X, W, b)
    theta = datafit.slope(eta, y)
    off = residual(W, _pull(X, theta, weight))
    if fit_intercept:
        off = jnp.maximum(off, jnp.max(jnp.abs(_mean(theta, weight))))
    objective = _mean(datafit.loss(eta, y), weight) + penalty.value(W)
    null, _, pull = _null(datafit, penalty, X, y, weight, fit_intercept, W, b)
    off = jnp.where(jnp.isnan(off), jnp.inf, off)
    return off / jnp.where(pull > 0, pull, 1), objective, jnp.full_like(objective, -jnp.inf), null


def _null(datafit, penalty, X, y, weight, fit_intercept, W, b):
    """At W = 0: P, the datafit above its least, and ‖∇f‖_∞; 0 for what is only rounding."""
    y = jnp.asarray(y, X.dtype)
    eta = jnp.zeros_like(y) + (datafit.constant(y, weight) if fit_intercept else 0)
    theta, eps = datafit.slope(eta, y), 8 * jnp.finfo(X.dtype).eps
    spread = _mean(datafit.excess(eta, jnp.zeros_like(eta), y), weight)
    rounding = jnp.sum(_mean(datafit.bend(eta, y) * jnp.square(eps * eta), weight))
    pull = jnp.max(jnp.abs(_pull(X, theta, weight)), initial=0)
    noise = eps * jnp.max(_pull(jnp.abs(X), jnp.abs(theta), weight), initial=0)
    known = spread > rounding
    objective = _mean(datafit.loss(eta, y), weight) + penalty.value(jnp.zeros_like(W))
    return objective, jnp.where(known, spread, 0), jnp.where(known & (pull > noise), pull, 0)


def _outputs(X, W, b):
    return jnp.tensordot(X, W, X.ndim - 1) + b


def _pull(X, theta, weight):
    """Σᵢ sᵢ xᵢ θᵢ, in the shape of W."""
    return jnp.tensordot(X, (weight * theta.T).T, (0, 0))


def _mean(x, weight):
    return jnp.tensordot(weight, x, 1)
