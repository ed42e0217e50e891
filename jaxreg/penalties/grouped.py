"""Penalties on the norms of groups of weights; `lam` may hold one λ per group."""

import functools

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, floating, in_groups, masked, norm, per_group, polar, times
from jaxreg.penalties.base import Penalty, largest, smallest_factor
from jaxreg.pytree import noun, static


@noun
class GroupL2(Penalty):
    r"""Group lasso, Σ_g λ_g‖x_g‖₂, without a hidden √size weight.

    A group is kept or set to zero as a whole. Its gradient at a zero group is 0.

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

    References:
        Yuan and Lin, Model selection and estimation in regression with grouped variables, 2006, eq. 2.1.
    """

    lam: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def measure(self, x) -> jax.Array:
        """λ‖x‖₂ per group."""
        x, axes, lam = in_groups(self, x, self.lam)
        return jnp.squeeze(times(lam, norm(masked(x, lam), axes)), axes)

    def prox(self, x, step) -> jax.Array:
        """Block soft threshold: x·max(1 − step·λ/‖x‖, 0) per group."""
        z, axes, lam = in_groups(self, x, self.lam)
        threshold = times(per_group(step, z, axes, self), lam)
        size = norm(z, axes)
        shrink = 1 - threshold / jnp.where(size == 0, 1, size)
        return jnp.where(size < threshold, 0, z * shrink).astype(jnp.result_type(x))

    def optimality(self, x, g) -> jax.Array:
        """max |g + λx/‖x‖| over non-zero groups, the ∞-norm distance of −g to the ball of radius λ over zero ones."""
        x, axes, lam = in_groups(self, x, self.lam)
        g = floating(g, self)
        direction, size = polar(x, axes)
        residual = jnp.max(jnp.abs(g + lam * direction), axes, keepdims=True, initial=0)
        return largest(jnp.where(size == 0, _distance(g, lam, axes), residual))

    def critical(self, g) -> jax.Array:
        """max ‖g_g‖₂ (with an array λ, max ‖g_g‖₂/λ_g)."""
        g, axes, lam = in_groups(self, g, self.lam)
        return smallest_factor(norm(g, axes), lam)


@functools.partial(jax.jit, static_argnames="axes")  # called eagerly, the loop would compile anew each time
def _distance(g, radius, axes):
    """∞-norm distance from g to the 2-ball of `radius` per group: the t ≥ 0 with ‖(|g| − t)₊‖₂ = radius."""

    def rise(t, g, radius):
        rest = jnp.maximum(jnp.abs(g) - t, 0)
        size = norm(rest, axes)
        total = jnp.sum(rest, axes, keepdims=True)
        return (size - radius) * (size / jnp.where(total == 0, 1, total))

    # ‖(|g| − t)₊‖ is convex and decreasing in t: from the left, Newton climbs to the root and stops there.
    fixed = jax.lax.stop_gradient((g, radius))
    start = jnp.zeros_like(norm(fixed[0], axes))
    t, _ = jax.lax.while_loop(
        lambda c: jnp.any(c[0] > c[1]), lambda c: (c[0] + jnp.maximum(rise(c[0], *fixed), 0), c[0]), (start, start - 1)
    )
    # One more step from the root goes nowhere, and has the root's derivatives.
    inside = norm(g, axes) <= radius
    return jnp.where(inside, 0, t + rise(t, g, radius))
