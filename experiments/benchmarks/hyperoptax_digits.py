"""`sweep` against hyperoptax 0.2: the sweep of `sweeps`, its speed, the lines it takes, and what is asked in vain.

`python -m experiments.benchmarks.hyperoptax_digits` needs hyperoptax. Both train the same networks from the same seeds,
and are checked to end at the same losses. hyperoptax runs its grid in three ways: `optimize` as in its documentation,
`optimize` of a jitted function, and `optimize_scan` compiled ahead of time as a whole, its fastest; the width of its
batches (`n_parallel`) is the best of `WIDTHS`. Contenders run in turn, ratios are medians over rounds with a 95 %
bootstrap interval. Then everything that `CAN` asks of both is tried, and what happens is told.
"""

import argparse
import functools
import importlib.metadata
import inspect
import tempfile
import time

import hyperoptax
import jax
import jax.numpy as jnp
import numpy as np

import jaxreg as jr
from experiments.benchmarks import rounds
from experiments.benchmarks.small_networks import train
from experiments.data import load

WIDTHS = 8, 32, 128


def with_sweep(rates, strengths, seeds, data):
    """The user's code, ours."""
    runs = jr.sweep(train, jr.grid(lr=rates, lam=strengths, seed=seeds), **data)
    return runs["loss"].values, runs


def with_hyperoptax(rates, strengths, seeds, data, width, wrap=lambda function: function):
    """The user's code, theirs: flat parallel iterations, put into the grid's shape by hand."""

    def objective(key, config):
        seed = config["seed"].astype(jnp.int32)
        return train(config["lr"], config["lam"], seed, **data)["loss"]

    space = {
        "lr": hyperoptax.DiscreteSpace(tuple(rates)),
        "lam": hyperoptax.DiscreteSpace(tuple(strengths)),
        "seed": hyperoptax.DiscreteSpace(tuple(seeds)),
    }
    shape = len(strengths), len(rates), len(seeds)  # a dict's leaves are in alphabetical order
    state, search = hyperoptax.GridSearch.init(space, n_parallel=width)
    _, (_, results) = search.optimize(state, jax.random.key(0), wrap(objective), np.prod(shape) // width)
    return np.swapaxes(np.concatenate(results).reshape(shape), 0, 1)


def scanned(rates, strengths, seeds, data, width):
    """Theirs as one compiled program, and the seconds that compiling takes."""
    values = {"lr": tuple(rates), "lam": tuple(strengths), "seed": tuple(seeds)}
    space = {name: hyperoptax.DiscreteSpace(v) for name, v in values.items()}
    state, search = hyperoptax.GridSearch.init(space, n_parallel=width)
    count = len(rates) * len(strengths) * len(seeds)

    def run(state, key, data):
        def objective(key, config):
            return train(config["lr"], config["lam"], config["seed"].astype(jnp.int32), **data)["loss"]

        return search.optimize_scan(state, key, objective, count // width)[1][1]

    begin, arguments = time.perf_counter(), (state, jax.random.key(0), data)
    program = jax.jit(run).lower(*arguments).compile()
    shape = len(strengths), len(rates), len(seeds)
    compiling = time.perf_counter() - begin
    return lambda: np.swapaxes(np.asarray(program(*arguments)).reshape(shape), 0, 1), compiling


def network(width, scale=1.0):
    """A result whose arrays have the shape that an axis says."""
    return scale * jnp.ones(int(width)).sum()


def theirs(function, at_once=1, **values):
    """A grid of hyperoptax over `function(**config)`."""
    space = {name: hyperoptax.DiscreteSpace(tuple(v)) for name, v in values.items()}
    state, search = hyperoptax.GridSearch.init(space, n_parallel=at_once)
    count = len(state.grid) // at_once
    return search.optimize(state, jax.random.key(0), lambda key, config: function(**config), count)[1][1]


def resumed(sweep):
    """Run a sweep twice on one folder; how many configurations the second call had to compute."""
    with tempfile.TemporaryDirectory() as folder:
        computed = []
        for _ in range(2):
            sweep(folder + "/store", lambda done, total, chunk: computed.append(len(chunk["lam"])))
            first = computed[:]
        return sum(computed) - sum(first)


def shape_of(outputs):
    """The dims of the outputs."""
    return dict(outputs.sizes) if hasattr(outputs, "sizes") else jax.tree.map(np.shape, outputs)


# What is asked: (of us, of hyperoptax), functions of nothing that return what came out.
CAN = {
    "strings as an axis": (
        lambda: (
            jr.sweep(lambda name, lam: lam * len(name), jr.grid(name=["adam", "sgd"], lam=[1.0, 2.0]))["value"].values
        ),
        lambda: theirs(lambda name, lam: lam * len(name), name=["adam", "sgd"], lam=[1.0, 2.0]),
    ),
    "an axis that sets shapes": (
        lambda: jr.sweep(network, jr.grid(width=jr.static([2, 4])))["value"].values,
        lambda: theirs(network, width=[2, 4]),
    ),
    "functions as an axis": (
        lambda: jr.sweep(lambda f, lam: f(lam), jr.grid(f=[jnp.sin, jnp.cos], lam=[0.0]))["value"].values,
        lambda: theirs(lambda f, lam: f(lam), f=[jnp.sin, jnp.cos], lam=[0.0]),
    ),
    "all of 10 configurations, 4 at a time": (
        lambda: jr.sweep(lambda lam: lam, jr.grid(lam=np.arange(10.0)), chunk=4)["value"].size,
        lambda: np.size(theirs(lambda lam: lam, at_once=4, lam=np.arange(10.0))),
    ),
    "the integer 2²⁴ + 1": (
        lambda: jr.sweep(lambda seed, lam: seed, jr.grid(seed=[2**24 + 1], lam=[0.5]))["value"].item(),
        lambda: int(theirs(lambda seed, lam: seed, seed=[2**24 + 1], lam=[0.5])[0][0]),
    ),
    "results by name, and which of them diverged": (
        lambda: jr.sweep(lambda lam: {"loss": jnp.log(lam)}, jr.grid(lam=[0.0, 1.0]))["diverged"].values,
        lambda: theirs(lambda lam: {"loss": jnp.log(lam)}, lam=[0.0, 1.0]),
    ),
    "a second call that goes on from a folder": (
        lambda: resumed(
            lambda store, tell: jr.sweep(lambda lam: lam, jr.grid(lam=[1.0, 2.0]), store=store, callbacks=[tell])
        ),
        lambda: resumed(lambda store, tell: hyperoptax.GridSearch().optimize(None, None, len, 2, store=store)),
    ),
    "every device": (
        lambda: jr.sweep(lambda lam: lam, jr.grid(lam=[1.0, 2.0]), devices=jax.devices())["value"].values,
        lambda: hyperoptax.GridSearch().optimize(None, None, len, 2, devices=jax.devices()),
    ),
    "chunks chosen to fit the memory": (
        lambda: jr.sweep(lambda lam: lam, jr.grid(lam=[1.0, 2.0]), memory=10**6).attrs["chunk"],
        lambda: hyperoptax.GridSearch.init({"lam": hyperoptax.DiscreteSpace((1.0, 2.0))}, memory=10**6),
    ),
    "a configuration that depends on another": (
        lambda: shape_of(
            jr.sweep(
                lambda tx, lr, momentum=0.0: lr * momentum,
                jr.grid(tx=["adam", "sgd"], lr=[0.1, 0.2], momentum=jr.conditional([0.0, 0.9], tx="sgd")),
            )
        ),
        lambda: theirs(lambda tx, lr, momentum=0.0: lr, tx=["adam", "sgd"], lr=[0.1, 0.2], momentum=[0.0, 0.9]),
    ),
}


def attempt(function):
    """What came out, or what went wrong, in one line."""
    try:
        return "returns " + " ".join(str(function()).split())[:60]
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:70]}"


def lines(function):
    """The lines of code of a function, without its signature, docstring, comments and empty lines."""
    source = inspect.getsource(function).split('"""')[2]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in source.splitlines())


def main(argv=None):
    """Print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=8, help="of each of 16 configurations")
    args = parser.parse_args(argv)
    data = load("digits")
    data = {"x": jnp.asarray(data["x_train"]), "y": jnp.asarray(data["y_train"])}
    axes = [float(v) for v in np.geomspace(1e-3, 1e-2, 4)], [1e-4, 1e-3, 1e-2, 1e-1], range(args.seeds)
    count = 16 * args.seeds

    compiling, found = {}, {"sweep, compiling included": lambda: with_sweep(*axes, data)}

    def apart():
        begin = time.perf_counter()
        compiling["sweep"] = with_sweep(*axes, data)[1].attrs["compile_seconds"]
        return time.perf_counter() - begin - compiling["sweep"]

    found["sweep"] = apart
    begin = time.perf_counter()
    losses = with_sweep(*axes, data)[0]
    first = {"sweep": time.perf_counter() - begin}
    for width in [width for width in WIDTHS if width <= count]:
        run, compiling[f"hyperoptax, scan, {width} at once"] = scanned(*axes, data, width)
        np.testing.assert_allclose(run(), losses, rtol=2e-3, atol=2e-5)
        found[f"hyperoptax, scan, {width} at once"] = run
        for name, wrap in {"optimize": lambda f: f, "optimize, jitted": jax.jit}.items():
            run = functools.partial(with_hyperoptax, *axes, data, width, wrap)
            begin = time.perf_counter()
            np.testing.assert_allclose(run(), losses, rtol=2e-3, atol=2e-5)
            first[f"hyperoptax, {name}, {width} at once"] = time.perf_counter() - begin
            found[f"hyperoptax, {name}, {width} at once"] = run
    seconds = rounds.in_turn(found, args.rounds)
    print(f"{count} models, hyperoptax {importlib.metadata.version('hyperoptax')}, {args.rounds} rounds\n")
    print("| contender | models/s | sweep is faster by | compile, s | first call, s |\n|---|---|---|---|---|")
    rows = {}
    for name, times in seconds.items():
        ours = seconds["sweep" if "scan" in name else "sweep, compiling included"]
        ratio, interval = rounds.ratio(times, ours)
        row = {"models/s": count / float(np.median(times)), "ratio": ratio, "interval": interval}
        rows[name] = row | {"compile, s": compiling.get(name), "first call, s": first.get(name)}
        texts = [f"{v:.3g}" if v else "" for v in (compiling.get(name), first.get(name))]
        ratio = f"{ratio:.2f} ({interval[0]:.2f}–{interval[1]:.2f})"
        print(f"| {name} | {row['models/s']:.4g} | {ratio} | {' | '.join(texts)} |")
    code = {"sweep": lines(with_sweep), "hyperoptax": lines(with_hyperoptax)}
    print(f"\nlines of user code: {code}\n\n| asked | `sweep` | hyperoptax |\n|---|---|---|")
    asked = {name: [attempt(function) for function in both] for name, both in CAN.items()}
    for name, both in asked.items():
        print(f"| {name} | {both[0]} | {both[1]} |")
    rounds.write("hyperoptax_digits", models=count, rounds=args.rounds, rows=rows, lines=code, asked=asked)


if __name__ == "__main__":
    main()
