"""Prostate cancer: Table 3.3, Figures 3.8 and 3.10 of The Elements of Statistical Learning; Table 1 of Tibshirani 1996.

    python -m experiments.prostate

Columns are standardized on all 97 men, models fitted to the 67 of the training set. The data: `JAXREG_DATA`. Writes
<out>/prostate.json and .png, and prints a table.

References:
    T. Hastie, R. Tibshirani, J. Friedman (2009), The Elements of Statistical Learning, 2nd ed., section 3.4.
    R. Tibshirani (1996), Regression shrinkage and selection via the lasso, JRSS B 58(1), Table 1.
"""

import csv
import dataclasses

import numpy as np
from scipy.optimize import brentq

import jaxreg as jr
from experiments import command, data, published

NAMES = ("lcavol", "lweight", "age", "lbph", "svi", "lcp", "gleason", "pgg45")
TABLE = {  # intercept, coefficients, test error, its standard error
    "least squares": (2.465, 0.680, 0.263, -0.141, 0.210, 0.305, -0.288, -0.021, 0.267, 0.521, 0.179),
    "ridge": (2.452, 0.420, 0.238, -0.046, 0.162, 0.227, 0.000, 0.040, 0.133, 0.492, 0.165),
    "lasso": (2.468, 0.533, 0.169, 0, 0.002, 0.094, 0, 0, 0, 0.479, 0.164),
}
LASSO_1996 = (0.56, 0.10, 0, 0, 0.16, 0, 0, 0)
COST = "15 s on 2 cores"
SHOWED = "All 45 numbers of Table 3.3 and of Tibshirani's Table 1 come out as printed."


@dataclasses.dataclass(frozen=True)
class Config:
    """The models of the table, and how finely the profiles are drawn."""

    df: float = 5.0
    lasso: float = 0.20766  # strength on 1/(2n) ‖·‖²
    share: float = 0.44  # of the least-squares 1-norm, 1996
    points: int = 200


def columns() -> dict[str, np.ndarray]:
    """The data by column; `train` is True in the training set."""
    with open(data.path("prostate.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "train"}
    return numbers | {"train": np.array([row["train"] == "T" for row in rows])}


def lasso_path(X, y, lams) -> tuple:
    """The lasso on columns of unit standard deviation (divisor n − 1), and s: ‖β‖₁ over that of least squares."""
    found = jr.convex.path(jr.convex.Squared(), jr.L1(1.0), X, y, lams, tol=1e-12, standardize="sample_std")
    scale = X.std(0, ddof=1)
    largest = np.abs(jr.convex.ridge(X, y, 0.0)["coef"].values * scale).sum()
    return found, np.abs(found["coef"].values * scale).sum(1) / largest


def run(config: Config) -> dict:
    """Every model: `table`, name -> (intercept, coefficients), and the profiles of ridge and lasso."""
    cols = columns()
    X = np.stack([cols[name] for name in NAMES], axis=1)
    Z = (X - X.mean(0)) / X.std(0, ddof=1)
    A, y = Z[cols["train"]], cols["lpsa"][cols["train"]]
    n, mean = len(y), y.mean()

    def shrunk(lams):  # the book leaves the training set's columns as they are, and takes the mean as intercept
        return jr.convex.ridge(A, y - mean, np.asarray(lams) / n, fit_intercept=False)

    lam = brentq(lambda lam: shrunk(lam)["df"].item() - config.df, 1e-3, 1e4, xtol=1e-10)
    strengths = np.geomspace(1e-3, 1e5, config.points)
    ridge = shrunk(np.concatenate([[0], strengths]))
    top = np.abs((A - A.mean(0)).T @ (y - mean) / A.std(0, ddof=1)).max() / n
    lams = np.geomspace(top, 1e-5 * top, config.points)
    lasso, share = lasso_path(A, y, np.sort([*lams, config.lasso])[::-1])
    chosen = lasso.sel(lam=config.lasso)
    full = jr.convex.ridge(A, y, 0.0)
    models = {
        "least squares": (full["intercept"].item(), full["coef"].values),
        "ridge": (mean, shrunk(lam)["coef"].values),
        "lasso": (chosen["intercept"].item(), chosen["coef"].values),
    }
    old = np.stack([cols["lweight_1989" if name == "lweight" else name] for name in NAMES], axis=1)
    first, first_share = lasso_path(old, cols["lpsa"], lams)
    scaled = first["coef"].values * old.std(0, ddof=1)
    return {
        "models": models,
        "errors": {k: (cols["lpsa"] - b - Z @ w)[~cols["train"]] ** 2 for k, (b, w) in models.items()},
        "lam": lam,
        "share": share[list(lasso["lam"].values).index(config.lasso)],
        "profiles": {"ridge": ridge.assign_coords(lam=ridge["lam"] * n), "lasso": lasso},
        "scale": A.std(0, ddof=1),
        "certificate": float(max(lasso["certificate"].max(), first["certificate"].max())),
        "lasso 1996": np.array([np.interp(config.share, first_share, c) for c in scaled.T]),  # linear between knots
    }


def rows(results, config: Config) -> list[published.Row]:
    """Table 3.3, the table of 1996, and what both leave out."""
    found = [
        published.Row("λ at df(λ) = 5", results["lam"], 24.1764, 1e-4),
        published.Row("s at the lasso's strength", results["share"], 0.3748, 1e-4),
    ]
    for model, printed in TABLE.items():
        intercept, coef = results["models"][model]
        errors = results["errors"][model]
        here = (intercept, *coef, errors.mean(), errors.std(ddof=1) / np.sqrt(len(errors)))
        names = ("intercept", *NAMES, "test error", "standard error")
        found += [
            published.Row(f"{model}: {v[0]}", float(v[1]), v[2], 6e-4) for v in zip(names, here, printed, strict=True)
        ]
    for name, value, printed in zip(NAMES, results["lasso 1996"], LASSO_1996, strict=True):
        found.append(published.Row(f"lasso 1996: {name}", float(value), printed, 5e-3))
    for name, coef, printed in (
        ("lasso", results["models"]["lasso"][1], TABLE["lasso"][1:9]),
        ("lasso 1996", results["lasso 1996"], LASSO_1996),
    ):
        wrong = int(((coef != 0) != (np.array(printed) != 0)).sum())
        found.append(published.Row(f"{name}: zeros and others exchanged", wrong, 0, 0))
    return found


def figure(results, config: Config):
    """Ridge over degrees of freedom, the lasso over s, the models of the table marked."""
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    ridge, lasso = results["profiles"]["ridge"], results["profiles"]["lasso"]
    scale, marks = results["scale"], {f"Table 3.3: s = {results['share']:.3f}": config.lasso}
    jr.plotting.coefficient_path(ridge, "df", NAMES, scale, marks={"Table 3.3: df = 5": results["lam"]}, ax=left)
    jr.plotting.coefficient_path(lasso, "norm", NAMES, scale, marks=marks, ax=right)
    largest = np.abs(results["models"]["least squares"][1] * scale).sum()
    right.set_xlim(0, largest)
    right.set_xticks(np.linspace(0, largest, 6), [f"{s:.1f}" for s in np.linspace(0, 1, 6)])
    left.set_ylabel("coefficient × standard deviation of its column")
    right.set(xlabel="shrinkage s = ‖β‖₁ / ‖β of least squares‖₁", ylabel="")
    left.set_title("prostate cancer: ridge (ESL, Figure 3.8)", loc="left", weight="bold")
    right.set_title("lasso (Figure 3.10)", loc="left", weight="bold")
    return fig


def main(argv=None) -> None:
    """The command line."""
    command.main(__file__, __doc__, Config(), None, run, rows, figure, argv)


if __name__ == "__main__":
    main()
