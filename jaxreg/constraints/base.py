"""What a constraint is."""

import abc
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis
from jaxreg.pytree import Noun, noun, title


class Constraint(Noun):
    """Ω(x) ≤ k on one array.

    To add one: a frozen dataclass (`@noun`) with `violation` and, where it has a closed form, `project`;
    then a row in `tests/table.py`.
    """

    differentiable: ClassVar[bool] = True  # False where the gradient of `violation` says nothing, as for a count

    signed: ClassVar[bool] = True  # False where `violation` is a distance, never below 0: a set without an inside

    @abc.abstractmethod
    def violation(self, x) -> jax.Array:
        """Signed Ω(x) − k per group, ≤ 0 inside; float32 at least, gradient finite everywhere."""

    @property
    def projectable(self) -> bool:
        """Whether `project` exists; a wrapper answers for what it wraps."""
        return hasattr(type(self), "project")


def excess(value, bound) -> jax.Array:
    """value − bound, and −∞ at the bound ∞ whatever the value."""
    return jnp.where(jnp.isposinf(bound), -jnp.inf, value - bound)


def keep_inside(x, violation, outside, axes=()) -> jax.Array:
    """`x` itself, bit for bit, in groups that are inside; `outside` elsewhere, in the dtype of `x`.

    `outside` is computed for all groups: its derivatives have to be finite inside too, and its idea of inside may
    differ from `violation`'s by a rounding.
    """
    x = jnp.asarray(x)
    return jnp.where(jnp.expand_dims(violation <= 0, axes), x, outside.astype(x.dtype))


@noun
class Equality(Constraint):
    """Ω(x) = k: asks for `violation` = 0, so its multiplier has any sign. It has no `project`.

    Args:
        constraint: the constraint Ω(x) ≤ k whose boundary is meant.

    Raises:
        TypeError: if `constraint` is not a constraint.

    >>> import jaxreg as jr
    >>> Equality(jr.L2Ball(1.0)).violation(jnp.array([0.3, 0.4])).item()
    -0.5
    """

    constraint: Constraint

    def __post_init__(self):
        if not isinstance(self.constraint, Constraint):
            raise TypeError(
                f"`Equality` needs a constraint, got {self.constraint!r}. Bound a penalty first: `SublevelSet`."
            )
        if not self.constraint.signed:
            raise TypeError(
                f"`Equality` needs a constraint with an inside; `{title(self.constraint)}` asks for equality itself. "
                "For a sphere use `Equality(L2Ball(radius))`."
            )

    @property
    def axis(self) -> Axis:
        """The axes inside one group of `constraint`, where it has groups."""
        return getattr(self.constraint, "axis", None)

    @property
    def differentiable(self) -> bool:
        """Whether the gradient of the violation says something."""
        return self.constraint.differentiable

    def violation(self, x) -> jax.Array:
        """The signed violation of `constraint`."""
        return self.constraint.violation(x)
