"""The proximal verb in the metric of a preconditioner, which it therefore contains."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxreg.arrays import floating
from jaxreg.pytree import is_schedule, lift
from jaxreg.requirements import require_penalties
from jaxreg.transforms.base import at, check_leaves, check_rate, need_params
from jaxreg.transforms.proximal import shrink


class ProxgenState(NamedTuple):
    """The state of `proxgen`.

    Attributes:
        count: the number of updates made.
        preconditioner: the state of the transformation inside.
    """

    count: jax.Array
    preconditioner: Any


def proxgen(
    pens, learning_rate, transformation: optax.GradientTransformation, diagonal: Callable
) -> optax.GradientTransformationExtraArgs:
    r"""Preconditioned proximal step: what an unscaled optax preconditioner does, and the prox in the same metric.

    A preconditioner turns gradients into m̂/d; with its diagonal d, weight by weight, the new parameters are

        argmin_z ⟨m̂, z⟩ + Σ_i d_i(z_i − θ_i)²/(2η) + λΩ(z) = prox_{(η/d)λΩ}(θ − ηm̂/d)

    Its fixed points solve the problem J + λΩ, whatever d is. Those of `chain(adam, proximal)`, whose prox takes the
    step η for every weight, solve another. It is a whole optimizer, the learning rate included; for Adam it is ready
    as `proximal_adam`, and for RMSProp it is

        jr.proxgen(pens, lr, optax.scale_by_rms(), lambda state: jax.tree.map(lambda v: jnp.sqrt(v + 1e-8), state.nu))

    Args:
        pens: a penalty on each weight by itself and with a prox (`L1`, `MCP`, ..., and `Towards` and sums of such), a
            prefix tree of such and None, or a schedule count -> either.
        learning_rate: η ≥ 0, a number or a schedule count -> number.
        transformation: gradients -> m̂/d, such as `optax.scale_by_adam()`; no sign, no learning rate.
        diagonal: its state after the update -> d > 0, a tree like the parameters, or one number for all.

    Returns:
        A gradient transformation; its state is a `ProxgenState`. Where the prox leaves the step as it is, and where
        there is no penalty, it is the step of `optax.chain(transformation, optax.scale_by_learning_rate(η))`.

    Raises:
        TypeError: if `pens` holds anything but penalties on each weight by itself and with a prox, or
            `transformation` or `diagonal` is not what it has to be.
        ValueError: if a literal `learning_rate` is negative or NaN.

    >>> import jaxreg as jr
    >>> scale = jnp.array([4.0, 1.0])
    >>> halves = optax.stateless(lambda g, params: g / scale)
    >>> tx = jr.proxgen(jr.L1(1.0), 1.0, halves, lambda state: scale)
    >>> w = jnp.array([0.5, 0.5])                               # thresholds of η λ/d: 0.25 and 1
    >>> optax.apply_updates(w, tx.update(jnp.zeros(2), tx.init(w), w)[0]).tolist()
    [0.25, 0.0]

    References:
        Yun, Lozano and Yang, Adaptive proximal gradient methods for structured neural networks, NeurIPS 2021,
        algorithm 1.
    """
    return _proxgen("proxgen", pens, learning_rate, transformation, diagonal)


def proximal_adam(
    learning_rate, pens, *, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0
) -> optax.GradientTransformationExtraArgs:
    r"""Adam with exact zeros: `proxgen` with `optax.scale_by_adam` and its d = √(ν̂ + ε_root) + ε.

    It stands in the place of `optax.adam`, whose very step it makes where there is no penalty. `projected` may follow:

        optax.chain(jr.proximal_adam(lr, pens), jr.projected(unit))

    The threshold of a weight is ηλ/d, large where gradients are small: a weight whose gradients have all been 0 has
    d = ε and becomes 0 at once. To differentiate in λ through steps in which ν̂ may be 0, give Adam an ε_root > 0.

    Args:
        learning_rate: η ≥ 0, a number or a schedule count -> number.
        pens: a penalty on each weight by itself and with a prox, a prefix tree of such and None, or a schedule count
            -> either.
        b1: the decay of the mean of gradients.
        b2: the decay of the mean of their squares.
        eps: ε, added to the root.
        eps_root: ε_root, added under it.

    Returns:
        A gradient transformation; its state is a `ProxgenState` around Adam's.

    Raises:
        TypeError: if `pens` holds anything but penalties on each weight by itself and with a prox.
        ValueError: if a literal `learning_rate` is negative or NaN.

    >>> import jaxreg as jr
    >>> tx = jr.proximal_adam(0.1, jr.L1(2.0))
    >>> w = jnp.array([1.0, 0.2])
    >>> u, _ = tx.update(jnp.array([4.0, -1.0]), tx.init(w), w)  # Adam's step ∓0.1, then thresholds 0.2/4 and 0.2/1
    >>> [round(x, 4) for x in optax.apply_updates(w, u).tolist()]
    [0.85, 0.1]

    References:
        Yun, Lozano and Yang, Adaptive proximal gradient methods for structured neural networks, NeurIPS 2021,
        section 3.
    """

    def diagonal(state):
        squares = optax.tree.bias_correction(state.nu, b2, state.count)
        return jax.tree.map(lambda v: jnp.sqrt(v + eps_root) + eps, squares)

    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps, eps_root=eps_root)
    return _proxgen("proximal_adam", pens, learning_rate, adam, diagonal)


def _proxgen(verb, pens, learning_rate, transformation, diagonal):
    def require(pens):
        require_penalties(pens, verb, proximable=True, separable=True)

    check_rate(learning_rate, verb)
    require(at(pens, jnp.zeros([], jnp.int32)))
    if not isinstance(transformation, optax.GradientTransformation):
        raise TypeError(f"`{verb}` needs a gradient transformation as `transformation`, got {transformation!r}.")
    if not callable(diagonal):
        raise TypeError(f"`{verb}` needs a function of the transformation's state as `diagonal`, got {diagonal!r}.")
    inner = optax.with_extra_args_support(transformation)

    def init(params):
        count = jnp.zeros([], jnp.int32)
        check_leaves(
            lambda pen, p: (pen.measure(p), pen.prox(p, jnp.ones_like(floating(p, pen)))), at(pens, count), params
        )
        return ProxgenState(count, inner.init(params))

    def update(updates, state, params=None, **extra_args):
        need_params(params)
        current, rate = at(pens, state.count), at(learning_rate, state.count)
        if is_schedule(pens):
            require(current)
        scaled, preconditioner = inner.update(updates, state.preconditioner, params, **extra_args)
        step = jax.tree.map(lambda u: jnp.asarray(-1 * rate, jnp.result_type(u)) * u, scaled)
        metric = diagonal(preconditioner)

        def link(pen, u, p, d):
            d = floating(d, pen)
            return shrink(pen, u, p, jnp.asarray(rate, d.dtype) / d)

        if jax.tree_util.all_leaves([metric]):
            step = lift(lambda pen, u, p: link(pen, u, p, metric), current, step, params)
        else:
            step = lift(link, current, step, params, metric)
        return step, ProxgenState(optax.safe_increment(state.count), preconditioner)

    return optax.GradientTransformationExtraArgs(init, update)
