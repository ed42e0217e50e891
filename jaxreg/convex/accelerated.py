"""Accelerated proximal gradient of one problem; `vmap` makes it that of thousands."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

GROW = 1.1  # of the step, each iteration, so that it follows the curvature where the iterates are
SHRINK = 0.5
FAR = 1e4  # times the first step: longer ones, without a trial that failed, are not waited for


class _State(NamedTuple):
    w: jax.Array  # accepted
    slope: jax.Array  # ∇f(w), where it is known
    y: jax.Array  # extrapolated
    t: jax.Array  # momentum
    step: jax.Array
    cost: jax.Array  # of w, where it is watched


def minimise(
    smooth: Callable,
    prox: Callable,
    w0,
    step,
    tol,
    max_iter: int,
    *,
    residual: Callable | None = None,
    cost: Callable | None = None,
    backtrack: bool = True,
    every: int = 10,
):
    r"""argmin_w f(w) + g(w) by restarted accelerated proximal gradient.

        z = prox(y − step·∇f(y), step),    y ← z + ((t − 1)/t₊)(z − w),    w ← z,

    with t back to 1 where (y − z)·(z − w) > 0, and the step halved where f(z) is above its quadratic bound at y. Where
    the difference of the two is rounding, the test is that of their gradients. A trial that fails is an iteration that
    moves nothing: under `vmap` no lane waits for the line search of another.

    Without convexity give `cost`: a point that raises f + g is not taken, and the next step is a plain one from w,
    which cannot raise it; every limit is then a stationary point, a local minimum at best. Longer steps leave more of
    those that are poor (of `L0` and `LpHalf` every 0 is one), so it does not stop before a step has been too long.

    It stops at tol, at `max_iter`, or where the iterates stand still up to rounding; the last is for callers to see
    from a residual above tol with iterations to spare.

    Args:
        smooth: w -> (f, ∇f), f convex.
        prox: (w, step) -> argmin_z ½‖z − w‖² + step·g(z).
        w0: the start, an array or a tree of arrays.
        step: the first step; 1/L with `backtrack=False`, where L bounds the curvature of f.
        tol: on `residual`.
        max_iter: trials, those that fail included; rounded up to a multiple of `every`.
        residual: (w, ∇f(w)) -> scalar; by default ‖w − prox(w − step·∇f(w), step)‖_∞/step.
        cost: w -> g(w), to let no iteration raise f + g; needed where g is not convex.
        backtrack: whether the step is searched for; else it stays as given, at one gradient an iteration.
        every: iterations from one look at the residual to the next.

    Returns:
        (w, iterations, residual).

    >>> w, iterations, residual = minimise(
    ...     smooth=lambda w: (jnp.sum((w - 3) ** 2) / 2, w - 3),
    ...     prox=lambda w, step: jnp.sign(w) * jnp.maximum(jnp.abs(w) - step, 0),
    ...     w0=jnp.zeros(2), step=0.3, tol=1e-6, max_iter=1000,
    ... )
    >>> w.round(3).tolist()
    [2.0, 2.0]

    References:
        Beck and Teboulle, A fast iterative shrinkage-thresholding algorithm for linear inverse problems, 2009;
        O'Donoghue and Candès, Adaptive restart for accelerated gradient schemes, 2015, section 3.2;
        Becker, Candès and Grant, Templates for convex cone problems, 2011, section 5.3 (the line search);
        Li and Lin, Accelerated proximal gradient methods for nonconvex programming, 2015 (the safeguard).
    """
    w0, unravel = ravel_pytree(w0)
    dtype = w0.dtype
    rounding = 10 * jnp.finfo(dtype).eps
    near = jnp.finfo(dtype).eps ** (2 / 3)  # below it, differences of f say less than those of its gradients

    def evaluate(w):
        f, g = smooth(unravel(w))
        return jnp.asarray(f, dtype), ravel_pytree(g)[0].astype(dtype)

    def shrink(w, step):
        return ravel_pytree(prox(unravel(w), step))[0].astype(dtype)

    def measure(s):
        if residual is None:
            return jnp.max(jnp.abs(s.w - shrink(s.w - s.step * s.slope, s.step)), initial=0) / s.step
        return jnp.asarray(residual(unravel(s.w), unravel(s.slope)), dtype)

    def iterate(_, s):
        f, g = evaluate(s.y)
        z = shrink(s.y - s.step * g, s.step)
        d = z - s.y
        fz, gz = evaluate(z) if backtrack or cost is not None else (f, s.slope)
        short = jnp.ones((), bool)
        if backtrack:
            bound = jnp.sum(jnp.square(d)) / s.step
            flat = jnp.abs(fz - f) <= near * jnp.maximum(jnp.abs(fz), jnp.abs(f))
            below = jnp.where(flat, jnp.sum((gz - g) * d) <= bound, fz <= f + jnp.sum(g * d) + bound / 2)
            short = jnp.isfinite(fz) & below
        good, total = jnp.isfinite(f), s.cost
        if cost is not None:
            total = fz + cost(unravel(z))
            # A plain step that fits its bound cannot raise the cost but by rounding.
            good = good & ((s.t == 1) | (total <= s.cost + rounding * jnp.abs(s.cost)))
            total = jnp.minimum(total, s.cost)
        restart = jnp.sum(d * (z - s.w)) < 0
        step = jnp.where(short, s.step * (GROW if backtrack else 1), s.step * SHRINK)
        t = (1 + jnp.sqrt(1 + 4 * jnp.square(s.t) * (s.step / step))) / 2
        y = jnp.where(restart, z, z + (s.t - 1) / t * (z - s.w))
        after = _State(z, gz, y, jnp.where(restart, 1, t), step, total)
        # Where the cost would rise, or f overflows at y, go on from w; where the step is too long, try a shorter one.
        again = _State(s.w, s.slope, jnp.where(good, s.y, s.w), jnp.where(good, s.t, 1), step, s.cost)
        return jax.tree.map(lambda a, b: jnp.where(short & good, a, b).astype(a.dtype), after, again)

    def block(carry):
        state, iterations, _, _ = carry
        after = jax.lax.fori_loop(0, every, iterate, state)
        if not backtrack and cost is None:
            after = after._replace(slope=evaluate(after.w)[1])
        moved = jnp.max(jnp.abs(after.w - state.w), initial=0) > rounding * jnp.max(jnp.abs(after.w), initial=0)
        # A block of trials that all failed has moved nothing, but has a shorter step.
        moved, size = moved | (after.step < state.step), measure(after)
        if cost is not None and backtrack:
            bold = (after.step > 0.9 * GROW**every * state.step) & (after.step < FAR * step)
            moved, size = moved | bold, jnp.where(bold, jnp.inf, size)
        return after, iterations + every, size, moved

    def unfinished(carry):
        _, iterations, size, moved = carry
        return ~(size <= tol) & (iterations < max_iter) & moved

    step = jnp.asarray(step, dtype)
    f, slope = evaluate(w0)
    total = jnp.zeros((), dtype) if cost is None else f + cost(unravel(w0)).astype(dtype)
    state = _State(w0, slope, w0, jnp.ones((), dtype), step, total)
    size = measure(state) if cost is None else jnp.full((), jnp.inf, dtype)
    start = state, jnp.zeros((), jnp.int32), size, jnp.ones((), bool)
    state, iterations, size, _ = jax.lax.while_loop(unfinished, block, start)
    return unravel(state.w), iterations, size
