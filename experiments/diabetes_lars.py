"""The lasso on the diabetes data: Figure 1 of Efron et al. (2004), and the λ at which predictors enter and leave.

    python -m experiments.diabetes_lars

Columns have 2-norm 1 and λ is max|Xᵀr|, so λ/n in `jr.convex.path`. Problems just above and just below each published
knot are solved and certified: if the support changes between them, the knot is right to the distance of the two.
Writes <out>/diabetes_lars.json and .png, and prints a table.

References:
    B. Efron, T. Hastie, I. Johnstone, R. Tibshirani (2004), Least angle regression, Annals of Statistics 32(2).
"""

import dataclasses

import numpy as np

import jaxreg as jr
from experiments import command, published

KNOTS = {  # λ -> who enters there (+) or leaves (−)
    949.4353: "+bmi",
    889.3138: "+s5",
    452.8957: "+bp",
    316.0734: "+s3",
    130.1295: "+sex",
    88.7843: "+s6",
    68.9648: "+s1",
    19.9812: "+s4",
    5.4775: "+s2",
    5.0882: "+age",
    2.1823: "−s3",
    1.3104: "+s3",
}
COST = "10 s on 2 cores"
SHOWED = "Predictors enter and leave at all 12 printed knots; s3 leaves and comes back."


@dataclasses.dataclass(frozen=True)
class Config:
    """How close to a knot its two problems are, and how well they are solved."""

    near: float = 1e-4
    tol: float = 1e-12


def run(config: Config):
    """The path at each knot and at its two neighbours, strongest first; `lam` is max|Xᵀr|."""
    from sklearn.datasets import load_diabetes

    data = load_diabetes()
    around = [1 + config.near, 1, 1 - config.near]
    lams = [*(knot * factor for knot in KNOTS for factor in around), 1e-3]  # and nearly least squares
    n = len(data.target)
    given = {"tol": config.tol, "standardize": "norm"}
    found = jr.convex.path(jr.convex.Squared(), jr.L1(1.0), data.data, data.target, np.array(lams) / n, **given)
    found["scale"] = "feature", np.linalg.norm(data.data - data.data.mean(0), axis=0)
    return found.assign_coords(lam=found["lam"] * n, feature=data.feature_names)


def change(runs, knot: float, near: float) -> str:
    """Who enters and who leaves from just above a knot to just below it."""
    above, below = (runs["coef"].sel(lam=knot * f, method="nearest") != 0 for f in (1 + near, 1 - near))
    signs = below.values.astype(int) - above.values.astype(int)
    return " ".join(
        f"{'−+'[int(sign > 0)]}{name}" for sign, name in zip(signs, runs["feature"].values, strict=True) if sign
    )


def rows(runs, config: Config) -> list[published.Row]:
    """For each knot, in how many predictors the change of support differs from the published one."""
    found = []
    for knot, event in KNOTS.items():
        wrong = len({event} ^ set(change(runs, knot, config.near).split()))
        found.append(published.Row(f"λ = {knot:g} (± {config.near:g} of it): {event}", wrong, 0, 0))
    worst = float(runs["certificate"].max())
    return [*found, published.Row("largest relative duality gap", worst, 0, config.tol)]


def figure(runs, config: Config):
    """Coefficients over their 1-norm, and when each predictor is in the model."""
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), width_ratios=(3, 2), layout="constrained")
    jr.plotting.coefficient_path(runs, "norm", scale=runs["scale"].values, ax=left)
    left.set(xlabel="t = ‖β‖₁", ylabel="coefficient of the column with 2-norm 1")
    left.set_title("the lasso path of the diabetes data (LARS, Figure 1)", loc="left", weight="bold")
    order = list(dict.fromkeys(event[1:] for event in KNOTS.values()))
    lams, active = runs["lam"].values, runs["coef"].values != 0
    for row, name in enumerate(order):
        inside = active[:, list(runs["feature"].values).index(name)]
        right.fill_between(lams, row - 0.3, row + 0.3, inside, color=jr.plotting.COLOURS[0], linewidth=0)
    for knot, event in KNOTS.items():
        right.plot([knot, knot], order.index(event[1:]) + np.array([-0.45, 0.45]), color=jr.plotting.COLOURS[1], lw=2)
    right.plot([], [], color=jr.plotting.COLOURS[1], lw=2, label="published knots")
    right.fill_between([], [], color=jr.plotting.COLOURS[0], label="nonzero here")
    right.set(xscale="log", xlim=(2000, 1), yticks=range(len(order)), yticklabels=order, xlabel="λ = max|Xᵀr|")
    right.invert_yaxis()
    right.set_title("who is in the model", loc="left", weight="bold")
    right.legend(frameon=False, loc="lower left")
    return fig


def main(argv=None) -> None:
    """The command line."""
    command.main(__file__, __doc__, Config(), None, run, rows, figure, argv)


if __name__ == "__main__":
    main()
