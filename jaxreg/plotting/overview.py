"""The one picture of a sweep that fits what was varied."""

from typing import TYPE_CHECKING

from jaxreg.plotting.axes import new_axes
from jaxreg.plotting.parallel import parallel_coordinates
from jaxreg.plotting.results import heatmap, validation_curve

if TYPE_CHECKING:
    import matplotlib.axes
    import xarray


def overview(runs: "xarray.Dataset", metric: str, over: str | None = "seed", ax=None) -> "matplotlib.axes.Axes":
    r"""The validation curve of one dim, the heatmap of two; of more, and of a list, parallel coordinates.

    Args:
        runs: what `sweep` returned.
        metric: the name of a variable with one number per configuration.
        over: the dim of the repetitions, where there is one beside others.
        ax: the axes to draw on; None makes new ones.

    Returns:
        The axes.

    Raises:
        ValueError: if the metric has further dims.
        KeyError: if there is no such variable.
    """
    every = [*runs[metric].dims]
    over = over if over in every and len(every) > 1 else None
    dims = _varied(runs, every, over)
    repeated = f"{runs.sizes[over]} {over}s" if over else ""
    if _is_list(runs, every) or len(dims) > 2:
        return parallel_coordinates(runs, metric, over=over, ax=ax)
    runs = runs.isel({dim: 0 for dim in every if dim not in (*dims, over)})
    ax = new_axes(ax)
    if len(dims) == 2:
        heatmap(runs, metric, *dims, over=over, ax=ax)
        ax.set_title(f"ring: the lowest{' mean of ' * bool(over)}{repeated}", fontsize="medium")
    else:
        validation_curve(runs, metric, *dims, over=over, ax=ax)
        ax.set_title(f"mean and standard error of {repeated}" if over else "", fontsize="medium")
    return ax


def save_overview(runs: "xarray.Dataset", metric: str, file) -> None:
    """Write `overview` to a file, whatever screen there is, or none."""
    from matplotlib.figure import Figure

    parallel = _is_list(runs, runs[metric].dims) or len(_varied(runs, runs[metric].dims, "seed")) > 2
    figure = Figure((1.6 * len(runs.coords) + 3 if parallel else 6, 4.2), layout="constrained")
    overview(runs, metric, ax=figure.subplots())
    figure.savefig(file, dpi=150)


def _varied(runs, every, over) -> list[str]:
    return [dim for dim in every if dim != over and runs.sizes[dim] > 1] or [*every[:1]]


def _is_list(runs, every) -> bool:
    return any(dim not in runs.coords for dim in every)
