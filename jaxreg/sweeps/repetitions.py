"""Repetitions: configurations that differ in nothing but their seed, which is a dim of its own or one of a list's."""

import numpy as np


def numbers_of(api, runs, metric, over):
    """One number per configuration, NaN where it diverged or is missing."""
    if metric not in runs.data_vars:
        raise KeyError(f"`{api}` needs `metric` to be one of {[str(name) for name in runs]}, got {metric!r}.")
    values = runs[metric]
    extra = [dim for dim in values.dims if dim not in space_dims(runs)]
    if extra or values.dtype.kind not in "biuf":
        kind = f"the further dims {extra}" if extra else f"dtype {values.dtype}"
        raise ValueError(f"`{api}` needs one number per configuration, got {metric!r} with {kind}.")
    _check_over(api, values, over)
    values = values.astype(float)
    good = np.isfinite(values)
    if "diverged" in runs:
        good &= ~(runs["diverged"] > 0)
    return values.where(good)


def default_over(runs, over: str | None) -> str | None:
    """`over`; where it is "seed" and there is none, what the runs say repeats: the folds of cross-validation."""
    return runs.attrs.get("repetitions", over) if over == "seed" and "seed" not in runs.variables else over


def space_dims(runs) -> tuple:
    """The dims of the space; of a Dataset that no sweep made, those which all variables share."""
    if "diverged" in runs:
        return runs["diverged"].dims
    shared = [dim for dim in runs.dims if all(dim in variable.dims for variable in runs.data_vars.values())]
    return tuple(sorted(shared, key=[dim for v in runs.data_vars.values() for dim in v.dims].index))


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


def _check_over(api: str, values, over: str | None) -> None:
    """Refuse a name that is nothing of `values`; "seed", the default, may be absent."""
    if over not in (None, "seed", *values.dims, *values.coords):
        coords = [str(name) for name in values.coords if name not in values.dims]
        raise ValueError(
            f"`{api}` needs `over` to be a dim, of {list(values.dims)}, or a coordinate, of {coords}; got {over!r}."
        )
