"""The intercept that minimizes a datafit, where no formula gives it: roots of monotone functions, matched margins."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

STEPS = 200  # three times the halvings from one end of the float64 range to its smallest step
APART = 10.0  # differences of outputs within which Newton's method finds its way


def increasing_root(function: Callable, low, high, start) -> jax.Array:
    """The root in [low, high] of an increasing `function` b -> (value, slope, size), entry by entry, to rounding.

    The value is a mean of terms of mean size `size`, which says how much of it is rounding.

    Newton's steps, halving the bracket where they leave it or do not halve the step before (they creep in the tails
    of a sigmoid).
    """

    def step(carry):
        b, low, high, last, _, count = carry
        new, low, high, last = bracketed(jnp, function, eps, b, low, high, last)
        return new, low, high, last, new == b, count + 1

    start = jnp.clip(start, low, high)
    eps = jnp.finfo(start.dtype).eps
    carry = (start, low, high, 2 * (high - low), jnp.zeros(start.shape, bool), 0)
    return jax.lax.while_loop(lambda c: ~jnp.all(c[4]) & (c[5] < STEPS), step, carry)[0]


def bracketed(xp, function, eps, b, low, high, last):
    """One step from b, and the bracket and the length of the step, by NumPy or JAX."""
    value, slope, size = function(b)
    value = xp.where(xp.abs(value) <= eps * (size + slope * xp.abs(b)), 0, value)
    low, high = xp.where(value < 0, b, low), xp.where(value > 0, b, high)
    newton = b - value / xp.where(slope > 0, slope, 1)
    fine = (slope > 0) & (newton >= low) & (newton <= high) & (2 * xp.abs(newton - b) <= last)
    new = xp.where(value == 0, b, xp.where(fine, newton, low + (high - low) / 2))
    return new, low, high, xp.abs(new - b)


def matching_margins(eta, share, weight) -> jax.Array:
    """The b of mean 0 with Σᵢ wᵢ softmax(ηᵢ + b) = `share`, to rounding.

    Newton's steps, damped where they do not bring the margins nearer; b + log(share/margins) meanwhile, which always
    does (Sinkhorn's iteration, slow by itself). Outputs far apart, between which the margins jump, are first taken at
    a temperature τ, softmax((η + b)/τ), that falls to 1.
    """
    info, k = jnp.finfo(eta.dtype), eta.shape[1]
    share = jnp.maximum(share, info.tiny)

    def step(carry):
        b, tau, damping, _, count = carry
        p = jax.nn.softmax((eta + b) / tau)
        m = weight @ p
        off = jnp.sum(jnp.abs(m - share))
        # A multiple of the ones matrix fixes the mean of b, which changes nothing.
        hessian = jnp.diag(m) - p.T @ (weight[:, None] * p) + jnp.ones((k, k), eta.dtype) / k
        newton = b - damping * tau * jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(hessian), m - share)
        plain = b + tau * (jnp.log(share) - jnp.log(jnp.maximum(m, info.tiny)))
        trial = jnp.stack([newton, plain])
        margins = jnp.einsum("i,tij->tj", weight, jax.nn.softmax((eta + trial[:, None]) / tau))
        off_newton, off_plain = jnp.sum(jnp.abs(margins - share), 1)
        near = off_newton <= (1 - damping / 2) * off  # False for NaN
        b = jnp.where(near, newton, jnp.where(off_plain < off, plain, b))
        damping = jnp.where(near, jnp.minimum(2 * damping, 1), damping / 2)
        enough = jnp.where(tau == 1, k * info.eps, 0.01)
        found = (jnp.where(near, off_newton, off) <= enough) | (damping <= info.eps)
        cooler, fresh = jnp.maximum(tau / 2, 1), jnp.ones_like(damping)
        return b, jnp.where(found, cooler, tau), jnp.where(found, fresh, damping), found & (tau == 1), count + 1

    spread = jnp.max(jnp.max(eta, 1) - jnp.min(eta, 1))
    tau = jnp.exp2(jnp.ceil(jnp.log2(jnp.maximum(spread / APART, 1))))
    start = tau * (jnp.log(share) - jnp.log(jnp.maximum(weight @ jax.nn.softmax(eta / tau), info.tiny)))
    carry = (start, tau, jnp.ones_like(tau), jnp.array(False), 0)
    b = jax.lax.while_loop(lambda c: ~c[3] & (c[4] < STEPS), step, carry)[0]
    return b - jnp.mean(b)
