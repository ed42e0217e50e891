"""The KKT verb for functions: constraints on all the parameters at once, or on the batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from jaxreg.arrays import times
from jaxreg.pytree import checked_number, tree_add
from jaxreg.transforms.ascent import Ascent
from jaxreg.transforms.functions import equalities, floating_violation, named, pull_back
from jaxreg.transforms.multipliers import check_shapes, primal_dual


def multipliers_for(
    fn: Callable | None,
    dual_learning_rate,
    *,
    equality=None,
    augmentation=0.0,
    proportional=0.0,
    ema=0.0,
    alternating: bool = False,
    restart: bool = False,
    log_space: bool = False,
    start=None,
    measured: Callable | None = None,
    name: str = "violation",
    certify: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""KKT multipliers for any function of the parameters, and of the batch: v(θ) ≤ 0 or v(θ) = 0, entry by entry.

    `fn` returns the signed violations, a tree of arrays, with a multiplier for each entry. It comes *first* in the
    chain, as `multipliers` does, whose options it has:

        optax.chain(jr.multipliers_for(lambda p: optax.global_norm(p) - 10.0, 1e-2), optax.adam(lr))
        optax.chain(jr.multipliers_for(jr.jointly({"*/kernel": jr.L2Ball(10.0)}), 1e-2), optax.adam(lr))

    `fn` sees the parameters in float32 at least. Its further arguments are passed to `update` by name: with
    `def rate(params, batch): ...`, by `tx.update(grads, state, params, batch=batch)`. `count` is the number of updates
    made, for bounds on a schedule. (`optax.inject_hyperparams` needs `static_args=("fn",)`.)

    Where loss and violation come out of one pass through the network, `fn` would make a second one. With `fn=None` the
    loss holds Σ α·v itself, by `lagrangian`, and `update` gets the violations:

        objective = jr.lagrangian(loss_and_violation)
        grads, v = jax.grad(objective, has_aux=True)(params, state[0].alpha, batch)     # the link is first in a chain
        updates, state = tx.update(grads, state, params, violation=v)

    Args:
        fn: `fn(params, ...)` -> a tree of violations v, ≤ 0 where the constraint holds; or None.
        dual_learning_rate: η ≥ 0, a number or a schedule count -> number.
        equality: which violations have to be 0: a bool, or a prefix tree of bools; None asks `jointly`, or is False.
        augmentation: as in `multipliers`; for `fn=None` it belongs to `lagrangian`.
        proportional: as in `multipliers`.
        ema: as in `multipliers`.
        alternating: as in `multipliers`.
        restart: as in `multipliers`.
        log_space: as in `multipliers`.
        start: α_0, a number for all, or a tree of arrays like what `fn` returns. The tree is needed where shapes cannot
            be known at `init`: `fn` has further arguments, or is None.
        measured: `measured(params, ...)` -> violations that move α in the place of those of `fn`, which then only gives
            the direction ∇v and the augmentation: a rate of errors, or of weights above a threshold. The extra argument
            `violation=` does the same. (Gradients make no zeros, so a count of non-zero weights never falls.)
        name: the name of that extra argument: one for each of several links in a chain, all of which are given all.
        certify: as in `multipliers`.

    Returns:
        A gradient transformation; its state is a `MultipliersState`.

    Raises:
        TypeError: if `fn` or `measured` is no function; at `update`, if an argument of theirs was not given.
        ValueError: for bad numbers, as in `multipliers`, and for equalities in log space; at `init`, without a `start`
            where one is needed, or if `measured` and `fn` have violations of different shapes.

    >>> import jaxreg as jr
    >>> tx = jr.multipliers_for(lambda p, bound: jnp.sum(p) - bound, 0.5, start=1.0)
    >>> w = jnp.array([3.0, 4.0])
    >>> u, state = tx.update(jnp.zeros(2), tx.init(w), w, bound=5.0)
    >>> u.tolist(), state.alpha.item()
    ([1.0, 1.0], 2.0)

    References:
        As for `multipliers`; Gallego-Posada et al., Cooper: a library for constrained optimization, 2025.
    """
    verb = "multipliers_for"
    ascent = Ascent(dual_learning_rate, augmentation, proportional, ema, alternating, restart, log_space)
    ascent.checked(verb, start)
    for field, function in (("fn", fn), ("measured", measured)):
        if function is not None and not callable(function):
            raise TypeError(
                f"`{verb}` needs a function of the parameters as `{field}`, got {function!r}. For constraints on each "
                "leaf use `multipliers`, on several leaves as one `jointly`."
            )
    if fn is None and (alternating or ascent.augmentation != 0.0 or measured is not None):
        raise ValueError(
            f"`{verb}` without a function needs neither `alternating` nor `measured`, and its `augmentation` in "
            "`lagrangian`: the loss holds the multipliers' part."
        )
    violations, needed, open_ended = (None, [name], False) if fn is None else named(fn, verb)
    judge = violations if measured is None else named(measured, verb)[0]
    needed = [name for name in needed if name != "count"]

    def begin(params):
        if needed or (open_ended and start is not None):
            if start is None:
                why = "without a function" if fn is None else f"of what `init` does not have, {needed},"
                raise ValueError(
                    f"`{verb}` {why} needs `start`: multipliers with the shapes of the violations, such as 0.0."
                )
            v = jax.tree.map(lambda a: jnp.zeros_like(jnp.asarray(a), jnp.result_type(float)), start)
        else:
            zero = {"count": jnp.zeros([], jnp.int32)}
            v = jax.eval_shape(lambda: pull_back(lambda p: violations(p, zero), params)[0])
            if measured is not None:
                check_shapes(verb, v, judge(params, zero), "`measured` with violations")
            v = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), v)
        kinds = equalities(fn, equality, v)
        given = start if jax.tree.structure(start) == jax.tree.structure(v) else jax.tree.map(lambda _: start, v)
        jax.tree.map(lambda kind, start: ascent.check_kind(verb, kind, start), kinds, given)
        return v

    def problem(params, count, extra_args):
        available = {"count": count, **extra_args}
        if fn is None:
            if extra_args.get(name) is None:
                raise TypeError(f"`{verb}` without a function needs `update(grads, state, params, {name}=...)`.")
            v, push = jax.tree.map(floating_violation, extra_args[name]), lambda updates, weights: updates
        else:
            v, push = pull_back(lambda p: violations(p, available), params)
        seen = v if measured is None else judge(params, available)
        for other in (seen, extra_args.get(name)):
            if other is not None and jax.tree.structure(other) != jax.tree.structure(v):
                raise ValueError(
                    f"`{verb}` needs violations like those of its function, {jax.tree.structure(v)}, got "
                    f"{jax.tree.structure(other)}."
                )
        kinds = equalities(fn, equality, v)
        return v, seen, lambda fn, *trees: jax.tree.map(fn, kinds, *trees), push

    return primal_dual(verb, ascent, certify, start, begin, problem, name)


def lagrangian(fn: Callable, *, equality=None, augmentation=0.0) -> Callable:
    r"""The Lagrangian J(θ) + Σ α·v(θ) of a loss that returns its violations too, for `multipliers_for(None, ...)`.

    With `augmentation` c it is the augmented one, J + Σ ([α + c·v]₊² − α²)/(2c), for equalities J + Σ α·v + c·v²/2. Its
    gradient is ∇J + Σ [α + c·v]₊∇v, that of `multipliers`: one pass through the network gives loss and violations.

    Args:
        fn: `fn(params, *args, **kwargs)` -> (J, v), a scalar and a tree of violations.
        equality: which violations have to be 0: a bool, or a prefix tree of bools; None is False.
        augmentation: c ≥ 0, a number.

    Returns:
        A function (params, alpha, *args, **kwargs) -> (the Lagrangian, v), for `jax.grad(..., has_aux=True)`,
        in float32 at least.

    Raises:
        ValueError: if a literal `augmentation` is negative or NaN; when called, if `alpha` is no tree like v.
        TypeError: when called, if `fn` returns no pair of a scalar and violations.

    >>> objective = lagrangian(lambda w: (jnp.sum(w**2), jnp.sum(w) - 1.0))
    >>> grads, v = jax.grad(objective, has_aux=True)(jnp.array([1.0, 2.0]), jnp.array(3.0))
    >>> grads.tolist(), v.item()
    ([5.0, 7.0], 2.0)

    References:
        Boyd and Vandenberghe, Convex optimization, 2004, eq. 5.1; Bertsekas, Constrained optimization and Lagrange
        multiplier methods, 1982, section 3.1.
    """

    augmentation = checked_number("lagrangian", "augmentation", augmentation)

    def objective(params, alpha, *args, **kwargs):
        pair = fn(params, *args, **kwargs)
        if not isinstance(pair, tuple) or len(pair) != 2 or jnp.shape(pair[0]) != ():
            raise TypeError(f"`lagrangian` needs a function that returns (scalar loss, violations), got {pair!r}.")
        loss, v = pair
        if jax.tree.structure(alpha) != jax.tree.structure(v):
            raise ValueError(
                f"`lagrangian` needs multipliers like the violations, {jax.tree.structure(v)}, got "
                f"{jax.tree.structure(alpha)}."
            )

        def term(equality, alpha, v):
            v = floating_violation(v)
            alpha, c = jnp.asarray(alpha, v.dtype), jnp.asarray(augmentation, v.dtype)
            weight = alpha + times(c, v)
            v = jnp.where(jnp.isneginf(v), 0, v)  # the bound is ∞
            inside = alpha * v + c * jnp.square(v) / 2
            if equality:
                return jnp.sum(inside)
            # Where [α + c·v]₊ = 0 the term is constant; with c = 0 it is 0 there.
            active = (weight > 0) | ((weight == 0) & (v > 0))
            rest = -jnp.square(alpha) / (2 * jnp.where(c > 0, c, jnp.inf))
            return jnp.sum(jnp.where(active, inside, rest))

        terms = jax.tree.map(term, equalities(fn, equality, v), alpha, v)
        return tree_add([jnp.asarray(loss), *jax.tree.leaves(terms)]), v

    return objective
