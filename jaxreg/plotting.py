"""Pictures of sweeps and runs: plain arrays and labelled results in, matplotlib axes out; alone imports matplotlib."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import matplotlib.axes
    import xarray

# Paul Tol's "bright": distinct for colour-blind readers, also in grey.
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB")


def validation_curve(
    runs: "xarray.Dataset", metric: str, along: str, line: str | None = None, over: str | None = "seed", ax=None
) -> "matplotlib.axes.Axes":
    r"""`metric` against a strength: a line per value of `line`, mean ± standard error over `over` as a band.

    Args:
        runs: what `sweep` returned, with no further dims than `along`, `line` and `over` in `metric`.
        metric: the name of a variable.
        along: the dim of the strengths; logarithmic, with 0 and ∞ one step beside the rest.
        line: the dim of the lines; None for one line.
        over: the dim of the repetitions, where there is one.
        ax: the axes to draw on; None makes new ones.

    Returns:
        The axes.
    """
    ax = _axes(ax)
    x = strength_axis(ax, runs[along].values)
    repeated = runs.sizes.get(over, 1)
    mean = _mean(runs[metric], over)
    error = runs[metric].std(over, ddof=1) / np.sqrt(repeated) if repeated > 1 else 0 * mean
    for i, value in enumerate([None] if line is None else runs[line].values):
        choose = {} if line is None else {line: i}
        m, e = mean.isel(choose).values, error.isel(choose).values
        label = None if line is None else f"{line} = {value:g}"
        ax.plot(x, m, "o-", markersize=3, color=COLOURS[i % len(COLOURS)], label=label)
        ax.fill_between(x, m - e, m + e, color=COLOURS[i % len(COLOURS)], alpha=0.25, linewidth=0)
    ax.set_xlabel(along)
    ax.set_ylabel(metric)
    if line is not None:
        ax.legend(frameon=False)
    return ax


def heatmap(
    runs: "xarray.Dataset", metric: str, x: str, y: str, over: str | None = "seed", ax=None, **imshow
) -> "matplotlib.axes.Axes":
    r"""`metric`, averaged over `over`, as a map of two strengths, with a ring around its minimum.

    Args:
        runs: what `sweep` returned, with no further dims than `x`, `y` and `over` in `metric`.
        metric: the name of a variable.
        x: the dim along the horizontal axis.
        y: the dim along the vertical axis.
        over: the dim of the repetitions, where there is one.
        ax: the axes to draw on; None makes new ones.
        **imshow: options of matplotlib's `imshow`, such as `vmax`.

    Returns:
        The axes.
    """
    ax = _axes(ax)
    values = _mean(runs[metric], over).transpose(y, x).values
    image = ax.imshow(values, origin="lower", aspect="auto", cmap="viridis_r", **imshow)
    bar = ax.figure.colorbar(image, ax=ax, label=metric)
    if imshow.get("norm") == "log":
        plain_log_ticks(bar.ax.yaxis)
    every = max(1, round(len(runs[x]) / 6))
    ticks = np.arange(0, len(runs[x]), every)
    ax.set_xticks(ticks, [_label(v) for v in runs[x].values[ticks]])
    ax.set_yticks(np.arange(len(runs[y])), [_label(v) for v in runs[y].values])
    row, column = np.unravel_index(np.nanargmin(values), values.shape)
    ax.plot(column, row, "o", markersize=10, markerfacecolor="none", markeredgecolor="#EE6677", markeredgewidth=2)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    return ax


def multipliers(alpha, violation, steps=None, labels=None, axes=None) -> "tuple[matplotlib.axes.Axes, ...]":
    r"""α_g and Ω_g − k over time, one above the other: multipliers rise where the violation is above its line at 0.

    Up to seven groups are lines with names; of more, the median, the middle half and the range are drawn.

    Args:
        alpha: multipliers, an array (steps,) or (steps, groups...), as a scan stacks the state's `alpha`; or a tree.
        violation: violations of the same shape, as a scan stacks the state's `violation` (with `certify`).
        steps: the steps at which they were kept, (steps,); None counts from 0.
        labels: the names of the groups, in the order of the arrays; None is their paths and indices.
        axes: two axes to draw on; None makes new ones.

    Returns:
        The two axes.

    Raises:
        ValueError: if the shapes differ, or `steps` or `labels` do not fit them.
    """
    alpha, names = _columns(alpha)
    violation, others = _columns(violation)
    if alpha.shape != violation.shape or names != others:
        raise ValueError(
            "`multipliers` needs `alpha` and `violation` of one shape (steps, groups...), or trees of such; got groups "
            f"{names} over {len(alpha)} steps and {others} over {len(violation)}."
        )
    steps = np.arange(len(alpha)) if steps is None else np.asarray(steps)
    labels = names if labels is None else list(labels)
    if len(labels) != len(names) or steps.shape != alpha.shape[:1]:
        raise ValueError(
            f"`multipliers` needs {len(alpha)} `steps` and {len(names)} `labels`, got {steps.size} and {len(labels)}."
        )
    if axes is None:
        import matplotlib.pyplot as plt

        axes = plt.subplots(2, sharex=True, layout="constrained")[1]
    for ax, values, label in zip(axes, (alpha, violation), ("multiplier α", "violation Ω − k"), strict=True):
        _traces(ax, steps, values, labels)
        ax.set_ylabel(label)
    axes[1].axhline(0, color="0.5", linewidth=1, zorder=0)
    axes[1].set_xlabel("step")
    if labels != [""]:
        axes[0].legend(frameon=False, fontsize="small")
    return tuple(axes)


def _columns(tree) -> tuple[np.ndarray, list[str]]:
    """(steps, groups) of all leaves of a tree of arrays, and the name of each group."""
    import jax

    columns, names = [], []
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        values = np.asarray(leaf, float)
        if values.ndim == 0:
            raise ValueError("`multipliers` needs arrays over steps, (steps, groups...), got a number.")
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for index in np.ndindex(values.shape[1:]):
            columns.append(values[(slice(None), *index)])
            names.append(" ".join([name, ", ".join(map(str, index))]).strip())
    if len({len(column) for column in columns}) != 1:
        raise ValueError(f"`multipliers` needs leaves over the same steps, got {[len(column) for column in columns]}.")
    return np.stack(columns, 1), names


def _traces(ax, steps, values, names) -> None:
    """A line for each column, or the distribution of many."""
    if len(names) <= len(COLOURS):
        for i, name in enumerate(names):
            ax.plot(steps, values[:, i], color=COLOURS[i], linewidth=1.2, label=name)
        return
    low, first, middle, third, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1], axis=1)
    ax.fill_between(steps, low, high, color=COLOURS[0], alpha=0.15, linewidth=0, label=f"all {len(names)} groups")
    ax.fill_between(steps, first, third, color=COLOURS[0], alpha=0.35, linewidth=0, label="middle half")
    ax.plot(steps, middle, color=COLOURS[0], linewidth=1.2, label="median")


def strength_axis(ax, values) -> np.ndarray:
    """Make the x axis of `ax` logarithmic for strengths; where to draw them, 0 and ∞ one step beside the rest."""
    values = np.asarray(values, float)
    usual = values[(values > 0) & np.isfinite(values)]
    if usual.size == 0:
        return values
    gap = (usual.max() / usual.min()) ** 0.12 if usual.size > 1 else 10.0
    zero, infinity = usual.min() / gap, usual.max() * gap
    ax.set_xscale("log")
    ends = [(v, p, s) for v, p, s in ((0.0, zero, "0"), (np.inf, infinity, "∞")) if np.any(values == v)]
    if ends:
        low, high = np.floor(np.log10(usual.min()) + 0.3), np.ceil(np.log10(usual.max()) - 0.3)
        decades = 10.0 ** np.arange(low, high + 1, max(1, round((high - low) / 5)))
        room = {name: 1.5 if any(label == name for _, _, label in ends) else 0.99 for name in ("0", "∞")}
        decades = decades[(decades > room["0"] * usual.min()) & (decades < usual.max() / room["∞"])]
        ax.set_xticks([*decades, *(p for _, p, _ in ends)], [*(f"{d:g}" for d in decades), *(s for _, _, s in ends)])
        ax.minorticks_off()
    return np.where(values == 0, zero, np.where(np.isinf(values), infinity, values))


def plain_log_ticks(axis) -> None:
    """Ticks of a logarithmic axis at 1, 2, 3, 5, 10, ... in plain figures."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def _mean(values, over):
    return values.mean(over) if over in values.dims else values


def _axes(ax):
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def _label(value) -> str:
    return "∞" if np.isinf(value) else f"{value:.2g}"
