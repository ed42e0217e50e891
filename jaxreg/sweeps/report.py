"""The results of a sweep in a dozen lines."""

import numpy as np
import xarray

from jaxreg.sweeps.arguments import OWN
from jaxreg.sweeps.repetitions import default_over, mean_over, numbers_of, space_dims, unstacked

_OUTPUTS_TOLD = 8
_WIDTH = 120  # of a line


def summary(runs: xarray.Dataset, over: str | None = "seed") -> str:
    r"""A dozen lines for people: how many models, how fast, and the least value of each output with its place.

    Args:
        runs: what `sweep` returned, or a part of it.
        over: what the repetitions, of which the mean is told, differ in: a dim or a coordinate, as in `best`.

    Returns:
        A text, which shows as such at a prompt.

    >>> runs = xarray.Dataset({"error": ("lam", [0.4, 0.1, 0.2])}, {"lam": [0.0, 0.1, 1.0]})
    >>> summary(runs)
    3 models: lam 3
    output      least    median   largest  least at  largest at
    error         0.1       0.2       0.4  lam=0.1   lam=0
    """
    runs, over = unstacked(runs), default_over(runs, over)
    dims = space_dims(runs)
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
        lines += _table({name: numbers_of("summary", runs, name, over) for name in told}, over)
    others = [str(name) for name in runs if name not in OWN and name not in told]
    if others:
        lines.append("also: " + ", ".join(others))
    return Summary("\n".join(lines))


def scalars(runs: xarray.Dataset) -> list[str]:
    """The names of the outputs that are one number per configuration."""
    dims = space_dims(runs)
    return [str(n) for n in runs if runs[n].dims == dims and n not in OWN and runs[n].dtype.kind in "biuf"]


class Summary(str):
    """A text of several lines that a prompt shows as lines."""

    __slots__ = ()

    def __repr__(self):
        return str(self)


def _axis(runs, dim) -> str:
    names = [str(name) for name, coord in runs.coords.items() if coord.dims == (dim,) and name != dim]
    return f"{dim} {runs.sizes[dim]}" + (f" ({', '.join(names)})" if names else "")


def _table(outputs, over) -> list[str]:
    """A line for each output: least, median and largest of its means, and where the ends are."""
    width = max(len(name) for name in ["output", *outputs])
    rows, repeated = [], False
    for name, values in outputs.items():
        mean = mean_over(values, over)
        repeated |= mean.size < values.size or mean.ndim < values.ndim
        numbers = mean.values[~np.isnan(mean.values)]
        if numbers.size == 0:
            rows.append((f"{name:{width}}  nothing finite", "", ""))
            continue
        told = f"{name:{width}}{numbers.min():11.4g}{np.median(numbers):10.4g}{numbers.max():10.4g}"
        ends = (mean.isel(end(...)) if mean.ndim else mean for end in (mean.argmin, mean.argmax))
        rows.append((told, *(_place(end, mean) for end in ends)))
    head = f"{'output':{width}}{'least':>11}{'median':>10}{'largest':>10}", "least at", "largest at"
    rest = max(len(row[1]) for row in [head, *rows])
    lines = [f"{told}  {least:{rest}}  {largest}".rstrip() for told, least, largest in [head, *rows]]
    if max(map(len, lines)) > _WIDTH:
        lines = [f"{told}  {least}".rstrip() for told, least, _ in [head, *rows]]
    return [lines[0] + f" (means over {over})" * repeated, *lines[1:]]


def _place(at, mean) -> str:
    told = {n: c.item() for n, c in at.coords.items() if c.ndim == 0 and set(mean[n].dims)}
    return ", ".join(f"{n}={_told(v)}" for n, v in told.items() if v == v and v != "")


def _told(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
