"""Norm balls, per group, and the projections behind them."""

import functools

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, in_groups, norm, polar
from jaxreg.constraints.base import Constraint, excess, keep_inside
from jaxreg.pytree import noun, static


@noun
class L2Ball(Constraint):
    r"""‖x‖₂ ≤ r per group: max-norm regularization when a group is the incoming weights of a unit.

    Args:
        radius: r ≥ 0 (inf allowed), a number or an array that broadcasts against the groups (an r per group).
        axis: the axes inside one group (0 for the incoming weights of a unit of an `(in, out)` kernel, 1 for
            `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group, a Frobenius ball.

    Raises:
        ValueError: if a literal `radius` is negative or NaN.

    >>> w = jnp.array([[3.0, 0.3], [4.0, 0.4]])
    >>> L2Ball(1.0, axis=0).violation(w).tolist()
    [4.0, -0.5]
    >>> [[round(v, 6) for v in row] for row in L2Ball(1.0, axis=0).project(w).tolist()]
    [[0.6, 0.3], [0.8, 0.4]]

    References:
        Srebro and Shraibman, Rank, trace-norm and max-norm, 2005; Srivastava et al., Dropout, 2014, section 5.1.
    """

    radius: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def violation(self, x) -> jax.Array:
        """‖x‖₂ − r per group."""
        x, axes, radius = in_groups(self, x, self.radius)
        return jnp.squeeze(excess(norm(x, axes), radius), axes)

    def project(self, x) -> jax.Array:
        """x·r/‖x‖ for groups with ‖x‖ > r."""
        z, axes, radius = in_groups(self, x, self.radius)
        return keep_inside(x, self.violation(z), onto_sphere(z, radius, axes), axes)


@noun
class L1Ball(Constraint):
    r"""‖x‖₁ ≤ r per group.

    Args:
        radius: r ≥ 0 (inf allowed), a number or an array that broadcasts against the groups (an r per group).
        axis: the axes inside one group (0 for the incoming weights of a unit of an `(in, out)` kernel, 1 for
            `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group.

    Raises:
        ValueError: if a literal `radius` is negative or NaN.

    >>> L1Ball(1.0).project(jnp.array([2.0, -1.5, 0.25])).tolist()
    [0.75, -0.25, 0.0]

    References:
        Michelot, A finite algorithm for finding the projection of a point onto the canonical simplex, 1986.
    """

    radius: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def violation(self, x) -> jax.Array:
        """‖x‖₁ − r per group."""
        x, axes, radius = in_groups(self, x, self.radius)
        return jnp.squeeze(excess(jnp.sum(x * jnp.sign(x), axes, keepdims=True), radius), axes)

    def project(self, x) -> jax.Array:
        """sign(x)·max(|x| − θ, 0) with the θ that makes the norm r, for groups with ‖x‖₁ > r."""
        z, axes, radius = in_groups(self, x, self.radius)
        return keep_inside(x, self.violation(z), onto_octahedron(z, radius, axes), axes)


def onto_sphere(x, radius, axes) -> jax.Array:
    """x·r/‖x‖ per group with ‖x‖ > r, x elsewhere."""
    direction, size = polar(x, axes)
    outside = size > radius
    return jnp.where(outside, direction * jnp.where(outside, radius, 0), x)


@functools.partial(jax.jit, static_argnames="axes")  # called eagerly, the loop would compile anew each time
def onto_octahedron(x, radius, axes, weights=1.0) -> jax.Array:
    """Nearest point with Σ wᵢ|xᵢ| = r per group with Σ wᵢ|xᵢ| > r, x elsewhere.

    It is sign(x)·(|x| − θw)₊, θ the root of the convex, decreasing, piecewise linear Σ w(|x| − θw)₊ − r. Newton
    from the left climbs to it in finitely many steps (Michelot's algorithm), with neither sort nor gather.
    """
    w = jnp.broadcast_to(jnp.asarray(weights, x.dtype), x.shape)
    counts = w > 0
    size = jnp.abs(x)
    # Relative to the largest entry the arithmetic is as fine as r, however large x is: the kept ones are within r.
    top = jnp.max(jnp.where(counts, size / jnp.where(counts, w, 1), 0), axes, keepdims=True, initial=0)
    depth = size - jax.lax.stop_gradient(top) * w
    outside = jnp.sum(w * size, axes, keepdims=True) > radius
    radius = jnp.where(outside, radius, 0)

    def root(active, depth, radius):
        pull = jnp.sum(jnp.where(active, w * depth, 0), axes, keepdims=True) - radius
        total = jnp.sum(jnp.where(active, jnp.square(w), 0), axes, keepdims=True)
        return pull / jnp.where(total > 0, total, 1)

    def newton(carry):
        theta, _ = carry
        active = counts & (fixed > theta * fixed_w)
        # Rounding must not let a group step back: two of them in turn would never end.
        return jnp.maximum(root(active, fixed, fixed_radius), theta), theta

    fixed, fixed_w, fixed_radius = jax.lax.stop_gradient((depth, w, radius))
    # The root of the widest set and −r/min w² are both on its left; the first may overflow, the second is no use alone.
    least = jnp.min(jnp.where(counts, fixed_w, jnp.inf), axes, keepdims=True, initial=jnp.inf)
    first = jnp.maximum(root(counts, fixed, fixed_radius), -fixed_radius / jnp.square(least))
    theta, _ = jax.lax.while_loop(lambda c: jnp.any(c[0] > c[1]), newton, (first, jnp.full_like(first, -jnp.inf)))
    active = counts & (fixed > theta * fixed_w)
    kept = jnp.sign(x) * jnp.maximum(depth - root(active, depth, radius) * w, 0)
    kept = jnp.where(active | ~counts, kept, 0)
    return jnp.where(outside, jnp.where(jnp.isfinite(top), kept, jnp.nan), x)
