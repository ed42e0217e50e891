"""The results of a sweep, labelled: from arrays to an `xarray.Dataset`, and what one asks of it first.

Once this module is imported, as `sweep` does, every Dataset has `runs.best(metric)` and `runs.summary()`.
"""

import functools
import inspect
import types
from collections.abc import Mapping, Sequence

import numpy as np
import xarray

_OUTPUTS_TOLD = 8
_OWN = ("diverged", "finished")


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
        The Dataset, with `diverged`; and `finished`, where some configuration is not.
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
    if not whole:
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
        over: the dim of the repetitions, kept in the result; nothing is averaged where there is no such dim.
        along: the strength of "1se": a dim, or a coordinate such as those of a list of configurations. None is 'lam' if
            there, else the one dim of numbers.
        strongest: whether the "largest" (λ) or the "smallest" (a bound k) value of `along` regularizes most.

    Returns:
        The Dataset of that configuration.

    Raises:
        ValueError: if the metric has further dims or no finite number, or there is no standard error for "1se".
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
    mean = _mean(runs, metric, over)
    values = -mean.values if rule == "max" else mean.values
    if np.isnan(values).all():
        raise ValueError(f"`best` needs a configuration with a finite {metric!r}; all diverged or are unfinished.")
    index = dict(zip(mean.dims, np.unravel_index(np.nanargmin(values), values.shape), strict=True))
    if rule == "1se":
        index = _within_one_error(runs, metric, mean, index, over, along, strongest)
    return runs.isel(index)


def summary(runs: xarray.Dataset, over: str | None = "seed") -> str:
    r"""A dozen lines for people: how many models, how fast, and the least value of each output with its place.

    Args:
        runs: what `sweep` returned, or a part of it.
        over: the dim of the repetitions, of which the mean is told, where there is one.

    Returns:
        A text, which shows as such at a prompt.

    >>> runs = xarray.Dataset({"error": ("lam", [0.4, 0.1, 0.2])}, {"lam": [0.0, 0.1, 1.0]})
    >>> summary(runs)
    3 models: lam 3
    output      least    median   largest  least at
    error         0.1       0.2       0.4  lam=0.1
    """
    dims = _space_dims(runs)
    count = int(np.prod([runs.sizes[dim] for dim in dims], dtype=int))
    kinds = [f"{count} model{'s' * (count != 1)}" + ": " * bool(dims) + " × ".join(_axis(runs, dim) for dim in dims)]
    if "diverged" in runs and (diverged := int((runs["diverged"] > 0).sum())):
        kinds.append(f"{diverged} diverged")
    unfinished = int((runs["finished"] < 1).sum()) if "finished" in runs else 0
    if unfinished:
        kinds.append(f"{unfinished} unfinished")
    lines = ["; ".join(kinds)]
    if seconds := runs.attrs.get("run_seconds"):
        made = runs.attrs.get("models_run", count - unfinished)
        compiled = runs.attrs.get("compile_seconds")
        head = "" if compiled is None else f"compiled in {compiled:.1f} s, "
        lines.append(f"{head}ran {made} models in {seconds:.1f} s: {made / seconds:.3g} models/s")
    told = scalars(runs)[:_OUTPUTS_TOLD]
    if told:
        width = max(len(name) for name in ["output", *told])
        repeated = f" (means over {over})" if over in dims else ""
        lines.append(f"{'output':{width}}{'least':>11}{'median':>10}{'largest':>10}  least at{repeated}")
        lines += [_row(runs, name, over, width) for name in told]
    others = [str(name) for name in runs if name not in _OWN and name not in told]
    if others:
        lines.append("also: " + ", ".join(others))
    return Summary("\n".join(lines))


def scalars(runs: xarray.Dataset) -> list[str]:
    """The names of the outputs that are one number per configuration."""
    dims = _space_dims(runs)
    return [str(n) for n in runs if runs[n].dims == dims and n not in _OWN and runs[n].dtype.kind in "biuf"]


class Summary(str):
    """A text of several lines that a prompt shows as lines."""

    __slots__ = ()

    def __repr__(self):
        return str(self)


def _within_one_error(runs, metric, mean, index, over, along, strongest) -> dict[str, int]:
    """The index of the strongest value of `along`, all else as at `index`, within one standard error of the best."""
    if strongest not in ("largest", "smallest"):
        raise ValueError(f'`best` needs `strongest` to be "largest" or "smallest", got {strongest!r}.')
    repeated = runs.sizes.get(over, 1) if over in runs[metric].dims else 1
    if repeated < 2:
        raise ValueError(f"`best` needs two repetitions along `over`, {over!r}, for a standard error; got {repeated}.")
    along = _strength(runs, mean.dims) if along is None else along
    if along not in runs.coords or runs[along].ndim != 1 or runs[along].dtype.kind not in "biuf":
        raise ValueError(f"`best` needs `along` to be a coordinate of numbers along one dim, got {along!r}.")
    (dim,), strengths = runs[along].dims, runs[along].values
    at_best = runs[metric].isel(index).values.astype(float)
    limit = mean.isel(index).item() + at_best.std(ddof=1) / np.sqrt(repeated)
    alike = mean.isel({d: i for d, i in index.items() if d != dim}).values <= limit
    for name, other in runs.coords.items():
        if other.dims == (dim,) and name not in (along, dim):
            chosen = other.values[index[dim]]
            alike &= (other.values == chosen) | ((other.values != other.values) & (chosen != chosen))
    order = strengths if strongest == "largest" else -strengths.astype(float)
    return {**index, dim: max(np.flatnonzero(alike), key=lambda i: order[i])}


def _strength(runs, dims) -> str:
    if "lam" in runs.coords and runs["lam"].ndim == 1:
        return "lam"
    numeric = [dim for dim in dims if dim in runs.coords and runs[dim].dtype.kind in "iuf"]
    if len(numeric) != 1:
        raise ValueError(
            f"`best` needs `along` for rule=\"1se\" where there is no 'lam'; there are the dims {list(dims)}."
        )
    return numeric[0]


def _mean(runs, metric, over):
    """The mean over the repetitions, NaN where one of them diverged or is missing."""
    if metric not in runs.data_vars:
        raise KeyError(f"`best` needs `metric` to be one of {[str(name) for name in runs]}, got {metric!r}.")
    values = runs[metric]
    extra = [dim for dim in values.dims if dim not in _space_dims(runs)]
    if extra or values.dtype.kind not in "biuf":
        kind = f"the further dims {extra}" if extra else f"dtype {values.dtype}"
        raise ValueError(f"`best` needs one number per configuration, got {metric!r} with {kind}.")
    values = values.astype(float)
    good = np.isfinite(values)
    if "diverged" in runs:
        good &= ~(runs["diverged"] > 0)
    values = values.where(good)
    return values.mean(over, skipna=False) if over in values.dims else values


def _space_dims(runs) -> tuple:
    """The dims of the space; of a Dataset that no sweep made, those which all variables share."""
    if "diverged" in runs:
        return runs["diverged"].dims
    shared = [dim for dim in runs.dims if all(dim in variable.dims for variable in runs.data_vars.values())]
    return tuple(sorted(shared, key=[dim for v in runs.data_vars.values() for dim in v.dims].index))


def _axis(runs, dim) -> str:
    names = [str(name) for name, coord in runs.coords.items() if coord.dims == (dim,) and name != dim]
    return f"{dim} {runs.sizes[dim]}" + (f" ({', '.join(names)})" if names else "")


def _row(runs, name, over, width) -> str:
    mean = _mean(runs, name, over)
    values = mean.values[~np.isnan(mean.values)]
    if values.size == 0:
        return f"{name:{width}}  nothing finite"
    place = mean.isel(mean.argmin(...)) if mean.ndim else mean
    told = {n: c.item() for n, c in place.coords.items() if c.ndim == 0 and set(runs[n].dims) & set(mean.dims)}
    where = ", ".join(f"{n}={_told(v)}" for n, v in told.items() if v == v and v != "")
    return f"{name:{width}}{values.min():11.4g}{np.median(values):10.4g}{values.max():10.4g}  {where}"


def _told(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _storable(values) -> np.ndarray:
    """Numbers of dtypes that NumPy and NetCDF do not know, such as bfloat16, as float32."""
    values = np.asarray(values)
    return values.astype(np.float32) if values.dtype.kind == "V" else values


class _Verb:
    """A function of this module as a verb of one Dataset, which stays one that pickles, unlike with a bound method."""

    def __init__(self, function, runs):
        self._function, self._runs, self.__doc__ = function, runs, function.__doc__

    def __call__(self, *args, **options):
        return self._function(self._runs, *args, **options)

    @property
    def __signature__(self):
        return inspect.signature(types.MethodType(self._function, self._runs))


xarray.register_dataset_accessor("best")(functools.partial(_Verb, best))
xarray.register_dataset_accessor("summary")(functools.partial(_Verb, summary))
