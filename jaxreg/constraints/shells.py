"""Norms with a lower bound, per group. None of these sets is convex: 0 has no nearest point, and stays."""

from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, in_groups, norm, per_group, polar
from jaxreg.constraints.base import Constraint, excess, keep_inside
from jaxreg.pytree import check_fields, check_order, check_share, noun, static


@noun
class Sphere(Constraint):
    r"""‖x‖₂ = r per group: unit-norm weights with r = 1.

    A zero group has no direction and stays where it is. For multipliers `Equality(L2Ball(r))` is the smooth form.

    Args:
        radius: r ≥ 0, a number or an array that broadcasts against the groups (an r per group); inf asks nothing.
        axis: the axes inside one group (0 for the incoming weights of a unit of an `(in, out)` kernel, 1 for
            `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group.

    Raises:
        ValueError: if a literal `radius` is negative or NaN.

    >>> Sphere(1.0, axis=0).project(jnp.array([[3.0, 0.0], [0.0, 0.0]])).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    >>> Sphere(1.0).violation(jnp.array([0.3, 0.4])).item()
    0.5

    References:
        Salimans and Kingma, Weight normalization, 2016, section 2.
    """

    signed: ClassVar[bool] = False

    radius: jax.typing.ArrayLike = 1.0
    axis: Axis = static(default=None)

    def violation(self, x) -> jax.Array:
        """|‖x‖₂ − r| per group."""
        x, axes, radius = in_groups(self, x, self.radius)
        return jnp.squeeze(_distance(norm(x, axes), radius, radius), axes)

    def project(self, x) -> jax.Array:
        """x·r/‖x‖."""
        z, axes, radius = in_groups(self, x, self.radius)
        return keep_inside(x, self.violation(z), _rescaled(z, axes, radius, radius), axes)


@noun
class NormRange(Constraint):
    r"""a ≤ ‖x‖₂ ≤ b per group, approached at a rate: Keras' `MinMaxNorm`, without its ε.

    `project` moves the norm by `rate` of the way to the nearest bound; with a rate below 1 it is no projection, and it
    takes several steps to arrive. A zero group has no direction and stays where it is.

    Args:
        lower: a ≥ 0, a number or an array that broadcasts against the groups.
        upper: b ≥ a, likewise; inf for none.
        axis: the axes inside one group (0 for the incoming weights of a unit of an `(in, out)` kernel, 1 for
            `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group.
        rate: the part of the way, in [0, 1], a number or an array that broadcasts against the groups.

    Raises:
        ValueError: if a literal bound is negative or NaN, literal bounds cross, or a literal `rate` is above 1.

    >>> w = jnp.array([[3.0, 0.375, 0.0], [4.0, 0.5, 0.0]])
    >>> NormRange(1.0, 2.5, axis=0).violation(w).tolist()
    [2.5, 0.375, 1.0]
    >>> NormRange(0.5, 2.5, axis=0, rate=0.5).project(w).tolist()
    [[2.25, 0.375, 0.0], [3.0, 0.5, 0.0]]

    References:
        Keras 3, `keras.constraints.MinMaxNorm`.
    """

    lower: jax.typing.ArrayLike
    upper: jax.typing.ArrayLike
    axis: Axis = static(default=None)
    rate: jax.typing.ArrayLike = 1.0

    def __post_init__(self):
        check_fields(self)
        check_order(self)
        check_share(self, "rate")

    def violation(self, x) -> jax.Array:
        """max(a − ‖x‖₂, ‖x‖₂ − b) per group."""
        x, axes, lower = in_groups(self, x, self.lower)
        return jnp.squeeze(_distance(norm(x, axes), lower, per_group(self.upper, x, axes, self)), axes)

    def project(self, x) -> jax.Array:
        """x·(1 − rate·(1 − n/‖x‖)), n the nearest norm in [a, b]."""
        z, axes, lower = in_groups(self, x, self.lower)
        upper, rate = (per_group(number, z, axes, self) for number in (self.upper, self.rate))
        nearest = _rescaled(z, axes, lower, upper)
        moved = jnp.where(rate == 1, nearest, z + rate * (nearest - z))
        return keep_inside(x, self.violation(z), moved, axes)


def _distance(size, lower, upper):
    """max(lower − size, size − upper); a lower bound ∞ asks nothing."""
    return jnp.maximum(excess(size, upper), jnp.where(jnp.isposinf(lower), -jnp.inf, lower - size))


def _rescaled(x, axes, lower, upper):
    """x with its norm clipped to [lower, upper]."""
    direction, size = polar(x, axes)
    bound = jnp.where(size > upper, upper, lower)
    return jnp.where((size > upper) | (size < lower), direction * jnp.where(jnp.isposinf(bound), 0, bound), x)
