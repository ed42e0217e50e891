"""Norms of arrays small and large, which take different ways on a CPU, up to the ends of the range of their dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreg.arrays import LARGE, norm, polar

SIZES = [5, LARGE // 8 + 1]
total = lambda x: norm(x, (0,)).sum()
answers = jax.jit(lambda x: (*polar(x, (0,)), jax.grad(total)(x)))


def columns(rows, factors):
    """Random columns times `factors`, float32."""
    x = np.random.default_rng(0).normal(size=(rows, len(factors)))
    return (x / np.linalg.norm(x, axis=0) * factors).astype(np.float32)


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize(
    "factors", [[1.0] * 8, [1.0, 1e38, 1e30, 1e-30, 1e-32, 0.0, 3.0, 1e-3]], ids=["ordinary", "extreme"]
)
def test_norm_direction_and_slope(rows, factors):
    x = columns(rows, factors)
    exact = np.linalg.norm(x.astype(np.float64), axis=0, keepdims=True)
    unit = x / np.where(exact == 0, 1, exact)
    direction, size, slope = answers(x)
    assert size.dtype == jnp.float32
    np.testing.assert_allclose(size, exact, rtol=3e-6)
    np.testing.assert_allclose(direction, unit, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(slope, unit, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("rows", SIZES)
def test_derivatives_forward_and_second(rows):
    x, v = columns(rows, [1.0, 1e3, 1e-3, 0.0, 2.0, 3.0, 4.0, 5.0]).astype(np.float64), columns(rows, [1.0] * 8)
    v = v.astype(np.float64)
    size = np.linalg.norm(x, axis=0)
    unit = x / np.where(size == 0, 1, size)
    along = (unit * v).sum(0)

    @jax.jit
    def run(x, v):
        return jax.jvp(lambda x: norm(x, (0,))[0], (x,), (v,))[1], jax.jvp(jax.grad(total), (x,), (v,))[1]

    forward, bend = run(x, v)
    np.testing.assert_allclose(forward, along, atol=1e-12)
    np.testing.assert_allclose(
        bend, np.where(size == 0, 0, (v - unit * along) / np.where(size == 0, 1, size)), atol=1e-9
    )


@jax.jit
def bent(x, v, factor):
    return jax.jvp(jax.grad(total), (x,), (v * factor,))[1], *polar(x / factor, (0,))


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("factor", [1e-30, 1e-20, 1e20])
def test_second_derivatives_of_extreme_columns_are_finite(rows, factor):
    x, v = columns(rows, [factor] * 8), columns(rows, [1.0] * 8)[::-1]
    bend, unit, plain = map(np.asarray, bent(x, v, np.float32(factor)))
    expected = (v - unit * (unit * v).sum(0)) / plain
    np.testing.assert_allclose(bend, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("rows", SIZES)
def test_infinite_and_nan_are_seen_where_they_are(rows):
    x = columns(rows, [1.0] * 8)
    x[2, 1], x[3, 4] = -np.inf, np.nan
    direction, size, _ = map(np.asarray, answers(x))
    assert np.isinf(size[0, 1])
    assert np.isnan(size[0, 4])
    np.testing.assert_allclose(np.delete(size, [1, 4]), 1, rtol=1e-5)
    assert np.isfinite(np.delete(direction, [1, 4], axis=1)).all()


@pytest.mark.parametrize("rows", SIZES)
def test_a_batch_is_its_members(rows):
    x = np.stack([columns(rows, [1.0] * 8), columns(rows, [1.0, 1e30] * 4), columns(rows, [0.0, 2.0] * 4)])
    batch = jax.jit(jax.vmap(lambda x: norm(x, (0,))))(x)
    np.testing.assert_allclose(batch, [norm(member, (0,)) for member in x], rtol=1e-6)
