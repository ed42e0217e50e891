"""From data to Gram matrices, one for each fold; rows that share their folds are multiplied once."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex.quadratic import Quadratic

CONSTANT = 1e-13  # share of its size that a column of one value may vary by rounding


class Moments(NamedTuple):
    """Least squares of F folds, each centred and scaled by its own training rows."""

    quadratic: Quadratic
    center: jax.Array  # (F, p), of X
    scale: jax.Array  # (F, p)
    y_center: jax.Array  # (F, t)


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
        patterns, blocks, shares, targets = np.ones((len(train), 1)), X[None], weight[None], y[None]
    else:
        patterns, group = np.unique(train, axis=1, return_inverse=True)  # (F, groups): rows that share their folds
        rows = [np.flatnonzero(group == g) for g in range(patterns.shape[1]) if patterns[:, g].any()]
        patterns = patterns[:, patterns.any(0)]
        most = max(map(len, rows))
        place = np.stack([np.pad(r, (0, most - len(r))) for r in rows])  # padded with row 0 at no weight
        used = np.arange(most) < np.array([[len(r)] for r in rows])
        blocks, targets, shares = X[place], y[place], np.where(used, weight[place], 0)
    even = bool(np.all(shares == shares.flat[0]))
    parts = train * weight
    scale = column_scales(X, parts / parts.sum(1, keepdims=True), fit_intercept, standardize)
    return _moments(blocks, targets, shares, patterns.astype(float), scale, fit_intercept, even)


@functools.partial(jax.jit, static_argnums=(5, 6))
def _moments(blocks, targets, shares, patterns, scale, fit_intercept, even):
    total = patterns @ shares.sum(1)

    def over_folds(sums):
        """Sums over groups as means over the rows of each fold."""
        return jnp.tensordot(patterns, sums, 1) / total.reshape(-1, *[1] * (sums.ndim - 1))

    if even:
        weighted, weighted_targets = blocks, targets * shares[0, 0]
        factor = shares[0, 0]
    else:
        weighted, weighted_targets, factor = blocks * shares[..., None], targets * shares[..., None], 1.0
    gram = over_folds(factor * jnp.einsum("gnp,gnq->gpq", weighted, blocks))
    linear = over_folds(jnp.einsum("gnt,gnp->gtp", weighted_targets, blocks))
    energy = over_folds(jnp.einsum("gnt,gnt->gt", weighted_targets, targets))
    center = over_folds(factor * weighted.sum(1))
    y_center = over_folds(weighted_targets.sum(1))
    if not fit_intercept:
        center, y_center = jnp.zeros_like(center), jnp.zeros_like(y_center)
    gram = gram - center[:, :, None] * center[:, None, :]
    linear = linear - y_center[:, :, None] * center[:, None, :]
    energy = jnp.sum(energy - jnp.square(y_center), -1)
    gram, linear = gram / (scale[:, :, None] * scale[:, None, :]), linear / scale[:, None]
    return Moments(Quadratic(gram, linear, energy), center, scale, y_center)


def column_scales(X, shares, fit_intercept: bool, standardize: str | None):
    """What the columns are divided by in each fold of rows with `shares` (F, n), of sum 1: (F, p)."""
    if standardize is None:
        return jnp.ones((len(shares), X.shape[1]))
    return _scales(X, jnp.asarray(shares), fit_intercept, standardize)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _scales(X, shares, fit_intercept, standardize):
    return jax.lax.map(lambda share: column_scale(jnp, X, share, fit_intercept, standardize), shares)


def column_scale(xp, X, share, fit_intercept: bool, standardize: str):
    """Of one fold, (p,), by NumPy or JAX; 1 for columns that have one value there but for rounding."""
    center = share @ X if fit_intercept or standardize != "norm" else 0
    n = xp.sum(share > 0)
    factor = {"std": 1, "sample_std": n / xp.maximum(n - 1, 1), "norm": n}[standardize]
    spread = share @ xp.square(X - center)
    varies = spread > CONSTANT**2 * (share @ xp.square(X))
    return xp.sqrt(factor * xp.where(varies, spread, 1 / factor))
