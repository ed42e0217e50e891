"""Penalties on the singular values of matrices, and on how far units are from orthonormal."""

import math

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, in_groups, magnitude, masked, norm, polar, times
from jaxreg.geometry import lower_peaks, soft_threshold
from jaxreg.penalties.base import Penalty, largest, smallest_factor
from jaxreg.pytree import noun, static
from jaxreg.spectra import (
    matrices,
    nuclear,
    onto_nuclear_ball,
    peak,
    product,
    rebuild,
    signs,
    spectral,
    svd,
    tops,
    transpose,
)


@noun
class Nuclear(Penalty):
    r"""Nuclear norm, λΣs over the singular values s: low rank, as the lasso's few weights.

    Its `prox` is the soft threshold of the singular values at step·λ; those up to it become 0. Its gradient is λUVᵀ
    over the singular values that are not 0, so 0 at 0.

    A leaf is a matrix: its last group axis the columns, the other group axes the rows.

    Args:
        lam: λ ≥ 0, a number or an array that broadcasts against the matrices (a λ per matrix).
        axis: the axes inside one matrix: None for an `(in, out)` or `(out, in)` kernel and for HWIO convolutions,
            read as (H·W·I, O); (-2, -1) for stacks of matrices, as of vmapped or scanned layers.

    Raises:
        ValueError: if a literal `lam` is negative or NaN.

    >>> x = jnp.diag(jnp.array([3.0, -2.0, 0.5]))
    >>> Nuclear(2.0).value(x).item()
    11.0
    >>> Nuclear(1.0).prox(x, step=1.0).tolist()
    [[2.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 0.0]]

    References:
        Fazel, Matrix rank minimization with applications, 2002, section 5.1;
        Cai, Candès and Shen, A singular value thresholding algorithm for matrix completion, 2010, theorem 2.1.
    """

    lam: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def measure(self, x) -> jax.Array:
        """λΣs per matrix."""
        z, _, lam = matrices(self, x, self.lam)
        return times(lam, nuclear(masked(z, lam[..., None])))[..., 0]

    def prox(self, x, step) -> jax.Array:
        """U diag((s − step·λ)₊)Vᵀ per matrix."""
        z, back, lam, step = matrices(self, x, self.lam, step)
        t = times(step, lam)
        factors = svd(masked(z, t[..., None]))
        lowered = rebuild((0.0, 1.0), z, factors, soft_threshold(factors.s, t), factors.s > t)
        return back(lowered).astype(jnp.result_type(x))

    def optimality(self, x, g) -> jax.Array:
        """max |g + λ(UVᵀ + W)|, W the admissible matrix nearest to what g asks for.

        W may be any matrix with ‖W‖₂ ≤ 1 on the null spaces of x. An upper bound of the distance in the ∞-norm, exact
        where x has full rank; 0 at a minimiser all the same.
        """
        z, _, lam = matrices(self, x, self.lam)
        g, *_ = matrices(self, g)
        factors = svd(z)
        u, _, v = factors
        kept = signs(z, factors, jnp.result_type(x))
        beside = g - product(u * kept[..., None, :], product(transpose(u), g))
        beside = product(product(beside, v * (1 - kept[..., None, :])), transpose(v))
        null = svd(beside)
        free = rebuild((1.0, 0.0), beside, null, jnp.minimum(null.s, lam), null.s > lam)
        direction = rebuild((0.0, 0.0), z, factors, kept, kept > 0)
        return largest(jnp.abs(g + times(lam[..., None], direction) - free))

    def critical(self, g) -> jax.Array:
        """max ‖g‖₂ (with an array λ, max ‖g‖₂/λ)."""
        g, _, lam = matrices(self, g, self.lam)
        return smallest_factor(spectral(g), lam)


@noun
class SpectralNorm(Penalty):
    r"""Spectral norm, λ max s over the singular values s: the Lipschitz constant of a dense layer.

    Its `prox` lowers the largest singular values to a common level, by step·λ in all; a matrix with Σs ≤ step·λ
    becomes 0. Its gradient is λuvᵀ of the largest singular value, an average where several are largest, 0 at 0.

    A leaf is a matrix: its last group axis the columns, the other group axes the rows.

    Args:
        lam: λ ≥ 0, a number or an array that broadcasts against the matrices (a λ per matrix).
        axis: the axes inside one matrix: None for an `(in, out)` or `(out, in)` kernel and for HWIO convolutions,
            read as (H·W·I, O); (-2, -1) for stacks of matrices, as of vmapped or scanned layers.

    Raises:
        ValueError: if a literal `lam` is negative or NaN.

    >>> x = jnp.diag(jnp.array([3.0, -2.5, 0.5]))
    >>> SpectralNorm(2.0).value(x).item()
    6.0
    >>> SpectralNorm(1.5).prox(x, step=1.0).tolist()
    [[2.0, 0.0, 0.0], [0.0, -2.0, 0.0], [0.0, 0.0, 0.5]]

    References:
        Yoshida and Miyato, Spectral norm regularization for improving the generalizability of deep learning, 2017
        (they penalize its square).
    """

    lam: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def measure(self, x) -> jax.Array:
        """λ max s per matrix."""
        z, _, lam = matrices(self, x, self.lam)
        return times(lam, spectral(masked(z, lam[..., None])))[..., 0]

    def prox(self, x, step) -> jax.Array:
        """U diag(min(s, θ))Vᵀ, with the θ ≥ 0 that takes step·λ off Σs per matrix."""
        z, back, lam, step = matrices(self, x, self.lam, step)
        t = times(step, lam)
        factors = svd(masked(z, t[..., None]))
        f = lower_peaks(factors.s, t, (-1,))
        lowered = rebuild((1.0, 0.0), z, factors, f, (factors.s > f) | (peak(f) == 0))
        return back(lowered).astype(jnp.result_type(x))

    def optimality(self, x, g) -> jax.Array:
        """max |g + UMVᵀ|, U and V of the largest s, M ⪰ 0 of trace λ nearest to what g asks for.

        Where x = 0, the distance to the nearest matrix with Σs ≤ λ instead. An upper bound of the distance in the
        ∞-norm, exact where one singular value is largest; 0 at a minimiser all the same.
        """
        z, _, lam = matrices(self, x, self.lam)
        g, *_ = matrices(self, g)
        factors = svd(z)
        u, s, v = factors
        top = tops(z, factors, jnp.result_type(x))[..., None, :] > 0
        pull = -product(transpose(u), product(g, v))
        pull = jnp.where(top & transpose(top), (pull + transpose(pull)) / 2, 0)
        # A multiple of 1 added to M moves its nearest point nowhere, and makes eigenvalues singular values.
        shift = norm(pull, (-2, -1)) + lam[..., None]
        weights = onto_nuclear_ball(pull + jnp.where(top, shift, 0) * jnp.eye(s.shape[-1], dtype=s.dtype), lam)
        residual = g + product(product(u, weights), transpose(v))
        at_zero = g - onto_nuclear_ball(g, lam)
        return largest(jnp.abs(jnp.where(peak(s)[..., None] == 0, at_zero, residual)))

    def critical(self, g) -> jax.Array:
        """max Σs of g (with an array λ, max Σs/λ)."""
        g, _, lam = matrices(self, g, self.lam)
        return smallest_factor(nuclear(g), lam)


@noun
class Orthogonality(Penalty):
    r"""How far units are from orthonormal, λ‖WᵀW − I‖²_F; with `cosine`, from orthogonal, as Keras has it.

    Units lie along the last axis that is not in `axis`; other axes are stacks of layers. Each unit's measure is
    λΣ_j(⟨w_i, w_j⟩ − δ_ij)², with `cosine` λ/(n(n−1)) Σ_{j≠i}|cos(w_i, w_j)|, which does not see the units' norms:
    their sum is λ times the mean over pairs. The cosine with a zero unit is 0. It has no exact prox.

    Args:
        lam: λ ≥ 0, a number or an array that broadcasts against the units (a λ per unit).
        axis: the axes inside one unit (0 for the incoming weights of a unit of an `(in, out)` kernel, 1 for
            `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one unit.
        cosine: whether to measure cosines; Keras' `OrthogonalRegularizer(λ, mode)` is axis 0 for "columns", 1 for
            "rows".

    Raises:
        ValueError: if a literal `lam` is negative or NaN.

    >>> x = jnp.array([[1.0, 3.0], [0.0, 4.0]])
    >>> Orthogonality(1.0, axis=0).measure(x).tolist()
    [9.0, 585.0]
    >>> round(Orthogonality(1.0, axis=0, cosine=True).value(x).item(), 6)
    0.6

    References:
        Brock et al., Neural photo editing with introspective adversarial networks, 2017, section 3.3;
        Bansal, Chen and Wang, Can we gain more from orthogonality regularizations, 2018, eq. 1.
    """

    lam: jax.typing.ArrayLike
    axis: Axis = static(default=None)
    cosine: bool = static(default=False)

    def measure(self, x) -> jax.Array:
        """λΣ_j(⟨w_i, w_j⟩ − δ_ij)², or λ/(n(n−1)) Σ_{j≠i}|cos(w_i, w_j)|, per unit."""
        x, axes, lam = in_groups(self, x, self.lam)
        units = jnp.moveaxis(masked(x, lam), axes, range(-len(axes), 0))
        shape = units.shape[: x.ndim - len(axes)]
        count = shape[-1] if shape else 1
        units = units.reshape(*shape[:-1], count, math.prod(units.shape[len(shape) :]))
        if self.cosine:
            units, _ = polar(units, (-1,))
        gram, eye = product(units, transpose(units)), jnp.eye(count, dtype=x.dtype)
        cosines = magnitude(gram) * (1 - eye) / max(count * (count - 1), 1)
        wrong = cosines if self.cosine else jnp.square(gram - eye)
        return times(jnp.squeeze(lam, axes) if lam.ndim else lam, jnp.sum(wrong, -1).reshape(shape))
