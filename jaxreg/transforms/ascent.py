"""How multipliers move: the dual half of primal-dual descent, one array of multipliers at a time."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg.arrays import times
from jaxreg.pytree import as_number, is_schedule
from jaxreg.transforms.base import at, check_rate


@dataclasses.dataclass(frozen=True)
class Ascent:
    """α_{t+1} = [α_t + η·v_t + κ·(ξ_t − ξ_{t−1})]₊, and its variants; ξ is v, smoothed by `ema`.

    Its fields are options of `multipliers`; numbers may be schedules until `at`.
    """

    dual_learning_rate: Any
    augmentation: Any = 0.0
    proportional: Any = 0.0
    ema: Any = 0.0
    alternating: bool = False
    restart: bool = False
    log_space: bool = False

    def checked(self, verb: str, start) -> "Ascent":
        """Itself, if its numbers are what they have to be."""
        for name in ("dual_learning_rate", "augmentation", "proportional", "ema"):
            check_rate(getattr(self, name), verb, name)
        if isinstance(self.ema, (int, float)) and self.ema >= 1:
            raise ValueError(f"`{verb}` needs `ema` in [0, 1), got {self.ema}.")
        for number in jax.tree.leaves(start):
            if isinstance(as_number(verb, "start", number), (int, float)) and self.log_space and not number > 0:
                raise ValueError(f"`{verb}` needs `start` > 0 in log space, got {number}.")
        return self

    def check_kind(self, verb: str, equality: bool, start=None) -> None:
        """Refuse what does not fit the multiplier of an equality, or of an inequality."""
        if equality and self.log_space:
            raise ValueError(f"`{verb}` needs inequalities in log space: the multiplier of an equality has any sign.")
        if not equality and isinstance(start, (int, float)) and not start >= 0:
            raise ValueError(f"`{verb}` needs `start` >= 0 for inequalities, got {start}.")

    def at(self, count) -> "Ascent":
        """The same with its schedules at `count`."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Ascent(**{name: at(value, count) if is_schedule(value) else value for name, value in fields.items()})

    @property
    def damped(self) -> bool:
        """Whether there is a proportional gain, for which the last violation has to be kept."""
        return not (isinstance(self.proportional, (int, float)) and self.proportional == 0)

    def begin(self, v, start=None) -> jax.Array:
        """α_0 for violations `v`: `start`, by default 0, or 1 in log space."""
        if start is None:
            start = 1.0 if self.log_space else 0.0
        try:
            return jnp.array(jnp.broadcast_to(jnp.asarray(start, v.dtype), v.shape))
        except ValueError:
            raise ValueError(
                "multipliers need a `start` that broadcasts to their violations, of shape "
                f"{v.shape}; got shape {jnp.shape(start)}."
            ) from None

    def smooth(self, last, v, count) -> jax.Array:
        """ξ_t = ν·ξ_{t−1} + (1 − ν)·v_t, from ξ_{−1} = v_0."""
        return v + times(jnp.asarray(self.ema, v.dtype), -self.change(last, v, count))

    def change(self, last, new, count) -> jax.Array:
        """ξ_t − ξ_{t−1}; two infinite violations (bound = ∞) differ by nothing."""
        return jnp.where((count == 0) | (new == last), 0, new - last)

    def step(self, equality: bool, alpha, v, start, change=None) -> jax.Array:
        """α_{t+1}."""
        rise = times(jnp.asarray(self.dual_learning_rate, v.dtype), v)
        if change is not None:
            rise = rise + times(jnp.asarray(self.proportional, v.dtype), change)
        if self.log_space:
            # Not below the smallest normal number: a multiplier that slept for long has to be able to wake up.
            new = jnp.maximum(alpha * jnp.exp(rise), jnp.finfo(v.dtype).tiny)
        else:
            new = dual(equality, alpha + rise, v)
        if self.restart and not equality:
            new = jnp.where(v < 0, start, new)
        return new

    def weight(self, equality: bool, alpha, v) -> jax.Array:
        """[α + c·v]₊, what the gradient of the violation is multiplied by."""
        return dual(equality, alpha + times(jnp.asarray(self.augmentation, v.dtype), v), v)


def dual(equality: bool, alpha, v) -> jax.Array:
    """The multiplier's domain: any sign for an equality, [·]₊ for an inequality."""
    if equality:
        return alpha
    # At 0 a larger gain has an effect where v > 0 only: so has its derivative.
    return jnp.where((alpha < 0) | ((alpha == 0) & (v <= 0)), 0, alpha)
