"""One chunk of configurations from start to end, or from one pause to the next."""

import dataclasses
import os
from collections.abc import Callable, Iterator

import jax
import numpy as np

from jaxreg.sweeps.jaxprs import factorizes
from jaxreg.sweeps.program import Program

BY_STEP = "_by_step"


@dataclasses.dataclass
class Chunk:
    """Configurations that run together, and how far they have come.

    `outputs` are (count, ...) on the host. A `Trainable` has besides, while it runs, its state: leaves (size, ...), row
    i that of configuration `slots[i]`, or of none where that is −1.
    """

    numbers: dict[str, np.ndarray]
    count: int
    size: int
    step: int = 0
    outputs: dict[str, np.ndarray] | None = None
    slots: np.ndarray | None = None
    state: list | None = None
    lanes: dict | None = None  # the numbers of the slots, on the devices


def flights(program: Program) -> int:
    """How many chunks run at a time: one on each core of a CPU that is one device, as XLA keeps one core busy with it.

    Elsewhere two, so that the next one is there when the devices are done with one.

    One where LAPACK is called: in jax 0.10 two such programs at a time wait for each other for ever.
    """
    if program.mesh.size > 1 or program.mesh.devices.flat[0].platform != "cpu":
        return 2
    if jax.__version_info__ < (0, 12) and any(factorizes(part.jaxpr.jaxpr) for part in program.parts):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def stored(dtype) -> np.dtype:
    """NumPy's dtype for an output: those it does not know, such as bfloat16, become float32."""
    return np.dtype(dtype) if np.dtype(dtype).kind in "biufc" else np.dtype(np.float32)


def specification(program: Program) -> dict[str, dict]:
    """{output: {"shape", "dtype", "dims"}} of one configuration; of a `Trainable` scalars also by step, and `steps`."""
    found = {}
    for name, out in program.results.items():
        dims = [f"{name}_dim_{i}" for i in range(len(out.shape))]
        found[name] = {"shape": list(out.shape), "dtype": stored(out.dtype).name, "dims": dims}
    if program.begin is not None:
        reports = program.train.steps // program.train.every
        own = sorted(found.keys() & {"steps", *(name + BY_STEP for name in found)})
        if own:
            raise ValueError(f"`sweep` needs reports named unlike what it adds, got {own}.")
        for name, out in list(found.items()):
            dtype = np.dtype(out["dtype"])
            if out["shape"] == [] and dtype.kind != "c":  # missing where a run was stopped, so never an integer
                dtype = dtype if dtype.kind == "f" else np.promote_types(dtype, np.float32)
                found[name + BY_STEP] = {"shape": [reports], "dtype": dtype.name, "dims": ["step"]}
        found["steps"] = {"shape": [], "dtype": "int64", "dims": []}
    return found


class Now:
    """What a function returned, in the form of a future: to run chunks one after the other."""

    def __init__(self, function: Callable):
        self._result = function()

    def result(self):
        """It."""
        return self._result


def run(program: Program, chunk: Chunk, end: int = 1, submit: Callable = Now) -> Iterator:
    """Run a chunk; of a `Trainable` from where it is to step `end`, or until all of its configurations have stopped.

    Yields the future of what runs, as `submit` returned it, so that one thread can see to several chunks; and False
    between two blocks of a `Trainable`, when nothing runs and the chunk can be saved.
    """
    if program.begin is None:
        lanes, whole = program.lanes(chunk.numbers, chunk.size), program.main.compiled(chunk.size)
        results = submit(lambda: jax.block_until_ready(whole((), lanes, program.shared)))
        yield results
        named = program.outputs(results.result()).items()
        chunk.outputs = {k: np.asarray(v).astype(stored(v.dtype), copy=False)[: chunk.count] for k, v in named}
        return
    start(program, chunk)
    while chunk.step < end and (chunk.slots >= 0).any():
        results = submit(_block(program, chunk))
        yield results
        _take_in(program, chunk, end, *results.result())
        if chunk.step < end and (chunk.slots >= 0).any():
            yield False


def _block(program: Program, chunk: Chunk) -> Callable:
    size = len(chunk.slots)
    if chunk.lanes is None:
        chunk.lanes = program.lanes({k: v[np.maximum(chunk.slots, 0)] for k, v in chunk.numbers.items()}, size)
    lanes = chunk.lanes
    state = jax.tree.unflatten(jax.tree.structure(program.begin.out), chunk.state)
    block = program.main.compiled(size)
    return lambda: jax.block_until_ready(block(state, lanes, program.shared))


def _take_in(program: Program, chunk: Chunk, end: int, state, report, stop) -> None:
    """After a block: as soon as three quarters of a chunk have stopped, the rest goes on in a smaller one.

    That takes another program, so not sooner.
    """
    chunk.state = jax.tree.leaves(state)
    chunk.step += program.train.every
    stopped = np.asarray(stop[0]) if stop else np.zeros(len(chunk.slots), bool)
    _record(chunk, program.outputs(report), chunk.step // program.train.every - 1, stopped | (chunk.step >= end))
    if stopped.any():
        chunk.slots = np.where(stopped, -1, chunk.slots)
        _compact(program, chunk)


def start(program: Program, chunk: Chunk) -> None:
    """The states before the first step, where there are none."""
    if chunk.state is not None:
        return
    lanes = program.lanes(chunk.numbers, chunk.size)
    chunk.state = jax.tree.leaves(program.begin.compiled(chunk.size)((), lanes, program.shared))
    chunk.slots = np.where(np.arange(chunk.size) < chunk.count, np.arange(chunk.size), -1)
    chunk.outputs = {}
    for name, out in specification(program).items():
        empty = np.nan if out["dims"] == ["step"] else 0
        chunk.outputs[name] = np.full((chunk.count, *out["shape"]), empty, out["dtype"])


def _record(chunk: Chunk, results, block: int, ended: np.ndarray) -> None:
    """Keep the scalars of a report, and all of it for those configurations that end with it."""
    used = chunk.slots >= 0
    final = used & ended
    for name, result in results.items():
        by_step = chunk.outputs.get(name + BY_STEP)
        if by_step is not None:
            by_step[chunk.slots[used], block] = np.asarray(result)[used]
        if final.any():
            chunk.outputs[name][chunk.slots[final]] = np.asarray(result)[final]
    chunk.outputs["steps"][chunk.slots[used]] = chunk.step


def _compact(program: Program, chunk: Chunk) -> None:
    running = np.flatnonzero(chunk.slots >= 0)
    size = bucket(len(running), program.mesh.size)
    if len(running) > 0 and size <= len(chunk.slots) // 4:
        rows = running[np.minimum(np.arange(size), len(running) - 1)]
        chunk.state = [device(program, host(leaf)[rows], leaf.dtype) for leaf in chunk.state]
        chunk.slots = np.where(np.arange(size) < len(running), chunk.slots[rows], -1)
        chunk.lanes = None


def rounded(count: int, devices: int) -> int:
    """The least size of a chunk for `count` configurations, as many on each device."""
    return max(1, -(-count // devices)) * devices


def bucket(count: int, devices: int) -> int:
    """The least size of a chunk for `count` configurations: a power of two on each device, so that few are compiled."""
    return devices * 2 ** max(0, int(np.ceil(np.log2(count / devices)))) if count else devices


def host(leaf: jax.Array) -> np.ndarray:
    """A leaf of a state as numbers that a file can hold: keys as their data, bfloat16 as the integers of its bits."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    values = np.asarray(leaf)
    return values if values.dtype.kind in "biufc" else values.view(f"u{values.dtype.itemsize}")


def device(program: Program, values: np.ndarray, dtype) -> jax.Array:
    """The leaf of a state with these numbers."""
    if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(program.put(values), impl=jax.random.key_impl(jax.numpy.empty(0, dtype)))
    return program.put(values if values.dtype == dtype else values.view(dtype))


def save(chunk: Chunk) -> list[np.ndarray]:
    """All that an unfinished chunk knows, as numbers: slots, outputs, state."""
    return [chunk.slots, *(chunk.outputs[name] for name in sorted(chunk.outputs)), *map(host, chunk.state)]


def restore(program: Program, chunk: Chunk, step: int, leaves: list[np.ndarray]) -> None:
    """Put a chunk where it was when it was saved."""
    names = sorted(specification(program))
    chunk.step, chunk.slots = step, leaves[0]
    chunk.outputs = dict(zip(names, (leaf.copy() for leaf in leaves[1 : 1 + len(names)]), strict=True))
    wanted = jax.tree.leaves(program.begin.out)
    chunk.state = [device(program, x, out.dtype) for x, out in zip(leaves[1 + len(names) :], wanted, strict=True)]


def join(size: int, parts: list[tuple[list[np.ndarray], list[int]]], outputs: int) -> list[np.ndarray]:
    """Saved chunks cut down to some configurations each and put together to one of `size`, as `save` gives it."""
    slots, state, done = [], [], 0
    kept = [[leaf[rows] for leaf in leaves[1 : 1 + outputs]] for leaves, rows in parts]
    for leaves, rows in parts:
        place = {slot: i for i, slot in enumerate(leaves[0].tolist()) if slot >= 0}
        running = [(done + i, place[row]) for i, row in enumerate(rows) if row in place]
        slots += [slot for slot, _ in running]
        state.append([leaf[[i for _, i in running]] for leaf in leaves[1 + outputs :]])
        done += len(rows)
    fill = np.minimum(np.arange(size), max(len(slots) - 1, 0))
    filled = np.where(np.arange(size) < len(slots), np.array(slots or [-1])[fill], -1)
    states = [np.concatenate(leaf) for leaf in zip(*state, strict=True)]
    if slots:
        states = [leaf[fill] for leaf in states]
    return [filled, *(np.concatenate(output) for output in zip(*kept, strict=True)), *states]
