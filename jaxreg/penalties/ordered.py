"""Convex penalties on ordered weights: by rank (`Slope`) or by place (`TotalVariation`).

Both proxes are one problem on chains, `fuse`: neighbours that cannot afford to differ are fused to a common level.
"""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, floating, group_axes, magnitude, masked, per_group, times
from jaxreg.chains import fuse, fused_distance, mean_so_far, starts
from jaxreg.penalties.base import Penalty, largest, smallest_factor
from jaxreg.pytree import noun, static


@noun
class Slope(Penalty):
    r"""Sorted ℓ1 norm (OWL), Σᵢ λ₍ᵢ₎|x|₍ᵢ₎ per group: the largest weight pays the largest λ.

    Weights that nearly tie in size become equal in size, whatever their places. Equal λs are `L1`, (λ, 0, …, 0) is
    `GroupLinf`, and λᵢ = a + b(n − i) is OSCAR, aΣ|xᵢ| + bΣ_{i<j} max(|xᵢ|, |xⱼ|). Its `prox` takes step·λ off the
    sorted sizes, averages what is then out of order, and clips at 0; weights that tie stay tied, bit for bit.

    Args:
        lams: the λs ≥ 0 in any order, as many as a group has weights, the same for every group; a number is `L1`.
        axis: the axes inside one group (0 for the incoming weights of a unit of an `(in, out)` kernel, 1 for
            `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group.

    Raises:
        ValueError: if a literal `lams` is negative or NaN; at use, if there are not as many λs as weights in a group.

    >>> pen = Slope(jnp.array([3.0, 2.0, 1.0]))
    >>> pen.value(jnp.array([1.0, -4.0, 2.0])).item()
    17.0
    >>> pen.prox(jnp.array([5.0, -4.5, 0.5]), step=1.0).tolist()
    [2.25, -2.25, 0.0]

    References:
        Bogdan et al., SLOPE: adaptive variable selection via convex optimization, 2015, section 2;
        Bondell and Reich, Simultaneous regression shrinkage with OSCAR, 2008.
    """

    homogeneous: ClassVar[bool] = False

    lams: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def _sorted(self, x):
        """x as a column per group, the way back, and the λs, the largest first, as a column."""
        x, back = columns(x, group_axes(self.axis, x, self))
        lams = jnp.asarray(self.lams, x.dtype)
        if lams.ndim and lams.shape != x.shape[:1]:
            raise ValueError(
                f"`Slope` needs a number or as many λs as a group has weights, {len(x)}; got shape {lams.shape}."
            )
        return x, back, -jnp.sort(-jnp.broadcast_to(lams, x.shape[:1]))[:, None]

    def measure(self, x) -> jax.Array:
        """Σᵢ λ₍ᵢ₎|x|₍ᵢ₎ per group."""
        x = floating(x, self)
        groups = [n for i, n in enumerate(x.shape) if i not in group_axes(self.axis, x, self)]
        x, _, lams = self._sorted(x)
        size = jnp.sort(magnitude(x), 0, descending=True)
        return jnp.sum(times(lams, masked(size, lams)), 0).reshape(groups)

    def prox(self, x, step) -> jax.Array:
        """argmin_z ½‖z − x‖² + step·Σᵢ λ₍ᵢ₎|z|₍ᵢ₎."""
        z = floating(x, self)
        step = jnp.broadcast_to(per_group(step, z, group_axes(self.axis, z, self), self), z.shape)
        (z, back, lams), (step, _) = self._sorted(z), columns(step, group_axes(self.axis, z, self))
        t = times(step, lams)
        most = jnp.max(t, 0, keepdims=True, initial=0)
        size = jnp.abs(masked(z, most))
        order = jnp.argsort(-size, 0)
        size = jnp.take_along_axis(size, order, 0)
        # What ties now may not part by rounding.
        fall = jnp.where(size[1:] == size[:-1], jnp.inf, 0).astype(z.dtype)
        level = fuse(size - jnp.where(jnp.isinf(t), 0, t), jnp.full_like(fall, jnp.inf), fall)
        level = jnp.take_along_axis(jnp.where(level <= 0, 0, level), jnp.argsort(order, 0), 0)
        level = jnp.where(jnp.isinf(most), jnp.where(jnp.isnan(z), z, 0), jnp.sign(z) * level)
        return back(jnp.where((most == 0) & jnp.isinf(z), z, level)).astype(jnp.result_type(x))

    def optimality(self, x, g) -> jax.Array:
        """The ∞-norm distance of −g to the subdifferential: a base polytope per cluster of tied sizes."""
        x, _, lams = self._sorted(floating(x, self))
        g, _, _ = self._sorted(floating(g, self))
        pull = jnp.where(x == 0, jnp.abs(g), -g * jnp.sign(x))
        size, pull = jax.lax.sort((-jnp.abs(x), -pull), dimension=0, num_keys=2)
        excess = -pull - lams
        start = starts(size[1:] != size[:-1], size.shape)
        end = jnp.flip(starts(jnp.flip(start[1:], 0), size.shape), 0)
        # The k strongest pulls may not exceed the k largest λs of the cluster, nor the k weakest fall short of the
        # k smallest; zeros may pull less.
        above = mean_so_far(excess, start)
        below = jnp.flip(mean_so_far(jnp.flip(-excess, 0), jnp.flip(end, 0)), 0)
        return largest(jnp.maximum(above, jnp.where(size == 0, 0, below)))

    def critical(self, g) -> jax.Array:
        """max over k of the k largest |g| over the k largest λs (with a number as `lams`, max |g|)."""
        g, _, lams = self._sorted(floating(g, self))
        share = jnp.cumsum(jnp.ones_like(lams) if jnp.ndim(self.lams) == 0 else lams, 0)
        pull = jnp.cumsum(jnp.sort(jnp.abs(g), 0, descending=True), 0)
        return smallest_factor(pull, jnp.broadcast_to(share, g.shape))


@noun
class TotalVariation(Penalty):
    r"""Total variation along one axis, λΣ|xᵢ₊₁ − xᵢ| (the fusion part of the fused lasso): few jumps.

    Its `prox` is exact: constant runs, each at the mean of its x, shifted by step·λ over its length at every jump.

    Args:
        lam: λ ≥ 0, a number or an array that broadcasts against the chains (a λ per chain).
        axis: the one axis along which neighbours count; the other axes are separate chains (0 for the incoming weights
            of a unit of an `(in, out)` kernel, 1 for `(out, in)`). None is for leaves with one axis.

    Raises:
        ValueError: if a literal `lam` is negative or NaN; at use, if `axis` does not name one axis.

    >>> TotalVariation(2.0).value(jnp.array([1.0, 4.0, 4.0, 3.0])).item()
    8.0
    >>> TotalVariation(1.0).prox(jnp.array([0.0, 1.0, 5.0, 6.0]), step=1.0).tolist()
    [1.0, 1.0, 5.0, 5.0]

    References:
        Rudin, Osher and Fatemi, Nonlinear total variation based noise removal algorithms, 1992;
        Tibshirani et al., Sparsity and smoothness via the fused lasso, 2005, eq. 3.
    """

    lam: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def _chains(self, x):
        """x in which arithmetic runs, the axes inside a group (one), and λ for every entry."""
        x = floating(x, self)
        axes = group_axes(self.axis, x, self)
        if len(axes) != 1:
            raise ValueError(f"`TotalVariation` needs one axis, got axis={self.axis} for a leaf of shape {x.shape}.")
        return x, axes, jnp.broadcast_to(per_group(self.lam, x, axes, self), x.shape)

    def measure(self, x) -> jax.Array:
        """λΣ|xᵢ₊₁ − xᵢ| per chain."""
        x, (axis,), lam = self._chains(x)
        jumps = magnitude(jnp.diff(masked(x, lam), axis=axis))
        cost = jnp.sum(times(jax.lax.slice_in_dim(lam, 0, jumps.shape[axis], axis=axis), jumps), axis)
        return cost + jnp.sum(jnp.where(jnp.isnan(x), x, 0), axis)  # a single weight has no jump to show its NaN

    def prox(self, x, step) -> jax.Array:
        """argmin_z ½‖z − x‖² + step·λΣ|zᵢ₊₁ − zᵢ|."""
        z, axes, lam = self._chains(x)
        t = times(per_group(step, z, axes, self), lam)
        (chains, back), (edges, _) = columns(masked(z, t), axes), columns(t, axes)
        fused = back(fuse(chains, edges[1:], edges[1:]))
        return jnp.where((t == 0) & jnp.isinf(z), z, fused).astype(jnp.result_type(x))

    def optimality(self, x, g) -> jax.Array:
        """The ∞-norm distance of −g to the subdifferential, chain by chain."""
        return self.distance(x, g, sparse=0.0)

    def distance(self, x, g, sparse) -> jax.Array:
        """`optimality` of the fused lasso, with sparse·‖x‖₁ besides."""
        x, (axis,), lam = self._chains(x)
        x, g, lam = (jnp.moveaxis(v, axis, -1) for v in (x, floating(g, self), lam))
        return largest(fused_distance(x, g, jnp.asarray(sparse, x.dtype), lam))

    def critical(self, g) -> jax.Array:
        """max |Σ_{j≤i} gⱼ| (over λ with an array λ); inf where a chain's g does not sum to 0, up to rounding."""
        g, (axis,), _ = self._chains(g)
        sums, size = jnp.cumsum(g, axis), jnp.sum(jnp.abs(g), axis, keepdims=True)
        rounding = 4 * jnp.finfo(g.dtype).eps * math.sqrt(g.shape[axis]) * size
        balanced = jnp.abs(jnp.sum(g, axis, keepdims=True)) <= rounding
        pull = jnp.where(balanced, jnp.max(jnp.abs(sums), axis, keepdims=True, initial=0), jnp.inf)
        return smallest_factor(pull, per_group(self.lam, g, (axis,), self))


def columns(x, axes):
    """`x` with a column per group, and the way back."""
    front = tuple(range(len(axes)))
    moved = jnp.moveaxis(x, axes, front)
    n = math.prod(moved.shape[: len(axes)])
    flat = moved.reshape(n, math.prod(moved.shape[len(axes) :]))
    return flat, lambda y: jnp.moveaxis(y.reshape(moved.shape), front, axes)
