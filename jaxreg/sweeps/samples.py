"""Spaces by chance: Sobol points and random search."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from jaxreg.sweeps.axes import axis_columns, column_of, dependency_order, holds
from jaxreg.sweeps.columns import Column
from jaxreg.sweeps.spaces import Dim, Space


@dataclasses.dataclass(frozen=True)
class Distribution:
    """A distribution of numbers by its quantile function: u in [0, 1) -> value."""

    name: str
    low: float
    high: float
    quantile: Callable


def uniform(low: float, high: float) -> Distribution:
    r"""Real numbers, uniform on [low, high).

    Args:
        low: the least value.
        high: the end.

    Returns:
        An axis of `sample`.

    Raises:
        ValueError: unless low < high, both finite.

    >>> from jaxreg.sweeps.samples import sample
    >>> bool((sample(8, momentum=uniform(0.5, 1.0)).coords()["momentum"][1] >= 0.5).all())
    True
    """
    _check("uniform", low, high)
    return Distribution("uniform", low, high, lambda u: low + u * (high - low))


def log_uniform(low: float, high: float) -> Distribution:
    r"""Positive numbers whose logarithm is uniform: log x ~ U[log low, log high).

    Args:
        low: the least value, positive.
        high: the end.

    Returns:
        An axis of `sample`.

    Raises:
        ValueError: unless 0 < low < high < ∞.

    >>> from jaxreg.sweeps.samples import sample
    >>> sample(4, lr=log_uniform(1e-4, 1e-1)).sizes
    {'config': 4}
    """
    _check("log_uniform", low, high)
    if not low > 0:
        raise ValueError(f"`log_uniform` needs 0 < low, got {low!r}.")
    start, end = math.log(low), math.log(high)
    return Distribution("log_uniform", low, high, lambda u: np.exp(start + u * (end - start)).clip(low, high))


def integers(low: int, high: int) -> Distribution:
    r"""Integers, uniform on low, ..., high - 1, as NumPy's `Generator.integers`.

    Args:
        low: the least value.
        high: the first integer past the values.

    Returns:
        An axis of `sample`.

    Raises:
        ValueError: unless low < high, integers that fit int64.

    >>> from jaxreg.sweeps.samples import sample
    >>> sorted(sample(4, depth=integers(1, 5)).cells())
    [(1,), (2,), (3,), (4,)]
    """
    _check("integers", low, high)
    if int(low) != low or int(high) != high or not -(2**63) <= low < high <= 2**63 or high - low >= 2**63:
        raise ValueError(f"`integers` needs integers that fit int64, got {low!r} and {high!r}.")
    low, high = int(low), int(high)
    # The product of a large range and u < 1 may be rounded up to the range.
    return Distribution(
        "integers", low, high, lambda u: low + np.minimum((u * float(high - low)).astype(np.int64), high - low - 1)
    )


def sample(num: int, /, *, method: str = "sobol", seed: int = 0, **axes) -> Space:
    r"""Configurations by chance, along one dim 'config': quasi-random (Sobol) points, or independent draws.

    The first n of more configurations are the n of fewer, so that a stored sweep can be extended.

    Args:
        num: the number of configurations; a power of 2 fills the space best with "sobol".
        method: "sobol", scrambled points that leave no gaps in the space of all axes (by SciPy), or "random", where
            the draws of an axis depend on its name and `seed` alone.
        seed: of the scrambling or the draws. An axis called 'seed' comes by a product:
            `sample(64, ...) * grid(seed=range(4))`.
        **axes: argument of `train` -> `uniform(low, high)`, `log_uniform(low, high)`, `integers(low, high)`, or values
            as for `grid`, all equally likely; `conditional(axis, ...)` for those that not every configuration has.

    Returns:
        A `Space` of `num` configurations.

    Raises:
        ValueError: if `num` < 1 or `method` is unknown, and as `grid` does.

    References:
        Sobol (1967), On the distribution of points in a cube; Owen (1998), Scrambling Sobol and Niederreiter–Xing
        points. Bergstra & Bengio (2012), Random search for hyper-parameter optimization.

    >>> space = sample(16, lr=log_uniform(1e-4, 1e-1), width=[64, 128], method="random")
    >>> space
    Space(config: 16 of (lr, width))
    >>> space.cells()[:8] == sample(8, lr=log_uniform(1e-4, 1e-1), width=[64, 128], method="random").cells()
    True
    """
    if not (isinstance(num, (int, np.integer)) and not isinstance(num, bool) and num >= 1):
        raise ValueError(f"`sample` needs a number of configurations >= 1, got {num!r}.")
    if not (isinstance(seed, (int, np.integer)) and not isinstance(seed, bool) and seed >= 0):
        raise ValueError(f"`sample` needs a seed >= 0, got {seed!r}; an axis: `sample(...) * grid(seed=range(4))`.")
    if method not in ("sobol", "random"):
        raise ValueError(f"`sample` needs method 'sobol' or 'random', got {method!r}.")
    if not axes:
        raise ValueError("`sample` needs at least one axis, got none.")
    points = _sobol(num, sorted(axes), seed) if method == "sobol" else _random(num, axes, seed)
    given, when = axis_columns("sample", axes, lambda api, name, axis: _column(api, name, axis, points[name]))
    draws = {n for n, axis in axes.items() if isinstance(axis.values if n in when else axis, Distribution)}
    rows = {
        name: np.arange(num) if name in draws else (points[name] * len(column.values)).astype(np.intp)
        for name, column in given.items()
    }
    columns = {}
    for name in dependency_order(axes, when):
        present = np.ones(num, bool)
        for other, wanted in when.get(name, {}).items():
            here = holds(given[other], other, wanted, may_lack=other in draws)
            present &= columns[other].present & here[rows[other]]
        columns[name] = given[name].take(rows[name]).where(present)
    return Space((Dim("config", {name: columns[name] for name in axes}),))


def _check(api: str, low, high) -> None:
    if not (-math.inf < low < high < math.inf):
        raise ValueError(f"`{api}` needs finite low < high, got {low!r} and {high!r}.")


def _column(api: str, name: str, axis, u: np.ndarray) -> Column:
    """All draws from a distribution, or the values to choose from."""
    return Column(axis.quantile(u)) if isinstance(axis, Distribution) else column_of(api, name, axis)


def _random(num: int, names, seed: int) -> dict[str, np.ndarray]:
    return {name: np.random.default_rng([seed, *name.encode()]).random(num) for name in names}


def _sobol(num: int, names: list[str], seed: int) -> dict[str, np.ndarray]:
    from scipy.stats import qmc

    points = qmc.Sobol(len(names), rng=np.random.default_rng(seed)).random_base2((num - 1).bit_length())[:num]
    return dict(zip(names, points.T, strict=True))
