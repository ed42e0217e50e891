"""From finished chunks to one Dataset."""

import numpy as np

from jaxreg.sweeps.outputs import blank, fill, merged
from jaxreg.sweeps.processes import gather_rows


def latest(records, names: list[str]) -> dict[tuple, tuple[str, int]]:
    """{cell: (task, row)} of what is finished; of a cell that ran on from rung to rung, its last."""
    done = {task for task in records.tasks if records.finished(task)}
    if len(done) == len(records.tasks) and "rung" not in names:
        return records.cells
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
    number = {task: i for i, task in enumerate(records.tasks)}
    found_at = (places.get(cell) for cell in cells)
    pairs = np.fromiter(((-1, 0) if at is None else (number[at[0]], at[1]) for at in found_at), "i4,i4", len(cells))
    tasks, rows_at = pairs["f0"], pairs["f1"]
    order = np.argsort(tasks, kind="stable")
    found = {name: blank(len(cells), spec) for name, spec in merged(outputs).items()}
    found["diverged"] = np.zeros(len(cells), bool)
    finished = np.zeros(len(cells), bool)
    names_of = list(records.tasks)
    for to in np.split(order, np.flatnonzero(np.diff(tasks[order])) + 1) if len(order) else ():
        if tasks[to[0]] < 0:
            continue
        task = names_of[tasks[to[0]]]
        for name, values in records.read(task, [*outputs[records.group[task]], "diverged"]).items():
            fill(found[name], to, values[rows_at[to]])
        finished[to] = True
    return gather_rows(found, finished)
