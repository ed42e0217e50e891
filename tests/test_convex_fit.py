"""`fit` solves, and its derivatives are those of the solution."""

import csv
import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg as jr
from jaxreg import convex
from jaxreg.convex.support import solve_symmetric

support = importlib.import_module("jaxreg.convex.support")


def problem(datafit, targets=(), seed=0, n=30, p=6):
    """X, encoded y and weights."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    eta = X @ np.array([2.0, -1.0, 0.0, 0.0, 0.5, 0.0])[:p] + 0.3
    y = {
        "Squared": eta + rng.normal(size=n),
        "Huber": eta + 2 * rng.standard_t(2, size=n),
        "Logistic": (eta + rng.normal(size=n) > 0).astype(float),
        "Poisson": rng.poisson(np.exp(np.clip(eta, -3, 3))).astype(float),
        "Multinomial": np.eye(3)[rng.integers(0, 3, n)],
    }[type(datafit).__name__]
    if targets:
        y = np.stack([eta, eta**2, -eta], 1) + rng.normal(size=(n, 3))
    return X, y, rng.uniform(0.5, 2, n)


def prostate(data_dir):
    """A, y of the 67 training rows and of the 30 others, predictors scaled on all."""
    rows = list(csv.DictReader((data_dir / "prostate.csv").read_text().splitlines()))
    names = ["lcavol", "lweight", "age", "lbph", "svi", "lcp", "gleason", "pgg45"]
    X = np.array([[float(row[name]) for name in names] for row in rows])
    y, train = np.array([float(row["lpsa"]) for row in rows]), np.array([row["train"] == "T" for row in rows])
    Z = (X - X.mean(0)) / X.std(0, ddof=1)
    return Z[train], y[train], Z[~train], y[~train]


def prostate_error(data_dir):
    """penalty -> error on the 30 rows."""
    A, y, T, held = prostate(data_dir)

    def error(penalty):
        w, b = convex.fit(convex.Squared(), penalty, A, y)
        return jnp.mean(jnp.square(held - T @ w - b))

    return error


def test_published_hypergradients(data_dir):
    error = prostate_error(data_dir)
    ratio = jnp.array([1.0, 1, 1, 0, 0, 0])  # lasso and ridge, whose published strengths are of the residual sum
    unit = jnp.array([1.0, 1, 1, 67, 67, 67])
    strengths = jnp.array([0.05, 0.1, 0.2, 1, 24, 100])
    slope = jax.value_and_grad(lambda lam, ratio: error(jr.ElasticNet(lam, ratio)))
    errors, slopes = jax.jit(jax.vmap(slope))(strengths / unit, ratio)
    published = [0.4562546827, 0.4527479385, 0.4748303923, 0.5126628969, 0.4903613205, 0.5539664933]
    np.testing.assert_allclose(errors, published, atol=1e-9)
    published = [0.18160859, -0.05556727, 0.51329455, -0.00749783574, 0.00067860830, 0.00081389506]
    np.testing.assert_allclose(slopes / unit, published, atol=1e-8)


per_weight = np.linspace(0.05, 0.3, 6)
slow = pytest.mark.slow
CASES = [
    (convex.Squared(), jr.L1(per_weight), None),
    (convex.Squared(), jr.GroupL2(0.3, axis=1), (3, 2)),
    pytest.param(convex.Logistic(), jr.ElasticNet(0.03, 0.5), None, marks=slow),
    pytest.param(convex.Squared(), jr.L1(0.1), None, marks=slow),
    pytest.param(convex.Squared(), jr.ElasticNet(per_weight, 0.5), None, marks=slow),
    pytest.param(convex.Squared(), jr.SquaredL2(per_weight), None, marks=slow),
    pytest.param(convex.Squared(), jr.Huber(0.2, 0.3), None, marks=slow),
    pytest.param(convex.Squared(), jr.L1(0.1) + jr.SquaredL2(0.1), None, marks=slow),
    pytest.param(convex.Squared(), jr.MCP(0.2, 3.0), None, marks=slow),
    pytest.param(convex.Squared(), jr.SCAD(0.2, 3.7), None, marks=slow),
    pytest.param(convex.Squared(), jr.LogSum(0.1, 0.5), None, marks=slow),
    pytest.param(convex.Squared(), jr.GroupMCP(0.2, 3.0, axis=1), (3, 2), marks=slow),
    pytest.param(convex.Squared(), jr.SparseGroup(0.3, 0.5, axis=1), "targets", marks=slow),
    pytest.param(convex.Squared(), jr.GroupL2(np.linspace(0.2, 0.6, 6), axis=1), "targets", marks=slow),
    pytest.param(convex.Logistic(), jr.L1(0.02), None, marks=slow),
    pytest.param(convex.Logistic(), jr.SquaredL2(0.05), None, marks=slow),
    pytest.param(convex.Multinomial(), jr.L1(0.02), None, marks=slow),
    pytest.param(convex.Multinomial(), jr.SquaredL2(0.05), None, marks=slow),
    pytest.param(convex.Poisson(), jr.L1(0.1), None, marks=slow),
    pytest.param(convex.Huber(), jr.ElasticNet(0.1, 0.5), None, marks=slow),
]


def readout(w, b):
    """A function of the solution that treats no two numbers alike."""
    return jnp.sum(jnp.sin(1 + jnp.arange(w.size)) * w.ravel() + jnp.square(w.ravel())) + jnp.sum(
        jnp.cos(jnp.arange(b.size)) * b.ravel()
    )


@pytest.mark.parametrize(("datafit", "penalty", "shape"), CASES, ids=lambda c: type(c).__name__)
def test_hypergradient_is_the_central_difference(datafit, penalty, shape):
    X, y, weight = problem(datafit, ("targets",) if shape == "targets" else ())
    X = X.reshape(len(X), *shape) if isinstance(shape, tuple) else X
    rng, h = np.random.default_rng(1), 1e-5
    penalty = jax.tree.map(jnp.asarray, penalty)
    way = jax.tree.map(lambda leaf: rng.uniform(0.5, 1, jnp.shape(leaf)) * np.max(leaf), penalty)
    three = jax.tree.map(lambda leaf, d: jnp.stack([leaf, leaf + h * d, leaf - h * d]), penalty, way)

    @jax.jit
    @jax.vmap
    def values(penalty):
        return convex.hypergradient(readout, datafit, penalty, X, y, sample_weight=weight)

    value, slope = values(three)
    assert type(slope) is type(penalty)
    along = sum(jnp.sum(a[0] * b) for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(way), strict=True))
    np.testing.assert_allclose(along, (value[1] - value[2]) / (2 * h), rtol=1e-6, atol=1e-8)


def test_derivatives_in_data_and_weights_and_second_ones():
    X, y, weight = problem(convex.Logistic())
    rng, h = np.random.default_rng(1), 1e-5

    def value(lam, X, y, weight):
        return readout(*convex.fit(convex.Logistic(), jr.L1(lam), X, y, sample_weight=weight))

    at = (jnp.asarray(0.02), jnp.asarray(X), jnp.asarray(y), jnp.asarray(weight))
    way = tuple(jnp.asarray(0.1 * rng.normal(size=np.shape(x))) for x in at)
    three = jax.tree.map(lambda x, d: jnp.stack([x, x + h * d, x - h * d]), at, way)

    @jax.jit
    @jax.vmap
    def slopes(*at):
        # Reverse mode, and forward over it.
        (value_, gradient), (along, second) = jax.jvp(jax.value_and_grad(value, argnums=(0, 1, 2, 3)), at, way)
        return value_, gradient, along, second

    value_, gradient, along, second = slopes(*three)
    np.testing.assert_allclose(along[0], (value_[1] - value_[2]) / (2 * h), rtol=1e-6)
    np.testing.assert_allclose(along[0], sum(jnp.sum(g[0] * d) for g, d in zip(gradient, way, strict=True)), rtol=1e-9)
    for g, s in zip(gradient, second, strict=True):
        np.testing.assert_allclose(s[0], (g[1] - g[2]) / (2 * h), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=slow)])
def test_ridge_is_the_normal_equations(dtype):
    X, y, weight = problem(convex.Squared())
    w, b = convex.fit(convex.Squared(), jr.SquaredL2(0.3), X.astype(dtype), y.astype(dtype), sample_weight=weight)
    s = weight / weight.sum()
    A, r = X - s @ X, y - s @ y
    exact = np.linalg.solve(A.T @ (s[:, None] * A) + 0.3 * np.eye(6), A.T @ (s * r))
    assert w.dtype == b.dtype == dtype
    tolerance = {np.float32: 2e-6, np.float64: 1e-14}[dtype]
    np.testing.assert_allclose(w, exact, atol=tolerance)
    np.testing.assert_allclose(b, s @ y - (s @ X) @ exact, atol=tolerance)


@pytest.mark.parametrize("dense", [True, False])
def test_repeated_columns_have_a_derivative(dense, monkeypatch):
    monkeypatch.setattr(support, "DENSE", 512 if dense else 1)
    X, y, _ = problem(convex.Squared())
    twice = np.concatenate([X, X[:, :2], np.zeros((len(X), 1))], 1)

    @jax.jit
    @functools.partial(jax.jacfwd, has_aux=True)
    def slopes(lam):
        w, _ = convex.fit(convex.Squared(), jr.L1(lam), twice, y, fit_intercept=False)
        return w, w

    slope, w = slopes(jnp.full(9, 0.1))
    np.testing.assert_allclose(w[:2], w[6:8], atol=1e-12)
    np.testing.assert_allclose(slope[:2], slope[6:8], atol=1e-8)
    on = np.flatnonzero(w[:6])
    total = np.array(slope.at[:2].add(slope[6:8])[on][:, on])
    total[:, :2] += slope.at[:2].add(slope[6:8])[on][:, 6:8]  # both copies get the strength of one
    exact = -np.linalg.inv(X[:, on].T @ X[:, on] / len(X)) * np.sign(w[on])
    np.testing.assert_allclose(total, exact, atol=1e-6)
    off = [*np.flatnonzero(w[:6] == 0), 8]
    assert jnp.all(slope[np.array(off)] == 0)


@pytest.mark.parametrize("size", [4, 600])
def test_linear_systems_that_are_singular(size):
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(size, 3))
    A = factor @ factor.T
    solve = jax.jit(lambda b: solve_symmetric(lambda v: A @ v, b))
    known, out_of_reach = A @ rng.normal(size=size), rng.normal(size=size)
    np.testing.assert_allclose(A @ solve(known), known, atol=1e-8 * np.linalg.norm(known))
    assert np.linalg.norm(solve(out_of_reach)) < 10
    if size > support.DENSE:  # least squares, in units that are not scaled
        np.testing.assert_allclose(A @ (A @ solve(out_of_reach)), A @ out_of_reach, atol=1e-6)


def test_weights_that_are_free():
    zero, some = jnp.zeros(3), jnp.array([0.0, 1.0, 0.0])
    assert support.free(jr.SquaredL2(1.0), zero).all()
    assert support.free(jr.Huber(1.0, 2.0), zero).all()
    assert support.free(jr.L1(jnp.array([0.0, 1.0, 1.0])), some).tolist() == [True, True, False]
    assert support.free(jr.ElasticNet(1.0, jnp.array([0.0, 1.0, 1.0])), some).tolist() == [True, True, False]
    assert support.free(jr.GroupL2(1.0), some).all()
    assert support.free(jr.SparseGroup(1.0, 0.5), some).tolist() == [False, True, False]
    assert support.free(jr.SparseGroup(1.0, 0.0), some).all()
    assert support.free(jr.L1(1.0) + jr.SquaredL2(1.0), some).tolist() == [False, True, False]
    assert not support.free(jr.GroupL2(1.0, axis=1), jnp.zeros((2, 2))).any()


def test_ridge_moves_from_zero():
    X, _, _ = problem(convex.Squared())
    fit = jax.jit(jax.jacfwd(lambda y: convex.fit(convex.Squared(), jr.SquaredL2(0.3), X, y, fit_intercept=False)[0]))
    exact = np.linalg.solve(X.T @ X / 30 + 0.3 * np.eye(6), X.T / 30)
    np.testing.assert_allclose(fit(jnp.zeros(30)), exact, atol=1e-12)


@pytest.mark.parametrize(
    ("penalty", "name"),
    [
        (jr.Nuclear(1.0), "Nuclear"),
        (jr.L0(1.0), "L0"),
        (jr.TotalVariation(1.0), "TotalVariation"),
        (jr.Towards(jr.L1(1.0), 1.0), "Towards"),
        (0.1, "0.1"),
    ],
)
def test_penalties_without_a_support_are_refused_by_name(penalty, name):
    with pytest.raises(TypeError, match=rf"`fit` needs a penalty.*{name}"):
        convex.fit(convex.Squared(), penalty, np.ones((3, 2)), np.ones(3))


@pytest.mark.parametrize(
    ("datafit", "X", "y", "weight", "message"),
    [
        (convex.Squared(), np.ones((3, 2)), np.ones(4), None, r"\(3, 2\) and \(4,\)"),
        (convex.Squared(), np.ones(3), np.ones(3), None, r"\(3,\) and \(3,\)"),
        (convex.Squared(), np.ones((3, 2)), np.ones(3), np.ones(2), r"3 examples.*\(2,\)"),
        (convex.Multinomial(), np.ones((3, 2)), np.array([0, 1, 2]), None, "encode"),
    ],
)
def test_shapes_are_checked(datafit, X, y, weight, message):
    with pytest.raises(ValueError, match=message):
        convex.fit(datafit, jr.L1(0.1), X, y, sample_weight=weight)


def test_labels_and_sparse_data_are_refused_in_words():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match=r"`fit` needs numbers as y, got <U3: of labels `datafit.encode"):
        convex.fit(convex.Logistic(), jr.L1(0.1), np.eye(2), ["yes", "no"])
    with pytest.raises(TypeError, match="`fit` needs dense `X`"):
        convex.fit(convex.Squared(), jr.L1(0.1), scipy_sparse.eye(3).tocsr(), np.ones(3))
