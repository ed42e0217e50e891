"""Norm balls, per group."""

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, in_groups, magnitude, norm
from jaxreg.constraints.base import Constraint, excess, keep_inside
from jaxreg.geometry import onto_cube, onto_octahedron, onto_sphere
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
        return jnp.squeeze(excess(jnp.sum(magnitude(x), axes, keepdims=True), radius), axes)

    def project(self, x) -> jax.Array:
        """sign(x)·max(|x| − θ, 0) with the θ that makes the norm r, for groups with ‖x‖₁ > r."""
        z, axes, radius = in_groups(self, x, self.radius)
        return keep_inside(x, self.violation(z), onto_octahedron(z, radius, axes), axes)


@noun
class LinfBall(Constraint):
    r"""‖x‖_∞ ≤ r per group: no weight of the group exceeds r.

    Args:
        radius: r ≥ 0 (inf allowed), a number or an array that broadcasts against the groups (an r per group).
        axis: the axes inside one group (0 for the incoming weights of a unit of an `(in, out)` kernel, 1 for
            `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group.

    Raises:
        ValueError: if a literal `radius` is negative or NaN.

    >>> LinfBall(1.0).project(jnp.array([2.0, -1.5, 0.25])).tolist()
    [1.0, -1.0, 0.25]
    """

    radius: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def violation(self, x) -> jax.Array:
        """‖x‖_∞ − r per group."""
        x, axes, radius = in_groups(self, x, self.radius)
        return jnp.squeeze(excess(jnp.max(magnitude(x), axes, keepdims=True, initial=0), radius), axes)

    def project(self, x) -> jax.Array:
        """sign(x)·min(|x|, r)."""
        z, axes, radius = in_groups(self, x, self.radius)
        return keep_inside(x, self.violation(z), onto_cube(z, radius), axes)
