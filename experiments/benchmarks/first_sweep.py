"""The first sweep of a process against the user's own program by hand: seconds of both, and programs compiled.

`python -m experiments.benchmarks.first_sweep --rounds 5` trains 1, 8 and 32 of the networks of `small_networks`, each
time in a fresh process: by hand, which is `jax.jit(jax.vmap(train))` called once, and by `sweep`, from the call to the
Dataset, whose libraries are imported in that time. Imports of JAX and jaxreg and the start of the device are not in the
seconds. "Warm" has a persistent compilation cache that holds the program already, "cold" has none. The two run in turn;
seconds are medians, a ratio is the median of the rounds' ratios with its range; "CPU" is the ratio of the processor's
seconds, of all threads, which other work on the machine changes less. Prints one table.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

MODELS = 1, 8, 32
CONTENDERS = "by hand", "sweep"


def measure(contender, count, file, cache):
    """Seconds of a contender in this process, and the programs that it compiled or found in the cache."""
    import jax

    import jaxreg as jr
    from experiments.benchmarks import small_networks as networks

    if cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    with np.load(file) as data:
        fixed = {"x": data["x"], "y": data["y"]}
    arguments, sweep, zipped = networks.configurations(count), jr.sweep, jr.zipped
    jax.numpy.zeros(()).block_until_ready()
    events = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **facts: events.append(event))

    begin, busy = time.perf_counter(), time.process_time()
    if contender == "sweep":
        found = sweep(networks.train, zipped(**arguments), **fixed)
    else:
        many = jax.jit(jax.vmap(networks.train, (0, 0, 0, None, None)))
        found = jax.tree.map(np.asarray, many(*arguments.values(), *fixed.values()))
    seconds, busy = time.perf_counter() - begin, time.process_time() - busy

    programs = sum(event.endswith("backend_compile_duration") for event in events)
    return {"seconds": seconds, "CPU": busy, "programs": programs, "loss": float(np.mean(found["loss"]))}


def compare(count, file, cache, number):
    """{contender: what `measure` found in each round}, in turn; a cache is filled first."""
    found = {name: [] for name in CONTENDERS}
    for i in range(-bool(cache), number):
        for name in CONTENDERS:
            command = [sys.executable, "-m", __spec__.name, "--child", name, "--models", str(count), "--data", file]
            command += ["--cache", cache] if cache else []
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            if i >= 0:
                found[name].append(json.loads(output.splitlines()[-1]))
    hand, ours = ([run["loss"] for run in found[name]] for name in CONTENDERS)
    np.testing.assert_allclose(ours, hand, rtol=2e-3)
    return found


def main(argv=None):
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, nargs="+", default=MODELS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        print(json.dumps(measure(args.child, args.models[0], args.data, args.cache)))
        return
    from experiments.data import load

    data = load("digits")
    print("| models | cache | programs by hand | programs, sweep | by hand, s | sweep, s | ratio | range | CPU |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "digits.npz")
        np.savez(file, x=data["x_train"], y=data["y_train"])
        for warm in (False, True):
            for count in args.models:
                found = compare(count, file, str(Path(folder) / "cache") if warm else None, args.rounds)
                hand, ours = (np.array([run["seconds"] for run in found[name]]) for name in CONTENDERS)
                hand_busy, ours_busy = (np.array([run["CPU"] for run in found[name]]) for name in CONTENDERS)
                programs = " | ".join(str(max(run["programs"] for run in found[name])) for name in CONTENDERS)
                times = f"{np.median(hand):.2f} | {np.median(ours):.2f} | {np.median(ours / hand):.2f}"
                span = f"{np.min(ours / hand):.2f}–{np.max(ours / hand):.2f} | {np.median(ours_busy / hand_busy):.2f}"
                print(f"| {count} | {'warm' if warm else 'cold'} | {programs} | {times} | {span} |", flush=True)


if __name__ == "__main__":
    main()
