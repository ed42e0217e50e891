"""Spaces written out: products, zipped axes, lists of configurations."""

from collections.abc import Mapping

import numpy as np

from jaxreg.sweeps.axes import axis_columns, column_of, dependency_order, holds, is_number, number_column, static_column
from jaxreg.sweeps.columns import Column
from jaxreg.sweeps.spaces import Dim, Space


def grid(**axes) -> Space:
    r"""The product of named axes; the last one varies fastest.

    Numbers are batched: one program runs all of them. Everything else is static: one program is compiled for each
    combination of static values.

    Args:
        **axes: argument of `train` -> its values. A list, a range or a 1-D array of numbers is batched; a list with
            strings, functions, classes or other objects is static, as is `static([...])` or a dict label -> value.
            `conditional(...)` gives values that exist for some values of other axes.

    Returns:
        A `Space`, for `sweep`.

    Raises:
        ValueError: if there is no axis, or an axis is empty, not 1-D or has NaN; if a condition is on no other axis,
            on values that it does not have, or on itself in the end.
        TypeError: if an axis holds numbers of no dtype of JAX's.

    >>> grid(lam=[0.0, 0.1, 1.0], seed=range(4)).shape
    (3, 4)
    """
    if not axes:
        raise ValueError("`grid` needs at least one axis, got none.")
    columns, when = axis_columns("grid", axes)
    joined = [name for name in axes if name in when or any(name in others for others in when.values())]
    dims = []
    for name in axes:
        if name not in joined:
            dims.append(Dim(name, {name: columns[name]}))
        elif name == joined[0]:
            dims.append(Dim("config", _joined({name: columns[name] for name in joined}, when)))
    return Space(tuple(dims))


def zipped(*, dim: str = "config", **axes) -> Space:
    r"""Axes of one length that move together, along one dim.

    Args:
        dim: the dim's name.
        **axes: as for `grid`, but for `conditional`.

    Returns:
        A `Space` of as many configurations as each axis has values.

    Raises:
        ValueError: if the lengths differ, and as `grid` does.

    >>> from jaxreg.sweeps.axes import static
    >>> zipped(width=static([64, 128]), lr=[1e-3, 5e-4]).configuration(1)
    {'width': 128, 'lr': 0.0005}
    """
    if not axes:
        raise ValueError("`zipped` needs at least one axis, got none.")
    columns = {name: column_of("zipped", name, values) for name, values in axes.items()}
    lengths = {name: len(column.values) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"`zipped` needs axes of one length, got {lengths}.")
    return Space((Dim(dim, columns),))


def configurations(rows, static=()) -> Space:
    r"""A list of configurations, each a dict, along one dim 'config'.

    Args:
        rows: dicts argument -> value. An argument that a row lacks is not passed, and the default of `train` applies.
            An argument with nothing but numbers is batched, any other is static.
        static: names of arguments that are static though they are numbers.

    Returns:
        A `Space` of `len(rows)` configurations.

    Raises:
        ValueError: if there is no row or no argument, `static` names none of them, or a value is NaN.
        TypeError: if a row is no dict with strings as keys.

    >>> space = configurations([{"lr": 0.1, "optimizer": "adam"}, {"lr": 0.2, "optimizer": "sgd", "momentum": 0.9}])
    >>> [group.name for group in space.groups()]
    ['no momentum, optimizer=adam', 'optimizer=sgd']
    """
    rows = list(rows)
    for row in rows:
        if not (isinstance(row, Mapping) and all(isinstance(name, str) for name in row)):
            raise TypeError(f"`configurations` needs dicts argument -> value, got {row!r}.")
    static = [static] if isinstance(static, str) else list(static)
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        raise ValueError(f"`configurations` needs at least one row with an argument, got {rows!r}.")
    unknown = [name for name in static if name not in names]
    if unknown:
        raise ValueError(f"`configurations` needs `static` to name arguments of the rows, {names}; got {unknown}.")
    columns = {}
    for name in names:
        present = np.array([name in row for row in rows])
        values = [row[name] for row in rows if name in row]
        batched = name not in static and all(is_number(value) for value in values)
        given = (
            number_column("configurations", name, values) if batched else static_column("configurations", name, values)
        )
        columns[name] = given.take(np.cumsum(present) - 1).where(present)
    return Space((Dim("config", columns),))


def as_space(space) -> Space:
    """A space as it is; a list of dicts as `configurations`."""
    if isinstance(space, Space):
        return space
    if isinstance(space, (list, tuple)) and all(isinstance(row, Mapping) for row in space):
        return configurations(space)
    raise TypeError(f"`sweep` needs a space such as `grid(...)`, or a list of configurations, got {space!r}.")


def _joined(columns: dict[str, Column], when: dict[str, dict]) -> dict[str, Column]:
    """Every combination of the columns that the conditions allow, the last one varying fastest."""
    count, index, present = 1, {}, {}
    for name in dependency_order(columns, when):
        here = np.ones(count, bool)
        for other, wanted in when.get(name, {}).items():
            here &= present[other] & holds(columns[other], other, wanted)[index[other]]
        if not here.any():
            raise ValueError(f"`conditional` needs conditions that hold together for {name!r}, got {when[name]}.")
        repeats = np.where(here, len(columns[name].values), 1)
        rows = np.repeat(np.arange(count), repeats)
        index = {other: at[rows] for other, at in index.items()}
        present = {other: at[rows] for other, at in present.items()}
        count = len(rows)
        index[name] = np.arange(count) - (np.cumsum(repeats) - repeats)[rows]
        present[name] = here[rows]
    order = np.lexsort([index[name] for name in reversed(columns)])
    return {name: column.take(index[name][order]).where(present[name][order]) for name, column in columns.items()}
