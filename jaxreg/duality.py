"""Penalty and constraint are two sides of one problem: which bound a strength amounts to, and which strength a bound.

At a solution of min J(θ) + λΩ(θ), θ also solves min J(θ) subject to Ω(θ) ≤ k with k = Ω(θ), and λ is its multiplier.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxreg.arrays import floating, group_axes, power_of_two
from jaxreg.constraints import Equality
from jaxreg.penalties import Penalty, Towards
from jaxreg.penalties.base import largest
from jaxreg.pytree import lift, title
from jaxreg.requirements import require_constraints, require_penalties


def bound_for_strength(pens, params):
    r"""The bounds k = Ω(θ) under which parameters trained with penalties λΩ would solve the constrained problem.

    `SublevelSet(penalty at strength 1, k)` then has the multiplier λ. `vmap` it over a path to have k(λ).

    Args:
        pens: a penalty, or a prefix tree of penalties and None: those that θ was trained with. Each has to be λ times
            a measure, with one λ per group at most.
        params: the parameters θ.

    Returns:
        A tree of Ω per group, of the shape of `measure`, with None where there is no penalty.

    Raises:
        TypeError: if `pens` holds anything but penalties, or one whose strength is no factor, as in `MCP` or sums.
        ValueError: if a penalty has a λ per weight.

    >>> import jaxreg as jr
    >>> w = jnp.array([[3.0, 0.0], [4.0, 1.0]])
    >>> bound_for_strength(jr.SquaredL2(1e-2, axis=0), w).tolist()
    [12.5, 0.5]

    References:
        Goodfellow, Bengio and Courville, Deep Learning, 2016, section 7.2.
    """
    require_penalties(pens, "bound_for_strength")
    return lift(lambda pen, p: _unit(pen, jnp.asarray(p)).measure(p), pens, params, otherwise=lambda p: None)


def strength_for_bound(cons, params, grads):
    r"""The strengths λ under which parameters trained with constraints Ω ≤ k would solve the penalized problem.

    They are the multipliers that explain the gradient best, argmin_α Σ ‖∇J + α_g∇v_g‖², not below 0 for inequalities:

        α_g = [−⟨∇J, ∇v_g⟩/‖∇v_g‖²]₊, 0 where ∇v_g = 0

    Whether a bound is active is not looked at: away from a solution a group well inside its bound has a gradient too.
    At a solution they are the α of `multipliers`, however θ was trained, by `projected` for one. `vmap` it over a path
    to have α*(k) = −dJ*/dk, the price of the bound.

    Args:
        cons: a constraint, or a prefix tree of constraints and None.
        params: the parameters θ, at a solution.
        grads: ∇J(θ) alone.

    Returns:
        A tree of λ per group, of the shape of `violation`, with None where nothing is constrained.

    Raises:
        TypeError: if `cons` holds anything but constraints with a gradient.

    >>> import jaxreg as jr
    >>> w = jnp.array([0.6, 0.8])                                   # the point of the unit ball nearest to (3, 4)
    >>> round(strength_for_bound(jr.L2Ball(1.0), w, w - jnp.array([3.0, 4.0])).item(), 5)
    4.0

    References:
        Nocedal and Wright, Numerical optimization, 2006, eq. 18.21 (least-squares multipliers).
    """
    require_constraints(cons, "strength_for_bound", differentiable=True)

    def explain(con, p, g):
        p, g = floating(p, con), floating(g, con)
        v, pull = jax.vjp(con.violation, p)
        # Groups do not overlap: along the sum of their slopes, each violation grows by ‖∇v_g‖².
        (slope,) = pull(jnp.ones_like(v))
        scale = power_of_two(largest(jnp.abs(slope)))  # its square may be out of range
        along, size = (jax.jvp(con.violation, (p,), (d.astype(p.dtype),))[1] for d in (g, slope / scale))
        strength = -along / jnp.where(size > 0, size, 1) * (1 / scale)  # compiled, a / b / c is a / (b·c)
        return strength if isinstance(con, Equality) else jnp.maximum(strength, 0)

    return lift(explain, cons, params, grads, otherwise=lambda p, g: None)


def _unit(pen: Penalty, x) -> Penalty:
    """The penalty at strength 1."""
    if isinstance(pen, Towards):
        return dataclasses.replace(pen, penalty=_unit(pen.penalty, x))
    if not pen.homogeneous:
        raise TypeError(
            f"`bound_for_strength` needs penalties that are λ times a measure; `{title(pen)}` is not. "
            "Bound it as it is: `SublevelSet(penalty, penalty.measure(params))` has the multiplier 1."
        )
    shape = (1,) * (x.ndim - jnp.ndim(pen.lam)) + jnp.shape(pen.lam)
    if pen.separable and any(shape[a] != 1 for a in group_axes(pen.axis, x, pen)):
        raise ValueError(
            f"`bound_for_strength` needs one λ per group; got `lam` of shape {jnp.shape(pen.lam)} in "
            f"`{title(pen)}` with axis={pen.axis} for a leaf of shape {x.shape}."
        )
    return dataclasses.replace(pen, lam=1.0)
