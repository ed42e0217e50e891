"""Many small networks at once: `sweep` against loops, scans by hand, PyTorch, and the machine's own products.

`python -m experiments.benchmarks.sweeps --torch PYTHON` trains K networks, 64-64-10 with ReLU, on scikit-learn's digits
with AdamW, 200 steps of batches of 64, each with its own learning rate, λ and seed; prints one table and writes it to
`experiments/results/`. PYTHON is an interpreter with torch; without it those rows are missing. All in float32.
Contenders run in turn; a figure is the median over rounds in thousand steps of one model a second, a ratio the median
of the rounds' ratios with its 95 % bootstrap interval. A run of `sweep` is timed whole, its own choice of a chunk, the
writing of results and all but its `compile_seconds`; compiling is in a column of its own.

The ceiling is the products that these steps need, alone, batched over models in a scan: two forward, two for the
gradients of the weights, one for that of the hidden layer. It is the fastest of those in one program and in as many
programs at once as there are cores, in any of the chunks. "With the sixth" adds the product for the gradient of the
inputs, which no training step computes, and which is in other counts of floating-point operations.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import rounds
from experiments.benchmarks import small_networks as networks
from experiments.benchmarks.sweep_contenders import CORES, ByHand, Loop, Sweep, Torch
from experiments.data import load

CHUNKS = 16, 32, 64, 128
SLOW = 128  # models at most for the contenders that take long


def contenders(count, fixed, torch):
    """{name: function of nothing} for `count` models."""
    arguments, seeds = networks.configurations(count), {"seed": np.arange(count, dtype=np.float32)}
    chunks = [chunk for chunk in CHUNKS if chunk <= count] or [count]
    found = {}
    if count <= SLOW:
        if torch:
            for name in ("eager", "eager, fused", "eager, fused, one thread", "stacked"):
                found[f"PyTorch, {name}"] = functools.partial(torch.ask, name, arguments)
        found["loop, compiled step"] = Loop(arguments, fixed, by_step=True)
        found["loop, compiled scan"] = Loop(arguments, fixed)
    if torch and count <= 512:
        found["products by torch.bmm"] = functools.partial(torch.ask, "products", arguments)
    for chunk in sorted({*chunks, count} if count <= 512 else {*chunks}):
        if chunk % jax.device_count() == 0:
            found[f"by hand, chunks of {chunk}"] = ByHand(networks.train, arguments, fixed, chunk)
            if chunk == count or chunk == 32:
                name = f"by hand, shared batches, chunks of {chunk}"
                found[name] = ByHand(networks.train_on_shared, arguments, fixed, chunk)
            if count <= 512:
                found[f"products, chunks of {chunk}"] = ByHand(networks.products, seeds, {}, chunk)
                sixth = functools.partial(networks.products, sixth=True)
                found[f"with the sixth, chunks of {chunk}"] = ByHand(sixth, seeds, {}, chunk)
        if jax.device_count() == 1 and count // chunk >= CORES:
            found[f"by hand, a thread a core, chunks of {chunk}"] = ByHand(
                networks.train, arguments, fixed, chunk, CORES
            )
            if count <= 512:
                found[f"products, a thread a core, chunks of {chunk}"] = ByHand(
                    networks.products, seeds, {}, chunk, CORES
                )
                name = f"with the sixth, a thread a core, chunks of {chunk}"
                found[name] = ByHand(functools.partial(networks.products, sixth=True), seeds, {}, chunk, CORES)
    found["sweep"] = Sweep(arguments, fixed)
    found["sweep, store and progress"] = Sweep(arguments, fixed, store=True)
    if count > 32:
        found["sweep, chunks of 32"] = Sweep(arguments, fixed, 32)
        found["sweep, chunks of 32, store and progress"] = Sweep(arguments, fixed, 32, store=True)
    return found


def check(found):
    """Every contender in this process trains the same models."""
    losses = {}
    for name, run in found.items():
        if isinstance(run, (ByHand, Loop)) and "shared" not in name and name.startswith(("by hand", "loop")):
            losses[name] = np.concatenate([np.atleast_1d(part["loss"]) for part in run()])
        elif isinstance(run, Sweep):
            run()
            losses[name] = run.loss
    for name, values in losses.items():
        np.testing.assert_allclose(values, losses["sweep"], rtol=2e-3, atol=2e-5, err_msg=name)


def ratios(seconds):
    """The ratios that are asked for, by name: the median and its interval; above 1 where `sweep` is the faster."""
    names = {name: float(np.median(times)) for name, times in seconds.items()}

    def fastest(*prefixes):
        found = {name: t for name, t in names.items() if name.startswith(prefixes)}
        return min(found, key=found.get) if found else None

    def same(name):
        return name if name in names else None

    asked = {
        "sweep / products": ("sweep", fastest("products, ")),
        "sweep / products with the sixth": ("sweep", fastest("with the sixth")),
        "sweep / fastest by hand": ("sweep", fastest("by hand, chunks", "by hand, a thread")),
        "sweep / fastest by hand, one program at a time": ("sweep", fastest("by hand, chunks")),
        "sweep / PyTorch, eager": ("sweep", fastest("PyTorch, eager")),
        "sweep / PyTorch, stacked": ("sweep", same("PyTorch, stacked")),
        "sweep / loop, compiled scan": ("sweep", same("loop, compiled scan")),
        "store and progress / without": ("sweep, store and progress", "sweep"),
        "sweep of 32 / by hand of 32": ("sweep, chunks of 32", same("by hand, chunks of 32")),
        "sweep of 32, store and progress / by hand of 32": (
            "sweep, chunks of 32, store and progress",
            same("by hand, chunks of 32"),
        ),
    }
    found = {}
    for name, (ours, theirs) in asked.items():
        if theirs and ours in seconds:
            median, interval = rounds.ratio(seconds[theirs], seconds[ours])
            found[name] = {"ratio": median, "interval": interval, "against": theirs}
    return found


def peak(number=20):
    """GFLOP/s of one product of 2048 × 2048, the fastest of some."""
    a, product = jnp.ones((2048, 2048)), jax.jit(jnp.matmul)
    times = rounds.in_turn({"peak": lambda: product(a, a).block_until_ready()}, number)["peak"]
    return 2 * 2048**3 / np.median(times) / 1e9, 2 * 2048**3 / np.min(times) / 1e9


def main(argv=None):
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, nargs="+", default=[1, 8, 32, 128, 512, 4096])
    parser.add_argument("--rounds", type=int, default=20, help=f"of up to {SLOW} models; half of it to 512, then 5")
    parser.add_argument("--devices", type=int, default=1, help="that JAX makes of the host")
    parser.add_argument("--torch", help="an interpreter with PyTorch")
    args = parser.parse_args(argv)
    jax.config.update("jax_num_cpu_devices", args.devices)

    data = load("digits")
    fixed = {"x": data["x_train"], "y": data["y_train"]}
    torch = Torch(args.torch, fixed) if args.torch else None
    fixed = jax.tree.map(jnp.asarray, fixed)
    apart = torch.agree(fixed) if torch else {}
    if torch:
        print(f"PyTorch {torch.about}: largest distance of a loss from ours {apart}")
    print("product of 2048 × 2048: %.0f GFLOP/s, at best %.0f" % (peaks := peak()))

    table = {}
    for count in args.models:
        jax.clear_caches()
        number = args.rounds if count <= SLOW else max(3, args.rounds // 2 if count <= 512 else min(5, args.rounds))
        found = contenders(count, fixed, torch)
        check(found)
        seconds = rounds.in_turn(found, number)
        rows = {}
        for name, times in seconds.items():
            run, median = found[name], float(np.median(times))
            rows[name] = {"thousand model-steps/s": count * networks.STEPS / median / 1e3, "seconds": times.tolist()}
            if name.startswith(("products", "with the sixth")):
                operations = networks.operations(sixth=name.startswith("with"))
                rows[name]["GFLOP/s"] = operations * count * networks.STEPS / median / 1e9
            rows[name] |= {"compile, s": getattr(run, "compile", None), "bytes a model": getattr(run, "bytes", None)}
            if isinstance(run, Sweep):
                rows[name]["chunk"] = run.runs.attrs.get("chunk")
        table[count] = {"rounds": number, "rows": rows, "ratios": ratios(seconds)}
        show(count, table[count])
        about = {"devices": args.devices, "torch": torch and torch.about, "apart": apart, "peak": peaks}
        rounds.write(f"sweeps_{args.devices}_devices", **about, table=table)


def show(count, found):
    """Print what was found for `count` models."""
    print(f"\n{count} models, {found['rounds']} rounds\n")
    print("| contender | thousand model-steps/s | GFLOP/s | compile, s | kB a model | chunk |")
    print("|---|---|---|---|---|---|")
    for name, row in found["rows"].items():
        cells = [row["thousand model-steps/s"], row.get("GFLOP/s"), row["compile, s"], row["bytes a model"]]
        texts = ["" if cell is None else f"{cell / (1e3 if i == 3 else 1):.4g}" for i, cell in enumerate(cells)]
        print(f"| {name} | {' | '.join(texts)} | {row.get('chunk') or ''} |")
    print("\n| ratio of speeds | median | interval | against |\n|---|---|---|---|")
    for name, row in found["ratios"].items():
        low, high = row["interval"]
        print(f"| {name} | {row['ratio']:.3f} | {low:.3f}–{high:.3f} | {row['against']} |")


if __name__ == "__main__":
    main()
