"""The KKT verb: gradient descent on the parameters, gradient ascent on one multiplier per group."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxreg.arrays import floating, is_floating, widest
from jaxreg.constraints import Equality
from jaxreg.objective import violation
from jaxreg.pytree import lift, nouns_of
from jaxreg.requirements import require_constraints
from jaxreg.transforms.ascent import Ascent
from jaxreg.transforms.base import OnGradients, at, at_first, check_leaves, need_params
from jaxreg.transforms.certificate import KKTResiduals, residuals


class MultipliersState(NamedTuple):
    """The state of `multipliers` and `multipliers_for`.

    Attributes:
        count: the number of updates made.
        alpha: the multipliers: a tree like the parameters with None where nothing is constrained, or like the
            violations of a function.
        smoothed: the moving average of the violations, kept for `proportional`; None without it.
        violation: with `certify`, the violations that the last update measured, of the same structure; None without it.
        residuals: with `certify`, the `KKTResiduals` at the parameters of the last update, with the multipliers that
            its gradient was given; None without it.
    """

    count: jax.Array
    alpha: Any
    smoothed: Any
    violation: Any
    residuals: KKTResiduals | None


def multipliers(
    cons,
    dual_learning_rate,
    *,
    augmentation=0.0,
    proportional=0.0,
    ema=0.0,
    alternating: bool = False,
    restart: bool = False,
    log_space: bool = False,
    start=None,
    measured=None,
    certify: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""KKT multipliers for min_θ max_{α ≥ 0} J(θ) + Σ α_g v_g(θ), v_g = Ω_g(θ) − k_g, one per group.

    A multiplier rises where Ω > k and falls where Ω < k:

        g_t ← g_t + [α_t + c·v_t]₊ ∇v_t,     α_{t+1} = [α_t + η·v_t + κ·(v_t − v_{t−1})]₊,     α_0 = 0, v_{−1} = v_0

    For `Equality` there is no [·]₊. It works on gradients, so it comes *first*, or between preconditioner and
    learning rate:

        optax.chain(jr.multipliers(jr.L2Ball(3.0, axis=0), 1e-2, augmentation=1.0), optax.adam(lr))

    Plain ascent (c = κ = 0) cycles around non-convex or linear problems; c or κ > 0 damps it. To choose: start with
    c = 1. α needs about α*/(η·v) steps, so too small an η never arrives; if it cycles, raise c until c times the
    violation you tolerate is about α*; if the loss blows up, lower it (SGD is stable for lr·c·‖∇v‖² < 2). κ is in units
    of α per violation, and harder to tune; `restart` ends the unwinding, not cycles.

    Sets without an inside (`Sphere`, `Simplex`, `Orthonormal`) need c > 0, and their α certifies nothing: their
    violation is a distance, so α never falls. `Equality` of a ball is the way to ask for a norm. For a norm over
    several leaves, and for functions of the parameters or the batch, see `multipliers_for`; to bound what has no
    gradient, `measured`.

    Args:
        cons: a constraint, a prefix tree of constraints and None, or a schedule count -> either.
        dual_learning_rate: η ≥ 0, a number or a schedule count -> number.
        augmentation: c ≥ 0, the augmented Lagrangian's; a number or a schedule.
        proportional: κ ≥ 0, the gain on the change of the violation (PI control); a number or a schedule.
        ema: ν in [0, 1): the change is that of the moving average ξ_t = ν·ξ_{t−1} + (1 − ν)·v_t, ξ_{−1} = v_0, for
            violations measured on noisy batches; a number or a schedule. Without `proportional` it has no effect.
        alternating: compute α_{t+1} first and use it in the gradient, in the place of α_t.
        restart: where v_t < 0, drop the multiplier of an inequality to its start at once, so that it need not unwind.
        log_space: α_{t+1} = α_t·exp(η·v_t + κ·(ξ_t − ξ_{t−1})), for inequalities: multipliers of any magnitude move at
            the same relative speed, and stay positive.
        start: α_0, ≥ 0 for inequalities: one for all, a number or an array that broadcasts against the violations, or a
            tree like `alpha`, of another state or of `strength_for_bound` for a warm start. None is 0. In log space it
            has to be given, > 0: better too small than too large, which kills units before α falls.
        measured: constraints (as `cons`) whose violations move α in the place of those of `cons`, which then only give
            the direction ∇v and the augmentation. The extra argument `violation=` of `update`, a tree like `alpha`,
            does the same with numbers measured elsewhere (in all such links of a chain). Gradients make no zeros: what
            is counted has to be a share below a threshold, as in `multipliers_for`.
        certify: keep the violations and the `KKTResiduals` in the state, to log at every step. Chain the link after
            others that work on gradients: stationarity is that of the gradients as they leave it, on batches no smaller
            than their noise. (Under `nnx.jit`, return `jax.tree.leaves(state.alpha)`, not the Variables.)

    Returns:
        A gradient transformation; its state is a `MultipliersState`, α of the shape of `violation`.

    Raises:
        TypeError: if `cons` holds anything but constraints with a gradient.
        ValueError: if a literal rate, gain or `start` is negative or NaN, `ema` ≥ 1, in log space without a `start` > 0
            or with an `Equality`; at `init`, if `measured` and `cons` have violations of different shapes.

    >>> import jaxreg as jr
    >>> tx = jr.multipliers(jr.L2Ball(1.0), 0.5)
    >>> w = jnp.array([3.0, 4.0])
    >>> u, state = tx.update(jnp.zeros(2), tx.init(w), w)
    >>> state.alpha.item()
    2.0

    References:
        Arrow, Hurwicz and Uzawa, 1958; Platt and Barr, Constrained differential optimization, 1988;
        Sohrabi et al., On PI controllers for updating Lagrange multipliers, 2024, algorithm 1;
        Gallego-Posada et al., Controlled sparsity via constrained optimization, 2022, section 4.1 (restarts);
        Cotter et al., Two-player games for efficient non-convex constrained optimization, 2019 (`measured`).
    """
    ascent = Ascent(dual_learning_rate, augmentation, proportional, ema, alternating, restart, log_space)
    ascent.checked("multipliers", start)
    zero = jnp.zeros([], jnp.int32)

    def require(cons):
        require_constraints(cons, "multipliers", differentiable=True)
        for con in nouns_of(cons):
            ascent.check_kind("multipliers", isinstance(con, Equality), start)

    at_first(cons, "multipliers", require)
    if measured is not None:
        at_first(measured, "multipliers", lambda cons: require_constraints(cons, "multipliers"))

    def begin(params):
        current = at(cons, zero)
        check_leaves(lambda con, p: con.violation(p), current, params)
        v = violation(current, params)
        if measured is not None:
            check_shapes("multipliers", v, violation(at(measured, zero), params), "`measured` with violations")
        return v

    def problem(params, count, extra_args):
        current = at(cons, count)
        v = violation(current, params)
        seen = v if measured is None else violation(at(measured, count), params)

        def each(fn, tree, *rest):
            return lift(lambda con, *arrays: fn(isinstance(con, Equality), *arrays), current, tree, *rest)

        def push(con, u, p, weight):
            (slope,) = jax.vjp(con.violation, floating(p, con))[1](weight)
            return (floating(u, con) + slope).astype(jnp.result_type(u))

        return v, seen, each, lambda updates, weights: lift(push, current, updates, params, weights)

    return primal_dual("multipliers", ascent, certify, start, begin, problem)


def primal_dual(
    verb: str, ascent: Ascent, certify: bool, start, begin: Callable, problem: Callable, name: str = "violation"
) -> optax.GradientTransformationExtraArgs:
    """The link that ascends on multipliers.

    Args:
        verb: the name of the verb, for errors.
        ascent: how multipliers move.
        certify: whether the state has residuals.
        start: α_0, one for all or a tree like the violations.
        begin: `begin(params)` -> violations, of which only the shapes count.
        problem: `problem(params, count, extra_args)` -> violations; those that move α; `each(fn, *trees)`, which maps
            fn(equality, *arrays) over trees of constraints; `push(updates, weights)`, which adds Σ weight·∇v.
        name: the extra argument with violations measured elsewhere.
    """

    def init(params):
        v = begin(params)
        # A buffer each: states are donated.
        zeros = [jax.tree.map(jnp.zeros_like, v) if kept else None for kept in (ascent.damped, certify)]
        dtype = widest(jnp.result_type(x) for x in jax.tree.leaves((v, params)) if is_floating(x))
        unknown = [jnp.full((), jnp.inf, dtype) for _ in KKTResiduals._fields]
        return MultipliersState(
            jnp.zeros([], jnp.int32),
            ascent.begin(v, start),
            *zeros,
            KKTResiduals(*unknown) if certify else None,
        )

    def update(updates, state, params=None, **extra_args):
        need_params(params)
        now = ascent.at(state.count)
        v, seen, each, push = problem(params, state.count, extra_args)
        if extra_args.get(name) is not None:
            seen = extra_args[name]
        check_shapes(verb, state.alpha, seen, "violations")
        v, seen = (each(lambda _, alpha, v: jnp.asarray(v, alpha.dtype), state.alpha, tree) for tree in (v, seen))

        smoothed, change = None, []
        if ascent.damped:
            smoothed = each(lambda _, last, v: now.smooth(last, v, state.count), state.smoothed, seen)
            change = [each(lambda _, last, new: now.change(last, new, state.count), state.smoothed, smoothed)]
        alpha = each(now.step, state.alpha, seen, *change)
        if ascent.restart:
            alpha = each(now.fall, alpha, seen, ascent.begin(seen, start))
        weights = each(now.weight, alpha if ascent.alternating else state.alpha, v)
        updates = push(updates, weights)

        certificate = None
        if certify:
            certificate = residuals(updates, each, weights, seen)
            certificate = jax.tree.map(lambda new, old: new.astype(old.dtype), certificate, state.residuals)
        kept = seen if certify else None
        return updates, MultipliersState(optax.safe_increment(state.count), alpha, smoothed, kept, certificate)

    return OnGradients(init, update)


def check_shapes(verb: str, v, other, name: str) -> None:
    """Refuse violations of other shapes than those of `v`."""
    shapes = [[jnp.shape(x) for x in jax.tree.leaves(tree)] for tree in (v, other)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"`{verb}` needs {name} of the shapes {shapes[0]}, got {shapes[1]}.")
