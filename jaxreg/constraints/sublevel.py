"""A penalty read as a constraint: {x : λΩ(x) ≤ k}."""

import functools

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, floating, group_axes, per_entry, per_group, safe_sqrt
from jaxreg.constraints.base import Constraint, excess, keep_inside
from jaxreg.constraints.sparse import Sparse
from jaxreg.constraints.spectral import NuclearBall, SpectralBall
from jaxreg.geometry import onto_cube, onto_octahedron, onto_sphere
from jaxreg.penalties import L0, L1, GroupL2, GroupLinf, Nuclear, Penalty, SpectralNorm, SquaredL2
from jaxreg.pytree import check_fields, noun


@noun
class SublevelSet(Constraint):
    r"""{x : measure(x) ≤ k}, group by group, the strength of the penalty included.

    `SublevelSet(SquaredL2(1.0, axis=0), k)` is ½‖w_j‖² ≤ k for every column j of W. `violation` always exists;
    `project` where there is a closed form: `L1`, `SquaredL2`, `L0` (both with one λ per group), `GroupL2`,
    `GroupLinf`, `Nuclear`, `SpectralNorm`.

    Args:
        penalty: the penalty λΩ; its `axis` makes the groups.
        bound: k ≥ 0 (inf allowed), a number or an array that broadcasts against the groups (a k per group).

    Raises:
        TypeError: if `penalty` is not a penalty; from `project`, if it has no closed form.
        ValueError: if a literal `bound` is negative or NaN: the set would be empty.

    >>> SublevelSet(SquaredL2(1.0), 12.5).violation(jnp.array([3.0, 4.0])).item()
    0.0
    >>> SublevelSet(L1(2.0), 2.0).project(jnp.array([2.0, -1.5])).tolist()
    [0.75, -0.25]
    """

    penalty: Penalty
    bound: jax.typing.ArrayLike

    def __post_init__(self):
        if not isinstance(self.penalty, Penalty):
            raise TypeError(f"`SublevelSet` needs a penalty, got {self.penalty!r}.")
        check_fields(self)

    def violation(self, x) -> jax.Array:
        """measure(x) − k per group."""
        measure = self.penalty.measure(x)
        return excess(measure, per_group(self.bound, measure, (), self))

    @property
    def axis(self) -> Axis:
        """The axes inside one group of `penalty`."""
        return self.penalty.axis

    @property
    def differentiable(self) -> bool:
        """Whether the gradient of the penalty says something."""
        return self.penalty.differentiable

    @property
    def projectable(self) -> bool:
        """Whether the penalty's sublevel sets have a closed-form projection."""
        return nearest.dispatch(type(self.penalty)) is not nearest.dispatch(object)

    def project(self, x) -> jax.Array:
        """The nearest point of the set, where a closed form exists."""
        z = floating(x, self)
        axes = group_axes(self.penalty.axis, z, self) if self.projectable else ()
        bound = per_group(self.bound, z, axes, self)
        return keep_inside(x, self.violation(z), nearest(self.penalty, z, bound, axes), axes)


@functools.singledispatch
def nearest(penalty, x, bound, axes) -> jax.Array:
    """Nearest point with measure = bound per group with measure > bound, x elsewhere."""
    name = type(penalty).__name__
    raise TypeError(
        f"`SublevelSet({name}).project` needs a penalty whose sublevel sets have a closed-form projection; "
        f"`{name}` has none. Use `multipliers`, which needs only `violation`."
    )


@nearest.register
def _(penalty: L1, x, bound, axes):
    return onto_octahedron(x, bound, axes, per_entry(penalty.lam, x, penalty))


@nearest.register
def _(penalty: GroupL2, x, bound, axes):
    return onto_sphere(x, _quotient(bound, per_group(penalty.lam, x, axes, penalty)), axes)


@nearest.register
def _(penalty: GroupLinf, x, bound, axes):
    return onto_cube(x, _quotient(bound, per_group(penalty.lam, x, axes, penalty)))


@nearest.register
def _(penalty: SquaredL2, x, bound, axes):
    return onto_sphere(x, safe_sqrt(2 * _quotient(bound, _one_per_group(penalty, x, axes))), axes)


@nearest.register
def _(penalty: L0, x, bound, axes):
    # The most weights whose measure, as `violation` rounds it, is in bounds.
    count = jnp.floor(_quotient(bound, _one_per_group(penalty, x, axes)))
    best = jnp.zeros_like(x)
    for k in (count - 1, count, count + 1):
        kept = _within(Sparse, k, x, axes)
        best = jnp.where(jnp.expand_dims(penalty.measure(kept), axes) > bound, best, kept)
    return best


@nearest.register
def _(penalty: Nuclear, x, bound, axes):
    return _within(NuclearBall, _quotient(bound, per_group(penalty.lam, x, axes, penalty)), x, axes)


@nearest.register
def _(penalty: SpectralNorm, x, bound, axes):
    return _within(SpectralBall, _quotient(bound, per_group(penalty.lam, x, axes, penalty)), x, axes)


def _within(ball, bound, x, axes):
    """Nearest point of a set with one number per group, kept at size 1."""
    return ball(jnp.squeeze(bound, axes) if bound.ndim else bound, axes).project(x)


def _one_per_group(penalty, x, axes):
    """The strength of a separable penalty, if it is one per group."""
    lam = jnp.asarray(penalty.lam, x.dtype)
    if lam.ndim:
        lam = lam.reshape((1,) * (x.ndim - lam.ndim) + lam.shape)
        if any(lam.shape[a] != 1 for a in axes):
            name = type(penalty).__name__
            raise ValueError(
                f"`SublevelSet({name}).project` needs one λ per group: with a λ per weight the set has no closed form. "
                f"Got `lam` of shape {jnp.shape(penalty.lam)} for a leaf of shape {x.shape} with axis={penalty.axis}. "
                "Use `multipliers`."
            )
    return lam


def _quotient(bound, lam):
    """bound/λ, and ∞ at λ = 0, where every point is inside."""
    return jnp.where(lam > 0, bound / jnp.where(lam > 0, lam, 1), jnp.inf)
