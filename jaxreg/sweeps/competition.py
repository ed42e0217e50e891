"""Rungs: all configurations start, the best go on, in smaller chunks."""

import numpy as np

from jaxreg.sweeps.plan import Plan
from jaxreg.sweeps.work import Work


def compete(work: Work, plan: Plan, halving, steps: int, every: int) -> None:
    """Run the brackets of `halving` one after the other.

    Args:
        work: what computes.
        plan: the configurations.
        halving: what `halving` or `hyperband` returned.
        steps: of a whole run.
        every: steps between reports.
    """
    rivals = _rivals(plan.cells, sorted(plan.space.arguments), halving.over)
    for bracket in halving.brackets(len(rivals), steps, every):
        alive, begin, before = bracket.indices, 0, []
        for i, rung in enumerate(bracket.rungs):
            cells = [cell for rival in alive for cell in rivals[rival]]
            mark = marker(work.names, i)
            tasks = plan.tasks(cells, mark, first=i == 0)
            work.run(tasks, begin=begin, end=rung.steps, keep=i + 1 < len(bracket.rungs))
            if work.interrupted:
                return
            for task in before:  # whoever goes on has gone on
                work.records.drop_carry(task)
            values = {task: _metric(work.records, task, halving.metric) for task in tasks}
            scores = [np.mean([_value(work.records, values, mark(cell)) for cell in rivals[rival]]) for rival in alive]
            alive, begin, before = alive[halving.select(scores, rung.survivors)], rung.steps, tasks


def marker(names: list[str], rung: int):
    """cell -> the cell at a rung, as the records know it."""
    at = names.index("rung")
    return lambda cell: (*cell[:at], rung, *cell[at:])


def extent(plan: Plan, halving, steps: int, every: int) -> int:
    """How many steps all configurations take together, where none stops by itself."""
    rivals = _rivals(plan.cells, sorted(plan.space.arguments), halving.over)
    size, total = len(plan.cells) / len(rivals), 0.0
    for bracket in halving.brackets(len(rivals), steps, every):
        running, begin = len(bracket.indices), 0
        for rung in bracket.rungs:
            total += size * running * (rung.steps - begin)
            running, begin = rung.survivors, rung.steps
    return round(total)


def _rivals(cells: list[tuple], names: list[str], over: str | None) -> list[list[tuple]]:
    """The cells that are promoted together."""
    if over is None:
        return [[cell] for cell in dict.fromkeys(cells)]
    at, found = names.index(over), {}
    for cell in dict.fromkeys(cells):
        found.setdefault((*cell[:at], *cell[at + 1 :]), []).append(cell)
    return list(found.values())


def _metric(records, task: str, name: str) -> np.ndarray:
    """NaN, which ranks last, where anything diverged: the accuracy of a net of NaNs is a number like others."""
    found = records.read(task, [name, "diverged"])
    return np.where(found["diverged"], np.nan, found[name])


def _value(records, values: dict, cell: tuple) -> float:
    task, row = records.cells[cell]
    return values[task][row]
