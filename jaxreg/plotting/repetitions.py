"""Means over repetitions: configurations that differ in nothing but their seed, a dim of its own or one of a list's."""

import numpy as np

from jaxreg.sweeps.repetitions import default_over, mean_over, repetitions, unstacked


def mean_and_error(api: str, runs, metric: str, over: str | None):
    """Mean and standard error over the repetitions, NaN where one of them diverged or is missing."""
    if metric not in runs.data_vars:
        raise KeyError(f"`{api}` needs `metric` to be one of {[str(name) for name in runs]}, got {metric!r}.")
    values, over = unstacked(runs[metric]), default_over(runs, over)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"`{api}` needs numbers to draw, got {metric!r} with dtype {values.dtype}.")
    if over not in (None, "seed", *values.dims, *values.coords):
        known = [*values.dims, *(str(name) for name in values.coords if name not in values.dims)]
        raise ValueError(f"`{api}` needs `over` to be a dim or a coordinate, of {known}; got {over!r}.")
    values = values.astype(float)
    good = np.isfinite(values)
    if "diverged" in runs and set(runs["diverged"].dims) <= set(values.dims):
        good &= ~(unstacked(runs["diverged"]) > 0)
    values = values.where(good).transpose(*values.dims)
    mean, count = mean_over(values, over), counts(values, over)
    if found := repetitions(values, over):
        dim, numbers = found
        squares = (values - mean.isel({dim: numbers}).values) ** 2
        count = count.reshape([-1 if d == dim else 1 for d in mean.dims])
    else:
        squares = (values - mean) ** 2
    return mean, np.sqrt(mean_over(squares, over) / np.maximum(count - 1, 1))


def check_scalar(api: str, runs, metric: str) -> None:
    """Refuse a metric that has more dims than those of the configurations, as far as they are known."""
    if metric not in runs.data_vars or "diverged" not in runs:
        return
    extra = [dim for dim in runs[metric].dims if dim not in runs["diverged"].dims]
    if extra:
        raise ValueError(f"`{api}` needs one number per configuration, got {metric!r} with the further dims {extra}.")


def counts(values, over: str | None) -> np.ndarray:
    """How many repetitions each configuration has; along a list, a number for each."""
    found = repetitions(values, over)
    return np.array(values.sizes.get(over, 1)) if found is None else np.bincount(found[1])
