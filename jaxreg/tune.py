"""Descent of a validation loss in the logarithms of strengths."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jaxreg.pytree import Noun, checked_number

DECREASE, FLATTEN = 1e-4, 0.9  # of Wolfe's conditions
MARGIN = 0.05  # of a bracket, which trials keep from its ends
FIRST, LARGEST = 0.25, 2.0  # steps in log strength: the first, and the longest that is tried first


class Tuned(NamedTuple):
    """What a search found, and all that it looked at: `points`, `values` and `gradients` have an axis of steps."""

    best: Any  # the point of least value
    value: jax.Array  # its value
    points: Any
    values: jax.Array
    gradients: Any  # d value/d log strength


def tune(
    objective: Callable, start, *, steps: int = 50, optimizer: optax.GradientTransformation | None = None
) -> Tuned:
    r"""Descend `objective` in the logarithms of the strengths in `start`, to a local minimum near it.

    The objective may be anything that can be differentiated: the loss of `convex.fit` on other data, of a network at
    the end of its unrolled training, of both together. One strength or a thousand cost the same.

    A validation loss has kinks, where a weight enters or leaves the model. So the search is BFGS with a line search to
    Wolfe's weak conditions, which goes on from either side of a kink; trials are where the tangents at the ends of the
    bracket meet, so that it closes in on a kink that is a minimum. A value that is not finite is a trial too far. Of
    many local minima it finds one: start from several points, or from the best of a grid. Where the gradient is zero,
    beyond `critical`, it stays.

    It is one `scan`: `jit` it, or `vmap` it over starts.

    Args:
        objective: tree of strengths -> scalar.
        start: a tree of positive numbers or arrays, or of penalties. Of a penalty only λ moves; its other numbers
            stay as they are.
        steps: evaluations of the objective and its gradient.
        optimizer: an optax optimizer of the logarithms, for objectives with noise or for more than some thousand
            strengths; None is the search above, which keeps a square matrix of their number.

    Returns:
        `Tuned(best, value, points, values, gradients)`.

    Raises:
        ValueError: if a literal strength is not positive, or there is none.
        TypeError: if a strength is not a number.

    >>> found = tune(lambda s: (s["a"] * s["b"] - 6) ** 2 + (s["b"] - 3) ** 2, {"a": 1.0, "b": 1.0})
    >>> round(found.best["a"].item(), 2), round(found.best["b"].item(), 2)
    (2.0, 3.0)

    References:
        Lewis and Overton, Nonsmooth optimization via quasi-Newton methods, 2013, algorithm 2.6.
    """
    numbers, structure, moves = _checked(start)

    def search(numbers):
        logs, build, slopes = _logarithms(numbers, structure, moves)
        evaluate = jax.value_and_grad(lambda u: jnp.asarray(objective(build(u)), u.dtype))
        first, point, after = _descent(logs) if optimizer is None else _steps_of(optimizer, logs)

        def look(state, _):
            u = point(state)
            value, gradient = evaluate(u)
            return after(state, value, gradient), (u, value, gradient)

        _, (points, values, gradients) = jax.lax.scan(look, first, length=steps)
        best = jnp.argmin(jnp.where(jnp.isfinite(values), values, jnp.inf))
        return Tuned(build(points[best]), values[best], jax.vmap(build)(points), values, jax.vmap(slopes)(gradients))

    return _as_one_program(search, numbers)


def _as_one_program(function, *args):
    """`function(*args)` compiled as a whole; arrays that it holds are arguments of the program, not constants in it."""
    traced, shapes = jax.make_jaxpr(function, return_shape=True)(*args)

    @jax.jit
    def search(held, given):
        return jax.core.eval_jaxpr(traced.jaxpr, held, *given)

    return jax.tree.unflatten(jax.tree.structure(shapes), search(traced.consts, jax.tree.leaves(args)))


def _checked(start):
    """The numbers of `start`, its structure, and which of them are strengths."""
    numbers, structure = jax.tree.flatten(start)
    moves = []
    for entry in jax.tree.leaves(start, is_leaf=lambda x: isinstance(x, Noun)):
        paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(entry)[0]]
        moves += [not isinstance(entry, Noun) or path[-1].name in ("lam", "lams") for path in paths]
    if not any(moves):
        raise ValueError(f"`tune` needs a strength to start from, got {start!r}.")
    check = functools.partial(checked_number, "tune", "start", positive=True)
    return [check(x) if m else x for x, m in zip(numbers, moves, strict=True)], structure, moves


def _logarithms(numbers, structure, moves):
    """The logarithms of the strengths as one vector, and what makes of it, and of a gradient, a tree like `start`."""
    dtype = jnp.result_type(float)
    strengths = [jnp.asarray(x) for x, m in zip(numbers, moves, strict=True) if m]
    strengths = [x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(dtype) for x in strengths]
    logs, unravel = ravel_pytree([jnp.log(x) for x in strengths])

    def tree(moving, fixed):
        moving = iter(moving)
        return jax.tree.unflatten(
            structure, [next(moving) if m else fixed(x) for x, m in zip(numbers, moves, strict=True)]
        )

    def build(u):
        return tree(map(jnp.exp, unravel(u)), jnp.asarray)

    def slopes(g):
        return tree(unravel(g), jnp.zeros_like)

    return logs, build, slopes


def _steps_of(optimizer, logs):
    """The search that optax makes."""

    def after(state, value, gradient):
        u, memory = state
        updates, memory = optimizer.update(gradient, memory, u)
        return optax.apply_updates(u, updates), memory

    return (logs, optimizer.init(logs)), lambda state: state[0], after


class _End(NamedTuple):
    """One end of the bracket of a line search: the length, and value and slope there."""

    length: jax.Array
    value: jax.Array
    slope: jax.Array


class _Search(NamedTuple):
    u: jax.Array  # accepted
    gradient: jax.Array
    inverse: jax.Array  # of the Hessian, an estimate
    seen: jax.Array  # whether it has seen curvature
    direction: jax.Array
    length: jax.Array  # of the next trial
    start: _End
    low: _End  # short enough
    high: _End  # too long


def _descent(logs):
    """BFGS; its line search is spread over the looks, so that under `vmap` no search waits for another."""
    n, dtype = logs.size, logs.dtype
    zero, eps, tiny = jnp.zeros((), dtype), jnp.finfo(dtype).eps, jnp.finfo(dtype).tiny
    nowhere = _End(zero + jnp.inf, zero + jnp.inf, zero)

    def point(s):
        return s.u + s.length * s.direction

    def after(s, value, gradient):
        trial = _End(s.length, value, gradient @ s.direction)
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
        lower = finite & (value <= s.start.value + DECREASE * s.length * s.start.slope)
        accepted = lower & (trial.slope >= FLATTEN * s.start.slope)
        low = jax.tree.map(lambda a, b: jnp.where(lower, a, b), trial, s.low)
        high = jax.tree.map(lambda a, b: jnp.where(lower, a, b), s.high, trial)
        searching = s._replace(length=_between(low, high), low=low, high=high)

        inverse, seen = secant(s, gradient)
        steepest = -FIRST / jnp.maximum(jnp.max(jnp.abs(gradient)), tiny) * gradient
        newton = -inverse @ gradient
        newton = newton * (LARGEST / jnp.maximum(jnp.max(jnp.abs(newton)), LARGEST))
        direction = jnp.where(seen & (newton @ gradient < 0), newton, steepest)
        start = _End(zero, value, gradient @ direction)
        moved = _Search(point(s), gradient, inverse, seen, direction, zero + 1, start, start, nowhere)
        return jax.tree.map(lambda a, b: jnp.where(accepted, a, b), moved, searching)

    def secant(s, gradient):
        step, change = s.length * s.direction, gradient - s.gradient
        along = step @ change
        curved = along > eps * jnp.linalg.norm(step) * jnp.linalg.norm(change)
        along = jnp.where(curved, along, 1)
        scaled = along / jnp.maximum(change @ change, tiny) * jnp.eye(n, dtype=dtype)
        inverse = jnp.where(s.seen, s.inverse, scaled)
        turn = jnp.eye(n, dtype=dtype) - jnp.outer(step, change) / along
        updated = turn @ inverse @ turn.T + jnp.outer(step, step) / along
        return jnp.where(curved, updated, s.inverse), s.seen | curved

    none, unknown = jnp.zeros_like(logs), _End(zero, zero + jnp.inf, zero)  # so that the first look is accepted
    identity = jnp.eye(n, dtype=dtype)
    return _Search(logs, none, identity, jnp.array(False), none, zero, unknown, unknown, nowhere), point, after


def _between(low, high):
    """Where the tangents at the ends meet: half-way for a parabola, the kink of a kink; twice as far if it is open."""
    width = high.length - low.length
    meet = (high.value - low.value - high.slope * width) / (low.slope - high.slope)
    fine = jnp.isfinite(meet) & (high.slope > low.slope)
    inside = low.length + jnp.clip(jnp.where(fine, meet, width / 2), MARGIN * width, (1 - MARGIN) * width)
    return jnp.where(jnp.isinf(high.length), 2 * low.length, inside)
