"""Penalties that act on each weight by itself; `lam` may hold one λ per weight."""

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, floating, group_axes, masked, per_entry, times
from jaxreg.penalties.base import Penalty, largest, smallest_factor
from jaxreg.pytree import check_fields, noun, static


def soft_threshold(x, threshold) -> jax.Array:
    """sign(x)·max(|x| − threshold, 0); its zeros are +0."""
    return jnp.where(jnp.abs(x) <= threshold, 0, x - jnp.sign(x) * threshold)


@noun
class L1(Penalty):
    r"""Lasso penalty, λ‖x‖₁ = Σ λ|xᵢ|.

    Its gradient at 0 is 0. Exact zeros come from `prox` (verb `proximal`), never from gradient steps.

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

    def measure(self, x) -> jax.Array:
        """Σ λ|x| per group."""
        x = floating(x, self)
        lam = per_entry(self.lam, x, self)
        m = masked(x, lam)  # before the product with its sign, whose derivative would be 0·∞
        return jnp.sum(times(lam, m * jnp.sign(m)), group_axes(self.axis, x, self))

    def prox(self, x, step) -> jax.Array:
        """Soft threshold: sign(x)·max(|x| − step·λ, 0)."""
        z = floating(x, self)
        threshold = times(per_entry(step, z, self), per_entry(self.lam, z, self))
        return soft_threshold(z, threshold).astype(jnp.result_type(x))

    def optimality(self, x, g) -> jax.Array:
        """max over weights of |g + λ sign(x)|, or (|g| − λ)₊ where x = 0."""
        x, g = floating(x, self), floating(g, self)
        lam = per_entry(self.lam, x, self)
        return largest(jnp.where(x == 0, jnp.maximum(jnp.abs(g) - lam, 0), jnp.abs(g + lam * jnp.sign(x))))

    def critical(self, g) -> jax.Array:
        """max |g| (with an array λ, max |g|/λ)."""
        g = floating(g, self)
        return smallest_factor(jnp.abs(g), per_entry(self.lam, g, self))


@noun
class SquaredL2(Penalty):
    r"""Ridge penalty, (λ/2)‖x‖²; its gradient is λx.

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

    def measure(self, x) -> jax.Array:
        """Σ (λ/2)x² per group."""
        x = floating(x, self)
        lam = per_entry(self.lam, x, self)
        return jnp.sum(times(lam / 2, jnp.square(masked(x, lam))), group_axes(self.axis, x, self))

    def prox(self, x, step) -> jax.Array:
        """x / (1 + step·λ)."""
        z = floating(x, self)
        shrink = times(per_entry(step, z, self), per_entry(self.lam, z, self))
        return (z / (1 + shrink)).astype(jnp.result_type(x))

    def optimality(self, x, g) -> jax.Array:
        """max |g + λx|."""
        x, g = floating(x, self), floating(g, self)
        lam = per_entry(self.lam, x, self)
        return largest(jnp.abs(g + lam * masked(x, lam)))

    def critical(self, g) -> jax.Array:
        """0 where g = 0, else inf: no finite λ sets a weight to zero."""
        g = floating(g, self)
        return smallest_factor(jnp.abs(g), per_entry(self.lam, g, self), share=jnp.zeros((), g.dtype))


@noun
class ElasticNet(Penalty):
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
        if isinstance(self.l1_ratio, (int, float)) and self.l1_ratio > 1:
            raise ValueError(f"`ElasticNet` needs `l1_ratio` in [0, 1], got {self.l1_ratio}.")

    def _parts(self, x) -> tuple[L1, SquaredL2]:
        lam, ratio = per_entry(self.lam, x, self), per_entry(self.l1_ratio, x, self)
        return L1(times(lam, ratio), self.axis), SquaredL2(times(lam, 1 - ratio), self.axis)

    def measure(self, x) -> jax.Array:
        """Σ λ(ρ|x| + (1−ρ)x²/2) per group."""
        x = floating(x, self)
        l1, l2 = self._parts(x)
        return l1.measure(x) + l2.measure(x)

    def prox(self, x, step) -> jax.Array:
        """Soft threshold by step·λρ, then division by 1 + step·λ(1−ρ)."""
        z = floating(x, self)
        l1, l2 = self._parts(z)
        return l2.prox(l1.prox(z, step), step).astype(jnp.result_type(x))

    def optimality(self, x, g) -> jax.Array:
        """The lasso's distance at the gradient g + λ(1−ρ)x."""
        x, g = floating(x, self), floating(g, self)
        l1, l2 = self._parts(x)
        return l1.optimality(x, g + l2.lam * masked(x, l2.lam))

    def critical(self, g) -> jax.Array:
        """max |g|/ρ (with an array λ, max |g|/(λρ)); inf at ρ = 0."""
        g = floating(g, self)
        ratio = per_entry(self.l1_ratio, g, self)
        return smallest_factor(jnp.abs(g), per_entry(self.lam, g, self), share=ratio)
