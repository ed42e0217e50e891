"""Convex penalties on ordered weights: by rank (`Slope`) or by place (`TotalVariation`).

Both proxes are one problem on chains, `fuse`: neighbours that cannot afford to differ are fused to a common level.
"""

import math

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, floating, group_axes, masked, per_group, times
from jaxreg.penalties.base import Penalty, largest, smallest_factor
from jaxreg.penalties.separable import magnitude
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
        x, (axis,), lam = self._chains(x)
        x, g, lam = (jnp.moveaxis(v, axis, -1) for v in (x, floating(g, self), lam))
        return largest(fused_distance(x, g, 0.0, lam))

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


def starts(new, shape):
    """Where runs start: at the first entry, and where `new` says that an entry differs from the one before."""
    return jnp.ones(shape, bool).at[1:].set(new)


@jax.custom_jvp
def fuse(z, up, down) -> jax.Array:
    """argmin_x ½‖x − z‖² + Σ upᵢ(xᵢ₊₁ − xᵢ)₊ + downᵢ(xᵢ − xᵢ₊₁)₊ along the first axis, exactly.

    up = down is total variation; up = ∞, down = 0 the non-increasing regression; up = down = ∞ ties two entries. At
    every threshold t, {i: xᵢ > t} solves a problem with two states, and cutting there leaves independent chains. So
    all runs are cut at their own means at once until none splits: about log₂ n rounds, whatever the order of entries.
    Derivatives are those of the runs found: the mean of z, shifted by the prices of the jumps at both ends.

    Args:
        z: (n, chains).
        up: (n − 1, chains), in [0, ∞].
        down: (n − 1, chains), in [0, ∞].
    """
    return _fuse(z, up, down)[0]


@fuse.defjvp
def _(primals, tangents):
    x, first, jump = _fuse(*primals)
    dz, up, down = tangents
    dz = pushed(dz, jump, up, down)
    run = jax.vmap(lambda v, at: jax.ops.segment_sum(v, at, len(v))[at], 1, 1)
    return x, run(dz, first) / run(jnp.ones_like(dz), first)


@jax.jit  # called eagerly, the loops would compile anew each time
def _fuse(z, up, down):
    """The solution, where each entry's run starts, and the sign of the jump after each entry but the last."""
    n = len(z)
    i = jax.lax.broadcasted_iota(jnp.int32, z.shape, 0)
    if n < 2:
        return z, i, jnp.zeros(up.shape, jnp.int32)

    def mean(v, jump):
        last = scan(_least, (n,), (jnp.full_like(i, n - 1).at[:-1].set(jnp.where(jump != 0, i[:-1], n)),), reverse=True)
        return jnp.take_along_axis(mean_so_far(v, starts(jump != 0, v.shape)), last[0], 0)

    def cut(carry):
        jump, y, t, low, high, _ = carry
        # The gain of state 1 (above t) over 0, with all before in their best states; between runs jumps are free.
        rise, fall = jnp.where(jump == 0, up, 0), jnp.where(jump == 0, down, 0)
        gain = y - t
        bounds = gain.at[1:].add(-rise), gain.at[1:].add(fall)
        bounds = [bound.at[0].set(gain[0]) for bound in bounds]
        gain = scan(_clipped, (0, -jnp.inf, jnp.inf), (gain, *bounds))[1]
        # Backwards, an entry is 1 for sure, 0 for sure, or as its successor.
        one, zero = gain > jnp.zeros_like(gain).at[:-1].set(fall), ~(gain > jnp.zeros_like(gain).at[:-1].set(-rise))
        nearest = scan(_least, (2 * n,), (jnp.where(one | zero, 2 * i + one, 2 * n),), reverse=True)[0]
        state = nearest % 2
        turn = jnp.where(jump == 0, state[1:] - state[:-1], 0)
        y = pushed(y, turn, up, down)
        # Rounding must not undo the order that the cuts have found.
        low, high = jnp.where(state == 1, t, low), jnp.where(state == 1, high, t)
        jump = jump + turn
        return jump, y, jnp.clip(t + mean(y - t, jump), low, high), low, high, jnp.any(turn != 0)

    none, wide = jnp.zeros(up.shape, jnp.int32), jnp.full_like(z, jnp.inf)
    t = jnp.broadcast_to(jnp.mean(z, 0), z.shape)
    t = t + mean(z - t, none)
    carry = (none, z, t, -wide, wide, jnp.any(i == 0))
    jump, y, t, low, high, _ = jax.lax.while_loop(lambda carry: carry[-1], cut, carry)
    # Where a run has nothing to average, its level is its entry, bit for bit.
    uneven = (jump == 0) & (y[1:] != y[:-1])
    uneven = mean(jnp.zeros_like(y).at[1:].set(uneven), jump)
    x = jnp.clip(jnp.where(uneven == 0, y, t), low, high)
    return x, jax.lax.cummax(jnp.where(starts(jump != 0, i.shape), i, 0)), jump


def pushed(y, jump, up, down):
    """y + the pull of the prices at its jumps: where x rises (jump 1) the two sides pay `up`, else `down` (−1)."""
    push = jnp.where(jump == 0, 0, jnp.where(jump > 0, up, -down))
    return y.at[:-1].add(push).at[1:].add(-push)


def scan(combine, identity, entries, reverse=False):
    """Running combinations of tuples of arrays along the first axis, in logarithmic depth.

    On a CPU a plain loop: as fast, and it compiles ten times sooner.
    """

    def loop(*entries):
        first = tuple(jnp.full_like(e[0], v) for e, v in zip(entries, identity, strict=True))
        return jax.lax.scan(lambda a, b: (combine(a, b),) * 2, first, entries, reverse=reverse)[1]

    def tree(*entries):
        return jax.lax.associative_scan(combine, entries, reverse=reverse)

    return jax.lax.platform_dependent(*entries, cpu=loop, default=tree)


def _clipped(f, g):
    """g∘f for functions y ↦ clip(y + a, low, high)."""
    (a, low, high), (b, least, most) = f, g
    return a + b, jnp.clip(low + b, least, most), jnp.clip(high + b, least, most)


def _least(a, b):
    return (jnp.minimum(a[0], b[0]),)


def _add(a, b):
    """Sums that begin anew where an index is given (−1 elsewhere)."""
    return jnp.where(b[1] >= 0, b[0], a[0] + b[0]), jnp.maximum(a[1], b[1])


def _lower(a, b):
    """The smaller value, with its index."""
    left = a[0] <= b[0]
    return jnp.where(left, a[0], b[0]), jnp.where(left, a[1], b[1])


def mean_so_far(v, start):
    """The mean of each run up to and with each entry."""
    i = jax.lax.broadcasted_iota(jnp.int32, v.shape, 0)
    total, first = scan(_add, (0, -1), (v, jnp.where(start, i, -1)))
    return total / (i - first + 1)


def fused_distance(x, g, sparse, lam) -> jax.Array:
    """The ∞-norm distance of −g to the subdifferential of Σ sparse|xᵢ| + lam Σ|xᵢ₊₁ − xᵢ|, along the last axis.

    Args:
        x: (..., n).
        g: (..., n).
        sparse: the strength of each |xᵢ|, against `x`.
        lam: the strength of the jumps, against `x`: the same along a chain.
    """
    if not x.shape[-1]:
        return jnp.zeros(x.shape[:-1], x.dtype)
    lam = jnp.broadcast_to(lam, x.shape)[..., 1:]
    g = g + jnp.where(jnp.isnan(x), x, 0)
    # The flow vᵢ = λ·sign(xᵢ₊₁ − xᵢ), free in [−λ, λ] where that is 0, starts and ends at 0, and grows by gᵢ up to t
    # and what the kinks at 0 leave free. There is one if no two bounds, of places j < k, differ by more than (k − j)t.
    rise = (x[..., 1:] > x[..., :-1]) * 1 - (x[..., 1:] < x[..., :-1])
    ends = [(0, 0)] * (x.ndim - 1) + [(1, 1)]
    low, high = (jnp.pad(times(lam, jnp.where(rise == 0, side, rise).astype(x.dtype)), ends) for side in (-1, 1))
    least, most = (
        jnp.pad(jnp.cumsum(g + times(sparse, jnp.where(x == 0, side, jnp.sign(x))), -1), ends)[..., :-1]
        for side in (-1, 1)
    )
    head = jnp.stack([low - most, least - high])
    tail = jnp.stack([high - most, least - low])
    head, tail = (jnp.moveaxis(v, -1, 0) for v in (head, tail))
    j, k = _steepest(*jax.lax.stop_gradient((head, tail)))
    gap = jnp.take_along_axis(head, k, 0) - jnp.take_along_axis(tail, j, 0)
    return jnp.maximum(jnp.max((gap / (k - j))[0], 0), 0)


@jax.jit
def _steepest(head, tail):
    """The j < k with the largest (headₖ − tailⱼ)/(k − j) along the first axis: Dinkelbach's iteration."""
    i = jax.lax.broadcasted_iota(jnp.int32, head.shape, 0)

    def slope(j, k):
        return (jnp.take_along_axis(head, k, 0) - jnp.take_along_axis(tail, j, 0)) / (k - j)

    def climb(carry):
        j, k, t, _ = carry
        floor, at = scan(_lower, (jnp.inf, 0), (tail - t * i, i))
        better = jnp.argmax((head - t * i)[1:] - floor[:-1], 0, keepdims=True).astype(jnp.int32)
        pair = jnp.take_along_axis(at, better, 0), better + 1
        grows = slope(*pair) > t
        j, k = jnp.where(grows, pair[0], j), jnp.where(grows, pair[1], k)
        return j, k, jnp.where(grows, slope(j, k), t), jnp.any(grows)

    j, k = i[:1], i[-1:]
    return jax.lax.while_loop(lambda c: c[-1], climb, (j, k, jnp.maximum(slope(j, k), 0), jnp.any(k > j)))[:2]
