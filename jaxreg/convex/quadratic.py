"""Least squares from their Gram matrices: every lane at once, by accelerated proximal gradient and a polish."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex.dual import feasible
from jaxreg.convex.lanes import Layout, State, dot, fresh, pick
from jaxreg.convex.polish import polishable, polished

STEPS = 12  # of the first rounds
EASY = 2  # rounds that come without a polish
PATIENCE = 6  # rounds


class Quadratic(NamedTuple):
    """½‖w‖²_G − ⟨c, w⟩ + ½e for each of F folds: ‖y − Xw‖²/2 with weights that sum to 1."""

    gram: jax.Array  # (F, p, p), XᵀSX
    linear: jax.Array  # (F, t, p), yᵀSX
    energy: jax.Array  # (F,), yᵀSy

    def product(self, w):
        """Gw for lanes (F, L, t, p)."""
        folds, lanes, targets, p = w.shape
        out = jnp.einsum("fap,fpq->faq", w.reshape(folds, lanes * targets, p), self.gram.astype(w.dtype))
        return out.reshape(w.shape)


def loss(quadratic, w, product):
    """The value for each lane (F, L)."""
    return quadratic.energy[:, None] / 2 - dot(quadratic.linear[:, None], w) + dot(w, product) / 2


def duality_gap(quadratic, penalties, w, product, cost, layout):
    """(P − D)/P(0) of each lane; `product` is Gw and `cost` the penalty of w."""
    energy, linear = quadratic.energy[:, None], quadratic.linear[:, None]
    fitted = dot(linear, w)
    residual = energy - 2 * fitted + dot(w, product)  # ‖y − Xw‖²
    scale, conjugate = jax.vmap(jax.vmap(lambda pen, v: feasible(pen, layout.coef(v))))(penalties, linear - product)
    dual = scale * (energy - fitted) - jnp.square(scale) * residual / 2 - conjugate
    return (loss(quadratic, w, product) + cost - dual) / jnp.where(energy == 0, 1, energy / 2)


def stationarity(quadratic, penalties, w, product, layout, kind):
    """`optimality` of each lane, or the residual of a proximal step, relative to the largest gradient at 0."""
    linear = quadratic.linear[:, None]
    size = jnp.max(jnp.abs(linear), (-2, -1))

    def distance(penalty, w, g, unit):
        w, g = layout.coef(w), layout.coef(g)
        if kind == "optimality":
            return penalty.optimality(w, g)
        return jnp.max(jnp.abs(w - penalty.prox(w - g, 1.0)))

    size = jnp.broadcast_to(size, w.shape[:2])
    far = jax.vmap(jax.vmap(distance))(penalties, w, product - linear, size)
    return far / jnp.where(size == 0, 1, size)


@functools.partial(jax.jit, static_argnames=("layout", "kind"))
def certified(quadratic, penalties, w, product, *, layout, kind):
    """(certificate, objective, loss, slope of the loss) of each lane; `product` is Gw."""
    penalty = layout.on_flat(lambda pen, x: pen.value(x))(penalties, w)
    if kind == "gap":
        value = duality_gap(quadratic, penalties, w, product, penalty, layout)
    else:
        value = stationarity(quadratic, penalties, w, product, layout, kind)
    fit = loss(quadratic, w, product)
    return jnp.maximum(value, 0), fit + penalty, fit, product - quadratic.linear[:, None]


@functools.partial(jax.jit, static_argnames=("layout", "kind"))
def judged(quadratic, penalties, w, *, layout, kind):
    """`certified` at w."""
    return certified(quadratic, penalties, w, quadratic.product(w), layout=layout, kind=kind)


@jax.jit
def largest_curvature(gram):
    """A bound on the largest eigenvalue of each, nearly always: by power iterations, and 2 % more."""

    def one(gram):
        def step(_, v):
            v = gram @ v
            return v / jnp.maximum(jnp.linalg.norm(v), jnp.finfo(v.dtype).tiny)

        # A start with a part in every direction, and none that data like.
        v = jax.lax.fori_loop(0, 20, step, jnp.cos(jnp.arange(gram.shape[0], dtype=gram.dtype) ** 2))
        return 1.02 * jnp.linalg.norm(gram @ v)

    return jnp.maximum(jax.vmap(one)(gram), jnp.finfo(gram.dtype).tiny)


@functools.partial(jax.jit, static_argnames="layout")
def advance(quadratic, penalties, state: State, steps, layout: Layout) -> State:
    """Steps of accelerated proximal gradient, one product with the Gram matrices each.

    Momentum restarts where it works against the step. The bound L on the curvature is checked on the step taken, which
    costs nothing here, and raised where it was too low; that step is not taken.
    """
    prox = layout.on_flat(lambda pen, x, step: pen.prox(x, step))

    def step(_, s):
        w = prox(penalties, s.y - (s.y_product - quadratic.linear[:, None]) / s.bound[..., None, None], 1 / s.bound)
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

    return jax.lax.fori_loop(0, steps, step, state)


def descend(quadratic, penalties, start, tol, *, layout, kind, max_iter, dtype):
    """Rounds of steps and a polish until every lane is certified, stands still, or `max_iter` steps are done.

    Args:
        quadratic: in float64.
        penalties: leaves with leading axes (F, L).
        start: (F, L, t, p).
        tol: on the certificate.
        layout: of the coefficients.
        kind: of the certificate.
        max_iter: steps to stop at.
        dtype: of the iterates; certificates are float64.

    Returns:
        (w, certificate, iterations): (F, L, t, p), (F, L), and a number for all.
    """
    narrow, thin = (cast(x, dtype) for x in (quadratic, penalties))
    bound = jnp.broadcast_to(largest_curvature(narrow.gram)[:, None], start.shape[:2])
    best, value, last = np.array(start, np.float64), np.full(start.shape[:2], np.inf), np.zeros(start.shape[:2], int)
    iterations = 0

    def look(state, count):
        w = state.w.astype(np.float64)
        product = state.product if dtype == np.float64 else quadratic.product(w)
        new = np.asarray(certified(quadratic._replace(gram=None), penalties, w, product, layout=layout, kind=kind)[0])
        better = new < value
        best[better], value[better], last[better] = np.asarray(w)[better], new[better], count

    def unfinished(count):
        # A lane stands still that got no better in `PATIENCE` rounds, each longer than those before.
        return iterations < max_iter and np.any((value > tol) & (count - last <= PATIENCE))

    state = fresh(narrow, jnp.asarray(start, dtype), bound)
    look(state, 0)
    for count in itertools.count():
        if not unfinished(count):
            return best, value, iterations
        steps = min(STEPS * 2 ** (count // 2), max_iter - iterations)
        state = advance(narrow, thin, state, steps, layout)
        iterations += steps
        look(state, count)
        if count >= EASY and polishable(penalties) and np.any(value > tol):
            state = polished(narrow, thin, state, jnp.asarray(value > tol), layout)
            look(state, count)


def cast(tree, dtype):
    """Numbers of a tree in another dtype."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
