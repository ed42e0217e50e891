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
import concurrent.futures
import functools
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg as jr
from experiments.benchmarks import rounds
from experiments.data import load

STEPS, BATCH, UNITS, CLASSES = 200, 64, 64, 10
CHUNKS = 16, 32, 64, 128
SLOW = 128  # models at most for the contenders that take long
PRODUCTS = 2 * BATCH * UNITS * (2 * UNITS + 3 * CLASSES)  # floating-point operations of one step
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def configurations(count):
    """`count` learning rates, strengths and seeds."""
    rng = np.random.default_rng(0)
    lr, lam = np.geomspace(1e-4, 1e-2, count), rng.permutation(np.geomspace(1e-4, 1e-1, count))
    return {"lr": lr.astype(np.float32), "lam": lam.astype(np.float32), "seed": np.arange(count, dtype=np.int32)}


def weights(seed):
    """Weights by He et al., biases 0."""
    first, last = jax.random.split(jax.random.key(seed))
    w1 = jax.random.normal(first, (64, UNITS)) * (2 / 64) ** 0.5
    w2 = jax.random.normal(last, (UNITS, CLASSES)) * (2 / UNITS) ** 0.5
    return {"w1": w1, "b1": jnp.zeros(UNITS), "w2": w2, "b2": jnp.zeros(CLASSES)}


def batches(seed, x):
    """The rows of every batch."""
    return jax.random.randint(jax.random.fold_in(jax.random.key(seed), 1), (STEPS, BATCH), 0, len(x))


def start(params, lr, lam):
    """AdamW, and what a step carries."""
    tx = optax.adamw(lr, weight_decay=lam)
    return tx, (params, tx.init(params))


def step(tx, carry, rows, x, y):
    """One step: what it carries, and its loss."""
    params, state = carry

    def loss(params):
        hidden = jax.nn.relu(x[rows] @ params["w1"] + params["b1"])
        logits = hidden @ params["w2"] + params["b2"]
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

    value, grads = jax.value_and_grad(loss)(params)
    updates, state = tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), value


def losses(params, rows, lr, lam, x, y):
    """The loss of every step, one scan."""
    tx, carry = start(params, lr, lam)
    return jax.lax.scan(lambda carry, batch: step(tx, carry, batch, x, y), carry, rows)[1]


def train(lr, lam, seed, x, y):
    """What is swept: batches of its own for every seed."""
    return {"loss": losses(weights(seed), batches(seed, x), lr, lam, x, y)[-1]}


def train_on_shared(lr, lam, seed, x, y):
    """The same batches for all models."""
    return {"loss": losses(weights(seed), batches(0, x), lr, lam, x, y)[-1]}


def products(seed, sixth=False):
    """The products of the training steps of one model, and nothing else."""
    x = jnp.sin(jnp.arange(64.0 * BATCH).reshape(BATCH, 64) + seed)
    w1, w2 = x[:64, :UNITS], x[:UNITS, :CLASSES]

    def body(carry, _):
        # behind the barrier nothing is the same in every step, so nothing is computed once for all
        x, w1, w2, *_ = jax.lax.optimization_barrier(carry)
        hidden = x @ w1
        logits = hidden @ w2
        g = logits @ w2.T
        return (x, w1, w2, x.T @ g, hidden.T @ logits, *([g @ w1.T] if sixth else [])), None

    begin = (x, w1, w2, w1, w2, *([x] if sixth else []))
    return jax.lax.scan(body, begin, None, STEPS)[0][3:]


class ByHand:
    """A vmapped function, compiled for a chunk and run over all; `programs` at once, from threads of their own."""

    def __init__(self, function, arguments, fixed, chunk=None, programs=1):
        count = len(arguments["seed"])
        chunk, mesh = min(chunk or count, count), jax.make_mesh((jax.device_count(),), ("models",))
        many, rows = jax.vmap(lambda arguments, fixed: function(**arguments, **fixed), (0, None)), jax.P("models")
        if mesh.size > 1 and programs == 1:
            many = jax.shard_map(many, mesh=mesh, in_specs=(rows, jax.P()), out_specs=rows, check_vma=False)
            self.place = functools.partial(jax.device_put, device=jax.NamedSharding(mesh, rows))
            fixed = jax.device_put(fixed, jax.NamedSharding(mesh, jax.P()))
        else:
            self.place = functools.partial(jax.device_put, device=jax.devices()[0])
        self.parts = [{name: v[i : i + chunk] for name, v in arguments.items()} for i in range(0, count, chunk)]
        self.fixed, self.threads = fixed, concurrent.futures.ThreadPoolExecutor(programs)
        begin = time.perf_counter()
        self.program = jax.jit(many).lower(self.place(self.parts[0]), fixed).compile()
        self.compile = time.perf_counter() - begin
        memory = self.program.memory_analysis()
        self.bytes = memory.temp_size_in_bytes + memory.output_size_in_bytes + memory.argument_size_in_bytes
        self.bytes /= chunk

    def __call__(self):
        """Train all; the results."""
        if self.threads._max_workers == 1:
            return [jax.tree.map(np.asarray, self.program(self.place(part), self.fixed)) for part in self.parts]
        run = lambda part: jax.tree.map(np.asarray, self.program(self.place(part), self.fixed))  # noqa: E731
        return list(self.threads.map(run, self.parts))


class Sweep:
    """`sweep` itself; with `store` a new folder for each run."""

    def __init__(self, arguments, fixed, chunk=None, store=False):
        self.space, self.fixed, self.chunk, self.store = jr.zipped(**arguments), fixed, chunk, store
        self.compile = self.bytes = None

    def __call__(self):
        """Seconds, less those of compiling."""
        folder = tempfile.mkdtemp() if self.store else None
        options = {"store": Path(folder) / "store", "progress": True} if self.store else {}
        begin = time.perf_counter()
        self.runs = jr.sweep(train, self.space, chunk=self.chunk, **options, **self.fixed)
        seconds = time.perf_counter() - begin - self.runs.attrs["compile_seconds"]
        self.compile = self.compile or self.runs.attrs["compile_seconds"]
        self.loss = self.runs["loss"].values
        if self.store:
            shutil.rmtree(folder)
        return seconds


class Loop:
    """One model after the other: a compiled training, or (`by_step`) a compiled step; rates are arguments of both."""

    def __init__(self, arguments, fixed, by_step=False):
        one = jax.tree.map(lambda v: v[0], arguments)
        self.arguments, self.fixed, self.by_step, self.bytes = arguments, fixed, by_step, None
        begin = time.perf_counter()
        if by_step:
            self.begin = jax.jit(self._begin).lower(**one).compile()
            carry, rows = self.begin(**one)
            self.step = jax.jit(self._step).lower(carry, rows[0], one["lr"], one["lam"], **fixed).compile()
        else:
            self.train = jax.jit(train).lower(**one, **fixed).compile()
        self.compile = time.perf_counter() - begin

    def _begin(self, lr, lam, seed):
        return start(weights(seed), lr, lam)[1], list(batches(seed, self.fixed["x"]))

    @staticmethod
    def _step(carry, rows, lr, lam, x, y):
        return step(optax.adamw(lr, weight_decay=lam), carry, rows, x, y)

    def __call__(self):
        """Train all; the results."""
        found = []
        for i in range(len(self.arguments["seed"])):
            one = {name: v[i] for name, v in self.arguments.items()}
            if self.by_step:
                carry, batch = self.begin(**one)
                for rows in batch:
                    carry, value = self.step(carry, rows, one["lr"], one["lam"], **self.fixed)
                found.append({"loss": np.asarray(value)})
            else:
                found.append(jax.tree.map(np.asarray, self.train(**one, **self.fixed)))
        return found


class Torch:
    """The other process, asked to train."""

    def __init__(self, python, fixed, count=4):
        rows = np.stack([batches(seed, fixed["x"]) for seed in range(count)])
        params = [weights(seed) for seed in range(count)]
        self.params, self.rows = jax.tree.map(lambda *leaves: np.stack(leaves), *params), rows
        self.folder = tempfile.TemporaryDirectory()
        file, script = Path(self.folder.name) / "problem.npz", Path(__file__).with_name("sweeps_torch.py")
        np.savez(file, **self.params, **fixed, indices=rows)
        command = [python, str(script), str(file), str(CORES)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = json.loads(self.process.stdout.readline())

    def ask(self, contender, arguments):
        """Its answer."""
        request = {"contender": contender, **{name: v.tolist() for name, v in arguments.items()}}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def agree(self, fixed):
        """Check that from the same weights, by the same batches, the losses are the same."""
        arguments = configurations(len(self.rows))
        ours = jax.vmap(losses, (0, 0, 0, 0, None, None))(
            self.params, self.rows, arguments["lr"], arguments["lam"], fixed["x"], fixed["y"]
        )
        apart = {}
        for name, theirs in self.ask("agree", arguments).items():
            np.testing.assert_allclose(theirs, ours, rtol=2e-3, atol=2e-5, err_msg=name)
            apart[name] = float(np.max(np.abs(np.array(theirs) - ours)))
        return apart


def contenders(count, fixed, torch):
    """{name: function of nothing} for `count` models."""
    arguments, seeds = configurations(count), {"seed": np.arange(count, dtype=np.float32)}
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
            found[f"by hand, chunks of {chunk}"] = ByHand(train, arguments, fixed, chunk)
            if chunk == count or chunk == 32:
                name = f"by hand, shared batches, chunks of {chunk}"
                found[name] = ByHand(train_on_shared, arguments, fixed, chunk)
            if count <= 512:
                found[f"products, chunks of {chunk}"] = ByHand(products, seeds, {}, chunk)
                sixth = functools.partial(products, sixth=True)
                found[f"with the sixth, chunks of {chunk}"] = ByHand(sixth, seeds, {}, chunk)
        if jax.device_count() == 1 and count // chunk >= CORES:
            found[f"by hand, a thread a core, chunks of {chunk}"] = ByHand(train, arguments, fixed, chunk, CORES)
            if count <= 512:
                found[f"products, a thread a core, chunks of {chunk}"] = ByHand(products, seeds, {}, chunk, CORES)
                name = f"with the sixth, a thread a core, chunks of {chunk}"
                found[name] = ByHand(functools.partial(products, sixth=True), seeds, {}, chunk, CORES)
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
        number = args.rounds if count <= SLOW else max(3, args.rounds // 2 if count <= 512 else min(5, args.rounds))
        found = contenders(count, fixed, torch)
        check(found)
        seconds = rounds.in_turn(found, number)
        rows = {}
        for name, times in seconds.items():
            run, median = found[name], float(np.median(times))
            rows[name] = {"thousand model-steps/s": count * STEPS / median / 1e3, "seconds": times.tolist()}
            if name.startswith("products"):
                rows[name]["GFLOP/s"] = PRODUCTS * count * STEPS / median / 1e9
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
