"""The certificate that a constrained problem is solved."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxreg.arrays import floating, is_floating, times, widest
from jaxreg.constraints import Equality
from jaxreg.objective import violation
from jaxreg.penalties.base import largest
from jaxreg.pytree import flatten, is_schedule, lift
from jaxreg.requirements import require_constraints
from jaxreg.transforms.functions import equalities, pull_back


class KKTResiduals(NamedTuple):
    """How far parameters and multipliers are from solving the constrained problem; all zero at a solution.

    Attributes:
        stationarity: max |∇J + Σ α∇v|.
        feasibility: max (v)₊, max |v| for equalities.
        complementarity: max |αv|, and max (−α)₊ for inequalities: their multipliers have to be ≥ 0.
    """

    stationarity: jax.Array
    feasibility: jax.Array
    complementarity: jax.Array


def kkt_residuals(cons, params, grads, alpha, *, equality=None) -> KKTResiduals:
    r"""The certificate that a constrained problem is solved: stationarity, feasibility, complementarity.

    Args:
        cons: a constraint, or a prefix tree of constraints and None; or a function of the parameters that returns
            violations, as for `multipliers_for`.
        params: the parameters θ.
        grads: ∇J(θ) alone, without the multipliers' part.
        alpha: the multipliers, as in the state of `multipliers`.
        equality: for a function: which of its violations have to be 0, as for `multipliers_for`.

    Returns:
        `KKTResiduals(stationarity, feasibility, complementarity)`, three scalars.

    Raises:
        TypeError: if `cons` holds anything but constraints.
        ValueError: if `alpha` is not like the violations.

    >>> import jaxreg as jr
    >>> w = jnp.array([0.6, 0.8])                                   # the point of the unit ball nearest to (3, 4)
    >>> r = kkt_residuals(jr.L2Ball(1.0), w, w - jnp.array([3.0, 4.0]), jnp.array(4.0))
    >>> bool(max(r) < 1e-6)
    True

    References:
        Boyd and Vandenberghe, Convex optimization, 2004, section 5.5.3.
    """
    if is_schedule(cons):
        return _of_function(cons, params, grads, alpha, equality)
    require_constraints(cons, "kkt_residuals")
    v = violation(cons, params)
    if dict(flatten(alpha)[0]).keys() != dict(flatten(v)[0]).keys():
        raise ValueError(
            "`kkt_residuals` needs `alpha`, a tree like the violations, with multipliers where there are constraints: "
            f"{jax.tree.structure(v)}; got {jax.tree.structure(alpha)}."
        )

    def slope(con, g, p, a):
        v, pull = jax.vjp(con.violation, floating(p, con))
        return floating(g, con) + pull(jnp.broadcast_to(jnp.asarray(a, v.dtype), v.shape))[0]

    def each(fn: Callable, *trees):
        return lift(lambda con, *arrays: fn(isinstance(con, Equality), *arrays), cons, *trees)

    return residuals(lift(slope, cons, grads, params, alpha), each, alpha, v)


def _of_function(fn, params, grads, alpha, equality) -> KKTResiduals:
    v, pull = pull_back(fn, params)
    kinds = equalities(fn, equality, v)
    alpha = jax.tree.map(lambda a, v: jnp.broadcast_to(jnp.asarray(a, v.dtype), v.shape), alpha, v)
    return residuals(pull(grads, alpha), lambda fn, *trees: jax.tree.map(fn, kinds, *trees), alpha, v)


def residuals(stationary, each: Callable, alpha, v) -> KKTResiduals:
    """The three numbers from ∇J + Σ α∇v, α and v; `each` maps fn(equality, *arrays) over trees of constraints."""
    gap = each(lambda equality, v: jnp.abs(v) if equality else jnp.maximum(v, 0), v)

    def slack(equality, alpha, v):
        alpha = jnp.asarray(alpha, v.dtype)
        slack = jnp.abs(times(alpha, v))
        return slack if equality else jnp.maximum(slack, -alpha)

    return KKTResiduals(_largest(stationary), _largest(gap), _largest(each(slack, alpha, v)))


def _largest(tree) -> jax.Array:
    sizes = [largest(jnp.abs(x)) for x in jax.tree.leaves(tree) if is_floating(x)]
    dtype = widest(s.dtype for s in sizes)
    return functools.reduce(jnp.maximum, [s.astype(dtype) for s in sizes], jnp.zeros((), dtype))
