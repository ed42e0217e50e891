"""Conjugate gradients on the support: where the signs are right, the rest is a linear system."""

import jax
import jax.numpy as jnp

from jaxreg.convex.lanes import State, dot, pick
from jaxreg.convex.programs import program
from jaxreg.convex.support import free
from jaxreg.penalties import L1, ElasticNet, GroupL2, Huber, Separable, SparseGroup, SquaredL2

SMOOTH_ON_SUPPORT = (L1, SquaredL2, ElasticNet, Huber, GroupL2, SparseGroup)
MOST = 100


def polishable(penalty) -> bool:
    """Whether the penalty is convex, and smooth in the weights that are not zero."""
    return isinstance(penalty, SMOOTH_ON_SUPPORT)


def on_host(penalty) -> bool:
    """Whether its prox takes each weight by itself, so that Newton's step is a linear system of those that are free."""
    return polishable(penalty) and isinstance(penalty, Separable)


@program(static_argnames="layout")
def polished(quadratic, penalties, state, wanted, layout):
    """The state after a Newton step on the support of each `wanted` lane, where it lowered the objective.

    Weights that would change sign become 0, or, if that is no better, the step ends where the first one does.
    """
    w, product = state.w, state.product
    price = layout.on_flat(lambda pen, x: pen.value(x))
    slope = layout.on_flat(lambda pen, x: jax.grad(pen.value)(x))
    bend = layout.on_flat(lambda pen, x, d: jax.jvp(jax.grad(pen.value), (x,), (layout.coef(d),))[1])
    linear = quadratic.linear[:, None]
    support = layout.on_flat(free)(penalties, w) & wanted[..., None, None]

    def objective(w, product):
        return dot(w, product / 2 - linear) + price(penalties, w)

    residual = jnp.where(support, linear - product - slope(penalties, w), 0)
    size = dot(residual, residual)

    def unfinished(carry):
        k, _, _, _, now = carry
        return (k < MOST) & jnp.any(now > 1e-16 * size)

    def step(carry):
        k, d, residual, q, now = carry
        curved = jnp.where(support, quadratic.product(q) + bend(penalties, w, q), 0)
        bent = dot(q, curved)
        length = jnp.where(bent > 0, now / jnp.where(bent > 0, bent, 1), 0)[..., None, None]
        d, residual = d + length * q, residual - length * curved
        after = dot(residual, residual)
        q = residual + (after / jnp.where(now > 0, now, 1))[..., None, None] * q
        return k + 1, d, residual, q, jnp.where(bent > 0, after, 0)

    d = jax.lax.while_loop(unfinished, step, (0, jnp.zeros_like(w), residual, residual, size))[1]
    flips = (w + d) * w < 0
    reach = jnp.where(flips, -w / jnp.where(d == 0, 1, d), 1)
    length = jnp.min(reach, (-2, -1), keepdims=True)
    whole = jnp.where(flips, 0, w + d)
    part = jnp.where(flips & (reach <= length), 0, w + length * d)
    whole_product, part_product = quadratic.product(whole), quadratic.product(part)
    now, one, two = objective(w, product), objective(whole, whole_product), objective(part, part_product)
    first = one <= two
    better = wanted & (jnp.where(first, one, two) < now)
    w = pick(better, pick(first, whole, part), w)
    product = pick(better, pick(first, whole_product, part_product), product)
    y, y_product = pick(better, w, state.y), pick(better, product, state.y_product)
    return State(w, product, y, y_product, jnp.where(better, 1, state.momentum), state.bound)
