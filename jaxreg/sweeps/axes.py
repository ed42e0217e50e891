"""Axes: what the user gives for one argument, as a column."""

import dataclasses
import graphlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.sweeps.columns import Column, objects
from jaxreg.sweeps.labels import distinct, label_of, same


@dataclasses.dataclass(frozen=True, eq=False)
class Static:
    """Values that are compiled in; see `static`."""

    values: tuple
    labels: tuple


@dataclasses.dataclass(frozen=True, eq=False)
class Conditional:
    """Values that an argument has only under a condition; see `conditional`."""

    values: Any
    when: dict[str, Any]


def static(values) -> Static:
    r"""Values that are compiled in rather than batched: sizes of layers, say.

    Args:
        values: a list of values, or a dict label -> value. Without a label, strings and numbers are their own,
            functions and classes go by their names, anything else by its repr.

    Returns:
        An axis, for `grid` and the other spaces.

    Raises:
        TypeError: if `values` is no list, 1-D array or dict.

    >>> from jaxreg.sweeps.grids import grid
    >>> [group.name for group in grid(width=static([64, 128]), lam=[0.0, 0.1]).groups()]
    ['width=64', 'width=128']
    """
    if isinstance(values, Mapping):
        labels, values = list(values), list(values.values())
        bad = [label for label in labels if not isinstance(label, (str, bool, int, float))]
        if bad:
            raise TypeError(f"`static` needs strings or numbers as labels, got {bad}.")
    else:
        if isinstance(values, (np.ndarray, jax.Array)) and values.ndim == 1:
            values = np.asarray(values).tolist()  # Python numbers, which can be shapes
        if not isinstance(values, (list, range)) and type(values) is not tuple:
            raise TypeError(f"`static` needs a list of values or a dict label -> value, got {values!r}.")
        labels = [label_of(value) for value in values]
    known = {}
    labels = [distinct(label, value, known) for label, value in zip(labels, values, strict=True)]
    return Static(tuple(values), tuple(labels))


def conditional(values, **when) -> Conditional:
    r"""Values that an argument of `grid` or `sample` has only where other arguments have given values.

    Elsewhere the argument is not passed, and the default of `train` applies.

    Args:
        values: the values, as for an axis of their own.
        **when: another argument -> its value, or a list of its values (or labels), for which this one exists. With
            several, all must hold; where the other argument is absent itself, none does.

    Returns:
        An axis. In a grid, it and the axes that it depends on become one dim, 'config'.

    Raises:
        ValueError: without a condition.

    >>> from jaxreg.sweeps.grids import grid
    >>> space = grid(optimizer=["sgd", "adam"], momentum=conditional([0.0, 0.9], optimizer="sgd"), seed=range(4))
    >>> space
    Space(config: 3 of (optimizer, momentum), seed: 4)
    >>> [space.configuration(row) for row in (0, 4, 8)]  # doctest: +NORMALIZE_WHITESPACE
    [{'optimizer': 'sgd', 'momentum': 0.0, 'seed': 0},
     {'optimizer': 'sgd', 'momentum': 0.9, 'seed': 0},
     {'optimizer': 'adam', 'seed': 0}]
    """
    if not when:
        raise ValueError("`conditional` needs a condition on another argument, such as optimizer='sgd'; got none.")
    return Conditional(values, when)


def axis_columns(api: str, axes: dict, column=None) -> tuple[dict[str, Column], dict[str, dict]]:
    """Argument -> its column, and argument -> its conditions, checked. `column(api, name, values)` makes a column."""
    when = {name: axis.when for name, axis in axes.items() if isinstance(axis, Conditional)}
    for name, conditions in when.items():
        unknown = sorted(conditions.keys() - (axes.keys() - {name}))
        if unknown:
            raise ValueError(f"`conditional` needs conditions on other axes for {name!r}, got {unknown}.")
    column = column or column_of
    given = {name: axis.values if name in when else axis for name, axis in axes.items()}
    return {name: column(api, name, values) for name, values in given.items()}, when


def column_of(api: str, name: str, values) -> Column:
    """The column of an axis: numbers, or static values with their labels."""
    if isinstance(values, Static):
        return static_column(api, name, values)
    if isinstance(values, Mapping):
        return static_column(api, name, static(values))
    if isinstance(values, Conditional):
        raise ValueError(f"`{api}` needs axes without conditions, got `conditional` for {name!r}.")
    if isinstance(values, range):
        values = list(values)
    if not isinstance(values, list) and type(values) is not tuple:
        _no_keys(api, name, values)
        array = np.asarray(values) if hasattr(values, "__array__") else np.empty(())
        if array.ndim != 1 or _is_numeric(array.dtype):
            return number_column(api, name, array)
        values = array.tolist()
    for value in values:
        _no_keys(api, name, value)
    if all(is_number(value) or _is_nested(value) for value in values):
        return number_column(api, name, values)
    return static_column(api, name, values)


def dependency_order(names, when: dict[str, dict]) -> list[str]:
    """The arguments, each after those that it depends on."""
    try:
        return list(graphlib.TopologicalSorter({name: when.get(name, {}).keys() for name in names}).static_order())
    except graphlib.CycleError as error:
        raise ValueError(
            f"`conditional` needs conditions without a circle, got {' -> '.join(error.args[1])}."
        ) from None


def holds(column: Column, name: str, wanted, may_lack: bool = False) -> np.ndarray:
    """(n,) where a column has the wanted value, or one of a list of them."""
    found = np.zeros(len(column.values), bool)
    for value in wanted if isinstance(wanted, (list, range, np.ndarray)) else [wanted]:
        if column.is_static:
            labels = zip(column.values, column.labels, strict=True)
            here = np.array([same(given, value) or same(label, value) for given, label in labels])
        else:
            here = column.values == value if is_number(value) else np.zeros_like(found)
        if not (may_lack or here.any()):
            raise ValueError(f"`conditional` needs a value that {name!r} has, got {value!r}.")
        found |= here
    return found & column.present


def number_column(api: str, name: str, values) -> Column:
    """The column of a batched axis, checked."""
    try:
        array = np.asarray(values)
        shape = array.shape
    except ValueError:  # ragged
        array, shape = np.empty(()), "of nested lists"
    if array.ndim != 1 or array.size == 0:
        hint = "`static([...])` marks values that are no numbers"
        if hasattr(values, "quantile"):
            hint = "`sample(num, ...)` draws from distributions"
        told = f", {repr(values)[:40]}" * (shape == ())
        raise ValueError(
            f"`{api}` needs a non-empty 1-D list of values for each axis, got shape {shape} for {name!r}{told}; {hint}."
        )
    whole = isinstance(values, list) and all(isinstance(value, int) for value in values)
    if not _is_numeric(array.dtype) or (whole and array.dtype.kind == "f"):
        raise TypeError(f"`{api}` needs numbers that fit a dtype, got {values!r} for {name!r}.")
    if np.isnan(array).any():
        raise ValueError(f"`{api}` needs numbers, got NaN for {name!r}.")
    if (array == 0).any():
        array = np.where(array == 0, np.zeros((), array.dtype), array)  # −0 equals 0: it is the same configuration
    return Column(array)


def static_column(api: str, name: str, values) -> Column:
    """The column of a static axis, checked."""
    marked = values if isinstance(values, Static) else static(values)
    if not marked.values:
        return number_column(api, name, [])  # as any other empty axis
    if any(label != label for label in marked.labels):
        raise ValueError(f"`{api}` needs values that equal themselves, got NaN for {name!r}.")
    return Column(objects(marked.values), objects(marked.labels))


def _is_numeric(dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.number) or np.dtype(dtype).kind == "b"


def is_number(value) -> bool:
    """Whether a value can be batched: a number of Python, NumPy or JAX."""
    if isinstance(value, (np.generic, np.ndarray, jax.Array)):
        return value.ndim == 0 and _is_numeric(value.dtype)
    return isinstance(value, (bool, int, float, complex))


def _is_nested(value) -> bool:
    return type(value) in (list, tuple) or (isinstance(value, (np.ndarray, jax.Array)) and value.ndim > 0)


def _no_keys(api: str, name: str, value) -> None:
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.extended):
        raise TypeError(f"`{api}` needs seeds, from which `train` makes keys; got {value.dtype} for {name!r}.")
