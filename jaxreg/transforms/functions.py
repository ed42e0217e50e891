"""Constraints that are functions of all the parameters, and of the batch: their arguments, slopes and kinds."""

import inspect
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from jaxreg.arrays import widest


def named(fn: Callable, verb: str) -> tuple[Callable, list[str]]:
    """`call(params, available)` with those of the `available` arguments that `fn` names, and the names it needs."""
    parameters = list(inspect.signature(fn).parameters.values())[1:]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = {p.name for p in known}
    needed = [p.name for p in known if p.default is p.empty]

    def call(params, available: Mapping):
        missing = [name for name in needed if name not in available]
        if missing:
            raise TypeError(
                f"`{verb}` needs the arguments {missing} of its function: give them to "
                f"`update(grads, state, params, {missing[0]}=...)`; got {sorted(available.keys() - {'count'})}."
            )
        return fn(params, **{k: v for k, v in available.items() if takes_all or k in names})

    return call, needed


def pull_back(fn: Callable, params):
    """The violations fn(params), and `pull(updates, weights)` which adds Σ weight·∇v to the updates.

    Arithmetic runs in float32 at least; leaves that are no floating-point arrays take no part.
    """
    leaves, structure = jax.tree.flatten(params)
    takes_part = [jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves]
    dtypes = [
        widest([jnp.result_type(leaf)]) if takes else None for leaf, takes in zip(leaves, takes_part, strict=True)
    ]
    wide = [jnp.asarray(leaf, dtype) for leaf, dtype in zip(leaves, dtypes, strict=True) if dtype]

    def of_wide(wide):
        wide = iter(wide)
        merged = [next(wide) if dtype else leaf for leaf, dtype in zip(leaves, dtypes, strict=True)]
        return jax.tree.map(floating_violation, fn(jax.tree.unflatten(structure, merged)))

    v, vjp = jax.vjp(of_wide, wide)

    def pull(updates, weights):
        flat, outer = jax.tree.flatten(updates)
        (slopes,) = vjp(jax.tree.map(lambda w, v: jnp.broadcast_to(w, v.shape).astype(v.dtype), weights, v))
        slopes = iter(slopes)
        added = [
            (jnp.asarray(u).astype(dtype) + next(slopes)).astype(jnp.result_type(u)) if dtype else u
            for u, dtype in zip(flat, dtypes, strict=True)
        ]
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
