"""Cross-validation against scikit-learn's, its closed form for ridge, its rules, and what it refuses."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNetCV, LassoCV, LogisticRegressionCV, Ridge, RidgeCV
from sklearn.model_selection import KFold, StratifiedKFold

import jaxreg as jr
from jaxreg.convex import Logistic, Squared, cross_validate
from jaxreg.convex.folds import make_folds
from jaxreg.convex.held_out import held_out_errors
from jaxreg.convex.problem import prepare

DIABETES = load_diabetes(return_X_y=True)
OPTIONS = {"num": 20, "seed": None, "tol": 1e-10}


def of(cv, rule="min"):
    return cv.best("error", rule)


def test_lasso_of_scikit_learn():
    X, y = DIABETES
    other = LassoCV(alphas=20, cv=5, tol=1e-12, max_iter=100_000).fit(X, y)
    cv = cross_validate(Squared(), jr.L1(1.0), X, y, **OPTIONS)
    assert cv["converged"].all()
    np.testing.assert_allclose(cv["lam"], other.alphas_)
    np.testing.assert_allclose(cv["error"].T, other.mse_path_, rtol=1e-7)
    assert of(cv)["lam"] == pytest.approx(other.alpha_)
    np.testing.assert_allclose(of(cv)["coef"], other.coef_, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(of(cv)["intercept"], other.intercept_)
    mean, error = cv["error"].mean("fold"), cv["error"].std("fold", ddof=1) / np.sqrt(5)
    within = mean <= mean.min() + error[np.argmin(mean.values)]
    assert of(cv, "1se")["lam"] == cv["lam"][within.values].max() > other.alpha_


def test_elastic_net_of_scikit_learn():
    X, y = DIABETES
    ratios = [0.3, 0.9]
    weight = np.random.default_rng(0).random(len(y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        other = ElasticNetCV(l1_ratio=ratios, alphas=20, cv=5, tol=1e-12, max_iter=100_000)
        other.fit(X, y, sample_weight=weight)
    cv = cross_validate(
        Squared(), jr.ElasticNet(1.0, 0.5), X, y, l1_ratios=ratios, folds=KFold(5), sample_weight=weight, **OPTIONS
    )
    assert cv["error"].dims == ("fold", "config")
    np.testing.assert_allclose(cv["lam"].values.reshape(2, 20), other.alphas_)
    np.testing.assert_allclose(cv["error"].values.T.reshape(2, 20, 5), other.mse_path_, rtol=1e-5)
    best = of(cv, "1se")
    assert best["l1_ratio"] == of(cv)["l1_ratio"]
    assert best["lam"] > of(cv)["lam"]


@pytest.mark.parametrize("weighted", [False, True])
def test_leave_one_out_of_ridge_is_leaving_out(weighted):
    X, y = DIABETES[0][:40], DIABETES[1][:40]
    weight = np.arange(40) % 5 + 0.0 if weighted else np.ones(40)
    lams = np.array([1e-2, 1e-4])
    options = {"lams": lams, "sample_weight": weight if weighted else None}
    cv = cross_validate(Squared(), jr.SquaredL2(1.0), X, y, folds="loo", **options)
    kept = np.flatnonzero(weight)
    rows = np.arange(40)
    pairs = [(np.delete(rows, i), [i]) for i in kept]
    np.testing.assert_allclose(
        cv["error"], cross_validate(Squared(), jr.SquaredL2(1.0), X, y, folds=pairs, **options)["error"]
    )
    for i, k in enumerate(kept):
        train = rows[(rows != k) & (weight > 0)]
        other = Ridge(lams[0] * weight[train].sum(), solver="svd").fit(X[train], y[train], weight[train])
        np.testing.assert_allclose(cv["error"][i, 0], (y[k] - other.predict(X[[k]])[0]) ** 2)
    if not weighted:
        other = RidgeCV(lams * 39, store_cv_results=True).fit(X, y)
        np.testing.assert_allclose(cv["error"], other.cv_results_)


def test_ridge_is_exact_in_every_fold_and_scaled_by_its_own_rows():
    X, y = DIABETES
    X = X * 10.0 ** (np.arange(10) - 5)
    cv = cross_validate(Squared(), jr.SquaredL2(1.0), X, np.stack([y, y**2], 1), standardize="std", num=5, repeats=2)
    assert cv["certificate"].max() < 1e-20
    assert cv["repeat"].values.tolist() == [0] * 5 + [1] * 5
    splits = make_folds(len(y), 5, repeats=2)
    for error, train, test in zip(cv["error"], splits.train, splits.test, strict=True):
        fits = jr.convex.ridge(X[train], np.stack([y, y**2], 1)[train], cv["lam"].values, standardize="std")
        rest = X[test] @ fits["coef"].values + fits["intercept"].values[:, None] - np.stack([y, y**2], 1)[test]
        np.testing.assert_allclose(error, np.square(rest).mean((1, 2)))


@pytest.mark.parametrize(
    "penalty", [jr.L1(1.0), jr.SquaredL2(1.0), pytest.param(jr.SquaredL2(np.ones(5)), marks=pytest.mark.slow)], ids=repr
)
@pytest.mark.parametrize(("kind", "fit_intercept"), [("sample_std", True), ("norm", True), ("std", False)])
def test_columns_are_scaled_by_the_rows_of_the_fold(penalty, kind, fit_intercept):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12, 5)) + np.arange(5), rng.normal(size=12)
    if fit_intercept:
        X[:, 4] = np.where(np.arange(12) == 0, 334, 1000 / 3)  # of one value in the fold that leaves out row 0
    options = {"standardize": kind, "fit_intercept": fit_intercept, "lams": [1.0, 1e-3], "tol": 1e-10}
    rows, varies = np.arange(4, 12), X[4:].std(0) > 0
    cv = cross_validate(Squared(), penalty, X, y, folds=[(rows, np.arange(4)), (np.arange(8), rows[4:])], **options)
    lam = penalty.lam if np.ndim(penalty.lam) == 0 else penalty.lam[varies]
    fits = jr.convex.path(Squared(), type(penalty)(lam), X[4:, varies], y[4:], **options)
    rest = X[:4, varies] @ fits["coef"].values.T + fits["intercept"].values - y[:4, None]
    np.testing.assert_allclose(cv["error"][0], np.square(rest).mean(0), rtol=1e-6)


def test_errors_of_held_out_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(11, 3)) + 5
    coef, intercept, test = rng.normal(size=(2, 2, 3)), rng.normal(size=(2, 2)), np.zeros((2, 11), bool)
    test[0, :5], test[1, 4:], weight = True, True, rng.random(11)
    labels = np.array(["no", "yes"])[rng.integers(0, 2, 11)]
    problem = prepare("test", Logistic(), X, labels, weight, standardize="std")
    eta = X @ coef[..., None] + intercept[..., None, None]
    right = (eta[..., 0] > 0) == (labels == "yes")
    expected = {
        "misclassification": ~right,
        "deviance": 2 * np.log1p(np.exp(np.where(labels == "yes", -1, 1) * eta[..., 0])),
    }
    for metric, errors in expected.items():
        mean = np.stack([np.average(e[:, rows], 1, weight[rows]) for e, rows in zip(errors, test, strict=True)])
        np.testing.assert_allclose(held_out_errors(metric, Logistic(), problem, test, coef, intercept), mean)
    by_hand = held_out_errors(lambda p, y: abs((p > 0.5) - y), Logistic(), problem, test, coef, intercept)
    np.testing.assert_allclose(
        by_hand, held_out_errors("misclassification", Logistic(), problem, test, coef, intercept)
    )


@pytest.mark.slow
def test_logistic_regression_of_scikit_learn():
    X, y = load_breast_cancer(return_X_y=True)
    X, y = (X[:120, :4] - X[:120, :4].mean(0)) / X[:120, :4].std(0), np.array(["benign", "malignant"])[y[:120]]
    splitter, lams = StratifiedKFold(4, shuffle=True, random_state=0), np.geomspace(1.0, 1e-3, 6)
    options = {"lams": lams, "tol": 1e-12, "folds": splitter}
    cv = cross_validate(Logistic(), jr.SquaredL2(1.0), X, y, **options)
    assert cv["converged"].all()
    other = LogisticRegressionCV(
        Cs=1 / (90 * lams),
        cv=splitter,
        l1_ratios=(0,),
        scoring="neg_log_loss",
        tol=1e-10,
        max_iter=10_000,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of attributes that will change
        scores = other.fit(X, y).scores_
    scores = np.asarray(next(iter(scores.values())) if isinstance(scores, dict) else scores)
    np.testing.assert_allclose(cv["error"] / 2, -scores.reshape(4, 6), rtol=1e-6)
    balanced = cross_validate(Logistic(), jr.SquaredL2(1.0), X, y, lams=lams, folds=4, tol=1e-10)
    assert abs(balanced["error"].mean() - cv["error"].mean()) < 0.1 * cv["error"].mean()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"lams": [1.0, 0.0]}, ValueError, "`lams` > 0, got 0.0"),
        ({"lams": []}, ValueError, "`lams`"),
        ({"eps": 1.0}, ValueError, "`eps`"),
        ({"folds": 13}, ValueError, "<= 12"),
        ({"tol": 0.0}, ValueError, "`tol`"),
        ({"penalty": jr.Orthogonality(1.0)}, TypeError, "`cross_validate`"),
        ({"metric": "accuracy"}, ValueError, '"deviance", "misclassification"'),
        ({"metric": "misclassification"}, ValueError, "classes"),
        ({"l1_ratios": [0.5]}, TypeError, "`l1_ratio`"),
        ({"penalty": jr.ElasticNet(1.0, 0.5), "l1_ratios": [1.5]}, ValueError, r"in \[0, 1\]"),
        ({"penalty": jr.L1(1.0) + jr.SquaredL2(1.0)}, TypeError, "`lam` to vary, got `Sum`"),
        ({"datafit": Logistic(), "y": [0] * 11 + [1], "folds": 2}, ValueError, "the smallest has 1"),
        ({"datafit": Logistic(), "y": [0] * 11 + [1], "folds": 2, "stratify": False}, ValueError, "every class"),
        ({"sample_weight": [0] * 4 + [1] * 8, "folds": KFold(3)}, ValueError, "fold 0 has none"),
        ({"y": np.ones(12)}, ValueError, "all coefficients are 0 at every strength"),
    ],
)
def test_bad_input_is_refused(options, error, said):
    X = np.random.default_rng(0).normal(size=(12, 2))
    arguments = {"datafit": Squared(), "penalty": jr.L1(1.0), "X": X, "y": X[:, 0], **options}
    with pytest.raises(error, match=said):
        cross_validate(**arguments)
