"""Seconds of the first calls of `path` in a fresh process, for `convex_paths`: a line of JSON.

`python -m experiments.benchmarks.convex_cold PROBLEM.npz TOL --cache FOLDER`; "import" is that of jaxreg with JAX,
"device" what JAX takes to begin, "first" the first call, "second" that on other data of the same shape: rows drawn
with replacement; "…, CPU" the processor's seconds, of all threads, which other work on the machine hardly changes.
"""

import argparse
import json
import time

import numpy as np


def main(argv=None):
    """Print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("problem")
    parser.add_argument("tol", type=float)
    parser.add_argument("--cache", help="folder of JAX's persistent compilation cache")
    args = parser.parse_args(argv)
    with np.load(args.problem) as file:
        X, y, lams = np.ascontiguousarray(file["X"]), file["y"], file["lams"]
    rows = np.random.default_rng(0).integers(len(y), size=len(y))
    marks = []

    def mark(result=None):
        marks.append((time.perf_counter(), time.process_time()))
        return result

    mark()

    import jax

    import jaxreg as jr

    path, squared, penalty = jr.convex.path, jr.convex.Squared(), jr.L1(1.0)
    if args.cache:
        jax.config.update("jax_compilation_cache_dir", args.cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    mark()
    mark(jax.numpy.zeros(()).block_until_ready())
    mark(path(squared, penalty, X, y, lams=lams, tol=args.tol))
    X, y = X[rows], y[rows]
    mark()
    mark(path(squared, penalty, X, y, lams=lams, tol=args.tol))
    names = "import", "device", "first", "resampling", "second"
    wall, busy = np.diff(marks, axis=0).T.tolist()
    found = dict(zip(names, wall, strict=True)) | {f"{k}, CPU": s for k, s in zip(names, busy, strict=True)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
