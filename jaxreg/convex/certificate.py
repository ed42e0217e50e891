"""How far a solution of a convex problem can be from the best, by its data and in float64."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from jaxreg.convex.dual import has_dual
from jaxreg.convex.judge import Judging, relative
from jaxreg.convex.lanes import Layout, pick
from jaxreg.convex.problem import Problem, prepare
from jaxreg.convex.programs import program
from jaxreg.convex.smooth import Smooth
from jaxreg.penalties import Penalty

CLOSE = 1e-10  # share of the largest coefficient by which coefficients may differ and count as the same


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
    one = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64)[None, None], penalty)
    lanes = (np.asarray(x, np.float64)[None] for x in (coef, intercept))
    numbers = (float(x[0]) for x in certificates(datafit, one, problem, *lanes))
    value, objective, dual, null = numbers
    return Certificate(value, kind(penalty, problem.shape), objective, dual, null)


def certificates(datafit, penalties, problem: Problem, coef, intercept) -> tuple[np.ndarray, ...]:
    """(value, objective, dual, null) of L solutions: leaves (1, L), coefficients (L, ...), intercepts likewise."""
    layout, count = Layout(problem.X.shape[1:], problem.y.shape[1:]), len(coef)
    known = kind(jax.tree.map(lambda leaf: leaf[0, 0], penalties), problem.shape)
    w = np.stack([layout.flat(x) for x in coef])[None]
    with jax.enable_x64(True), np.errstate(over="ignore", invalid="ignore"):
        model = Smooth(datafit, problem, np.ones((1, len(problem.weight)), bool), None, Judging(layout, known, count))
        found, null = model.judge_with(penalties, w, intercept[None]), model.at_zero(penalties)
        value = relative(known, found, null, problem.fit_intercept)
        if known == "optimality":
            # Coefficients that were equal, or at an anchor, part by rounding when they are scaled, and the
            # subdifferential jumps. A proximal step that moves nothing by more than `CLOSE` of the largest puts them
            # together again.
            near, pull = CLOSE * np.abs(w).max((2, 3), initial=0), null.pull[:, None]
            moved = np.asarray(_moved(penalties, w, found.slope, near / np.where(pull > 0, pull, 1), layout))
            still = np.abs(moved - w).max((2, 3), initial=0) <= near
            if still.any():
                there = model.judge_with(penalties, pick(still, moved, w), intercept[None])
                value = np.minimum(value, relative(known, there, null, problem.fit_intercept))
        objective = found.loss + found.cost
        dual = objective - found.excess - found.rest if known == "gap" else np.full_like(objective, -np.inf)
        return value[0], objective[0], dual[0], (null.loss[:, None] + null.cost)[0]


@program(static_argnames="layout")
def _moved(penalties, w, slope, step, layout):
    return layout.on_flat(lambda penalty, coef, slope, step: penalty.prox(coef - step * layout.coef(slope), step))(
        penalties, w, slope, step
    )


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
    >>> X, y = np.array([[0.0], [1.0], [2.0]]), np.array([0.0, 1.0, 5.0])
    >>> certify(Squared(), L1(0.5), X, y, coef=[1.75], intercept=0.25).value < 1e-12
    True
    >>> certify(Squared(), L1(0.5), X, y, coef=[1.5], intercept=0.25).value > 1e-2
    True

    References:
        Boyd and Vandenberghe, Convex optimization, 2004, section 5.5.1;
        Ndiaye, Fercoq, Gramfort and Salmon, Gap safe screening rules for sparsity enforcing penalties, 2017, section 2.
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
    return _kind(structure, tuple(np.shape(leaf) for leaf in leaves), shape, has_dual(penalty))


@functools.lru_cache
def _kind(structure, leaves, shape, dual: bool) -> str:
    """Of penalties with leaves of these shapes; tracing takes longer than a short path."""
    x = jax.ShapeDtypeStruct(shape, np.float32)
    penalty = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(leaf, np.float32) for leaf in leaves])
    jax.eval_shape(lambda penalty, x: penalty.value(x), penalty, x)
    if dual:
        return "gap"
    try:
        jax.eval_shape(lambda penalty, x: penalty.optimality(x, x), penalty, x)
    except (AttributeError, TypeError):  # it has none, or a sum has none by its rules
        return "fixed_point"
    return "optimality"
