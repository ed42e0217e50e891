"""The judge of the convex benchmarks shares nothing with the library, and says what its certificate says."""

import numpy as np
import pytest

import jaxreg as jr
from experiments.benchmarks import convex_contenders, convex_problems


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_judge_and_certificate_agree(l1_ratio):
    problem = convex_problems.correlated(40, 12, 4)
    lams = problem.lams[[1, 50, 99]]
    w = np.linalg.lstsq(problem.X, problem.y - problem.y.mean())[0] * np.array([[0.3], [0.9], [1.0]])
    b = problem.y.mean() + np.array([0.0, 0.1, 0.0])
    judged = convex_problems.gap(problem.X, problem.y, w, b, lams, l1_ratio)
    objective = convex_problems.objective(problem.X, problem.y, w, b, lams, l1_ratio)
    for k, lam in enumerate(lams):
        found = jr.convex.certify(
            jr.convex.Squared(), jr.ElasticNet(lam, l1_ratio), problem.X, problem.y, coef=w[k], intercept=b[k]
        )
        np.testing.assert_allclose([found.value, found.objective], [judged[k], objective[k]], rtol=1e-9)
        assert found.kind == "gap"
        assert judged[k] > 1e-4  # or agreement would be that of rounding


def test_strongest_strength_has_no_coefficients():
    problem = convex_problems.diabetes_with_interactions()
    assert problem.X.shape == (442, 65)
    assert np.linalg.matrix_rank(problem.X) == 64
    mean, none = np.full(100, problem.y.mean()), np.zeros((100, 65))
    gaps = convex_problems.gap(problem.X, problem.y, none, mean, problem.lams)
    assert abs(gaps[0]) < 1e-14
    assert (gaps[1:] > 1e-6).all()


def test_calibration_finds_the_loosest():
    def own(gap, guess):
        return convex_contenders.calibrate(lambda own: (0.0, own), gap, 1e-4, guess)["own"]

    assert own(lambda own: 2 * own, 1e-1) == pytest.approx(10**-4.5)
    assert own(lambda own: 2 * own, 1e-9) == pytest.approx(10**-4.5)
    assert own(lambda own: 1.0, 1e-1) is None
