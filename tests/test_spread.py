"""The standard deviation as a penalty: its arithmetic, and its certificate where all weights are equal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg as jr


@jax.jit
def everything(pen, x, step):
    return pen.measure(x), jax.grad(pen.value)(x), pen.prox(x, step)


@jax.jit
def optimality(pen, x, g):
    return pen.optimality(x, g)


@pytest.mark.parametrize("mean", [0.0, 1e3, -1e5])
def test_a_large_mean_leaves_a_small_spread_alone(mean):
    x = np.asarray(mean + np.random.default_rng(0).normal(size=(1000, 2)), np.float32)
    pen, wide = jr.StandardDeviation(2.0, axis=0), x.astype(np.float64)
    std = wide.std(0)
    measure, gradient, moved = everything(pen, jnp.asarray(x), 250.0)
    np.testing.assert_allclose(measure, 2 * std, rtol=1e-6)
    slope = 2 * (wide - wide.mean(0)) / (1000 * std)
    np.testing.assert_allclose(gradient, slope, atol=2e-6 * np.abs(slope).max())
    exact = wide.mean(0) + (wide - wide.mean(0)) * (1 - 0.5 / std)
    np.testing.assert_allclose(moved, exact, rtol=2e-7, atol=1e-6)


def test_an_outlier_leaves_the_mean_alone():
    x = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    x[0] = 1000.0
    wide = x.astype(np.float64)
    moved = np.asarray(everything(jr.StandardDeviation(1.0), jnp.asarray(x), 100.0)[2], np.float64)
    np.testing.assert_allclose(moved.mean(), wide.mean(), atol=1e-7 * 1000)


@pytest.mark.parametrize("shape", [(1, 3), (0, 3), (7, 3)])
def test_groups_of_one_of_none_and_of_equals_cost_nothing(shape):
    pen, x = jr.StandardDeviation(2.0, axis=0), jnp.full(shape, 0.1, jnp.float32)  # 7 × .1 is not .7
    measure, gradient, moved = everything(pen, x, 0.7)
    np.testing.assert_array_equal(measure, 0)
    np.testing.assert_array_equal(gradient, 0)
    np.testing.assert_array_equal(moved, x)


def distance(v, radius):
    """The ∞-norm distance from v to {u : Σu = 0, ‖u‖₂ ≤ radius}, by bisection in bisection."""

    def shortest(t):
        low, high = v.min() - t, v.max() + t
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (low, middle) if np.sum(np.clip(middle, v - t, v + t)) > 0 else (middle, high)
        return np.linalg.norm(np.clip(low, v - t, v + t))

    low, high = abs(v.mean()), np.abs(v).max()
    if shortest(low) <= radius:
        return low
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if shortest(middle) <= radius else (middle, high)
    return high


def test_optimality_bounds_the_distance_where_weights_are_equal():
    rng = np.random.default_rng(0)
    for n in (3, 10):
        for lam in (0.0, 0.5, 3.0, 30.0):
            pen = jr.StandardDeviation(lam)
            g = rng.normal(size=n) + rng.choice([0.0, 0.3])
            found, exact = float(optimality(pen, np.full(n, 0.1), g)), distance(-g, lam / np.sqrt(n))
            assert exact - 1e-12 <= found <= 5 * exact + 1e-12
            level = g - g.mean()
            inside = level * min(lam / np.sqrt(n) / np.linalg.norm(level), 1)
            assert float(optimality(pen, np.full(n, 0.1), inside)) <= 1e-15


def test_critical():
    dtype = jnp.float32
    g = np.random.default_rng(0).normal(size=(50, 2))
    g = jnp.asarray(g - g.mean(0), dtype)
    pen = jr.StandardDeviation(1.0, axis=0)
    factor = float(pen.critical(g))
    np.testing.assert_allclose(factor, np.sqrt(50) * np.linalg.norm(g, axis=0).max(), rtol=1e-6)
    tolerance = 4 * float(jnp.finfo(dtype).eps)
    zero = jnp.zeros((50, 2), dtype)
    assert float(optimality(jr.StandardDeviation(factor, axis=0), zero, g)) <= tolerance
    assert float(optimality(jr.StandardDeviation(0.9 * factor, axis=0), zero, g)) > 0.01
    assert pen.critical(g + 1e-3) == np.inf  # no spread takes a common pull
