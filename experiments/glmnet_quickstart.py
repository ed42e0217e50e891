"""The quick start of glmnet's vignette: its path, and its coefficients at λ = .1 against the exact optimum.

    python -m experiments.glmnet_quickstart

The lasso (1/2n)‖y − Xβ − b‖² + λ‖β‖₁ on columns of standard deviation 1 (divisor n). The data: `JAXREG_DATA`. Writes
<out>/glmnet_quickstart.json and .png, and prints a table.

References:
    J. Friedman, T. Hastie, R. Tibshirani (2010), Regularization paths for generalized linear models via coordinate
    descent, Journal of Statistical Software 33(1); T. Hastie, J. Qian, K. Tay, An introduction to glmnet.
"""

import dataclasses

import numpy as np

import jaxreg as jr
from experiments import command, data, published

PRINTED = {  # glmnet's own, to five digits and its own tolerance; V1, V2, ... are the columns
    "b": 0.15093,
    "V1": 1.32059,
    "V3": 0.67510,
    "V5": -0.81738,
    "V6": 0.52144,
    "V7": 0.00484,
    "V8": 0.31942,
    "V11": 0.14250,
    "V14": -1.05998,
    "V20": -1.02187,
}
COST = "10 s on 2 cores"
SHOWED = "The certified optimum is 1e-15 from the exact one; glmnet's printed V8 is 8e-6 off it."


@dataclasses.dataclass(frozen=True)
class Config:
    """The strength of the table, and the strengths of the path, as glmnet chooses them."""

    lam: float = 0.1
    num: int = 100
    eps: float = 1e-4
    tol: float = 1e-12


def optimum(X, y, lam: float, support, signs) -> np.ndarray:
    """The lasso's (coefficients, intercept) in closed form, from its support and signs: XₛᵀXₛβ/n = Xₛᵀy/n − λ·signs."""
    scale = X.std(0)
    Z, centred = (X - X.mean(0)) / scale, y - y.mean()
    part = Z[:, support]
    coef = np.zeros(X.shape[1])
    coef[support] = np.linalg.solve(part.T @ part, part.T @ centred - len(y) * lam * signs) / scale[support]
    slack = np.abs(Z.T @ (centred - (X - X.mean(0)) @ coef)) / len(y)
    if (coef[support] * signs <= 0).any() or slack.max() > lam * (1 + 1e-12):
        raise ValueError("`optimum` was given a support or signs that are not the optimum's.")
    return np.append(coef, y.mean() - X.mean(0) @ coef)


def run(config: Config) -> dict:
    """The path, the solution at the table's strength and the exact optimum there."""
    with np.load(data.path("glmnet_quickstart.npz")) as file:
        X, y = file["x"], file["y"]
    given = {"standardize": "std", "tol": config.tol}
    runs = jr.convex.path(jr.convex.Squared(), jr.L1(1.0), X, y, num=config.num, eps=config.eps, **given)
    solution = jr.convex.solve(jr.convex.Squared(), jr.L1(config.lam), X, y, **given)
    names = [f"V{j + 1}" for j in range(X.shape[1])]
    support = [j for j, name in enumerate(names) if name in PRINTED]
    exact = optimum(X, y, config.lam, support, np.sign([PRINTED[names[j]] for j in support]))
    here = np.append(solution.coef, solution.intercept)
    return {"path": runs.assign_coords(feature=names), "scale": X.std(0), "here": here, "exact": exact}


def rows(results, config: Config) -> list[published.Row]:
    """λ_max, and every coefficient against glmnet's five digits; the distance to the exact optimum."""
    found = [published.Row("λ_max", float(results["path"]["lam"].max()), 1.6307621, 1e-7)]
    for name, value in zip([*results["path"]["feature"].values, "b"], results["here"], strict=True):
        found.append(published.Row(str(name), float(value), PRINTED.get(name, 0.0), 1e-5))
    distance = np.abs(results["here"] - results["exact"]).max()
    return [*found, published.Row("largest distance to the exact optimum", float(distance), 0, 1e-6)]


def figure(results, config: Config):
    """The vignette's picture: coefficients over their 1-norm."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
    marks = {f"λ = {config.lam}": config.lam}
    jr.plotting.coefficient_path(results["path"], "norm", scale=results["scale"], marks=marks, ax=ax)
    ax.set(xlabel="‖β‖₁", ylabel="coefficient × standard deviation of its column")
    return fig


def main(argv=None) -> None:
    """The command line."""
    command.main(__file__, __doc__, Config(), None, run, rows, figure, argv)


if __name__ == "__main__":
    main()
