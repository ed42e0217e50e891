"""The work of a sweep: chunk after chunk is computed, recorded and told of."""

import concurrent.futures
import contextlib
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator

import numpy as np

from jaxreg.sweeps.configuration import configuration, in_configuration
from jaxreg.sweeps.outputs import nonfinite
from jaxreg.sweeps.program import Program, ahead
from jaxreg.sweeps.running import BY_STEP, Chunk, flights, join, restore, rounded, run, save, specification

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
        self.done = self.total = 0

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
            if self.metric is not None:
                self.bar.seen(self._best(task, self.records.read(task, [self.metric])[self.metric]))
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
                computed = ((*done, None, 0) for done in self.farm.compute(sent, lambda: self.interrupted))
            order = deque(task for task, _ in jobs) if self.farm is None else deque()
            ready: dict[str, tuple] = {}
            for task, outputs, chunk, told in computed:
                if keep:
                    self.records.write_carry(task, end, save(chunk))
                ready[task] = self._record(task, outputs), told  # safe as soon as it is done,
                if not keep:
                    self.records.drop_carry(task)
                while order and order[0] in ready:  # told of in one order, whichever is done first
                    self._tell(order[0], *ready.pop(order.popleft()))
                if self.farm is not None:
                    self._tell(task, *ready.pop(task))
            for task, done in ready.items():  # after Ctrl-C: later ones than those that were given up
                self._tell(task, *done)

    def _program(self, task: str) -> Program:
        return self.programs[self.records.group[task]]

    def _sizes(self, tasks: list[str]) -> list[int]:
        """How many configurations run at once: as many as in the largest task of the same plan and group."""
        group, largest = self.records.group, {}
        for task, cells in self.records.tasks.items():
            key = task.split("-")[0], group[task]
            largest[key] = max(largest.get(key, 0), len(cells))
        return [rounded(largest[task.split("-")[0], group[task]], self._program(task).mesh.size) for task in tasks]

    def _chunk(self, task: str, size: int) -> Chunk:
        cells = self.records.tasks[task]
        columns = dict(zip(self.names, zip(*cells, strict=True), strict=True))
        dtypes = self.dtypes[self.records.group[task]]
        return Chunk({name: np.array(columns[name], dtype) for name, dtype in dtypes.items()}, len(cells), size)

    def _here(self, jobs: list[tuple[str, Chunk]], begin: int, end: int) -> Iterator:
        """Compute chunks on the devices of this process, several at a time: (task, outputs, chunk, steps told of)."""
        waiting, active, here = deque(jobs), {}, configuration()
        pool = concurrent.futures.ThreadPoolExecutor(max(map(flights, self._programs(jobs)), default=1))

        def submit(function):
            return pool.submit(in_configuration, here, function)

        with ahead([(self._program(task), chunk.size) for task, chunk in jobs]):
            try:
                while waiting or active:
                    while waiting and not self.interrupted and len(active) < flights(self._program(waiting[0][0])):
                        task, chunk = waiting.popleft()
                        self._resume(task, chunk, begin)
                        running, told = run(self._program(task), chunk, end, submit), [time.perf_counter(), 0]
                        future = self._next(running, task)
                        if future is None:
                            yield task, chunk.outputs, chunk, told[1]
                        else:
                            active[future] = task, chunk, running, told
                    if not active:
                        break
                    for future in concurrent.futures.wait(active, return_when="FIRST_COMPLETED").done:
                        task, chunk, running, told = active.pop(future)
                        if self._next(running, task) is None:
                            yield task, chunk.outputs, chunk, told[1]
                        elif self._pause(task, chunk, told):
                            active[self._next(running, task)] = task, chunk, running, told
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _next(self, running: Iterator, task: str):
        try:
            return next(running, None)
        except Exception as error:
            cells, group = self.records.tasks[task], self.records.group[task]
            first, last = (dict(zip(self.names, cell, strict=True)) for cell in (cells[0], cells[-1]))
            where = f" with {group}" if group else ""
            if type(error).__name__ == "InternalFloatingPointError":  # what JAX's own calls make of it
                error = FloatingPointError(f"`train` computed {error.args[-1]}, where JAX is set to refuse it.")
            error.add_note(f"`sweep` was at a chunk of {len(cells)} configurations{where}, {first} to {last}.")
            raise error from None

    def _programs(self, jobs) -> list[Program]:
        return [*{id(program): program for program in (self._program(task) for task, _ in jobs)}.values()]

    def _resume(self, task: str, chunk: Chunk, begin: int) -> None:
        """Put a chunk where an earlier call or rung left it; else it starts from the start."""
        program = self._program(task)
        saved = None if program.begin is None else self.records.read_carry(task)
        if saved is None and begin:
            saved = self._of_previous_rung(program, task, chunk, begin)
        if saved is not None:
            restore(program, chunk, *saved)

    def _pause(self, task: str, chunk: Chunk, told: list) -> bool:
        """Between two blocks: tell of the last, save the state now and then; False where the chunk ends here."""
        steps = chunk.count * self._program(task).train.every
        self.bar.update(steps)
        told[1] += steps
        if time.perf_counter() - told[0] > SAVE_SECONDS or self.interrupted:
            self.records.write_carry(task, chunk.step, save(chunk))
            told[0] = time.perf_counter()
        return not self.interrupted

    def _of_previous_rung(self, program: Program, task: str, chunk: Chunk, begin: int) -> tuple[int, list] | None:
        place, parts = self.names.index("rung"), {}
        for cell in self.records.tasks[task]:
            before, row = self.records.cells[(*cell[:place], cell[place] - 1, *cell[place + 1 :])]
            parts.setdefault(before, []).append(row)
        read = [(self.records.read_carry(before), rows) for before, rows in parts.items()]
        if any(carry is None for carry, _ in read):  # damaged, and set aside
            return None
        return begin, join(chunk.size, [(carry[1], rows) for carry, rows in read], len(specification(program)))

    def _best(self, task: str, values: np.ndarray) -> tuple | None:
        """The least value of the metric in a chunk, and where."""
        if not np.isfinite(values).any():
            return None
        i = int(np.nanargmin(np.where(np.isfinite(values), values, np.nan)))
        where = dict(zip(self.names, self.records.tasks[task][i], strict=True))
        return values[i], {name: value for name, value in where.items() if value is not None}

    def _record(self, task: str, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Record the outputs of a chunk, and which of its configurations diverged."""
        by_step = self._program(task).begin is not None  # with NaN where a run was stopped
        curves = {name + BY_STEP for name in outputs} if by_step else ()
        numbers = {name: values for name, values in outputs.items() if name not in curves}
        outputs = {**outputs, "diverged": nonfinite(numbers, len(self.records.tasks[task]))}
        self.records.write(task, outputs)
        return outputs

    def _tell(self, task: str, outputs: dict[str, np.ndarray], told: int) -> None:
        """Tell the bar and the callbacks of a chunk."""
        count = len(self.records.tasks[task])
        self.done += count * self._first  # once, not at every rung
        columns = dict(zip(self.names, zip(*self.records.tasks[task], strict=True), strict=True))
        best = None if self.metric is None else self._best(task, outputs[self.metric])
        self.bar.update(count * self.unit - told, best)
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
        sys.stderr.write("\nsweep: stops after what is running now, and keeps it; Ctrl-C again stops at once\n")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
