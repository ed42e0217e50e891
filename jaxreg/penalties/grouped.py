"""Penalties on the norms of groups of weights; `lam` may hold one λ per group."""

import functools

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, floating, in_groups, masked, norm, per_group
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
        return jnp.squeeze(lam * norm(masked(x, lam), axes, keepdims=True), axes)

    def prox(self, x, step) -> jax.Array:
        """Block soft threshold: x·max(1 − step·λ/‖x‖, 0) per group."""
        z, axes, lam = in_groups(self, x, self.lam)
        threshold = per_group(step, z, axes, self) * lam
        size = norm(z, axes, keepdims=True)
        shrink = 1 - threshold / jnp.where(size > 0, size, 1)
        return jnp.where(size >= threshold, z * shrink, 0).astype(jnp.result_type(x))

    def optimality(self, x, g) -> jax.Array:
        """max |g + λx/‖x‖| over non-zero groups, the ∞-norm distance of −g to the ball of radius λ over zero ones."""
        x, axes, lam = in_groups(self, x, self.lam)
        g = floating(g, self)
        size = norm(x, axes, keepdims=True)
        kept = size > 0
        residual = jnp.abs(g + lam * (x / jnp.where(kept, size, 1)))
        return largest(jnp.where(kept, jnp.max(residual, axes, keepdims=True, initial=0), _distance(g, lam, axes)))

    def critical(self, g) -> jax.Array:
        """max ‖g_g‖₂ (with an array λ, max ‖g_g‖₂/λ_g)."""
        g, axes, lam = in_groups(self, g, self.lam)
        return smallest_factor(norm(g, axes, keepdims=True), lam)


@functools.partial(jax.jit, static_argnames="axes")  # called eagerly, the loop would compile anew each time
def _distance(g, radius, axes):
    """∞-norm distance from g to the 2-ball of `radius` per group: the t ≥ 0 with ‖(|g| − t)₊‖₂ = radius."""

    def newton(carry):
        # ‖(|g| − t)₊‖ is convex and decreasing in t: from the left, Newton climbs to the root and stops there.
        t, _ = carry
        rest = jnp.maximum(jnp.abs(g) - t, 0)
        size = norm(rest, axes, keepdims=True)
        total = jnp.sum(rest, axes, keepdims=True)
        rise = (size - radius) * (size / jnp.where(total > 0, total, 1))
        return t + jnp.maximum(rise, 0), t

    start = jnp.zeros_like(norm(g, axes, keepdims=True))
    return jax.lax.while_loop(lambda c: jnp.any(c[0] > c[1]), newton, (start, start - 1))[0]
