"""What a penalty is."""

import abc
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxreg.pytree import Noun


class Penalty(Noun):
    """λΩ on one array.

    To add one: a frozen dataclass (`@noun`) with `measure`, and, where they are exact, `prox`, `optimality` and
    `critical`; then a row in `tests/table.py`. A function of each weight by itself is a `Separable`, one of the norm
    of each group a `Radial`: they say only what happens to one number.
    """

    differentiable: ClassVar[bool] = True  # False where the gradient says nothing, as for a count

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
