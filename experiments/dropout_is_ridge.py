"""Noise on the inputs of a linear model is a ridge penalty: dropout, its normal form, and added noise.

    python -m experiments.dropout_is_ridge

For v = d/(1 − d), d the rate of dropout, or v = σ², σ the standard deviation of added noise, and any w,

    E‖y − X̂w‖² = ‖y − Xw‖² + v Σ_j c_j w_j²,   c_j = Σ_i x_ij² (dropout), n (added noise).

First the left side is measured, on a w that solves nothing. Then w is trained on ½‖y − X̂w‖²/n, X̂ drawn anew each step,
and compared with the ridge solution of the right side: for dropout, ridge on columns scaled to one norm.

References:
    S. Wager, S. Wang, P. Liang (2013), Dropout training as adaptive regularization, NeurIPS, section 2.
    C. Bishop (1995), Training with noise is equivalent to Tikhonov regularization, Neural Computation.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg as jr
from experiments import command, published

COST = "2 min on 2 cores shared with other work"
SHOWED = (
    "Over 10⁵ draws each, dropout, its normal form and added noise cost what the formula says, at rates .1 to .9, "
    "within 1.3 standard errors. Trained with noise for 20 000 steps of SGD, the average of the iterates is the "
    "ridge solution, weight by weight: of its distance from least squares at most .3 % is left, at every rate."
)
NOISES = {
    "dropout": jr.noise.dropout,
    "gaussian dropout": jr.noise.gaussian_dropout,
    "added noise": lambda key, x, rate: jr.noise.gaussian_noise(key, x, jnp.sqrt(rate / (1 - rate))),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The linear model, and how often noise is drawn."""

    noises: tuple[str, ...] = tuple(NOISES)
    n: int = 64
    features: int = 8
    rates: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
    draws: int = 100_000
    steps: int = 20_000
    reports: int = 100
    lr: float = 0.4
    seeds: int = 8
    left: float = 0.01  # of the way from least squares to ridge, after training

    def __post_init__(self):
        if not all(0 <= rate < 1 for rate in self.rates):
            raise ValueError(f"--rates must be in [0, 1), got {self.rates}")

    @property
    def grid(self) -> jr.Space:
        """Kinds of noise × rates."""
        return jr.grid(noise=self.noises, rate=self.rates)


QUICK = Config(("dropout", "added noise"), rates=(0.0, 0.3, 0.7), draws=1000, steps=1000, reports=20, seeds=2, left=0.1)


def example(config: Config) -> dict:
    """A design of correlated columns from 1/2 to 2 in size, its targets, and a w that has nothing to do with them."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(config.n, config.features)) + 0.7 * draw.normal(size=(config.n, 1))
    x *= np.geomspace(0.5, 2, config.features)
    w = np.where(np.arange(config.features) % 2, -1, 1) * np.linspace(1.5, 0.5, config.features)
    given = {"x": x, "y": x @ w + 2 * draw.normal(size=config.n), "w": draw.normal(size=config.features)}
    return {name: a.astype(np.float32) for name, a in given.items()}


def measure(noise, rate, example, config) -> dict:
    """The mean of ‖y − X̂w‖² over many draws, and its standard error."""
    x, y, w = example["x"], example["y"], example["w"]

    def loss(key):
        return jnp.sum((y - NOISES[noise](key, x, rate) @ w) ** 2)

    keys = jax.random.split(jax.random.key(0), config.draws)
    losses = jax.lax.map(loss, keys, batch_size=500)
    return {"mean": jnp.mean(losses), "error": jnp.std(losses, ddof=1) / np.sqrt(config.draws)}


def train(noise, rate, seed, example, config) -> dict:
    """SGD on noisy inputs at a constant learning rate, and the average of its iterates, the later ones the more."""
    x, y = example["x"], example["y"]
    largest = jnp.linalg.norm(x, 2) ** 2 / len(x)
    tx = optax.sgd(config.lr * (1 - rate) / largest)  # E X̂ᵀX̂ is at most XᵀX/(1 − rate) for dropout

    def loss(w, key):
        return jnp.mean((y - NOISES[noise](key, x, rate) @ w) ** 2) / 2

    def step(carry, t):
        w, average, state = carry
        updates, state = tx.update(jax.grad(loss)(w, jax.random.fold_in(jax.random.key(seed), t)), state)
        w = optax.apply_updates(w, updates)
        return (w, average + 4 / (t + 4) * (w - average), state), None

    def block(carry, t):
        carry, _ = jax.lax.scan(step, carry, t)
        return carry, carry[1]

    w = jnp.zeros(x.shape[1])
    _, averages = jax.lax.scan(block, (w, w, tx.init(w)), jnp.arange(config.steps).reshape(config.reports, -1))
    return {"average": averages}


def run(config: Config) -> dict:
    """What was measured, what was trained, and the ridge solutions, by rate."""
    import xarray

    given = {"example": example(config), "config": config}
    measured = jr.sweep(measure, config.grid, **given)
    trained = jr.sweep(train, config.grid * jr.grid(seed=range(config.seeds)), **given)
    x, y, w = (given["example"][name].astype(float) for name in "xyw")
    v = np.array(config.rates) / (1 - np.array(config.rates))
    penalties = {"dropout": (x**2).sum(0) @ w**2, "added noise": len(x) * w @ w}
    solve = {"dropout": (v / len(x), "norm"), "added noise": (v, None)}  # ‖y − Xw‖²/2n + λ/2 ‖w‖², columns scaled
    ridge, formula = {}, {}
    for name in config.noises:
        form = name.replace("gaussian ", "")  # dropout's mean and variance, so its penalty
        lams, scale = solve[form]
        ridge[name] = jr.convex.ridge(x, y, lams, fit_intercept=False, standardize=scale)["coef"].values
        formula[name] = np.sum((y - x @ w) ** 2) + v * penalties[form]
    exact = xarray.Dataset(
        {
            "formula": (("noise", "rate"), [formula[name] for name in config.noises]),
            "ridge": (("noise", "rate", "feature"), [ridge[name] for name in config.noises]),
        },
        {"noise": list(config.noises), "rate": list(config.rates)},
    )
    return {"measured": measured, "trained": trained, "exact": exact}


def left_over(results):
    """Of the way from least squares to ridge, what is left between the ridge solution and the average of all seeds."""
    average = results["trained"]["average"].rename(average_dim_0="report", average_dim_1="feature").mean("seed")
    ridge = results["exact"]["ridge"]
    way = np.sqrt(((ridge - ridge.sel(rate=0)) ** 2).sum("feature"))
    return np.sqrt(((average - ridge) ** 2).sum("feature")) / way


def rows(results, config: Config) -> list:
    """Standard errors between the mean of draws and the formula; how near training came to ridge."""
    measured, exact = results["measured"], results["exact"]
    found = []
    for name in config.noises:
        for rate in config.rates:
            some = measured.sel(noise=name, rate=rate)
            gap = float(some["mean"] - exact["formula"].sel(noise=name, rate=rate))
            if rate:
                found.append(published.Row(f"{name}, v of rate {rate:g}: s.e. off", gap / float(some["error"]), 0, 4))
            else:
                gap /= float(some["mean"])
                found.append(published.Row(f"{name}, rate 0: relative difference", gap, 0, 1e-5))
    left = left_over(results).isel(report=-1)
    for name in config.noises:
        worst = float(left.sel(noise=name)[1:].max())
        found.append(published.Range(f"{name}: share of the way to ridge left, worst rate", worst, high=config.left))
    return found


def figure(results, config: Config):
    """The penalty over v; the weights of dropout over the rate; how training converges."""
    import matplotlib.pyplot as plt

    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    measured, exact = results["measured"].isel(rate=slice(1, None)), results["exact"]
    rates = np.array(config.rates)
    v = rates / (1 - rates)
    base = exact["formula"].sel(rate=0)
    for name, colour, marker in zip(config.noises, jr.plotting.COLOURS, ("o", "x", "s"), strict=False):
        if name != "gaussian dropout":  # the line of dropout
            left.loglog(v[1:], (exact["formula"] - base).sel(noise=name)[1:], color=colour, lw=1.2)
        some = (measured["mean"] - base).sel(noise=name)
        left.loglog(v[1:], some, marker, ms=7, mfc="none", color=colour, label=name)
    left.plot([], [], color="0.3", lw=1.2, label="formula")
    left.set(xlabel="v = d/(1 − d), or σ² of added noise", ylabel="E‖y − X̂w‖² − ‖y − Xw‖²")
    left.set_title("any w: noise costs v Σ c_j w_j²", loc="left")
    average = results["trained"]["average"].sel(noise="dropout").mean("seed")[:, -1]
    for j in range(config.features):
        colour = plt.get_cmap("viridis")(0.9 * j / max(config.features - 1, 1))
        middle.plot(rates, exact["ridge"].sel(noise="dropout")[:, j], color=colour, lw=1.2)
        middle.plot(rates, average[:, j], "o", ms=5, color=colour)
    middle.axhline(0, color="0.8", lw=1, zorder=0)
    middle.plot([], [], color="0.3", lw=1.2, label="ridge, columns of one norm, λ = v/n")
    middle.plot([], [], "o", ms=5, color="0.3", label="trained with dropout")
    middle.set(xlabel="rate d of dropout", ylabel=f"weights w_1 … w_{config.features}")
    middle.set_title("each weight goes to that of ridge", loc="left")
    left_of = left_over(results).sel(noise="dropout")
    steps = config.steps // config.reports * np.arange(1, config.reports + 1)
    for rate, shade in zip(config.rates[1:], np.linspace(0.75, 0.0, len(rates) - 1), strict=True):
        right.loglog(steps, left_of.sel(rate=rate), color=str(shade), label=f"d = {rate:g}")
    start = float(left_of.sel(rate=config.rates[-1])[0])
    right.loglog(steps, start * (steps / steps[0]) ** -0.5, ":", color=jr.plotting.COLOURS[1], label="slope −½")
    right.set(xlabel="steps of SGD, dropout drawn anew in each", ylabel="‖w − ridge‖ / ‖least squares − ridge‖")
    right.set_title(f"converging, mean of {config.seeds} seeds", loc="left")
    for ax in (left, middle, right):
        ax.legend(frameon=False, fontsize="small")
    return fig


def main(argv=None) -> None:
    """The command line."""
    command.main(__file__, __doc__, Config(), QUICK, run, rows, figure, argv)


if __name__ == "__main__":
    main()
