"""Frozen-dataclass pytrees, and lifting them over parameter trees by path.

A *noun* (penalty or constraint) acts on one array. Everything here exists so that a noun, or a pytree
prefix of nouns, can be applied to a whole tree of parameters of any framework.
"""

import abc
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.arrays import widest

static = functools.partial(dataclasses.field, metadata={"static": True})


class Noun(abc.ABC):  # noqa: B024 (the two kinds of noun have their own abstract methods)
    """What penalties and constraints have in common: a leaf of a prefix tree, and no `__call__`."""

    def __post_init__(self):
        check_fields(self)


def check_fields(noun: Noun) -> None:
    """Refuse literal numbers below zero or NaN, and store `axis` as None or a tuple of distinct integers.

    Literal are numbers, lists and NumPy arrays. What jax made passes: it may be traced, and to look would make it wait.
    """
    name = type(noun).__name__
    for field in dataclasses.fields(noun):
        value = getattr(noun, field.name)
        if field.name == "axis":
            object.__setattr__(noun, "axis", _checked_axis(name, value))
        elif not (field.metadata.get("static") or isinstance(value, Noun)):
            number = checked_number(name, field.name, value, hint=f"map `{name}` over it: `jax.tree.map`.")
            object.__setattr__(noun, field.name, number)


def as_number(api: str, name: str, number, hint: str = ""):
    """`number`, lists as arrays; what is neither a number nor an array is refused, with `hint` if it is a tree."""
    if isinstance(number, (list, tuple)):
        number = jnp.asarray(number) if _has_tracer(number) else np.asarray(number)
    function = callable(number) and not hasattr(number, "shape")  # a Variable of flax nnx is both
    if number is None or isinstance(number, (str, complex, dict, type)) or function:
        hint = f" For a tree, {hint}" if hint and isinstance(number, dict) else ""
        raise TypeError(f"`{api}` needs a number or an array as `{name}`, got {number!r}.{hint}")
    return number


def checked_number(api: str, name: str, number, positive: bool = False, hint: str = ""):
    """`as_number`; a literal one below zero or NaN, or at zero with `positive`, is refused."""
    number = as_number(api, name, number, hint)
    if isinstance(number, (int, float, np.ndarray, np.generic)):
        array = np.asarray(number)
        if not np.all(array > 0 if positive else array >= 0):
            raise ValueError(f"`{api}` needs `{name}` {'>' if positive else '>='} 0, got {number}.")
    return number


def _has_tracer(numbers) -> bool:
    return any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(numbers))


def check_above(noun: Noun, field: str, limit: float) -> None:
    """Refuse a literal number that is not above `limit`."""
    number = getattr(noun, field)
    if isinstance(number, (int, float)) and not number > limit:
        raise ValueError(f"`{type(noun).__name__}` needs `{field}` > {limit:g}, got {number}.")


def check_share(noun: Noun, field: str) -> None:
    """Refuse a literal number above 1, of a field that `check_fields` has seen."""
    number = getattr(noun, field)
    if isinstance(number, (int, float)) and number > 1:
        raise ValueError(f"`{type(noun).__name__}` needs `{field}` in [0, 1], got {number}.")


def check_order(noun: Noun) -> None:
    """Refuse literal bounds `lower` and `upper` that are NaN or cross."""
    lower, upper = noun.lower, noun.upper
    literal = [b for b in (lower, upper) if isinstance(b, (int, float))]
    if any(b != b for b in literal) or (len(literal) == 2 and lower > upper):
        raise ValueError(f"`{type(noun).__name__}` needs `lower` <= `upper`, got lower={lower}, upper={upper}.")


def _checked_axis(name: str, axis) -> tuple[int, ...] | None:
    if axis is None:
        return None
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    if any(type(a) is not int for a in axes):
        raise TypeError(f"`{name}` needs an int, a tuple of ints or None as `axis`, got {axis!r}.")
    if len(set(axes)) < len(axes):
        raise ValueError(f"`{name}` needs distinct axes, got axis={axis!r}.")
    return axes


def title(noun: Noun) -> str:
    """The class of a noun with those of the nouns it wraps."""
    fields = [getattr(noun, name) for name in getattr(noun, "__dataclass_fields__", ())]
    inner = [n for f in fields for n in (f if isinstance(f, (tuple, list)) else [f]) if isinstance(n, Noun)]
    return type(noun).__name__ + (f"({', '.join(map(title, inner))})" if inner else "")


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(static,))
def noun(cls):
    """Make `cls` a frozen dataclass and a pytree: fields are leaves, `static` fields structure.

    `eq=False`: comparing traced leaves has no meaning, so nouns compare by identity.

    The class itself is part of the structure. `jax.tree_util.register_dataclass` leaves it out of the comparison (jax
    0.10, 0.12): the structures of `L1(lam)` and `SquaredL2(lam)` were equal with unequal hashes, and where the hashes
    met in a cache, `jit` ran the program of the one for the other. Nor are fields checked again when a tree is put
    together, where they may be gradients or placeholders.
    """
    cls = dataclasses.dataclass(frozen=True, eq=False)(cls)
    fields = dataclasses.fields(cls)
    structure = [f.name for f in fields if f.metadata.get("static")]
    data = [f.name for f in fields if f.name not in structure]

    def flatten(self):
        return [getattr(self, name) for name in data], (cls, *(getattr(self, name) for name in structure))

    def flatten_with_keys(self):
        leaves, aux = flatten(self)
        return [(jax.tree_util.GetAttrKey(name), leaf) for name, leaf in zip(data, leaves, strict=True)], aux

    def unflatten(aux, leaves):
        self = object.__new__(cls)
        for name, field in zip([*data, *structure], [*leaves, *aux[1:]], strict=True):
            object.__setattr__(self, name, field)
        return self

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def is_schedule(x) -> bool:
    """Whether `x` is a function of the step count rather than a tree of nouns or a number.

    A tree built from an Equinox module is callable too, but is no leaf; a class is a slip for one of its objects.
    """
    if not callable(x) or isinstance(x, type):
        return False
    return jax.tree_util.all_leaves([x]) or isinstance(x, jax.tree_util.Partial)


def is_variable(x) -> bool:
    """Whether `x` is a Variable of flax nnx that holds one array: one parameter, not a container of one."""
    nnx = sys.modules.get("flax.nnx")  # loaded if and only if the user has one of its objects
    return nnx is not None and isinstance(x, nnx.Variable) and len(_held(x)) == 1


def _held(variable) -> list:
    """What a Variable holds: arrays, or nouns whole."""
    return jax.tree.leaves(variable, is_leaf=lambda x: isinstance(x, Noun))


def flatten(tree, is_leaf: Callable[[Any], bool] | None = None):
    """[(path, leaf)] and the tree's structure, paths as tuples of strings.

    The same parameters have the same paths whatever container holds them: an nnx Variable's own
    trailing `value` is left out, since `nnx.Optimizer` shows `init` the Variables and `update` their arrays.
    """
    outer, _ = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=lambda x: is_variable(x) or (is_leaf is not None and is_leaf(x))
    )
    named = [
        (_names(path), leaf) for path, entry in outer for leaf in (_held(entry) if is_variable(entry) else [entry])
    ]
    return named, jax.tree.structure(tree, is_leaf=is_leaf)


def _names(path) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def is_noun(x) -> bool:
    """Whether `x` is a leaf of a prefix tree: a noun, or None for "leave alone"."""
    return x is None or isinstance(x, Noun)


def nouns_of(tree) -> Iterator[Noun]:
    """The nouns in a prefix tree."""
    return (leaf for leaf in jax.tree.leaves(tree, is_leaf=is_noun) if leaf is not None)


def pairs(nouns, tree):
    """[(path, noun or None, leaf)] for every leaf of `tree`, and the structure of `tree`.

    `nouns` is one noun or a prefix of `tree` with None for "leave alone". They are matched by path, so
    the kinds of container may differ. `optax.MaskedNode` and None in `tree` take part in nothing.

    Raises:
        ValueError: if `nouns` does not fit `tree`.
    """
    leaves, structure = flatten(tree)
    by_path = dict(flatten(nouns, is_leaf=is_noun)[0])
    depths = sorted({len(path) for path in by_path}, reverse=True)
    result, used = [], set()
    for path, leaf in leaves:
        owner = next((path[:d] for d in depths if d <= len(path) and path[:d] in by_path), None)
        if owner is None:
            raise ValueError(
                "penalties and constraints need to be one object or a tree prefix of the parameters (None for "
                f"'leave alone'): nothing was given for {_show(path)}; given were {_list(by_path)}."
            )
        used.add(owner)
        result.append((path, by_path[owner], leaf))
    spare = [path for path, entry in by_path.items() if entry is not None and path not in used]
    if spare:
        holes, _ = flatten(tree, is_leaf=lambda x: not jax.tree.leaves(x))
        holes = [path for path, leaf in holes if not jax.tree.leaves(leaf)]
        for path in spare:
            if not any(path[: len(h)] == h[: len(path)] for h in holes):
                raise ValueError(
                    "penalties and constraints need to be one object or a tree prefix of the parameters: "
                    f"{type(by_path[path]).__name__} at {_show(path)} has no parameters; these exist: "
                    f"{_list(p for p, _ in leaves)}."
                )
    return result, structure


def entries(nouns: list, tree):
    """`nouns` in the place of the leaves of `tree`: a Variable of flax nnx gives way to its noun, or to None."""
    return jax.tree.unflatten(jax.tree.structure(tree, is_leaf=is_variable), nouns)


def lift(fn: Callable, nouns, tree, *rest, otherwise: Callable = lambda leaf, *others: leaf):
    """Map `fn(noun, leaf, *others)` over `tree`, and `otherwise(leaf, *others)` where the noun is None.

    `rest` holds trees with a leaf at every path of `tree` that has a noun; the result has the structure of `tree`.
    """
    matched, structure = pairs(nouns, tree)
    others = [dict(flatten(r)[0]) for r in rest]
    leaves = []
    for path, entry, leaf in matched:
        arguments = (leaf, *(other.get(path) for other in others))
        if entry is None:
            leaves.append(otherwise(*arguments))
            continue
        if any(a is None for a in arguments):
            raise ValueError(f"parameters, updates and state need the same paths: {_show(path)} is missing in one.")
        try:
            leaves.append(fn(entry, *arguments))
        except (TypeError, ValueError) as error:
            error.add_note(f"jaxreg: {type(entry).__name__} at {_show(path)}")
            raise
    return jax.tree.unflatten(structure, leaves)


def tree_add(numbers: list) -> jax.Array:
    """The sum of scalars, in the widest of their dtypes; float32 zero for an empty list."""
    dtype = widest(n.dtype for n in numbers)
    return functools.reduce(jnp.add, [n.astype(dtype) for n in numbers], jnp.zeros((), dtype))


def _show(path) -> str:
    return repr("/".join(path)) if path else "the root"


def _list(paths) -> str:
    return ", ".join(_show(path) for path in paths) or "none"
