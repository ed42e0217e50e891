"""From data to Gram matrices, one for each fold; rows that share their folds are multiplied once."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex.quadratic import Quadratic


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
    return _moments(blocks, targets, shares, patterns.astype(float), fit_intercept, standardize, even)


@functools.partial(jax.jit, static_argnums=(4, 5, 6))
def _moments(blocks, targets, shares, patterns, fit_intercept, standardize, even):
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
    rows = patterns @ (shares > 0).sum(1).astype(float)
    scale = column_scale(jnp.diagonal(gram, axis1=1, axis2=2), rows, standardize)
    gram, linear = gram / (scale[:, :, None] * scale[:, None, :]), linear / scale[:, None]
    return Moments(Quadratic(gram, linear, energy), center, scale, y_center)


def column_scale(spread, rows, standardize: str | None):
    """What the columns of each fold are divided by: (F, p) from their mean squares and the number of rows."""
    if standardize is None:
        return jnp.ones_like(spread)
    n = rows[:, None]
    factor = {"std": 1.0, "sample_std": n / (n - 1), "norm": n}[standardize]
    return jnp.where(spread > 0, jnp.sqrt(jnp.where(spread > 0, spread, 1) * factor), 1)
