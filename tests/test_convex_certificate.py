"""Certificates that cannot lie: the gap bounds what is lost against a tight reference, and vanishes with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convex_table import DATAFITS

import jaxreg as jr
from jaxreg import convex
from jaxreg.convex.certificate import certificate, certificates, kind
from jaxreg.convex.problem import prepare

ROWS = {row.name: row for row in DATAFITS}
PER_COLUMN = np.array([0.05, np.inf, 0.1, 0.02])
RATIOS = np.array([1.0, 0.5, 0.0, 0.3])
PAIRS = [  # datafit, penalty, intercept
    ("squared", jr.L1(0.1), True),
    ("squared", jr.ElasticNet(PER_COLUMN, RATIOS), False),
    ("squared, three targets", jr.GroupL2(PER_COLUMN, axis=1), True),
    ("logistic", jr.SparseGroup(0.02, 0.5), True),
    ("logistic", jr.SquaredL2(0.01), False),
    ("multinomial", jr.ElasticNet(0.02, 0.7), True),
    ("huber", jr.ElasticNet(0.05, 0.5), True),
    ("poisson", jr.L1(0.05), True),
]
LONG = [
    ("squared", jr.L1(PER_COLUMN), False),
    ("squared", jr.Slope(np.array([0.2, 0.1, 0.05, 0.0])), True),
    ("squared", jr.SparseGroup(0.1, 0.5), True),
    ("squared, three targets", jr.Nuclear(0.1), False),
    ("logistic", jr.L1(0.03), True),
    ("multinomial", jr.GroupLinf(0.03, axis=1), True),
    ("multinomial", jr.GroupL2(0.03, axis=1), False),
    ("huber, three targets", jr.SpectralNorm(0.05), True),
    ("poisson, three targets", jr.SquaredL2(PER_COLUMN[:, None]), True),
]
PAIRS += [pytest.param(*pair, marks=pytest.mark.slow) for pair in LONG]


def solved(datafit, penalty, X, y, weight, fit_intercept):
    """(W, b) by accelerated proximal gradient, long enough to be exact."""
    curvature = datafit.curvature or 4 * float(np.max(y))
    step = 1 / (curvature * np.linalg.norm(X * np.sqrt(weight)[:, None], 2) ** 2)

    def intercept(W):
        return datafit.intercept(X @ W, y, weight) if fit_intercept else jnp.zeros(y.shape[1:])

    def iteration(_, carry):
        W, V, t = carry
        theta = datafit.slope(X @ V + intercept(V), y)
        new = penalty.prox(V - step * (X.T @ (weight * theta.T).T), step)
        t = jnp.where(jnp.sum((V - new) * (new - W)) > 0, 1.0, t)  # restarted where it climbs
        later = (1 + jnp.sqrt(1 + 4 * t * t)) / 2
        return new, new + (t - 1) / later * (new - W), later

    W = jnp.zeros(X.shape[1:] + y.shape[1:])
    W, _, _ = jax.lax.fori_loop(0, 1000, iteration, (W, W, jnp.ones(())))
    return W, intercept(W)


def in_lanes(penalty, count):
    """Leaves (1, count, ...)."""
    return jax.tree.map(lambda leaf: np.broadcast_to(np.float64(leaf), (1, count, *np.shape(leaf))), penalty)


@pytest.mark.parametrize(("name", "penalty", "fit_intercept"), PAIRS, ids=lambda v: getattr(type(v), "__name__", v))
def test_gap_bounds_what_is_lost(name, penalty, fit_intercept):
    """At the solution, near it, and anywhere, with weights; the gap is relative to what w = 0 loses."""
    row = ROWS[name]
    X, given, _ = row.data()
    weight = np.random.default_rng(1).random(len(X))
    problem = prepare("test", row.datafit, X, given, weight, fit_intercept)
    X, y, weight = problem[:3]
    rng = np.random.default_rng(2)
    scales = np.array([0.0, *np.logspace(-6, 0.5, 14)])
    moves = rng.normal(size=(15, *X.shape[1:], *y.shape[1:])) * scales.reshape(15, 1, *[1] * (y.ndim - 1))
    shifts = rng.normal(size=(15, *y.shape[1:])) * scales.reshape(15, *[1] * (y.ndim - 1)) * fit_intercept

    @jax.jit
    def all_of_it():
        W, b = solved(row.datafit, penalty, X, y, weight, fit_intercept)
        free = (np.asarray(getattr(penalty, "lam", 1.0)) < np.inf).reshape(-1, *[1] * (y.ndim - 1))

        def plain(W, b):
            return weight @ row.datafit.loss(X @ W + b, y) + penalty.value(W)

        zero = W * 0, row.datafit.intercept(X @ W * 0, y, weight) if fit_intercept else b
        lanes = W + moves * free, b + shifts
        return W, lanes, jax.vmap(plain)(*lanes), plain(*zero)

    W, lanes, expected, at_zero = all_of_it()
    value, objective, dual, null = certificates(row.datafit, in_lanes(penalty, 15), problem, *map(np.asarray, lanes))
    np.testing.assert_allclose(objective, expected, rtol=1e-14)
    np.testing.assert_allclose(null, at_zero, rtol=1e-14)
    units = (objective - dual)[-1] / value[-1]
    assert abs(value[0]) < 1e-13
    assert (value > -1e-15).all()
    lost = objective - objective[0]
    assert (lost >= -1e-14).all()
    assert (lost <= value * units + 1e-14).all()  # `gap` bounds it
    assert (dual <= objective[0] + 1e-14).all()
    assert (value[1:] > value[0]).all()
    assert (np.diff(value[3::3]) > 0).all()
    assert (W != 0).any()
    floor = float(weight @ row.datafit.saturated(y))
    assert units == pytest.approx(float(null[0]) - floor)


@pytest.mark.parametrize("name", ["squared", "logistic", "huber", "poisson"])
def test_zero_solves_at_the_critical_strength(name):
    row = ROWS[name]
    X, given, _ = row.data()
    problem = prepare("test", row.datafit, X, given)
    X, y, weight = problem[:3]
    lam = np.array([1.0, 0.5, 2.0, np.inf])

    @jax.jit
    def critical():
        eta = jnp.zeros(len(X))
        b = row.datafit.intercept(eta, y, weight)
        g = X.T @ (weight * row.datafit.slope(eta + b, y))
        return b, jr.L1(1.0).critical(g), jr.ElasticNet(lam, 0.5).critical(g)  # of an array, it is the factor

    b, one, each = map(np.asarray, critical())

    def at_zero(share):
        found = [
            certificates(row.datafit, in_lanes(p, 1), problem, np.zeros((1, X.shape[1])), b[None])[0][0]
            for p in (jr.L1(share * one), jr.ElasticNet(share * each * lam, 0.5))
        ]
        return np.array(found)

    assert (np.abs(at_zero(1.0)) < 1e-15).all()
    assert (np.abs(at_zero(2.0)) < 1e-15).all()
    assert (at_zero(0.9) > 1e-4).all()


# ------------------------------------------------------------------ on the host


def test_kinds():
    """Which certificate a penalty allows: where nothing is penalized, or where it is not convex, no gap."""
    shape = (4, 3)
    for penalty in (
        jr.L1(1),
        jr.SquaredL2(1),
        jr.ElasticNet(1, 0),
        jr.GroupL2(1, axis=1),
        jr.Nuclear(1),
        jr.Slope(1.0),
    ):
        assert kind(penalty, shape) == "gap"
    for penalty in (
        jr.L1(0.0),
        jr.L1(np.array([0.0, 1.0, 1.0])),
        jr.MCP(1, 3),
        jr.TotalVariation(1, axis=0),
        jr.L1(1) + jr.SquaredL2(1),
        jr.Towards(jr.L1(1), 1.0),
        jr.Huber(1, 1),
    ):
        assert kind(penalty, shape) == "optimality"
    assert kind(jr.L1(1) + jr.GroupLinf(1, axis=1), shape) == "fixed_point"


@pytest.fixture(scope="module")
def lasso():
    X, y, _ = ROWS["squared"].data()
    p = prepare("test", convex.Squared(), X, y)
    W, b = jax.jit(lambda: solved(convex.Squared(), jr.L1(0.1), *p[:3], True))()
    return X, y, *p.undo(W, b)


def test_other_kinds_vanish_at_solutions(lasso):
    """The lasso's solution, said in other ways."""
    X, y, W, b = lasso
    for penalty, expected in (
        (jr.L1(0.1) + jr.L1(0.0), "optimality"),
        (jr.L1(0.1) + jr.GroupLinf(0.0), "fixed_point"),
    ):
        at, moved, shifted = (
            convex.certify(convex.Squared(), penalty, X, y, *Wb) for Wb in ((W, b), (W + 1e-3, b), (W, b + 1e-3))
        )
        assert at.kind == expected
        assert at.value < 1e-13
        assert min(moved.value, shifted.value) > 1e-4
        assert at.dual == -np.inf
        assert at.objective == pytest.approx(convex.certify(convex.Squared(), jr.L1(0.1), X, y, W, b).objective)


def test_rounding_of_equal_coefficients_is_none():
    """Of the fused lasso, whose subdifferential jumps where neighbours part, and of an anchor."""
    X, y, _ = ROWS["squared"].data()
    level = np.sum((X.sum(1) - X.sum(1).mean()) * (y - y.mean())) / np.sum((X.sum(1) - X.sum(1).mean()) ** 2)
    for penalty, W in ((jr.TotalVariation(10.0), np.full(4, level)), (jr.Towards(jr.L1(100.0), 0.3), np.full(4, 0.3))):
        b = y.mean() - X.mean(0) @ W
        parted = W * (1 + 1e-15 * np.arange(4))
        assert convex.certify(convex.Squared(), penalty, X, y, parted, b).value < 1e-13
        for wrong in (W * (1 + 1e-6 * np.arange(4)), W + 1e-6):
            assert convex.certify(convex.Squared(), penalty, X, y, wrong, b).value > 1e-8


def test_the_number_is_the_same_in_any_session(lasso):
    """With x64 on or off, from arrays of NumPy or jax; in float64 whatever the data were."""
    X, y, W, b = lasso
    narrow = np.float32(X)
    on = convex.certify(convex.Squared(), jr.L1(0.1), narrow, np.float32(y), W, b)
    with jax.enable_x64(False):
        off = convex.certify(convex.Squared(), jr.L1(0.1), jnp.asarray(narrow), jnp.asarray(y), W, b)
    wide = convex.certify(convex.Squared(), jr.L1(0.1), np.float64(narrow), np.float64(np.float32(y)), W, b)
    assert on == off == wide
    assert 0 < on.value < 1e-6  # as far from its solution as the data are rounded
    assert on.value != convex.certify(convex.Squared(), jr.L1(0.1), X, y, W, b).value
    assert prepare("test", convex.Squared(), narrow, y).dtype == np.float32
    assert prepare("test", convex.Squared(), X.astype(np.float16), y).dtype == np.float32
    assert prepare("test", convex.Squared(), X.astype(int), y).dtype == np.float64


def test_weights_are_copies_and_none_is_absence(lasso):
    X, y, W, b = lasso
    k = np.arange(len(y)) % 3
    more = np.repeat(np.arange(len(y)), k)
    spoiled = np.where(k[:, None] > 0, X, np.nan)
    one = convex.certify(convex.Squared(), jr.L1(0.1), spoiled, y, W, b, sample_weight=7.0 * k)
    two = convex.certify(convex.Squared(), jr.L1(0.1), X[more], y[more], W, b)
    np.testing.assert_allclose(np.array(one[:1] + one[2:]), np.array(two[:1] + two[2:]), rtol=1e-12)


@pytest.mark.parametrize("standardize", [None, "std", "sample_std", "norm"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_scaling_is_undone(standardize, fit_intercept):
    """Solutions are for X as given, the penalty is on scaled columns; lanes lead."""
    X, y, _ = ROWS["squared, three targets"].data()
    X = X.reshape(20, 2, 2) * np.array([1.0, 100.0])
    p = prepare("test", convex.Squared(), X, y, np.arange(20.0), fit_intercept, standardize)
    rng = np.random.default_rng(0)
    W, b = rng.normal(size=(5, *p.shape)), fit_intercept * rng.normal(size=(5, 3))
    coef, intercept = p.undo(W, b)
    given = np.einsum("nij,lijt->lnt", X[1:], coef) + intercept[:, None]
    np.testing.assert_allclose(given, np.einsum("nij,lijt->lnt", p.X, W) + b[:, None], rtol=1e-12, atol=1e-11)
    for ours, back in zip((W, b), p.redo(coef, intercept), strict=True):
        np.testing.assert_allclose(back, ours, rtol=1e-12, atol=1e-13)
    options = {"fit_intercept": fit_intercept, "standardize": standardize, "sample_weight": np.arange(20.0)}
    there = certificate(convex.Squared(), jr.L1(0.1), p, W[0], b[0])
    here = convex.certify(convex.Squared(), jr.L1(0.1), X, y, coef[0], intercept[0], **options)
    assert here.value == pytest.approx(there.value)
    mean = np.tensordot(p.weight, p.X, 1)
    size = np.tensordot(p.weight, np.square(p.X - mean), 1)
    expected = {"std": 1, "sample_std": 18 / 19, "norm": 1 / 19}.get(standardize)
    if fit_intercept:
        np.testing.assert_allclose(mean, 0, atol=1e-12)
    if expected and (fit_intercept or standardize != "norm"):
        np.testing.assert_allclose(size, expected)
    elif expected:
        np.testing.assert_allclose(np.tensordot(p.weight, np.square(p.X), 1), expected)


def test_nothing_to_explain():
    """y is constant: w = 0 is exact, and the certificate not noise over noise."""
    X, _, _ = ROWS["squared"].data()
    weight = np.random.default_rng(0).random(20)  # of which means are rounded
    for level in (0.0, 0.1, 1e8 / 3):
        y = np.full(20, level)
        found = convex.certify(convex.Squared(), jr.L1(0.1), X, y, np.zeros(4), weight @ y / weight.sum())
        assert abs(found.value) < 1e-14
        found = convex.certify(convex.Squared(), jr.L1(0.1), X, y, np.zeros(4), level, sample_weight=weight)
        assert abs(found.value) < 1e-14


def test_data_far_from_zero(lasso):
    """They are rounded, by 1e-10 of their spread, and no more is lost."""
    X, y, W, b = lasso
    assert convex.certify(convex.Squared(), jr.L1(0.1), X, y + 1e6, W, b + 1e6).value < 1e-10
    assert convex.certify(convex.Squared(), jr.L1(0.1), X + 1e4, y, W, b - 1e4 * W.sum()).value < 1e-10


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_diverged_is_not_certified(lasso, bad):
    X, y, _, b = lasso
    W = np.full(4, bad)
    for fit_intercept in (True, False):
        for penalty in (jr.L1(0.1), jr.MCP(0.1, 3.0)):
            assert convex.certify(convex.Squared(), penalty, X, y, W, b, fit_intercept=fit_intercept).value > 1e100
        counts = convex.certify(convex.Poisson(), jr.L1(0.1), X, np.arange(20), W, fit_intercept=fit_intercept)
        assert counts.value == np.inf
