"""What multipliers do over time."""

from typing import TYPE_CHECKING

import numpy as np

from jaxreg.plotting.axes import COLOURS

if TYPE_CHECKING:
    import matplotlib.axes


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
