"""Nearest points of balls, spheres and simplices, group by group: what penalties and constraints share."""

import functools

import jax
import jax.numpy as jnp

from jaxreg.arrays import norm, polar, times


def soft_threshold(x, threshold) -> jax.Array:
    """sign(x)·max(|x| − threshold, 0); its zeros are +0."""
    return jnp.where(jnp.abs(x) <= threshold, 0, x - jnp.sign(x) * threshold)


def block_threshold(x, threshold, axes) -> jax.Array:
    """x·max(1 − threshold/‖x‖, 0) per group."""
    size = norm(x, axes)
    return jnp.where(size <= threshold, 0, x * (1 - threshold / jnp.where(size == 0, 1, size)))


def onto_sphere(x, radius, axes) -> jax.Array:
    """x·r/‖x‖ per group with ‖x‖ > r, x elsewhere."""
    direction, size = polar(x, axes)
    outside = size > radius
    return jnp.where(outside, direction * jnp.where(outside, radius, 0), x)


def onto_cube(x, radius) -> jax.Array:
    """sign(x)·min(|x|, r), entry by entry."""
    return jnp.where(jnp.abs(x) > radius, jnp.sign(x) * radius, x)


def onto_octahedron(x, radius, axes, weights=1.0) -> jax.Array:
    """Nearest point with Σ wᵢ|xᵢ| = r per group with Σ wᵢ|xᵢ| > r, x elsewhere."""
    size = jnp.abs(x)
    outside = jnp.sum(weights * size, axes, keepdims=True) > radius
    return jnp.where(outside, jnp.sign(x) * onto_simplex(size, jnp.where(outside, radius, 0), axes, weights), x)


def onto_simplex(x, total, axes, weights=1.0) -> jax.Array:
    """Nearest point with Σ wᵢxᵢ = total and xᵢ ≥ 0 per group: (x − θw)₊. Entries of weight 0 stay as they are."""
    w = jnp.broadcast_to(jnp.asarray(weights, x.dtype), x.shape)
    _, active, kept = _level(x, total, axes, w, uniform=jnp.ndim(weights) == 0)
    kept = jnp.where(active & (kept >= 0), kept, 0)
    finite = jnp.all((x < jnp.inf) | (w == 0), axes, keepdims=True)
    return jnp.where(w > 0, jnp.where(finite, kept, jnp.nan), x)


def level(x, total, axes) -> jax.Array:
    """The θ with Σ (xᵢ − θ)₊ = total per group, kept at size 1."""
    return _level(x, total, axes, jnp.ones_like(x), uniform=True)[0]


def lower_peaks(x, amount, axes) -> jax.Array:
    """sign(x)·min(|x|, θ) with the θ ≥ 0 that takes `amount` off Σ|xᵢ|, if there is as much: the ∞-norm's prox."""
    size = jnp.abs(x)
    enough = jnp.sum(size, axes, keepdims=True) > amount
    cap = jnp.maximum(level(size, jnp.where(enough, amount, 0), axes), 0)
    return jnp.where(enough, jnp.where(size >= cap, jnp.sign(x) * cap, x), jnp.where(jnp.isnan(x), x, 0))


@functools.partial(jax.jit, static_argnames=("axes", "uniform"))  # eagerly, the loop would compile anew each time
def _level(x, total, axes, w, uniform):
    """The θ with Σ w(x − θw)₊ = total per group, the entries that are positive there, and x − θw.

    θ is the root of a convex, decreasing, piecewise linear function. Newton from the left climbs to it in finitely
    many steps (Michelot's algorithm), with neither sort nor gather.
    """
    counts = w > 0
    # With equal weights the kept entries are near the largest: relative to it, the arithmetic is as fine as `total`,
    # however large x is. With others it need not count for much, and 0 is the better origin.
    pivot = jnp.max(jnp.where(counts, x / jnp.where(counts, w, 1), -jnp.inf), axes, keepdims=True, initial=-jnp.inf)
    pivot = jax.lax.stop_gradient(jnp.where(jnp.isneginf(pivot) | (not uniform), 0, pivot))
    depth = x - pivot * w

    def root(active, depth, total):
        pull = jnp.sum(jnp.where(active, w * depth, 0), axes, keepdims=True) - total
        squares = jnp.sum(jnp.where(active, jnp.square(w), 0), axes, keepdims=True)
        return pull / jnp.where(squares > 0, squares, 1)

    def newton(carry):
        theta, _ = carry
        active = counts & (fixed > theta * fixed_w)
        # Rounding must not let a group step back: two of them in turn would never end.
        return jnp.maximum(root(active, fixed, fixed_total), theta), theta

    fixed, fixed_w, fixed_total = jax.lax.stop_gradient((depth, w, jnp.asarray(total, x.dtype)))
    # The root of the widest set and −total/min w² are both on its left; the first may overflow, the second is no use
    # alone.
    least = jnp.min(jnp.where(counts, fixed_w, jnp.inf), axes, keepdims=True, initial=jnp.inf)
    first = jnp.maximum(root(counts, fixed, fixed_total), -fixed_total / jnp.square(least))
    theta, _ = jax.lax.while_loop(lambda c: jnp.any(c[0] > c[1]), newton, (first, jnp.full_like(first, -jnp.inf)))
    active = counts & (fixed > theta * fixed_w)
    if uniform:  # with total = 0 none is positive: the top ones are the first to be, and give the derivatives
        active |= counts & (fixed == 0)
    theta = root(active, depth, total)
    return pivot + theta, active, depth - theta * w  # in one program: rounded apart, pivot·w would not cancel


@functools.partial(jax.jit, static_argnames="axes")
def climb(g, radius, axes, share=1.0, growth=0.0) -> jax.Array:
    """The least t ≥ 0 with ‖(|g| − t·share)₊‖₂ ≤ radius + t·growth per group, kept at size 1."""

    # share = 1, growth = 0: the ∞-norm distance from g to the 2-ball.
    def rise(t, g, radius, share, growth):
        direction, size = polar(jnp.maximum(jnp.abs(g) - times(t, share), 0), axes)
        slope = jnp.sum(direction * share, axes, keepdims=True) + growth
        over = size - (radius + times(t, growth))
        return jnp.where(slope > 0, over / jnp.where(slope > 0, slope, 1), jnp.where(over > 0, jnp.inf, over))

    # The left side is convex and decreasing in t: from the left, Newton climbs to the root and stops there.
    fixed = jax.lax.stop_gradient((g, radius, share, growth))
    start = jnp.zeros_like(norm(fixed[0], axes))
    t, _ = jax.lax.while_loop(
        lambda c: jnp.any(c[0] > c[1]), lambda c: (c[0] + jnp.maximum(rise(c[0], *fixed), 0), c[0]), (start, start - 1)
    )
    # One more step from the root goes nowhere, and has the root's derivatives; where nothing may be left, t is the
    # largest |g|/share.
    root = t + rise(t, g, radius, share, growth)
    share = jnp.broadcast_to(jnp.asarray(share, g.dtype), g.shape)
    largest = jnp.where(share > 0, jnp.abs(g) / jnp.where(share > 0, share, 1), jnp.where(g == 0, 0, jnp.inf))
    root = jnp.where((radius == 0) & (growth == 0), jnp.max(largest, axes, keepdims=True, initial=0), root)
    return jnp.where(norm(g, axes) <= radius, 0, root)
