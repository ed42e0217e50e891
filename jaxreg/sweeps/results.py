"""From finished chunks to one Dataset."""

import jax
import numpy as np

from jaxreg.sweeps.outputs import blank, fill, merged


def latest(records, names: list[str]) -> dict[tuple, tuple[str, int]]:
    """{cell: (task, row)} of what is finished; of a cell that ran on from rung to rung, its last."""
    done = {task for task in records.tasks if records.finished(task)}
    places = {cell: place for cell, place in records.cells.items() if place[0] in done}
    if "rung" not in names:
        return places
    at = names.index("rung")
    return {(*cell[:at], *cell[at + 1 :]): places[cell] for cell in sorted(places, key=lambda cell: cell[at])}


def collect(records, cells: list[tuple], names: list[str], outputs: dict, processes: int):
    """Arrays (size, ...) of all outputs, and which configurations are finished; from all processes.

    Args:
        records: a `Store` or `Memory`.
        cells: the configurations.
        names: what the entries of the records' cells are.
        outputs: group -> {output: its description}.
        processes: how many processes share the work.
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
    if processes > 1:
        found, finished = _gathered(found, finished)
    return found, finished


def _gathered(found: dict[str, np.ndarray], finished: np.ndarray):
    """The rows that each process finished, in every process; as bytes, so that no dtype is narrowed on the way."""
    from jax.experimental import multihost_utils

    everyones = multihost_utils.process_allgather(finished)
    most = int(everyones.sum(1).max())
    mine = np.flatnonzero(finished)
    rows = np.resize(mine, most) if len(mine) else np.zeros(most, int)
    whose = multihost_utils.process_allgather(rows.astype(np.int32))
    for name, values in found.items():
        sent = np.ascontiguousarray(values[rows]).reshape(most, -1).view(np.uint8)
        for process, got in enumerate(multihost_utils.process_allgather(sent)):
            if everyones[process].any():
                got = np.ascontiguousarray(got).view(values.dtype).reshape(most, *values.shape[1:])
                found[name][whose[process]] = got
    return found, everyones.any(0)


def agreed(size: int) -> int:
    """The first process's number, in every process."""
    if jax.process_count() == 1:
        return size
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(size)))
