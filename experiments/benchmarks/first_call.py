"""First calls in fresh processes: seconds, programs, and multiples of a cold FISTA, without and with a warm cache.

`python -m experiments.benchmarks.first_call --rounds 5 --write`. Each call has a process of its own, and so has
scikit-learn's call for the same problem. The warm cache is JAX's own, in a folder that a first process fills with the
programs of the call, never with the reference.
"""

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxreg as jr
from experiments.benchmarks.rounds import machine
from jaxreg.convex import Logistic, Multinomial, Poisson, Squared
from jaxreg.penalties import Separable, noun, static

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "RESULTS.md"
TITLE = "## First calls"
COMPILED = "/jax/core/compile/backend_compile_duration"  # recorded where a program is loaded from the cache, too
WARM = 0.3  # seconds that every entry may take with a warm cache, and half of its references
BUDGETS = {  # entry -> references and programs that its first call may take
    "lasso solve": (1.5, 2),
    "lasso path": (1.5, 2),
    "elastic net solve": (2, 3),
    "ridge solve": (0.3, 1),
    "logistic solve": (3, 3),
    "logistic path": (4, 4),
    "logistic cross-validation": (5, 5),
    "multinomial solve": (4, 3),
}


class Data(NamedTuple):
    """X with numbers and B with labels 0 and 1, both (n, features)."""

    X: np.ndarray
    y: np.ndarray
    B: np.ndarray
    label: np.ndarray


def real() -> Data:
    """The diabetes data, and the breast cancer data with standardized columns."""
    from sklearn.datasets import load_breast_cancer, load_diabetes

    B, label = load_breast_cancer(return_X_y=True)
    return Data(*load_diabetes(return_X_y=True), (B - B.mean(0)) / B.std(0), label)


@noun
class Berhu(Separable):
    """A user's own penalty: λ|x| up to 1, λ(x² + 1)/2 beyond."""

    lam: jax.typing.ArrayLike
    axis: tuple[int, ...] | None = static(default=None)

    def cost(self, x, lam):
        """λ|x| or λ(x² + 1)/2."""
        size = jnp.where(x == 0, 0, jnp.abs(x))
        return lam * jnp.where(size <= 1, size, (jnp.square(x) + 1) / 2)

    def shrink(self, x, step, lam):
        """The soft threshold for small x, a share of large ones."""
        soft = jnp.sign(x) * jnp.maximum(jnp.abs(x) - step * lam, 0)
        return jnp.where(jnp.abs(x) <= 1 + step * lam, soft, x / (1 + step * lam))

    def kink(self, x):
        """1."""
        return 1.0


def calls(data: Data) -> dict:
    """{entry: its call of jaxreg}."""
    X, y, B, label = data
    solve, path, fit = jr.convex.solve, jr.convex.path, jr.convex.fit
    train, test = slice(0, len(y) * 3 // 4), slice(len(y) * 3 // 4, None)

    def error(X, y):
        return lambda coef, intercept: jnp.mean((X @ coef + intercept - y) ** 2)

    def validated(datafit, penalty, X, y):
        loss = jax.jit(error(X[test], y[test]))  # it is the user's to compile
        return jr.convex.hypergradient(loss, datafit, penalty, X[train], y[train])

    def ridge(penalty):
        return error(X[test], y[test])(*fit(Squared(), penalty, X[train], y[train]))

    return {
        "lasso solve": lambda: solve(Squared(), jr.L1(0.1), X, y),
        "lasso path": lambda: path(Squared(), jr.L1(1.0), X, y),
        "elastic net solve": lambda: solve(Squared(), jr.ElasticNet(0.1, 0.5), X, y),
        "ridge solve": lambda: solve(Squared(), jr.SquaredL2(0.1), X, y),
        "logistic solve": lambda: solve(Logistic(), jr.L1(0.01), B, label),
        "logistic path": lambda: path(Logistic(), jr.L1(1.0), B, label),
        "logistic cross-validation": lambda: jr.convex.cross_validate(
            Logistic(), jr.L1(1.0), B, label, num=50, folds=10
        ),
        "multinomial solve": lambda: solve(Multinomial(), jr.L1(0.01), X, np.digitize(y, [100, 200])),
        "MCP, squared": lambda: solve(Squared(), jr.MCP(0.1, 3.0), X, y),
        "MCP, logistic": lambda: solve(Logistic(), jr.MCP(0.01, 3.0), B, label),
        "multi-task lasso": lambda: solve(Squared(), jr.GroupL2(0.1, axis=1), X, np.stack([y, y[::-1]], 1)),
        "a user's penalty": lambda: solve(Squared(), Berhu(0.1), X, y),
        "Poisson": lambda: solve(Poisson(), jr.L1(0.1), X, y),
        "fit, squared": lambda: fit(Squared(), jr.L1(0.1), X, y),
        "fit, logistic": lambda: fit(Logistic(), jr.L1(0.01), B, label),
        "hypergradient, squared": lambda: validated(Squared(), jr.L1(0.1), X, y),
        "hypergradient, logistic": lambda: validated(Logistic(), jr.L1(0.01), B, label),
        "tune a ridge, 5 steps": lambda: jr.tune(ridge, jr.SquaredL2(0.1), steps=5),
    }


def peers(data: Data) -> dict:
    """{entry: scikit-learn's call for the same problem}; liblinear penalizes the intercept too, the others do not."""
    from sklearn import linear_model as sk

    X, y, B, label = data
    logistic = {"C": 1 / (0.01 * len(B)), "l1_ratio": 1.0, "solver": "saga", "max_iter": 10_000}
    kinds, multinomial = np.digitize(y, [100, 200]), {**logistic, "C": 1 / (0.01 * len(X))}
    strengths = np.max(np.abs(B.T @ (label - label.mean())), initial=0) * np.geomspace(1, 1e-3, 50)  # n times jaxreg's
    cross = {"Cs": 1 / strengths, "cv": 10, "l1_ratios": (1.0,), "solver": "liblinear", "scoring": "neg_log_loss"}
    return {
        "lasso solve": lambda: sk.Lasso(0.1).fit(X, y).coef_,
        "lasso path": lambda: sk.lasso_path(X, y - y.mean()),
        "elastic net solve": lambda: sk.ElasticNet(alpha=0.1, l1_ratio=0.5).fit(X, y).coef_,
        "ridge solve": lambda: sk.Ridge(0.1 * len(X)).fit(X, y).coef_,
        "logistic solve": lambda: sk.LogisticRegression(**logistic).fit(B, label).coef_,
        "logistic cross-validation": lambda: (
            sk.LogisticRegressionCV(**cross, use_legacy_attributes=False).fit(B, label).coef_
        ),
        "multinomial solve": lambda: sk.LogisticRegression(**multinomial).fit(X, kinds).coef_,
        "multi-task lasso": lambda: sk.MultiTaskLasso(0.1).fit(X, np.stack([y, y[::-1]], 1)).coef_,
    }


@jax.jit
def fista(X, y, lam):
    """1000 plain steps: the reference."""
    L = jnp.linalg.norm(X) ** 2 / len(y)

    def body(s):
        w, z, t, k = s
        v = z - X.T @ (X @ z - y) / len(y) / L
        new, u = jnp.sign(v) * jnp.maximum(jnp.abs(v) - lam / L, 0), (1 + jnp.sqrt(1 + 4 * t * t)) / 2
        return new, new + (t - 1) / u * (new - w), u, k + 1

    go_on = lambda s: (s[3] < 1000) & (jnp.max(jnp.abs(s[0] - s[1])) >= 0)  # noqa: E731
    start = jnp.zeros(X.shape[1], X.dtype)
    return jax.lax.while_loop(go_on, body, (start, start, jnp.ones((), X.dtype), 0))[0]


def counted() -> list[float]:
    """A list that gets the seconds of each program that is compiled, or loaded from the cache, from now on."""
    compiled = []

    def listen(event, duration, **_):
        if event == COMPILED:
            compiled.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return compiled


def seconds(call) -> float:
    """Wall clock of one call, until its arrays are there."""
    begin = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - begin


def child(name: str, peer: bool, cache: str | None) -> dict[str, float]:
    """The numbers of the first calls in this process: of the reference and jaxreg, or of scikit-learn."""
    data = real()
    if peer:
        warnings.simplefilter("ignore")  # scikit-learn warns where it stops at `max_iter`
        return {"first": seconds(peers(data)[name])}
    compiled, call = counted(), calls(data)[name]
    if cache is not None:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)  # so that the reference is not kept
    with jax.enable_x64(True):
        reference = seconds(lambda: fista(jnp.asarray(data.X), jnp.asarray(data.y), 0.1))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    compiled.clear()
    numbers = {"first": seconds(call), "reference": reference}
    numbers |= {"programs": len(compiled), "compiling": sum(compiled)}
    return numbers | {"second": seconds(call)}


def started(name: str, *options: str) -> dict[str, float]:
    """The numbers of `child` in a new process."""
    command = [sys.executable, "-m", "experiments.benchmarks.first_call", "--entry", name, *options]
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(names: list[str], rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """{entry: {"no cache", "warm cache" and "scikit-learn": medians of their numbers}} over interleaved rounds."""
    runs, with_peer = {name: {} for name in names}, peers(real())
    with tempfile.TemporaryDirectory() as folder:
        for i in range(rounds):
            for name, ways in runs.items():
                cache = str(Path(folder, name.replace(" ", "_")))
                if i == 0:
                    started(name, "--cache", cache)
                ways.setdefault("no cache", []).append(started(name))
                ways.setdefault("warm cache", []).append(started(name, "--cache", cache))
                if name in with_peer:
                    ways.setdefault("scikit-learn", []).append(started(name, "--peer"))
    medians = lambda runs: {key: float(np.median([run[key] for run in runs])) for key in runs[0]}  # noqa: E731
    return {name: {way: medians(runs) for way, runs in ways.items()} for name, ways in runs.items()}


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """The medians as a Markdown table, with the budgets in brackets."""
    head = "first call|s|references|programs|compiling, s|warm cache, s|references|second call, s|scikit-learn, s"
    lines = [head.split("|"), ["---"] * 9]
    for name, ways in found.items():
        cold, warm, peer = ways["no cache"], ways["warm cache"], ways.get("scikit-learn")
        most, programs = BUDGETS.get(name, (None, None))
        limits = [f" ({most})", f" ({programs})", f" ({most / 2:g})"] if most else [""] * 3
        line = [name, f"{cold['first']:.2f}", f"{cold['first'] / cold['reference']:.1f}{limits[0]}"]
        line += [f"{cold['programs']:.0f}{limits[1]}", f"{cold['compiling']:.2f}", f"{warm['first']:.2f} ({WARM})"]
        line += [f"{warm['first'] / warm['reference']:.1f}{limits[2]}", f"{cold['second']:.3f}"]
        lines.append([*line, f"{peer['first']:.3f}" if peer else ""])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def section(found: dict[str, dict[str, dict[str, float]]], rounds: int) -> str:
    """The table under its title, with the command, the machine and the versions."""
    about = machine()
    references = [ways[way]["reference"] for ways in found.values() for way in ("no cache", "warm cache")]
    text = (
        f"`python -m experiments.benchmarks.first_call --rounds {rounds}`, {about['date']}: {about['cpu']}, "
        f"{about['cores']} cores, CPU only; Python {about['python']}, JAX {about['jax']}, NumPy {about['numpy']}, "
        f"scikit-learn {importlib.metadata.version('scikit-learn')}. Each call has a process of its own; medians of "
        f"{rounds} interleaved rounds, budgets in brackets. A reference is 1000 steps of FISTA, compiled and run in "
        f"the same process: {min(references):.2f} to {max(references):.2f} s. The warm cache is JAX's persistent one. "
        "scikit-learn's call is a first one too, at its default tolerance."
    )
    return f"{TITLE}\n\n{text}\n\n{table(found)}\n"


def write(text: str, file: Path = RESULTS) -> None:
    """Put the section in the place of the one of the same title, or at the end."""
    before, _, after = file.read_text().partition(f"\n{TITLE}\n")
    _, heading, rest = after.partition("\n## ")
    file.write_text(f"{before.rstrip()}\n\n{text}{heading}{rest}")


def main(argv=None) -> None:
    """Run the rounds and print the table; with --entry, the numbers of one call in this process."""
    names = list(calls(Data(*[np.zeros((0, 0))] * 4)))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="ENTRY", help="these entries")
    parser.add_argument("--write", action="store_true", help=f"put the table into {RESULTS.name}")
    parser.add_argument("--entry", choices=names, help="make this call here")
    parser.add_argument("--peer", action="store_true", help="with --entry: scikit-learn's call")
    parser.add_argument("--cache", help="with --entry: the folder of JAX's persistent cache")
    args = parser.parse_args(argv)
    if args.entry:
        print(json.dumps(child(args.entry, args.peer, args.cache)))
        return
    text = section(measured(args.only, args.rounds), args.rounds)
    print(text)
    if args.write:
        write(text)


if __name__ == "__main__":
    main()
