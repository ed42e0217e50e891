"""Cross-validation of the elastic net, and many targets: `jr.convex` against scikit-learn.

`python -m experiments.benchmarks.convex_cross_validation --peers PYTHON` prints a table and writes it to
`experiments/results/`. 5 folds of neighbours × 100 strengths × 3 shares of ℓ1, and the refit at the best; every path
certified to a relative gap of 1e-4 on the rows it is fitted to. scikit-learn's own tolerance is the loosest, in steps
of √10, at which `convex_problems.gap` says so of the same calls outside of `ElasticNetCV`; of jaxreg it is what
`cross_validate` was asked for, its own certificates of the folds are shown, and its fits to all rows are judged: it
fits all 300, scikit-learn the best. "Apart" is the largest difference of an error from those of the first row.

Then 100 targets on one X, 100 strengths, one grid for all: scikit-learn target after target on one Gram matrix, jaxreg
in one call, each target judged by itself.

Contenders run in rotation, compiled before; a ratio above 1 says that jaxreg is as many times as fast. `--devices K`
makes K JAX devices of the host.
"""

import argparse
import functools

import numpy as np

from experiments.benchmarks import convex_contenders as contenders
from experiments.benchmarks import convex_problems, rounds

RATIOS = 0.5, 0.9, 1.0
PROBLEMS = "n = 5000, p = 200", "diabetes with interactions"
FOLDS, TARGETS = 5, 100


def splits(n):
    """(n,): the fold in which each row is held out, neighbours together, as scikit-learn's `KFold` has them."""
    return np.concatenate([np.full(len(part), k) for k, part in enumerate(np.array_split(np.arange(n), FOLDS))])


def largest_gap(problem, fold, coefs):
    """Of paths (folds, ratios, strengths, features), each on the rows it was fitted to."""
    gaps = []
    for k, of_fold in enumerate(coefs):
        X, y = problem.X[fold != k], problem.y[fold != k]
        for l1_ratio, w in zip(RATIOS, of_fold, strict=True):
            lams = convex_problems.grid(problem.X, problem.y, l1_ratio)
            gaps.append(convex_problems.gap(X, y, w, y.mean() - w @ X.mean(0), lams, l1_ratio).max())
    return max(gaps)


def refits(problem, data):
    """The largest gap, judged, of the fits to all rows, which `cross_validate` returns for every strength."""
    gaps = []
    for l1_ratio in RATIOS:
        one = data.isel(config=np.flatnonzero(data["l1_ratio"].values == l1_ratio))
        w, b = one["coef"].transpose("config", ...).values.astype(float), one["intercept"].values.astype(float)
        gaps.append(convex_problems.gap(problem.X, problem.y, w, b, one["lam"].values, l1_ratio).max())
    return float(max(gaps))


def ours(X, y, fold, tol):
    """`cross_validate`, its data set."""
    import jaxreg as jr

    pairs = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS)]
    penalty = jr.ElasticNet(1.0, RATIOS[0])
    return jr.convex.cross_validate(jr.convex.Squared(), penalty, X, y, folds=pairs, l1_ratios=RATIOS, tol=tol)


def cross_validation(name, problem, peers, tol, number, budget, jaxreg):
    """The rows of a problem."""
    fold, rows, runs = splits(len(problem.y)), {}, {}
    curves = {}
    if peers:
        file = peers.write(f"{name}, folds", **problem._asdict(), fold=fold)
        ask = functools.partial(peers.ask, problem=file, l1_ratios=RATIOS)

        def paths(own):
            reply = ask(contender="folds", tol=own, keep=True)
            return reply["seconds"], reply["coefs"]

        found = contenders.calibrate(paths, functools.partial(largest_gap, problem, fold), tol, tol / 2)
        for jobs in (1, 2):
            who = f"ElasticNetCV, n_jobs={jobs}"
            reply = ask(contender="ElasticNetCV", tol=found["own"], jobs=jobs, keep=True)
            rows[who] = {"own": found["own"], "gap": found["gap"], "chosen": (reply["l1_ratio"], reply["lam"])}
            curves[who] = reply["coefs"].mean(-1)
            runs[who] = lambda jobs=jobs: ask(contender="ElasticNetCV", tol=found["own"], jobs=jobs)["seconds"]
    if jaxreg:
        for who, dtype in (("jaxreg", np.float64), ("jaxreg, float32", np.float32)):
            call = functools.partial(ours, np.ascontiguousarray(problem.X, dtype), problem.y.astype(dtype), fold, tol)
            first, data = contenders.timed(call)
            curves[who] = data["error"].transpose("config", "fold").values.mean(-1).reshape(len(RATIOS), -1)
            best = data.isel(config=int(curves[who].argmin()))
            rows[who] = {"own": tol, "gap": float(data["certificate"].max()), "first call": first}
            rows[who] |= {"chosen": (float(best["l1_ratio"]), float(best["lam"])), "refits": refits(problem, data)}
            runs[who] = lambda call=call: contenders.timed(call)[0]
    seconds = in_rounds(runs, number, budget)
    for who, times in seconds.items():
        rows[who]["seconds"] = times.tolist()
        rows[who]["apart"] = float(np.abs(curves[who] / curves[next(iter(curves))] - 1).max())
    for of in [who for who in seconds if who.startswith("jaxreg")]:
        for who, (median, interval) in contenders.against(seconds, of).items():
            rows[who].setdefault("ratios", {})[of] = {"ratio": median, "interval": interval}
    return rows


def in_rounds(runs, number, budget):
    """Seconds of each round, after a first to compile and to see how many there can be."""
    once = sum(run() for run in runs.values())
    return contenders.in_rotation(runs, contenders.how_many(once, number, budget))


def many_targets(peers, tol, number, budget, jaxreg, n=5000, p=200):
    """The rows for 100 targets."""
    X, Y = convex_problems.correlated(n, p, p // 5, targets=TARGETS)
    X, Y = np.asfortranarray((X - X.mean(0)) / X.std(0)), Y / Y.std(0)
    lams = np.max([convex_problems.grid(X, y) for y in Y.T], 0)
    rows, runs = {}, {}

    def judge(solution):  # (targets, strengths, features), (targets, strengths)
        return max(convex_problems.gap(X, y, w, b, lams).max() for y, w, b in zip(Y.T, *solution, strict=True))

    def theirs(own, keep=True):
        reply = peers.ask(contender="targets", problem=file, tol=own, keep=keep)
        if not keep:
            return reply["seconds"]
        return reply["seconds"], (reply["coefs"], Y.mean(0)[:, None] - reply["coefs"] @ X.mean(0))

    def call(dtype, own):
        import jaxreg as jr

        x, y = np.ascontiguousarray(X, dtype), Y.astype(dtype)
        seconds, found = contenders.timed(
            lambda: jr.convex.path(jr.convex.Squared(), jr.L1(1.0), x, y, lams=lams, tol=own)
        )
        coefs = found["coef"].transpose("target", "lam", "feature").values.astype(float)
        return seconds, (coefs, found["intercept"].transpose("target", "lam").values.astype(float))

    if peers:
        file = peers.write("targets", X=X, y=Y, lams=lams)
        rows["scikit-learn, one by one"] = contenders.calibrate(theirs, judge, tol, tol / 2)
        runs["scikit-learn, one by one"] = functools.partial(theirs, keep=False)
    if jaxreg:
        for who, dtype in (("jaxreg", np.float64), ("jaxreg, float32", np.float32)):
            rows[who] = contenders.calibrate(functools.partial(call, dtype), judge, tol, tol, loosen=False)
            runs[who] = lambda own, dtype=dtype: call(dtype, own)[0]
    rows = {who: {k: v for k, v in row.items() if k != "solution"} for who, row in rows.items()}
    runs = {who: functools.partial(run, rows[who]["own"]) for who, run in runs.items() if rows[who]["own"]}
    seconds = in_rounds(runs, number, budget)
    for who, times in seconds.items():
        rows[who]["seconds"] = times.tolist()
    for of in [who for who in seconds if who.startswith("jaxreg")]:
        for who, (median, interval) in contenders.against(seconds, of).items():
            rows[who].setdefault("ratios", {})[of] = {"ratio": median, "interval": interval}
    return rows


def show(name, rows):
    """Print what was found."""
    print(f"\n{name}\n\n| contender | seconds | gap | refits | own | apart | share, λ | / jaxreg | / float32 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for who, row in rows.items():
        if row["own"] is None:
            print(f"| {who} | – | | | | | | | |")
            continue
        ratios = []
        for of in ("jaxreg", "jaxreg, float32"):
            one = row.get("ratios", {}).get(of)
            ratios.append(f"{one['ratio']:.2f} ({one['interval'][0]:.2f}–{one['interval'][1]:.2f})" if one else "")
        chosen = "{:g}, {:.4g}".format(*row["chosen"]) if "chosen" in row else ""
        apart, refit = (f"{row[key]:.0e}" if key in row else "" for key in ("apart", "refits"))
        found = f"{row['gap']:.1e} | {refit} | {row['own']:.1e} | {apart}"
        print(f"| {who} | {np.median(row['seconds']):.4f} | {found} | {chosen} | {' | '.join(ratios)} |", flush=True)


def main(argv=None):
    """Print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="*", default=PROBLEMS)
    parser.add_argument("--tol", type=float, default=1e-4)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--budget", type=float, default=300.0, help="seconds of rounds; under it at least 10 are run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--devices", type=int, default=1, help="that JAX makes of the host")
    parser.add_argument("--peers", help="an interpreter with scikit-learn")
    parser.add_argument("--without", choices=["jaxreg", "targets"], nargs="*", default=[])
    parser.add_argument("--name", default="convex_cross_validation", help="of the results' file")
    args = parser.parse_args(argv)
    contenders.limit(args.threads)
    jaxreg = "jaxreg" not in args.without
    if jaxreg:
        import jax

        jax.config.update("jax_num_cpu_devices", args.devices)
    peers = contenders.Peers(args.peers, 600.0) if args.peers else None
    about = {"threads": args.threads, "devices": args.devices, "peers": peers and peers.about, "tol": args.tol}
    options, table = (args.tol, args.rounds, args.budget, jaxreg), {}
    for name, problem in convex_problems.problems(args.problems).items():
        show(name, rows := cross_validation(name, problem, peers, *options))
        table[name] = rows
        rounds.write(args.name, **about, table=table)
    if "targets" not in args.without:
        table["targets"] = many_targets(peers, *options)
        show(f"{TARGETS} targets", table["targets"])
        rounds.write(args.name, **about, table=table)
    if peers:
        peers.stop()


if __name__ == "__main__":
    main()
