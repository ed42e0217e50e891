"""Successive halving and Hyperband: which configurations go on, and how far. Host logic alone; nothing runs here."""

import abc
import dataclasses
import math
from typing import NamedTuple

import numpy as np


class Rung(NamedTuple):
    """Train to `steps`, counted from the start, then keep the best `survivors`; all that are left after the last."""

    steps: int
    survivors: int


class Bracket(NamedTuple):
    """Configurations that compete with one another, and their rungs; a bracket of one rung drops none."""

    indices: np.ndarray
    rungs: list[Rung]


@dataclasses.dataclass(frozen=True)
class Promotion(abc.ABC):
    """What halving and Hyperband have in common: a metric by which configurations are ranked.

    Attributes:
        metric: the name of a reported number.
        factor: one in `factor` configurations survives a rung, and trains `factor` times as long.
        over: the argument whose values, such as seeds, are promoted together, by their mean; None has none.
        mode: whether the metric is to be "min" or "max".
    """

    metric: str
    factor: int
    over: str | None
    mode: str

    @abc.abstractmethod
    def brackets(self, count: int, steps: int, every: int) -> list[Bracket]:
        """The competitions between `count` configurations; rungs end at multiples of `every`, the last at `steps`."""

    def select(self, values, keep: int) -> np.ndarray:
        """The indices, ascending, of the `keep` best values: NaN is last, and of equals the first is best."""
        values = np.asarray(values, float)
        return np.sort(np.argsort(-values if self.mode == "max" else values, kind="stable")[:keep])


@dataclasses.dataclass(frozen=True)
class Halving(Promotion):
    """What `halving` returns.

    Attributes:
        min_steps: the end of the first rung.
    """

    min_steps: int

    def brackets(self, count: int, steps: int, every: int) -> list[Bracket]:
        """One bracket of all `count` configurations."""
        _check_steps("halving", count, steps, every)
        if self.min_steps > steps:
            raise ValueError(f"`halving` needs `min_steps` ≤ the {steps} steps of a run, got {self.min_steps}.")
        first = every * math.ceil(self.min_steps / every)
        ends = [first * self.factor**i for i in range(_rungs(steps, first, self.factor))]
        return [Bracket(np.arange(count), _schedule(count, ends, steps, self.factor))]


@dataclasses.dataclass(frozen=True)
class Hyperband(Promotion):
    """What `hyperband` returns.

    Attributes:
        seed: what decides which configuration is in which bracket.
    """

    seed: int

    def brackets(self, count: int, steps: int, every: int) -> list[Bracket]:
        """The configurations dealt to the brackets, the one with the earliest first rung first."""
        _check_steps("hyperband", count, steps, every)
        last = _rungs(steps, every, self.factor)
        # n_s of algorithm 1, for a budget of (s_max + 1) whole runs in each bracket.
        sizes = [-(-(last + 1) * self.factor**s // (s + 1)) for s in range(last, -1, -1)]
        dealt = np.split(np.random.default_rng(self.seed).permutation(count), np.cumsum(_shares(count, sizes))[:-1])
        ends = [steps // self.factor**s // every * every for s in range(last, 0, -1)]
        brackets = []
        for first, indices in enumerate(dealt):
            if len(indices):
                rungs = _schedule(len(indices), ends[first:], steps, self.factor)
                brackets.append(Bracket(np.sort(indices), rungs))
        return brackets


def halving(metric: str, *, factor: int = 3, min_steps: int, over: str | None = None, mode: str = "min") -> Halving:
    r"""Successive halving: all start, and after each rung one in `factor` goes on, `factor` times as far.

        rung i ends at min_steps·factorⁱ with ⌊n / factorⁱ⁺¹⌋ survivors, but one; the last ends with the run

    Each rung costs about as much as the first, n·min_steps steps. A configuration that is slow to start is lost;
    `hyperband` hedges against that. Diverged ones rank last.

    Args:
        metric: the name of a number that the run reports.
        factor: one in `factor` survives a rung, an integer ≥ 2.
        min_steps: the steps before the first choice, rounded up to where the run reports.
        over: the argument whose values, such as seeds, are promoted together, by the mean of their metrics.
        mode: "min" or "max".

    Returns:
        A `Halving`, for `sweep`.

    Raises:
        ValueError: if an option is out of range, or `min_steps` is longer than the run.

    >>> halving("val_error", min_steps=100).brackets(count=30, steps=1000, every=50)[0].rungs
    [Rung(steps=100, survivors=10), Rung(steps=300, survivors=3), Rung(steps=1000, survivors=3)]

    References:
        Jamieson, Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016.
    """
    _check("halving", metric, factor, mode)
    if not _whole(min_steps) or min_steps < 1:
        raise ValueError(f"`halving` needs `min_steps` to be an integer ≥ 1, got {min_steps!r}.")
    return Halving(metric, int(factor), over, mode, int(min_steps))


def hyperband(metric: str, *, factor: int = 3, over: str | None = None, seed: int = 0, mode: str = "min") -> Hyperband:
    r"""Hyperband: brackets of successive halving that differ in how early they begin to choose.

        s_max = ⌊log_η(R / every)⌋,   bracket s = s_max, …, 0 begins at R/ηˢ steps with n_s ∝ ⌈(s_max + 1)/(s + 1)·ηˢ⌉

    of the configurations, η = `factor` and R the steps of a whole run; bracket 0 drops none. Li et al. draw n_s new
    configurations for each bracket, 143 in all with R = 81 and η = 3; here those of the space are dealt in the same
    proportions, at random. No min_steps to choose, for about s_max + 1 times the cost of one bracket.

    Args:
        metric: the name of a number that the run reports.
        factor: η, one in `factor` survives a rung, an integer ≥ 2.
        over: the argument whose values, such as seeds, are promoted together, by the mean of their metrics.
        seed: decides which configuration is in which bracket.
        mode: "min" or "max".

    Returns:
        A `Hyperband`, for `sweep`.

    Raises:
        ValueError: if an option is out of range.

    >>> for bracket in hyperband("val_error").brackets(count=17, steps=9, every=1):
    ...     print(len(bracket.indices), [tuple(rung) for rung in bracket.rungs])
    9 [(1, 3), (3, 1), (9, 1)]
    5 [(3, 1), (9, 1)]
    3 [(9, 3)]

    References:
        Li, Jamieson, DeSalvo, Rostamizadeh, Talwalkar, "Hyperband: A Novel Bandit-Based Approach to Hyperparameter
        Optimization", JMLR 18 (2018), algorithm 1.
    """
    _check("hyperband", metric, factor, mode)
    if not _whole(seed) or seed < 0:
        raise ValueError(f"`hyperband` needs `seed` to be an integer ≥ 0, got {seed!r}.")
    return Hyperband(metric, int(factor), over, mode, int(seed))


def _schedule(count: int, ends: list[int], steps: int, factor: int) -> list[Rung]:
    """The rungs at these ends and at `steps`; where none of the configurations would be dropped there is no rung."""
    rungs, running = [], count
    for i, end in enumerate(ends, 1):
        survivors = max(1, count // factor**i)
        if end < steps and survivors < running:
            rungs.append(Rung(end, survivors))
            running = survivors
    return [*rungs, Rung(steps, running)]


def _rungs(steps: int, first: int, factor: int) -> int:
    """⌊log_factor(steps / first)⌋ in integers: how many rungs fit below the last."""
    number = 0
    while first * factor ** (number + 1) <= steps:
        number += 1
    return number


def _shares(count: int, sizes: list[int]) -> list[int]:
    """`count` in proportion to `sizes`, in whole numbers: those with the largest remainders get what is left over."""
    exact = count * np.asarray(sizes) / sum(sizes)
    shares = np.floor(exact).astype(int)
    for i in np.argsort(shares - exact, kind="stable")[: count - shares.sum()]:
        shares[i] += 1
    return shares.tolist()


def _check(name, metric, factor, mode) -> None:
    if not isinstance(metric, str):
        raise TypeError(f"`{name}` needs `metric` to be the name of a reported number, got {metric!r}.")
    if not _whole(factor) or factor < 2:
        raise ValueError(f"`{name}` needs `factor` to be an integer ≥ 2, got {factor!r}.")
    if mode not in ("min", "max"):
        raise ValueError(f'`{name}` needs `mode` to be "min" or "max", got {mode!r}.')


def _check_steps(name, count, steps, every) -> None:
    if not 1 <= every <= steps or count < 1:
        raise ValueError(
            f"`{name}` needs a configuration and 1 ≤ `every` ≤ `steps`, got {count}, every {every}, {steps} steps."
        )


def _whole(number) -> bool:
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool)
