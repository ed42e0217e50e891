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

import jaxreg as jr

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)))


@pytest.mark.parametrize("radius", [0.5, 3.0, 100.0])
def test_optax_projections(radius):
    project = optax.projections
    np.testing.assert_allclose(jr.L2Ball(radius).project(X), project.projection_l2_ball(X, radius), atol=1e-12)
    np.testing.assert_allclose(jr.L1Ball(radius).project(X), project.projection_l1_ball(X, radius), atol=1e-12)
    np.testing.assert_allclose(jr.Box(-0.3, radius).project(X), project.projection_box(X, -0.3, radius), atol=1e-12)
    np.testing.assert_allclose(jr.NonNegative().project(X), project.projection_non_negative(X), atol=1e-12)


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
    got = jr.SublevelSet(jr.L1(weights), radius).project(padded)
    np.testing.assert_allclose(got, expected, atol=1e-9 * (1 + np.abs(x).max()))


@given(x=arrays(np.float32, 12, elements=st.floats(-(2.0**99), 2.0**99, width=32)), exponent=st.integers(-30, 30))
def test_l2_ball_at_any_scale(x, exponent):
    radius = 10.0**exponent
    p = np.asarray(jr.L2Ball(radius).project(x), np.float64)
    size = np.linalg.norm(x.astype(np.float64))
    expected = x.astype(np.float64) * min(1, radius / size) if size else x
    # an entry whose share of the norm is subnormal is flushed to zero
    np.testing.assert_allclose(p, expected, rtol=1e-5, atol=2e-38 * max(1, radius))


def test_norm_neither_overflows_nor_underflows():
    for scale in (1e-37, 1e-20, 1.0, 1e20, 1e37, 6.7e37):
        x = jnp.asarray([3.0, 4.0], jnp.float32) * jnp.float32(scale)
        np.testing.assert_allclose(jr.GroupL2(1.0).value(x), 5 * scale, rtol=1e-6)
        np.testing.assert_allclose(jax.jit(jax.grad(jr.GroupL2(1.0).value))(x), [0.6, 0.8], rtol=1e-6)


def test_balls_of_huge_finite_points():
    for big in (1e30, 1e38, 3e38):
        x = jnp.asarray([big, *[0.0] * 6], jnp.float32)
        for ball in (jr.L2Ball(1.0), jr.L1Ball(1.0), jr.SublevelSet(jr.GroupL2(1.0), 1.0)):
            np.testing.assert_allclose(ball.project(x), [1, 0, 0, 0, 0, 0, 0], atol=1e-6)
            assert float(ball.violation(x)) >= 0.99 * big
    x = jnp.asarray(np.random.default_rng(0).normal(size=100_000) * 1e34, jnp.float32)
    np.testing.assert_allclose(np.sum(np.abs(jr.L1Ball(1.0).project(x))), 1, rtol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_group_optimality_at_zero_is_the_infinity_norm_distance(seed):
    # The point of the box {|uᵢ + gᵢ| ≤ t} nearest to 0 has the norm of (|g| − t)₊: the distance is where that is λ.
    g = np.random.default_rng(seed).normal(size=4)
    lam = 0.7 * np.linalg.norm(g)
    distance = brentq(lambda t: np.linalg.norm(np.maximum(np.abs(g) - t, 0)) - lam, 0, np.abs(g).max(), xtol=1e-15)
    np.testing.assert_allclose(jr.GroupL2(lam).optimality(jnp.zeros(4), g), distance, rtol=1e-12)


def test_golden_values():
    x = jnp.array([3.0, -4.0])
    assert float(jr.L1(0.5).value(x)) == 3.5
    assert float(jr.SquaredL2(0.5).value(x)) == 6.25
    assert float(jr.GroupL2(0.5).value(x)) == 2.5
    assert float(jr.ElasticNet(0.5, 0.25).value(x)) == 0.5 * (0.25 * 7 + 0.375 * 25)
    np.testing.assert_allclose(jr.ElasticNet(0.5, 0.25).prox(x, 2.0), [2.75 / 1.75, -3.75 / 1.75])
    np.testing.assert_array_equal(jax.jit(jax.grad(jr.SquaredL2(0.5).value))(x), [1.5, -2])
    np.testing.assert_array_equal(jax.jit(jax.grad(jr.L1(0.5).value))(jnp.zeros(2)), [0, 0])


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

    w = jnp.zeros(8)
    (w, _), _ = jax.lax.scan(descend, (w, tx.init(w)), None, 1000)
    np.testing.assert_allclose(w, peer.fit(A, b).coef_, atol=1e-8)
    assert float(penalty.optimality(w, gradient(w))) < 1e-10
    assert float(penalty.optimality(w + 0.01, gradient(w + 0.01))) > 1e-4
    if isinstance(penalty, jr.L1):
        top = float(penalty.critical(gradient(jnp.zeros(8))))
        assert not np.any(Lasso(top * 1.0001, fit_intercept=False).fit(A, b).coef_)
        assert np.any(Lasso(top * 0.999, fit_intercept=False, tol=1e-14).fit(A, b).coef_)
