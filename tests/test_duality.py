"""Strength and bound: two sides of one problem."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from table import PENALTIES

import jaxreg as jr

D, C = jnp.array([4.0, 1.0]), jnp.array([6.0, 4.0])
RIDGE = jr.SquaredL2(1.0)


@pytest.mark.parametrize("row", PENALTIES, ids=str)
def test_homogeneous_is_lam_times_a_measure(row):
    shape = (4, 3)
    pen = row.noun(shape)
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape))
    if not pen.homogeneous:
        with pytest.raises(TypeError, match=f"`bound_for_strength` needs .* `{type(pen).__name__}"):
            jr.bound_for_strength(pen, x)
        return
    inner = pen.penalty if isinstance(pen, jr.Towards) else pen
    if not inner.homogeneous or not hasattr(inner, "lam") or jnp.ndim(inner.lam):
        return
    np.testing.assert_allclose(inner.lam * jr.bound_for_strength(pen, x), pen.measure(x), rtol=1e-12)


def test_a_path_is_mapped_both_ways():
    lams = jnp.logspace(-1.5, 1, 50)
    ws = jax.jit(jax.vmap(lambda lam: C / (D + lam)))(lams)
    bounds = jax.jit(jax.vmap(lambda lam, w: jr.bound_for_strength(jr.SquaredL2(lam), w)))(lams, ws)
    np.testing.assert_allclose(bounds, 0.5 * jnp.sum(ws**2, 1))
    back = jax.jit(jax.vmap(lambda k, w: jr.strength_for_bound(jr.SublevelSet(RIDGE, k), w, D * w - C)))(bounds, ws)
    np.testing.assert_allclose(back, lams, rtol=1e-10)
    # The multiplier is the price of the bound: dJ*/dk = −α*.
    loss = 0.5 * jnp.sum(D * ws**2, 1) - ws @ C
    slope = np.gradient(np.asarray(loss), np.asarray(bounds))
    np.testing.assert_allclose(-slope[1:-1], back[1:-1], rtol=0.02)


def test_one_strength_per_column_whatever_trained_it():
    # Projected gradient, columns with bounds of their own; a slack one has strength 0.
    ks = jnp.array([9.2, 4.444444, 25 / 18, 0.1579524372])
    con = jr.SublevelSet(jr.SquaredL2(1.0, axis=0), ks)
    grad = lambda w: D[:, None] * w - C[:, None]
    w = jax.lax.fori_loop(0, 2000, lambda _, w: con.project(w - 0.2 * grad(w)), jnp.zeros((2, 4)))
    found = jr.strength_for_bound({"w": con, "b": None}, {"w": w, "b": jnp.ones(1)}, {"w": grad(w), "b": jnp.ones(1)})
    np.testing.assert_allclose(found["w"], [0, 0.5, 2, 10], atol=1e-6)
    assert found["b"] is None
    assert max(float(r) for r in jr.kkt_residuals(con, w, grad(w), found["w"])) < 1e-8


@pytest.mark.parametrize("scale", [1e-22, 1e-10, 1.0, 1e15])
def test_strengths_of_any_magnitude(scale):
    w = jnp.array([3.0, 4.0], jnp.float32)
    found = jr.strength_for_bound(jr.SublevelSet(jr.SquaredL2(scale), 1.0), w, -w)
    np.testing.assert_allclose(found * scale, 1, rtol=1e-6)


def test_a_lam_per_weight_has_no_one_bound():
    with pytest.raises(ValueError, match="`bound_for_strength` needs one λ per group"):
        jr.bound_for_strength(jr.L1(jnp.ones(3)), jnp.ones(3))
    columns = jr.bound_for_strength(jr.SquaredL2(jnp.array([[1.0, 2.0]]), axis=0), jnp.ones((3, 2)))
    np.testing.assert_allclose(columns, 1.5)


def test_elementwise_and_equality_and_nothing_to_explain():
    w, g = jnp.array([1.0, 0.2, 0.0]), jnp.array([-3.0, 0.0, 0.5])
    np.testing.assert_allclose(jr.strength_for_bound(jr.NonNegative(), w, g), [3 * 0, 0, 0.5])
    low = jr.Equality(jr.L2Ball(1.0))
    unit = jnp.array([0.6, 0.8])
    np.testing.assert_allclose(jr.strength_for_bound(low, unit, 2 * unit), -2.0)
    np.testing.assert_allclose(jr.strength_for_bound(jr.L2Ball(1.0), unit, 2 * unit), 0.0)
    assert float(jr.strength_for_bound(jr.L2Ball(0.0), jnp.zeros(2), unit)) == 0  # no slope at the kink
    with pytest.raises(TypeError, match="`strength_for_bound` needs constraints whose violation has a gradient"):
        jr.strength_for_bound(jr.Sparse(2), w, g)
