"""Grids of λ against scikit-learn's and against the solutions at their ends, and penalties at every λ."""

import numpy as np
import pytest
from sklearn.linear_model import MultiTaskLassoCV, enet_path

import jaxreg as jr
from jaxreg.convex import Logistic, Poisson, Squared, certify, ridge
from jaxreg.convex.problem import prepare
from jaxreg.convex.strengths import at_lams, automatic_lams, check_at_lams, checked_lams

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(30, 4)) + 1, RNG.normal(size=30)
LABELS = RNG.integers(0, 3, 30)


def grid(datafit, penalty, y, **options):
    return automatic_lams("test", datafit, penalty, prepare("test", datafit, X, y, **options), num=5, eps=1e-2)


def test_grids_of_scikit_learn():
    centred = X - X.mean(0)
    np.testing.assert_allclose(
        grid(Squared(), jr.ElasticNet(1.0, 0.3), Y),
        enet_path(centred, Y - Y.mean(), l1_ratio=0.3, alphas=5, eps=1e-2)[0],
    )
    Y2 = np.stack([Y, Y**2], 1)
    other = MultiTaskLassoCV(alphas=5, eps=1e-2).fit(X, Y2)
    np.testing.assert_allclose(grid(Squared(), jr.GroupL2(1.0, axis=1), Y2), other.alphas_)


@pytest.mark.parametrize(
    ("datafit", "y"),
    [(Logistic(), LABELS > 0), (Poisson(), LABELS)],
    ids=lambda v: type(v).__name__,
)
def test_all_coefficients_are_zero_from_the_largest_on(datafit, y):
    problem = prepare("test", datafit, X, y, RNG.random(30), True, "std")
    top = automatic_lams("test", datafit, jr.L1(1.0), problem, num=1)[0]
    zero = np.zeros(problem.shape)
    odds = problem.weight @ problem.y
    intercept = np.log(odds) - (np.log(1 - odds) if isinstance(datafit, Logistic) else 0)
    gap = lambda lam: (
        certify(
            datafit, jr.L1(lam), problem.X, y, zero, intercept, sample_weight=problem.weight, fit_intercept=True
        ).value
    )
    assert gap(top * (1 + 1e-9)) < 1e-12
    assert gap(top * 0.99) > 1e-8


def test_the_range_of_ridge():
    lams = grid(Squared(), jr.SquaredL2(1.0), Y)
    df = ridge(X, Y, lams)["df"]
    assert df[0] < 0.4
    assert df[-1] > 3.9
    np.testing.assert_allclose(grid(Squared(), jr.ElasticNet(1.0, 0.0), Y), lams)


def test_penalties_at_every_strength():
    lams = np.array([[3.0, 2.0], [1.5, 1.0]])
    pen = at_lams("test", jr.ElasticNet(7.0, 0.5), lams, [0.1, 0.9])
    np.testing.assert_array_equal(pen.lam, lams)
    np.testing.assert_array_equal(pen.l1_ratio, [[0.1, 0.1], [0.9, 0.9]])
    pen = at_lams("test", jr.MCP(np.array([1.0, 0.0, 2.0]), 3.0), lams[0])
    np.testing.assert_array_equal(pen.lam, [[3, 0, 6], [2, 0, 4]])
    np.testing.assert_array_equal(pen.gamma, [3, 3])
    np.testing.assert_array_equal(at_lams("test", jr.Slope([2.0, 1.0]), lams[0]).lams, [[6, 3], [4, 2]])
    np.testing.assert_array_equal(checked_lams("test", [1, 3, 2]), [3, 2, 1])


@pytest.mark.parametrize(
    ("penalty", "options", "error", "said"),
    [
        (jr.L1(np.array([1.0, 0.0, 1.0, 1.0])), {}, ValueError, "no strength sets all coefficients to 0"),
        (jr.Towards(jr.L1(1.0), 1.0), {}, ValueError, "of which no largest strength is known"),
        (jr.L1(1.0), {"num": 0}, ValueError, "`num`"),
        (jr.L1(1.0), {"eps": 0}, ValueError, "`eps`"),
    ],
)
def test_grids_that_cannot_be(penalty, options, error, said):
    with pytest.raises(error, match=said):
        automatic_lams("test", Squared(), penalty, prepare("test", Squared(), X, Y), **options)


def test_strengths_that_cannot_be():
    for lams in ([1.0, -1.0], [np.nan], [np.inf], [[1.0]], "1", []):
        with pytest.raises(ValueError, match=r"`test` needs .*`lams`"):
            checked_lams("test", lams)
    with pytest.raises(TypeError, match="`lam` to vary, got `Towards`"):
        check_at_lams("test", jr.Towards(jr.L1(1.0), 1.0))
