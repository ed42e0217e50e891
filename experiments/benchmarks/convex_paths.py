"""Lasso paths of 100 strengths, certified: `jr.convex.path` against scikit-learn, celer, skglm and adelie.

`python -m experiments.benchmarks.convex_paths --peers PYTHON` prints a table a problem and writes them to
`experiments/results/`; PYTHON is an interpreter with these libraries. Everyone solves the same problems
(`convex_problems`) on the same strengths in float64 with the same number of threads. As contenders stop on different
criteria, each is first given the loosest tolerance of its own, in steps of √10, by which the largest relative duality
gap of the path, judged by `convex_problems.gap`, is at most 1e-4, or 1e-6; one that does not get there in a minute has
a dash. jaxreg is asked for 1e-4, or 1e-6. "Suboptimal" is the largest true (P − P*)/P(0) there, P* being the least
objective that anyone found.

Contenders run in rotation, compiled before. Where a library has several ways (with or without a Gram matrix, ...), all
run, and the fastest counts. They get X and y in memory as they like them best, columns centred: none but jaxreg and
its judge fits an intercept. A ratio above 1 says that jaxreg is as many times as fast: the median over rounds with its
95 % bootstrap interval. `--guesses RESULTS.json` begins from the tolerances of an earlier run.
"""

import argparse
import contextlib
import functools
import json
from pathlib import Path

import numpy as np

from experiments.benchmarks import convex_contenders as contenders
from experiments.benchmarks import convex_problems, rounds
from experiments.benchmarks.convex_contenders import NotReached

PEERS = {  # own tolerance to begin with, of the one to reach
    "scikit-learn": 0.5,
    "scikit-learn, Gram matrix": 0.5,
    "scikit-learn, Gram matrix, unchecked": 0.5,
    "celer": 0.1,
    "celer, pruning": 0.1,
    "skglm": 3.0,
    "skglm, from 100": 3.0,
    "adelie": 1e-4,
    "adelie, Gram matrix": 1e-3,
}
OURS = "jaxreg"


def ours(problem, tol, **options):
    """(seconds, (coefs, intercepts)) of `path`."""
    import jaxreg as jr

    X, y, lams = problem
    call = functools.partial(jr.convex.path, jr.convex.Squared(), jr.L1(1.0), X, y, lams=lams, tol=tol, **options)
    seconds, found = contenders.timed(call)
    coefs, intercepts = found["coef"].transpose("lam", ...).values, found["intercept"].values
    if not options.get("fit_intercept", True):
        intercepts = np.zeros(len(lams))
    return seconds, (coefs, intercepts)


def theirs(peers, file, problem, contender, tol, keep=True, seconds=None):
    """The same of a peer."""
    reply = peers.ask(contender=contender, problem=file, tol=tol, keep=keep, seconds=seconds)
    if not keep:
        return reply["seconds"], None
    return reply["seconds"], (reply["coefs"], problem.y.mean() - reply["coefs"] @ problem.X.mean(0))


def runners(problem, peers, file, jaxreg):
    """{contender: own tolerance -> (seconds, solution)}, and where to begin."""
    found, guesses = {}, {}
    if jaxreg:
        rows = problem._replace(X=np.ascontiguousarray(problem.X))
        found[OURS], guesses[OURS] = functools.partial(ours, rows), 1.0
    if peers:
        for name, guess in PEERS.items():
            tall = problem.X.shape[0] > problem.X.shape[1]  # or a Gram matrix is no help
            if name not in peers.about["missing"] and (tall or "Gram" not in name):
                found[name], guesses[name] = functools.partial(theirs, peers, file, problem, name), guess
    return found, guesses


def measure(name, problem, tols, peers, number, budget, guesses=None, jaxreg=True):
    """The rows of a problem: {tol: {contender: row}}."""
    file = peers and peers.write(name, **problem._asdict())
    runs, begin = runners(problem, peers, file, jaxreg)
    calibrated, objectives = {}, []
    objective = lambda w: convex_problems.objective(problem.X, problem.y, *w, problem.lams)  # noqa: E731
    judge = lambda w: convex_problems.gap(problem.X, problem.y, *w, problem.lams).max()  # noqa: E731
    for tol in tols:
        for who, run in runs.items():
            known = (guesses or {}).get(f"{tol:g}", {}).get(who, {"own": None})["own"] or begin[who] * tol
            if who == OURS:
                run(known)  # compiles
            one = contenders.calibrate(run, judge, tol, known, loosen=who != OURS)
            if one["own"] is not None:
                one["objective"] = objective(one["solution"])
                objectives.append(one["objective"])
            print(f"  {who}, {tol:g}: own tolerance {one['own']}, {one['seconds']} s", flush=True)
            calibrated[tol, who] = {key: value for key, value in one.items() if key != "solution"}
    for who in runs:  # as well as they can
        with contextlib.suppress(NotReached):
            own = calibrated.get((min(tols), who), {"own": None})["own"]
            if own is not None:
                objectives.append(objective(runs[who](own / 100)[1]))
    least, table = np.min(objectives, 0), {}
    for tol in tols:
        table[f"{tol:g}"] = rows = {who: dict(row) for (t, who), row in calibrated.items() if t == tol}
        timed = {}
        for who, row in rows.items():
            if row["own"] is not None:
                apart = (row.pop("objective") - least) / convex_problems.null_objective(problem.y)
                row["suboptimal"] = float(apart.max())
                options = {} if who == OURS else {"keep": False, "seconds": 600.0}
                timed[who] = lambda who=who, own=row["own"], o=options: runs[who](own, **o)[0]
        together = sum(rows[who]["seconds"] for who in timed)
        seconds = contenders.in_rotation(timed, contenders.how_many(together, number, budget))
        for who, times in seconds.items():
            rows[who]["seconds"] = times.tolist()
        if OURS in seconds:
            for who, (median, interval) in contenders.against(seconds, OURS).items():
                rows[who] |= {"ratio": median, "interval": interval}
        show(name, problem, tol, rows)
    return table


def show(name, problem, tol, rows):
    """Print what was found."""
    print(f"\n{name}, {problem.X.shape[0]} × {problem.X.shape[1]}, relative gap ≤ {tol:g}\n")
    print(
        "| contender | seconds | ratio | interval | gap | suboptimal | own tolerance |\n|---|---|---|---|---|---|---|"
    )
    for who, row in rows.items():
        if row["own"] is None:
            print(f"| {who} | – ({row.get('why', 'tried ' + str(len(row['tried'])))}) | | | | | |")
            continue
        low, high = row.get("interval", (np.nan, np.nan))
        print(
            f"| {who} | {np.median(row['seconds']):.4f} | {row.get('ratio', np.nan):.2f} | {low:.2f}–{high:.2f} "
            f"| {row['gap']:.1e} | {row['suboptimal']:.1e} | {row['own']:.1e} |",
            flush=True,
        )


def first_calls(name, problem, tols):
    """Compile time: the first call in a fresh process; printed."""
    found = {}
    with contenders.tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "problem.npz")
        np.savez(file, **problem._asdict())
        for tol in tols:
            found[f"{tol:g}"] = contenders.cold(file, tol)
    print(f"\n{name}: seconds in a fresh process\n")
    print("| tol | cache | import | device | first call | of the processor | second, new data |")
    print("|---|---|---|---|---|---|---|")
    for tol, caches in found.items():
        for cache, s in caches.items():
            cells = (f"{s[key]:.3f}" for key in ("import", "device", "first", "first, CPU", "second"))
            print(f"| {tol} | {cache} | {' | '.join(cells)} |")
    return found


def main(argv=None):
    """Print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="+", default=list(convex_problems.PROBLEMS))
    parser.add_argument("--tol", type=float, nargs="+", default=[1e-4, 1e-6])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--budget", type=float, default=300.0, help="seconds of rounds; under it at least 10 are run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", help="an interpreter with scikit-learn, celer, skglm and adelie")
    parser.add_argument("--guesses", type=Path, help="an earlier run's results")
    parser.add_argument("--without", choices=["jaxreg", "first-calls"], nargs="*", default=[])
    parser.add_argument("--name", default="convex_paths", help="of the results' file")
    args = parser.parse_args(argv)
    contenders.limit(args.threads)
    known = json.loads(args.guesses.read_text())["table"] if args.guesses else {}
    peers = contenders.Peers(args.peers) if args.peers else None
    table, cold = {}, {}
    about = {"threads": args.threads, "peers": peers and peers.about}
    for name, problem in convex_problems.problems(args.problems).items():
        jaxreg = "jaxreg" not in args.without
        table[name] = measure(name, problem, args.tol, peers, args.rounds, args.budget, known.get(name), jaxreg)
        if jaxreg and "first-calls" not in args.without:
            cold[name] = first_calls(name, problem, args.tol)
        rounds.write(args.name, **about, table=table, first_calls=cold)
    if peers:
        peers.stop()


if __name__ == "__main__":
    main()
