"""Strength and bound: two sides of one problem."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from table import PENALTIES, optimized

import jaxreg as jr

D, C = np.array([4.0, 1.0]), np.array([6.0, 4.0])
X = np.random.default_rng(0).normal(size=(4, 3))
NOUNS = {str(row): row.noun(X.shape) for row in PENALTIES}


def test_homogeneous_is_lam_times_a_measure():
    inner = lambda pen: pen.penalty if isinstance(pen, jr.Towards) else pen
    one_number = lambda pen: pen.homogeneous and hasattr(inner(pen), "lam") and not np.ndim(inner(pen).lam)
    pens = {name: pen for name, pen in NOUNS.items() if one_number(pen)}
    both = lambda pen, x: (inner(pen).lam * jr.bound_for_strength(pen, x), pen.measure(x))
    every = jax.jit(lambda x: {name: both(pen, x) for name, pen in pens.items()})(X)
    for name, (bound, measure) in every.items():
        np.testing.assert_allclose(bound, measure, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("pen", [p for p in NOUNS.values() if not p.homogeneous], ids=lambda p: type(p).__name__)
def test_what_is_not_homogeneous_is_refused(pen):
    with pytest.raises(TypeError, match=f"`bound_for_strength` needs .* `{type(pen).__name__}"):
        jr.bound_for_strength(pen, X)


def test_a_path_is_mapped_both_ways():
    @jax.jit
    @jax.vmap
    def there_and_back(lam):
        w = C / (D + lam)
        bound = jr.bound_for_strength(jr.SquaredL2(lam), w)
        return w, bound, jr.strength_for_bound(jr.SublevelSet(jr.SquaredL2(1.0), bound), w, D * w - C)

    lams = np.logspace(-1.5, 1, 50)
    ws, bounds, back = map(np.asarray, there_and_back(lams))
    np.testing.assert_allclose(bounds, 0.5 * np.sum(ws**2, 1))
    np.testing.assert_allclose(back, lams, rtol=1e-10)
    # The multiplier is the price of the bound: dJ*/dk = −α*.
    slope = np.gradient(0.5 * np.sum(D * ws**2, 1) - ws @ C, bounds)
    np.testing.assert_allclose(-slope[1:-1], back[1:-1], rtol=0.02)


def test_one_strength_per_column_whatever_trained_it():
    # Projected gradient, columns with bounds of their own; a slack one has strength 0.
    grad = lambda w: D[:, None] * w - C[:, None]

    @jax.jit
    def trained(ks):
        con = jr.SublevelSet(jr.SquaredL2(1.0, axis=0), ks)
        w = jax.lax.fori_loop(0, 2000, lambda _, w: con.project(w - 0.2 * grad(w)), jnp.zeros((2, 4)))
        tree = lambda x: {"w": x, "b": np.ones(1)}
        found = jr.strength_for_bound({"w": con, "b": None}, tree(w), tree(grad(w)))
        return found, jr.kkt_residuals(con, w, grad(w), found["w"])

    found, residuals = trained(np.array([9.2, 4.444444, 25 / 18, 0.1579524372]))
    np.testing.assert_allclose(found["w"], [0, 0.5, 2, 10], atol=1e-6)
    assert found["b"] is None
    assert max(map(float, residuals)) < 1e-8


@pytest.mark.parametrize("scale", [1e-22, 1e-10, 1.0, 1e15])
def test_strengths_of_any_magnitude(scale):
    w = np.array([3.0, 4.0], np.float32)
    strength = lambda: jr.strength_for_bound(jr.SublevelSet(jr.SquaredL2(scale), 1.0), w, -w)
    with optimized():  # XLA would make one division of two
        compiled = jax.jit(strength)()
    for found in (strength(), compiled):
        np.testing.assert_allclose(float(found) * scale, 1, rtol=1e-6)


def test_a_lam_per_weight_has_no_one_bound():
    with pytest.raises(ValueError, match="`bound_for_strength` needs one λ per group"):
        jr.bound_for_strength(jr.L1(np.ones(3)), np.ones(3))
    columns = jr.bound_for_strength(jr.SquaredL2(np.array([[1.0, 2.0]]), axis=0), np.ones((3, 2)))
    np.testing.assert_allclose(columns, 1.5)


def test_elementwise_and_equality_and_nothing_to_explain():
    w, g, unit = np.array([1.0, 0.2, 0.0]), np.array([-3.0, 0.0, 0.5]), np.array([0.6, 0.8])
    ball, pull = jr.L2Ball(1.0), 2 * unit
    cases = [(jr.NonNegative(), w, g), (jr.Equality(ball), unit, pull), (ball, unit, pull)]
    cases += [(jr.L2Ball(0.0), np.zeros(2), unit)]  # no slope at the kink
    found = jax.jit(lambda cases: [jr.strength_for_bound(*case) for case in cases])(cases)
    for strength, expected in zip(found, ([3 * 0, 0, 0.5], -2.0, 0.0, 0.0), strict=True):
        np.testing.assert_allclose(strength, expected)
    with pytest.raises(TypeError, match="`strength_for_bound` needs constraints whose violation has a gradient"):
        jr.strength_for_bound(jr.Sparse(2), w, g)
