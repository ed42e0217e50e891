"""What high learning rates do to a network with a penalty, with reprojection and with multipliers.

    python -m experiments.high_learning_rates

One hidden layer of ReLU or tanh units, by plain SGD at learning rates 10⁻² … 10², on digits and on MNIST. The arms:
λ/2·‖W‖² in the loss (λ = 0 is "none"); by reprojection ‖W‖ ≤ r of each kernel ("matrix ball"), or ‖w_j‖ ≤ c of the
incoming weights of each unit of both layers ("unit balls") or of the hidden one alone ("hidden balls"); and unit balls
by one KKT multiplier per unit. A run is stable if losses and weights stay finite and half of the test images or more
are right at the end; a rate is if all seeds are, at the strength that is best on validation there. A hidden unit is
dead if incoming × outgoing norm is below 10⁻³, and constant if its output is the same for all images.

References:
    I. Goodfellow, Y. Bengio, A. Courville (2016), Deep Learning, section 7.2, from which the claims are.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg as jr
from experiments import command, data, published

COST = "44 min on 2 cores shared with other work"
SHOWED = (
    "With ReLU units no arm gets half of the images right above a rate of 1, on digits or MNIST: from 2.15 on all "
    "hidden units end up constant. With tanh units the unit balls still learn at 2.15 (88 %), the others stop at "
    "1. Where nothing bounds them weights grow, 5·10⁴-fold on digits and 7·10⁶-fold on MNIST, with a penalty "
    "500-fold and more, and never leave the ball that they are projected to, at any rate; multipliers, of dual "
    "rate .01, overflow from 4.6 on. Expected and not found: no dead units. At equal training loss reprojection "
    "kills units too, 1.2 of 64 on digits against the penalty's 2.9, and a matrix ball more than the penalty, 1.7 "
    "against 1.0: whatever shrinks a column shrinks its idle entries with it. Where the incoming weights of "
    "hidden units alone are bounded, none dies, but at rate 1 some seeds fail."
)
ARMS = ("penalty", "matrix ball", "unit balls", "hidden balls", "multipliers")
BALLS = ("matrix ball", "unit balls", "hidden balls")
UNITS = {"relu": jax.nn.relu, "tanh": jnp.tanh}
CLASSES = 10
REPORTS = 20
STABLE = 0.5  # the accuracy at least


@dataclasses.dataclass(frozen=True)
class Config:
    """What is swept and how networks are trained: on digits, then on MNIST."""

    arms: tuple[str, ...] = ARMS
    units: tuple[str, ...] = ("relu", "tanh")
    mnist_units: tuple[str, ...] = ("relu",)
    rates: int = 13
    seeds: int = 3
    mnist_seeds: int = 2
    lams: tuple[float, ...] = (0.0, 1e-3, 3e-3, 1e-2, 3e-2)
    matrix_radii: tuple[float, ...] = (4.0, 5.0, 6.0, 8.0, 12.0)
    unit_radii: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 3.0)
    hidden_radii: tuple[float, ...] = (0.2, 0.3, 0.5, 1.0, 2.0)
    mnist_stride: int = 2  # every other strength
    dual_rate: float = 0.01
    width: int = 64
    mnist_width: int = 128
    batch: int = 32
    mnist_batch: int = 100
    epochs: int = 20
    mnist_epochs: int = 2
    mnist: bool = True


QUICK = Config(
    arms=("penalty", "unit balls"),
    units=("relu",),
    rates=5,
    seeds=1,
    epochs=5,
    mnist=False,
    lams=(0.0, 1e-3, 1e-2),
    matrix_radii=(4.0, 6.0, 12.0),
    unit_radii=(0.5, 1.0, 2.0),
    hidden_radii=(0.3, 0.5, 1.0),
)


def optimizer(arm, strength, lr, dual_rate):
    """Plain SGD with the regularization of one arm, on both kernels."""

    def kernels(noun):
        return {layer: {"kernel": noun, "bias": None} for layer in ("hidden", "output")}

    if arm == "penalty":
        return jr.regularize(optax.sgd(lr), lr, gradient=kernels(jr.SquaredL2(strength)))
    if arm == "multipliers":  # ‖w_j‖²/c² ≤ 1, so that one dual rate does for all c
        units = kernels(jr.SublevelSet(jr.SquaredL2(2 / strength**2, axis=0), 1.0))
        return jr.regularize(optax.sgd(lr), lr, multipliers=jr.multipliers(units, dual_rate))
    balls = kernels(jr.L2Ball(strength, axis=None if arm == "matrix ball" else 0))
    return jr.regularize(optax.sgd(lr), lr, constraint=balls | {"output": None} if arm == "hidden balls" else balls)


def train(arm, unit, rank, lr, seed, strengths, data, order, width, dual_rate) -> dict:
    """SGD on the batches `order`, in blocks; losses and norms at the end of each."""
    x, y = data["x_train"], data["y_train"]
    strength = jnp.asarray(strengths[arm])[rank]
    start = jax.random.normal(jax.random.key(seed), (x.shape[1] + CLASSES, width))  # He initialization, in one draw
    inner, outer = start[:-CLASSES] * (2 / x.shape[1]) ** 0.5, start[-CLASSES:].T * (2 / width) ** 0.5
    params = {
        "hidden": {"kernel": inner, "bias": jnp.zeros(width)},
        "output": {"kernel": outer, "bias": jnp.zeros(CLASSES)},
    }

    def hidden(params, x):
        return UNITS[unit](x @ params["hidden"]["kernel"] + params["hidden"]["bias"])

    def logits(params, x):
        return hidden(params, x) @ params["output"]["kernel"] + params["output"]["bias"]

    def loss(params, x, y):
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits(params, x), y).mean()

    def step(carry, rows):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, x[rows], y[rows])
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    def block(carry, rows):
        carry, losses = jax.lax.scan(step, carry, rows)
        kernels = [layer["kernel"] for layer in carry[0].values()]
        matrix = jnp.stack([jnp.linalg.norm(kernel) for kernel in kernels])
        column = jnp.concatenate([jnp.linalg.norm(kernel, axis=0) for kernel in kernels])
        return carry, {"loss": losses.mean(), "matrix": matrix.max(), "column": column.max()}

    def accuracy(part):
        return jnp.mean(jnp.argmax(logits(params, data[f"x_{part}"]), -1) == data[f"y_{part}"])

    tx = optimizer(arm, strength, lr, dual_rate)
    (params, _), trace = jax.lax.scan(block, (params, tx.init(params)), order)
    return {
        "trace": trace,
        "train_loss": loss(params, x[:10000], y[:10000]),
        "val_accuracy": accuracy("val"),
        "test_accuracy": accuracy("test"),
        "dead": jr.diagnostics.dead_units(params["hidden"]["kernel"], params["output"]["kernel"]).sum(),
        "constant": jnp.sum(jnp.ptp(hidden(params, x[:1000]), axis=0) < 1e-6),
    }


def run(config) -> dict:
    """Every arm at every strength, rate and seed; one program for each arm and kind of unit."""
    found = {}
    for name in ("digits", "mnist") if config.mnist else ("digits",):
        digits = name == "digits"
        fields = ("units", "seeds", "width", "batch", "epochs")
        units, seeds, width, batch, epochs = (getattr(config, f if digits else f"mnist_{f}") for f in fields)
        arrays = data.load(name)
        ranges = (config.lams, config.matrix_radii, config.unit_radii, config.hidden_radii, config.unit_radii)
        stride = 1 if digits else config.mnist_stride
        strengths = {arm: values[::stride] for arm, values in zip(ARMS, ranges, strict=True)}
        ranks = range(len(strengths["penalty"]))
        # One order of the images for all runs: then a batch is there once, and all networks are one matrix product.
        order = np.random.default_rng(0).permuted(np.tile(np.arange(len(arrays["y_train"])), (epochs, 1)), axis=1)
        order = order.ravel()[: order.size // (REPORTS * batch) * REPORTS * batch].reshape(REPORTS, -1, batch)
        space = jr.grid(
            arm=list(config.arms),
            unit=list(units),
            rank=ranks,
            lr=np.geomspace(1e-2, 1e2, config.rates),
            seed=range(seeds),
        )
        runs = jr.sweep(
            train,
            space,
            progress=True,
            chunk=config.rates * seeds * (len(ranks) if digits else 1),
            data=arrays,
            order=order.astype(np.int32),
            strengths=strengths,
            width=width,
            dual_rate=config.dual_rate,
        )
        found[name] = runs.assign(strength=(("arm", "rank"), [strengths[arm] for arm in config.arms]))
    return found


def chosen(runs, unit, arm):
    """An arm at the strength that is best on validation, rate by rate; "none" is the penalty with λ = 0."""
    some = runs.sel(unit=unit, arm="penalty" if arm == "none" else arm)
    some = {"none": some.isel(rank=[0]), "penalty": some.isel(rank=slice(1, None))}.get(arm, some)
    learned = some["val_accuracy"].where(~some["diverged"], 0.0).mean("seed")
    return some.isel(rank=learned.argmax("rank"))


def stable(runs, accuracy) -> tuple[float, float]:
    """The largest rate at which all seeds stay finite and learn, and their mean test accuracy there."""
    fine = (~runs["diverged"] & (runs["test_accuracy"] >= accuracy)).all("seed").values
    if not fine.any():
        return 0.0, 0.0
    last = runs.isel(lr=np.flatnonzero(fine)[-1])
    return last["lr"].item(), last["test_accuracy"].mean().item()


def matched(runs, unit, arm) -> np.ndarray:
    """Dead units of each stable run with λ > 0, and of `arm` at its training loss: interpolated over the bounds."""
    pairs = []
    some = runs.sel(unit=unit).transpose("arm", "lr", "seed", "rank", ...)
    some = some.assign(level=np.log(some["train_loss"]), fine=~some["diverged"] & (some["test_accuracy"] >= STABLE))
    level, dead, fine = (some[name].sel(arm="penalty").values for name in ("level", "dead", "fine"))
    levels, counts, there = (some[name].sel(arm=arm).values for name in ("level", "dead", "fine"))
    for i, j, k in np.argwhere(fine):
        order = [rank for rank in np.argsort(levels[i, j]) if there[i, j, rank]]
        if k and order and levels[i, j, order[0]] <= level[i, j, k] <= levels[i, j, order[-1]]:
            pairs.append((dead[i, j, k], np.interp(level[i, j, k], levels[i, j, order], counts[i, j, order])))
    return np.array(pairs).reshape(-1, 2)


def rows(runs, config) -> list:
    """The largest stable rates, the norms on the way, and the dead units at equal training loss."""
    found = []
    for name, some in runs.items():
        for unit in some["unit"].values:
            here, rates, kind = f"{name}, {unit}", {}, some.sel(unit=unit)
            for arm in ("none", *config.arms):
                rates[arm], accuracy = stable(chosen(some, unit, arm), STABLE)
                found.append(published.Seen(f"{here}, {arm}: largest stable learning rate", rates[arm]))
                found.append(published.Seen(f"{here}, {arm}: test accuracy there", accuracy))
            ratio = rates["unit balls"] / rates["penalty"]
            found.append(published.Range(f"{here}: largest stable rate, unit balls / penalty", ratio, low=1.0))
            start = kind["trace.matrix"].isel(lr=0, rank=0).sel(arm="penalty").values[..., 0].mean()
            for arm, ranks in (("none", slice(0, 1)), ("penalty", slice(1, None))):
                grown = kind["trace.matrix"].sel(arm="penalty").isel(rank=ranks).max().item() / start
                found.append(published.Range(f"{here}, {arm}: largest norm / that at the start", grown, low=100.0))
            for arm, measure in (("matrix ball", "matrix"), ("unit balls", "column")):
                if arm in config.arms:
                    over = (kind[f"trace.{measure}"] / kind["strength"]).sel(arm=arm).max().item()
                    found.append(published.Range(f"{here}, {arm}: largest norm / bound, all runs", over, high=1.0001))
            if unit == "relu" and some.sizes["seed"] > 1:  # of tanh units none dies, a single run says little
                penalized = kind.sel(arm="penalty").isel(rank=slice(1, None))
                most = penalized["dead"].where(penalized["test_accuracy"] >= STABLE).max().item()
                found.append(published.Range(f"{here}, penalty: most dead units of a stable run", most, low=1.0))
                for arm in (arm for arm in BALLS if arm in config.arms):
                    pairs = matched(some, unit, arm)
                    at = f"{here}, {arm} and penalty at the same loss"
                    found.append(published.Seen(f"{at}: penalized runs", len(pairs)))
                    found.append(published.Seen(f"{at}: dead units, penalty", pairs[:, 0].mean()))
                    found.append(published.Range(f"{at}: dead units, {arm}", pairs[:, 1].mean(), high=0.5))
    return found


def figure(runs, config):
    """Accuracy, the largest norm and constant units against the learning rate; dead units against the loss."""
    import matplotlib.pyplot as plt

    styles = {
        arm: {"color": c, "marker": m, "label": arm}
        for arm, c, m in zip(ARMS, jr.plotting.COLOURS, "vsD^P", strict=False)
    }
    styles["none"] = {"color": "0.3", "marker": "o", "label": "none"}
    panels = [(name, unit) for name, some in runs.items() for unit in some["unit"].values]
    columns = max(3, len(panels))
    fig, axes = plt.subplots(2, columns, figsize=(4.7 * columns, 8), layout="constrained", squeeze=False)
    for (name, unit), ax in zip(panels, axes[0], strict=False):
        for arm in ("none", *config.arms):
            some = chosen(runs[name], unit, arm)
            accuracy = 100 * some["test_accuracy"]
            ax.semilogx(some["lr"], accuracy.mean("seed"), markersize=4, **styles[arm])
            ax.fill_between(
                some["lr"], accuracy.min("seed"), accuracy.max("seed"), color=styles[arm]["color"], alpha=0.15
            )
        ax.axhline(100 * STABLE, color="0.6", linestyle=":", linewidth=1)
        ax.set(xlabel="learning rate", ylabel="test accuracy, % (band: all seeds)", ylim=(0, 100))
        ax.set_title(f"{name}, {unit} units: where it learns", loc="left")
    axes[0, 0].legend(frameon=False, fontsize="small", loc="lower left")
    for ax in axes[0, len(panels) :]:
        ax.set_axis_off()
    name, unit = panels[0]
    some = runs[name].sel(unit=unit)
    growth, silent, dead, *rest = axes[1]
    for arm in ("none", *config.arms):
        lanes = some.sel(arm="penalty" if arm == "none" else arm)
        lanes = lanes.isel(rank=slice(0, 1) if arm == "none" else slice(arm == "penalty", None))
        norm = lanes["trace.matrix"].max(["rank", "seed", "trace.matrix_dim_0"])
        growth.loglog(lanes["lr"], norm.where(np.isfinite(norm)), markersize=4, **styles[arm])
        share = 100 * chosen(runs[name], unit, arm)["constant"].mean("seed") / config.width
        silent.semilogx(lanes["lr"], share, markersize=4, **styles[arm])
        if arm != "none":
            fine = lanes.where(~lanes["diverged"] & (lanes["test_accuracy"] >= STABLE))
            dead.semilogx(
                fine["train_loss"].values.ravel(),
                fine["dead"].values.ravel(),
                linestyle="",
                markersize=5,
                alpha=0.6,
                **styles[arm],
            )
    growth.set(xlabel="learning rate", ylabel="largest ‖W‖ of a kernel, any time, all strengths")
    growth.set_title(f"{name}, {unit} units: weights without a bound grow", loc="left")
    silent.set(xlabel="learning rate", ylabel="constant hidden units, %", ylim=(-3, 103))
    silent.set_title(f"{name}, {unit} units: why nothing learns", loc="left")
    dead.set(xlabel="training loss at the end", ylabel=f"dead hidden units of {config.width}, stable runs")
    dead.set_title(f"{name}, {unit} units: dead ones, run by run", loc="left")
    for ax in rest:
        ax.set_axis_off()
    return fig


def main(argv=None) -> None:
    """The command line."""
    command.main(__file__, __doc__, Config(), QUICK, run, rows, figure, argv)


if __name__ == "__main__":
    main()
