"""Agreement with scikit-learn, solved tightly, on real data: the same objective to 1e-6, the same choice of λ."""

import warnings

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn import datasets, linear_model
from sklearn.model_selection import KFold

import jaxreg as jr
from jaxreg import conventions as cv
from jaxreg import convex

TIGHT = {"tol": 1e-12, "max_iter": 100_000}


def standardized(X):
    X = np.float64(X)
    spread = X.std(0)
    return (X - X.mean(0)) / np.where(spread > 0, spread, 1)


def data(name, request):
    if name in ("colon", "leukemia"):
        with np.load(request.getfixturevalue("data_dir") / f"{name}.npz") as file:
            return standardized(file["x"]), file["y"].astype(int)
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return (X, y) if name == "diabetes" else (X / 16, y) if name == "digits" else (standardized(X), y)


def objective(datafit, penalty, X, y, W, b):
    """Written anew, in NumPy."""
    eta = X @ W + b
    if isinstance(datafit, convex.Squared):
        loss = np.square(eta - y) / 2
    elif isinstance(datafit, convex.Logistic):
        loss = np.logaddexp(0, np.where(y == y.max(), -1, 1) * eta)
    else:
        loss = logsumexp(eta, 1) - eta[np.arange(len(y)), y]
    ratio = {"L1": 1.0, "SquaredL2": 0.0}.get(type(penalty).__name__, getattr(penalty, "l1_ratio", None))
    return loss.mean() + penalty.lam * (ratio * np.abs(W).sum() + (1 - ratio) / 2 * np.square(W).sum())


def l1_logistic(C, **options):
    return linear_model.LogisticRegression(
        C=C, l1_ratio=1.0, solver="liblinear", fit_intercept=False, random_state=0, **TIGHT | options
    )


def case(name, peer, ours, slow=False):
    return pytest.param(name, peer, ours, id=f"{name}-{type(peer).__name__}", marks=[pytest.mark.slow] if slow else [])


CASES = [  # data, scikit-learn's estimator, ours by conventions with n examples
    case("diabetes", linear_model.Ridge(0.5, **TIGHT), lambda n: cv.from_sklearn_ridge(0.5, n)),
    case("diabetes", linear_model.Lasso(0.1, **TIGHT), lambda n: cv.from_sklearn_lasso(0.1)),
    case(
        "diabetes",
        linear_model.ElasticNet(0.01, l1_ratio=0.3, **TIGHT),
        lambda n: cv.from_sklearn_elastic_net(0.01, 0.3),
    ),
    case(
        "breast_cancer",
        linear_model.LogisticRegression(C=0.5, solver="newton-cholesky", **TIGHT),
        lambda n: cv.from_sklearn_logistic(0.5, n),
        slow=True,
    ),
    case("breast_cancer", l1_logistic(0.1), lambda n: cv.from_sklearn_logistic(0.1, n, 1.0), slow=True),
    case(
        "digits",
        linear_model.LogisticRegression(C=0.1, **TIGHT),
        lambda n: cv.from_sklearn_logistic(0.1, n),
        slow=True,
    ),
    case("colon", linear_model.Lasso(0.05, **TIGHT), lambda n: cv.from_sklearn_lasso(0.05)),
    case("colon", l1_logistic(0.5), lambda n: cv.from_sklearn_logistic(0.5, n, 1.0), slow=True),
    case("colon", linear_model.ElasticNet(0.05, **TIGHT), lambda n: cv.from_sklearn_elastic_net(0.05), slow=True),
    case("leukemia", linear_model.Ridge(10.0, **TIGHT), lambda n: cv.from_sklearn_ridge(10.0, n)),
    case("leukemia", linear_model.Lasso(0.02, **TIGHT), lambda n: cv.from_sklearn_lasso(0.02), slow=True),
    case("leukemia", l1_logistic(1.0), lambda n: cv.from_sklearn_logistic(1.0, n, 1.0), slow=True),
]


@pytest.mark.parametrize(("name", "peer", "ours"), CASES)
def test_same_objective(name, peer, ours, request):
    X, y = data(name, request)
    penalty = ours(len(y))
    labels = isinstance(peer, linear_model.LogisticRegression)
    datafit = convex.Squared() if not labels else convex.Logistic() if len(np.unique(y)) == 2 else convex.Multinomial()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer.fit(X, y)
    solution = convex.solve(datafit, penalty, X, y, tol=1e-8, fit_intercept=peer.fit_intercept)
    multiclass = np.ndim(peer.coef_) == 2 and len(peer.coef_) > 1
    theirs = (peer.coef_.T, peer.intercept_) if multiclass else (np.ravel(peer.coef_), np.ravel(peer.intercept_)[0])
    found = objective(datafit, penalty, X, y, solution.coef, solution.intercept)
    expected = objective(datafit, penalty, X, y, *theirs)
    assert solution.converged
    assert found == pytest.approx(solution.objective, rel=1e-12)
    assert found == pytest.approx(expected, rel=1e-6)


# ------------------------------------------------------------------ cross-validation

LAMS = np.geomspace(2.0, 0.02, 8)
SPLITTER = KFold(4, shuffle=True, random_state=0)


def diabetes(n=None):
    X, y = datasets.load_diabetes(return_X_y=True)
    return X[:n], y[:n]


def check_refit(penalty, X, y, best, peer):
    """What was chosen, fitted to all rows, is scikit-learn's."""
    found = objective(convex.Squared(), penalty, X, y, best["coef"].values, best["intercept"].item())
    assert found == pytest.approx(objective(convex.Squared(), penalty, X, y, peer.coef_, peer.intercept_), rel=1e-6)


def test_lasso_cv():
    X, y = diabetes()
    peer = linear_model.LassoCV(alphas=LAMS, cv=SPLITTER, **TIGHT).fit(X, y)
    runs = convex.cross_validate(convex.Squared(), jr.L1(1.0), X, y, lams=LAMS, folds=SPLITTER, tol=1e-9)
    np.testing.assert_allclose(runs["error"].values.T, peer.mse_path_, rtol=1e-5)
    best = runs.best("error", over="fold")
    assert best["lam"] == peer.alpha_ == cv.to_sklearn_lasso(jr.L1(best["lam"].item()))
    check_refit(cv.from_sklearn_lasso(peer.alpha_), X, y, best, peer)


def test_elastic_net_cv():
    X, y = diabetes()
    lams, ratios = LAMS[::2] / 10, [0.2, 0.7, 1.0]
    peer = linear_model.ElasticNetCV(l1_ratio=ratios, alphas=lams, cv=SPLITTER, **TIGHT).fit(X, y)
    runs = convex.cross_validate(
        convex.Squared(), jr.ElasticNet(1.0, 0.5), X, y, lams=lams, l1_ratios=ratios, folds=SPLITTER, tol=1e-10
    )
    np.testing.assert_allclose(runs["error"].values.reshape(4, 3, 4), np.moveaxis(peer.mse_path_, -1, 0), rtol=1e-5)
    best = runs.best("error", over="fold")
    assert (best["lam"], best["l1_ratio"]) == (peer.alpha_, peer.l1_ratio_)
    check_refit(cv.from_sklearn_elastic_net(peer.alpha_, peer.l1_ratio_), X, y, best, peer)


def test_ridge_cv():
    """By leaving one out, in closed form, where all n fits have the same α; and by folds of equal size."""
    X, y = diabetes(440)
    alphas = np.geomspace(10.0, 0.001, 9)
    peer = linear_model.RidgeCV(alphas, scoring="neg_mean_squared_error").fit(X, y)
    fits = convex.ridge(X, y, cv.from_sklearn_ridge(alphas, 440).lam)
    best = fits.isel(lam=int(np.square(fits["loo"]).mean("sample").argmin("lam")))
    assert cv.to_sklearn_ridge(jr.SquaredL2(best["lam"].item()), 440) == pytest.approx(peer.alpha_)
    assert np.square(best["loo"]).mean() == pytest.approx(-peer.best_score_)
    check_refit(cv.from_sklearn_ridge(peer.alpha_, 440), X, y, best, peer)

    peer = linear_model.RidgeCV(alphas, cv=SPLITTER, scoring="neg_mean_squared_error").fit(X, y)
    lams = cv.from_sklearn_ridge(alphas, 330).lam  # the rows that each fold is fitted to
    runs = convex.cross_validate(convex.Squared(), jr.SquaredL2(1.0), X, y, lams=lams, folds=SPLITTER)
    best = runs.best("error", over="fold")
    assert cv.to_sklearn_ridge(jr.SquaredL2(best["lam"].item()), 330) == pytest.approx(peer.alpha_)
    assert runs["error"].mean("fold").min() == pytest.approx(-peer.best_score_)
