"""Paths of many problems at once: folds × families of a penalty × strengths, in blocks that warm one another."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex import certificate
from jaxreg.convex.columns import per_feature
from jaxreg.convex.datafits import Squared
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


def paths(
    datafit, penalties, problem: Problem, *, train=None, standardize=None, tol=1e-6, max_iter=20_000, start=None
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
    """
    train = np.ones((1, len(problem.weight)), bool) if train is None else np.asarray(train, bool)
    if isinstance(datafit, Squared) and _plain_ridge(penalties):
        return ridge_paths(problem, train, standardize, np.asarray(penalties.lam[0]))
    if isinstance(penalties, ElasticNet) and isinstance(datafit, Squared):
        lasso = np.all(np.reshape(penalties.l1_ratio, (len(penalties.l1_ratio), -1)) == 1, 1)
        if lasso.any() and not lasso.all():  # which is followed from knot to knot
            options = {"train": train, "standardize": standardize, "tol": tol, "max_iter": max_iter, "start": start}
            parts = [
                paths(datafit, jax.tree.map(lambda leaf, rows=rows: leaf[rows], penalties), problem, **options)
                for rows in (lasso, ~lasso)
            ]
            order = np.argsort(np.concatenate([np.flatnonzero(lasso), np.flatnonzero(~lasso)]))
            both = [np.concatenate(pair, 1)[:, order] for pair in zip(parts[0][:-1], parts[1][:-1], strict=True)]
            return Paths(*both, parts[0].kind)
    layout = Layout(problem.X.shape[1:], problem.y.shape[1:])
    kind = certificate.kind(jax.tree.map(lambda leaf: leaf[0, 0], penalties), problem.shape)
    with jax.enable_x64(True):
        penalties = per_feature(jax.tree.map(np.float64, penalties), layout)
        families, strengths = jax.tree.leaves(penalties)[0].shape[:2]
        model = _model(datafit, penalties)(datafit, problem, train, standardize, layout, kind)
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
            found.w[:], found.iterations[:] = lasso_paths(model, *lasso)
            judged = model.judge(_lanes(penalties, len(train)), _flat(found.w))
            found.value[:], found.objective[:], found.loss[:] = (np.reshape(x, lead) for x in judged[:3])
        elif start is not None:
            found.w[:, :, 0] = np.asarray(layout.flat(jnp.asarray(start)))
        warm = found.w[:, :, :1]
        for first in range(0, strengths, BLOCK):
            block = np.s_[:, :, first : first + BLOCK]
            if np.any(~(found.value[block] <= tol)):
                _solve_block(model, penalties, found, block, warm, lasso is not None, tol, max_iter)
            warm = found.w[:, :, first : first + BLOCK][:, :, -1:]
        return _undone(model, problem, found, kind)


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
    start = found.w[block] if ahead else np.broadcast_to(warm, found.w[block].shape)
    lanes = _lanes(jax.tree.map(lambda leaf: leaf[block[1:]], penalties), len(start))
    w, judged, iterations = solve_block(model, lanes, _flat(start), tol, max_iter)
    if model.dtype == np.float32 and not np.all(np.asarray(judged[0]) <= tol):  # rounding stopped it: go on without
        model.dtype = np.dtype(np.float64)
        w, judged, more = solve_block(model, lanes, w, tol, max_iter)
        model.dtype, iterations = np.dtype(np.float32), iterations + more
    shape = start.shape[:3]
    found.w[block] = w.reshape(start.shape)
    found.value[block], found.objective[block], found.loss[block] = (np.reshape(x, shape) for x in judged[:3])
    found.iterations[block] += iterations.reshape(shape)


def _flat(w):
    """(F, R, K, ...) -> (F, R·K, ...)."""
    return w.reshape(w.shape[0], -1, *w.shape[3:])


def _lanes(penalties, folds):
    """Leaves (R, K, ...) -> (F, R·K, ...)."""

    def lanes(leaf):
        flat = leaf.reshape(-1, *leaf.shape[2:])
        return np.broadcast_to(flat, (folds, *flat.shape))

    return jax.tree.map(lanes, penalties)


def _undone(model, problem, found, kind) -> Paths:
    layout, w = model.layout, found.w
    b = model.intercept(w)
    own = w if model.scale is None else w / np.asarray(model.scale)[:, None, None, None]
    coef = own.reshape(own.shape[:-1] + layout.features)
    coef, b = (np.moveaxis(coef, 3, -1), b) if layout.targets else (coef[:, :, :, 0], b[..., 0])
    coef, b = problem.undo(coef, b)
    return Paths(coef, b, found.value, found.objective, found.loss, found.iterations, kind)
