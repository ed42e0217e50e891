"""Some of the columns: a penalty that is a sum over features lets the others wait at zero."""

import jax
import numpy as np

from jaxreg.convex.lanes import Layout
from jaxreg.convex.programs import program
from jaxreg.penalties import Huber, Radial, Separable, SparseGroup, SquaredL2

LEAST = 64  # columns of the smallest bucket


def by_feature(penalty, layout: Layout) -> bool:
    """Whether the penalty is a sum over single features that sets some of them to zero."""
    if len(layout.features) != 1:
        return False
    if isinstance(penalty, (Radial, SparseGroup)):
        return bool(layout.targets) and penalty.axis in ((1,), (-1,))
    return isinstance(penalty, Separable) and not isinstance(penalty, (SquaredL2, Huber))


def bucket(indices, p: int) -> np.ndarray:
    """`padded`, or all p columns if that is not more."""
    columns = padded(indices, p)
    return np.arange(p) if len(columns) >= p else columns


def padded(indices, p: int) -> np.ndarray:
    """`indices` up to a length of 64, 128, ..., 512, 768, 1024, 1536, ... or p with p, which names no column."""
    size = LEAST
    while size < len(indices):
        size = size * 3 // 2 if size >= 512 and size.bit_count() == 1 else 1 << size.bit_length()
    return np.concatenate([indices, np.full(min(size, p) - len(indices), p)]).astype(int)


def take(array, indices, axis: int):
    """`array` at `indices` along `axis`; zeros where an index is past the end."""
    if len(indices) == array.shape[axis] and np.array_equal(indices, np.arange(len(indices))):
        return array
    some = np.take(array, np.minimum(indices, array.shape[axis] - 1), axis)
    some[(*[slice(None)] * axis, indices >= array.shape[axis])] = 0
    return some


def put(array, indices, width: int):
    """The other way along the last axis: zeros for the columns that `indices` does not name."""
    wide = np.zeros(array.shape[:-1] + (width + 1,))
    wide[..., indices] = array
    return wide[..., :width]


def per_feature(penalties, layout: Layout):
    """Leaves that vary over weights, or features, broadcast to all of them, behind their two axes of lanes."""
    if isinstance(penalties, Separable):
        whole = layout.features + layout.targets
    elif by_feature(penalties, layout):
        whole = layout.features
    else:
        return penalties

    def spread(leaf):
        return leaf if leaf.ndim == 2 else np.broadcast_to(_aligned(leaf, len(whole)), leaf.shape[:2] + whole)

    return jax.tree.map(spread, penalties)


def _aligned(leaf, ndim):
    return leaf.reshape(leaf.shape[:2] + (1,) * (ndim + 2 - leaf.ndim) + leaf.shape[2:])


def restricted(penalties, indices):
    """The penalty of some columns; of the padding, any."""

    def some(leaf):
        if leaf.ndim == 2:
            return leaf
        return np.take(leaf, np.minimum(indices, leaf.shape[2] - 1), 2)

    return jax.tree.map(some, penalties)


@program(static_argnames="layout")
def wrongs(penalties, w, slope, layout: Layout):
    """`optimality` of each feature alone: (F, L, p)."""
    rows = Layout((1,), layout.targets)
    varies = jax.tree.map(lambda leaf: None if leaf.ndim == 2 else 0, penalties)

    def feature(penalty, w, g):
        return penalty.optimality(rows.coef(w[:, None]), rows.coef(g[:, None]))

    def lane(penalty, w, g):
        penalty = jax.tree.map(lambda leaf: leaf if leaf.ndim == 0 else leaf[:, None], penalty)
        return jax.vmap(feature, (varies, 1, 1))(penalty, w, g)

    return jax.vmap(jax.vmap(lane))(penalties, w, slope)
