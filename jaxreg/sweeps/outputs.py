"""The outputs of all groups under one name: the largest shape, a dtype for all, NaN where there is nothing."""

import math

import numpy as np


def merged(groups: dict[str, dict[str, dict]], whole: bool = True) -> dict[str, dict]:
    """{output: its description over all groups}: {"shape": (...), "dtype": ..., "dims": (...)}.

    Args:
        groups: group -> output -> {"shape": [...], "dtype": "float32"}, and "dims" where its axes have names.
        whole: whether every configuration has its outputs; else integers and bools become floats.

    Raises:
        ValueError: if an output has more axes in one group than in another.
    """
    found: dict[str, dict] = {}
    for name in {name: None for group in groups.values() for name in group}:
        here = {key: group[name] for key, group in groups.items() if name in group}
        shapes = {key: tuple(output["shape"]) for key, output in here.items()}
        if len({len(shape) for shape in shapes.values()}) > 1:
            told = ", ".join(f"{shape} with {key or 'the rest'}" for key, shape in shapes.items())
            raise ValueError(f"`sweep` needs {name!r} to have as many axes for all static values, got shapes {told}.")
        shape = tuple(max(sizes) for sizes in zip(*shapes.values(), strict=True))
        dtype = np.result_type(*(np.dtype(output["dtype"]) for output in here.values()))
        if dtype.kind not in "fc" and not (whole and len(here) == len(groups) and {*shapes.values()} == {shape}):
            dtype = np.promote_types(dtype, np.float32)
        dims = next(iter(here.values())).get("dims") or [f"{name}_dim_{i}" for i in range(len(shape))]
        found[name] = {"shape": shape, "dtype": dtype, "dims": tuple(dims)}
    return found


def blank(count: int, description: dict) -> np.ndarray:
    """An array for `count` configurations, with NaN in it or zeros."""
    empty = np.nan if description["dtype"].kind in "fc" else 0
    return np.full((count, *description["shape"]), empty, description["dtype"])


def fill(array: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
    """Put outputs of some configurations, which may be smaller, in their rows."""
    array[(rows, *map(slice, values.shape[1:]))] = values


def nonfinite(outputs: dict[str, np.ndarray], count: int) -> np.ndarray:
    """Which configurations have a non-finite output."""
    found = np.zeros(count, bool)
    for values in outputs.values():
        if values.dtype.kind in "fc":
            found |= ~np.isfinite(values).reshape(count, math.prod(values.shape[1:])).all(1)
    return found
