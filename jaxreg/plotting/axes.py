"""Axes for what sweeps vary: strengths over decades with 0 and ∞ beside them, and names."""

import numpy as np

# Paul Tol's "bright": distinct for colour-blind readers, also in grey.
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB")


def strength_axis(ax, values, axis: str = "x") -> np.ndarray:
    """Make the x or y axis of `ax` logarithmic for strengths; where to draw them, 0 and ∞ one step beside the rest."""
    values = np.asarray(values, float)
    usual = values[(values > 0) & np.isfinite(values)]
    if usual.size == 0:
        return values
    gap = (usual.max() / usual.min()) ** 0.12 if usual.size > 1 else 10.0
    zero, infinity = usual.min() / gap, usual.max() * gap
    ax.set(**{f"{axis}scale": "log"})
    ends = [(v, p, s) for v, p, s in ((0.0, zero, "0"), (np.inf, infinity, "∞")) if np.any(values == v)]
    if ends:
        low, high = np.floor(np.log10(usual.min()) + 0.3), np.ceil(np.log10(usual.max()) - 0.3)
        decades = 10.0 ** np.arange(low, high + 1, max(1, round((high - low) / 5)))
        room = {name: 1.5 if any(label == name for _, _, label in ends) else 0.99 for name in ("0", "∞")}
        decades = decades[(decades > room["0"] * usual.min()) & (decades < usual.max() / room["∞"])]
        ticks = {f"{axis}ticks": [*decades, *(p for _, p, _ in ends)]}
        ax.set(**ticks, **{f"{axis}ticklabels": [*map(label, decades), *(s for _, _, s in ends)]})
        getattr(ax, f"{axis}axis").set_minor_locator(_no_ticks())
    return np.where(values == 0, zero, np.where(np.isinf(values), infinity, values))


def plain_log_ticks(axis) -> None:
    """Ticks of a logarithmic axis at 1, 2, 3, 5, 10, ... in plain figures."""
    from matplotlib.ticker import LogLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(_no_ticks())


def place(ax, values, axis: str = "x") -> np.ndarray:
    """Where to draw values on an axis made for them: strengths, other numbers, or names."""
    if not is_numeric(values):
        names = unique(values)
        ax.set(**{f"{axis}ticks": np.arange(len(names)), f"{axis}ticklabels": [label(name) for name in names]})
        if axis == "x" and sum(len(label(name)) for name in names) > 40:
            ax.tick_params(axis="x", rotation=30)
        ax.set(**{f"{axis}lim": (-0.5, len(names) - 0.5)})
        return np.array([names.index(value) for value in values], float)
    numbers = np.asarray(values, float)
    return strength_axis(ax, numbers, axis) if is_logarithmic(numbers) else numbers


def is_numeric(values) -> bool:
    """Whether values are numbers, rather than names or truth values."""
    number = (int, float, np.number)
    return all(isinstance(v, number) and not isinstance(v, (bool, np.bool_)) for v in np.asarray(values).ravel()[:1000])


def is_logarithmic(values) -> bool:
    """Whether the distances between nonnegative numbers are more alike between their logarithms."""
    values = np.unique(np.asarray(values, float))
    usual = values[(values > 0) & np.isfinite(values)]
    if usual.size == 0 or values[0] < 0:
        return False
    linear, logarithmic = np.diff(usual), np.diff(np.log(usual))
    if usual.size < 3:
        return True
    return logarithmic.std() / logarithmic.mean() <= linear.std() / linear.mean()


def unique(values) -> list:
    """Each value once, in order of appearance."""
    values = np.asarray(values).tolist()
    return list({"absent" if value != value else ("value", value): value for value in values}.values())


def label(value) -> str:
    """A value on an axis or in a legend; "none" for an argument that is absent."""
    if isinstance(value, str) or not is_numeric([value]):
        return str(value) or "none"
    if not np.isfinite(value):
        return "none" if np.isnan(value) else "∞" if value > 0 else "−∞"
    text = f"{value:.2g}" if value % 1 else f"{value:g}"
    return text.replace("e-0", "e-").replace("e+0", "e")


def new_axes(ax, **options):
    """`ax`, or new ones."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained", **options)[1]


def _no_ticks():
    from matplotlib.ticker import NullLocator

    return NullLocator()
