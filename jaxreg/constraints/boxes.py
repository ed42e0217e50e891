"""Bounds on each weight by itself."""

import jax
import jax.numpy as jnp

from jaxreg.arrays import floating, per_entry
from jaxreg.constraints.base import Constraint, excess, keep_inside
from jaxreg.pytree import check_order, noun


@noun
class Box(Constraint):
    r"""lower ≤ x ≤ upper, entry by entry.

    Args:
        lower: a number or an array that broadcasts against the weights; −inf for none.
        upper: likewise; inf for none.

    Raises:
        ValueError: if literal bounds are NaN or `lower` > `upper`.

    >>> Box(-1.0, 1.0).project(jnp.array([2.0, 0.5])).tolist()
    [1.0, 0.5]
    >>> Box(-1.0, 1.0).violation(jnp.array([2.0, 0.5])).tolist()
    [1.0, -0.5]
    """

    lower: jax.typing.ArrayLike
    upper: jax.typing.ArrayLike

    def __post_init__(self):
        check_order(self)

    def violation(self, x) -> jax.Array:
        """max(lower − x, x − upper), entry by entry."""
        x = floating(x, self)
        lower, upper = per_entry(self.lower, x, self), per_entry(self.upper, x, self)
        return jnp.maximum(excess(-x, -lower), excess(x, upper))

    def project(self, x) -> jax.Array:
        """min(max(x, lower), upper)."""
        z = floating(x, self)
        lower, upper = per_entry(self.lower, z, self), per_entry(self.upper, z, self)
        return keep_inside(x, self.violation(z), jnp.where(z < lower, lower, jnp.where(z > upper, upper, z)))


@noun
class NonNegative(Constraint):
    r"""x ≥ 0, entry by entry.

    >>> NonNegative().project(jnp.array([2.0, -0.5])).tolist()
    [2.0, 0.0]
    """

    def violation(self, x) -> jax.Array:
        """−x, entry by entry."""
        return -floating(x, self)

    def project(self, x) -> jax.Array:
        """max(x, 0)."""
        z = floating(x, self)
        return keep_inside(x, self.violation(z), jnp.where(z < 0, 0, z))
