"""What the links cost: the step of a large tree on synthetic gradients, and the whole training step of real networks.

`python -m experiments.benchmarks.transformations` prints two tables and writes them to `experiments/results/`. Chains
run in turn; ratios to `optax.adamw` are medians over rounds, with a 95 % bootstrap interval. Compiling is timed apart.
"""

import argparse
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg as jr
from experiments.benchmarks import rounds
from experiments.data import load

LR, DECAY, BATCH = 1e-5, 1e-2, 64

# On a CPU, XLA goes through the leaves abreast by default. What it keeps between passes then counts once for each leaf.
FRUGAL = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


def by_hand(radius):
    """The projection of columns as one writes it in jax.numpy: a yardstick."""

    def update(updates, state, params):
        def move(u, p, radius):
            if radius is None:
                return u
            size = jnp.linalg.norm(z := p + u, axis=0, keepdims=True)
            return jnp.where(size > radius, z * (radius / size), z) - p

        return jax.tree.map(move, updates, params, radius), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def chains(params):
    """{name: chain}; half of a kernel's columns are at their bound or beyond, as is the kernel; biases are free."""

    def kernels(make):
        return jax.tree.map(lambda w: make(w) if w.ndim > 1 else None, params)

    def middle(w):
        return float(jnp.median(jnp.linalg.norm(w.reshape(-1, w.shape[-1]), axis=0)))

    adam = optax.adam(LR)
    columns = kernels(lambda w: jr.L2Ball(middle(w), axis=tuple(range(w.ndim - 1))))
    whole = kernels(lambda w: jr.L2Ball(float(jnp.linalg.norm(w))))
    bounds = kernels(lambda w: float(jnp.sum(w**2) / 2))
    found = {
        "adamw": optax.adamw(LR, weight_decay=DECAY),
        "adam → decay": optax.chain(adam, jr.decay(jr.SquaredL2(DECAY), LR)),
        "multipliers per column → adam": optax.chain(jr.multipliers(columns, LR), adam),
        "… augmented": optax.chain(jr.multipliers(columns, LR, augmentation=1.0), adam),
        "… and certified": optax.chain(jr.multipliers(columns, LR, augmentation=1.0, certify=True), adam),
        "adam → cpr": optax.chain(adam, jr.cpr(kernels(lambda w: jr.SquaredL2(1.0)), bounds)),
        "adam → projected per column": optax.chain(adam, jr.projected(columns)),
        "adam → projected whole": optax.chain(adam, jr.projected(whole)),
        "adam → proximal L1": optax.chain(adam, jr.proximal(kernels(lambda w: jr.L1(DECAY)), LR)),
    }
    if all(w.ndim < 3 for w in jax.tree.leaves(params)):
        found["by hand, per column"] = optax.chain(adam, by_hand(kernels(middle)))
    return found


class Run:
    """A chain with its own parameters and state, stepped in place."""

    def __init__(self, tx, gradient, params, batch, options=None):
        def step(params, state, *batch):
            updates, state = tx.update(gradient(params, *batch), state, params)
            return optax.apply_updates(params, updates), state

        self.batch = batch
        self.carry = jax.tree.map(jnp.copy, params), tx.init(params)
        begin = time.perf_counter()
        self.step = jax.jit(step, donate_argnums=(0, 1)).lower(*self.carry, *self.batch).compile(options)
        self.compile = time.perf_counter() - begin
        self.state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self.carry[1]))
        self.temporary_bytes = self.step.memory_analysis().temp_size_in_bytes

    def __call__(self):
        """One step."""
        self.carry = jax.block_until_ready(self.step(*self.carry, *self.batch))


def large_tree(size):
    """Four kernels and biases, and gradients that push every column out; half of the columns are small."""
    rng = np.random.default_rng(0)
    scale = np.where(np.arange(size) % 2, 0.5, 1.0)
    params = {
        f"layer_{i}": {
            "kernel": jnp.asarray(rng.normal(size=(size, size)) * scale / size**0.5, jnp.float32),
            "bias": jnp.ones(size),
        }
        for i in range(4)
    }
    return (lambda params, grads: grads), params, (jax.tree.map(jnp.negative, params),)


def compare(runs, number):
    """One row a chain: compile time, time of a step, ratio to adamw, state beyond adamw's, temporary memory."""
    seconds = rounds.in_turn(runs, number)
    rows = []
    for name, times in seconds.items():
        ratio, interval = rounds.ratio(times, seconds["adamw"])
        row = {"chain": name, "compile, s": runs[name].compile, "ms": 1e3 * float(np.median(times))}
        row |= {"to adamw": ratio, "interval": interval}
        row |= {"extra bytes": runs[name].state_bytes - runs["adamw"].state_bytes}
        row |= {"temporaries, MB": runs[name].temporary_bytes / 1e6}
        rows.append(row)
        print(
            f"  {name:<30} {row['compile, s']:10.2f} {row['ms']:8.2f} {ratio:9.3f}  {interval[0]:.3f}–{interval[1]:.3f}"
            f" {row['extra bytes']:11} {row['temporaries, MB']:15.1f}"
        )
    return rows


class MLP(nn.Module):
    """784-512-512-10."""

    @nn.compact
    def __call__(self, x):
        """Logits."""
        x = nn.relu(nn.Dense(512)(nn.relu(nn.Dense(512)(x))))
        return nn.Dense(10)(x)


class CNN(nn.Module):
    """Two convolutions and two dense layers, a common first network for these digits."""

    @nn.compact
    def __call__(self, x):
        """Logits."""
        x = x.reshape(-1, 28, 28, 1)
        for features in (32, 64):
            x = nn.avg_pool(nn.relu(nn.Conv(features, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(10)(nn.relu(nn.Dense(256)(x.reshape(x.shape[0], -1))))


def network(model, arrays):
    """The gradient of a network's loss, its parameters and a batch."""
    x, y = (jnp.asarray(arrays[name][:BATCH]) for name in ("x_train", "y_train"))
    params = model.init(jax.random.key(0), x)["params"]

    def loss(params, x, y):
        return optax.losses.softmax_cross_entropy_with_integer_labels(model.apply({"params": params}, x), y).mean()

    return jax.grad(loss), params, (x, y)


def main(argv=None):
    """Print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1581, help="rows and columns of a kernel")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument(
        "--networks", action=argparse.BooleanOptionalAction, default=True, help="or the first table alone"
    )
    args = parser.parse_args(argv)
    problems = {
        f"update alone, 4 × {args.size}²": lambda: (*large_tree(args.size), None),
        "the same, scheduled for memory": lambda: (*large_tree(args.size), FRUGAL),
        "training step, 784-512-512-10": lambda: (*network(MLP(), load("mnist")), None),
        "training step, CNN": lambda: (*network(CNN(), load("mnist")), None),
    }
    tables = {}
    for title, make in list(problems.items())[: None if args.networks else 1]:
        print(
            f"{title:<32} {'compile, s':>10} {'ms':>8} {'to adamw':>9}  {'interval':<11} {'extra bytes':>11} "
            f"{'temporaries, MB':>15}"
        )
        gradient, params, batch, options = make()
        found = {name: Run(tx, gradient, params, batch, options) for name, tx in chains(params).items()}
        tables[title] = compare(found, args.rounds)
    rounds.write("transformations", rounds=args.rounds, tables=tables)


if __name__ == "__main__":
    main()
