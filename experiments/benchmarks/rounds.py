"""What benchmarks share: contenders timed in turn, median ratios with intervals, results with their machine."""

import datetime
import importlib.metadata
import json
import os
import platform
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent.parent / "results"


def in_turn(contenders, rounds):
    """{name: seconds of each round} of {name: function of nothing}, each run once first, then in turn.

    A contender that returns a float is taken at its word: those are its seconds.
    """
    seconds = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    for _ in range(rounds):
        for name, run in contenders.items():
            begin = time.perf_counter()
            own = run()
            seconds[name].append(own if isinstance(own, float) else time.perf_counter() - begin)
    return {name: np.array(times) for name, times in seconds.items()}


def ratio(times, baseline):
    """The median over rounds of times/baseline, and its 95 % bootstrap interval."""
    ratios = times / baseline
    picks = np.random.default_rng(0).integers(len(ratios), size=(2000, len(ratios)))
    interval = np.quantile(np.median(ratios[picks], 1), [0.025, 0.975])
    return float(np.median(ratios)), interval.tolist()


def machine():
    """The processor, its cores, the versions and the date."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    versions = {name: importlib.metadata.version(name) for name in ("jax", "optax", "numpy")}
    cpu = names[0] if names else platform.processor() or platform.machine()
    about = {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version(), **versions}
    return about | {"date": datetime.date.today().isoformat()}


def write(name, **results):
    """Write the results, with their machine, to `experiments/results/<name>.json`."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": machine(), **results}, indent=1))
