"""All hyperparameters at once: parallel coordinates."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxreg.plotting.axes import COLOURS, is_logarithmic, is_numeric, label, new_axes, unique
from jaxreg.plotting.repetitions import check_scalar, mean_and_error
from jaxreg.plotting.results import cmap, columns
from jaxreg.sweeps.repetitions import mean_over, unstacked

if TYPE_CHECKING:
    import matplotlib.axes
    import xarray

ABSENT = -0.12  # where an argument is drawn that a configuration does not have


class Scale(NamedTuple):
    """An upright axis from 0 to 1: where its values and its ticks are."""

    heights: np.ndarray
    ticks: list[tuple[float, str]]


def parallel_coordinates(
    runs: "xarray.Dataset",
    metric: str,
    dims: Sequence[str] | None = None,
    over: str | None = "seed",
    ax=None,
    mode: str = "min",
) -> "matplotlib.axes.Axes":
    r"""A line per configuration through its values on upright axes, coloured by `metric`, the last of them.

    Axes are logarithmic where values are spread over decades, 0 and ∞ one step beside the rest, and names are evenly
    spread. The best configuration is drawn in red, above all; those that diverged are grey and end before the metric;
    what is not finished is not drawn. For grids of any number of dims, and for lists of configurations.

    Args:
        runs: what `sweep` returned.
        metric: the name of a variable with one number per configuration.
        dims: the dims or coordinates to draw, in order; None draws every one of two values at least, but `over`.
        over: what the repetitions, of which the mean is drawn, differ in: a dim, or a coordinate of a list; None, or
            "seed" where there is none, averages nothing.
        ax: the axes to draw on; None makes new ones.
        mode: whether "min" or "max" is best.

    Returns:
        The axes.

    Raises:
        ValueError: if `metric` has dims that no drawn axis belongs to, nothing varies, or there is no `over`.
        KeyError: if there is no such variable, dim or coordinate.
    """
    if mode not in ("min", "max"):
        raise ValueError(f'`parallel_coordinates` needs `mode` to be "min" or "max", got {mode!r}.')
    if dims is None:
        check_scalar("parallel_coordinates", runs, metric)
    mean, _ = mean_and_error("parallel_coordinates", runs, metric, over)
    dims = varied(mean) if dims is None else list(dims)
    if not dims:
        raise ValueError("`parallel_coordinates` needs something that varies, got one value of everything.")
    values, _ = columns("parallel_coordinates", mean, dims)
    result = mean.values.ravel()
    finite, drawn = ~np.isnan(result), _finished(runs, mean, over)
    scales = [scale(column) for column in values]
    last = scale(result[finite]) if finite.any() else Scale(np.zeros(0), [])

    ax = new_axes(ax, figsize=(max(5.0, 1.6 * (len(dims) + 1) + 1), 4.2))
    rank = np.argsort(np.argsort(np.where(finite, -result if mode == "max" else result, np.inf), kind="stable"))
    heights = np.stack([_fanned(s.heights, rank) for s in scales], 1)
    lost = ~finite & drawn
    _lines(ax, heights[lost], colors="0.7", linewidth=0.8, linestyle=":")
    if lost.any():
        ax.plot([], [], ":", color="0.7", label="diverged" if "diverged" in runs else "no result")
    if finite.any():
        lines = np.column_stack([heights[finite], last.heights])
        worst_first = np.argsort(-rank[finite])
        colour = last.heights[worst_first]
        _lines(ax, lines[worst_first], array=colour, cmap=cmap(mode), clim=(0, 1), linewidth=1.1, alpha=0.9)
        best = worst_first[-1]
        name = f"{'lowest' if mode == 'min' else 'highest'} {metric}: {result[finite][best]:.3g}"
        ax.plot(np.arange(len(scales) + 1), lines[best], "o-", color=COLOURS[1], lw=2.2, ms=4, label=name, zorder=5)
    _dress(ax, [*dims, metric], [*scales, last], mode)
    return ax


def scale(values) -> Scale:
    """Where values are on an axis from 0 to 1: linear, logarithmic, or names evenly spread."""
    if not is_numeric(values):
        names = [value for value in unique(values) if value != ""]
        at = dict(zip(names, _spread(len(names)), strict=True))
        heights = np.array([at.get(value, ABSENT) for value in np.asarray(values).tolist()])
        return Scale(heights, [(h, label(name)) for name, h in at.items()] + [(ABSENT, "none")] * (ABSENT in heights))
    values = np.asarray(values, float)
    finite = np.unique(values[np.isfinite(values)])
    logarithmic = is_logarithmic(values)
    usual = finite[finite > 0] if logarithmic else finite
    transform = np.log10 if logarithmic else lambda x: x
    low, high = (transform(usual[[0, -1]])) if usual.size else (0.0, 1.0)
    ends = {0.0: logarithmic and 0 in finite, np.inf: np.isposinf(values).any(), -np.inf: np.isneginf(values).any()}
    bottom, top = 0.12 * bool(ends[0.0] or ends[-np.inf]), 1 - 0.12 * bool(ends[np.inf])

    def height(x):
        return bottom + (top - bottom) * ((transform(x) - low) / (high - low) if high > low else 0.5)

    heights = np.full(values.shape, ABSENT)
    inside = np.isin(values, usual)
    heights[inside] = height(values[inside])
    for end, at in ((0.0, 0.0), (-np.inf, 0.0), (np.inf, 1.0)):
        if ends[end]:
            heights[values == end] = at
    ticks = [(float(height(t)), label(t)) for t in _ticks(usual, logarithmic)]
    ticks += [(0.0 if end <= 0 else 1.0, label(end)) for end, there in ends.items() if there]
    return Scale(heights, ticks + [(ABSENT, "none")] * bool(np.isnan(values).any()))


def _ticks(usual, logarithmic) -> np.ndarray:
    if usual.size <= 6:
        return usual
    if not logarithmic:
        from matplotlib.ticker import MaxNLocator

        ticks = MaxNLocator(5).tick_values(usual[0], usual[-1])
        return ticks[(ticks >= usual[0]) & (ticks <= usual[-1])]
    low, high = np.log10(usual[[0, -1]]) + np.array([-1e-9, 1e-9])
    exponents = np.arange(np.floor(low), np.ceil(high) + 1, max(1, round((high - low) / 6)))
    within = [1] if high - low > 2.5 else [1, 2, 5] if high - low > 1 else [1, 2, 3, 5, 7]
    marks = np.outer(10.0**exponents, within).ravel()
    return marks[(np.log10(marks) >= low) & (np.log10(marks) <= high)]


def _spread(number: int) -> np.ndarray:
    return np.linspace(0, 1, number) if number > 1 else np.array([0.5] * number)


def varied(mean) -> list[str]:
    """The coordinates of two values at least along the metric's dims; a dim without any by its index."""
    names = []
    for dim in mean.dims:
        along = [str(name) for name, coord in mean.coords.items() if coord.dims == (dim,)]
        names += [name for name in along or [dim] if len(unique(mean[name].values)) > 1]
    return names


def _finished(runs, mean, over) -> np.ndarray:
    if "finished" not in runs:
        return np.ones(mean.size, bool)
    finished = mean_over(unstacked(runs["finished"]).astype(float), over) == 1
    return finished.all([dim for dim in finished.dims if dim not in mean.dims]).transpose(*mean.dims).values.ravel()


def _fanned(heights, rank) -> np.ndarray:
    """Lines through the same point of an axis side by side, the best lowest, so that none hides the others."""
    points = np.unique(heights)
    gaps = np.concatenate([[np.inf], np.diff(points), [np.inf]])
    fanned = heights.copy()
    for point, width in zip(points, 0.6 * np.minimum(0.12, np.minimum(gaps[:-1], gaps[1:])), strict=True):
        here = np.flatnonzero(heights == point)
        order = here[np.argsort(rank[here])]
        if order.size > 1:
            fanned[order] += width * (np.arange(order.size) / (order.size - 1) - 0.5)
    return fanned


def _lines(ax, heights, **options):
    from matplotlib.collections import LineCollection

    x = np.broadcast_to(np.arange(heights.shape[1]), heights.shape)
    return ax.add_collection(LineCollection(np.stack([x, heights], -1), rasterized=len(heights) > 1000, **options))


def _dress(ax, names, scales, mode) -> None:
    """Upright axes with their ticks and names; the last one in the colours of the metric."""
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
    last = len(names) - 1
    lowest = min(height for s in scales for height, _ in s.ticks)
    for x, (_, ticks) in enumerate(scales):
        ax.plot([x, x], [min(lowest, 0), 1], color="0.3", linewidth=0.8, zorder=3)
        for height, text in ticks:
            side, gap = ("left", 9) if x == last else ("right", -4)
            where = {"textcoords": "offset points", "ha": side, "va": "center", "zorder": 6}
            ax.annotate(text, (x, height), (gap, 0), fontsize=8, bbox=behind, **where)
    ramp = np.linspace(0, 1, 256)[:, None]
    ax.imshow(ramp, extent=(last, last + 0.05, 0, 1), origin="lower", aspect="auto", cmap=cmap(mode), zorder=4)
    ax.set(xlim=(-0.45, last + 0.4), ylim=(min(lowest, 0) - 0.05, 1.05), yticks=[])
    ax.set_xticks(np.arange(last + 1), names)
    ax.tick_params(axis="x", length=0, top=False, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0), frameon=False, ncols=2)
