"""Proximal Newton: the datafit's own quadratic at the iterate, solved as least squares are, and a line search."""

import jax
import numpy as np

from jaxreg.convex.lanes import pick
from jaxreg.convex.quadratic import Quadratic, descend

ENTRIES = 2**24  # of the Hessians of all lanes, up to which they are made
HALVINGS = 11  # of a step that does not lower the objective
OUTER = 60
FLAT = 0.01  # of the greatest curvature, where there is none
PAIRS = 2**22  # products of columns that are kept


def newton(model, penalties, start, tol, *, max_iter):
    """(w, certificate, iterations) of every lane (F, L), iterations those of the inner solver.

    Args:
        model: of the datafit: `Smooth`, whose judge tells curvatures.
        penalties: leaves with leading axes (F, L).
        start: (F, L, t, p).
        tol: on the certificate.
        max_iter: of the inner solver.

    References:
        Lee, Sun and Saunders, Proximal Newton-type methods for minimizing composite functions, 2014, algorithm 1.
    """
    folds, lanes, targets, p = start.shape
    wide = (folds * lanes, 1, 1, targets * p)
    single = jax.tree.map(lambda leaf: leaf.reshape(wide[0], 1, *leaf.shape[2:]), penalties)
    w, iterations, patience = np.array(start, np.float64), 0, 0
    judged = model.judge(penalties, w)
    best, value = w.copy(), judged.value.copy()
    quadratic = Quadratic(np.zeros((wide[0], wide[3], wide[3])), np.zeros((wide[0], 1, wide[3])), np.zeros(wide[0]))
    for _ in range(OUTER):
        if np.all(value <= tol) or iterations >= max_iter or patience > 2:
            break
        unfinished = value > tol
        _fill(quadratic, model, judged, w, unfinished)
        # What is left of the slope shows in the gap next to the slope itself, which is about the strength.
        size = np.abs(quadratic.linear).max((1, 2)).reshape(value.shape)
        inner = 0.03 * np.minimum(judged.value, 1) * np.abs(judged.slope).max((2, 3)) / np.where(size > 0, size, 1)
        target, _, steps = descend(
            quadratic,
            single,
            w.reshape(wide),
            np.where(unfinished, np.clip(inner, 1e-13, 1e-2), np.inf).reshape(-1, 1),
            layout=model.layout,
            max_iter=max_iter - iterations,
            dtype=model.dtype,
        )
        iterations += steps
        w, judged, moved = searched(model, penalties, w, judged, target.reshape(w.shape), unfinished)
        better = judged.value < value
        best[better], value[better] = w[better], judged.value[better]
        patience = 0 if np.any(better) else patience + 1
        if not np.any(moved):
            break
    return best, value, np.full(value.shape, iterations)


def _fill(quadratic, model, judged, w, wanted) -> None:
    """Put the quadratic of each wanted lane at w in its place, the coefficients of all targets in one row."""
    lanes, (folds, numbers) = w.shape[1], np.nonzero(wanted)
    rows = model.rows
    H = hessians(rows.X, judged.curvatures[folds, numbers], model.pairs, model.fit_intercept, _floor(model, folds))
    if rows.scale is not None:
        scale = np.tile(rows.scale[folds], w.shape[2])
        H /= scale[:, :, None] * scale[:, None]
    flat = w[folds, numbers].reshape(len(folds), -1)
    places = folds * lanes + numbers
    quadratic.gram[places] = H
    quadratic.linear[places, 0] = (H @ flat[..., None])[..., 0] - judged.slope[folds, numbers].reshape(flat.shape)


def _floor(model, folds) -> np.ndarray:
    """What s f'' is taken to be where it is 0, as beyond the elbows of Huber's loss, (lanes, n)."""
    return FLAT * (model.datafit.curvature or 0) * model.rows.weight[folds]


def products(X) -> np.ndarray | None:
    """The products of each two columns, (n, p(p + 1)/2), of which many Hessians are made at once, if they are few."""
    n, p = X.shape
    if n * p * (p + 1) // 2 > PAIRS:
        return None
    first, second = np.triu_indices(p)
    return X[:, first] * X[:, second]


def hessians(X, bends, pairs, fit_intercept: bool, floor) -> np.ndarray:
    """Σ xᵢ s f''ᵢ xᵢᵀ of each lane, (L, t·p, t·p), the intercept minimised out: what is left is a Schur complement.

    Args:
        X: (n, p).
        bends: s f'' of each row, (L, n, t, t).
        pairs: the `products` of X, or None.
        fit_intercept: whether there is one.
        floor: what a row's s f'' is at least, (L, n).
    """
    p, (lanes, _, t, _) = X.shape[1], bends.shape
    diagonal = np.arange(t)
    own = bends[:, :, diagonal, diagonal]
    if np.any(own < floor[..., None], where=own <= 0):
        bends = bends.copy()
        bends[:, :, diagonal, diagonal] = np.where(own > 0, own, floor[..., None])
    H, across = np.zeros((lanes, t, p, t, p)), np.zeros((lanes, t, p, t))
    place = np.zeros((p, p), int)
    place[np.triu_indices(p)] = np.arange(p * (p + 1) // 2)
    place = np.maximum(place, place.T)
    for a in range(t):
        for b in range(a, t):
            some = bends[:, :, a, b]
            if pairs is not None:
                H[:, a, :, b] = H[:, b, :, a] = (some @ pairs)[:, place]
            else:
                for lane, each in enumerate(some):
                    H[lane, a, :, b] = H[lane, b, :, a] = X.T @ (X * each[:, None])
            across[:, a, :, b] = across[:, b, :, a] = some @ X
    H = H.reshape(lanes, t * p, t * p)
    if fit_intercept:
        across, total = across.reshape(lanes, t * p, t), bends.sum(1)
        H -= across @ np.linalg.pinv(total, hermitian=True) @ across.swapaxes(1, 2)
    return H


def searched(model, penalties, w, judged, target, wanted):
    """(w, what is known of it, whether it moved): each lane at the longest step, halved, that lowers its objective.

    A step that changes the objective by rounding alone is taken where the certificate is better.
    """
    settled = ~wanted | np.all(target == w, (2, 3))
    moved, trial = np.zeros(wanted.shape, bool), judged
    point, share = pick(settled, w, target), 1.0
    rounding = 8 * np.finfo(np.float64).eps * np.abs(judged.objective)
    for _ in range(HALVINGS + 1):
        if settled.all():
            break
        trial = model.judge(penalties, point)
        with np.errstate(invalid="ignore"):
            lower = trial.objective < judged.objective - rounding
            lower |= (trial.objective <= judged.objective + rounding) & (trial.value < judged.value)
        moved, settled, share = moved | (lower & ~settled), settled | lower, share / 2
        point = pick(settled, point, (1 - share) * w + share * target)
    if settled.all():  # where each lane is, the last trial was
        return point, trial, moved
    known = jax.tree.map(lambda new, old: pick(settled, new, old), trial, judged)
    return pick(settled, point, w), known, moved
