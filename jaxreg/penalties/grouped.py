"""Penalties on groups of weights; every number may be an array, one for each group."""

import abc
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, floating, in_groups, magnitude, masked, norm, per_group, polar, times
from jaxreg.geometry import block_threshold, climb, level, lower_peaks, soft_threshold
from jaxreg.penalties.base import Penalty, largest, smallest_factor
from jaxreg.penalties.concave import MCP
from jaxreg.penalties.separable import L1, Separable
from jaxreg.pytree import check_above, check_fields, check_share, noun, static


class Radial(Penalty):
    """Σ_g φ(‖x_g‖₂): a subclass says which separable penalty φ is.

    Its fields are `lam`, its own numbers, and `axis`. The gradient at a zero group is 0.
    """

    lam: jax.typing.ArrayLike
    axis: Axis

    @abc.abstractmethod
    def profile(self, x, axes, lam) -> Separable:
        """φ with one number per group of `x`, the group's axes kept at size 1."""

    def measure(self, x) -> jax.Array:
        """φ(‖x‖₂) per group."""
        x, axes, lam = in_groups(self, x, self.lam)
        return jnp.squeeze(self.profile(x, axes, lam).measure(norm(masked(x, lam), axes)), axes)

    def prox(self, x, step) -> jax.Array:
        """prox_φ of the norm, in the direction of x, per group."""
        z, axes, lam = in_groups(self, x, self.lam)
        size = norm(z, axes)
        shrunk = self.profile(z, axes, lam).prox(size, per_group(step, z, axes, self))
        lost = jnp.where(jnp.isinf(size), 0, size - shrunk)  # 1 − lost/size is 1 where nothing is lost
        return jnp.where(shrunk == 0, 0, z * (1 - lost / jnp.where(size == 0, 1, size))).astype(jnp.result_type(x))

    def optimality(self, x, g) -> jax.Array:
        """max |g + φ'(‖x‖)x/‖x‖| where x ≠ 0, the ∞-norm distance of −g to the ball of radius φ'(0⁺) elsewhere."""
        x, axes, lam = in_groups(self, x, self.lam)
        g, profile, (direction, size) = floating(g, self), self.profile(x, axes, lam), polar(x, axes)
        residual = jnp.max(jnp.abs(g + jax.grad(profile.value)(size) * direction), axes, keepdims=True, initial=0)
        return largest(jnp.where(size == 0, climb(g, times(lam, profile.kink(size)), axes), residual))

    def critical(self, g) -> jax.Array:
        """max ‖g_g‖₂λ/φ'(0⁺) (with an array λ, max ‖g_g‖₂/φ'(0⁺))."""
        g, axes, lam = in_groups(self, g, self.lam)
        return self.profile(g, axes, lam).critical(norm(g, axes))


@noun
class GroupL2(Radial):
    r"""Group lasso, Σ_g λ_g‖x_g‖₂, without a hidden √size weight.

    A group is kept or set to zero as a whole: its `prox` is the block soft threshold x·max(1 − step·λ/‖x‖, 0).

    Groups that overlap are groups of latent copies: give each group its own row of parameters v, use their sum as the
    weights, and penalize the rows. The support is then a union of groups.

    Args:
        lam: λ ≥ 0, a number or an array that broadcasts against the groups (a λ per group).
        axis: the axes inside one group (0 for the incoming weights of a unit of an `(in, out)` kernel, 1 for
            `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group.

    Raises:
        ValueError: if a literal `lam` is negative or NaN.

    >>> x = jnp.array([[3.0, 0.3], [4.0, 0.4]])
    >>> GroupL2(2.0, axis=0).measure(x).tolist()
    [10.0, 1.0]
    >>> GroupL2(2.5, axis=0).prox(x, step=1.0).tolist()
    [[1.5, 0.0], [2.0, 0.0]]

    Two overlapping groups of four weights:

    >>> groups = jnp.array([[0, 1, 2], [2, 3, 0]])
    >>> v = jnp.array([[3.0, 0.0, 4.0], [0.1, 0.0, 0.2]])
    >>> jnp.zeros(4).at[groups].add(GroupL2(2.5, axis=1).prox(v, step=1.0)).tolist()
    [1.5, 0.0, 2.0, 0.0]

    References:
        Yuan and Lin, Model selection and estimation in regression with grouped variables, 2006, eq. 2.1;
        Jacob, Obozinski and Vert, Group lasso with overlap and graph lasso, 2009, eq. 4.
    """

    lam: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def profile(self, x, axes, lam):
        """λ|·|."""
        return L1(lam, axis=())


@noun
class GroupMCP(Radial):
    r"""The minimax concave penalty of each group's norm, Σ_g MCP(‖x_g‖₂; λ_g, γ): groups beyond γλ are not shrunk.

    Its `prox` is the firm threshold of the norm, the global minimiser; `optimality` certifies a stationary point.

    Args:
        lam: λ ≥ 0, the slope at 0, a number or an array that broadcasts against the groups (a λ per group).
        gamma: γ > 0; ∞ is `GroupL2`. A number or an array, as `lam`.
        axis: the axes inside one group (0 for the incoming weights of a unit of an `(in, out)` kernel, 1 for
            `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group.

    Raises:
        ValueError: if a literal `lam` is negative or NaN, or a literal `gamma` is not positive.

    >>> x = jnp.array([[3.0, 0.3], [4.0, 0.4]])
    >>> GroupMCP(1.0, 2.0, axis=0).prox(x, step=1.0).tolist()
    [[3.0, 0.0], [4.0, 0.0]]

    References:
        Huang, Breheny and Ma, A selective review of group selection in high-dimensional models, 2012, section 3.2.
    """

    homogeneous: ClassVar[bool] = False

    lam: jax.typing.ArrayLike
    gamma: jax.typing.ArrayLike = 3.0
    axis: Axis = static(default=None)

    def __post_init__(self):
        check_fields(self)
        check_above(self, "gamma", 0)

    def profile(self, x, axes, lam):
        """MCP with λ and γ of the group."""
        return MCP(lam, per_group(self.gamma, x, axes, self), axis=())


@noun
class SparseGroup(Penalty):
    r"""Sparse group lasso, Σ_g λ_g(ρ‖x_g‖₁ + (1−ρ)‖x_g‖₂) with ρ = `l1_ratio`: few groups, few weights in each.

    Its `prox` is the soft threshold at step·λρ, then the block soft threshold at step·λ(1−ρ).

    Args:
        lam: λ ≥ 0, a number or an array that broadcasts against the groups (a λ per group).
        l1_ratio: ρ in [0, 1]; 1 is the lasso, 0 the group lasso. A number or an array, as `lam`.
        axis: the axes inside one group (0 for the incoming weights of a unit of an `(in, out)` kernel, 1 for
            `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group.

    Raises:
        ValueError: if a literal `lam` is negative or NaN, or a literal `l1_ratio` is outside [0, 1].

    >>> SparseGroup(2.0, 0.5).value(jnp.array([3.0, -4.0])).item()
    12.0
    >>> SparseGroup(5.0, 0.5).prox(jnp.array([5.5, -6.5, 0.5]), step=1.0).tolist()
    [1.5, -2.0, 0.0]

    References:
        Simon, Friedman, Hastie and Tibshirani, A sparse-group lasso, 2013, eq. 3.
    """

    lam: jax.typing.ArrayLike
    l1_ratio: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def __post_init__(self):
        check_fields(self)
        check_share(self, "l1_ratio")

    def _parts(self, x):
        x, axes, lam = in_groups(self, x, self.lam)
        ratio = per_group(self.l1_ratio, x, axes, self)
        return x, axes, times(lam, ratio), times(lam, 1 - ratio)

    def measure(self, x) -> jax.Array:
        """λρ‖x‖₁ + λ(1−ρ)‖x‖₂ per group."""
        x, axes, sparse, group = self._parts(x)
        one = times(sparse, jnp.sum(magnitude(masked(x, sparse)), axes, keepdims=True))
        return jnp.squeeze(one + times(group, norm(masked(x, group), axes)), axes)

    def prox(self, x, step) -> jax.Array:
        """Soft threshold, then block soft threshold."""
        z, axes, sparse, group = self._parts(x)
        t = per_group(step, z, axes, self)
        sparse, group = times(t, sparse), times(t, group)
        return block_threshold(soft_threshold(z, sparse), group, axes).astype(jnp.result_type(x))

    def optimality(self, x, g) -> jax.Array:
        """The ∞-norm distance of −g to the subdifferential, group by group."""
        x, axes, sparse, group = self._parts(x)
        return sparse_group_distance(x, floating(g, self), sparse, group, axes)

    def critical(self, g) -> jax.Array:
        """The smallest λ with ‖(|g| − λρ)₊‖₂ ≤ λ(1−ρ) in every group."""
        g, axes, sparse, group = self._parts(g)
        if jnp.ndim(self.lam) == 0:
            ratio = per_group(self.l1_ratio, g, axes, self)
            sparse, group = ratio, 1 - ratio
        return largest(climb(g, jnp.zeros_like(group), axes, share=sparse, growth=group))


def sparse_group_distance(x, g, sparse, group, axes) -> jax.Array:
    """∞-norm distance of −g to the subdifferential of Σ sparse·|xᵢ| + Σ_g group·‖x_g‖₂."""
    direction, size = polar(x, axes)
    smooth = g + group * direction
    residual = jnp.where(x == 0, jnp.maximum(jnp.abs(smooth) - sparse, 0), jnp.abs(smooth + sparse * jnp.sign(x)))
    residual = jnp.max(residual, axes, keepdims=True, initial=0)
    return largest(jnp.where(size == 0, climb(soft_threshold(g, sparse), group, axes), residual))


@noun
class GroupLinf(Penalty):
    r"""Σ_g λ_g‖x_g‖_∞: the weights of a group share one bound, and its `prox` lowers the largest to a common level.

    `prox` takes step·λ off the 1-norm of each group from the top; a group with ‖x‖₁ ≤ step·λ becomes 0.

    Args:
        lam: λ ≥ 0, a number or an array that broadcasts against the groups (a λ per group).
        axis: the axes inside one group (0 for the incoming weights of a unit of an `(in, out)` kernel, 1 for
            `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group.

    Raises:
        ValueError: if a literal `lam` is negative or NaN.

    >>> GroupLinf(2.0).value(jnp.array([3.0, -4.0])).item()
    8.0
    >>> GroupLinf(2.0).prox(jnp.array([3.0, -4.0, 1.0]), step=1.0).tolist()
    [2.5, -2.5, 1.0]

    References:
        Turlach, Venables and Wright, Simultaneous variable selection, 2005, eq. 2.
    """

    lam: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def measure(self, x) -> jax.Array:
        """λ‖x‖_∞ per group."""
        x, axes, lam = in_groups(self, x, self.lam)
        return jnp.squeeze(times(lam, jnp.max(magnitude(masked(x, lam)), axes, keepdims=True, initial=0)), axes)

    def prox(self, x, step) -> jax.Array:
        """sign(x)·min(|x|, θ), with the θ ≥ 0 that takes step·λ off ‖x‖₁ per group."""
        z, axes, lam = in_groups(self, x, self.lam)
        t = times(per_group(step, z, axes, self), lam)
        lowered = lower_peaks(masked(z, t), t, axes)
        return jnp.where((t == 0) & jnp.isinf(z), z, lowered).astype(jnp.result_type(x))

    def optimality(self, x, g) -> jax.Array:
        """The ∞-norm distance of −g to λ times the averages of the peaks' signs, or to the 1-ball where x = 0."""
        x, axes, lam = in_groups(self, x, self.lam)
        g = floating(g, self)
        size = jnp.abs(x)
        top = jnp.max(size, axes, keepdims=True, initial=0)
        peak = (size == top) & (top > 0)
        # −g at the peaks has to be λ times weights of an average, up to t in each entry; elsewhere 0, up to t.
        pull = jnp.where(peak, -g * jnp.sign(x), -jnp.inf)
        high = jnp.maximum(level(jnp.where(top == 0, jnp.abs(g), pull), lam, axes), 0)
        short = lam - jnp.sum(jnp.where(peak, pull, 0), axes, keepdims=True)
        low = jnp.maximum(short / jnp.maximum(jnp.sum(peak.astype(x.dtype), axes, keepdims=True), 1), 0)
        wrong = jnp.max(jnp.where(peak, jnp.maximum(-pull, 0), jnp.abs(g)), axes, keepdims=True, initial=0)
        nonzero = jnp.maximum(jnp.maximum(high, low), wrong)
        return largest(jnp.where(jnp.isnan(top), top, jnp.where(top == 0, high, nonzero)))

    def critical(self, g) -> jax.Array:
        """max ‖g_g‖₁ (with an array λ, max ‖g_g‖₁/λ_g)."""
        g, axes, lam = in_groups(self, g, self.lam)
        return smallest_factor(jnp.sum(jnp.abs(g), axes, keepdims=True), lam)
