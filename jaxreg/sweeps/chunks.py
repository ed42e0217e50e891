"""How many configurations run at once: as many as fit the memory, and no more than make it faster."""

import logging
import math
import os
import time
from collections import deque

import jax
import numpy as np

from jaxreg.sweeps.program import Program
from jaxreg.sweeps.running import Chunk, flights, rounded, run, start

log = logging.getLogger("jaxreg.sweeps")
FRACTION = {"cpu": 0.5}  # of the free memory; host memory is shared with others, a device's is not
FIRST = {"cpu": 32}  # a CPU's caches hold few models, an accelerator wants many
STEP = {"cpu": 4}
_CHOSEN: dict = {}


def choose(program: Program, numbers: dict[str, np.ndarray], count: int, budget: int | None) -> tuple[int, dict]:
    """A chunk for `count` configurations, and what the choice rests on.

    The first candidate is 32 a device on a CPU and 256 on an accelerator, or what fits the budget. Where there are so
    many chunks that trials do not matter, four (eight) times as many are tried, and then as many times more or less:
    three programs at the most, of which the fastest is taken. Trials take at most a tenth of the run, compiling
    included.
    """
    devices, kind = program.mesh.size, program.mesh.devices.flat[0].platform
    limit = budget if budget is not None else available(program.mesh)
    key = (program.fingerprint, kind, devices, budget)
    if key in _CHOSEN:
        return balanced(program, count, _CHOSEN[key]), {"from": "an earlier choice for this program"}
    growth = STEP.get(kind, 8)
    first, compiling = _fit(program, candidate(program, count), limit)
    seconds = {}
    if count >= 16 * first:
        seconds[first] = _trial(program, numbers, first)
        whole = seconds[first] * _blocks(program) * count / first

        def better(size: int) -> bool:
            """Whether chunks of this size are faster than the best so far; False also where trying costs too much."""
            if not devices <= size <= count // 8 or size in seconds:
                return False
            share = 0.1 if seconds[first] > 0.005 else 0.5  # less: the host is what takes time
            if 2 * compiling + 3 * seconds[first] * size / first > share * whole:
                return False
            size, _ = _fit(program, size, limit)
            best = _fastest(seconds)
            if size in seconds:
                return False
            # in turn, as the speed of a machine changes with what else it does
            times = [(_trial(program, numbers, size), _trial(program, numbers, best)) for _ in range(2)]
            seconds[size] = min(here for here, _ in times)
            seconds[best] = min(seconds[best], *(there for _, there in times))
            return seconds[size] / size < 0.97 * seconds[best] / best

        # where a chunk is so short that the host cannot keep up, one of a tenth of a second is next
        longer = 2 ** round(math.log2(max(growth, 0.1 / seconds[first])))
        larger = min(first * longer, rounded(count // 16, devices))
        if larger > first and better(larger):
            better(min(larger * growth, rounded(count // 16, devices)))
        else:
            better(rounded(first // growth, devices))
    best = _fastest(seconds) if seconds else first
    if len(seconds) > 1:
        _CHOSEN[key] = best
    facts = {"bytes": needed(program, best), "budget": limit}
    if seconds:
        facts["seconds a configuration"] = {size: float(f"{s / size:.3g}") for size, s in seconds.items()}
    return best, facts


def candidate(program: Program, count: int) -> int:
    """The first chunk that is tried, and often the last."""
    first = program.mesh.size * FIRST.get(program.mesh.devices.flat[0].platform, 256)
    return balanced(program, count, first)


def _fastest(seconds: dict[int, float]) -> int:
    return min(seconds, key=lambda size: seconds[size] / size)


def _blocks(program: Program) -> int:
    return 1 if program.begin is None else program.train.steps // program.train.every


def balanced(program: Program, count: int, chunk: int) -> int:
    """A chunk at most as large, of which no core is left without one in the end, and the last is filled up least."""
    together = flights(program) if program.mesh.size == 1 else 1
    number = math.ceil(math.ceil(count / chunk) / together) * together
    return rounded(math.ceil(count / number), program.mesh.size)


def available(mesh) -> int:
    """Bytes of memory that all chunks in flight may take on all devices together."""
    kind = mesh.devices.flat[0].platform
    if kind == "cpu":
        return int(FRACTION["cpu"] * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"))
    stats = [device.memory_stats() or {} for device in mesh.devices.flat]
    free = min(s.get("bytes_limit", 2**33) - s.get("bytes_in_use", 0) for s in stats)
    return int(0.8 * free * mesh.size)


def needed(program: Program, size: int) -> int:
    """Bytes of the chunks that run at a time, on all devices."""
    memory = program.main.compiled(size).memory_analysis()
    if memory is None:
        return 0
    each = memory.temp_size_in_bytes + memory.output_size_in_bytes
    return program.mesh.size * (memory.argument_size_in_bytes + flights(program) * each)


def _fit(program: Program, size: int, limit: int) -> tuple[int, float]:
    """The largest chunk up to `size` within the limit, and the seconds it took to compile."""
    devices = program.mesh.size
    while True:
        start = time.perf_counter()
        bytes_needed = needed(program, size)
        seconds = time.perf_counter() - start
        if bytes_needed <= limit:
            return size, seconds
        if size == devices:
            log.warning(
                "one configuration a device needs %.3g GB of the %.3g GB given", bytes_needed / 1e9, limit / 1e9
            )
            return size, seconds
        fitting = int(0.9 * size * limit / bytes_needed) // devices * devices
        size = max(devices, min(fitting, size // 2 // devices * devices))


def _trial(program: Program, numbers: dict[str, np.ndarray], size: int) -> float:
    """Seconds of one chunk, or of the first block of one."""
    rows = np.arange(size) % max(1, len(next(iter(numbers.values()), [0])))
    chunk = Chunk({k: v[rows] for k, v in numbers.items()}, size, size)
    if program.begin is not None:
        start(program, chunk)
        jax.block_until_ready(chunk.state)
    begin = time.perf_counter()
    deque(run(program, chunk, 1 if program.begin is None else program.train.every), maxlen=0)
    return time.perf_counter() - begin
