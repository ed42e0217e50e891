"""Lanes: thousands of problems side by side, their coefficients flat, one row of features for each target."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Layout(NamedTuple):
    """How flat coefficients (targets, p) and those of the user, (*features, *targets), become each other."""

    features: tuple[int, ...]
    targets: tuple[int, ...]  # () or (t,)

    def narrowed(self, width: int) -> "Layout":
        """That of `width` columns, itself if these are all."""
        return self if width == math.prod(self.features) else self._replace(features=(width,))

    def coef(self, w):
        """(t, p), or a flat (1, t·p) -> (*features, *targets)."""
        w = w.reshape((self.targets or (1,)) + self.features)
        return w.transpose(*range(1, w.ndim), 0) if self.targets else w[0]

    def flat(self, coef):
        """(*features, *targets) -> (t, p)."""
        rows = coef.transpose(-1, *range(coef.ndim - 1)) if self.targets else coef[None]
        return rows.reshape(rows.shape[0], -1)

    def on_flat(self, fn: Callable) -> Callable:
        """`fn(penalty, coef, ...)` on lanes (F, L) of flat coefficients, those in its result flat again."""

        def one(penalty, w, *rest):
            out = fn(penalty, self.coef(w), *rest)
            return self.flat(out).reshape(w.shape) if out.shape == self.features + self.targets else out

        return jax.vmap(jax.vmap(one))


def dot(a, b):
    """⟨a, b⟩ of each lane."""
    return (a * b).sum((-2, -1))


def pick(choice, a, b):
    """The lanes of `a` where `choice`, those of `b` elsewhere."""
    xp = np if isinstance(choice, np.ndarray) else jnp
    return xp.where(choice.reshape(choice.shape + (1,) * (a.ndim - choice.ndim)), a, b)


class State(NamedTuple):
    """Where every lane is."""

    w: jax.Array  # (F, L, t, p)
    product: jax.Array  # Gw
    y: jax.Array  # extrapolated
    y_product: jax.Array
    momentum: jax.Array  # (F, L)
    bound: jax.Array  # (F, L), of the curvature


class Paths(NamedTuple):
    """Solutions for F folds, R families and K strengths each, on X as given."""

    coef: np.ndarray  # (F, R, K, *features, *targets)
    intercept: np.ndarray  # (F, R, K, *targets)
    certificate: np.ndarray  # (F, R, K)
    objective: np.ndarray  # (F, R, K)
    loss: np.ndarray  # (F, R, K), the objective without the penalty
    iterations: np.ndarray  # (F, R, K)
    kind: str
    null_loss: np.ndarray  # (F,), of the intercept alone
    spread: np.ndarray  # (F,), how much that is above the least loss of any outputs


def over_lanes(lane: Callable, by_fold, batched: int) -> Callable:
    """`lane(...)` over folds and lanes: of its arguments the first vary by fold, the last `batched` by lane as well.

    `by_fold` is how many those of the folds are, or 0 or None for each, None for one that is the same in all.
    """
    first = (0,) * by_fold if isinstance(by_fold, int) else by_fold
    inner = jax.vmap(lane, (*[None] * len(first), *[0] * batched))
    return jax.vmap(inner, (*first, *[0] * batched))


def bucket(size: int) -> int:
    """The next of 1, 2, 4, 8, 16, 18, ..., 32, 36, ...: at most an eighth more, so that other data share a program."""
    step = 1 << max(size.bit_length() - 4, 0)
    return -(-size // step) * step if size > 8 else 1 << (size - 1).bit_length()


def in_parts(fn: Callable, lanes: int, *trees):
    """`fn` of lanes (F, L, ...), `lanes` of them at a time, the last ones filled up: one program, whatever L is.

    Its results are NumPy arrays (F, L, ...).
    """
    count = jax.tree.leaves(trees)[-1].shape[1]
    if count == lanes:
        return jax.tree.map(np.asarray, fn(*trees))
    parts = []
    for first in range(0, count, lanes):
        places = np.minimum(np.arange(first, first + lanes), count - 1)
        parts.append(fn(*jax.tree.map(lambda leaf, places=places: np.take(leaf, places, 1), trees)))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, 1)[:, :count], *parts)
