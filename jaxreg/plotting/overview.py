"""The one picture of a sweep that fits what was varied."""

from typing import TYPE_CHECKING

from jaxreg.plotting.axes import new_axes
from jaxreg.plotting.parallel import parallel_coordinates, varied
from jaxreg.plotting.repetitions import check_scalar, counts, mean_and_error
from jaxreg.plotting.results import heatmap, validation_curve
from jaxreg.sweeps.repetitions import unstacked

if TYPE_CHECKING:
    import matplotlib.axes
    import xarray


def overview(runs: "xarray.Dataset", metric: str, over: str | None = "seed", ax=None) -> "matplotlib.axes.Axes":
    r"""The validation curve of one dim, the heatmap of two; of more, and of most lists, parallel coordinates.

    Args:
        runs: what `sweep` returned.
        metric: the name of a variable with one number per configuration.
        over: what the repetitions differ in, where something else varies too: a dim, or a coordinate of a list.
        ax: the axes to draw on; None makes new ones.

    Returns:
        The axes.

    Raises:
        ValueError: if the metric has further dims, or there is no `over`.
        KeyError: if there is no such variable.
    """
    check_scalar("overview", runs, metric)
    over, mean = _averaged(runs, metric, over)
    names, many = _varied(mean)
    if many:
        return parallel_coordinates(runs, metric, over=over, ax=ax)
    number = counts(unstacked(runs[metric]), over)
    low, high = number.min(), number.max()
    repeated = (
        (f"{low} {over}s" if low == high else f"{low} to {high} {over}s") if high > 1 or over in runs.dims else ""
    )
    ax = new_axes(ax)
    if len(names) == 2:
        heatmap(runs, metric, *names, over=over, ax=ax)
        ax.set_title(f"ring: the lowest{' mean of ' * bool(repeated)}{repeated}", fontsize="medium")
    else:
        validation_curve(runs, metric, *names, over=over, ax=ax)
        ax.set_title(f"mean and standard error of {repeated}" if repeated else "", fontsize="medium")
    return ax


def save_overview(runs: "xarray.Dataset", metric: str, file) -> None:
    """Write `overview` to a file, whatever screen there is, or none."""
    from matplotlib.figure import Figure

    _, many = _varied(_averaged(runs, metric, "seed")[1])
    figure = Figure((1.6 * len(runs.coords) + 3 if many else 6, 4.2), layout="constrained")
    overview(runs, metric, ax=figure.subplots())
    figure.savefig(file, dpi=150)


def _averaged(runs, metric, over):
    """`over`, or None where nothing else varies; and the means."""
    mean, _ = mean_and_error("overview", runs, metric, over)
    if mean.ndim and (over in runs[metric].dims or varied(mean)):
        return over, mean
    return None, mean_and_error("overview", runs, metric, None)[0]


def _varied(mean) -> tuple[list[str], bool]:
    """What varies, or the first of what does not; and whether it takes upright axes to show."""
    listed = any(dim not in mean.coords for dim in mean.dims)
    if listed:
        names = varied(mean) or [str(name) for name in (*mean.coords, *mean.dims)][:1]
    else:
        names = [dim for dim in mean.dims if mean.sizes[dim] > 1] or [*mean.dims[:1]]
    return names, len(names) > 2 or (listed and len(names) > 1)
