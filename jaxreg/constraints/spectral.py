"""Bounds on the singular values of matrices.

A leaf is a matrix: its last group axis the columns, the other group axes the rows.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, group_axes, norm
from jaxreg.constraints.base import Constraint, excess, keep_inside
from jaxreg.pytree import noun, static
from jaxreg.spectra import (
    Factors,
    matrices,
    noise,
    nuclear,
    onto_nuclear_ball,
    product,
    rebuild,
    signs,
    spectral,
    svd,
    transpose,
)


@noun
class SpectralBall(Constraint):
    r"""max s ≤ r over the singular values s: a dense layer's Lipschitz constant is at most r.

    Args:
        radius: r ≥ 0 (inf allowed), a number or an array that broadcasts against the matrices (an r per matrix).
        axis: the axes inside one matrix: None for an `(in, out)` or `(out, in)` kernel and for HWIO convolutions,
            read as (H·W·I, O); (-2, -1) for stacks of matrices, as of vmapped or scanned layers.

    Raises:
        ValueError: if a literal `radius` is negative or NaN.

    >>> SpectralBall(1.0).project(jnp.diag(jnp.array([3.0, -0.5]))).tolist()
    [[1.0, 0.0], [0.0, -0.5]]

    References:
        Gouk et al., Regularisation of neural networks by enforcing Lipschitz continuity, 2021.
    """

    radius: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def violation(self, x) -> jax.Array:
        """max s − r per matrix."""
        z, _, radius = matrices(self, x, self.radius)
        return excess(spectral(z), radius)[..., 0]

    def project(self, x) -> jax.Array:
        """U diag(min(s, r))Vᵀ."""
        z, back, radius = matrices(self, x, self.radius)
        factors = svd(z)
        over = factors.s > radius
        clipped = rebuild((1.0, 0.0), z, factors, jnp.where(over, radius, factors.s), over)
        return _keep_inside(self, x, back(clipped))


@noun
class NuclearBall(Constraint):
    r"""Σs ≤ r over the singular values s: the convex stand-in for a bound on the rank.

    Args:
        radius: r ≥ 0 (inf allowed), a number or an array that broadcasts against the matrices (an r per matrix).
        axis: the axes inside one matrix: None for an `(in, out)` or `(out, in)` kernel and for HWIO convolutions,
            read as (H·W·I, O); (-2, -1) for stacks of matrices, as of vmapped or scanned layers.

    Raises:
        ValueError: if a literal `radius` is negative or NaN.

    >>> NuclearBall(3.0).project(jnp.diag(jnp.array([4.0, -2.0, 0.5]))).round(4).tolist()
    [[2.5, 0.0, 0.0], [0.0, -0.5, 0.0], [0.0, 0.0, 0.0]]

    References:
        Cai, Candès and Shen, A singular value thresholding algorithm for matrix completion, 2010.
    """

    radius: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def violation(self, x) -> jax.Array:
        """Σs − r per matrix."""
        z, _, radius = matrices(self, x, self.radius)
        return excess(nuclear(z), radius)[..., 0]

    def project(self, x) -> jax.Array:
        """U diag((s − θ)₊)Vᵀ with the θ that makes the sum r, for matrices with Σs > r."""
        z, back, radius = matrices(self, x, self.radius)
        return _keep_inside(self, x, back(onto_nuclear_ball(z, radius)))


@noun
class RankAtMost(Constraint):
    r"""rank ≤ r, not convex: a matrix goes to its r largest singular values.

    Singular values count from where they exceed what the arithmetic, and the rounding of the weights to their dtype,
    leave of a 0. The gradient of `violation` is 0.

    Args:
        rank: r ≥ 0 (inf allowed), a number or an array that broadcasts against the matrices (an r per matrix).
        axis: the axes inside one matrix: None for an `(in, out)` or `(out, in)` kernel and for HWIO convolutions,
            read as (H·W·I, O); (-2, -1) for stacks of matrices, as of vmapped or scanned layers.

    Raises:
        ValueError: if a literal `rank` is negative or NaN.

    >>> x = jnp.diag(jnp.array([3.0, -2.0, 0.5]))
    >>> RankAtMost(1).violation(x).item()
    2.0
    >>> RankAtMost(1).project(x).tolist()
    [[3.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]

    References:
        Eckart and Young, The approximation of one matrix by another of lower rank, 1936.
    """

    differentiable: ClassVar[bool] = False

    rank: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def violation(self, x) -> jax.Array:
        """rank − r per matrix."""
        z, _, rank = matrices(self, x, self.rank)
        z = jax.lax.stop_gradient(z)
        return excess(jnp.sum(signs(z, svd(z), jnp.result_type(x)), -1, keepdims=True), rank)[..., 0]

    def project(self, x) -> jax.Array:
        """The r largest singular values and their vectors."""
        z, back, rank = matrices(self, x, self.rank)
        factors = svd(z)
        kept = jnp.arange(1, z.shape[-1] + 1, dtype=z.dtype) <= rank
        f = jnp.where(kept | jnp.isnan(factors.s), factors.s, 0)
        return _keep_inside(self, x, back(rebuild((0.0, 1.0), z, factors, f, jnp.broadcast_to(kept, f.shape))))


@noun
class Orthonormal(Constraint):
    r"""WᵀW = I for a tall matrix, WWᵀ = I for a wide one (the Stiefel manifold), not convex.

    A matrix goes to its polar factor UVᵀ; where its rank is short, to one of those as near, with no derivative there.

    Args:
        axis: the axes inside one matrix: None for an `(in, out)` or `(out, in)` kernel and for HWIO convolutions,
            read as (H·W·I, O); (-2, -1) for stacks of matrices, as of vmapped or scanned layers.

    >>> Orthonormal().project(jnp.diag(jnp.array([3.0, -0.5]))).tolist()
    [[1.0, 0.0], [0.0, -1.0]]
    >>> Orthonormal().violation(2 * jnp.eye(4)).item()
    6.0

    References:
        Schönemann, A generalized solution of the orthogonal Procrustes problem, 1966.
    """

    signed: ClassVar[bool] = False

    axis: Axis = static(default=None)

    def violation(self, x) -> jax.Array:
        """‖WᵀW − I‖_F per matrix, or ‖WWᵀ − I‖_F."""
        z, _ = matrices(self, x)
        return norm(product(transpose(z), z) - jnp.eye(z.shape[-1], dtype=z.dtype), (-2, -1))[..., 0, 0]

    def project(self, x) -> jax.Array:
        """UVᵀ."""
        z, back = matrices(self, x)
        u, s, v = factors = svd(z)
        # The derivative grows as 1/s; a singular value that may be 0 is one that has none.
        factors = Factors(u, jnp.where(s <= noise(z, factors, z.dtype), 0, s), v)
        f = jnp.where(jnp.isnan(s), s, 1)
        return _keep_inside(self, x, back(rebuild((0.0, 0.0), z, factors, f, f > 0)))


def _keep_inside(con, x, outside):
    return keep_inside(x, con.violation(x), outside, group_axes(con.axis, outside, con))
