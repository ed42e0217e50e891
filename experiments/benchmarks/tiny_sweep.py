"""Very many tiny configurations: time, bytes on disk and memory of ridge regression by gradient descent.

`python -m experiments.benchmarks.tiny_sweep` sweeps 10⁴ and 10⁵ configurations (10 features, 50 steps, the loss of
every step and the weights kept), with a store and without, each in a process of its own, whose largest resident memory
tells whether it grows with their number. Prints one table and writes it to `experiments/results/`.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxreg as jr
from experiments.benchmarks import rounds

FEATURES, ROWS, STEPS = 10, 100, 50


def train(lr, lam, seed, x, y):
    """Ridge by gradient descent from a random start."""

    def step(w, _):
        residual = x @ w - y
        return w - lr * (x.T @ residual / ROWS + lam * w), jnp.mean(residual**2)

    w, losses = jax.lax.scan(step, jax.random.normal(jax.random.key(seed), (FEATURES,)), None, STEPS)
    return {"w": w, "losses": losses, "loss": jnp.mean((x @ w - y) ** 2)}


def space(count):
    """A grid of 10 rates, 100 strengths and as many seeds as make `count`."""
    return jr.grid(lr=np.geomspace(1e-3, 1e-1, 10), lam=np.geomspace(1e-4, 1, 100), seed=range(count // 1000))


def measure(count, folder=None):
    """One sweep in this process: seconds, bytes on disk, memory."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32)
    y = (x @ rng.normal(size=FEATURES) + rng.normal(size=ROWS)).astype(np.float32)
    jr.sweep(train, space(1000), x=x, y=y)  # what JAX itself holds is there before
    before = resident()
    begin = time.perf_counter()
    runs = jr.sweep(train, space(count), x=x, y=y, store=folder)
    whole = time.perf_counter() - begin
    after = resident()
    begin = time.perf_counter()
    best = float(runs["loss"].mean("seed").min())
    found = {"configurations": count, "store": folder is not None, "seconds": whole}
    found |= {"compile, s": runs.attrs["compile_seconds"], "chunk": runs.attrs["chunk"]}
    found |= {
        "models/s": count / (whole - runs.attrs["compile_seconds"]),
        "best of a mean, s": time.perf_counter() - begin,
    }
    if folder:
        files = [file for file in Path(folder).rglob("*") if file.is_file()]
        found |= {"bytes on disk each": sum(file.stat().st_size for file in files) / count, "files": len(files)}
    found |= {"MB before": before, "MB, largest": after, "MB, largest, with the best": resident(), "best": best}
    return found


def resident():
    """The largest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main(argv=None):
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configurations", type=int, nargs="+", default=[10_000, 100_000], help="multiples of 1000")
    parser.add_argument("--child", choices=["memory", "store"], help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        with tempfile.TemporaryDirectory() as folder:
            store = str(Path(folder) / "store") if args.child == "store" else None
            print(json.dumps(measure(args.configurations[0], store)))
        return
    rows = []
    for kind in ("memory", "store"):
        for count in args.configurations:
            command = [sys.executable, "-m", __spec__.name, "--child", kind, "--configurations", str(count)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            rows.append(json.loads(output.splitlines()[-1]))
    names = list(rows[-1])
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for row in rows:
        texts = [f"{v:.5g}" if isinstance(v, float) else str(v) for v in (row.get(name, "") for name in names)]
        print(f"| {' | '.join(texts)} |")
    rounds.write("tiny_sweep", rows=rows)


if __name__ == "__main__":
    main()
