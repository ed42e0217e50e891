"""Quadratics with a penalty: every lane at once, by accelerated proximal gradient and a polish."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex.lanes import Layout, State, dot, pick
from jaxreg.convex.polish import on_host, polishable, polished
from jaxreg.convex.programs import program

STEPS = 12  # of the first rounds
EASY = 2  # rounds of least squares that come without a polish; other starts are near
PATIENCE = 6  # rounds
SMALL = 64  # weights up to which the systems of all lanes are solved together
DENSE = 2048  # weights of which a linear system is solved
RIDGE = 16  # roundings of the curvature


class Quadratic(NamedTuple):
    """½‖w‖²_G − ⟨c, w⟩ + ½e for each of F folds: ‖y − Xw‖²/2 with weights that sum to 1."""

    gram: jax.Array  # (F, p, p), XᵀSX
    linear: jax.Array  # (F, t, p), yᵀSX
    energy: jax.Array  # (F,), yᵀSy

    def product(self, w):
        """Gw for lanes (F, L, t, p)."""
        folds, lanes, targets, p = w.shape
        return (w.reshape(folds, lanes * targets, p) @ self.gram.astype(w.dtype)).reshape(w.shape)


def loss(quadratic, w, product):
    """The value for each lane (F, L)."""
    return quadratic.energy[:, None] / 2 - dot(quadratic.linear[:, None], w) + dot(w, product) / 2


@np.errstate(over="ignore", invalid="ignore")
def largest_curvature(gram) -> np.ndarray:
    """A bound on the largest eigenvalue of each, nearly always: by power iterations, and 2 % more."""
    tiny = np.finfo(gram.dtype).tiny
    # A start with a part in every direction, and none that data like.
    v = np.broadcast_to(np.cos(np.arange(gram.shape[1], dtype=gram.dtype) ** 2)[:, None], (len(gram), gram.shape[1], 1))
    for _ in range(20):
        v = gram @ v
        v = v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), tiny)
    return np.maximum(gram.dtype.type(1.02) * np.linalg.norm(gram @ v, axis=(1, 2)), tiny)


class Advanced(NamedTuple):
    """Where lanes are, and what is known there."""

    state: State
    left: jax.Array  # (F, L): the residual of a proximal step at w, ‖w − prox(w − (Gw − c)/L, 1/L)‖_∞·L
    forward: jax.Array | None  # that prox, (F, L, t, p), where the penalty is polished on the host
    bend: jax.Array | None  # its derivative, likewise: 0 for weights at a kink
    cost: jax.Array | None  # the penalty of w, (F, L), likewise


@program(static_argnames="layout")
def advance(quadratic, penalties, state, steps, layout: Layout) -> Advanced:
    """Steps of accelerated proximal gradient, one product with the Gram matrices each.

    Momentum restarts where it works against the step. The bound L on the curvature is checked on the step taken, which
    costs nothing here, and raised where it was too low; that step is not taken.
    """
    prox = layout.on_flat(lambda pen, x, step: pen.prox(x, step))
    linear = quadratic.linear[:, None]

    def forward(point, product, bound):
        return point - (product - linear) / bound[..., None, None]

    def step(_, s):
        w = prox(penalties, forward(s.y, s.y_product, s.bound), 1 / s.bound)
        product = quadratic.product(w)
        d = w - s.y
        size, bend = dot(d, d), dot(d, product - s.y_product)
        low = bend > s.bound * size * (1 + 1e-6)
        restart = low | (dot(d, w - s.w) < 0)
        momentum = jnp.where(restart, 1, (1 + jnp.sqrt(1 + 4 * jnp.square(s.momentum))) / 2)
        share = jnp.where(restart, 0, (s.momentum - 1) / momentum)[..., None, None]
        bound = jnp.where(low, jnp.maximum(1.1 * bend / jnp.where(size == 0, 1, size), 1.3 * s.bound), s.bound)
        y, y_product = w + share * (w - s.w), product + share * (product - s.product)
        kept = State(s.w, s.product, s.w, s.product, momentum, bound)
        taken = State(w, product, y, y_product, momentum, bound)
        return State(*(pick(low, a, b) for a, b in zip(kept[:4], taken[:4], strict=True)), momentum, bound)

    s = jax.lax.fori_loop(0, steps, step, state)
    x, bend, cost = forward(s.w, s.product, s.bound), None, None
    if on_host(penalties):
        z, bend = jax.jvp(lambda x: prox(penalties, x, 1 / s.bound), (x,), (jnp.ones_like(x),))
        cost = layout.on_flat(lambda pen, w: pen.value(w))(penalties, s.w)
    else:
        z = prox(penalties, x, 1 / s.bound)
    left = jnp.max(jnp.abs(s.w - z), (-2, -1), initial=0) * s.bound
    return Advanced(s, left, z if on_host(penalties) else None, bend, cost)


def descend(quadratic, penalties, start, tol, *, layout, max_iter, dtype, look: Callable | None = None):
    """Rounds of steps and a polish until every lane is certified, stands still, or `max_iter` steps are done.

    Args:
        quadratic: in float64, of NumPy arrays.
        penalties: leaves with leading axes (F, L).
        start: (F, L, t, p).
        tol: on the certificate.
        layout: of the coefficients.
        max_iter: steps to stop at.
        dtype: of the iterates.
        look: (w, product) -> certificate (F, L), in float64; None takes the residual of a proximal step, relative to
            the largest gradient at 0.

    Returns:
        (w, certificate, iterations): (F, L, t, p), (F, L), and a number for all.
    """
    narrow, thin = (cast(x, dtype) for x in (quadratic, penalties))
    lead = start.shape[:2]
    bound = np.broadcast_to(largest_curvature(narrow.gram)[:, None], lead)
    best, value, last = np.array(start, np.float64), np.full(lead, np.inf), np.zeros(lead, int)
    size = np.abs(quadratic.linear).max((1, 2))[:, None]
    iterations, easy = 0, 0 if look is None and on_host(penalties) else EASY

    def seen(now, count):
        w = np.asarray(now.state.w, np.float64)
        if look is None:
            new = np.asarray(now.left, np.float64) / np.where(size > 0, size, 1)
        else:
            product = np.asarray(now.state.product) if dtype == np.float64 else quadratic.product(w)
            new = look(w, product)
        better = new < value
        best[better], value[better], last[better] = w[better], new[better], count

    def unfinished(count):
        # A lane stands still that got no better in `PATIENCE` rounds, each longer than those before.
        return iterations < max_iter and np.any((value > tol) & (count - last <= PATIENCE))

    there = jax.device_put((narrow, thin))

    def go(state, steps):
        return jax.tree.map(np.asarray, advance(*there, state, steps, layout))

    state = at(narrow, np.asarray(start, dtype), bound)
    if look is None:
        seen(go(state, 0), 0)
    else:
        value[:], last[:] = look(best, quadratic.product(best)), 0
    for count in itertools.count():
        if not unfinished(count):
            return best, value, iterations
        steps = min(STEPS * 2 ** (count // 2), max_iter - iterations)
        now = go(state, steps)
        iterations += steps
        seen(now, count)
        state = now.state
        if count >= easy and polishable(penalties) and np.any(value > tol):
            if on_host(penalties):
                now = polish(narrow, now, value > tol, go)
            else:
                state = polished(*there, now.state, value > tol, layout)
                now = go(state, 0) if look is None else now._replace(state=state)
            seen(now, count)
            state = now.state


def cast(tree, dtype):
    """Numbers of a tree in another dtype."""
    return jax.tree.map(lambda x: x.astype(dtype) if np.issubdtype(x.dtype, np.floating) else x, tree)


def at(quadratic, w, bound) -> State:
    """At w, without momentum."""
    product = quadratic.product(w)
    return State(w, product, w, product, np.ones_like(bound), bound)


def polish(quadratic, now, wanted, go) -> Advanced:
    """After a Newton step on the support of each `wanted` lane, where that lowers the objective.

    Weights that would change sign become 0, or, if that is no better, the step ends where the first one does.
    """
    w, bound = now.state.w, now.state.bound
    d = newton_steps(quadratic, w, now.forward, now.bend, bound, wanted)
    flips = (w + d) * w < 0
    best, lowest = now, _objective(quadratic, now)
    reach = np.where(flips, -w / np.where(d == 0, 1, d), 1).min((2, 3), keepdims=True)
    trials = [np.where(flips, 0, w + d)]
    if flips.any():
        trials.append(np.where(flips & (-w / np.where(d == 0, 1, d) <= reach), 0, w + reach * d))
    for trial in trials:
        there = go(at(quadratic, trial, bound), 0)
        cost = _objective(quadratic, there)
        better = wanted & (cost < lowest)
        lowest = np.where(better, cost, lowest)
        best = jax.tree.map(lambda new, old, b=better: pick(b, new, old), there, best)
    return best


def newton_steps(quadratic, w, forward, bend, bound, wanted) -> np.ndarray:
    """The step of each wanted lane, 0 for others, to where w = prox(w − (Gw − c)/L, 1/L) if that is linear.

    With D the derivative of the prox this is (G + L(1 − D)/D)d = (L/D)(z − w) on the weights with D ≠ 0, once the
    others are where the prox z has them, which for kinks is 0.
    """
    d = np.where(wanted[..., None, None], forward - w, 0)
    if w.shape[-1] <= SMALL:  # all at once; those that are not free have an equation of their own
        free = (bend > 0) & wanted[..., None, None]
        share = np.where(free, bend, 1)
        L = bound[..., None, None]
        away = np.where(free, 0, d)
        right = np.where(free, L / share * d - quadratic.product(away), away)
        matrix = np.where(free[..., None] & free[..., None, :], quadratic.gram[:, None, None], 0)
        more = np.where(free, L * ((1 - share) / share + RIDGE * np.finfo(w.dtype).eps), 1)
        matrix.reshape(*w.shape[:3], -1)[..., :: w.shape[-1] + 1] += more
        return np.linalg.solve(matrix, right[..., None])[..., 0]
    for fold, lane in np.argwhere(wanted):
        gram, L = quadratic.gram[fold], bound[fold, lane]
        for target, slope in enumerate(bend[fold, lane]):
            free = np.flatnonzero(slope > 0)
            if not 0 < free.size <= DENSE:
                continue
            step = d[fold, lane, target]
            away = np.where(slope > 0, 0, step)
            share = slope[free]
            right = L / share * step[free] - (gram[free] @ away if away.any() else 0)
            matrix = gram[free[:, None], free]
            # Where columns repeat each other the step is the one of least norm, nearly.
            matrix.ravel()[:: free.size + 1] += L * ((1 - share) / share + RIDGE * np.finfo(L.dtype).eps)
            step[free] = np.linalg.solve(matrix, right)
    return d


def _objective(quadratic, now) -> np.ndarray:
    return dot(now.state.w, now.state.product / 2 - quadratic.linear[:, None]) + now.cost
