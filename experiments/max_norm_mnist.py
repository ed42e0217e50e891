"""A bound on the norm of each unit's incoming weights, with and without dropout, against L2 and L1, on MNIST.

    python -m experiments.max_norm_mnist

Table 9 of Srivastava et al., by their recipe: rectified units, SGD on batches of 100 for 100 000 steps, learning rate
1/(1 + t/10 000), momentum .99 − .49·exp(−t/100 000), dropout of .2 of the inputs and .5 of the hidden units, weights of
N(0, 1/fan-in) at the start, ‖w_j‖ ≤ c with c about 3. As theirs, a unit that is kept is not scaled up, but all are
scaled down when none is dropped. No penalty is λ = 0, no bound c = ∞, no dropout rate 0: all arms are one program.
Strengths and learning rates are chosen on validation data, by shorter runs of other seeds. On a CPU the default is a
smaller network on fewer images, of which only the order of the arms is claimed. Elsewhere it is the size of the table:
--hidden 1024 1024 2048 --images 60000 --steps 100000.

References:
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov (2014), Dropout, JMLR 15, table 9.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray

import jaxreg as jr
from experiments import command, data, published

COST = "12 min on 2 cores shared with other work"
SHOWED = (
    "On a CPU, so 784-256-256-10 on 5000 images for 2000 steps, where only the order is claimed: dropout with "
    "max-norm (4.42 %, and 4.42 % with L2) is better than max-norm alone (6.19 %) by four standard errors. "
    "Missed: max-norm is not better than L2 (5.47 %). At rate 1, which the few shorter runs to choose by prefer "
    "for it, it ends anywhere from 5.1 to 7.4 %. With all arms at the printed rate of 1, 1500 steps and 4 seeds, "
    "the order was the printed one, 5.17 against 7.24 %: the bound bears a rate that L2 does not, and L2 loses "
    "nothing at .3. The full size has not been run."
)
PRINTED = {"L2": 1.62, "L2 + L1": 1.60, "max-norm": 1.35, "dropout + L2": 1.25, "dropout + max-norm": 1.05}
LINES = {"max-norm": 1.50, "dropout + L2": 1.35, "dropout + max-norm": 1.20}  # test errors in %, at full size
ARMS = tuple(PRINTED)


@dataclasses.dataclass(frozen=True)
class Config:
    """The network, the data, the recipe, and the strengths to choose from."""

    hidden: tuple[int, ...] = (1024, 1024, 2048)
    images: int = 60000  # to train on; to choose strengths, without those of the validation set
    steps: int = 100_000
    seeds: int = 5
    batch: int = 100
    lrs: tuple[float, ...] = (0.3, 1.0)
    lams: tuple[float, ...] = (1e-5, 3e-5, 1e-4, 3e-4)
    radii: tuple[float, ...] = (2.0, 2.5, 3.0, 4.0)
    l1_share: float = 0.1  # of λ, in L2 + L1
    half_life: float = 0.1  # of the learning rate, as a share of the steps
    search: float = 0.5  # steps of a run to choose by, as a share of those of the others
    search_seeds: int = 3  # one alone may be lucky at a rate that is too high
    chunk: int = 25  # on a CPU few, whose weights its caches hold

    @property
    def full(self) -> bool:
        """Whether it is the network and the data of the table."""
        return self.hidden == (1024, 1024, 2048) and self.images == 60000


SMALL = Config(
    hidden=(256, 256),
    images=5000,
    steps=2000,
    lams=(1e-4, 3e-4, 1e-3, 3e-3),
    radii=(1.0, 1.5, 2.5, 4.0),
    chunk=5,
)
QUICK = dataclasses.replace(
    SMALL,
    hidden=(32,),
    images=500,
    steps=40,
    batch=50,
    seeds=1,
    lrs=(1.0,),
    lams=(1e-4, 1e-3),
    radii=(2.0, 3.0),
    search=1.0,
    search_seeds=1,
)


def optimizer(arm, rank, lr, layers, config):
    """SGD by the recipe, with the penalty λ(ρ‖W‖₁ + (1 − ρ)/2·‖W‖²) or the bound c of the arm."""

    def rate(step):
        return lr / (1 + step / (config.half_life * config.steps))

    def momentum(step):
        return 0.99 - 0.49 * jnp.exp(-step / config.steps)

    bounded = jnp.array(["max-norm" in name for name in ARMS])[arm]
    lam = jnp.where(bounded, 0.0, jnp.array(config.lams)[rank])
    radius = jnp.where(bounded, jnp.array(config.radii)[rank], jnp.inf)
    share = jnp.array([config.l1_share * ("L1" in name) for name in ARMS])[arm]
    sgd = optax.inject_hyperparams(optax.sgd)(learning_rate=rate, momentum=momentum)
    penalties = layers * [{"kernel": jr.ElasticNet(lam, share), "bias": None}]
    units = layers * [{"kernel": jr.L2Ball(radius, axis=0), "bias": None}]
    return jr.regularize(sgd, rate, gradient=penalties, constraint=units)


def train(arm, rank, lr, seed, data, config) -> dict:
    """Validation and test error of one network after its last step, in %."""
    x, y = data["x_train"], data["y_train"]
    start, shuffle = jax.random.split(jax.random.key(seed))
    widths = (x.shape[1], *config.hidden, 10)
    params = [
        {
            "kernel": jax.random.normal(jax.random.fold_in(start, i), shape) / shape[0] ** 0.5,
            "bias": jnp.zeros(shape[1]),
        }
        for i, shape in enumerate(itertools.pairwise(widths))
    ]
    dropping = jnp.array(["dropout" in name for name in ARMS])[arm]
    rates = [jnp.where(dropping, 0.5 if i else 0.2, 0.0) for i in range(len(params))]
    tx = optimizer(arm, rank, lr, len(params), config)

    def logits(params, x, key=None):
        for i, (layer, rate) in enumerate(zip(params, rates, strict=True)):
            kept = x if key is None else jr.noise.dropout(jax.random.fold_in(key, i), x, rate)
            x = (1 - rate) * kept @ layer["kernel"] + layer["bias"]
            x = x if i == len(params) - 1 else jax.nn.relu(x)
        return x

    def loss(params, x, y, key):
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits(params, x, key), y).mean()

    def step(carry, count):
        params, state = carry
        draw, noise = jax.random.split(jax.random.fold_in(shuffle, count))
        rows = jax.random.randint(draw, (config.batch,), 0, len(y))
        value, grads = jax.value_and_grad(loss)(params, x[rows], y[rows], noise)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    def error(part):
        return 100 * jnp.mean(jnp.argmax(logits(params, data[f"x_{part}"]), -1) != data[f"y_{part}"])

    (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), jnp.arange(config.steps))
    return {"train_loss": losses[-config.steps // 20 :].mean(), "val_error": error("val"), "test_error": error("test")}


def run(config) -> dict:
    """A sweep to choose a strength and a learning rate for each arm, then one of all arms and seeds with these."""
    arrays = data.load("mnist")
    some = {name: value[: config.images] if name.endswith("train") else value for name, value in arrays.items()}
    short = dataclasses.replace(config, steps=int(config.search * config.steps))
    arms = range(len(ARMS))
    space = jr.grid(
        arm=arms, rank=range(len(config.radii)), lr=config.lrs, seed=config.seeds + np.arange(config.search_seeds)
    )
    search = jr.sweep(train, space, progress=True, chunk=config.chunk, data=some, config=short)
    best = [search.sel(arm=arm).best("val_error") for arm in arms]
    if config.images > len(arrays["y_train"]):  # the strengths are chosen: now the validation set is for training
        for name in ("x", "y"):
            some[f"{name}_train"] = np.concatenate([arrays[f"{name}_train"], arrays[f"{name}_val"]])[: config.images]
    if config.seeds == 1 and config.search == 1:
        return {"search": search.assign_coords(arm=list(ARMS)), "chosen": xarray.concat(best, "config")}
    chosen = {name: [pick[name].item() for pick in best] for name in ("arm", "rank", "lr")}
    space = jr.zipped(**chosen) * jr.grid(seed=range(config.seeds))
    runs = jr.sweep(train, space, progress=True, chunk=config.chunk, data=some, config=config)
    return {"search": search.assign_coords(arm=list(ARMS)), "chosen": runs}


def rows(runs, config) -> list:
    """Means over seeds beside the table; which arm is better, in standard errors of the difference too."""
    found, at = (
        dict(zip(ARMS, runs["chosen"]["test_error"].values, strict=True)),
        "" if config.full else " at full size",
    )
    rows = []
    for arm, each in found.items():
        printed = f"printed{at} {PRINTED[arm]:.2f}"
        if config.full and arm in LINES:
            rows.append(published.Range(f"{arm}: test error, %, {printed}", each.mean(), high=LINES[arm]))
        else:
            rows.append(published.Seen(f"{arm}: test error, %", each.mean(), printed))
        if config.seeds > 1:
            rows.append(published.Seen(f"{arm}: standard deviation of the seeds", each.std(ddof=1)))
    if config.seeds == 1:  # of which nothing follows
        return [*rows, published.Range("largest test error, %", max(found.values()).item(), high=30.0)]
    for worse, better in (("L2", "max-norm"), ("max-norm", "dropout + max-norm")):
        gain = found[worse].mean() - found[better].mean()
        error = np.sqrt((found[worse].var(ddof=1) + found[better].var(ddof=1)) / config.seeds)
        name = f"{better} better than {worse}, points, printed{at} {PRINTED[worse] - PRINTED[better]:.2f}"
        rows += [published.Range(name, gain, low=0.0), published.Seen("  in standard errors", gain / error)]
    return rows


def figure(runs, config):
    """The errors of all seeds, and how the strengths were chosen."""
    import matplotlib.pyplot as plt

    fig, (ax, *others) = plt.subplots(1, 3, figsize=(15, 4.2), width_ratios=(1.3, 1, 1), layout="constrained")
    chosen, search = runs["chosen"], runs["search"]["val_error"].mean("seed").min("lr")
    bounded = ["max-norm" in arm for arm in ARMS]
    labels = []
    for i, arm in enumerate(ARMS):
        pick, colour = chosen.isel(config=i), jr.plotting.COLOURS[i]
        ax.plot(pick["test_error"], np.full(config.seeds, i), "o", markersize=6, markerfacecolor="none", color=colour)
        ax.plot(pick["test_error"].mean(), i, "|", markersize=26, markeredgewidth=2, color=colour)
        strengths = config.radii if bounded[i] else config.lams
        used = f"{'c' if bounded[i] else 'λ'} = {strengths[int(pick['rank'])]:g}, learning rate {pick['lr'].item():g}"
        labels.append(f"{arm}\n{used}\nprinted at full size: {PRINTED[arm]:.2f}")
        others[bounded[i]].semilogx(strengths, search.sel(arm=arm), "o-", color=colour, label=arm)
    ax.set_yticks(range(len(ARMS)), labels, fontsize="small")
    ax.set_ylim(len(ARMS) - 0.4, -0.6)
    size = "-".join(map(str, (784, *config.hidden, 10)))
    ax.set(xlabel="test error, % (circles: seeds; bar: mean)", title=f"{size}, {config.images} images")
    for ax, symbol, strengths in zip(others, ("penalty λ", "bound c"), (config.lams, config.radii), strict=True):
        ax.set(xlabel=symbol, ylabel="validation error, %", title="the search: mean of the seeds")
        ax.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
        ax.minorticks_off()
        ax.legend(frameon=False, fontsize="small")
    return fig


def main(argv=None) -> None:
    """The command line."""
    default = SMALL if jax.default_backend() == "cpu" else Config()
    command.main(__file__, __doc__, default, QUICK, run, rows, figure, argv)


if __name__ == "__main__":
    main()
