"""Results of a sweep against what was varied: curves and maps."""

from typing import TYPE_CHECKING

import numpy as np

from jaxreg.plotting.axes import COLOURS, is_numeric, label, new_axes, place, plain_log_ticks, unique
from jaxreg.plotting.repetitions import mean_and_error

if TYPE_CHECKING:
    import matplotlib.axes
    import xarray

MISSING = "0.85"


def validation_curve(
    runs: "xarray.Dataset", metric: str, along: str, line: str | None = None, over: str | None = "seed", ax=None
) -> "matplotlib.axes.Axes":
    r"""`metric` against a strength: a line per value of `line`, mean ± standard error over `over` as a band.

    Configurations with a repetition that diverged or is not finished are left out. Names, and the coordinates of a list
    of configurations, along which more than one thing changes, are points with error bars instead of lines.

    Args:
        runs: what `sweep` returned, with no further dims than those of `along`, `line` and `over` in `metric`.
        metric: the name of a variable.
        along: a dim, or a coordinate along one; strengths over decades are logarithmic, with 0 and ∞ one step beside.
        line: the dim or coordinate of the lines; None for one line.
        over: what the repetitions differ in: a dim, or a coordinate of a list; None, or "seed" where there is none,
            averages nothing.
        ax: the axes to draw on; None makes new ones.

    Returns:
        The axes.

    Raises:
        ValueError: if `metric` has further dims, or there is no `over`.
        KeyError: if there is no such variable, dim or coordinate.
    """
    mean, error = mean_and_error("validation_curve", runs, metric, over)
    (along_at, *line_at), points = columns("validation_curve", mean, [along] if line is None else [along, line])
    ax = new_axes(ax)
    x = place(ax, along_at)
    joined = points == "grid" and is_numeric(along_at)
    lines = [None] if line is None else unique(line_at[0])
    colours = COLOURS if len(lines) <= len(COLOURS) else _shades(len(lines))
    for i, value in enumerate(lines):
        here = np.ones(x.shape, bool) if line is None else np.array([same(v, value) for v in line_at[0].tolist()])
        here = np.flatnonzero(here)[np.argsort(x[here], kind="stable")]
        m, e = mean.values.ravel()[here], error.values.ravel()[here]
        name = None if line is None else f"{line} = {label(value)}"
        if joined:
            ax.plot(x[here], m, "o-", markersize=3, color=colours[i], label=name)
            ax.fill_between(x[here], m - e, m + e, color=colours[i], alpha=0.25, linewidth=0)
        else:
            ax.errorbar(x[here], m, e if (e > 0).any() else None, fmt="o", markersize=4, color=colours[i], label=name)
    ax.set_xlabel(along)
    ax.set_ylabel(metric)
    if line is not None:
        ax.legend(frameon=False)
    return ax


def heatmap(
    runs: "xarray.Dataset", metric: str, x: str, y: str, over: str | None = "seed", ax=None, **imshow
) -> "matplotlib.axes.Axes":
    r"""`metric`, averaged over `over`, as a map of two strengths, dark where it is low, with a ring around its minimum.

    Configurations with a repetition that diverged or is not finished are grey. Two dims are a map of cells; with a
    coordinate of a list of configurations, each configuration is a point at its own values.

    Args:
        runs: what `sweep` returned, with no further dims than those of `x`, `y` and `over` in `metric`.
        metric: the name of a variable.
        x: the dim or coordinate along the horizontal axis.
        y: the dim or coordinate along the vertical axis.
        over: what the repetitions differ in: a dim, or a coordinate of a list; None, or "seed" where there is none,
            averages nothing.
        ax: the axes to draw on; None makes new ones.
        **imshow: options of matplotlib's `imshow`, such as `vmax`.

    Returns:
        The axes.

    Raises:
        ValueError: if `metric` has further dims, or there is no `over`.
        KeyError: if there is no such variable, dim or coordinate.
    """
    import matplotlib

    mean, _ = mean_and_error("heatmap", runs, metric, over)
    (x_at, y_at), points = columns("heatmap", mean, [x, y])
    values = mean.values.ravel()
    ax = new_axes(ax)
    missing = np.isnan(values)
    if missing.all():
        imshow = {k: v for k, v in imshow.items() if k != "norm"}  # a logarithmic one has nothing to scale
    options = {"cmap": matplotlib.colormaps[cmap("min")].with_extremes(bad=MISSING), **imshow}
    if points == "grid":
        values = mean.transpose(y, x).values
        image = ax.imshow(values, origin="lower", aspect="auto", **options)
        row, column = np.indices(values.shape).reshape(2, -1)
        _cell_ticks(ax.xaxis, mean[x].values, most=5)
        _cell_ticks(ax.yaxis, mean[y].values, most=12)
    else:
        column, row = place(ax, x_at), place(ax, y_at, "y")
        ax.scatter(column[missing], row[missing], color=MISSING, s=25)
        image = ax.scatter(column[~missing], row[~missing], c=values[~missing], s=40, **options)
    grey = "  (grey: diverged or unfinished)" if missing.any() else ""
    bar = ax.figure.colorbar(image, ax=ax, label=f"{metric}{grey}")
    if missing.all():
        bar.set_ticks([])
    elif imshow.get("norm") == "log":
        plain_log_ticks(bar.ax.yaxis)
    if not missing.all():
        least = np.nanargmin(values)
        ax.plot(column[least], row[least], "o", ms=10, mfc="none", mec=COLOURS[1], mew=2)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    return ax


def columns(api: str, mean, names: list[str]) -> tuple[list[np.ndarray], str]:
    """What the named coordinates are in each configuration, flat; "grid" if each is a dim of its own, else "list"."""
    dims = []
    for name in names:
        if name not in mean.dims and (name not in mean.coords or mean[name].ndim != 1):
            known = [*mean.dims, *(str(n) for n, c in mean.coords.items() if c.ndim == 1 and n not in mean.dims)]
            raise KeyError(f"`{api}` needs a dim or a coordinate along one, of {known}; got {name!r}.")
        dims.append(mean[name].dims[0])
    extra = [dim for dim in mean.dims if dim not in dims and mean.sizes[dim] > 1]
    if extra:
        name = extra[0]
        raise ValueError(
            f"`{api}` needs a metric with the dims {list(dict.fromkeys(dims))} alone, got the further dims {extra}: "
            f"choose or average first, as in `runs.isel({name}=0)` or `runs.mean({name!r})`."
        )
    index = dict(zip(mean.dims, np.indices(mean.shape).reshape(mean.ndim, -1), strict=True))
    values = [mean[name].values[index[dim]] for name, dim in zip(names, dims, strict=True)]
    grid = dims == names and sorted(dims) == sorted(mean.dims)
    return values, "grid" if grid else "list"


def cmap(mode: str) -> str:
    """The colours of a metric: the best is dark, as the worst may pale on white."""
    return "viridis" if mode == "min" else "viridis_r"


def same(one, other) -> bool:
    """Equality by which an absent argument, NaN, is itself."""
    return one == other or (one != one and other != other)


def _cell_ticks(axis, values, most: int) -> None:
    """Names, or some of the numbers with the first and the last, at the cells of a map."""
    values = values.tolist()
    shown = min(len(values), most) if is_numeric(values) else len(values)
    ticks = np.linspace(0, len(values) - 1, shown).round().astype(int)
    axis.set_ticks(ticks, [label(values[i]) for i in ticks])
    if axis.axis_name == "x" and not is_numeric(values) and sum(len(label(v)) for v in values) > 40:
        axis.set_tick_params(rotation=30)


def _shades(number: int):
    import matplotlib

    return matplotlib.colormaps["viridis_r"](np.linspace(0.1, 1, number))
