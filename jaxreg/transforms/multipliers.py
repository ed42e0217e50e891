"""The KKT verb: gradient descent on the parameters, gradient ascent on one multiplier per group."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxreg.arrays import floating, times, widest
from jaxreg.constraints import Equality
from jaxreg.objective import violation
from jaxreg.penalties.base import largest
from jaxreg.pytree import lift
from jaxreg.requirements import require_constraints
from jaxreg.transforms.base import at, check_leaves, check_rate, need_params


class MultipliersState(NamedTuple):
    """The state of `multipliers`.

    Attributes:
        count: the number of updates made.
        alpha: the multipliers, a tree like the parameters with None where nothing is constrained.
        previous: the violations at the last update, kept for `proportional`; None without it.
    """

    count: jax.Array
    alpha: Any
    previous: Any


class KKTResiduals(NamedTuple):
    """How far parameters and multipliers are from solving the constrained problem; all zero at a solution.

    Attributes:
        stationarity: max |∇J + Σ α∇v|.
        feasibility: max (v)₊, max |v| for equalities.
        complementarity: max |αv|.
    """

    stationarity: jax.Array
    feasibility: jax.Array
    complementarity: jax.Array


def multipliers(
    cons, dual_learning_rate, *, augmentation=0.0, proportional=0.0, alternating: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""KKT multipliers for min_θ max_{α ≥ 0} J(θ) + Σ α_g v_g(θ), v_g = Ω_g(θ) − k_g, one per group.

    A multiplier rises where Ω > k and falls where Ω < k:

        g_t ← g_t + [α_t + c·v_t]₊ ∇v_t,     α_{t+1} = [α_t + η·v_t + κ·(v_t − v_{t−1})]₊,     α_0 = 0, v_{−1} = v_0

    For `Equality` there is no [·]₊. It works on gradients, so it comes *first*, or between preconditioner and
    learning rate:

        optax.chain(jr.multipliers(jr.L2Ball(3.0, axis=0), 1e-2), optax.adam(lr))

    Plain ascent (c = κ = 0) cycles around non-convex or linear problems; c or κ > 0 damps it. Sets without an inside
    (`Sphere`, `Simplex`, `Orthonormal`) need c > 0: their violation is a distance, so α never falls. `Equality` of a
    ball is the smooth way to ask for a norm.

    Args:
        cons: a constraint, a prefix tree of constraints and None, or a schedule count -> either.
        dual_learning_rate: η ≥ 0, a number or a schedule count -> number.
        augmentation: c ≥ 0, the augmented Lagrangian's.
        proportional: κ ≥ 0, the gain on the change of the violation (PI control).
        alternating: compute α_{t+1} first and use it in the gradient, in the place of α_t.

    Returns:
        A gradient transformation; its state is a `MultipliersState`, α of the shape of `violation`.

    Raises:
        TypeError: if `cons` holds anything but constraints.
        ValueError: if a literal rate or gain is negative or NaN.

    >>> import jaxreg as jr
    >>> tx = jr.multipliers(jr.L2Ball(1.0), 0.5)
    >>> w = jnp.array([3.0, 4.0])
    >>> u, state = tx.update(jnp.zeros(2), tx.init(w), w)
    >>> state.alpha.item()
    2.0

    References:
        Arrow, Hurwicz and Uzawa, 1958; Platt and Barr, Constrained differential optimization, 1988;
        Sohrabi et al., On PI controllers for updating Lagrange multipliers, 2024, algorithm 1.
    """
    check_rate(dual_learning_rate, "multipliers", "dual_learning_rate")
    for name, gain in (("augmentation", augmentation), ("proportional", proportional)):
        check_rate(gain, "multipliers", name)
        if callable(gain):
            raise TypeError(f"`multipliers` needs a number as `{name}`, got the schedule {gain!r}.")
    require_constraints(at(cons, jnp.zeros([], jnp.int32)), "multipliers", differentiable=True)
    damped = not (isinstance(proportional, (int, float)) and proportional == 0)

    def init(params):
        count = jnp.zeros([], jnp.int32)
        current = at(cons, count)
        check_leaves(lambda con, p: con.violation(p), current, params)
        alpha = jax.tree.map(jnp.zeros_like, violation(current, params))
        # Two buffers: states are donated.
        return MultipliersState(count, alpha, jax.tree.map(jnp.zeros_like, alpha) if damped else None)

    def update(updates, state, params=None, **extra_args):
        del extra_args
        need_params(params)
        current = at(cons, state.count)
        rate = at(dual_learning_rate, state.count)
        v = violation(current, params)

        def ascend(con, alpha, v, last=None):
            alpha = alpha + times(jnp.asarray(rate, v.dtype), v)
            if last is not None:
                # Two infinite violations (bound = inf) differ by nothing.
                same = (state.count == 0) | (v == last)
                alpha = alpha + times(jnp.asarray(proportional, v.dtype), jnp.where(same, 0, v - last))
            return _dual(con, alpha, v)

        def push(con, u, p, alpha, v):
            weight = _dual(con, alpha + times(jnp.asarray(augmentation, v.dtype), v), v)
            (slope,) = jax.vjp(con.violation, floating(p, con))[1](weight)
            return (floating(u, con) + slope).astype(jnp.result_type(u))

        rest = (v, state.previous) if damped else (v,)
        alpha = lift(ascend, current, state.alpha, *rest)
        updates = lift(push, current, updates, params, alpha if alternating else state.alpha, v)
        previous = lift(lambda con, last, v: v, current, state.previous, v) if damped else None
        return updates, MultipliersState(optax.safe_increment(state.count), alpha, previous)

    return optax.GradientTransformationExtraArgs(init, update)


def _dual(con, alpha, v):
    """The multiplier's domain: any sign for an equality, [·]₊ for an inequality."""
    if isinstance(con, Equality):
        return alpha
    # At 0 a larger gain has an effect where v > 0 only: so has its derivative.
    return jnp.where((alpha < 0) | ((alpha == 0) & (v <= 0)), 0, alpha)


def kkt_residuals(cons, params, grads, alpha) -> KKTResiduals:
    r"""The certificate that a constrained problem is solved: stationarity, feasibility, complementarity.

    Args:
        cons: a constraint, or a prefix tree of constraints and None.
        params: the parameters θ.
        grads: ∇J(θ) alone, without the multipliers' part.
        alpha: the multipliers, as in the state of `multipliers`.

    Returns:
        `KKTResiduals(stationarity, feasibility, complementarity)`, three scalars.

    >>> import jaxreg as jr
    >>> w = jnp.array([0.6, 0.8])                                   # the point of the unit ball nearest to (3, 4)
    >>> r = kkt_residuals(jr.L2Ball(1.0), w, w - jnp.array([3.0, 4.0]), jnp.array(4.0))
    >>> bool(max(r) < 1e-6)
    True

    References:
        Boyd and Vandenberghe, Convex optimization, 2004, section 5.5.3.
    """
    require_constraints(cons, "kkt_residuals")
    v = violation(cons, params)

    def slope(con, g, p, a):
        v, pull = jax.vjp(con.violation, floating(p, con))
        return floating(g, con) + pull(jnp.broadcast_to(jnp.asarray(a, v.dtype), v.shape))[0]

    def gap(con, a, v):
        return jnp.abs(v) if isinstance(con, Equality) else jnp.maximum(v, 0)

    def slack(con, a, v):
        return jnp.abs(times(jnp.asarray(a, v.dtype), v))

    return KKTResiduals(
        _largest(lift(slope, cons, grads, params, alpha)),
        _largest(lift(gap, cons, alpha, v)),
        _largest(lift(slack, cons, alpha, v)),
    )


def _largest(tree) -> jax.Array:
    sizes = [largest(jnp.abs(x)) for x in jax.tree.leaves(tree)]
    dtype = widest(s.dtype for s in sizes)
    return functools.reduce(jnp.maximum, [s.astype(dtype) for s in sizes], jnp.zeros((), dtype))
