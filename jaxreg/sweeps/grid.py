"""Spaces of configurations."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np


class Grid(NamedTuple):
    """The product of named numeric axes; the last one varies fastest."""

    axes: dict[str, np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of values of each axis."""
        return tuple(len(values) for values in self.axes.values())

    @property
    def size(self) -> int:
        """The number of configurations."""
        return math.prod(self.shape)

    def rows(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """The values of every axis in configurations start ... stop − 1; past the end, the last one again."""
        flat = np.minimum(np.arange(start, stop), self.size - 1)
        index = np.unravel_index(flat, self.shape)
        return {name: values[i] for (name, values), i in zip(self.axes.items(), index, strict=True)}


def grid(**axes) -> Grid:
    r"""The product of named axes of numbers.

    Args:
        **axes: argument of `train` -> its values: a list, a range or a 1-D array of numbers.

    Returns:
        A `Grid`, for `sweep`.

    Raises:
        ValueError: if there is no axis, or an axis is empty or not 1-D.
        TypeError: if an axis holds anything but numbers.

    >>> grid(lam=[0.0, 0.1, 1.0], seed=range(4)).shape
    (3, 4)
    """
    if not axes:
        raise ValueError("`grid` needs at least one axis, got none.")
    arrays = {name: np.asarray(list(v) if isinstance(v, range) else v) for name, v in axes.items()}
    for name, values in arrays.items():
        if values.ndim != 1 or values.size == 0:
            raise ValueError(
                f"`grid` needs a non-empty 1-D list of values for each axis, got shape {values.shape} for {name!r}."
            )
        if not (jnp.issubdtype(values.dtype, jnp.number) or values.dtype == bool):
            raise TypeError(f"`grid` needs numbers, got {values.dtype} for {name!r}: {axes[name]!r}.")
    return Grid(arrays)
