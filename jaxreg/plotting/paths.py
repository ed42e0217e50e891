"""Coefficients along a path of strengths, and the error of each strength on held-out rows."""

from typing import TYPE_CHECKING

import numpy as np

from jaxreg.plotting.axes import COLOURS, label, new_axes, strength_axis
from jaxreg.plotting.repetitions import mean_and_error

if TYPE_CHECKING:
    import matplotlib.axes
    import xarray

AXES = {"lam": "λ, weaker to the right", "norm": "‖coefficients‖₁", "df": "effective degrees of freedom"}
STYLES = ("-", "--", ":", "-.")
KNOTS = 30  # changes of support that are told apart as lines
OTHERS = "0.8"


def coefficient_path(
    path: "xarray.Dataset", against: str = "lam", names=None, scale=None, labelled: int = 12, marks=None, ax=None
) -> "matplotlib.axes.Axes":
    r"""Every coefficient against λ, ‖coefficients‖₁ or degrees of freedom: few at the left, all at the right.

    The largest have a colour and their name at the right end, the others are grey; coefficients that are zero all along
    are not drawn. Faint vertical lines are strengths at which a coefficient becomes nonzero or zero, and the numbers
    above say how many are nonzero from there on.

    Args:
        path: what `jr.convex.path`, `ridge` or `cross_validate` returned: `coef` over lam and any further dims.
        against: "lam", logarithmic; "norm"; or "df", if the path has it.
        names: of the coefficients, in the order of the array; None is the coordinates of the path, or indices.
        scale: what coefficients are multiplied by, such as the standard deviations of the features, so that they
            compare.
        labelled: how many have colour and name.
        marks: name -> λ, drawn as vertical lines.
        ax: the axes to draw on; None makes new ones.

    Returns:
        The axes.

    Raises:
        ValueError: if there is no `coef` over lam, `against` is none of the three, or `names` do not fit.
    """
    if "coef" not in path or "lam" not in path["coef"].dims or "lam" not in path.indexes:
        raise ValueError("`coefficient_path` needs a Dataset with `coef` along strengths `lam`; choose a part that is.")
    if against not in AXES or (against == "df" and "df" not in path):
        known = " or ".join(f'"{name}"' for name in AXES if name != "df" or "df" in path)
        raise ValueError(f"`coefficient_path` needs `against` to be {known} here, got {against!r}.")
    path = path.sortby("lam", ascending=False)
    coef = path["coef"].transpose("lam", ...)
    names = _names(coef) if names is None else list(names)
    values = coef.values.reshape(coef.sizes["lam"], -1)
    if len(names) != values.shape[1]:
        raise ValueError(f"`coefficient_path` needs {values.shape[1]} `names`, got {len(names)}.")
    if scale is not None:
        values = (coef.values * _beside(scale, coef)).reshape(values.shape)
    ax = new_axes(ax)
    lams = path["lam"].values
    x = {"lam": lambda: strength_axis(ax, lams), "norm": lambda: np.abs(values).sum(1), "df": lambda: path["df"].values}
    x = x[against]()
    if against == "lam":
        ax.invert_xaxis()
    drawn = np.flatnonzero((values != 0).any(0))
    order = drawn[np.argsort(-np.abs(values[:, drawn]).max(0), kind="stable")]
    ax.axhline(0, color="0.5", linewidth=1, zorder=1)
    shown = np.where(_alive(values), values, np.nan)
    for column in order[labelled:]:
        ax.plot(x, shown[:, column], color=OTHERS, linewidth=0.7, zorder=1.5)
    ends = []
    for i, column in enumerate(sorted(order[:labelled], key=lambda column: -values[-1, column])):
        colour, style = COLOURS[i % 6], STYLES[i // 6 % 4]  # neighbours at the right end differ
        ax.plot(x, shown[:, column], style, color=colour, linewidth=1.5, label=names[column])
        ends.append((values[-1, column], names[column], colour))
    ax.set_xlim(*((x.max(), x.min()) if against == "lam" else (x.min(), x.max())))
    if drawn.size and not 1e-3 <= np.abs(values).max() < 1e5:
        ax.yaxis.set_major_formatter("{x:g}")  # a common power of ten would stand where the counts are
    _name_ends(ax, ends)
    _support(ax, x, np.count_nonzero(values, 1), (np.diff(values != 0, axis=0)).any(1))
    for name, lam in (marks or {}).items():
        place = np.interp(-np.log(lam), -np.log(np.maximum(lams, 1e-300)), x)
        ax.axvline(place, color="0.25", linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        at = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        ax.annotate(name, (place, 0.98), xytext=(4, 0), va="top", fontsize=8, color="0.25", **at)
    ax.set_xlabel(AXES[against])
    ax.set_ylabel("coefficient" if scale is None else "coefficient × scale")
    return ax


def cross_validation(cv: "xarray.Dataset", metric: str = "error", ax=None) -> "matplotlib.axes.Axes":
    r"""The error of every λ on held-out rows, mean ± standard error over folds, a line for each l1_ratio.

    Vertical lines are the λ of the least mean error, and the largest within one standard error of it; the numbers above
    say how many coefficients of the fit to all rows are nonzero.

    Args:
        cv: what `jr.convex.cross_validate` returned.
        metric: the name of a variable over `fold` and the strengths.
        ax: the axes to draw on; None makes new ones.

    Returns:
        The axes.

    Raises:
        ValueError, KeyError: if there is no such variable or dim.
    """
    from jaxreg.sweeps.runs import best  # with which xarray comes, and takes time

    mean, error = mean_and_error("cross_validation", cv, metric, "fold")
    ax = new_axes(ax)
    x = strength_axis(ax, mean["lam"].values)
    ratios = mean["l1_ratio"].values if "l1_ratio" in mean.coords else np.zeros(x.size)
    several = np.unique(ratios)
    for i, ratio in enumerate(several):
        here = ratios == ratio
        name = f"l1_ratio = {label(ratio)}" if "l1_ratio" in mean.coords else None
        m, e, colour = mean.values[here], error.values[here], COLOURS[i % 6]
        ax.plot(x[here], m, "o-", markersize=2.5, linewidth=1, color=colour, label=name)
        ax.fill_between(x[here], m - e, m + e, color=colour, alpha=0.2 if len(several) == 1 else 0.12, linewidth=0)
    ax.set_xlim(x.max(), x.min())
    for rule, said, style in (("min", "best", (0, (4, 3))), ("1se", "within 1 s.e.", (0, (1, 2)))):
        chosen = best(cv, metric, rule, "fold")
        place = x[np.flatnonzero((mean["lam"].values == chosen["lam"].values) & _same_ratio(ratios, chosen))[0]]
        of = f", l1_ratio = {label(chosen['l1_ratio'].item())}" if "l1_ratio" in chosen.coords else ""
        said = f"{said}: λ = {chosen['lam'].item():.3g}{of}"
        ax.axvline(place, color="0.25", linewidth=1.2, linestyle=style, zorder=1, label=said)
    if "support" in cv and len(several) == 1:
        support = cv["support"].values
        _support(ax, x, support, np.diff(support) != 0, lines=False)
    ax.set_xlabel(AXES["lam"])
    ax.set_ylabel(f"{cv.attrs.get('metric', metric)} on held-out rows")
    ax.legend(fontsize=9, framealpha=0.85, edgecolor="none")
    return ax


def _alive(values) -> np.ndarray:
    """Where a line is drawn: where it is not zero, and one place beside."""
    nonzero = np.pad(values != 0, ((1, 1), (0, 0)))
    return nonzero[1:-1] | nonzero[:-2] | nonzero[2:]


def _same_ratio(ratios, chosen):
    return ratios == chosen["l1_ratio"].item() if "l1_ratio" in chosen.coords else np.ones(ratios.shape, bool)


def _names(coef) -> list[str]:
    """The labels of each coefficient along its dims."""
    dims = coef.dims[1:]
    labels = [coef[dim].values if dim in coef.coords else np.arange(coef.sizes[dim]) for dim in dims]
    return [
        ", ".join(label(values[i]) for values, i in zip(labels, at, strict=True)) for at in np.ndindex(coef.shape[1:])
    ]


def _beside(scale, coef):
    """`scale`, of the features, with axes of size 1 for targets."""
    scale = np.asarray(scale)
    return scale.reshape(scale.shape + (1,) * (coef.ndim - 1 - scale.ndim))


def _name_ends(ax, ends) -> None:
    """Names at the right ends of lines, moved apart so that none covers another."""
    if not ends:
        return
    ax.figure.canvas.draw()
    size = 8
    room = 1.25 * size / 72 * ax.figure.dpi / ax.get_window_extent().height
    low, high = ax.get_ylim()
    ends = sorted(ends)
    wanted = np.array([(value - low) / (high - low) for value, _, _ in ends])
    placed = _apart(wanted, room)
    for (_, name, colour), at, to in zip(ends, wanted, placed, strict=True):
        ax.plot([1, 1.015, 1.02], [at, to, to], color=colour, linewidth=0.7, transform=ax.transAxes, clip_on=False)
        ax.text(1.025, to, name, color=colour, fontsize=size, va="center", transform=ax.transAxes)


def _apart(wanted, room) -> np.ndarray:
    """Ascending places at least `room` apart, near the ascending `wanted`: least squares by pooling neighbours."""
    blocks = []
    for place in wanted - room * np.arange(len(wanted)):
        blocks.append([place, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2:]
            blocks[-2:] = [[(n * a + m * b) / (n + m), n + m]]
    return np.concatenate([np.full(n, place) for place, n in blocks]) + room * np.arange(len(wanted))


def _support(ax, x, count, changes, lines: bool = True) -> None:
    """Above the axes, how many coefficients are nonzero from each change on; a faint line at each, if few."""
    at = np.flatnonzero(changes) + 1
    if not at.size:
        return
    if lines and at.size <= KNOTS:
        for place in x[at]:
            ax.axvline(place, color="0.9", linewidth=0.7, zorder=0)
    top = ax.secondary_xaxis("top")
    places = ax.transAxes.inverted().transform(ax.transData.transform(np.stack([x[at], 0 * x[at]], 1)))[:, 0]
    kept, last = [], -np.inf
    for i, place in zip(at, places, strict=True):
        if place - last > 0.035:
            kept, last = [*kept, i], place
    top.set_xticks(x[kept], [str(count[i]) for i in kept], fontsize=8)
    top.tick_params(length=2, which="major")
    top.tick_params(length=0, which="minor")
    top.set_xlabel("nonzero coefficients", fontsize=8)
