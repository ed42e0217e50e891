"""The work of a sweep: chunk after chunk is computed, recorded and told of."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

import numpy as np

from jaxreg.sweeps.outputs import nonfinite
from jaxreg.sweeps.program import Program, ahead
from jaxreg.sweeps.running import BY_STEP, Chunk, advance, join, launch, restore, save, specification

SAVE_SECONDS = 30.0  # between two savings of the state of a chunk that goes on


class Work:
    """Computes tasks, and hands on what comes out: to the records, the bar and the callbacks.

    Args:
        programs: group -> its program.
        dtypes: group -> {argument: dtype} of its numbers.
        records: a `Store` or `Memory`.
        names: what the entries of a cell are, in order: the arguments, perhaps 'rung'.
        farm: computes chunks elsewhere; None is here.
    """

    def __init__(self, programs: dict[str, Program], dtypes, records, names, *, farm=None):
        self.programs, self.dtypes, self.records, self.names = programs, dtypes, records, names
        self.farm = farm
        self.bar, self.metric, self.callbacks = None, None, ()
        self.interrupted = False
        self.done = self.total = self._told = 0

    def run(self, tasks: list[str], begin: int = 0, end: int = 1, keep: bool = False) -> None:
        """Compute those of the tasks that are not finished, the largest program first.

        Args:
            tasks: those of this stage that this process sees to.
            begin: the step at which a `Trainable` goes on, with the states of the stage before.
            end: the step at which it pauses.
            keep: whether the states are kept for a next stage.
        """
        self.unit, self._first = end - begin, begin == 0
        done = {task for task in tasks if self.records.finished(task)}
        for task in done:
            if not keep and self._program(task).begin is not None:  # killed after its last file, before this
                self.records.drop_carry(task)
        left = [task for task in tasks if task not in done]
        left.sort(key=lambda task: (-self._program(task).cost, self.records.group[task], task))
        jobs = [(task, self._chunk(task, size)) for task, size in zip(left, self._sizes(left), strict=True)]
        with _interruptible(self):
            if self.farm is None:
                computed = self._here(jobs, begin, end)
            else:
                sent = [(task, self.records.group[task], chunk) for task, chunk in jobs]
                computed = ((*done, None) for done in self.farm.compute(sent, lambda: self.interrupted))
            for task, outputs, chunk in computed:
                if keep:
                    self.records.write_carry(task, end, save(chunk))
                self._deliver(task, outputs)
                if not keep:
                    self.records.drop_carry(task)

    def _program(self, task: str) -> Program:
        return self.programs[self.records.group[task]]

    def _sizes(self, tasks: list[str]) -> list[int]:
        """How many configurations run at once: as many as in the largest task of the same plan and group."""
        group, largest = self.records.group, {}
        for task, cells in self.records.tasks.items():
            key = task.split("-")[0], group[task]
            largest[key] = max(largest.get(key, 0), len(cells))
        return [
            -(-largest[task.split("-")[0], group[task]] // self._program(task).mesh.size)
            * self._program(task).mesh.size
            for task in tasks
        ]

    def _chunk(self, task: str, size: int) -> Chunk:
        cells = self.records.tasks[task]
        columns = dict(zip(self.names, zip(*cells, strict=True), strict=True))
        dtypes = self.dtypes[self.records.group[task]]
        return Chunk({name: np.array(columns[name], dtype) for name, dtype in dtypes.items()}, len(cells), size)

    def _here(self, jobs: list[tuple[str, Chunk]], begin: int, end: int) -> Iterator:
        """Compute chunks on the devices of this process."""
        with ahead([(self._program(task), chunk.size) for task, chunk in jobs]):
            pending = None
            for task, chunk in jobs:
                program = self._program(task)
                if self.interrupted:
                    break
                if program.begin is None:  # the next chunk runs while this one is written
                    collect = launch(program, chunk)
                    if pending:
                        yield pending[0], pending[1](), None
                    pending = task, collect
                elif self._advance(program, task, chunk, begin, end):
                    yield task, chunk.outputs, chunk
            if pending:
                yield pending[0], pending[1](), None

    def _advance(self, program: Program, task: str, chunk: Chunk, begin: int, end: int) -> bool:
        """Run a chunk to step `end`; False if it was interrupted before."""
        saved = self.records.read_carry(task)
        if saved is None and begin:
            saved = self._of_previous_rung(program, task, chunk, begin)
        if saved is not None:  # else from the start
            restore(program, chunk, *saved)
        last = time.perf_counter()

        def on_block(chunk):
            nonlocal last
            if chunk.step < end and (time.perf_counter() - last > SAVE_SECONDS or self.interrupted):
                self.records.write_carry(task, chunk.step, save(chunk))
                last = time.perf_counter()
            return self.interrupted and chunk.step < end

        self._told = 0
        for _ in advance(program, chunk, end):
            if chunk.step < end:
                self.bar.update(chunk.count * program.train.every)
                self._told += chunk.count * program.train.every
            if on_block(chunk):
                return False
        return True

    def _of_previous_rung(self, program: Program, task: str, chunk: Chunk, begin: int) -> tuple[int, list] | None:
        place, parts = self.names.index("rung"), {}
        for cell in self.records.tasks[task]:
            before, row = self.records.cells[(*cell[:place], cell[place] - 1, *cell[place + 1 :])]
            parts.setdefault(before, []).append(row)
        read = [(self.records.read_carry(before), rows) for before, rows in parts.items()]
        if any(carry is None for carry, _ in read):  # damaged, and set aside
            return None
        return begin, join(chunk.size, [(carry[1], rows) for carry, rows in read], len(specification(program)))

    def _deliver(self, task: str, outputs: dict[str, np.ndarray]) -> None:
        """Record the outputs of a chunk, then tell of it."""
        count = len(self.records.tasks[task])
        by_step = self._program(task).begin is not None  # with NaN where a run was stopped
        curves = {name + BY_STEP for name in outputs} if by_step else ()
        numbers = {name: values for name, values in outputs.items() if name not in curves}
        outputs = {**outputs, "diverged": nonfinite(numbers, count)}
        self.records.write(task, outputs)
        self.done += count * self._first  # once, not at every rung
        columns = dict(zip(self.names, zip(*self.records.tasks[task], strict=True), strict=True))
        best = None
        if self.metric is not None and np.isfinite(values := outputs[self.metric]).any():
            i = int(np.nanargmin(np.where(np.isfinite(values), values, np.nan)))
            best = values[i], {name: column[i] for name, column in columns.items() if column[i] is not None}
        self.bar.update(count * self.unit - self._told, best)
        self._told = 0
        for callback in self.callbacks:
            callback(self.done, self.total, {**{k: np.array(v) for k, v in columns.items()}, **outputs})


@contextlib.contextmanager
def _interruptible(work: Work):
    """Ctrl-C ends the work after the chunk (the block of a `Trainable`) that runs; a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_):
        if work.interrupted:
            raise KeyboardInterrupt
        work.interrupted = True

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
