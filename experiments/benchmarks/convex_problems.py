"""The problems of the convex benchmarks, and their judge: a duality gap in float64 that needs NumPy alone.

All contenders minimise (1/2n)‖y − Xw − b‖² + λ(α‖w‖₁ + (1−α)/2 ‖w‖²) on the same 100 strengths λ, from λ_max down to
λ_max/1000, and are judged by `gap` on what they return, whatever they stop on themselves. Columns of X have mean 0 and
standard deviation 1 (divisor n), so that a contender without an intercept needs but to centre y.
"""

from typing import NamedTuple

import numpy as np

from experiments import data


class Problem(NamedTuple):
    """X (n, p), Fortran-contiguous, float64; y (n,); strengths, strongest first."""

    X: np.ndarray
    y: np.ndarray
    lams: np.ndarray


def grid(X, y, l1_ratio=1.0, num=100, eps=1e-3):
    """Strengths from the weakest at which w = 0 solves the problem, down to `eps` of it, evenly in the logarithm."""
    strongest = np.abs(X.T @ (y - y.mean())).max() / (len(y) * l1_ratio)
    return strongest * np.logspace(0, np.log10(eps), num)


def standardized(X, y):
    """The problem with columns of mean 0 and standard deviation 1."""
    X = np.asarray(X, np.float64)
    X = np.asfortranarray((X - X.mean(0)) / X.std(0))
    X -= X.mean(0)
    y = np.asarray(y, np.float64)
    return Problem(X, y, grid(X, y))


def diabetes_with_interactions():
    """scikit-learn's diabetes, 442 × 65: the 10 columns, their 45 products and 10 squares.

    That is `PolynomialFeatures(2, include_bias=False)`. `sex` has two values, so its square is, standardised, `sex`
    again: the rank is 64, and the solution at some λ not unique.
    """
    from sklearn.datasets import load_diabetes
    from sklearn.preprocessing import PolynomialFeatures

    x, y = load_diabetes(return_X_y=True)
    return standardized(PolynomialFeatures(2, include_bias=False).fit_transform(x), y)


def correlated(n, p, nonzero, rho=0.5, snr=3.0, targets=None, seed=0):
    """Gaussian rows with correlations ρ^|i−j|; `nonzero` coefficients N(0, 1), ‖Xw‖ = snr ‖noise‖; y = … + 1."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    for j in range(1, p):
        X[:, j] = rho * X[:, j - 1] + np.sqrt(1 - rho**2) * X[:, j]
    signal, noise = [], rng.normal(size=(n, targets or 1))
    for _ in range(targets or 1):
        w = np.zeros(p)
        w[rng.choice(p, nonzero, replace=False)] = rng.normal(size=nonzero)
        signal.append(X @ w)
    signal = np.stack(signal, 1)
    y = 1 + signal + noise * np.linalg.norm(signal, axis=0) / (snr * np.linalg.norm(noise, axis=0))
    if targets:
        return X, y
    return standardized(X, y[:, 0])


def leukemia():
    """Gene expression of 72 patients, 7129 genes (Golub 1999), the class as ±1 regressed; needs `JAXREG_DATA`."""
    with np.load(data.path("leukemia.npz")) as file:
        return standardized(file["x"], 2.0 * file["y"] - 1)


PROBLEMS = {
    "diabetes with interactions": diabetes_with_interactions,
    "n = 5000, p = 200": lambda: correlated(5000, 200, 40),
    "n = 1000, p = 2000": lambda: correlated(1000, 2000, 50),
    "leukemia": leukemia,
}


def problems(names=tuple(PROBLEMS)):
    """{name: problem}."""
    return {name: PROBLEMS[name]() for name in names}


def _residuals(X, y, coefs, intercepts):
    return y - intercepts[:, None] - coefs @ X.T


def objective(X, y, coefs, intercepts, lams, l1_ratio=1.0):
    """P at each strength: coefs (K, p), intercepts and lams (K,)."""
    r = _residuals(X, y, coefs, intercepts)
    lasso, ridge = np.abs(coefs).sum(1), (coefs**2).sum(1) / 2
    return (r**2).sum(1) / (2 * len(y)) + lams * (l1_ratio * lasso + (1 - l1_ratio) * ridge)


def null_objective(y):
    """P at w = 0 and its intercept."""
    return float(((y - y.mean()) ** 2).sum() / (2 * len(y)))


def gap(X, y, coefs, intercepts, lams, l1_ratio=1.0):
    r"""The relative duality gap (P(w, b) − D(θ)) / P(0) at each strength.

    θ is the residual, centred, scaled by c = min(1, λα/‖Xᵀθ/n‖_∞) into the dual's domain where α = 1; with α < 1 every
    θ is in it. D(θ) = (‖y − ȳ‖² − ‖y − ȳ − cθ‖²)/2n − Σ_j (|x_j·θ|/n − λα)₊² / (2λ(1−α)), the last term with α < 1.
    """
    theta = _residuals(X, y, coefs, intercepts)
    theta -= theta.mean(1, keepdims=True)
    correlation = np.abs(theta @ X) / len(y)
    if l1_ratio == 1:
        scale, conjugate = np.minimum(1, lams / np.maximum(correlation.max(1), np.finfo(float).tiny)), 0.0
    else:
        excess = np.maximum(correlation - lams[:, None] * l1_ratio, 0)
        scale, conjugate = np.ones(len(lams)), (excess**2).sum(1) / (2 * lams * (1 - l1_ratio))
    centred = y - y.mean()
    apart = ((centred - scale[:, None] * theta) ** 2).sum(1)
    dual = (centred @ centred - apart) / (2 * len(y)) - conjugate
    return (objective(X, y, coefs, intercepts, lams, l1_ratio) - dual) / null_objective(y)
