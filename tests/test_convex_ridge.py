"""Ridge in closed form against scikit-learn, against leaving rows out one by one, and in its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV

from jaxreg.convex.ridge import ridge, ridge_svd

RNG = np.random.default_rng(0)
SHAPES = {"tall": (25, 6), "wide": (12, 30), "deficient": (20, 7)}
LAMS = np.array([0.03, 0.5, 4.0])


def problem(kind):
    n, p = SHAPES[kind]
    rng = np.random.default_rng(n)
    X = rng.normal(size=(n, p)) + np.arange(p)
    if kind == "deficient":
        X = rng.normal(size=(n, 3)) @ rng.normal(size=(3, p)) + 1.0
    return X, rng.normal(size=(n, 2)) + [3.0, -1.0], rng.random(n) + 0.1


def left_out(X, y, lam, weight, fit_intercept, loo):
    """The residuals of rows under fits to the others."""
    residuals, whole = [], weight.sum()
    for i in range(len(X)):
        rows = (np.arange(len(X)) != i) & (weight > 0)
        s = weight[rows] / (whole if loo == "sum" else weight[rows].sum())
        a, b = (s / s.sum() @ X[rows], s / s.sum() @ y[rows]) if fit_intercept else (0, 0)
        A, B = np.sqrt(s)[:, None] * (X[rows] - a), np.sqrt(s)[:, None] * (y[rows] - b)
        if lam == 0:
            coef = np.linalg.lstsq(A, B, rcond=1e-12)[0]
        else:
            coef = A.T @ np.linalg.solve(A @ A.T + lam * np.eye(len(A)), B)
        residuals.append(y[i] - (X[i] - a) @ coef - b)
    return np.array(residuals)


@pytest.mark.parametrize("kind", SHAPES)
def test_coefficients_of_scikit_learn(kind):
    X, y, weight = problem(kind)
    for fit_intercept in (True, False):
        fits = ridge(X, y, LAMS, sample_weight=weight, fit_intercept=fit_intercept)
        for lam, coef, intercept in zip(LAMS, fits["coef"].values, fits["intercept"].values, strict=True):
            other = Ridge(alpha=lam * weight.sum(), fit_intercept=fit_intercept, tol=1e-12, solver="svd")
            other.fit(X, y, weight)
            np.testing.assert_allclose(coef, other.coef_.T, rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(intercept, other.intercept_, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_leave_one_out_is_leaving_out(kind, weighted):
    X, y, weight = problem(kind)
    weight[3] *= not weighted  # an absent row
    lams = np.array([0.0, *LAMS])
    for fit_intercept, loo in ((True, "sum"), (True, "mean"), (False, "mean")):
        kept = weight if weighted else np.ones(len(X))
        fits = ridge(X, y, lams, sample_weight=weight if weighted else None, fit_intercept=fit_intercept, loo=loo)
        expected = [left_out(X, y, lam, kept, fit_intercept, loo) for lam in lams]
        np.testing.assert_allclose(fits["loo"], np.take(expected, fits["sample"], 1), rtol=1e-8, atol=1e-8)


def test_leave_one_out_of_scikit_learn():
    X, y, weight = problem("tall")
    alphas = LAMS * weight.sum()
    other = RidgeCV(alphas, store_cv_results=True).fit(X, y[:, 0], sample_weight=weight)
    fits = ridge(X, y[:, 0], LAMS, sample_weight=weight)
    weighted = fits["loo"].values ** 2 * weight / weight.mean()  # scikit-learn weights the squares by n·s
    scale = (other.cv_results_.T / weighted).mean()
    np.testing.assert_allclose(scale * weighted, other.cv_results_.T, rtol=1e-8)
    plain = RidgeCV(LAMS * len(X), store_cv_results=True).fit(X, y)
    np.testing.assert_allclose(ridge(X, y, LAMS)["loo"].values.transpose(1, 2, 0) ** 2, plain.cv_results_, rtol=1e-8)


def test_limits():
    X, y, _ = problem("deficient")
    centred = X - X.mean(0)
    fits = ridge(X, y, [0.0, np.inf])
    np.testing.assert_allclose(fits["coef"][0], np.linalg.pinv(centred, rcond=1e-10) @ y, atol=1e-10)
    np.testing.assert_array_equal(fits["coef"][1], np.zeros_like(fits["coef"][1]))
    np.testing.assert_allclose(fits["df"], [3, 0])
    np.testing.assert_allclose(fits["loo"][1], (y - y.mean(0)) * 20 / 19)
    np.testing.assert_allclose(fits["gcv"][1], y.var(0) * (20 / 19) ** 2)
    wide = ridge(*problem("wide")[:2], [0.0, 1e-9])  # GCV of what interpolates has a limit
    np.testing.assert_allclose(wide["gcv"][0], wide["gcv"][1], rtol=1e-6)


def test_degrees_of_freedom_and_gcv_by_the_hat_matrix():
    X, y, weight = problem("tall")
    s, n = weight / weight.sum(), len(X)
    fits = ridge(X, y, LAMS, sample_weight=weight)
    for i, lam in enumerate(LAMS):
        A = np.sqrt(s)[:, None] * (X - s @ X)
        hat = np.outer(np.sqrt(s), np.sqrt(s)) + A @ np.linalg.solve(A.T @ A + lam * np.eye(6), A.T)
        rest = (np.eye(n) - hat) @ (np.sqrt(s)[:, None] * y)
        np.testing.assert_allclose(fits["df"][i], np.trace(hat) - 1)
        np.testing.assert_allclose(fits["gcv"][i], np.sum(rest**2, 0) / (1 - np.trace(hat) / n) ** 2)


def test_published_degrees_of_freedom(data_dir):
    table = np.genfromtxt(data_dir / "prostate.csv", delimiter=",", names=True, dtype=None, encoding=None)
    names = ["lcavol", "lweight", "age", "lbph", "svi", "lcp", "gleason", "pgg45"]
    X = np.stack([table[name].astype(float) for name in names], 1)
    X = ((X - X.mean(0)) / X.std(0, ddof=1))[table["train"] == "T"]
    fits = ridge(X, table["lpsa"][table["train"] == "T"], [24.1764 / 67], fit_intercept=False)
    np.testing.assert_allclose(fits["df"], 5, atol=1e-5)
    expected = [0.420, 0.238, -0.046, 0.162, 0.227, 0.000, 0.040, 0.133]
    fits = ridge(X, table["lpsa"][table["train"] == "T"] - 2.4523, [24.1764 / 67], fit_intercept=False)
    np.testing.assert_allclose(fits["coef"][0], expected, atol=6e-4)


@pytest.mark.parametrize(
    ("standardize", "scale"),
    [("std", lambda X: X.std(0)), ("norm", lambda X: X.std(0) * np.sqrt(len(X)))],
)
def test_standardized(standardize, scale):
    X, y, _ = problem("tall")
    fits, by_hand = ridge(X, y, LAMS, standardize=standardize), ridge(X / scale(X), y, LAMS)
    np.testing.assert_allclose(fits["coef"], by_hand["coef"] / scale(X)[:, None], rtol=1e-8)
    np.testing.assert_allclose(fits["intercept"], by_hand["intercept"], rtol=1e-8)


def test_strengths_of_each_target_and_a_number():
    X, y, _ = problem("tall")
    both, own = ridge(X, y, LAMS), ridge(X, y, np.stack([LAMS, LAMS[::-1]], 1))
    for name in ("coef", "intercept", "loo", "gcv"):
        np.testing.assert_allclose(own[name][..., 1], both[name][::-1, ..., 1], rtol=1e-10)
    np.testing.assert_allclose(own["df"], np.stack([both["df"], both["df"][::-1]], 1))
    assert own["strength"].dims == ("lam", "target")
    one = ridge(X, y, LAMS[1])
    assert one["coef"].dims == ("feature", "target")
    np.testing.assert_allclose(one["coef"], both["coef"][1])
    stacked = ridge(X.reshape(25, 2, 3), y, LAMS)
    np.testing.assert_allclose(stacked["coef"].values.reshape(3, 6, 2), both["coef"])
    chosen = ridge(X, y, num=20)
    assert chosen["df"][0] < 0.6
    assert chosen["df"][-1] > 5.9


def test_float64_without_x64():
    X, y, _ = problem("tall")
    with jax.enable_x64(False):
        fits = ridge(X.astype(np.float32), y, LAMS)
    assert all(fits[name].dtype == np.float64 for name in fits)
    np.testing.assert_array_equal(fits["loo"], ridge(X.astype(np.float32), y, LAMS)["loo"])


def test_under_jit_vmap_and_grad():
    X, y, weight = problem("tall")
    weight[0] = 0
    error = lambda lam, X: jnp.mean(jnp.square(ridge_svd(X, y, lam, weight, loo="mean").loo[:, 1:]))
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(error), (None, 0)))(0.5, np.stack([X, 2 * X]))
    lams = np.array([0.5, 0.5 + 1e-5, 0.5 - 1e-5, 0.125])
    expected = np.square(ridge(X, y, lams, sample_weight=weight, loo="mean")["loo"].values).mean((1, 2))
    np.testing.assert_allclose(value, expected[[0, 3]])
    np.testing.assert_allclose(slope[0], (expected[1] - expected[2]) / 2e-5, rtol=1e-6)
    narrow = ridge_svd(X.astype("f4"), y.astype("f4"), LAMS)
    assert narrow.coef.dtype == jnp.float32
    for mine, other in zip(narrow, ridge(X, y, LAMS)[["coef", "intercept", "df", "loo", "gcv"]].values(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lams": [-1.0]}, "`lams` >= 0, got -1.0"),
        ({"lams": [np.nan]}, "`lams` >= 0"),
        ({"lams": np.ones((2, 3))}, r"\(K, targets\) = \(K, 2\)"),
        ({"loo": "other"}, '"sum" or "mean"'),
        ({"standardize": "sd"}, "`ridge` needs `standardize`"),
        ({"num": 0}, "`num`"),
    ],
)
def test_bad_input_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        ridge(*problem("tall")[:2], **options)
