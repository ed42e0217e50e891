"""Repetitions: configurations that differ in nothing but their seed, which is a dim of its own or one of a list's."""

import numpy as np


def check_over(api: str, values, over: str | None) -> None:
    """Refuse a name that is nothing of `values`; "seed", the default, may be absent."""
    if over not in (None, "seed", *values.dims, *values.coords):
        coords = [str(name) for name in values.coords if name not in values.dims]
        raise ValueError(
            f"`{api}` needs `over` to be a dim, of {list(values.dims)}, or a coordinate, of {coords}; got {over!r}."
        )


def unstacked(runs):
    """Without the joint index that `stack` makes: its levels are coordinates like those of a list."""
    return runs.reset_index([dim for dim in runs.dims if getattr(runs.indexes.get(dim), "nlevels", 1) > 1])


def repetitions(values, over: str | None) -> tuple[str, np.ndarray] | None:
    """The dim along which `over` is a coordinate, and the number of the configuration at each place along it.

    Two places are repetitions of one configuration if all their other coordinates agree. None if `over` is no such
    coordinate, but a dim, or absent.
    """
    if over is None or over in values.dims or over not in values.coords or values[over].ndim != 1:
        return None
    (dim,), numbers = values[over].dims, {}
    others = [c.values.tolist() for name, c in values.coords.items() if c.dims == (dim,) and name != over]
    rows = zip(*others, strict=True) if others else [()] * values.sizes[dim]
    return dim, np.array([numbers.setdefault(tuple(None if v != v else v for v in row), len(numbers)) for row in rows])


def mean_over(values, over: str | None):
    """The mean over the repetitions, NaN if one of them is; of those along a list, at the place of the first."""
    found = repetitions(values, over)
    if found is None:
        return values.mean(over, skipna=False) if over in values.dims else values
    dim, numbers = found
    mean, axis = values.isel({dim: np.unique(numbers, return_index=True)[1]}).drop_vars(over), values.get_axis_num(dim)
    sums = np.zeros(mean.shape)
    np.add.at(np.moveaxis(sums, axis, -1), (..., numbers), np.moveaxis(values.values, axis, -1))
    return mean.copy(data=np.moveaxis(np.moveaxis(sums, axis, -1) / np.bincount(numbers), -1, axis))
