"""Penalties on ordered weights, against references by other algorithms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from sklearn.isotonic import isotonic_regression

import jaxreg as jr
from experiments.benchmarks.total_variation import condat, johnson
from jaxreg.chains import fuse, fused_distance

quick = settings(max_examples=60, deadline=None, derandomize=True)
LENGTHS = (1, 2, 5, 40)  # one compile each


@jax.jit
def solved(pen, x):
    p = pen.prox(x, 1.0)
    return p, pen.optimality(p, p - x), pen.value(x)


nearest = jax.jit(lambda pen, x, step: pen.prox(x, step))
fused, distance_to_fused = jax.jit(fuse), jax.jit(fused_distance)


@st.composite
def chains(draw):
    """A chain with ties, repeats and zeros, and a strength."""
    n = draw(st.sampled_from(LENGTHS))
    entry = st.one_of(st.integers(-3, 3).map(float), st.floats(-5, 5, width=32))
    x = draw(st.lists(entry, min_size=n, max_size=n))
    return np.array(x), draw(st.one_of(st.sampled_from([0.25, 0.5, 1.0, 3.0]), st.floats(1e-3, 20)))


def stack_pava(z):
    """Non-increasing regression by merging blocks on a stack."""
    blocks = []
    for v in z:
        blocks.append([v, 1])
        while len(blocks) > 1 and blocks[-2][0] <= blocks[-1][0]:
            v, n = blocks.pop()
            w, m = blocks[-1]
            blocks[-1] = [(v * n + w * m) / (n + m), n + m]
    return np.repeat([v for v, _ in blocks], [n for _, n in blocks])


def slope_prox(x, lams):
    order = np.argsort(-np.abs(x), kind="stable")
    p = np.zeros_like(x)
    p[order] = np.maximum(stack_pava(np.abs(x)[order] - np.sort(lams)[::-1]), 0)
    return np.sign(x) * p


# ------------------------------------------------------------------ chains


@quick
@given(chains())
def test_total_variation_is_condats(case):
    x, lam = case
    p, distance, _ = solved(jr.TotalVariation(lam), x)
    np.testing.assert_allclose(p, condat(x, lam), atol=1e-13 * (1 + lam))
    assert distance <= 1e-13 * (1 + lam)


@quick
@given(chains())
def test_isotonic_regression_is_sklearns(case):
    z = case[0][:, None]
    free, never = jnp.zeros((len(z) - 1, 1)), jnp.full((len(z) - 1, 1), jnp.inf)
    for up, down, increasing in ((never, free, False), (free, never, True)):
        np.testing.assert_allclose(
            fused(z, up, down)[:, 0], isotonic_regression(z[:, 0], increasing=increasing), atol=1e-13
        )
    np.testing.assert_allclose(fused(z, never, never)[:, 0], np.full(len(z), z.mean()), atol=1e-13)
    np.testing.assert_array_equal(fused(z, free, free), z)


@pytest.mark.parametrize(
    "x",
    [
        np.cumsum(np.random.default_rng(0).normal(size=10_000)),
        np.repeat(np.arange(100.0), 100),
        np.tile([0.0, 1.0], 5_000),
        1e3 + np.random.default_rng(1).normal(size=10_000),
    ],
    ids=["walk", "staircase", "comb", "offset"],
)
def test_long_chains(x):
    for dtype, atol in ((jnp.float64, 1e-10), (jnp.float32, 3e-7 * np.abs(x).max())):
        for lam in (0.3, 3.0, 100.0):
            p = nearest(jr.TotalVariation(lam), jnp.asarray(x, dtype), 1.0)
            np.testing.assert_allclose(p, condat(x.astype(dtype).astype(float), lam), atol=atol)


def test_the_loop_in_the_benchmark_is_condats():
    for seed, lam in enumerate((0.1, 1.0, 10.0)):
        x = np.random.default_rng(seed).normal(size=40)
        np.testing.assert_allclose(johnson(jnp.asarray(x), lam), condat(x, lam), atol=1e-13)


def test_means_of_long_runs_are_accurate():
    x = 100 + np.random.default_rng(2).normal(size=100_000).astype(np.float32)
    p = jr.TotalVariation(jnp.inf).prox(jnp.asarray(x), 1.0)
    np.testing.assert_allclose(p, np.full_like(x, x.mean(dtype=np.float64)), rtol=2.4e-7)


def test_widely_spread_values_take_more_rounds_but_end():
    x = 2.0 ** np.random.default_rng(3).permutation(100)
    np.testing.assert_array_equal(nearest(jr.TotalVariation(0.0), x, 1.0), x)
    np.testing.assert_allclose(nearest(jr.TotalVariation(1.0), x, 1.0), condat(x, 1.0), rtol=1e-12)


def test_chains_are_independent():
    rng = np.random.default_rng(4)
    x, lams = rng.normal(size=(12, 5)), np.array([0.0, 0.1, 1.0, 5.0, np.inf])
    together = nearest(jr.TotalVariation(lams, axis=0), x, 0.7)
    alone = [nearest(jr.TotalVariation(lam), c, 0.7) for lam, c in zip(lams, x.T, strict=True)]
    np.testing.assert_allclose(together, np.stack(alone, 1), atol=1e-15)
    each = jax.vmap(lambda lam, c, step: jr.TotalVariation(lam).prox(c, step), (0, 1, 0), 1)
    mapped = jax.jit(each)(lams, x, jnp.full(5, 0.7))
    np.testing.assert_allclose(mapped, together, atol=1e-15)
    np.testing.assert_array_equal(together[:, 0], x[:, 0])
    bad = nearest(jr.TotalVariation(np.ones(5), axis=0), jnp.asarray(x).at[3, 1].set(jnp.nan), 0.7)
    assert np.isnan(bad[3, 1])
    assert np.all(np.isfinite(np.delete(bad, 1, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("mode", [["fwd"], ["rev"]])
def test_derivatives(mode):
    x = jnp.asarray(np.random.default_rng(5).normal(size=9))
    order = jnp.arange(9.0)
    check_grads(lambda x, lam, step: jr.TotalVariation(lam).prox(x, step), (x, 0.3, 0.8), 1, mode)
    check_grads(lambda x, lam, step: jr.Slope(lam * order).prox(x, step), (x, 0.1, 0.8), 1, mode)
    check_grads(lambda x, lam: jr.TotalVariation(lam).optimality(x, jnp.sin(9 * x)), (x, 0.3), 1, mode)
    check_grads(lambda x, lam: jr.Slope(lam * order).optimality(x, jnp.sin(9 * x)), (x, 0.1), 1, mode)


def test_bfloat16_is_float32_rounded_once():
    x = jnp.asarray(np.random.default_rng(6).normal(size=50), jnp.bfloat16)
    for pen in (jr.TotalVariation(0.3), jr.Slope(np.linspace(0, 1, 50))):
        exact = nearest(pen, x.astype(jnp.float32), 0.5).astype(jnp.bfloat16)
        np.testing.assert_array_equal(nearest(pen, x, 0.5), exact)


# ------------------------------------------------------------------ optimality of chains


def flow_distance(x, g, sparse, lam):
    """The least t by linear programming: v, r and t as unknowns."""
    from scipy.optimize import linprog

    n = len(x)
    rise, cost = np.sign(np.diff(x)), np.zeros(2 * n)
    cost[-1] = 1
    # v₁ … vₙ₋₁, then the sparse part s₁ … sₙ, then t; |g + sparse·s + v_{i−1} − v_i| ≤ t
    flow = np.zeros((n, 2 * n))
    for i in range(n):
        if i > 0:
            flow[i, i - 1] = 1
        if i < n - 1:
            flow[i, i] = -1
        flow[i, n - 1 + i] = sparse
    up, down = flow.copy(), -flow
    up[:, -1] = down[:, -1] = -1
    bounds = [(-lam, lam) if r == 0 else (lam * r, lam * r) for r in rise]
    bounds += [(-1, 1) if v == 0 else (np.sign(v),) * 2 for v in x] + [(0, None)]
    return linprog(cost, np.r_[up, down], np.r_[-g, g], bounds=bounds).fun


@pytest.mark.parametrize("seed", range(8))
def test_fused_distance_is_the_linear_programs(seed):
    rng = np.random.default_rng(seed)
    n = (1, 2, 3, 5, 9, 9, 9, 9)[seed]
    for sparse in (0.0, 0.4):
        x = rng.integers(-1, 2, size=n).astype(float)
        g, lam = 2 * rng.normal(size=n), rng.random()
        expected = flow_distance(x, g, sparse, lam)
        assert float(distance_to_fused(x, g, sparse, lam)) == pytest.approx(expected, abs=1e-9)


def test_fused_lasso_is_one_prox_after_the_other():
    x = np.random.default_rng(7).normal(size=(4, 30))
    p = nearest(jr.L1(0.2), nearest(jr.TotalVariation(0.5, axis=1), x, 0.8), 0.8)
    assert np.all(distance_to_fused(p, (p - x) / 0.8, 0.2, 0.5) <= 1e-14)


def test_critical_of_total_variation():
    g = jnp.asarray([1.0, 2.0, -4.0, 1.0])
    assert float(jr.TotalVariation(1.0).critical(g)) == 3
    assert float(jr.TotalVariation(1.0).critical(g + 0.1)) == np.inf
    x = np.random.default_rng(8).normal(size=1000)
    assert float(jr.TotalVariation(1.0).critical(jnp.asarray(x - x.mean(), jnp.float32))) < np.inf
    top = float(jr.TotalVariation(1.0).critical(x - x.mean()))
    assert np.ptp(nearest(jr.TotalVariation(top * 1.0001), x, 1.0)) == 0
    assert np.ptp(nearest(jr.TotalVariation(top * 0.99), x, 1.0)) > 0


@pytest.mark.parametrize("method", ["measure", "critical", lambda pen, x: pen.prox(x, 1.0)])
def test_total_variation_wants_one_axis(method):
    call = method if callable(method) else lambda pen, x: getattr(pen, method)(x)
    for axis, shape in ((None, (3, 2)), ((0, 1), (3, 2)), (None, ())):
        with pytest.raises(ValueError, match="`TotalVariation` needs one axis"):
            call(jr.TotalVariation(1.0, axis=axis), jnp.ones(shape))


# ------------------------------------------------------------------ slope


@quick
@given(chains(), st.randoms(use_true_random=False))
def test_slope_is_the_stacks(case, random):
    x, scale = case
    lams = scale * np.array([random.choice([0.0, 1.0, random.random()]) for _ in x])
    p, distance, value = solved(jr.Slope(lams), x)
    np.testing.assert_allclose(p, slope_prox(x, lams), atol=1e-13 * (1 + scale))
    assert distance <= 1e-13 * (1 + scale)
    p = np.asarray(p)
    for size in np.unique(np.abs(x)):
        assert len(np.unique(np.abs(p)[np.abs(x) == size])) == 1
    np.testing.assert_allclose(value, np.sort(np.abs(x)) @ np.sort(lams), atol=1e-12)


def base_distance(h, lams, zero):
    """The least t with a point of the base polytope in [h − t, h + t], over all subsets."""
    n, t, lams = len(h), 0.0, np.sort(lams)[::-1]
    for subset in range(1, 2**n):
        chosen = [i for i in range(n) if subset >> i & 1]
        k = len(chosen)
        t = max(t, (h[chosen].sum() - lams[:k].sum()) / k)
        if not zero:
            t = max(t, (lams[n - k :].sum() - h[chosen].sum()) / k)
    return t


def test_slope_optimality_cluster_by_cluster():
    rng = np.random.default_rng(9)
    distance = jax.jit(lambda pen, x, g: pen.optimality(x, g))
    for _ in range(10):
        x, g, lams = rng.choice([-2.0, -1.0, 0.0, 1.0, 2.0], 8), rng.normal(size=8), np.sort(rng.random(8))[::-1]
        expected, seen = 0.0, 0
        for size in (2, 1, 0):
            at = np.abs(x) == size
            pull = np.abs(g[at]) if size == 0 else -g[at] * np.sign(x[at])
            expected = max(expected, base_distance(pull, lams[seen : seen + at.sum()], size == 0))
            seen += at.sum()
        assert float(distance(jr.Slope(lams), x, g)) == pytest.approx(expected, abs=1e-13)


@pytest.mark.slow
def test_special_cases_of_slope():
    x = jnp.asarray(np.random.default_rng(10).normal(size=(6, 3)))
    g = jnp.asarray(np.random.default_rng(11).normal(size=(6, 3)))
    first = np.eye(6)[2]
    for pen, other in (
        (jr.Slope(np.full(6, 0.3), axis=0), jr.L1(0.3, axis=0)),
        (jr.Slope(0.3, axis=0), jr.L1(0.3, axis=0)),
        (jr.Slope(0.9 * first, axis=0), jr.GroupLinf(0.9, axis=0)),
    ):
        np.testing.assert_allclose(pen.measure(x), other.measure(x), atol=1e-14)
        np.testing.assert_allclose(pen.prox(x, 0.8), other.prox(x, 0.8), atol=1e-14)
        for at in (x, other.prox(x, 0.8), jnp.zeros_like(x)):
            np.testing.assert_allclose(pen.optimality(at, g), other.optimality(at, g), atol=1e-14)
    np.testing.assert_allclose(jr.Slope(first, axis=0).critical(g), jr.GroupLinf(1.0, axis=0).critical(g))
    np.testing.assert_allclose(jr.Slope(5.0).critical(g), jr.L1(1.0).critical(g))


def test_oscar_is_a_sum_over_pairs():
    x = np.random.default_rng(12).normal(size=7)
    a, b = 0.3, 0.2
    pairs = sum(max(abs(x[i]), abs(x[j])) for i in range(7) for j in range(i + 1, 7))
    oscar = jr.Slope(a + b * np.arange(7))
    np.testing.assert_allclose(oscar.value(x), a * np.abs(x).sum() + b * pairs)


def test_slope_wants_a_lambda_per_rank():
    with pytest.raises(ValueError, match=r"`Slope` needs .* as a group has weights, 4; got shape \(3,\)"):
        jr.Slope(np.ones(3), axis=0).prox(jnp.ones((4, 3)), 1.0)
