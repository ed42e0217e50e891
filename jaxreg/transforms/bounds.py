"""Where the bounds of `cpr` come from: a number, or what the measure is at some point of the training."""

import abc
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxreg.arrays import times
from jaxreg.pytree import Noun, check_fields, check_share, checked_number, noun, static


class Trend(NamedTuple):
    """What `inflection_point` remembers of the measure R, per group.

    Attributes:
        smooth: the moving average of R.
        sample: its value at the end of the last window.
        growth: its growth over the last window.
    """

    smooth: jax.Array
    sample: jax.Array
    growth: jax.Array

    @classmethod
    def begin(cls, measure) -> "Trend":
        """At R(θ_0), in buffers of its own: states are donated."""
        return cls(jnp.array(measure), jnp.array(measure), jnp.zeros_like(measure))


class Bound(NamedTuple):
    """k per group, whether it holds yet, and the trend if some rule asks for it."""

    k: jax.Array
    active: jax.Array
    trend: Trend | None = None


class Rule(Noun):
    """How a bound is found; a leaf of the tree of bounds."""

    @abc.abstractmethod
    def start(self, measure) -> Bound:
        """The bound before the first step, from R(θ_0)."""

    def follow(self, bound: Bound, count, measure) -> Bound:
        """The bound at step `count`, from the one before it and R(θ_t)."""
        return bound


@noun
class Fixed(Rule):
    """k as given."""

    k: jax.typing.ArrayLike

    def start(self, measure):
        """k, from the start."""
        try:
            k = jnp.broadcast_to(jnp.asarray(self.k, measure.dtype), measure.shape)
        except ValueError:
            raise ValueError(
                "`cpr` needs a `bound` that broadcasts to the groups of its leaf, of shape "
                f"{measure.shape}; got shape {jnp.shape(self.k)}."
            ) from None
        return Bound(jnp.array(k), jnp.ones(measure.shape, bool))

    def follow(self, bound, count, measure):
        """k as it is now, which may not be what it was."""
        return bound._replace(k=self.start(measure).k)


@noun
class initial_norm(Rule):
    r"""The bound k = factor·R(θ_0) for `cpr`, one per group.

    What starts at 0, as biases do, would be held there: leave it out.

    Args:
        factor: ≥ 0, of the measure of the initial parameters.

    Raises:
        ValueError: if a literal `factor` is negative or NaN.

    >>> import jaxreg as jr
    >>> jr.cpr(jr.SquaredL2(2.0), jr.initial_norm(0.5)).init(jnp.array([3.0, 4.0])).bound.item()
    12.5

    References:
        Franke et al., Improving deep learning optimization through constrained parameter regularization, 2024
        (Kappa-kI₀).
    """

    factor: jax.typing.ArrayLike = 1.0

    def start(self, measure):
        """factor·R(θ_0), from the start."""
        return Bound(times(jnp.asarray(self.factor, measure.dtype), measure), jnp.ones(measure.shape, bool))


@noun
class warm_start(Rule):
    r"""The bound k = R(θ_t) at step t = `steps` for `cpr`, one per group; no bound before.

    Args:
        steps: t ≥ 0, an int.

    Raises:
        TypeError: if `steps` is no int.
        ValueError: if `steps` is negative.

    References:
        Franke et al., Improving deep learning optimization through constrained parameter regularization, 2024
        (Kappa-WS).
    """

    steps: int = static()

    def __post_init__(self):
        _check_int(self, "steps", 0)

    def start(self, measure):
        """No bound yet."""
        return _none(measure)

    def follow(self, bound, count, measure):
        """R(θ_t) at t = steps."""
        now = count == self.steps
        return bound._replace(k=jnp.where(now, measure, bound.k), active=bound.active | now)


@noun
class inflection_point(Rule):
    r"""The bound k = R(θ_t) for `cpr` where R stops growing faster, one per group; no bound before.

    R is smoothed, r_t = r_{t−1} + (1 − ema)(R(θ_t) − r_{t−1}) with r_0 = R(θ_0). Every `every` steps, the growth of r
    over the last window is compared with that over the window before; where it is not larger, k = R(θ_t) from now on.
    The first window is the average's own start and is not compared: the first chance is at t = 3·every. There is no
    inflection in a norm that falls ever more slowly, and nothing to bound.

    Args:
        every: the length of a window in steps, an int ≥ 1.
        ema: in [0, 1], the share of the past in the moving average; 0 is no smoothing.

    Raises:
        TypeError: if `every` is no int.
        ValueError: if `every` < 1, or a literal `ema` is outside [0, 1].

    References:
        Franke et al., Improving deep learning optimization through constrained parameter regularization, 2024
        (Kappa-IP).
    """

    every: int = static(default=200)
    ema: jax.typing.ArrayLike = 0.9

    def __post_init__(self):
        check_fields(self)
        _check_int(self, "every", 1)
        check_share(self, "ema")

    def start(self, measure):
        """No bound yet."""
        return _none(measure)

    def follow(self, bound, count, measure):
        """R(θ_t) at the end of the first window in which r grew no more than in the one before."""
        smooth, sample, growth = bound.trend
        smooth = smooth + (1 - jnp.asarray(self.ema, measure.dtype)) * (measure - smooth)
        closes = (count > 0) & (count % self.every == 0)
        grown = smooth - sample
        now = closes & (count >= 3 * self.every) & (grown <= growth) & ~bound.active
        trend = Trend(smooth, jnp.where(closes, smooth, sample), jnp.where(closes, grown, growth))
        return Bound(jnp.where(now, measure, bound.k), bound.active | now, trend)


def as_rule(bound) -> Rule:
    """A rule as it is; a number as one."""
    if isinstance(bound, Noun) and not isinstance(bound, Rule):
        raise TypeError(
            "`cpr` needs a number, an array, `initial_norm`, `warm_start` or `inflection_point` as `bound`, or a tree "
            f"of them, got {bound!r}."
        )
    return bound if isinstance(bound, Rule) else Fixed(checked_number("cpr", "bound", bound))


def _none(measure) -> Bound:
    return Bound(jnp.zeros_like(measure), jnp.zeros(measure.shape, bool))


def _check_int(rule: Rule, field: str, least: int) -> None:
    name, value = type(rule).__name__, getattr(rule, field)
    if type(value) is not int:
        raise TypeError(f"`{name}` needs an int as `{field}`, got {value!r}.")
    if value < least:
        raise ValueError(f"`{name}` needs `{field}` >= {least}, got {value}.")
