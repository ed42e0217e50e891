"""L2 keeps tanh units where they are linear: weights go to 0 as λ grows, and the network to a linear map.

    python -m experiments.tanh_regime

Two hidden layers of tanh, (λ/2)‖W‖² on every kernel in the loss, Adam, on digits and on MNIST-1D. Of each network: the
share of pre-activations with |z| < .5, R² of the best linear fit to its outputs, the norm of its weights, test error;
beside it the same network with the identity for tanh, which is linear whatever λ is. All on training inputs but the
test error.

References:
    I. Goodfellow, Y. Bengio, A. Courville (2016), Deep Learning, sections 5.2.2 and 7.1; A. Ng, Deep Learning
    specialization, course 2, Why regularization reduces overfitting, where the claim is made.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg as jr
from experiments import command, data, published

COST = "6 min on 2 cores shared with other work"
SHOWED = (
    "As λ grows weights shrink, pre-activations move into |z| < .5 and R² rises to 1, at every step of λ: on "
    "MNIST-1D from .69 to .99 at λ = .1, where the test error, 69 %, is that of a linear network; from λ = .3 all "
    "weights are 0. But what helps is not this: the least test error, 36 % at λ = .003 (42 % at λ = 10⁻⁵, 66 % "
    "for the best linear network), comes at R² = .70, hardly above that of the least λ. On digits, nearly linear "
    "at any λ (R² ≥ .93), decay changes the error by less than the seeds do until it is too strong."
)

UNITS = {"tanh": jnp.tanh, "identity": lambda z: z}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is swept, and how each network is trained."""

    datasets: tuple[str, ...] = ("digits", "mnist1d")
    lams: int = 11
    weakest: float = 1e-5
    strongest: float = 1.0
    seeds: int = 4
    width: int = 64
    steps: int = 4000
    batch: int = 100
    lr: float = 3e-3


QUICK = Config(datasets=("digits",), lams=4, weakest=1e-3, seeds=2, width=16, steps=300, lr=1e-2)


def train(unit, lam, seed, x_train, y_train, x_test, y_test, config) -> dict:
    """One network, and how linear it became."""
    key, order = jax.random.split(jax.random.key(seed))
    sizes = [x_train.shape[1], config.width, config.width, 10]
    shapes = list(itertools.pairwise(sizes))
    drawn = jax.random.normal(key, (sum(n * m for n, m in shapes),))  # in one: XLA takes seconds over each draw
    params, start = {}, 0
    for i, (n, m) in enumerate(shapes):
        kernel = drawn[start : start + n * m].reshape(n, m) / n**0.5
        params[f"layer{i}"], start = {"kernel": kernel, "bias": jnp.zeros(m)}, start + n * m

    def preactivations(params, x):
        z = []
        for layer in params.values():
            z.append((UNITS[unit](z[-1]) if z else x) @ layer["kernel"] + layer["bias"])
        return z

    def cross_entropy(params, x, y):
        return optax.losses.softmax_cross_entropy_with_integer_labels(preactivations(params, x)[-1], y).mean()

    loss = jr.penalized(cross_entropy, jr.by_path(params, {"*/kernel": jr.SquaredL2(lam)}))
    tx = optax.adam(optax.cosine_decay_schedule(config.lr, config.steps))

    def step(carry, key):
        params, state = carry
        rows = jax.random.randint(key, (config.batch,), 0, len(x_train))
        grads, _ = jax.grad(loss, has_aux=True)(params, x_train[rows], y_train[rows])
        updates, state = tx.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), jax.random.split(order, config.steps))
    # Without the last bias, which would take the digits of outputs that hardly vary.
    *hidden, outputs = preactivations(params | {"layer2": {**params["layer2"], "bias": 0.0}}, x_train)
    norms = jr.diagnostics.norms(params, "*/kernel")
    return {
        "share": jr.diagnostics.linear_share(jnp.stack(hidden)),
        "r2": jr.diagnostics.linear_r2(x_train, outputs),
        "norm": jnp.linalg.norm(jnp.stack([*norms.values()])),
        "train_loss": cross_entropy(params, x_train, y_train),
        "test_error": jnp.mean(jnp.argmax(preactivations(params, x_test)[-1], -1) != y_test),
    }


def run(config: Config) -> dict:
    """One sweep a dataset; inputs with mean 0 and variance 1 over all pixels."""
    space = jr.grid(unit=[*UNITS], lam=np.geomspace(config.weakest, config.strongest, config.lams))
    runs = {}
    for name in config.datasets:
        some = data.load(name)
        mean, std = some["x_train"].mean(0), some["x_train"].std()
        for part in ("x_train", "x_test"):
            some[part] = (some[part] - mean) / std
        del some["x_val"], some["y_val"]
        runs[name] = jr.sweep(train, space * jr.grid(seed=range(config.seeds)), config=config, progress=True, **some)
    return runs


def rows(runs, config: Config) -> list:
    """What λ does to each measure, means over seeds."""
    found = []
    for name, every in runs.items():
        tanh = every.sel(unit="tanh")
        mean = tanh.mean("seed")
        first, last = mean.isel(lam=0), mean.isel(lam=-1)
        best = mean.isel(lam=mean["test_error"].argmin("lam"))
        line = every.sel(unit="identity").mean("seed")["test_error"].min("lam")
        error = 100 * tanh["test_error"].sel(lam=best["lam"])
        alive = mean.where(mean["norm"] > 0.01 * first["norm"], drop=True).isel(lam=-1)
        strong = f"λ = {float(alive['lam']):.3g}, the last that leaves weights"
        beyond = 100 * float(alive["test_error"] - every.sel(unit="identity", lam=alive["lam"])["test_error"].mean())
        found += [
            published.Seen(f"{name}: R² of the best linear fit at λ = {config.weakest:g}", float(first["r2"])),
            published.Range(f"{name}: R² at λ = {config.strongest:g}", float(last["r2"]), low=0.999),
            published.Range(
                f"{name}: largest fall of R² to the next λ", -float(mean["r2"].diff("lam").min()), high=0.01
            ),
            published.Range(f"{name}: R² at {strong}", float(alive["r2"]), low=0.97),
            published.Seen(f"{name}: test error there over that of the identity network, points", beyond),
            published.Seen(f"{name}: share of |z| < .5 at λ = {config.weakest:g}", float(first["share"])),
            published.Range(f"{name}: share at λ = {config.strongest:g}", float(last["share"]), low=0.999),
            published.Seen(f"{name}: ‖W‖ at λ = {config.weakest:g}", float(first["norm"])),
            published.Range(f"{name}: ‖W‖ at λ = {config.strongest:g}", float(last["norm"]), high=0.1),
            published.Range(
                f"{name}: largest rise of ‖W‖ to the next λ", float(mean["norm"].diff("lam").max()), high=0.0
            ),
            published.Seen(f"{name}: test error at λ = {config.weakest:g}, %", 100 * float(first["test_error"])),
            published.Seen(f"{name}: least test error, at λ = {float(best['lam']):.3g}, %", float(error.mean())),
            published.Seen(f"{name}: its standard deviation over seeds", float(error.std(ddof=1))),
            published.Seen(f"{name}: R² there", float(best["r2"])),
            published.Seen(f"{name}: share there", float(best["share"])),
            published.Seen(f"{name}: least test error of the identity network, %", 100 * float(line)),
        ]
    return found


def figure(runs, config: Config):
    """Above, how linear the network is and how small its weights; below, test error beside the linear network's."""
    import matplotlib.pyplot as plt

    names = {"digits": "digits", "mnist1d": "MNIST-1D"}
    fig, axes = plt.subplots(
        2, len(runs), figsize=(5.5 * len(runs), 6.6), layout="constrained", sharex=True, sharey="row", squeeze=False
    )
    for (name, every), (upper, lower) in zip(runs.items(), axes.T, strict=True):

        def band(ax, some, colour, label, marker):
            ax.fill_between(some["lam"], some.min("seed"), some.max("seed"), color=colour, alpha=0.2, lw=0)
            ax.semilogx(some["lam"], some.mean("seed"), marker + "-", ms=4, color=colour, label=label)

        tanh, colours = every.sel(unit="tanh"), jr.plotting.COLOURS
        band(upper, tanh["r2"], colours[0], "R² of the best linear fit to the outputs", "o")
        band(upper, tanh["share"], colours[1], "share of pre-activations with |z| < .5", "s")
        norm = tanh["norm"] / tanh["norm"].mean("seed").isel(lam=0)
        band(upper, norm, colours[2], f"‖W‖ over that at λ = {config.weakest:g}", "^")
        band(lower, 100 * tanh["test_error"], colours[0], "tanh", "o")
        band(
            lower,
            100 * every["test_error"].sel(unit="identity"),
            "0.45",
            "identity in its place: a linear network",
            "D",
        )
        upper.set_title(names[name], loc="left")
        lower.set(xlabel="λ of (λ/2)‖W‖²")
    axes[0, 0].set(ylabel="share, or R²", ylim=(0, 1.05))
    axes[1, 0].set(ylabel="test error, %", ylim=(0, 100))
    axes[0, 0].legend(frameon=False, fontsize="small")
    axes[1, 0].legend(frameon=False, fontsize="small", loc="upper left")
    fig.suptitle(f"two hidden layers of {config.width} tanh units; bands: all {config.seeds} seeds", x=0.01, ha="left")
    return fig


def main(argv=None) -> None:
    """The command line."""
    command.main(__file__, __doc__, Config(), QUICK, run, rows, figure, argv)


if __name__ == "__main__":
    main()
