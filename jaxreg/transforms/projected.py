"""The reprojection verb: a step, then the nearest point of the constraint set."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxreg.arrays import times, widest
from jaxreg.pytree import is_schedule, lift
from jaxreg.requirements import require_constraints
from jaxreg.transforms.base import OnStep, at, at_first, check_leaves, check_rate, need_params, stateless_link
from jaxreg.transforms.proximal import move


class MomentumState(NamedTuple):
    """The state of `projected` with momentum.

    Attributes:
        count: the number of updates made.
        velocity: the last move of each parameter, float32 at least: after the projection, before the parameter's dtype
            rounded it.
    """

    count: jax.Array
    velocity: Any


def projected(cons, *, update_dtype=None, momentum=None) -> optax.GradientTransformationExtraArgs:
    r"""Reprojection: the new parameters are proj_{Ω ≤ k}(θ + u), max-norm regularization with `L2Ball(c, axis=0)`.

    It comes *last*, after the learning rate:

        optax.chain(optax.sgd(lr), jr.projected(jr.by_path(params, {"*/kernel": jr.L2Ball(3.0, axis=0)})))

    Where θ + u is inside, u is returned bit for bit. Elsewhere θ + (proj − θ) is subject to rounding: the update of
    leaves narrower than float32 is float32 (`optax.apply_updates` casts the sum back; Equinox's does not), and lands
    within one rounding at the magnitude of the larger of old and new weight. For the projection correctly rounded,
    call `jr.project(cons, params)` after `apply_updates`.

    After Adam, whose step is scaled weight by weight, the projection is still the Euclidean one: the weights are in the
    set, but settle elsewhere than at the constrained minimum, which SGD before it, or `multipliers`, finds.

    An optimizer's own momentum does not see the projection: while the gradient points out of the set, the buffer grows
    to 1/(1 − β) gradients though nothing moves, and when the gradient turns, the weight stays at the boundary until the
    buffer has turned too (7 steps at β = 0.9). With `momentum` = β the heavy ball is here, of the moves that were made,
    and the optimizer has none. It matters where gradients change sign, less on the way to one fixed minimum. Parameters
    without a constraint get it too; where nothing is projected it is `optax.sgd(lr, β)`, but for a scheduled lr, which
    here scales only the gradient that is new:

        optax.chain(optax.sgd(lr), jr.projected(cons, momentum=0.9))            # proj(θ_t + u + β(θ_t − θ_{t−1}))

    An average of points of a convex set is in it, up to rounding; of a sphere it is not. So that it is there exactly:

        average = jr.project(cons, optax.incremental_update(params, average, 0.01))

    Args:
        cons: a constraint with a projection, a prefix tree of such and None, or a schedule count -> either.
        update_dtype: None for the rule above; "param" for the dtype of each parameter, on which wrappers insist that
            choose between two updates (`jax.lax.cond`, `optax.MultiSteps`, `optax.apply_if_finite`).
        momentum: β ≥ 0, a number or a schedule count -> number; None for no momentum.

    Returns:
        A gradient transformation; its state is a count, with `momentum` a `MomentumState`.

    Raises:
        TypeError: if `cons` holds anything but constraints with a projection.
        ValueError: if `update_dtype` is neither None nor "param", or a literal `momentum` is negative or NaN.

    >>> import jaxreg as jr
    >>> tx = optax.chain(optax.sgd(1.0), jr.projected(jr.L2Ball(2.0)))
    >>> w = jnp.array([3.0, 3.0])
    >>> u, _ = tx.update(jnp.array([3.0, -1.0]), tx.init(w), w)
    >>> optax.apply_updates(w, u).tolist()
    [0.0, 2.0]
    >>> tx = optax.chain(optax.sgd(1.0), jr.projected(jr.Box(-1.0, 1.0), momentum=0.5))
    >>> w = jnp.array([0.0, 0.5])
    >>> u, state = tx.update(jnp.array([-0.5, -2.0]), tx.init(w), w)  # moves by 0.5 and, stopped at 1, by 0.5
    >>> tx.update(jnp.array([0.0, 0.5]), state, w + u)[0].tolist()
    [0.25, -0.25]

    References:
        Goodfellow, Bengio and Courville, Deep Learning, 2016, section 7.2;
        Srivastava et al., Dropout, 2014, section 5.1;
        Ochs, Chen, Brox and Pock, iPiano: inertial proximal algorithm for nonconvex optimization, 2014 (momentum).
    """
    if update_dtype not in (None, "param"):
        raise ValueError(f'`projected` needs `update_dtype` None or "param", got {update_dtype!r}.')

    def require(cons):
        require_constraints(cons, "projected", projectable=True)

    def cast(moved, p):
        return moved.astype(jnp.result_type(p)) if update_dtype == "param" else moved

    if momentum is None:
        return stateless_link(
            "projected",
            cons,
            require,
            lambda con, p: con.project(p),
            lambda con, u, p, count: cast(move(u, p, con.project, con), p),
        )

    check_rate(momentum, "projected", "momentum")
    at_first(cons, "projected", require)

    def init(params):
        count = jnp.zeros([], jnp.int32)
        check_leaves(lambda con, p: con.project(p), at(cons, count), params)
        return MomentumState(count, _everywhere(_at_rest, params))

    def update(updates, state, params=None, **extra_args):
        del extra_args
        need_params(params)
        current, beta = at(cons, state.count), at(momentum, state.count)
        if is_schedule(cons):
            require(current)

        def push(v, u):
            return jnp.asarray(u).astype(v.dtype) + times(jnp.asarray(beta, v.dtype), v)

        velocity = _everywhere(push, state.velocity, updates)
        velocity = lift(lambda con, v, p: move(v, p, con.project, con).astype(v.dtype), current, velocity, params)
        updates = _everywhere(lambda u, v, p: cast(v, p), updates, velocity, params)
        return updates, MomentumState(optax.safe_increment(state.count), velocity)

    return OnStep(init, update)


def _everywhere(fn, tree, *rest):
    """Map over leaves matched by path."""
    return lift(fn, None, tree, *rest, otherwise=fn)


def _at_rest(p):
    dtype = jnp.result_type(p)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"`projected` with `momentum` needs floating-point parameters, got {dtype}.")
    return jnp.zeros(jnp.shape(p), widest([dtype]))
