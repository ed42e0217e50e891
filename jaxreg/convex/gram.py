"""From data to Gram matrices, one for each fold; rows that share their folds are multiplied once."""

from typing import NamedTuple

import numpy as np

from jaxreg.convex.quadratic import Quadratic

CONSTANT = 1e-13  # share of its size that a column of one value may vary by rounding


class Moments(NamedTuple):
    """Least squares of F folds, each centred and scaled by its own training rows."""

    quadratic: Quadratic
    center: np.ndarray  # (F, p), of X
    scale: np.ndarray  # (F, p)
    y_center: np.ndarray  # (F, t)


def moments(X, y, weight, train, fit_intercept: bool, standardize: str | None) -> Moments:
    """Gram matrices of the training rows of each fold.

    Args:
        X: (n, p) float64, centred or nearly so: what is far from zero loses digits in its square.
        y: (n, t).
        weight: (n,), each row's.
        train: (F, n), which rows are used.
        fit_intercept: whether to centre.
        standardize: None, "std", "sample_std" or "norm".
    """
    if train.all():
        patterns, rows = np.ones((len(train), 1)), [slice(None)]
    else:
        patterns, group = np.unique(train, axis=1, return_inverse=True)  # (F, groups): rows that share their folds
        patterns = patterns.astype(float)
        rows = [np.flatnonzero(group == g) for g in range(patterns.shape[1])]
    sums = [_sums(X[r], y[r], weight[r]) for r in rows]
    total = patterns @ np.array([weight[r].sum() for r in rows])

    def over_folds(parts):
        """Sums over groups as means over the rows of each fold."""
        return np.tensordot(patterns / total[:, None], np.stack(parts), 1)

    gram, linear, energy, center, y_center = map(over_folds, zip(*sums, strict=True))
    if not fit_intercept:
        center, y_center = np.zeros_like(center), np.zeros_like(y_center)
    shares = train * weight
    scale = column_scales(X, shares / shares.sum(1, keepdims=True), fit_intercept, standardize)
    gram = (gram - center[:, :, None] * center[:, None, :]) / (scale[:, :, None] * scale[:, None, :])
    linear = (linear - y_center[:, :, None] * center[:, None, :]) / scale[:, None]
    quadratic = Quadratic(gram, linear, energy - (y_center**2).sum(-1))
    return Moments(quadratic, center, scale, y_center)


def _sums(X, y, weight):
    """Σ s of xxᵀ, yxᵀ, y², x and y over the rows of a group."""
    if np.ptp(weight) == 0:
        gram = weight[0] * (X.T @ X)
    else:
        rooted = np.sqrt(weight)[:, None] * X
        gram = rooted.T @ rooted
    return gram, (weight[:, None] * y).T @ X, weight @ (y**2).sum(1), weight @ X, weight @ y


def column_scales(X, shares, fit_intercept: bool, standardize: str | None) -> np.ndarray:
    """What the columns are divided by in each fold of rows with `shares` (F, n), of sum 1: (F, p)."""
    if standardize is None:
        return np.ones((len(shares), X.shape[1]))
    return np.stack([column_scale(X, share, fit_intercept, standardize) for share in shares])


def column_scale(X, share, fit_intercept: bool, standardize: str) -> np.ndarray:
    """Of one fold, (p,); 1 for columns that have one value there but for rounding."""
    center = share @ X if fit_intercept or standardize != "norm" else 0
    n = np.count_nonzero(share)
    factor = {"std": 1, "sample_std": n / max(n - 1, 1), "norm": n}[standardize]
    spread = share @ np.square(X - center)
    varies = spread > CONSTANT**2 * (share @ np.square(X))
    return np.sqrt(factor * np.where(varies, spread, 1 / factor))
