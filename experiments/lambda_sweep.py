"""One penalty or constraint, 24 strengths × 4 learning rates × 3 seeds of a network, in one compiled program.

    python -m experiments.lambda_sweep
    python -m experiments.lambda_sweep --penalty l1 --enforce proximal
    python -m experiments.lambda_sweep --constraint max_norm --enforce multipliers --dataset mnist1d

Writes <out>/<name>.nc (every number, an xarray Dataset) and <out>/<name>.png, and prints a short table.
"""

import argparse
import contextlib
import dataclasses
import time
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg as jr
from experiments import data

PENALTIES = {
    "squared_l2": jr.SquaredL2,
    "l1": jr.L1,
    "group_l2": lambda lam: jr.GroupL2(lam, axis=0),
    "elastic_net": lambda lam: jr.ElasticNet(lam, l1_ratio=0.5),
}
CONSTRAINTS = {"max_norm": lambda radius: jr.L2Ball(radius, axis=0)}
STRENGTHS = {  # the range of λ in which each penalty goes from nothing to everything
    "squared_l2": (1e-6, 1e-1),
    "l1": (1e-6, 1e-2),
    "group_l2": (1e-5, 1e-1),
    "elastic_net": (1e-6, 1e-2),
    "max_norm": (0.3, 20.0),
}


RECENT = 100  # steps whose losses are averaged
COST = "20 s on 2 cores"
SHOWED = "288 networks in one program; the best λ of 24 and its error on held-out digits are chosen and drawn."


@dataclasses.dataclass(frozen=True)
class Config:
    """What is swept, and how each network is trained."""

    noun: str = "squared_l2"
    enforce: str = "penalized"
    dataset: str = "digits"
    strengths: int = 24
    rates: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)
    seeds: int = 3
    steps: int = 1500
    batch: int = 64
    width: int = 64
    dual_rate: float = 0.05
    chunk: int | None = None
    halving: bool = False

    @property
    def constrained(self) -> bool:
        """Whether the strength is a bound k instead of λ."""
        return self.noun in CONSTRAINTS

    @property
    def strength(self) -> str:
        """The name of the strength's axis."""
        return "radius" if self.constrained else "lam"

    def grid(self) -> jr.Space:
        """Strengths (λ = 0 or k = ∞ included) × learning rates × seeds."""
        values = np.geomspace(*STRENGTHS[self.noun], self.strengths - 1)
        values = [*values, np.inf] if self.constrained else [0.0, *values]
        return jr.grid(**{self.strength: values, "lr": self.rates, "seed": range(self.seeds)})


class MLP(nn.Module):
    """One hidden layer of ReLU units."""

    width: int
    classes: int = 10

    @nn.compact
    def __call__(self, x):
        """Logits."""
        return nn.Dense(self.classes, name="output")(nn.relu(nn.Dense(self.width, name="hidden")(x)))


def task(lr, config, data, lam=None, radius=None):
    """The model, its objective and its optimizer, made from hyperparameters that may be traced."""
    model = MLP(config.width)
    shapes = jax.eval_shape(model.init, jax.random.key(0), data["x_train"][:1])["params"]

    def loss_fn(params, x, y):
        return optax.losses.softmax_cross_entropy_with_integer_labels(model.apply({"params": params}, x), y).mean()

    noun = CONSTRAINTS[config.noun](radius) if config.constrained else PENALTIES[config.noun](lam)
    nouns = jr.by_path(shapes, {"*/kernel": noun})
    sgd = optax.sgd(lr)
    objective = jr.penalized(loss_fn, nouns if config.enforce == "penalized" else None)
    tx = {
        "penalized": lambda: sgd,
        "gradient": lambda: jr.regularize(sgd, lr, gradient=nouns),
        "decay": lambda: jr.regularize(sgd, lr, decay=nouns),
        "proximal": lambda: jr.regularize(sgd, lr, proximal=nouns),
        "projected": lambda: jr.regularize(sgd, lr, constraint=nouns),
        "multipliers": lambda: jr.regularize(sgd, lr, multipliers=jr.multipliers(nouns, config.dual_rate)),
    }[config.enforce]()
    return model, objective, tx


def init(seed, data, config, **hyperparameters) -> dict:
    """The state of a run before its first step."""
    start, shuffle = jax.random.split(jax.random.key(seed))
    model, _, tx = task(config=config, data=data, **hyperparameters)
    params = model.init(start, data["x_train"][:1])["params"]
    return {"params": params, "tx": tx.init(params), "key": shuffle, "count": 0, "losses": jnp.zeros(RECENT)}


def step(state, seed, data, config, **hyperparameters) -> dict:
    """One step of SGD on a batch drawn with replacement."""
    _, objective, tx = task(config=config, data=data, **hyperparameters)
    params, count = state["params"], state["count"]
    rows = jax.random.randint(jax.random.fold_in(state["key"], count), (config.batch,), 0, len(data["y_train"]))
    grads, parts = jax.grad(objective, has_aux=True)(params, data["x_train"][rows], data["y_train"][rows])
    updates, tx_state = tx.update(grads, state["tx"], params)
    losses = state["losses"].at[count % RECENT].set(parts["loss"])
    new = {"params": optax.apply_updates(params, updates), "tx": tx_state, "count": count + 1, "losses": losses}
    return state | new


def report(state, seed, data, config, **hyperparameters) -> dict:
    """What a run has come to."""
    model, params = MLP(config.width), state["params"]

    def error(part):
        logits = model.apply({"params": params}, data[f"x_{part}"])
        return jnp.mean(jnp.argmax(logits, -1) != data[f"y_{part}"])

    kernels = [layer["kernel"] for layer in params.values()]
    weights = jnp.concatenate([kernel.ravel() for kernel in kernels])
    return {
        "val_error": error("val"),
        "test_error": error("test"),
        "train_loss": jnp.sum(state["losses"]) / jnp.minimum(state["count"], RECENT),
        "weight_norm": jnp.linalg.norm(weights),
        "exact_zeros": jnp.mean(weights == 0),
        "largest_unit_norm": jnp.max(jnp.concatenate([jnp.linalg.norm(kernel, axis=0) for kernel in kernels])),
    }


def trainable(config: Config) -> jr.Trainable:
    """The training of one network, of which `sweep` makes many; it reports fifteen times or so."""
    every = max(n for n in range(1, max(1, config.steps // 15) + 1) if config.steps % n == 0)
    return jr.Trainable(init, step, report, steps=config.steps, every=every)


def choose(runs, config: Config) -> dict:
    """The best configuration by validation error, and the most regularized one within a standard error of it."""
    picks = {"best": runs.best("val_error")}
    if config.seeds > 1:
        strongest = "smallest" if config.constrained else "largest"
        picks["1 s.e."] = runs.best("val_error", rule="1se", along=config.strength, strongest=strongest)
    return picks


def table(runs, config: Config) -> str:
    """What a reader wants to know first."""
    name = "k" if config.constrained else "λ"
    lines = [f"{'':8}{name:>10}{'lr':>8}{'val %':>8}{'test %':>8}{'‖w‖':>8}{'max ‖w_j‖':>11}{'zeros %':>9}"]
    for rule, picked in choose(runs, config).items():
        cell = picked.mean("seed")
        lines.append(
            f"{rule:8}{cell[config.strength].item():10.3g}{cell['lr'].item():8.3g}"
            f"{100 * cell['val_error'].item():8.2f}{100 * cell['test_error'].item():8.2f}"
            f"{cell['weight_norm'].item():8.2f}{cell['largest_unit_norm'].item():11.2f}"
            f"{100 * cell['exact_zeros'].item():9.2f}"
        )
    lines.append(
        f"best: lowest validation error; 1 s.e.: the strongest {name} within one standard error of it, at its lr."
    )
    a, count, steps = runs.attrs, runs["diverged"].size, runs["steps"].mean().item()
    lines.append(
        f"{count} models × {steps:g} steps{' on average' * config.halving}, {int(runs['diverged'].sum())} diverged: "
        f"{a['models_run'] / a['run_seconds']:.1f} models/s, compiled in {a['compile_seconds']:.1f} s, "
        f"ran {a['run_seconds']:.1f} s"
    )
    return "\n".join(lines)


def figure(runs, config: Config):
    """Validation error against the strength, its map over the learning rate, and what happens to the weights."""
    import matplotlib.pyplot as plt

    symbol = "bound k on each unit's norm" if config.constrained else "strength λ"
    fig, (curve, heat, weights) = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    percent = runs.assign(val_error=100 * runs["val_error"].where(~runs["diverged"]))
    jr.plotting.validation_curve(percent, "val_error", config.strength, "lr", ax=curve)
    curve.set(
        title="each learning rate, mean of the seeds",
        xlabel=symbol,
        ylabel="validation error, % (band: ± 1 s.e.)",
        yscale="log",
    )
    jr.plotting.plain_log_ticks(curve.yaxis)
    jr.plotting.heatmap(percent, "val_error", config.strength, "lr", ax=heat, norm="log")
    heat.set(xlabel=symbol, ylabel="learning rate", title="ring: lowest validation error")
    picks = choose(runs, config)
    heat.figure.axes[-1].set_ylabel("validation error, %")

    lr = picks["best"]["lr"].item()
    chosen = runs.sel(lr=lr).mean("seed")
    x = jr.plotting.strength_axis(weights, runs[config.strength].values)
    weights.plot(x, chosen["weight_norm"], "o-", markersize=3, color=jr.plotting.COLOURS[0])
    weights.set(xlabel=symbol, title=f"at learning rate {lr:g}, mean of {config.seeds} seeds")
    weights.set_ylabel("norm of all kernels (circles)", color=jr.plotting.COLOURS[0])
    weights.set_ylim(bottom=0)
    zeros = weights.twinx()
    zeros.plot(x, 100 * chosen["exact_zeros"], "s--", markersize=3, color=jr.plotting.COLOURS[1])
    zeros.set_ylabel("exactly zero weights, % (squares)", color=jr.plotting.COLOURS[1])
    zeros.set_ylim(-3, 103)
    for ax in (curve, weights):
        for (rule, picked), style in zip(picks.items(), (":", "--")[: len(picks)], strict=True):
            place = x[runs.indexes[config.strength].get_loc(picked[config.strength].item())]
            ax.axvline(place, color="0.5", linestyle=style, linewidth=1, label=rule)
    curve.legend(frameon=False, fontsize="small")
    weights.legend(frameon=False, fontsize="small", loc="center right" if config.constrained else "center left")
    fig.suptitle(f"{config.dataset}, {config.noun} by {config.enforce}", x=0.01, ha="left", weight="bold")
    return fig


def _at_least(least: int):
    def integer(text):
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return integer


def main(argv=None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.lambda_sweep", description=__doc__.split("\n")[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--penalty", choices=PENALTIES, help="default: squared_l2")
    what.add_argument("--constraint", choices=CONSTRAINTS)
    verbs = ["penalized", "gradient", "decay", "proximal", "projected", "multipliers"]
    parser.add_argument("--enforce", choices=verbs, help="default: penalized, or projected for a constraint")
    parser.add_argument("--dataset", choices=["digits", "mnist", "mnist1d"], default="digits")
    for name, least in {"strengths": 2, "seeds": 1, "steps": 1, "width": 1}.items():
        parser.add_argument(
            f"--{name}", type=_at_least(least), default=getattr(Config, name), help="default: %(default)s"
        )
    parser.add_argument("--chunk", type=_at_least(1), help="models at once; default: chosen by memory and speed")
    parser.add_argument("--halving", action="store_true", help="train on with the better third alone, again and again")
    parser.add_argument("--devices", type=_at_least(1), help="how many to use; of a CPU, make as many; default: all")
    parser.add_argument("--store", type=Path, help="a folder that keeps finished chunks: killed, the run goes on there")
    parser.add_argument("--out", type=Path, default=Path("experiments/results"), help="default: %(default)s")
    args = vars(parser.parse_args(argv))
    out, penalty, constraint = args.pop("out"), args.pop("penalty"), args.pop("constraint")
    store, devices = args.pop("store"), args.pop("devices")
    enforce = args.pop("enforce") or ("projected" if constraint else "penalized")
    if (enforce in verbs[4:]) != bool(constraint):
        needs = "--constraint" if enforce in verbs[4:] else "--penalty"
        parser.error(f"--enforce {enforce} needs {needs}")
    config = Config(noun=constraint or penalty or "squared_l2", enforce=enforce, **args)

    began = time.perf_counter()
    try:
        arrays = data.load(config.dataset)
    except data.DataError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    if devices is not None:
        with contextlib.suppress(RuntimeError):  # where JAX runs already, in a notebook, it has the devices that it has
            jax.config.update("jax_num_cpu_devices", devices)
    if devices is not None and len(jax.local_devices()) < devices:
        parser.exit(1, f"{parser.prog}: --devices {devices}, but there are {len(jax.local_devices())}\n")
    runs = jr.sweep(
        trainable(config),
        config.grid(),
        chunk=config.chunk,
        store=store,
        devices=None if devices is None else jax.local_devices()[:devices],
        halving=jr.halving("val_error", min_steps=max(1, config.steps // 15), over="seed") if config.halving else None,
        progress="val_error",
        data=arrays,
        config=dataclasses.replace(config, chunk=None),
    )
    runs.attrs.update({k: str(v) for k, v in dataclasses.asdict(config).items() if k != "chunk"})
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"lambda_sweep_{config.dataset}_{config.noun}_{config.enforce}"
    runs.to_netcdf(file.with_suffix(".nc"))
    figure(runs, config).savefig(file.with_suffix(".png"), dpi=120)
    print(table(runs, config))
    print(f"wrote {file}.nc and .png; {time.perf_counter() - began:.1f} s in all")


if __name__ == "__main__":
    main()
