"""The results of a sweep, labelled: from arrays to an `xarray.Dataset`, and what one asks of it first.

Once this module is imported, as `sweep` does, every Dataset has `runs.best(metric)` and `runs.summary()`.
"""

import inspect
import types
from collections.abc import Mapping, Sequence

import numpy as np
import xarray

from jaxreg.sweeps.repetitions import default_over, mean_over, numbers_of, repetitions, unstacked
from jaxreg.sweeps.report import scalars as scalars
from jaxreg.sweeps.report import summary as summary


def dataset(
    space,
    outputs: Mapping[str, np.ndarray],
    attrs: Mapping,
    *,
    finished: np.ndarray | None = None,
    diverged: np.ndarray | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Sequence] | None = None,
) -> xarray.Dataset:
    r"""Outputs by configuration as a Dataset with the space's dims, then those of the outputs.

    Args:
        space: the configurations.
        outputs: name -> array (size, ...), flat in C order over the space.
        attrs: the Dataset's attributes.
        finished: (size,), which configurations there are results for; the others become NaN. None: all.
        diverged: (size,), which ones have a non-finite output; None looks.
        dims: name of an output -> names of its own axes; `<name>_dim_0`, ... where it has none.
        coords: what to label those axes with.

    Returns:
        The Dataset, with `diverged` and `finished`.
    """
    whole = finished is None or bool(np.all(finished))
    finished = np.ones(space.size, bool) if whole else np.asarray(finished, bool)
    names, shape = [*space.sizes], tuple(space.shape)
    variables, unlike = {}, np.zeros(space.size, bool)
    for name, output in outputs.items():
        if output.dtype.kind in "fc":
            unlike |= ~np.isfinite(output.reshape(space.size, -1)).all(1)
        if not whole:
            dtype = output.dtype if output.dtype.kind in "fc" else np.promote_types(output.dtype, np.float32)
            output = np.where(finished.reshape(-1, *[1] * (output.ndim - 1)), output, np.full((), np.nan, dtype))
        own = (dims or {}).get(name) or [f"{name}_dim_{i}" for i in range(output.ndim - 1)]
        variables[name] = ([*names, *own], output.reshape(shape + output.shape[1:]))
    diverged = (unlike if diverged is None else np.asarray(diverged, bool)) & finished
    variables["diverged"] = (names, diverged.reshape(shape))
    variables["finished"] = (names, finished.reshape(shape))
    labels = {argument: (dim, _storable(values)) for argument, (dim, values) in space.coords().items()}
    return xarray.Dataset(variables, coords={**labels, **(coords or {})}, attrs=attrs)


def best(
    runs: xarray.Dataset,
    metric: str,
    rule: str = "min",
    over: str | None = "seed",
    *,
    along: str | None = None,
    strongest: str = "largest",
) -> xarray.Dataset:
    r"""The configuration with the best mean of `metric`, or the most regularized one within a standard error of it.

        c* = argmin_c m(c),   m(c) = mean of `metric` over the repetitions,
        "1se": max {λ : m(λ, the rest of c*) ≤ m(c*) + s(c*)},   s = standard deviation / √repetitions

    Configurations with a repetition that diverged or is not finished yet are left out; of equals, the first is chosen.

    Args:
        runs: what `sweep` returned, or a part of it.
        metric: the name of a variable with one number per configuration.
        rule: "min", "max", or "1se": the one-standard-error rule, for a metric that is to be small.
        over: what repetitions differ in. A dim, which is kept in the result; or a coordinate of a list: configurations
            that agree in all other coordinates are repetitions, and the result has the places of them along the list's
            dim. None averages nothing, nor does "seed" where there is none; of cross-validation it is the folds.
        along: the strength of "1se": a dim, or a coordinate such as those of a list of configurations. None is 'lam' if
            there, else the one dim of numbers.
        strongest: whether the "largest" (λ) or the "smallest" (a bound k) value of `along` regularizes most.

    Returns:
        The Dataset of that configuration.

    Raises:
        ValueError: if the metric has further dims or no finite number, there is no standard error for "1se", or no
            dim or coordinate `over`.
        KeyError: if there is no such variable.

    >>> error = [[0.4, 0.4], [0.1, 0.3], [0.2, 0.25], [0.5, 0.6]]
    >>> runs = xarray.Dataset({"error": (("lam", "seed"), error)}, {"lam": [0.0, 0.1, 1.0, 10.0]})
    >>> best(runs, "error")["lam"].item(), best(runs, "error", rule="1se")["lam"].item()
    (0.1, 1.0)

    References:
        Hastie, Tibshirani, Friedman, "The Elements of Statistical Learning", 2nd ed., §7.10.1 (the one-standard-error
        rule).
    """
    if rule not in ("min", "max", "1se"):
        raise ValueError(f'`best` needs `rule` to be "min", "max" or "1se", got {rule!r}.')
    runs, over = unstacked(runs), default_over(runs, over)
    values = numbers_of("best", runs, metric, over)
    mean = mean_over(values, over)
    signed = -mean.values if rule == "max" else mean.values
    if np.isnan(signed).all():
        raise ValueError(f"`best` needs a configuration with a finite {metric!r}; all diverged or are unfinished.")
    index = dict(zip(mean.dims, np.unravel_index(np.nanargmin(signed), signed.shape), strict=True))
    if rule == "1se":
        index = _within_one_error(values, mean, index, over, along, strongest)
    return _at(runs, values, mean, index, over)


def _at(found, values, mean, index, over):
    """`found`, with dims as `values` has, at an index of the means; the repetitions are kept."""
    along_list = repetitions(values, over)
    if along_list is None:
        return found.isel(index)
    dim, numbers = along_list
    found = found.isel({**index, dim: np.flatnonzero(numbers == index[dim])})
    alike = [n for n, coord in found.coords.items() if coord.dims == (dim,) and n not in (over, dim)]
    return found.assign_coords({name: found[name].variable[0] for name in alike})


def _within_one_error(values, mean, index, over, along, strongest) -> dict[str, int]:
    """The index of the strongest value of `along`, all else as at `index`, within one standard error of the best."""
    if strongest not in ("largest", "smallest"):
        raise ValueError(f'`best` needs `strongest` to be "largest" or "smallest", got {strongest!r}.')
    at_best = _at(values, values, mean, index, over).values
    if at_best.size < 2:
        raise ValueError(
            f"`best` needs two repetitions along `over`, {over!r}, for a standard error; got {at_best.size}."
        )
    along = _strength(mean) if along is None else along
    if along not in mean.coords or mean[along].ndim != 1 or mean[along].dtype.kind not in "biuf":
        raise ValueError(f"`best` needs `along` to be a coordinate of numbers along one dim, got {along!r}.")
    (dim,), strengths = mean[along].dims, mean[along].values
    limit = mean.isel(index).item() + at_best.std(ddof=1) / np.sqrt(at_best.size)
    alike = mean.isel({d: i for d, i in index.items() if d != dim}).values <= limit
    for name, other in mean.coords.items():
        if other.dims == (dim,) and name not in (along, dim):
            chosen = other.values[index[dim]]
            alike &= (other.values == chosen) | ((other.values != other.values) & (chosen != chosen))
    order = strengths if strongest == "largest" else -strengths.astype(float)
    return {**index, dim: max(np.flatnonzero(alike), key=lambda i: order[i])}


def _strength(mean) -> str:
    if "lam" in mean.coords and mean["lam"].ndim == 1:
        return "lam"
    numeric = [dim for dim in mean.dims if dim in mean.coords and mean[dim].dtype.kind in "iuf"]
    if len(numeric) != 1:
        raise ValueError(
            f"`best` needs `along` for rule=\"1se\" where there is no 'lam'; there are the dims {list(mean.dims)}."
        )
    return numeric[0]


def _storable(values) -> np.ndarray:
    """Numbers of dtypes that NumPy and NetCDF do not know, such as bfloat16, as float32."""
    values = np.asarray(values)
    return values.astype(np.float32) if values.dtype.kind == "V" else values


class _Verb:
    """A function of this module as a verb of one Dataset, which stays one that pickles, unlike with a bound method."""

    def __init__(self, runs):
        self._runs, self.__doc__ = runs, self._function.__doc__

    def __call__(self, *args, **options):
        return self._function(self._runs, *args, **options)

    @property
    def __signature__(self):
        return inspect.signature(types.MethodType(self._function, self._runs))


@xarray.register_dataset_accessor("best")
class Best(_Verb):
    """`best` of one Dataset."""

    _function = staticmethod(best)


@xarray.register_dataset_accessor("summary")
class Summarize(_Verb):
    """`summary` of one Dataset."""

    _function = staticmethod(summary)
