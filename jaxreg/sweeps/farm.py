"""Chunks computed by the workers of an executor."""

import concurrent.futures
import logging
import queue
import warnings
from collections import deque
from collections.abc import Callable, Iterator

import jax
import numpy as np

from jaxreg.sweeps.program import Program
from jaxreg.sweeps.running import Chunk
from jaxreg.sweeps.worker import Job, Parcel, compute, opened

log = logging.getLogger("jaxreg.sweeps")
WAITING = 4096  # tasks given to the executor at a time
LIVES = 3  # times that the workers may die without finishing anything


class Farm:
    """An executor, or a function that makes another one when the workers of the last have died.

    Args:
        executor: with `submit`, as those of `concurrent.futures`; a Dask client; or a function that returns one.
        train: a function or `Trainable` that can be pickled.
        programs: group -> its program here, which those of the workers have to equal.
        static: group -> {argument: value}.
        dtypes: group -> {argument: dtype}.
        fixed: the arguments of all configurations.

    Raises:
        TypeError: if `executor` is none of these.
    """

    def __init__(self, executor, train, programs: dict[str, Program], static: dict, dtypes: dict, fixed: dict):
        if not (callable(executor) or _is_executor(executor)):
            raise TypeError(f"`sweep` needs an executor with `submit`, or a function that makes one; got {executor!r}.")
        _check_start(executor)
        self._make: Callable | None = None if _is_executor(executor) else executor
        self._executor = executor if self._make is None else None
        fixed = jax.tree.map(lambda leaf: np.asarray(leaf) if _is_plain(leaf) else leaf, fixed)
        fingerprints = {group: program.fingerprint for group, program in programs.items()}
        self._parcel = Parcel(Job.here(train, fingerprints, static, dtypes, fixed))

    def compute(self, jobs: list[tuple[str, str, Chunk]], is_over: Callable[[], bool]) -> Iterator[tuple[str, dict]]:
        """Yield (task, outputs) in the order in which they are finished.

        Args:
            jobs: (task, group, chunk).
            is_over: whether no further chunk is to be begun.

        Raises:
            concurrent.futures.BrokenExecutor: if the workers died, and there are no others.
        """
        left = {task: (group, chunk) for task, group, chunk in jobs}
        lives, wait = LIVES, False
        try:
            while left and not is_over():
                try:
                    for task, outputs in self._run(left, is_over):
                        del left[task]
                        lives = LIVES
                        yield task, outputs
                except concurrent.futures.BrokenExecutor as error:
                    if is_over():  # Ctrl-C reaches workers that have only just been started, too
                        log.warning("The workers ended (%s).", error)
                        break
                    lives -= 1
                    if self._make is None or lives == 0:
                        _lost(error, len(jobs) - len(left), len(jobs), self._make is None)
                    log.warning("The workers died (%s); %d chunks are given to new ones.", error, len(left))
                    self._close(wait=True)
            wait = True
        finally:
            self._close(wait)

    def _run(self, left: dict, is_over) -> Iterator[tuple[str, dict]]:
        if self._executor is None:
            made = self._make()
            if not _is_executor(made):
                raise TypeError(f"`sweep` needs `executor()` to be one, with `submit`; got {made!r}.")
            _check_start(made)
            self._executor = made
        executor, parcel = self._executor, self._parcel
        if hasattr(executor, "get_executor"):  # Dask's client: what all tasks need is sent once, and is one itself
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Sending large graph")
                executor, parcel = executor.get_executor(), executor.submit(opened, parcel, pure=False)
        waiting, running, ended = deque(left), {}, queue.SimpleQueue()
        try:
            while waiting or running:
                while waiting and len(running) < WAITING and not is_over():
                    task = waiting.popleft()
                    future = executor.submit(compute, parcel, *left[task])
                    running[future] = task
                    future.add_done_callback(ended.put)
                if is_over():
                    waiting.clear()
                    for future in [*running]:
                        if future.cancel():
                            del running[future]
                try:
                    future = ended.get(timeout=0.5)
                except queue.Empty:
                    continue
                if future in running:
                    task = running.pop(future)
                    yield task, _result(future, *left[task])
        finally:
            for future in running:  # after an error: whoever gave the executor needs it for other things
                future.cancel()

    def _close(self, wait: bool) -> None:
        if self._make is not None and self._executor is not None:
            executor, self._executor = self._executor, None
            if hasattr(executor, "get_executor"):
                executor.close()
            else:
                executor.shutdown(wait=wait)


def _result(future: concurrent.futures.Future, group: str, chunk: Chunk) -> dict[str, np.ndarray]:
    if future.cancelled():
        raise concurrent.futures.BrokenExecutor("a chunk was cancelled")
    try:
        return future.result()
    except concurrent.futures.BrokenExecutor:
        raise
    except Exception as error:
        first, last = ({k: v[i].item() for k, v in chunk.numbers.items()} for i in (0, chunk.count - 1))
        where = f" with {group}" if group else ""
        error.add_note(f"`sweep` was at a chunk of {chunk.count} configurations{where}, {first} to {last}.")
        raise


def _lost(error: Exception, done: int, total: int, bare: bool):
    advice = " Give a function that makes executors to have dead ones replaced." if bare else ""
    raise type(error)(
        f"`sweep` lost the workers of its executor: {error} {done} of {total} chunks are done, and safe in the store "
        f"if there is one: the same call goes on from there.{advice}"
    ) from error


def _check_start(executor) -> None:
    """Refuse workers that would hang: a fork of a process in which JAX runs has its locks, but not its threads."""
    context = getattr(executor, "_mp_context", None)
    if context is not None and context.get_start_method() == "fork":
        raise ValueError(
            "`sweep` needs workers that are not forked, in which JAX would hang: "
            '`ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn"))`.'
        )


def _is_executor(executor) -> bool:
    return callable(getattr(executor, "submit", None)) and not isinstance(executor, type)


def _is_plain(leaf) -> bool:
    return isinstance(leaf, jax.Array) and not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.extended)
