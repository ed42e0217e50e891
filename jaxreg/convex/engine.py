"""Paths of many problems at once: folds × families of a penalty × strengths, in blocks that warm one another."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jaxreg.convex import certificate
from jaxreg.convex.columns import per_feature
from jaxreg.convex.datafits import Squared
from jaxreg.convex.judge import Judging
from jaxreg.convex.lanes import Layout, Paths
from jaxreg.convex.lasso import factors, lasso_paths
from jaxreg.convex.least_squares import LeastSquares
from jaxreg.convex.problem import Problem
from jaxreg.convex.ridge_paths import ridge_paths
from jaxreg.convex.smooth import Smooth
from jaxreg.convex.support import is_concave
from jaxreg.convex.working_set import solve_block
from jaxreg.penalties import ElasticNet, SquaredL2

BLOCK = 10  # strengths that are solved together, from the solution of the last of the block before
KNOTS = 128  # strengths that are judged together where knots are followed


def paths(
    datafit,
    penalties,
    problem: Problem,
    *,
    train=None,
    standardize=None,
    tol=1e-6,
    max_iter=20_000,
    start=None,
    model=None,
    report: Callable = lambda phase, done: None,
) -> Paths:
    """Solve every fold × family × strength, in float64 where `problem.dtype` says so.

    Args:
        datafit: the datafit.
        penalties: one penalty whose leaves have leading axes (R, K), the strongest first.
        problem: from `prepare`, of all rows.
        train: (F, rows of the problem), which rows each fold is fitted to; None is one fold of all.
        standardize: how the columns of each fold are scaled by its own rows.
        tol: on the certificate.
        max_iter: of each block.
        start: (*features, *targets), where the first block starts, on the scale of `problem`.
        model: from `prepared`, of the same arguments, where there is one already.
        report: called with what is being done, and how many strengths are done.
    """
    train = everything(problem) if train is None else np.asarray(train, bool)
    if isinstance(datafit, Squared) and _plain_ridge(penalties):
        return ridge_paths(problem, train, standardize, np.asarray(penalties.lam[0]))
    with jax.enable_x64(True):
        if model is None:
            model = prepared(datafit, penalties, problem, train, standardize)
        lasso = _lasso(datafit, penalties)
        if lasso.any():  # which is followed from knot to knot
            options = {"train": train, "standardize": standardize, "tol": tol, "max_iter": max_iter}
            options |= {"start": start, "model": model, "report": report}
            parts = [
                paths(datafit, jax.tree.map(lambda leaf, rows=rows: leaf[rows], penalties), problem, **options)
                for rows in (lasso, ~lasso)
            ]
            order = np.argsort(np.concatenate([np.flatnonzero(lasso), np.flatnonzero(~lasso)]))
            both = [np.concatenate(pair, 1)[:, order] for pair in zip(parts[0][:6], parts[1][:6], strict=True)]
            return Paths(*both, *parts[0][6:])
        layout = model.layout
        penalties = per_feature(jax.tree.map(np.float64, penalties), layout)
        families, strengths = jax.tree.leaves(penalties)[0].shape[:2]
        lead = len(train), families, strengths
        found = _Found(
            np.zeros((*lead, max(problem.y[0].size, 1), model.width)),
            np.full(lead, np.inf),
            np.zeros(lead),
            np.zeros(lead),
            np.zeros(lead, int),
        )
        lasso = factors(penalties, layout) if isinstance(model, LeastSquares) else None
        if lasso is not None:
            report("following knots", 0)
            found.w[:], found.iterations[:] = lasso_paths(model, *lasso)
            judged = model.judge(_lanes(penalties, len(train)), _flat(found.w))
            found.value[:], found.objective[:], found.loss[:] = (np.reshape(x, lead) for x in judged[:3])
        elif start is not None:
            found.w[:, :, 0] = layout.flat(start)
        warm = found.w[:, :, :1]
        for first in range(0, strengths, BLOCK):
            report("solving", first)
            block = np.s_[:, :, first : first + BLOCK]
            if np.any(~(found.value[block] <= tol)):
                _solve_block(model, penalties, found, block, warm, lasso is not None, tol, max_iter)
            warm = found.w[:, :, first : first + BLOCK][:, :, -1:]
        return _undone(model, problem, found)


def everything(problem) -> np.ndarray:
    """One fold of all rows."""
    return np.ones((1, len(problem.weight)), bool)


def prepared(datafit, penalties, problem: Problem, train, standardize, critical: bool = False):
    """What is solved, and judges: of the penalties it knows their kind and how many they are, and not their strengths.

    Args:
        datafit: as in `paths`.
        penalties: likewise.
        problem: likewise.
        train: likewise.
        standardize: likewise.
        critical: whether it will be asked for critical strengths.
    """
    layout = Layout(problem.X.shape[1:], problem.y.shape[1:])
    kind = certificate.kind(jax.tree.map(lambda leaf: leaf[0, 0], penalties), problem.shape)
    penalties = per_feature(jax.tree.map(np.float64, penalties), layout)
    families, strengths = np.shape(jax.tree.leaves(penalties)[0])[:2]
    model = _model(datafit, penalties)
    # Knots come all at once, others in blocks; other numbers of strengths share the programs.
    whole = model is LeastSquares and factors(penalties, layout) is not None
    if whole:
        lanes = families * min(1 << (strengths - 1).bit_length(), KNOTS)
    else:
        lanes = (families - np.count_nonzero(_lasso(datafit, penalties))) * _block(strengths)
    return model(datafit, problem, train, standardize, Judging(layout, kind, lanes, critical))


def critical(model, penalties) -> np.ndarray:
    """The least strength of each family at which all rows are fitted by an intercept alone, (R,), for leaves (R, K)."""
    penalties = per_feature(jax.tree.map(np.float64, penalties), model.layout)
    with jax.enable_x64(True):
        null = model.at_zero(_lanes(jax.tree.map(lambda leaf: leaf[:, :1], penalties), model.folds))
    return null.critical[-1, : len(jax.tree.leaves(penalties)[0])]


def _model(datafit, penalties):
    """How it is solved: with Gram matrices, if that is safe."""
    return LeastSquares if isinstance(datafit, Squared) and not is_concave(penalties) else Smooth


def _plain_ridge(penalties) -> bool:
    """One family of `SquaredL2` with one positive λ for all weights."""
    return (
        isinstance(penalties, SquaredL2)
        and len(np.shape(penalties.lam)) == 2
        and len(penalties.lam) == 1
        and bool(np.all(penalties.lam > 0))
    )


class _Found(NamedTuple):
    """Solutions so far, of scaled columns, (F, R, K, ...)."""

    w: np.ndarray
    value: np.ndarray
    objective: np.ndarray
    loss: np.ndarray
    iterations: np.ndarray


def _solve_block(model, penalties, found, block, warm, ahead, tol, max_iter):
    """Put the solutions of a block of strengths in `found`; `ahead`, it starts at what is there."""
    shape = found.w[block].shape
    filled = np.minimum(np.arange(_block(found.w.shape[2])), shape[2] - 1)  # the last block with its last strength
    start = np.take(found.w[block], filled, 2) if ahead else np.repeat(warm, len(filled), 2)
    lanes = _lanes(jax.tree.map(lambda leaf: np.take(leaf[block[1:]], filled, 1), penalties), len(start))
    w, judged, iterations = solve_block(model, lanes, _flat(start), tol, max_iter)
    if model.dtype == np.float32 and not np.all(np.asarray(judged[0]) <= tol):  # rounding stopped it: go on without
        model.dtype = np.dtype(np.float64)
        w, judged, more = solve_block(model, lanes, w, tol, max_iter)
        model.dtype, iterations = np.dtype(np.float32), iterations + more
    parts = (np.reshape(x, start.shape[:3] + x.shape[2:])[:, :, : shape[2]] for x in (w, *judged[:3], iterations))
    w, *numbers, iterations = parts
    found.w[block] = w
    found.value[block], found.objective[block], found.loss[block] = numbers
    found.iterations[block] += iterations


def _lasso(datafit, penalties) -> np.ndarray:
    """Which families are a lasso, of an `ElasticNet` that is not one in all of them."""
    if not (isinstance(penalties, ElasticNet) and isinstance(datafit, Squared)):
        return np.zeros(len(jax.tree.leaves(penalties)[0]), bool)
    found = np.all(np.reshape(penalties.l1_ratio, (len(penalties.l1_ratio), -1)) == 1, 1)
    return found if not found.all() else np.zeros(len(found), bool)


def _block(strengths: int) -> int:
    return BLOCK if strengths > 1 else 1


def _flat(w):
    """(F, R, K, ...) -> (F, R·K, ...)."""
    return w.reshape(w.shape[0], -1, *w.shape[3:])


def _lanes(penalties, folds):
    """Leaves (R, K, ...) -> (F, R·K, ...)."""

    def lanes(leaf):
        flat = leaf.reshape(-1, *leaf.shape[2:])
        return np.broadcast_to(flat, (folds, *flat.shape))

    return jax.tree.map(lanes, penalties)


def _undone(model, problem, found) -> Paths:
    layout, kind, w = model.layout, model.judging.kind, found.w
    b = model.intercept(w)
    own = w if model.scale is None else w / np.asarray(model.scale)[:, None, None, None]
    coef = own.reshape(own.shape[:-1] + layout.features)
    coef, b = (np.moveaxis(coef, 3, -1), b) if layout.targets else (coef[:, :, :, 0], b[..., 0])
    coef, b = problem.undo(coef, b)
    null = model.null
    return Paths(coef, b, found.value, found.objective, found.loss, found.iterations, kind, null.loss, null.spread)
