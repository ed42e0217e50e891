"""What the processes of one run under `jax.distributed` tell each other."""

import hashlib
import logging
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxreg.sweeps.files import from_json, to_json

log = logging.getLogger("jaxreg.sweeps")


def exchange(value: int = 0, failed: bool = False) -> list[int]:
    """The number of every process, in every process.

    All that is told goes through here, so that a process that failed is heard wherever the others are.

    Raises:
        RuntimeError: if another process failed.
    """
    if jax.process_count() == 1:
        return [value]
    told = _gather(np.array([failed, value], np.int32))
    others = [i for i in np.flatnonzero(told[:, 0]).tolist() if i != jax.process_index()]
    if others and not failed:
        raise RuntimeError(f"`sweep` failed in process {others[0]} of {len(told)}; its message says why.")
    return told[:, 1].tolist()


def together(function: Callable):
    """What `function` returns, as soon as all processes have come as far; where it fails in one, all stop."""
    try:
        result = function()
    except Exception as error:
        if jax.process_count() > 1:
            log.error("process %d failed: %s", jax.process_index(), error)
            exchange(failed=True)
        raise
    exchange()
    return result


def agreed(value: int) -> int:
    """The first process's number, in every process."""
    return exchange(value)[0]


def check_same(facts: dict[str, object]) -> None:
    """Refuse processes that run different sweeps.

    Raises:
        ValueError: naming the facts that differ.
    """
    if jax.process_count() == 1:
        return
    hashes = [int(hashlib.sha256(repr(fact).encode()).hexdigest()[:7], 16) for fact in facts.values()]
    differ = [name for name, number in zip(facts, hashes, strict=True) if len({*exchange(number)}) > 1]
    if differ:
        raise ValueError(f"`sweep` needs the same call in each process; these differ: {', '.join(differ)}.")


def share_plans(records) -> None:
    """Give the plans that one process has and another lacks, as its folder is a new one, to the latter.

    Raises:
        ValueError: if two have different plans.
    """
    if jax.process_count() == 1:
        return
    plans = _plans(records)
    mine = [to_json(plan) for plan in plans]
    counts = exchange(len(mine))
    prefix = hashlib.sha256("".join(mine[: min(counts)]).encode()).hexdigest()[:7]
    if len({*exchange(int(prefix, 16))}) > 1:
        raise ValueError("`sweep` needs stores with the same plans in each process; these were made by other runs.")
    most = counts.index(max(counts))
    text = np.frombuffer(to_json(plans[min(counts) :]).encode(), np.uint8)
    longest = exchange(len(text))[most]
    if max(counts) > min(counts):
        sent = _gather(np.resize(text, longest))[most]
        for plan in from_json(bytes(sent).decode())[len(mine) - min(counts) :]:
            records.extend([(group, [tuple(cell) for cell in cells]) for group, cells in plan])


def _plans(records) -> list[list]:
    plans: dict[str, list] = {}
    for task in sorted(records.tasks):
        plans.setdefault(task.split("-")[0], []).append([records.group[task], records.tasks[task]])
    return [plans[name] for name in sorted(plans)]


def share(tasks: list[str], records) -> list[str]:
    """Those of the tasks that this process is to see to: what it has finished, and its part of what nobody has."""
    if jax.process_count() == 1:
        return tasks
    tasks = sorted(tasks)
    here = np.array([records.finished(task) for task in tasks], bool)
    left = [task for task, done in zip(tasks, _gather(here).any(0), strict=True) if not done]
    mine = {*left[jax.process_index() :: jax.process_count()]}
    return [task for task, done in zip(tasks, here, strict=True) if done or task in mine]


def gather_rows(found: dict[str, np.ndarray], finished: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The rows that each process finished, in every process; as bytes, so that no dtype is narrowed on the way."""
    if jax.process_count() == 1:
        return found, finished
    everyones = _gather(finished)
    most = int(everyones.sum(1).max())
    if most == 0:
        return found, finished
    mine = np.flatnonzero(finished)
    rows = np.resize(mine, most) if len(mine) else np.zeros(most, int)
    whose = _gather(rows.astype(np.int32))
    for name, values in found.items():
        if values.size == 0:
            continue
        sent = np.ascontiguousarray(values[rows]).reshape(most, -1).view(np.uint8)
        for process, got in enumerate(_gather(sent)):
            if everyones[process].any():
                got = np.ascontiguousarray(got).view(values.dtype).reshape(most, *values.shape[1:])
                found[name][whose[process]] = got
    return found, everyones.any(0)


def _gather(values: np.ndarray) -> np.ndarray:
    """(processes, ...) of what each of them has; by one device of each, as they may have different numbers of them."""
    first = {device.process_index: device for device in reversed(jax.devices())}
    mesh = jax.sharding.Mesh([first[i] for i in range(jax.process_count())], ("processes",))
    each, everywhere = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in (("processes",), ()))
    here = jax.device_put(values[None], first[jax.process_index()])
    sent = jax.make_array_from_single_device_arrays((mesh.size, *values.shape), each, [here])
    return np.asarray(jax.jit(lambda x: x, out_shardings=everywhere)(sent).addressable_data(0))
