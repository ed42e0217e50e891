"""How multipliers move: the dual half of primal-dual descent, one array of multipliers at a time."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg.arrays import times
from jaxreg.pytree import as_number, flatten
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
        if self.log_space and start is None:
            raise ValueError(f"`{verb}` needs a `start` > 0 in log space, near the multipliers to come; got None.")
        for number in jax.tree.leaves(start):
            if isinstance(as_number(verb, "start", number), (int, float)) and self.log_space and not number > 0:
                raise ValueError(f"`{verb}` needs `start` > 0 in log space, got {number}.")
        return self

    def check_kind(self, verb: str, equality: bool, start=None) -> None:
        """Refuse what does not fit the multiplier of an equality, or of an inequality."""
        if equality and self.log_space:
            raise ValueError(f"`{verb}` needs inequalities in log space: the multiplier of an equality has any sign.")
        for number in [] if equality else jax.tree.leaves(start):
            if isinstance(number, (int, float)) and not number >= 0:
                raise ValueError(f"`{verb}` needs `start` >= 0 for inequalities, got {number}.")

    def at(self, count) -> "Ascent":
        """The same with its schedules at `count`."""
        return Ascent(*(at(getattr(self, field.name), count) for field in dataclasses.fields(self)))

    @property
    def damped(self) -> bool:
        """Whether there is a proportional gain, for which the last violation has to be kept."""
        return not (isinstance(self.proportional, (int, float)) and self.proportional == 0)

    def begin(self, violations, start=None):
        """α_0 for a tree of violations: `start` for all, or for each its own, by path; by default 0."""
        leaves, structure = flatten(violations)
        one = start is None or jax.tree_util.all_leaves([start])
        own = dict.fromkeys(dict(leaves), start) if one else dict(flatten(start)[0])
        if own.keys() != dict(leaves).keys():
            raise ValueError(
                "multipliers need a `start` for all violations, or a tree like them: "
                f"{jax.tree.structure(violations)}; got {jax.tree.structure(start)}."
            )
        return jax.tree.unflatten(structure, [_filled(v, own[path]) for path, v in leaves])

    def smooth(self, last, v, count) -> jax.Array:
        """ξ_t = ν·ξ_{t−1} + (1 − ν)·v_t, from ξ_{−1} = v_0."""
        return v + times(jnp.asarray(self.ema, v.dtype), -self.change(last, v, count))

    def change(self, last, new, count) -> jax.Array:
        """ξ_t − ξ_{t−1}; from or to an infinite violation (bound = ∞) it is none, as from ξ_{−1} to ξ_0."""
        return jnp.where((count == 0) | jnp.isinf(last) | jnp.isinf(new), 0, new - last)

    def step(self, equality: bool, alpha, v, change=None) -> jax.Array:
        """α_{t+1}, but for restarts."""
        rise = times(jnp.asarray(self.dual_learning_rate, v.dtype), v)
        if change is not None:
            rise = rise + times(jnp.asarray(self.proportional, v.dtype), change)
        if self.log_space:
            # Within the normal numbers: a multiplier that slept or ran away for long has to be able to return.
            info = jnp.finfo(v.dtype)
            return jnp.clip(alpha * jnp.exp(rise), info.tiny, info.max)
        return dual(equality, alpha + rise, v)

    def fall(self, equality: bool, alpha, v, start) -> jax.Array:
        """α_{t+1} after a restart: no more than its start where v < 0."""
        return alpha if equality else jnp.where(v < 0, jnp.minimum(alpha, start), alpha)

    def weight(self, equality: bool, alpha, v) -> jax.Array:
        """[α + c·v]₊, what the gradient of the violation is multiplied by."""
        return dual(equality, alpha + times(jnp.asarray(self.augmentation, v.dtype), v), v)


def _filled(v, number) -> jax.Array:
    """An array like `v` with this number, or 0 for None; a buffer of its own."""
    number = 0 if number is None else number
    try:
        return jnp.array(jnp.broadcast_to(jnp.asarray(number, v.dtype), v.shape))
    except ValueError:
        raise ValueError(
            f"multipliers need a `start` that broadcasts to their violations, of shape {v.shape}; got shape "
            f"{jnp.shape(number)}."
        ) from None


def dual(equality: bool, alpha, v) -> jax.Array:
    """The multiplier's domain: any sign for an equality, [·]₊ for an inequality."""
    if equality:
        return alpha
    # At 0 a larger gain has an effect where v > 0 only: so has its derivative.
    return jnp.where((alpha < 0) | ((alpha == 0) & (v <= 0)), 0, alpha)
