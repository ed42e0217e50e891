"""From finished chunks to one Dataset."""

import numpy as np

from jaxreg.sweeps.outputs import blank, fill, merged
from jaxreg.sweeps.processes import gather_rows


def latest(records, names: list[str]) -> dict[tuple, tuple[str, int]]:
    """{cell: (task, row)} of what is finished; of a cell that ran on from rung to rung, its last."""
    done = {task for task in records.tasks if records.finished(task)}
    places = {cell: place for cell, place in records.cells.items() if place[0] in done}
    if "rung" not in names:
        return places
    at = names.index("rung")
    return {(*cell[:at], *cell[at + 1 :]): places[cell] for cell in sorted(places, key=lambda cell: cell[at])}


def collect(records, cells: list[tuple], names: list[str], outputs: dict):
    """Arrays (size, ...) of all outputs, and which configurations are finished; from all processes.

    Args:
        records: a `Store` or `Memory`.
        cells: the configurations.
        names: what the entries of the records' cells are.
        outputs: group -> {output: its description}.
    """
    places = latest(records, names)
    by_task: dict[str, list[tuple[int, int]]] = {}
    for i, cell in enumerate(cells):
        if cell in places:
            task, row = places[cell]
            by_task.setdefault(task, []).append((i, row))
    found = {name: blank(len(cells), spec) for name, spec in merged(outputs).items()}
    found["diverged"] = np.zeros(len(cells), bool)
    finished = np.zeros(len(cells), bool)
    for task, pairs in by_task.items():
        to, rows = np.array(pairs).T
        for name, values in records.read(task).items():
            fill(found[name], to, values[rows])
        finished[to] = True
    return gather_rows(found, finished)
