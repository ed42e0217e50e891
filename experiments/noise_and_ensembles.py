"""Dropout and batch normalization as regularizers, beside ensembles: test error and calibration on few digits.

    python -m experiments.noise_and_ensembles

Every network is 64-H-H-10, ReLU, Adam, the same steps of the same batch size; of every kind, five from other starts are
trained, as one more vmapped axis: alone they are what the kind does, their mixture is the ensemble of it. Bagging is
an ensemble with bootstrap weights on the examples. Batch normalization takes its moments over B of the batch's examples
at a time, so that B changes its noise and nothing else. Each seed has its own split of the digits.

References:
    N. Srivastava et al. (2014), Dropout: a simple way to prevent neural networks from overfitting, JMLR.
    S. Ioffe, C. Szegedy (2015), Batch normalization, ICML; E. Hoffer et al. (2017), Train longer, generalize better,
    NeurIPS, section 4 (moments over parts of a batch).
    B. Lakshminarayanan, A. Pritzel, C. Blundell (2017), Simple and scalable predictive uncertainty estimation, NeurIPS.
"""

import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg as jr
from experiments import command, data, published

COST = "37 min on 2 cores shared with other work"
SHOWED = (
    "The variance of a batch mean is σ²/B to .2 %, and γ = σ, β = μ give x back to rounding. On 300 digits (8 "
    "splits) one plain network errs on 5.4 % with NLL .216, five together on 4.9 %, .177, at the best dropout "
    "rate one on 5.2 %, .200 and five on 4.7 %, .167 (validation chose .7, the largest tried, in 5 splits). One "
    "network with batch normalization over B = 64, 32, 16, 8, 4 has NLL .163, .164, .173, .195, .197: better than "
    "dropout, but hardly by its noise, as less of it was better; five such networks, B = 32, are best: 3.8 %, NLL "
    ".126. Bagging makes each network worse (.274); five come to the NLL of five plain ones (.175), better "
    "calibrated, with more errors (5.4 %)."
)
cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels
METRICS = {"error": "test error", "nll": "NLL", "brier": "Brier score", "ece": "calibration error"}


@dataclasses.dataclass(frozen=True)
class Config:
    """The size of the problem, and what is swept."""

    train: int = 300
    val: int = 300
    width: int = 128
    depth: int = 2  # hidden layers
    members: int = 5
    steps: int = 1000
    batch: int = 64
    lr: float = 2e-3
    rates: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7)
    parts: tuple[int, ...] = (4, 8, 16, 32, 64)  # the B of batch normalization
    sizes: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128, 256)  # of batches whose mean is taken
    draws: int = 4000
    seeds: int = 8


QUICK = Config(members=3, width=32, depth=1, steps=100, rates=(0.0, 0.3), parts=(), sizes=(4, 64), draws=500, seeds=4)


def initial(key, config) -> dict:
    """Weights N(0, 2/fan_in), biases 0, and batch normalization with γ = 1, β = 0."""
    shapes = list(itertools.pairwise([64, *[config.width] * config.depth, 10]))
    ends = np.cumsum([a * b for a, b in shapes])
    drawn = jnp.split(jax.random.normal(key, (ends[-1],)), ends[:-1])  # one draw: each takes a second to compile
    return {
        "kernel": [w.reshape(shape) * np.sqrt(2 / shape[0]) for w, shape in zip(drawn, shapes, strict=True)],
        "bias": [jnp.zeros(b) for _, b in shapes],
        "norm": [{"scale": jnp.ones(b), "bias": jnp.zeros(b)} for _, b in shapes[:-1]],
    }


def forward(params, stats, x, keys=None, rate=None) -> tuple:
    """Logits and the moments of batch normalization, which is there if these are; with keys as in training."""
    layer, new = nn.BatchNorm(use_running_average=keys is None, momentum=0.95), []
    for i, (kernel, bias) in enumerate(zip(params["kernel"], params["bias"], strict=True)):
        if i:
            x = nn.relu(x)
            x = x if keys is None or rate is None else jr.noise.dropout(keys[i - 1], x, rate)
        x = x @ kernel + bias
        if i < len(stats):
            variables = {"params": params["norm"][i], "batch_stats": stats[i]}
            x, state = layer.apply(variables, x, mutable="batch_stats")
            new.append(state["batch_stats"])
    return x, new


def fit(key, weights, x, y, rate, part, config) -> tuple:
    """Adam on the weighted cross-entropy of batches drawn anew."""
    start, draw, drop = jax.random.split(key, 3)
    params, tx = initial(start, config), optax.adam(config.lr)
    moments = {"mean": jnp.zeros(config.width), "var": jnp.ones(config.width)}
    stats = [] if part is None else [moments] * config.depth
    shape = (1, config.batch) if part is None else (config.batch // part, part)
    rows = (len(x) * jax.random.uniform(draw, (config.steps, *shape))).astype(int)

    def loss(params, stats, rows, keys):
        logits, new = jax.vmap(lambda x: forward(params, stats, x, keys, rate))(x[rows])
        losses = cross_entropy(logits, y[rows])
        return jnp.mean(weights[rows] * losses), jax.tree.map(lambda s: s.mean(0), new)

    def step(carry, given):
        params, stats, state = carry
        grads, stats = jax.grad(loss, has_aux=True)(params, stats, *given)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), stats, state), None

    carry = params, stats, tx.init(params)
    keys = jax.random.split(drop, (config.steps, config.depth))
    (params, stats, _), _ = jax.lax.scan(step, carry, (rows, keys))
    return params, stats


def scores(logits, labels) -> dict:
    """Error, negative log-likelihood, Brier score and expected calibration error."""
    return {
        "error": jnp.mean(jnp.argmax(logits, -1) != labels),
        "nll": cross_entropy(logits, labels).mean(),
        "brier": jr.ensemble.brier_score(logits, labels).mean(),
        "ece": jr.ensemble.calibration_error(logits, labels),
    }


def train(seed, digits, config, rate=None, bagged=None, part=None) -> dict:
    """Test scores of networks of one kind, each alone (their mean) and together, and the NLL to choose a rate by."""
    x, y, n, held = digits["x"], digits["y"], config.train, config.train + config.val
    order = digits["order"][seed]
    x, y = x[order], y[order]
    start, resample = jax.random.split(jax.random.key(seed))
    weights = jnp.ones((config.members, n))
    if bagged is not None:
        weights = jnp.where(bagged, jr.ensemble.bootstrap_weights(resample, n, config.members), weights)

    def member(key, weights):
        return forward(*fit(key, weights, x[:n], y[:n], rate, part, config), x[n:])[0]

    logits = jax.vmap(member)(jax.random.split(start, config.members), weights)
    test, truth = logits[:, config.val :], y[held:]
    both = jnp.concatenate([test, jr.ensemble.mixture_logits(test)[None]])
    found = jax.vmap(scores, in_axes=(0, None))(both, truth)
    return {
        "alone": jax.tree.map(lambda score: score[:-1].mean(), found),
        "together": jax.tree.map(lambda score: score[-1], found),
        "val_nll": cross_entropy(
            logits[:, : config.val], jnp.broadcast_to(y[n:held], (config.members, config.val))
        ).mean(),
    }


def batch_noise(size, seed, digits, config) -> dict:
    """The variance of the batch mean in flax's layer, over that of its units; and x back by γ = σ, β = μ."""
    key, rows = jax.random.key(seed), (config.draws, max(config.sizes))
    z = digits["x"] @ initial(key, config)["kernel"][0]
    rows = jax.random.randint(key, rows, 0, len(z))
    layer = nn.BatchNorm(use_running_average=False, momentum=0.0, epsilon=0.0)  # its state: this batch's moments
    inside = (jnp.arange(rows.shape[1]) < size)[:, None]

    def normalise(rows, params):
        x, state = layer.apply({"params": params, "batch_stats": zero}, z[rows], mask=inside, mutable="batch_stats")
        return x, state["batch_stats"]

    zero = {"mean": jnp.zeros(config.width), "var": jnp.zeros(config.width)}
    unit = {"scale": jnp.ones(config.width), "bias": jnp.zeros(config.width)}
    means = jax.lax.map(lambda rows: normalise(rows, unit)[1]["mean"], rows, batch_size=100)
    batch = normalise(rows[0], unit)[1]
    back, _ = normalise(rows[0], {"scale": jnp.sqrt(batch["var"]), "bias": batch["mean"]})
    off = jnp.max(jnp.where(inside, jnp.abs(back - z[rows[0]]), 0)) / z.std()
    return {"variance": jnp.mean(means.var(0) / z.var(0)), "off": off}


def run(config: Config) -> dict:
    """All kinds of networks, and the noise of batch normalization."""
    arrays = data.load("digits")
    digits = {name: np.concatenate([arrays[f"{name}_{part}"] for part in ("train", "val", "test")]) for name in "xy"}
    draw = np.random.default_rng(0)
    digits["order"] = np.stack([draw.permutation(len(digits["y"])) for _ in range(config.seeds)])
    seeds, given = jr.grid(seed=range(config.seeds)), {"digits": digits, "config": config, "chunk": 2 * config.seeds}
    kinds = jr.zipped(rate=[*config.rates, 0.0], bagged=[*(False for _ in config.rates), True])
    results = {
        "networks": jr.sweep(train, kinds * seeds, **given),
        "noise": jr.sweep(batch_noise, jr.grid(size=config.sizes) * seeds, **given),
    }
    if config.parts:
        results["normalised"] = jr.sweep(train, jr.grid(part=jr.static(config.parts)) * seeds, **given)
    return results


def kinds(results, config: Config) -> dict:
    """The runs of each kind by name, the first being of plain networks."""
    networks = results["networks"]
    by_rate = networks.isel(config=slice(0, len(config.rates)))
    best = by_rate["val_nll"].argmin("config")  # each seed's own
    arms = {"plain": networks.isel(config=0), "dropout, best rate": by_rate.isel(config=best)}
    arms["bagging"] = networks.isel(config=-1)
    if "normalised" in results:
        arms |= {f"batch norm, B = {part}": results["normalised"].sel(part=part) for part in config.parts}
    return arms


def standard_error(scores) -> float:
    """Of the mean over seeds."""
    return float(scores.std(ddof=1) / np.sqrt(scores.size))


def rows(results, config: Config) -> list:
    """The noise of batch normalization, what an ensemble is worth, and all scores with their standard errors."""
    noise, found = results["noise"], kinds(results, config)
    variance, plain = noise["variance"].mean("seed"), found["plain"]
    slope = np.polyfit(np.log(config.sizes), np.log(variance), 1)[0]
    judged = [
        published.Row("slope of log variance of the batch mean over log B", slope, -1, 0.02),
        published.Row("variance of the batch mean · B / σ², mean", float((variance * noise["size"]).mean()), 1, 0.02),
        published.Range("γ = σ, β = μ: largest |output − input| / σ", float(noise["off"].max()), high=1e-5),
    ]
    for metric in ("error", "nll", "brier"):
        gain = (plain[f"alone.{metric}"] - plain[f"together.{metric}"]).values
        low = 0 if metric == "error" else 2
        name = f"{METRICS[metric]}: plain, one net − {config.members} nets, in s.e."
        judged.append(published.Range(name, gain.mean() / standard_error(gain), low=low))
    seen = [
        published.Seen(f"{METRICS[metric]}: {name}, {several}", some.mean(), f"s.e. {standard_error(some):.4f}")
        for metric in METRICS
        for name, arm in found.items()
        for how, several in (("alone", "one net"), ("together", f"{config.members} nets"))
        for some in [arm[f"{how}.{metric}"].values]
    ]
    return judged + seen


def figure(results, config: Config):
    """The noise of the batch mean; NLL over the rate of dropout; what each kind changes in error, NLL, calibration."""
    import matplotlib.pyplot as plt

    places = [["noise", "error", "nll", "ece"], ["rate", "error", "nll", "ece"]]
    fig, axes = plt.subplot_mosaic(places, figsize=(14, 6), layout="constrained", width_ratios=[1.3, 1, 1, 1])
    noise, rate, sizes = axes["noise"], axes["rate"], np.array(config.sizes)
    hows = {"alone": ("one net", jr.plotting.COLOURS[1], 0.1), "together": ("together", jr.plotting.COLOURS[0], -0.1)}
    noise.loglog(sizes, 1 / sizes, color="0.3", lw=1, label="1/B")
    noise.loglog(sizes, results["noise"]["variance"].mean("seed"), "o", mfc="none", color="0.3", label="measured")
    noise.set(xlabel="batch size B", ylabel="variance of its mean / σ²")
    noise.set_xticks(sizes, [str(size) for size in sizes])
    noise.minorticks_off()
    noise.set_title("batch normalization: noise of variance σ²/B", loc="left")
    by_rate, found = results["networks"].isel(config=slice(0, len(config.rates))), kinds(results, config)
    for how, (_, colour, _) in hows.items():
        nll = by_rate[f"{how}.nll"].values
        name = "one net" if how == "alone" else f"{config.members} nets together"
        rate.errorbar(config.rates, nll.mean(1), [*map(standard_error, nll)], fmt="o-", ms=4, color=colour, label=name)
    rate.set(xlabel="rate of dropout", ylabel="test NLL, nats")
    rate.set_title("dropout, ± 1 s.e.", loc="left")
    for metric, scale in (("error", 100), ("nll", 1), ("ece", 100)):
        ax, plain = axes[metric], found["plain"][f"alone.{metric}"].values
        for place, arm in enumerate(found.values()):
            for how, (name, colour, shift) in hows.items():
                change = scale * (arm[f"{how}.{metric}"].values - plain)
                ax.plot(change, np.full(len(change), shift - place), ".", ms=3, color=colour, alpha=0.4)
                error = 2 * standard_error(change)
                ax.errorbar(change.mean(), shift - place, xerr=error, fmt="o", ms=6, color=colour, label=name)
        ax.set_ylim(-len(found) - 0.4, 0.5)
        ax.axvline(0, color="0.5", ls=":", lw=1, zorder=0)
        ax.set_yticks(-np.arange(len(found)), [*found] if metric == "error" else [""] * len(found))
        unit = ",\npercentage points" if scale > 1 else ""
        ax.set_xlabel(f"change from one plain net{unit}")
        ax.set_title(f"{METRICS[metric]}\n(one plain net: {scale * plain.mean():.3g}{' %' * (scale > 1)})", loc="left")
    noise.legend(frameon=False)
    rate.legend(frameon=False, fontsize="small")
    handles, names = axes["error"].get_legend_handles_labels()
    names[1] = f"{config.members} together"
    axes["error"].legend(
        handles[:2], names[:2], fontsize="small", title="mean ± 2 s.e.; · a seed", title_fontsize="small"
    )
    return fig


def main(argv=None) -> None:
    """The command line."""
    command.main(__file__, __doc__, Config(), QUICK, run, rows, figure, argv)


if __name__ == "__main__":
    main()
