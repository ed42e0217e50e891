"""Constraints that are functions of all the parameters, and of the batch: their arguments, slopes and kinds."""

import inspect
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from jaxreg.arrays import is_floating, widest
from jaxreg.pytree import flatten


def named(fn: Callable, verb: str) -> tuple[Callable, list[str], bool]:
    """`call(params, available)`, which passes on what `fn` names; the names it needs; whether it takes any others."""
    first, *rest = inspect.signature(fn).parameters.values()
    known = [p for p in rest if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = {p.name for p in known}
    needed = [p.name for p in known if p.default is p.empty]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in (first, *rest))
    for p in rest:
        if p.kind is p.POSITIONAL_ONLY and p.default is p.empty:
            raise TypeError(f"`{verb}` needs a function whose further arguments have names, got {p.name!r} before `/`.")

    def call(params, available: Mapping):
        missing = [name for name in needed if name not in available]
        if missing:
            raise TypeError(
                f"`{verb}` needs the arguments {missing} of its function: give them to "
                f"`update(grads, state, params, {missing[0]}=...)`; got {sorted(available.keys() - {'count'})}."
            )
        # What is the user's goes into **kwargs; the count only where it is asked for by name.
        passed = {k: v for k, v in available.items() if k in names or (takes_all and k not in ("count", first.name))}
        return fn(params, **passed)

    return call, needed, takes_all


def pull_back(fn: Callable, params):
    """The violations fn(params), and `pull(updates, weights)` which adds Σ weight·∇v to the updates.

    Arithmetic runs in float32 at least; leaves that are no floating-point arrays take no part.
    """
    leaves, structure = flatten(params)
    wide = {path: jnp.asarray(leaf, widest([jnp.result_type(leaf)])) for path, leaf in leaves if is_floating(leaf)}

    def of_wide(wide):
        merged = [wide.get(path, leaf) for path, leaf in leaves]
        return jax.tree.map(floating_violation, fn(jax.tree.unflatten(structure, merged)))

    v, vjp = jax.vjp(of_wide, wide)

    def pull(updates, weights):
        (slopes,) = vjp(jax.tree.map(lambda w, v: jnp.broadcast_to(w, v.shape).astype(v.dtype), weights, v))
        flat, outer = flatten(updates)

        def add(u, slope):
            return (jnp.asarray(u).astype(slope.dtype) + slope).astype(jnp.result_type(u))

        added = [add(u, slopes[path]) if path in slopes else u for path, u in flat]
        return jax.tree.unflatten(outer, added)

    return v, pull


def floating_violation(v) -> jax.Array:
    """A violation in float32 at least; counts are numbers too."""
    v = jnp.asarray(v)
    return v.astype(widest([v.dtype])) if jnp.issubdtype(v.dtype, jnp.floating) else v.astype(jnp.float32)


def equalities(fn, equality, v):
    """Whether each violation has to be 0, in the structure of `v`: `equality`, or what `fn` says of itself."""
    if equality is None:
        equality = getattr(fn, "equality", False)
    try:
        kinds = jax.tree.broadcast(equality, v)
    except ValueError:
        kinds = equality
    same = jax.tree.structure(kinds) == jax.tree.structure(v)
    if not same or not all(isinstance(kind, bool) for kind in jax.tree.leaves(kinds)):
        raise ValueError(
            "constraints by functions need as `equality` a bool, or a tree of bools that is a prefix of the violations "
            f"{jax.tree.structure(v)}, got {equality!r}."
        )
    return kinds
