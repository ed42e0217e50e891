"""Chains along the first axis: the exact solver behind the ordered penalties, and how far from solved a chain is."""

import jax
import jax.numpy as jnp

from jaxreg.arrays import times


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
    x = fuse(*primals)  # by its own rule again, for derivatives of derivatives
    _, first, jump = _fuse(*jax.lax.stop_gradient(primals))
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
    # Sums of n entries must not overflow; powers of two change no bit.
    margin = n.bit_length() + 2
    huge = jnp.max(jnp.abs(z), 0) >= 2.0 ** (jnp.finfo(z.dtype).maxexp - margin - 1)
    scale = jnp.where(huge, 2.0**margin, 1).astype(z.dtype)
    z, up, down = z / scale, up / scale, down / scale

    def runs(jump):
        """The first and the last entry of each entry's run."""
        first = jnp.where(starts(jump != 0, i.shape), i, 0)
        last = jnp.full_like(i, n - 1).at[:-1].set(jnp.where(jump != 0, i[:-1], n))
        return scan(_greatest, (0,), (first,))[0], scan(_least, (n,), (last,), reverse=True)[0]

    def mean(v, jump):
        # Of what the first entry leaves, so that rounding is that of the run and not of its neighbours.
        first, last = runs(jump)
        v, first = v - (origin := jnp.take_along_axis(v, first, 0)), first == i
        return origin + jnp.take_along_axis(mean_so_far(v, first), last, 0)

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
        nearest = scan(_least, (2 * n,), (jnp.where(one | zero, 2 * i + one.astype(i.dtype), 2 * n),), reverse=True)[0]
        state = nearest % 2
        turn = jnp.where(jump == 0, state[1:] - state[:-1], 0)
        y = pushed(y, turn, up, down)
        # Rounding must not undo the order that the cuts have found.
        low, high = jnp.where(state == 1, t, low), jnp.where(state == 1, high, t)
        jump = jump + turn
        return jump, y, jnp.clip(mean(y, jump), low, high), low, high, jnp.any(turn != 0)

    none, wide = jnp.zeros(up.shape, jnp.int32), jnp.full_like(z, jnp.inf)
    carry = (none, z, mean(z, none), -wide, wide, jnp.any(i == 0))
    jump, _, t, *_ = jax.lax.while_loop(lambda carry: carry[-1], cut, carry)
    return scale * t, runs(jump)[0], jump


def pushed(y, jump, up, down):
    """y + the pull of the prices at its jumps: where x rises (jump 1) the two sides pay `up`, else `down` (−1)."""
    push = jnp.where(jump == 0, 0, jnp.where(jump > 0, up, -down))
    return y.at[:-1].add(push).at[1:].add(-push)


def scan(combine, identity, entries, reverse=False):
    """Running combinations of tuples of arrays along the first axis, in logarithmic depth.

    On a CPU a plain loop: as fast, and it compiles ten times sooner.
    """

    def loop(*entries):
        first = tuple(jnp.full(e.shape[1:], v, e.dtype) for e, v in zip(entries, identity, strict=True))
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


def _greatest(a, b):
    return (jnp.maximum(a[0], b[0]),)


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
    return total / (i - first + 1).astype(v.dtype)


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
    rise = jnp.where(x[..., 1:] > x[..., :-1], 1, jnp.where(x[..., 1:] < x[..., :-1], -1, 0))
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
    return jnp.maximum(jnp.max((gap / (k - j).astype(gap.dtype))[0], 0), 0)


@jax.jit
def _steepest(head, tail):
    """The j < k with the largest (headₖ − tailⱼ)/(k − j) along the first axis: Dinkelbach's iteration."""
    i = jax.lax.broadcasted_iota(jnp.int32, head.shape, 0)
    place = i.astype(head.dtype)

    def slope(j, k):
        return (jnp.take_along_axis(head, k, 0) - jnp.take_along_axis(tail, j, 0)) / (k - j).astype(head.dtype)

    def climb(carry):
        j, k, t, _ = carry
        floor, at = scan(_lower, (jnp.inf, 0), (tail - t * place, i))
        better = jnp.argmax((head - t * place)[1:] - floor[:-1], 0, keepdims=True).astype(jnp.int32)
        pair = jnp.take_along_axis(at, better, 0), better + 1
        grows = slope(*pair) > t
        j, k = jnp.where(grows, pair[0], j), jnp.where(grows, pair[1], k)
        return j, k, jnp.where(grows, slope(j, k), t), jnp.any(grows)

    j, k = i[:1], i[-1:]
    return jax.lax.while_loop(lambda c: c[-1], climb, (j, k, jnp.maximum(slope(j, k), 0), jnp.any(k > j)))[:2]


def starts(new, shape):
    """Where runs start: at the first entry, and where `new` says that an entry differs from the one before."""
    return jnp.ones(shape, bool).at[1:].set(new)
