"""What a penalty is."""

import abc
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxreg.pytree import Noun


class Penalty(Noun):
    r"""λΩ on one array.

    To add one: a frozen dataclass (`@noun`) with `measure`, and, where they are exact, `prox`, `optimality` and
    `critical`; then a row in `tests/table.py`. A function of each weight by itself is a `Separable`, one of the norm
    of each group a `Radial`: they say only what happens to one number.

    What the laws ask: `axis` is `static`; arithmetic runs in float32 at least (`floating`), whatever the leaf's dtype;
    0·∞ = 0 (`masked`, `times`), so that λ = 0 is no penalty; gradients are finite at kinks, and those in λ survive
    λ = 0; the prox at λ = ∞ is exact.

    >>> from jaxreg.arrays import floating, group_axes, masked, per_entry, times
    >>> from jaxreg.penalties import Penalty, noun, static
    >>> @noun
    ... class LogCosh(Penalty):
    ...     '''λΣ log cosh x: ridge for small weights, the lasso for large ones.'''
    ...
    ...     lam: jax.typing.ArrayLike
    ...     axis: tuple[int, ...] | None = static(default=None)
    ...
    ...     def measure(self, x):
    ...         x = floating(x, self)
    ...         lam = per_entry(self.lam, x, self)
    ...         size = jnp.abs(masked(x, lam))
    ...         cost = size + jnp.log1p(jnp.exp(-2 * size)) - jnp.log(2).astype(x.dtype)
    ...         return jnp.sum(times(lam, cost), group_axes(self.axis, x, self))
    >>> jax.grad(LogCosh(2.0, axis=0).value)(jnp.array([0.0, 50.0])).tolist()
    [0.0, 2.0]
    """

    differentiable: ClassVar[bool] = True  # False where the gradient says nothing, as for a count
    homogeneous: ClassVar[bool] = True  # False where it is not λ times a measure, as for `MCP` and sums
    separable: ClassVar[bool] = False  # True where it is a sum over weights, so that `prox` takes a step per weight

    @abc.abstractmethod
    def measure(self, x) -> jax.Array:
        """λΩ per group; the shape of `x` without `axis`, float32 at least."""

    def value(self, x) -> jax.Array:
        """λΩ(x), the sum of `measure(x)`: a scalar, float32 at least."""
        return jnp.sum(self.measure(x))

    def __add__(self, other) -> "Penalty":
        """The sum of two penalties."""
        from jaxreg.penalties.composition import Sum

        return Sum((self, other)) if isinstance(other, Penalty) else NotImplemented

    def __radd__(self, other) -> "Penalty":
        """`sum` begins with 0."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    @property
    def proximable(self) -> bool:
        """Whether `prox` exists; a wrapper answers for what it wraps."""
        return hasattr(type(self), "prox")


def largest(x) -> jax.Array:
    """The largest entry of a non-negative array, 0 for an empty one."""
    return jnp.max(x, initial=0)


def smallest_factor(pull, lam, share=1.0) -> jax.Array:
    """The smallest λ with `pull` ≤ λ·share in every group; with an array `lam`, the smallest factor on it.

    `lam` has the shape of the groups or none. 0 where nothing pulls, inf where no λ is enough.
    """
    weight = share if jnp.ndim(lam) == 0 else share * lam
    enough = weight > 0
    factor = jnp.where(enough, pull / jnp.where(enough, weight, 1), jnp.inf)
    return largest(jnp.where(pull == 0, 0, factor))
