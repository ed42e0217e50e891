"""Grokking is a sweep over λ: steps until a network that knows its examples can add modulo p, by decay and by norm.

    python -m experiments.grokking

ReLU(U[a] + V[b])·W learns a + b mod p from half of all pairs, full batch, by AdamW. It fits them within 50 steps; how
long after that it takes to get the other half right is set by the decay. A second sweep has no decay, but is put back
onto the sphere ‖(U, V, W)‖ = r after every step. Entries start as N(0, 1/fan_in), fan_in being 2p for U and V, whose
inputs are two one-hot vectors. Writes <out>/grokking_decay.nc, grokking_norm.nc, grokking.json and .png, and prints
a table. `omnigrok` is the same on images.

References:
    A. Power et al. (2022), Grokking: generalization beyond overfitting on small algorithmic datasets;
    Z. Liu, E. J. Michaud, M. Tegmark (2023), Omnigrok: grokking beyond algorithmic data, ICLR.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg as jr
from experiments import command, published

COST = "24 min on 2 cores shared with other work"
SHOWED = (
    "With any decay or none, 50 steps fit the training half. With decays .1 to 1.6 all seeds then get the other "
    "half right, after 365 to 450 steps over the decay at .1 to .4, and more at .8 and 1.6; none does at .05 "
    "(test accuracy .58 to .68 after 8000 steps) or at 0 (under .01), and there the norm grows on, to 450 and "
    "870. Held at norm 60, 80 or 100 without decay it takes 500, 600 or 975 steps at most; at 18, the initial "
    "norm, it fits only nine tenths and ends at .25 to .36 after 4000, at 150 it fits and ends at .09 to .15. "
    "With fan_in p for 2p (initial norm 24), two seeds at decay .4 took 975 and 1150 steps: the same."
)
STEPS = {0.1: "4000 to 4600", 0.2: "1900 to 2200", 0.4: "1050 to 1150", 0.8: "650 to 700", 1.6: "500"}
PROPORTIONAL, PRODUCT = (0.1, 0.2, 0.4), (330, 530)  # at these decays steps × decay is to be in this range
IN_TIME = {60: 1500, 80: 1500, 100: 1500}  # radius -> steps within which it is to grok; the others not at all


@dataclasses.dataclass(frozen=True)
class Config:
    """The task, and what is swept."""

    p: int = 59
    width: int = 256
    decays: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    radii: tuple[float, ...] = (18.0, 60.0, 80.0, 100.0, 150.0)
    seeds: int = 3
    lr: float = 1e-2
    steps: int = 8000  # at most, with decay
    norm_steps: int = 4000  # at most, on a sphere
    every: int = 25  # steps between two looks at the accuracy
    grokked: float = 0.95  # the test accuracy at which a run ends


QUICK = Config(width=64, decays=(0.0, 1.6), radii=(60.0,), seeds=1, lr=2e-2, steps=450, norm_steps=450, grokked=0.3)


def optimizer(decay, config):
    """AdamW."""
    return optax.chain(optax.adam(config.lr, b2=0.98), jr.decay(jr.SquaredL2(decay), config.lr))


def on_sphere(params, radius):
    """All parameters as one vector, put back to norm `radius`; None leaves them alone."""
    return params if radius is None else optax.projections.projection_l2_sphere(params, jnp.float32(radius))


def init(seed, config, decay=0.0, radius=None) -> dict:
    """Weights, and which pairs are for training."""
    split, *keys = jax.random.split(jax.random.key(seed), 4)
    shapes = {"u": (config.p, config.width), "v": (config.p, config.width), "w": (config.width, config.p)}
    fan_in = {"u": 2 * config.p, "v": 2 * config.p, "w": config.width}
    params = {
        name: jax.random.normal(key, shape, jnp.float32) / fan_in[name] ** 0.5
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    params = on_sphere(params, radius)
    pairs = jax.random.permutation(split, config.p**2)
    return {"params": params, "tx": optimizer(decay, config).init(params), "pairs": pairs}


def parts(state, config):
    """The pairs a, b for training, and those for the test."""
    a, b = jnp.divmod(state["pairs"], config.p)
    half = config.p**2 // 2
    return (a[:half], b[:half]), (a[half:], b[half:])


def logits(params, a, b):
    """The network."""
    return jax.nn.relu(params["u"][a] + params["v"][b]) @ params["w"]


def step(state, config, decay=0.0, radius=None) -> dict:
    """One step on all pairs for training."""
    (a, b), _ = parts(state, config)
    sums = jax.nn.one_hot((a + b) % config.p, config.p, dtype=jnp.float32)

    def loss(params):
        return optax.losses.softmax_cross_entropy(logits(params, a, b), sums).mean()

    grads = jax.grad(loss)(state["params"])
    updates, tx = optimizer(decay, config).update(grads, state["tx"], state["params"])
    return state | {"params": on_sphere(optax.apply_updates(state["params"], updates), radius), "tx": tx}


def report(state, config) -> dict:
    """Accuracies, and the norm of all weights."""
    train, test = (
        jnp.mean(jnp.argmax(logits(state["params"], a, b), -1) == (a + b) % config.p) for a, b in parts(state, config)
    )
    return {"train": train, "test": test, "norm": optax.tree.norm(state["params"])}


def run(config: Config) -> dict:
    """Both sweeps, each run until it groks."""

    def sweep(steps, **axis):
        loop = jr.Trainable(
            init,
            step,
            report,
            steps=steps,
            every=config.every,
            stop=lambda state, config: report(state, config)["test"] >= config.grokked,
        )
        space = jr.grid(**axis, seed=range(config.seeds))
        return jr.sweep(loop, space, chunk=config.seeds, progress=True, config=config)

    return {
        "decay": sweep(config.steps, decay=config.decays),
        "norm": sweep(config.norm_steps, radius=config.radii),
    }


def steps_to_grok(runs, config: Config):
    """How many steps it took; infinite where it did not happen."""
    return runs["steps"].where(runs["test"] >= config.grokked, np.inf)


def rows(runs, config: Config) -> list:
    """Which decays and which norms grok, how soon, and in what proportion to the decay."""
    found, steps = [], steps_to_grok(runs["decay"], config)
    for lam in config.decays:
        took, name = steps.sel(decay=lam), f"decay {lam:g}: "
        count, all_or_none = int(np.isfinite(took).sum()), config.seeds if lam in STEPS else 0
        found.append(published.Row(f"{name}runs that grok in {config.steps} steps", count, all_or_none, 0))
        for which, here in {"least": float(took.min()), "most": float(took.max())}.items():
            if lam in STEPS:
                found.append(published.Seen(f"{name}steps, {which} of {config.seeds}", here, STEPS[lam]))
            if lam in PROPORTIONAL:
                found.append(published.Range(f"{name}steps × decay, {which}", here * lam, *PRODUCT))
    if 0 in config.decays:
        first = runs["decay"]["test_by_step"].sel(decay=0, step=slice(6000))
        name = f"decay 0: highest test accuracy in {int(first['step'][-1])} steps"
        found.append(published.Range(name, float(first.max()), high=0.1))
    for radius, took in zip(config.radii, steps_to_grok(runs["norm"], config).values, strict=True):
        within, all_or_none = IN_TIME.get(radius, config.norm_steps), config.seeds if radius in IN_TIME else 0
        count, name = int((took <= within).sum()), f"norm {radius:g}: "
        found.append(published.Row(f"{name}runs that grok in {within} steps", count, all_or_none, 0))
        if radius in IN_TIME:
            found.append(published.Seen(f"{name}steps, most of {config.seeds}", took.max()))
    return found


def curves(ax, runs, quantity, label) -> None:
    """A line for each run, the darker the less the decay or the radius."""
    import matplotlib.pyplot as plt

    axis = runs["test"].dims[0]
    for at, value in enumerate(runs[axis].values):
        lines = runs[f"{quantity}_by_step"].isel({axis: at}).T
        drawn = ax.plot(runs["step"], lines, color=plt.cm.viridis(0.95 * at / runs.sizes[axis]), lw=1)
        drawn[0].set_label(label.format(value))
    ax.set(xscale="log", xlabel="steps of AdamW")
    jr.plotting.plain_log_ticks(ax.xaxis)


def figure(runs, config: Config):
    """Accuracy over steps by decay and by norm, when it groks, and where the norms go."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, 2, figsize=(12, 8), layout="constrained")
    (by_decay, product), (by_norm, norms) = axes
    for ax, name, label in ((by_decay, "decay", "decay {:g}"), (by_norm, "norm", "r = {:g}")):
        curves(ax, runs[name], "test", label)
        train = runs[name]["train_by_step"].min(runs[name]["test"].dims)
        ax.plot(train["step"], train, ":", color="0.4", label="training half, lowest run")
        ax.set(ylabel="accuracy on the other half of the pairs", ylim=(-0.02, 1.02))
    curves(norms, runs["decay"], "norm", "decay {:g}")
    by_decay.set_title("decay sets when it groks (a line is a seed, until it has)", loc="left")
    by_norm.set_title("no decay, but held on the sphere of norm r", loc="left")
    norms.set(ylabel="norm ‖(U, V, W)‖", yscale="log")
    norms.set_title("the norms that decay leads to, until it groks", loc="left")
    jr.plotting.plain_log_ticks(norms.yaxis)

    lam, steps = np.array(config.decays), steps_to_grok(runs["decay"], config).values
    low, high = PRODUCT
    product.axhspan(low, high, color="0.92", label=f"{low} to {high}: expected for .1, .2, .4")
    grokked, at = np.isfinite(steps), np.broadcast_to(lam[:, None], steps.shape)
    product.plot(at[grokked], (at * np.where(grokked, steps, 0))[grokked], "o", ms=5, alpha=0.6, label="a run")
    never = lam[(lam > 0) & ~grokked.any(1)]
    product.plot(never, never * config.steps, "^", color="0.3", label=f"more: no seed groks in {config.steps} steps")
    product.set(xscale="log", xlabel="decay", ylabel="steps until it groks × decay", ylim=(0, None))
    jr.plotting.plain_log_ticks(product.xaxis)
    product.set_title("the time to grok goes as 1/decay, but for the largest", loc="left")
    places = ("center left", "lower right", "upper left", "upper left")
    for ax, place in zip(axes.flat, places, strict=True):
        ax.legend(frameon=False, fontsize="small", loc=place)
    return fig


def main(argv=None):
    """The command line."""
    command.main(__file__, __doc__, Config(), QUICK, run, rows, figure, argv)


if __name__ == "__main__":
    main()
