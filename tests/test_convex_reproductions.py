"""Published tables, paths and risk curves of linear models (B1–B4, C1, C2), and ridge by gradient descent."""

import json

import numpy as np
import pytest

import jaxreg as jr
from experiments import (
    diabetes_lars,
    glmnet_quickstart,
    prostate,
    published,
    ridge_descent,
    ridge_risk,
    ridge_theory,
)

pytestmark = pytest.mark.filterwarnings("default")  # of matplotlib's and scikit-learn's own imports


def differing(folder, name: str, count: int) -> list[dict]:
    """The rows of an experiment that are not as published, of `count`; its figure is there."""
    assert (folder / f"{name}.png").stat().st_size > 10_000
    rows = json.loads((folder / f"{name}.json").read_text())["rows"]
    assert len(rows) == count
    return [row for row in rows if not row["agrees"]]


def test_b1_b2_prostate(data_dir, tmp_path):
    prostate.main(["--out", str(tmp_path)])
    assert differing(tmp_path, "prostate", 45) == []


def test_b3_knots_of_the_diabetes_path(tmp_path, monkeypatch):
    diabetes_lars.main(["--out", str(tmp_path)])
    assert differing(tmp_path, "diabetes_lars", 13) == []
    off = {knot * (1 + 3e-4): event for knot, event in diabetes_lars.KNOTS.items()}
    monkeypatch.setattr(diabetes_lars, "KNOTS", off)
    config = diabetes_lars.Config()
    rows = diabetes_lars.rows(diabetes_lars.run(config), config)
    assert [row.agrees for row in rows] == [False] * 12 + [True]  # knots elsewhere are told from these


def test_b4_glmnet_quickstart(data_dir, tmp_path):
    glmnet_quickstart.main(["--out", str(tmp_path)])
    assert differing(tmp_path, "glmnet_quickstart", 23) == []


def test_ridge_descent_as_the_tutorial_does_it(tmp_path, capsys):
    config = ridge_descent.Config(rates=21)
    results = ridge_descent.run(config)
    assert all(row.agrees for row in ridge_descent.rows(results, config))
    x, y = ridge_descent.example(config)
    solution = jr.convex.solve(jr.convex.Squared(), jr.SquaredL2(config.lam), x[:, None], y, tol=1e-14)
    np.testing.assert_allclose([*solution.coef, solution.intercept], [3.072658925, 0.896115729], atol=1e-8)
    tutorial = results["tutorial"]
    np.testing.assert_array_equal(tutorial["diverged"].sel(error=["mean", "sum"]), [False, True])
    largest = np.array([results["largest"][error] for error in ridge_descent.ERRORS])
    np.testing.assert_allclose(config.rate * largest, [0.042458, 4.132430], atol=1e-6)
    trials = results["trials"]
    reach = largest[:, None] * trials["lr"].values
    growth = ridge_descent.growth(trials)
    np.testing.assert_array_equal(growth > 1, reach > 2)
    assert 0 < (reach > 2).sum() < reach.size
    np.testing.assert_allclose(growth[reach > 2], reach[reach > 2] - 1, rtol=1e-6)
    ridge_descent.figure(results, config).savefig(tmp_path / "figure.png")


def test_risk_of_ridge_in_closed_form():
    for gamma, printed in {0.5: 0.175391, 1.0: 0.390388, 2.0: 0.640388}.items():
        best = ridge_theory.optimal_lam(gamma, 0.5)
        assert abs(ridge_theory.risk(gamma, best, 0.5) - printed) <= 1e-6
        around = ridge_theory.risk(gamma, best * np.array([0.99, 1, 1.01]), 0.5)
        assert around.argmin() == 1
    gamma = np.array([0.1, 0.5, 0.9, 1.1, 2, 10])
    np.testing.assert_allclose(ridge_theory.risk(gamma, 1e-9, 0.5), ridge_theory.ridgeless(gamma, 0.5), rtol=1e-6)
    np.testing.assert_allclose(ridge_theory.risk(gamma, 1e9, 0.5, norm=3), 9, rtol=1e-6)  # w = 0
    np.testing.assert_allclose(0.25 + ridge_theory.ridgeless([0.5, 2], 0.5), [0.5, 1])
    large = [ridge_theory.ridgeless_finite(10**7, round(10**7 / g), 0.5) for g in gamma]
    np.testing.assert_allclose(large, ridge_theory.ridgeless(gamma, 0.5), rtol=1e-5)


def test_c1_c2_small(tmp_path):
    config = ridge_risk.Config(dim=40, seeds=200, ratios=(0.5, 0.9, 1, 1.5, 2))
    runs = ridge_risk.run(config)
    mean, error = ridge_risk.mean_and_error(runs["risk"])
    lams = config.lams[config.lams >= config.best / 8]
    for n in (20, 40, 80):
        gamma = config.dim / n
        formula = config.noise**2 + ridge_theory.risk(gamma, lams / n, config.noise)
        np.testing.assert_allclose(mean.sel(n=n, lam=lams), formula, rtol=0.05)
        steps = np.log2(float(mean["lam"][mean.sel(n=n).argmin("lam")]) / config.best) * config.per_octave
        assert abs(steps) <= 1
    for n in (20, 60, 80):
        exact = config.noise**2 + ridge_theory.ridgeless_finite(40, n, config.noise)
        assert abs(mean.sel(n=n, lam=0) - exact) <= 3 * error.sel(n=n, lam=0)
    peak = mean.sel(lam=0)
    assert peak.sel(n=36) > 1.5 * peak.sel(n=20)  # double descent,
    assert (mean.sel(lam=config.best).diff("n") < 0).all()  # and none
    ridge_risk.figure(runs, config).savefig(tmp_path / "figure.png")


@pytest.mark.slow
def test_c1_c2_as_published(tmp_path):
    ridge_risk.main(["--out", str(tmp_path)])
    assert differing(tmp_path, "ridge_risk", 23) == []


def test_rows_that_differ_are_said_to():
    rows = [published.Row("a", 1.0, 1.1, 0.2), published.Row("b", 1.0, 1.3, 0.2), published.Row("c", np.nan, 1, 1)]
    assert [row.agrees for row in rows] == [True, False, False]
    lines = published.table(rows).splitlines()
    assert [line.endswith("DIFFERS") for line in lines[1:4]] == [False, True, True]
    assert lines[-1] == "1 of 3 agree"
