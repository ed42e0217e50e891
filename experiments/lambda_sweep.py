"""One penalty or constraint, 24 strengths × 4 learning rates × 3 seeds of a network, in one compiled program.

    python -m experiments.lambda_sweep
    python -m experiments.lambda_sweep --penalty l1 --enforce proximal
    python -m experiments.lambda_sweep --constraint max_norm --enforce multipliers --dataset mnist1d

Writes <out>/<name>.nc (every number, an xarray Dataset) and <out>/<name>.png, and prints a short table.
"""

import argparse
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
    chunk: int = 72

    @property
    def constrained(self) -> bool:
        """Whether the strength is a bound k instead of λ."""
        return self.noun in CONSTRAINTS

    @property
    def strength(self) -> str:
        """The name of the strength's axis."""
        return "radius" if self.constrained else "lam"

    def grid(self) -> jr.Grid:
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


def train(lr, seed, data, config, lam=None, radius=None) -> dict:
    """Train one network by SGD; a pure function of its hyperparameters."""
    start, shuffle = jax.random.split(jax.random.key(seed))
    model = MLP(config.width)
    params = model.init(start, data["x_train"][:1])["params"]

    def loss_fn(params, x, y):
        return optax.losses.softmax_cross_entropy_with_integer_labels(model.apply({"params": params}, x), y).mean()

    noun = CONSTRAINTS[config.noun](radius) if config.constrained else PENALTIES[config.noun](lam)
    nouns = jr.by_path(params, {"*/kernel": noun})
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

    def step(carry, key):
        params, state = carry
        rows = jax.random.randint(key, (config.batch,), 0, len(data["y_train"]))
        grads, parts = jax.grad(objective, has_aux=True)(params, data["x_train"][rows], data["y_train"][rows])
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), parts["loss"]

    (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(shuffle, config.steps))

    def error(part):
        logits = model.apply({"params": params}, data[f"x_{part}"])
        return jnp.mean(jnp.argmax(logits, -1) != data[f"y_{part}"])

    kernels = [layer["kernel"] for layer in params.values()]
    weights = jnp.concatenate([kernel.ravel() for kernel in kernels])
    return {
        "val_error": error("val"),
        "test_error": error("test"),
        "train_loss": jnp.mean(losses[-100:]),
        "weight_norm": jnp.linalg.norm(weights),
        "exact_zeros": jnp.mean(weights == 0),
        "largest_unit_norm": jnp.max(jnp.concatenate([jnp.linalg.norm(kernel, axis=0) for kernel in kernels])),
    }


def choose(runs, config: Config) -> dict:
    """The best (strength, lr) by validation error, and the strongest strength within one standard error of it."""
    mean = runs["val_error"].where(~runs["diverged"]).mean("seed", skipna=False)
    error = runs["val_error"].std("seed", ddof=1) / np.sqrt(config.seeds) if config.seeds > 1 else 0 * mean
    best = mean.argmin(...)
    at_rate, limit = mean.isel(lr=best["lr"]), mean.isel(best) + error.isel(best)
    within = np.flatnonzero((at_rate <= limit).values)
    strongest = within[0] if config.constrained else within[-1]
    return {"best": best, "1 s.e.": {**best, config.strength: strongest}}


def table(runs, config: Config) -> str:
    """What a reader wants to know first."""
    name = "k" if config.constrained else "λ"
    lines = [f"{'':8}{name:>10}{'lr':>8}{'val %':>8}{'test %':>8}{'‖w‖':>8}{'max ‖w_j‖':>11}{'zeros %':>9}"]
    for rule, where in choose(runs, config).items():
        cell = runs.isel(where).mean("seed")
        lines.append(
            f"{rule:8}{cell[config.strength].item():10.3g}{cell['lr'].item():8.3g}"
            f"{100 * cell['val_error'].item():8.2f}{100 * cell['test_error'].item():8.2f}"
            f"{cell['weight_norm'].item():8.2f}{cell['largest_unit_norm'].item():11.2f}"
            f"{100 * cell['exact_zeros'].item():9.2f}"
        )
    lines.append(
        f"best: lowest validation error; 1 s.e.: the strongest {name} within one standard error of it, at its lr."
    )
    a, count = runs.attrs, runs["diverged"].size
    lines.append(
        f"{count} models × {config.steps} steps, {int(runs['diverged'].sum())} diverged: "
        f"{count / a['run_seconds']:.1f} models/s, compiled in {a['compile_seconds']:.1f} s, "
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

    lr = picks["best"]["lr"]
    chosen = runs.isel(lr=lr).mean("seed")
    x = jr.plotting.strength_axis(weights, runs[config.strength].values)
    weights.plot(x, chosen["weight_norm"], "o-", markersize=3, color=jr.plotting.COLOURS[0])
    weights.set(xlabel=symbol, title=f"at learning rate {float(runs['lr'][lr]):g}, mean of {config.seeds} seeds")
    weights.set_ylabel("norm of all kernels (circles)", color=jr.plotting.COLOURS[0])
    weights.set_ylim(bottom=0)
    zeros = weights.twinx()
    zeros.plot(x, 100 * chosen["exact_zeros"], "s--", markersize=3, color=jr.plotting.COLOURS[1])
    zeros.set_ylabel("exactly zero weights, % (squares)", color=jr.plotting.COLOURS[1])
    zeros.set_ylim(-3, 103)
    for ax in (curve, weights):
        for rule, style in (("best", ":"), ("1 s.e.", "--")):
            ax.axvline(x[int(picks[rule][config.strength])], color="0.5", linestyle=style, linewidth=1, label=rule)
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
    for name, least in {"strengths": 2, "seeds": 1, "steps": 1, "width": 1, "chunk": 1}.items():
        parser.add_argument(
            f"--{name}", type=_at_least(least), default=getattr(Config, name), help="default: %(default)s"
        )
    parser.add_argument("--out", type=Path, default=Path("experiments/results"), help="default: %(default)s")
    args = vars(parser.parse_args(argv))
    out, penalty, constraint = args.pop("out"), args.pop("penalty"), args.pop("constraint")
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
    runs = jr.sweep(train, config.grid(), chunk=config.chunk, progress=True, data=arrays, config=config)
    runs.attrs.update({k: str(v) for k, v in dataclasses.asdict(config).items() if k != "chunk"})
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"lambda_sweep_{config.dataset}_{config.noun}_{config.enforce}"
    runs.to_netcdf(file.with_suffix(".nc"))
    figure(runs, config).savefig(file.with_suffix(".png"), dpi=120)
    print(table(runs, config))
    print(f"wrote {file}.nc and .png; {time.perf_counter() - began:.1f} s in all")


if __name__ == "__main__":
    main()
