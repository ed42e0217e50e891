"""Spaces of configurations: products of dims, along each of which one or more arguments move together."""

import dataclasses
import math
import operator
from typing import Any, NamedTuple

import numpy as np

from jaxreg.sweeps.columns import Column, stacked


@dataclasses.dataclass(frozen=True, eq=False)
class Dim:
    """A named dim: argument -> `Column`, all of one length."""

    name: str
    columns: dict[str, Column]

    @property
    def size(self) -> int:
        """The number of values."""
        return len(next(iter(self.columns.values())).values)


class Group(NamedTuple):
    """The configurations that one compiled program serves.

    Attributes:
        static: argument -> static value.
        labels: argument -> its label.
        numbers: the arguments that are batched.
        rows: flat indices of the configurations, ascending.
        absent: the arguments that are not passed.
    """

    static: dict[str, Any]
    labels: dict[str, Any]
    numbers: tuple[str, ...]
    rows: np.ndarray
    absent: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """'optimizer=adam, width=64, no momentum', by name; '' if there is nothing to tell."""
        told = {name: f"{name}={_quoted(label)}" for name, label in self.labels.items()}
        told |= {name: f"no {name}" for name in self.absent}
        return ", ".join(told[name] for name in sorted(told))


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Space:
    r"""A product of dims; the last one varies fastest.

    `a * b` is the product of two spaces, `a | b` their union: one dim 'config' with the configurations of both,
    repeated ones once. Arguments that one side of a union lacks are absent from its configurations.

    Raises:
        ValueError: if there is no dim, or two dims or arguments share a name.

    >>> from jaxreg.sweeps.grids import grid
    >>> space = grid(lam=[0.1, 1.0], optimizer=["sgd", "adam"]) * grid(seed=range(3))
    >>> space
    Space(lam: 2, optimizer: 2, seed: 3)
    >>> space.configuration(4)
    {'lam': 0.1, 'optimizer': 'adam', 'seed': 1}
    >>> [(group.name, len(group.rows)) for group in space.groups()]
    [('optimizer=sgd', 6), ('optimizer=adam', 6)]
    """

    dims: tuple[Dim, ...]

    def __post_init__(self):
        if not self.dims:
            raise ValueError("`Space` needs at least one dim, got none.")
        names, arguments = [dim.name for dim in self.dims], self.arguments
        for kind, given in (("arguments", arguments), ("dims", names)):
            twice = sorted({name for name in given if given.count(name) > 1})
            if twice:
                hint = f"; rename one, `.rename({twice[0]}=...)`" if kind == "dims" else ""
                raise ValueError(f"`Space` needs {kind} with distinct names, got {twice} twice{hint}.")
        for dim in self.dims:
            taken = sorted((set(names) - {dim.name}) & dim.columns.keys())
            if taken:
                raise ValueError(f"`Space` needs dims named unlike the arguments of others, got {taken}.")

    def __repr__(self) -> str:
        def told(dim):
            return f"{dim.name}: {dim.size}" + (
                "" if [*dim.columns] == [dim.name] else f" of ({', '.join(dim.columns)})"
            )

        return f"Space({', '.join(map(told, self.dims))})"

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of values of each dim."""
        return tuple(dim.size for dim in self.dims)

    @property
    def size(self) -> int:
        """The number of configurations."""
        return math.prod(self.shape)

    @property
    def sizes(self) -> dict[str, int]:
        """Dim -> its number of values."""
        return {dim.name: dim.size for dim in self.dims}

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of all arguments."""
        return tuple(name for dim in self.dims for name in dim.columns)

    def rename(self, **dims: str) -> "Space":
        """The same space with dims named anew, old -> new: `.rename(config="draw")`."""
        unknown = sorted(dims.keys() - self.sizes.keys())
        if unknown:
            raise ValueError(f"`rename` needs dims of the space, {list(self.sizes)}; got {unknown}.")
        return Space(tuple(Dim(dims.get(dim.name, dim.name), dim.columns) for dim in self.dims))

    def __mul__(self, other: "Space") -> "Space":
        return Space(self.dims + other.dims) if isinstance(other, Space) else NotImplemented

    def __or__(self, other: "Space") -> "Space":
        if not isinstance(other, Space):
            return NotImplemented
        one, two = self.flat(), other.flat()
        columns = {name: stacked(name, one.get(name), two.get(name), self.size, other.size) for name in {**one, **two}}
        first = {}
        for row, cell in enumerate(Space((Dim("config", columns),)).cells()):
            first.setdefault(cell, row)
        rows = np.fromiter(first.values(), np.intp, len(first))
        return Space((Dim("config", {name: column.take(rows) for name, column in columns.items()}),))

    def flat(self, rows=None) -> dict[str, Column]:
        """Argument -> its values in every configuration, or in those of the flat indices `rows`."""
        rows = np.arange(self.size) if rows is None else np.asarray(rows, np.intp)
        index = np.unravel_index(rows, self.shape)
        return {
            name: column.take(at)
            for dim, at in zip(self.dims, index, strict=True)
            for name, column in dim.columns.items()
        }

    def coords(self) -> dict[str, tuple[str, np.ndarray]]:
        """Argument -> (its dim, its numbers or labels), as coordinates of a Dataset."""
        return {name: (dim.name, column.coordinate()) for dim in self.dims for name, column in dim.columns.items()}

    def numbers(self, names, rows) -> dict[str, np.ndarray]:
        """The batched values of the arguments `names` in the configurations of the flat indices `rows`."""
        index = dict(zip(self.sizes, np.unravel_index(np.asarray(rows, np.intp), self.shape), strict=True))
        found = {name: (dim.name, column.values) for dim in self.dims for name, column in dim.columns.items()}
        return {name: found[name][1][index[found[name][0]]] for name in names}

    def cells(self, rows=None) -> list[tuple]:
        """One tuple a configuration, its arguments by name: Python numbers or labels, None where absent."""
        rows = np.arange(self.size) if rows is None else np.asarray(rows, np.intp)
        index = np.unravel_index(rows, self.shape)
        lists = {
            name: column.python()[at].tolist()
            for dim, at in zip(self.dims, index, strict=True)
            for name, column in dim.columns.items()
        }
        return list(zip(*(lists[name] for name in sorted(lists)), strict=True))

    def configuration(self, row: int) -> dict[str, Any]:
        """Argument -> its value in one configuration, the static ones as they were given."""
        row = operator.index(row)
        if not 0 <= row < self.size:
            raise IndexError(f"`configuration` needs 0 <= row < {self.size}, got {row}.")
        columns = {name: column for name, column in self.flat([row]).items() if column.present[0]}
        return {name: c.values[0] if c.is_static else c.python()[0] for name, c in columns.items()}

    def groups(self) -> list[Group]:
        """The configurations by static values and absent arguments, in the order of their first ones."""
        code = np.zeros((), np.int64)  # ascending in the order of first appearance, as those of each dim are
        for dim in self.dims:
            own = _codes(dim)
            code = code[..., None] * (own.max() + 1) + own
        _, first, inverse = np.unique(code.reshape(-1), return_index=True, return_inverse=True)
        rows = np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
        heads = self.flat(first)
        groups = []
        for at, own_rows in enumerate(rows):
            static = {n: c for n, c in heads.items() if c.is_static and c.present[at]}
            groups.append(
                Group(
                    {name: column.values[at] for name, column in static.items()},
                    {name: column.labels[at] for name, column in static.items()},
                    tuple(n for n, c in heads.items() if not c.is_static and c.present[at]),
                    own_rows,
                    tuple(n for n, c in heads.items() if not c.present[at]),
                )
            )
        return groups

    def to_json(self) -> dict:
        """A plain dict for `json.dumps`; static values are kept by their labels."""
        return {
            "dims": [
                {"name": dim.name, "columns": {name: column.to_json() for name, column in dim.columns.items()}}
                for dim in self.dims
            ]
        }

    @staticmethod
    def from_json(saved: dict) -> "Space":
        """The space that `to_json` saved, with labels for its static values."""
        dims = (
            Dim(dim["name"], {name: Column.from_json(column) for name, column in dim["columns"].items()})
            for dim in saved["dims"]
        )
        return Space(tuple(dims))


def _codes(dim: Dim) -> np.ndarray:
    """(n,) small integers, equal where the static values and the absent arguments are."""
    keys = [c.python() if c.is_static else c.present for c in dim.columns.values()]
    known = {}
    return np.array([known.setdefault(key, len(known)) for key in zip(*keys, strict=True)])


def _quoted(label) -> str:
    text = str(label)
    return repr(text) if isinstance(label, str) and set(text) & set(",='\"") else text
