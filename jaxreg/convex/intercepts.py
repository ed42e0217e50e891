"""The intercept that minimizes a datafit, where no formula gives it: roots of monotone functions, matched margins."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

STEPS = 200  # three times the halvings from one end of the float64 range to its smallest step


def increasing_root(function: Callable, low, high, start) -> jax.Array:
    """The root in [low, high] of an increasing `function` b -> (value, slope, size), entry by entry, to rounding.

    The value is a mean of terms of mean size `size`, which says how much of it is rounding.

    Newton's steps, halving the bracket where they leave it or do not halve the step before (they creep in the tails
    of a sigmoid).
    """

    def step(carry):
        b, low, high, last, _, count = carry
        value, slope, size = function(b)
        value = jnp.where(jnp.abs(value) <= eps * (size + slope * jnp.abs(b)), 0, value)
        low, high = jnp.where(value < 0, b, low), jnp.where(value > 0, b, high)
        newton = b - value / jnp.where(slope > 0, slope, 1)
        fine = (slope > 0) & (newton >= low) & (newton <= high) & (2 * jnp.abs(newton - b) <= last)
        new = jnp.where(value == 0, b, jnp.where(fine, newton, low + (high - low) / 2))
        return new, low, high, jnp.abs(new - b), new == b, count + 1

    start = jnp.clip(start, low, high)
    eps = jnp.finfo(start.dtype).eps
    carry = (start, low, high, 2 * (high - low), jnp.zeros(start.shape, bool), 0)
    return jax.lax.while_loop(lambda c: ~jnp.all(c[4]) & (c[5] < STEPS), step, carry)[0]


def matching_margins(eta, share, weight) -> jax.Array:
    """The b of mean 0 with Σᵢ wᵢ softmax(ηᵢ + b) = `share`, to rounding.

    Newton's steps, and where they do not bring the margins nearer, b + log(share/margins), which always does
    (Sinkhorn's iteration, slow by itself).
    """
    dtype, k = eta.dtype, eta.shape[1]
    share = jnp.maximum(share, jnp.finfo(dtype).tiny)

    def margins(b):
        p = jax.nn.softmax(eta + b)
        m = weight @ p
        return p, m, jnp.sum(jnp.abs(m - share))

    def step(carry):
        b, p, m, off, _, count = carry
        # A multiple of the ones matrix fixes the mean of b, which changes nothing.
        hessian = jnp.diag(m) - p.T @ (weight[:, None] * p) + jnp.ones((k, k), dtype) / k
        newton = b - jnp.linalg.solve(hessian, m - share)
        plain = b + jnp.log(share) - jnp.log(jnp.maximum(m, jnp.finfo(dtype).tiny))
        p_newton, m_newton, off_newton = margins(newton)
        p_plain, m_plain, off_plain = margins(plain)
        near = off_newton <= 0.5 * off  # False for NaN
        new = [
            jnp.where(near, a, c)
            for a, c in ((newton, plain), (p_newton, p_plain), (m_newton, m_plain), (off_newton, off_plain))
        ]
        better = new[3] < off
        b, p, m, off = (jnp.where(better, a, c) for a, c in zip(new, (b, p, m, off), strict=True))
        return b, p, m, off, better & (off > jnp.finfo(dtype).eps), count + 1

    start = jnp.log(share) - jnp.log(jnp.maximum(weight @ jax.nn.softmax(eta), jnp.finfo(dtype).tiny))
    carry = (start, *margins(start), jnp.array(True), 0)
    b = jax.lax.while_loop(lambda c: c[4] & (c[5] < STEPS), step, carry)[0]
    return b - jnp.mean(b)
