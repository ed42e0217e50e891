"""At most k non-zero weights."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, in_groups
from jaxreg.constraints.base import Constraint, excess, keep_inside
from jaxreg.pytree import noun, static


@noun
class Sparse(Constraint):
    r"""‖x‖₀ ≤ k per group, at most k non-zero weights: magnitude pruning as a projection.

    `project` keeps the k largest magnitudes bit for bit, the first of equal ones; k may be traced. The count has no
    gradient, so `multipliers` refuses it.

    Args:
        k: the number of weights, ≥ 0, a number or an array that broadcasts against the groups; inf asks nothing.
        axis: the axes inside one group (0 for the incoming weights of a unit of an `(in, out)` kernel, 1 for
            `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group.

    Raises:
        ValueError: if a literal `k` is negative or NaN.

    >>> Sparse(2).project(jnp.array([3.0, -0.5, 0.0, -4.0])).tolist()
    [3.0, 0.0, 0.0, -4.0]
    >>> Sparse(2).violation(jnp.array([3.0, -0.5, 0.0, -4.0])).item()
    1.0

    References:
        Blumensath and Davies, Iterative hard thresholding for compressed sensing, 2009, eq. 10.
    """

    differentiable: ClassVar[bool] = False

    k: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def violation(self, x) -> jax.Array:
        """‖x‖₀ − k per group."""
        x, axes, k = in_groups(self, x, self.k)
        count = jnp.sum(jnp.where(jnp.isnan(x), x, (x != 0).astype(x.dtype)), axes, keepdims=True)
        return jnp.squeeze(excess(count, k), axes)

    def project(self, x) -> jax.Array:
        """x where it is among the k largest of its group, 0 elsewhere."""
        z, axes, k = in_groups(self, x, self.k)
        first = tuple(range(len(axes)))
        groups = jnp.moveaxis(-jnp.abs(z), axes, first)
        size = math.prod(groups.shape[: len(axes)])
        order = jnp.argsort(groups.reshape(size, math.prod(groups.shape[len(axes) :])), axis=0)
        rank = jnp.moveaxis(jnp.argsort(order, axis=0).reshape(groups.shape), first, axes).astype(z.dtype)
        return keep_inside(x, self.violation(z), jnp.where((rank + 1 <= k) | jnp.isnan(z), z, 0), axes)
