"""Non-negative weights with a given sum."""

from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, in_groups, magnitude
from jaxreg.constraints.base import Constraint, keep_inside
from jaxreg.geometry import onto_simplex
from jaxreg.pytree import noun, static


@noun
class Simplex(Constraint):
    r"""x ≥ 0 and Σx = k per group: probabilities with k = 1.

    Args:
        total: k ≥ 0, a number or an array that broadcasts against the groups (a k per group); inf asks only x ≥ 0.
        axis: the axes inside one group (0 for the incoming weights of a unit of an `(in, out)` kernel, 1 for
            `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group.

    Raises:
        ValueError: if a literal `total` is negative or NaN.

    >>> Simplex(1.0).project(jnp.array([1.0, 0.5, -2.0])).tolist()
    [0.75, 0.25, 0.0]
    >>> Simplex(1.0).violation(jnp.array([1.0, 0.5, -2.0])).item()
    2.0

    References:
        Michelot, A finite algorithm for finding the projection of a point onto the canonical simplex, 1986.
    """

    signed: ClassVar[bool] = False

    total: jax.typing.ArrayLike = 1.0
    axis: Axis = static(default=None)

    def violation(self, x) -> jax.Array:
        """max(|Σx − k|, max(−x)) per group."""
        x, axes, total = in_groups(self, x, self.total)
        gap = jnp.sum(x, axes, keepdims=True) - total
        off = jnp.where(jnp.isposinf(total), -jnp.inf, magnitude(gap))
        return jnp.squeeze(jnp.maximum(off, jnp.max(-x, axes, keepdims=True, initial=-jnp.inf)), axes)

    def project(self, x) -> jax.Array:
        """(x − θ)₊ with the θ that makes the sum k."""
        z, axes, total = in_groups(self, x, self.total)
        free = jnp.isposinf(total)
        nearest = jnp.where(free, jnp.where(z < 0, 0, z), onto_simplex(z, jnp.where(free, 0, total), axes))
        return keep_inside(x, self.violation(z), nearest, axes)
