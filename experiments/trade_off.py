"""The price of a bound: softmax regression under ½‖W‖² ≤ k, for many k in one compiled program.

    python -m experiments.trade_off

Multipliers find α*(k) while they train. Three other ways to the same number stand beside it: the slope −dJ*/dk of the
trade-off curve, the strength that explains the gradient where *projected* gradient descent arrives, and the λ of the
penalized problem with the same norm. Writes <out>/trade_off.nc, .json and .png.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg as jr
from experiments import command, data, published

COST = "40 s on 2 cores"
SHOWED = (
    "The multiplier α*, the strength at the projected solution and the penalty of the same norm agree to four "
    "digits for 24 bounds, the slope −dJ*/dk to about 1 %."
)


@dataclasses.dataclass(frozen=True)
class Config:
    """What is swept, and how each model is trained."""

    bounds: int = 24
    steps: int = 3000
    lr: float = 0.3
    dual_rate: float = 0.01
    augmentation: float = 0.3
    every: int = 10

    def __post_init__(self):
        if self.bounds < 4 or self.steps < self.every:
            raise ValueError(f"--bounds must be at least 4, --steps at least {self.every}")

    def grid(self) -> jr.Space:
        """Bounds k on ½‖W‖², equally spaced in log k."""
        return jr.grid(k=np.geomspace(0.3, 100, self.bounds))


def train(k, data, config) -> dict:
    """Softmax regression under ½‖W‖² ≤ k, by multipliers, by projection, and by the penalty they amount to."""
    x, y = data["x_train"], data["y_train"]
    params = {"kernel": jnp.zeros((x.shape[1], 10)), "bias": jnp.zeros(10)}

    def loss(params):
        logits = x @ params["kernel"] + params["bias"]
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    def descend(link, last=False):
        """Parameters, and what the link's state holds every few steps."""
        sgd = optax.sgd(config.lr, momentum=0.9)
        tx = optax.chain(sgd, link) if last else optax.chain(link, sgd)

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        def block(carry, _):
            carry, _ = jax.lax.scan(step, carry, None, config.every)
            return carry, carry[1][0]

        (last_params, _), trace = jax.lax.scan(block, (params, tx.init(params)), None, config.steps // config.every)
        return last_params, trace

    # ½‖W‖²/k ≤ 1 is the same set, and its multiplier αk of one size for all k: one dual rate does.
    relative = {"kernel": jr.SublevelSet(jr.SquaredL2(1 / k), 1.0), "bias": None}
    con = {"kernel": jr.SublevelSet(jr.SquaredL2(1.0), k), "bias": None}
    constrained, trace = descend(
        jr.multipliers(relative, config.dual_rate, augmentation=config.augmentation, certify=True)
    )
    alpha = trace.alpha["kernel"] / k
    projected, _ = descend(jr.projected(con), last=True)
    pens = {"kernel": jr.SquaredL2(alpha[-1]), "bias": None}
    penalized, _ = descend(jr.add_penalty_gradient(pens))
    logits = data["x_test"] @ constrained["kernel"] + constrained["bias"]
    grads = jax.grad(loss)(constrained)
    return {
        "loss": loss(constrained),
        "test_error": jnp.mean(jnp.argmax(logits, -1) != data["y_test"]),
        "alpha": alpha,
        "violation": trace.violation["kernel"],
        "kkt": jr.kkt_residuals(con, constrained, grads, {"kernel": alpha[-1], "bias": None})._asdict(),
        "alpha_projected": jr.strength_for_bound(con, projected, jax.grad(loss)(projected))["kernel"],
        "k_penalized": jr.bound_for_strength(pens, penalized)["kernel"],
    }


def run(config: Config):
    """All bounds."""
    return jr.sweep(train, config.grid(), progress=True, data=data.load("digits"), config=config)


def price(runs) -> np.ndarray:
    """−dJ*/dk, by central differences of the curve in log k."""
    k = runs["k"].values
    slope = -np.gradient(runs["loss"].values, np.log(k)) / k
    return np.concatenate([[np.nan], slope[1:-1], [np.nan]])


def rows(runs, config: Config) -> list:
    """For each bound, the other ways to its multiplier and to itself."""
    found = []
    for k, alpha, slope, projected, penalized in zip(
        runs["k"].values,
        runs["alpha"].values[:, -1],
        price(runs),
        runs["alpha_projected"].values,
        runs["k_penalized"].values,
        strict=True,
    ):
        name = f"k = {k:.3g}: "
        found.append(
            published.Row(f"{name}α* of the multipliers; where projected descent arrives", alpha, projected, 2e-3)
        )
        found.append(published.Row(f"{name}½‖W‖² with λ = α*", penalized, k, 5e-3 * k))
        if slope == slope:  # not the first and the last
            found.append(published.Row(f"{name}−dJ*/dk of the curve", slope, alpha, 0.05 * alpha))
    worst = max(float(runs[f"kkt.{name}"].max()) for name in jr.KKTResiduals._fields)
    return [*found, published.Seen("largest KKT residual", worst)]


def figure(runs, config: Config):
    """The trade-off, the price of the bound, and how the multipliers found it."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplot_mosaic(
        [["loss", "price", "up"], ["error", "price", "down"]], figsize=(14, 6), layout="constrained"
    )
    loss, error, ax, up, down = (axes[name] for name in ("loss", "error", "price", "up", "down"))
    blue, red = jr.plotting.COLOURS[:2]
    loss.semilogx(runs["k"], runs["loss"], "o-", markersize=3, color=blue)
    loss.set(ylabel="training loss J*(k)", title="a looser bound, a lower loss")
    error.semilogx(runs["k"], 100 * runs["test_error"], "o-", markersize=3, color=blue)
    error.set(xlabel="bound k on ½‖W‖²", ylabel="test error, %")
    ax.loglog(runs["k"], runs["alpha"][:, -1], "-", color=blue, label="multiplier α*")
    ax.loglog(
        runs["k"], price(runs), "s", markersize=6, markerfacecolor="none", color=red, label="−dJ*/dk of the curve"
    )
    ax.loglog(runs["k"], runs["alpha_projected"], "x", color="0.2", label="strength at the projected solution")
    ax.loglog(runs["k_penalized"], runs["alpha"][:, -1], ".", color=blue, label="λ = α*, at the ½‖W‖² it gives")
    ax.set(xlabel="bound k on ½‖W‖²", ylabel="price of the bound, α*", title="the price of the bound, four ways")
    ax.legend(frameon=False, fontsize="small")
    some = runs.isel(k=np.linspace(0, runs.sizes["k"] - 1, 4).astype(int))
    steps = config.every * (1 + np.arange(some.sizes["alpha_dim_0"]))
    labels = [f"k = {k:.3g}" for k in some["k"].values]
    jr.plotting.multipliers(some["alpha"].T, some["violation"].T, steps, labels, (up, down))
    up.set(yscale="log", ylim=(some["alpha"].values[:, -1].min() / 10, None), title="how they got there")
    down.sharex(up)
    up.set_xlim(0, min(1000, config.steps))
    up.legend(frameon=False, fontsize="small", loc="center right")
    down.set_ylabel("violation (½‖W‖² − k)/k")
    down.set_yscale("symlog", linthresh=1e-3)
    fig.suptitle("digits, softmax regression with ½‖W‖² ≤ k", x=0.01, ha="left", weight="bold")
    return fig


def main(argv=None) -> None:
    """The command line."""
    command.main(__file__, __doc__, Config(), None, run, rows, figure, argv)


if __name__ == "__main__":
    main()
