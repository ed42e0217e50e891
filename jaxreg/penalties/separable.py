"""Convex penalties on each weight by itself; every number may be an array, one for each weight."""

import abc
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, floating, group_axes, magnitude, masked, per_entry, times
from jaxreg.geometry import soft_threshold
from jaxreg.penalties.base import Penalty, largest, smallest_factor
from jaxreg.pytree import check_fields, check_share, noun, static


class Separable(Penalty):
    """Σ φ(xᵢ), φ even: a subclass says what one weight costs, how its prox shrinks it, and φ's slope at the kink.

    Its fields are `lam`, its own numbers, and `axis`.
    """

    separable: ClassVar[bool] = True

    lam: jax.typing.ArrayLike
    axis: Axis

    @abc.abstractmethod
    def cost(self, x, lam) -> jax.Array:
        """φ(x), entry by entry; its gradient at 0 is 0."""

    @abc.abstractmethod
    def shrink(self, x, step, lam) -> jax.Array:
        """argmin_z ½(z − x)² + step·φ(z), entry by entry; x itself, bit for bit, where step·λ = 0."""

    @abc.abstractmethod
    def kink(self, x) -> jax.typing.ArrayLike:
        """φ'(0⁺)/λ: below this share of λ no gradient moves a weight off 0."""

    def total(self, x, axes) -> jax.Array:
        """Σ φ(x)/λ over `axes`."""
        return jnp.sum(self.cost(x, jnp.ones((), x.dtype)), axes)

    def measure(self, x) -> jax.Array:
        """Σ φ(x) per group."""
        x = floating(x, self)
        axes, lam = group_axes(self.axis, x, self), per_entry(self.lam, x, self)
        if self.homogeneous and isinstance(self.lam, (int, float)) and 0 < self.lam < jnp.inf:
            # Nothing to mask; and inside the sum, XLA on a CPU writes a factor out as an array.
            return lam * self.total(x, axes)
        return jnp.sum(self.cost(masked(x, lam), lam), axes)

    def prox(self, x, step) -> jax.Array:
        """argmin_z ½‖z − x‖² + step·Σ φ(z); the step may be an array, one for each weight."""
        z = floating(x, self)
        return self.shrink(z, per_entry(step, z, self), per_entry(self.lam, z, self)).astype(jnp.result_type(x))

    def optimality(self, x, g) -> jax.Array:
        """max over weights of |g + φ'(x)|, or (|g| − φ'(0⁺))₊ where x = 0, or 0 where λ = ∞ too."""
        x, g = floating(x, self), floating(g, self)
        lam = per_entry(self.lam, x, self)
        slope = jax.grad(lambda x: jnp.sum(self.cost(masked(x, lam), lam)))(x)
        at_zero = jnp.maximum(jnp.abs(g) - times(lam, jnp.asarray(self.kink(x), x.dtype)), 0)
        at_zero = jnp.where(jnp.isinf(lam), 0, at_zero)
        return largest(jnp.where(x == 0, at_zero, jnp.abs(g + jnp.where(jnp.isnan(x), x, slope))))

    def critical(self, g) -> jax.Array:
        """max |g|λ/φ'(0⁺) (with an array λ, max |g|/φ'(0⁺))."""
        g = floating(g, self)
        share = jnp.asarray(self.kink(g), g.dtype)
        return smallest_factor(jnp.abs(g), per_entry(self.lam, g, self), share)


@noun
class L1(Separable):
    r"""Lasso penalty, λ‖x‖₁ = Σ λ|xᵢ|.

    Its gradient at 0 is 0. Exact zeros come from `prox` (verb `proximal`), never from gradient steps. Its `prox` is
    the soft threshold, sign(x)·max(|x| − step·λ, 0).

    Args:
        lam: λ ≥ 0, a number or an array that broadcasts against the weights (a λ per weight).
        axis: the axes inside one group of `measure` (0 for the incoming weights of a unit of an `(in, out)` kernel,
            1 for `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group. Changes no other method.

    Raises:
        ValueError: if a literal `lam` is negative or NaN.

    >>> L1(0.5).value(jnp.array([3.0, -1.0])).item()
    2.0
    >>> L1(0.5).prox(jnp.array([3.0, -1.0, 0.2]), step=1.0).tolist()
    [2.5, -0.5, 0.0]

    References:
        Tibshirani, Regression shrinkage and selection via the lasso, 1996, eq. 1.
    """

    lam: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def cost(self, x, lam):
        """λ|x|."""
        return times(lam, magnitude(x))

    def shrink(self, x, step, lam):
        """The soft threshold at step·λ."""
        return soft_threshold(x, times(step, lam))

    def kink(self, x):
        """1."""
        return 1.0


@noun
class SquaredL2(Separable):
    r"""Ridge penalty, (λ/2)‖x‖²; its gradient is λx, its `prox` x/(1 + step·λ).

    Args:
        lam: λ ≥ 0, a number or an array that broadcasts against the weights (a λ per weight).
        axis: the axes inside one group of `measure` (0 for the incoming weights of a unit of an `(in, out)` kernel,
            1 for `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group. Changes no other method.

    Raises:
        ValueError: if a literal `lam` is negative or NaN.

    >>> SquaredL2(0.5).value(jnp.array([3.0, 4.0])).item()
    6.25
    >>> SquaredL2(0.5, axis=0).measure(jnp.array([[3.0, 0.0], [4.0, 2.0]])).tolist()
    [6.25, 1.0]

    References:
        Hoerl and Kennard, Ridge regression, 1970, eq. 2.1.
    """

    lam: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def cost(self, x, lam):
        """(λ/2)x²."""
        return times(lam / 2, jnp.square(x))

    def total(self, x, axes):
        """Σ x²/2."""
        return jnp.sum(jnp.square(x), axes) / 2

    def shrink(self, x, step, lam):
        """x/(1 + step·λ)."""
        return x / (1 + times(step, lam))

    def kink(self, x):
        """0: no finite λ sets a weight to zero."""
        return 0.0


@noun
class ElasticNet(Separable):
    r"""Elastic net in glmnet's parametrization, λ(ρ‖x‖₁ + (1−ρ)/2 ‖x‖²) with ρ = `l1_ratio`.

    Args:
        lam: λ ≥ 0, a number or an array that broadcasts against the weights (a λ per weight).
        l1_ratio: ρ in [0, 1]; 1 is the lasso, 0 is ridge. A number or an array, as `lam`.
        axis: the axes inside one group of `measure` (0 for the incoming weights of a unit of an `(in, out)` kernel,
            1 for `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group. Changes no other method.

    Raises:
        ValueError: if a literal `lam` is negative or NaN, or a literal `l1_ratio` is outside [0, 1].

    >>> ElasticNet(2.0, 0.5).value(jnp.array([3.0, -4.0])).item()
    19.5

    References:
        Friedman, Hastie and Tibshirani, Regularization paths via coordinate descent, 2010, eq. 2.
    """

    lam: jax.typing.ArrayLike
    l1_ratio: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def __post_init__(self):
        check_fields(self)
        check_share(self, "l1_ratio")

    def cost(self, x, lam):
        """λ(ρ|x| + (1−ρ)x²/2)."""
        ratio = self.kink(x)
        return times(times(lam, ratio), magnitude(x)) + times(times(lam, 1 - ratio) / 2, jnp.square(x))

    def shrink(self, x, step, lam):
        """The soft threshold at step·λρ, divided by 1 + step·λ(1−ρ)."""
        ratio, t = self.kink(x), times(step, lam)
        return soft_threshold(x, times(t, ratio)) / (1 + times(t, 1 - ratio))

    def kink(self, x):
        """ρ."""
        return per_entry(self.l1_ratio, x, self)


@noun
class Huber(Separable):
    r"""Huber's function of each weight, λΣ h(xᵢ): h = x²/2 up to `delta`, δ(|x| − δ/2) beyond.

    Ridge for small weights, the lasso for large ones: outliers are spared, and nothing is set to zero. Its `prox` is
    x/(1 + step·λ) up to δ(1 + step·λ), x − step·λδ·sign(x) beyond.

    Args:
        lam: λ ≥ 0, a number or an array that broadcasts against the weights (a λ per weight).
        delta: δ ≥ 0, in the units of the weights; inf is `SquaredL2`. A number or an array, as `lam`.
        axis: the axes inside one group of `measure` (0 for the incoming weights of a unit of an `(in, out)` kernel,
            1 for `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group. Changes no other method.

    Raises:
        ValueError: if a literal `lam` or `delta` is negative or NaN.

    >>> Huber(2.0, 1.0).value(jnp.array([0.5, -3.0])).item()
    5.25
    >>> Huber(1.0, 1.0).prox(jnp.array([1.0, -3.0]), step=1.0).tolist()
    [0.5, -2.0]

    References:
        Huber, Robust estimation of a location parameter, 1964.
    """

    lam: jax.typing.ArrayLike
    delta: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def cost(self, x, lam):
        """λx²/2 up to δ, λδ(|x| − δ/2) beyond."""
        size, delta = magnitude(x), per_entry(self.delta, x, self)
        over = size > delta
        return times(lam, jnp.square(jnp.where(over, delta, size)) / 2 + times(delta, jnp.where(over, size - delta, 0)))

    def shrink(self, x, step, lam):
        """x/(1 + step·λ) up to δ(1 + step·λ), x − step·λδ·sign(x) beyond."""
        t, delta = times(step, lam), per_entry(self.delta, x, self)
        return jnp.where(jnp.abs(x) <= times(delta, 1 + t), x / (1 + t), x - jnp.sign(x) * times(t, delta))

    def kink(self, x):
        """0: no finite λ sets a weight to zero."""
        return 0.0
