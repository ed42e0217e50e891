"""Ridge regression by gradient descent: the tutorial's example, and why the gradient of the summed error diverges.

    python -m experiments.ridge_descent

x uniform on [0, 2], y = 4x + .1ε, 100 samples of NumPy's generator with seed 0; (1/n) Σ (wx + b − y)² + λw², b free.
Gradient descent multiplies the distance to the minimum by I − ηH, H the Hessian: it converges where η·max eig H < 2.
With Σ in place of (1/n) Σ, H is n times as large. Writes <out>/ridge_descent.json and .png, and prints a table.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg as jr
from experiments import command, published

ERRORS = ("mean", "sum")
COST = "15 s on 2 cores"
SHOWED = (
    "Descent on the mean error arrives; on the summed error ηL = 4.13, so each step multiplies the distance by 3.13."
)


@dataclasses.dataclass(frozen=True)
class Config:
    """The example, and the learning rates it is tried with."""

    count: int = 100
    lam: float = 0.1
    rate: float = 0.01
    steps: int = 10_000
    rates: int = 41
    short: int = 100  # steps of a trial of a rate

    def grid(self) -> jr.Space:
        """Mean or sum × learning rates, from far below to far above where both turn."""
        return jr.grid(error=ERRORS, lr=np.geomspace(1e-3, 1, self.rates))


def example(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """The tutorial's data: x is drawn first, then ε."""
    draw = np.random.RandomState(0)
    x = 2 * draw.rand(config.count)
    return x, 4 * x + 0.1 * draw.randn(config.count)


def hessian(error: str, x, lam: float) -> np.ndarray:
    """∂²/∂(w, b)² of the mean or summed squared error plus λw²."""
    design = np.stack([x, np.ones_like(x)], axis=1)
    weight = 1 / len(x) if error == "mean" else 1.0
    return 2 * weight * design.T @ design + np.diag([2 * lam, 0])


def minimum(error: str, x, y, lam: float) -> np.ndarray:
    """(w, b) in closed form; the sum with λ is n times the mean with λ/n."""
    fit = jr.convex.ridge(x[:, None], y, lam if error == "mean" else lam / len(x))
    return np.append(fit["coef"], fit["intercept"])


def train(error, lr, x, y, target, steps, lam) -> dict:
    """Gradient descent from 0, and the distance to the minimum after each step."""
    average = {"mean": jnp.mean, "sum": jnp.sum}[error]
    pens = {"w": jr.SquaredL2(2 * lam), "b": None}  # SquaredL2 is half of λw², and b is free
    tx = optax.chain(jr.add_penalty_gradient(pens), optax.sgd(lr))
    params = {"w": jnp.zeros(()), "b": jnp.zeros(())}

    def step(carry, _):
        params, state = carry
        grads = jax.grad(lambda p: average((p["w"] * x + p["b"] - y) ** 2))(params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), jnp.hypot(*(params[name] - target[error][i] for i, name in enumerate("wb")))

    (params, _), distance = jax.lax.scan(step, (params, tx.init(params)), None, steps)
    return params | {"distance": distance}


def run(config: Config) -> dict:
    """The example at the tutorial's learning rate; short trials of many rates; minima and Hessians."""
    x, y = example(config)
    target = {error: minimum(error, x, y, config.lam) for error in ERRORS}
    with jax.enable_x64(True):
        given = dict(x=x, y=y, target=target, lam=config.lam)
        tutorial = jr.sweep(train, jr.grid(error=ERRORS, lr=[config.rate]), steps=config.steps, **given)
        trials = jr.sweep(train, config.grid(), steps=config.short, **given)
    largest = {error: np.linalg.eigvalsh(hessian(error, x, config.lam))[-1] for error in ERRORS}
    return {"tutorial": tutorial.squeeze("lr"), "trials": trials, "target": target, "largest": largest}


def growth(trials) -> np.ndarray:
    """By what the distance was multiplied in each step of the second half of a trial."""
    half = trials.sizes["distance_dim_0"] // 2
    last, middle = trials["distance"][..., -1], trials["distance"][..., half - 1]
    return ((last / middle) ** (1 / (trials.sizes["distance_dim_0"] - half))).values


def rows(results, config: Config) -> list[published.Row]:
    """The tutorial's (w, b) by descent and in closed form, and the summed error's growth."""
    mean, total = (results["tutorial"].sel(error=error) for error in ERRORS)
    known = {"w": 3.072658925, "b": 0.896115729}
    found = [published.Row(f"{name}, descent on the mean", float(mean[name]), v, 1e-8) for name, v in known.items()]
    exact = dict(zip("wb", results["target"]["mean"], strict=True))
    found += [published.Row(f"{name}, in closed form", exact[name], v, 1e-8) for name, v in known.items()]
    factor = float(total["distance"][40] / total["distance"][30]) ** 0.1
    predicted = config.rate * results["largest"]["sum"] - 1
    return [*found, published.Row("growth per step on the sum, ηL − 1", factor, predicted, 1e-6)]


def figure(results, config: Config):
    """What the tutorial's learning rate does to both, and where each turns."""
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    names = {"mean": "mean, (1/n) Σ err²", "sum": "sum, Σ err²"}
    lr, steps = results["trials"]["lr"].values, np.arange(1, config.steps + 1)
    fine = np.geomspace(lr[0], lr[-1], 400)
    for error, colour in zip(ERRORS, jr.plotting.COLOURS, strict=False):
        largest, distance = results["largest"][error], results["tutorial"]["distance"].sel(error=error).values
        seen = distance < 1e12
        left.loglog(
            steps[seen], distance[seen], color=colour, label=f"{names[error]}: ηL = {config.rate * largest:.2g}"
        )
        eigenvalues = np.linalg.eigvalsh(hessian(error, example(config)[0], config.lam))
        right.semilogx(fine, np.abs(1 - np.outer(fine, eigenvalues)).max(axis=1), color=colour, label=names[error])
        right.plot(lr, growth(results["trials"].sel(error=error)), "o", ms=4, mfc="none", color=colour)
        right.axvline(2 / largest, color=colour, linestyle=":", linewidth=1)
        right.text(2 / largest, 0.2, f"2/L = {2 / largest:.2g} ", color=colour, ha="right", va="center")
    left.set(xlabel="step", ylabel="distance of (w, b) from the minimum", ylim=(1e-9, 1e9))
    left.set_title(f"at learning rate η = {config.rate} the mean's gradient converges,\nthe sum's diverges", loc="left")
    right.axhline(1, color="0.3", linewidth=1)
    right.text(0.05, 1.05, "grows", color="0.3", va="bottom")
    right.text(0.05, 0.9, "shrinks", color="0.3", va="top")
    right.plot([], [], color="0.3", label="max |1 − η·eigenvalue|")
    right.plot([], [], "o", ms=4, mfc="none", color="0.3", label="measured")
    right.axvline(config.rate, color="0.3", linestyle="--", linewidth=1)
    right.text(config.rate, 1.6, f" η = {config.rate}", color="0.3")
    right.set(xlabel="learning rate η", ylabel="factor on the distance in each step", ylim=(0, 4))
    right.set_title("it converges where ηL < 2,\nL the largest eigenvalue of the Hessian", loc="left")
    left.legend(frameon=False, loc="lower left")
    right.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.61, 1))
    return fig


def main(argv=None) -> None:
    """The command line."""
    command.main(__file__, __doc__, Config(), None, run, rows, figure, argv)


if __name__ == "__main__":
    main()
