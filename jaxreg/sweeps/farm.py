"""Chunks computed by the workers of an executor, each worker with programs of its own."""

import concurrent.futures
import functools
import logging
import multiprocessing
import signal
import threading
import uuid
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxreg.sweeps.fixed import Fixed
from jaxreg.sweeps.program import Program, mesh_of
from jaxreg.sweeps.running import Chunk, advance, launch

log = logging.getLogger("jaxreg.sweeps")
WAITING = 64  # tasks given to the executor at a time: they hold their arguments
LIVES = 3  # times that the workers may die without finishing anything
_programs: dict = {}  # of this worker


class Farm:
    """An executor, or a function that makes another one when the workers of the last have died.

    Args:
        executor: with `submit`, as those of `concurrent.futures`; or a function that returns one.
        train: a function or `Trainable` that can be pickled.
        static: group -> {argument: value}.
        dtypes: group -> {argument: dtype}.
        fixed: the arguments of all configurations.
    """

    def __init__(self, executor, train, static: dict, dtypes: dict, fixed: dict):
        if not (callable(executor) or callable(getattr(executor, "submit", None))):
            raise TypeError(f"`sweep` needs an executor with `submit`, or a function that makes one; got {executor!r}.")
        self._make: Callable | None = None if hasattr(executor, "submit") else executor
        self._executor = executor if self._make is None else None
        fixed = jax.tree.map(lambda leaf: np.asarray(leaf) if _is_plain(leaf) else leaf, fixed)
        x64 = bool(jax.config.jax_enable_x64)
        self._job = functools.partial(_compute, uuid.uuid4().hex, train, static, dtypes, fixed, x64)

    def compute(self, jobs: list[tuple[str, str, Chunk]], is_over: Callable[[], bool]) -> Iterator[tuple[str, dict]]:
        """Yield (task, outputs) in the order in which they are finished.

        Args:
            jobs: (task, group, chunk).
            is_over: whether no further chunk is to be begun.
        """
        left = {task: (group, chunk) for task, group, chunk in jobs}
        lives = LIVES
        try:
            while left and not is_over():
                if self._executor is None:
                    self._executor = self._make()
                try:
                    for task, outputs in self._submit(left, is_over):
                        del left[task]
                        lives = LIVES
                        yield task, outputs
                except concurrent.futures.BrokenExecutor as error:
                    lives -= 1
                    if self._make is None or lives == 0:
                        raise type(error)(
                            f"`sweep` lost the workers of its executor: {error} {len(jobs) - len(left)} of {len(jobs)} "
                            "chunks are done, and safe in the store if there is one: the same call goes on from there. "
                            "Give a function that makes executors to have dead ones replaced."
                        ) from error
                    log.warning("The workers died (%s); %d chunks are given to new ones.", error, len(left))
                    self._close()
        finally:
            self._close()

    def _submit(self, left: dict, is_over) -> Iterator[tuple[str, dict]]:
        waiting, running = list(left), {}
        while waiting or running:
            while waiting and len(running) < WAITING and not is_over():
                task = waiting.pop(0)
                running[self._executor.submit(self._job, *left[task])] = task
            if is_over():
                waiting, running = [], {future: task for future, task in running.items() if not future.cancel()}
            done, _ = concurrent.futures.wait(running, timeout=1.0, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                yield running.pop(future), future.result()

    def _close(self) -> None:
        if self._make is not None and self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None


def _compute(token: str, train, static, dtypes, fixed, x64: bool, group: str, chunk: Chunk) -> dict[str, np.ndarray]:
    """In a worker: the outputs of a chunk."""
    if multiprocessing.parent_process() and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; what to do is for the first to say
    with jax.enable_x64(x64):
        if (token, group) not in _programs:
            for key in [key for key in _programs if key[0] != token]:
                del _programs[key]
            mesh, held = mesh_of(jax.local_devices()), Fixed(fixed)
            shared = jax.device_put(held.arrays, NamedSharding(mesh, PartitionSpec()))
            _programs[token, group] = Program(train, static[group], dtypes[group], held, shared, mesh, group)
        program = _programs[token, group]
        chunk.size = -(-chunk.size // program.mesh.size) * program.mesh.size
        if program.begin is None:
            return launch(program, chunk)()
        for _ in advance(program, chunk, program.train.steps):
            pass
        return chunk.outputs


def _is_plain(leaf) -> bool:
    return isinstance(leaf, jax.Array) and not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended)
