"""The same answers as peers, closed forms and brute force, where they exist."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.optimize import brentq
from sklearn.linear_model import ElasticNet, Lasso, Ridge
from table import distance, project

import jaxreg as jr

X = np.random.default_rng(0).normal(size=(6, 4))


def test_optax_projections():
    theirs = optax.projections

    @jax.jit
    @jax.vmap
    def projections(radius):
        cons = jr.L2Ball(radius), jr.L1Ball(radius), jr.Box(-0.3, radius), jr.NonNegative()
        balls = theirs.projection_l2_ball(X, radius), theirs.projection_l1_ball(X, radius)
        boxes = theirs.projection_box(X, -0.3, radius), theirs.projection_non_negative(X)
        return [con.project(X) for con in cons], [*balls, *boxes]

    np.testing.assert_allclose(*projections(np.array([0.5, 3.0, 100.0])), atol=1e-12)


def l1_ball_by_sorting(x, radius, w):
    """The textbook's projection onto Σ w|x| ≤ r, in NumPy."""
    if np.sum(w * np.abs(x)) <= radius:
        return x
    order = np.argsort(-np.abs(x) / w)
    a, b = np.abs(x)[order], w[order]
    thetas = (np.cumsum(a * b) - radius) / np.cumsum(b * b)
    theta = thetas[np.flatnonzero(a / b > thetas)[-1]]
    return np.sign(x) * np.maximum(np.abs(x) - theta * w, 0)


entries = st.floats(-1e6, 1e6, allow_subnormal=False)
vectors = arrays(np.float64, array_shapes(max_dims=1, max_side=12), elements=entries)
settings.register_profile("ci", deadline=None, max_examples=100, derandomize=True)
settings.load_profile("ci")


@given(x=vectors, radius=st.floats(1e-6, 1e6), seed=st.integers(0, 100))
def test_weighted_l1_ball_against_sorting(x, radius, seed):
    w = np.random.default_rng(seed).uniform(0.1, 3, x.shape)
    padded = np.zeros(12)  # one shape, one compile
    padded[: len(x)] = x
    weights = np.ones(12)
    weights[: len(x)] = w
    expected = l1_ball_by_sorting(padded, radius, weights)
    got = project(jr.SublevelSet(jr.L1(weights), radius), padded)
    np.testing.assert_allclose(got, expected, atol=1e-9 * (1 + np.abs(x).max()))


@given(x=arrays(np.float32, 12, elements=st.floats(-(2.0**99), 2.0**99, width=32)), exponent=st.integers(-30, 30))
def test_l2_ball_at_any_scale(x, exponent):
    radius = 10.0**exponent
    p = np.asarray(project(jr.L2Ball(radius), x), np.float64)
    size = np.linalg.norm(x.astype(np.float64))
    expected = x.astype(np.float64) * min(1, radius / size) if size else x
    # an entry whose share of the norm is subnormal is flushed to zero
    np.testing.assert_allclose(p, expected, rtol=1e-5, atol=2e-38 * max(1, radius))


def test_norm_neither_overflows_nor_underflows():
    norm = jax.jit(jax.value_and_grad(jr.GroupL2(1.0).value))
    for scale in (1e-37, 1e-20, 1.0, 1e20, 1e37, 6.7e37):
        value, slope = norm(np.array([3.0, 4.0], np.float32) * np.float32(scale))
        np.testing.assert_allclose(value, 5 * scale, rtol=1e-6)
        np.testing.assert_allclose(slope, [0.6, 0.8], rtol=1e-6)


def test_balls_of_huge_finite_points():
    balls = jr.L2Ball(1.0), jr.L1Ball(1.0), jr.SublevelSet(jr.GroupL2(1.0), 1.0)
    both = jax.jit(lambda x: [(ball.project(x), ball.violation(x)) for ball in balls])
    for big in (1e30, 1e38, 3e38):
        for nearest, violation in both(np.array([big, *[0.0] * 6], np.float32)):
            np.testing.assert_allclose(nearest, [1, 0, 0, 0, 0, 0, 0], atol=1e-6)
            assert float(violation) >= 0.99 * big
    x = (np.random.default_rng(0).normal(size=100_000) * 1e34).astype(np.float32)
    np.testing.assert_allclose(np.sum(np.abs(project(jr.L1Ball(1.0), x))), 1, rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_group_optimality_at_zero_is_the_infinity_norm_distance(seed):
    # The point of the box {|uᵢ + gᵢ| ≤ t} nearest to 0 has the norm of (|g| − t)₊: the distance is where that is λ.
    g = np.random.default_rng(seed).normal(size=4)
    lam = 0.7 * np.linalg.norm(g)
    expected = brentq(lambda t: np.linalg.norm(np.maximum(np.abs(g) - t, 0)) - lam, 0, np.abs(g).max(), xtol=1e-15)
    np.testing.assert_allclose(distance(jr.GroupL2(lam), np.zeros(4), g), expected, rtol=1e-12)


def test_golden_values():
    x, elastic = np.array([3.0, -4.0]), jr.ElasticNet(0.5, 0.25)
    pens = jr.L1(0.5), jr.SquaredL2(0.5), jr.GroupL2(0.5), elastic

    @jax.jit
    def found(x):
        slopes = jax.grad(jr.SquaredL2(0.5).value)(x), jax.grad(jr.L1(0.5).value)(jnp.zeros(2))
        return [pen.value(x) for pen in pens], elastic.prox(x, 2.0), slopes

    values, prox, slopes = found(x)
    np.testing.assert_array_equal(values, [3.5, 6.25, 2.5, 0.5 * (0.25 * 7 + 0.375 * 25)])
    np.testing.assert_allclose(prox, [2.75 / 1.75, -3.75 / 1.75])
    np.testing.assert_array_equal(slopes, [[1.5, -2], [0, 0]])


@pytest.mark.parametrize(
    ("penalty", "peer"),
    [
        (jr.L1(0.1), Lasso(0.1, fit_intercept=False, tol=1e-14, max_iter=100_000)),
        (jr.ElasticNet(0.3, 0.4), ElasticNet(0.3, l1_ratio=0.4, fit_intercept=False, tol=1e-14, max_iter=100_000)),
        (jr.SquaredL2(0.2), Ridge(0.2 * 50, fit_intercept=False)),
    ],
    ids=["lasso", "elastic net", "ridge"],
)
def test_scikit_learn_by_proximal_gradient(penalty, peer):
    rng = np.random.default_rng(1)
    A = rng.normal(size=(50, 8))
    b = A @ (np.arange(8) * (np.arange(8) % 2)) + rng.normal(size=50)
    gradient = jax.grad(lambda w: jnp.mean((A @ w - b) ** 2) / 2)
    step = 1 / np.linalg.norm(A.T @ A / 50, 2)
    tx = optax.chain(optax.sgd(step), jr.proximal(penalty, step))

    def descend(carry, _):
        w, state = carry
        updates, state = tx.update(gradient(w), state, w)
        return (optax.apply_updates(w, updates), state), None

    @jax.jit
    def solution(w):
        (w, _), _ = jax.lax.scan(descend, (w, tx.init(w)), None, 1000)
        return w, [penalty.optimality(w, gradient(w)) for w in (w, w + 0.01)], penalty.critical(gradient(jnp.zeros(8)))

    w, (optimality, beside), top = solution(np.zeros(8))
    np.testing.assert_allclose(w, peer.fit(A, b).coef_, atol=1e-8)
    assert float(optimality) < 1e-10
    assert float(beside) > 1e-4
    if isinstance(penalty, jr.L1):
        assert not np.any(Lasso(float(top) * 1.0001, fit_intercept=False).fit(A, b).coef_)
        assert np.any(Lasso(float(top) * 0.999, fit_intercept=False, tol=1e-14).fit(A, b).coef_)
