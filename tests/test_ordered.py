"""Penalties on ordered weights, against references by other algorithms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from sklearn.isotonic import isotonic_regression
from table import distance, nearest, value

import jaxreg as jr
from experiments.benchmarks.total_variation import condat, johnson
from jaxreg.chains import fuse, fused_distance

quick = settings(max_examples=60, deadline=None, derandomize=True)
LENGTHS = (1, 2, 40, 40, 40)  # one compile each; most of them are long


@jax.jit
def solved(pen, x):
    p = pen.prox(x, 1.0)
    return p, pen.optimality(p, p - x), pen.value(x)


fused, distance_to_fused = jax.jit(fuse), jax.jit(fused_distance)


@st.composite
def chains(draw):
    """A chain with ties, repeats and zeros, and a strength."""
    n = draw(st.sampled_from(LENGTHS))
    entry = st.one_of(st.integers(-3, 3).map(float), st.floats(-5, 5, width=32))
    drawn = min(n, draw(st.sampled_from((5, n))))  # again and again up to the length
    x = np.resize(draw(st.lists(entry, min_size=drawn, max_size=drawn)), n)
    return x, draw(st.one_of(st.sampled_from([0.25, 0.5, 1.0, 3.0]), st.floats(1e-3, 20)))


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
    assert float(distance) <= 1e-13 * (1 + lam)


@quick
@given(chains())
def test_isotonic_regression_is_sklearns(case):
    x, never = case[0], np.inf
    shape = (len(x) - 1, 4)
    up, down = np.broadcast_to([never, 0, never, 0], shape), np.broadcast_to([0, never, never, 0], shape)
    falling, rising, tied, free = np.asarray(fused(np.stack([x] * 4, 1), up, down)).T
    np.testing.assert_allclose(falling, isotonic_regression(x, increasing=False), atol=1e-13)
    np.testing.assert_allclose(rising, isotonic_regression(x, increasing=True), atol=1e-13)
    np.testing.assert_allclose(tied, np.full(len(x), x.mean()), atol=1e-13)
    np.testing.assert_array_equal(free, x)


@pytest.mark.parametrize(("dtype", "relative"), [(np.float64, 0), (np.float32, 3e-7)], ids=["f64", "f32"])
def test_long_chains(dtype, relative):
    chains = {
        "walk": np.cumsum(np.random.default_rng(0).normal(size=10_000)),
        "staircase": np.repeat(np.arange(100.0), 100),
        "comb": np.tile([0.0, 1.0], 5_000),
        "offset": 1e3 + np.random.default_rng(1).normal(size=10_000),
    }
    for name, x in chains.items():
        x, atol = x.astype(dtype), max(1e-10, relative * np.abs(x).max())
        for lam in (0.3, 3.0, 100.0):
            expected = condat(x.tolist(), lam)
            p = nearest(jr.TotalVariation(lam), x, 1.0)
            np.testing.assert_allclose(p, expected, atol=atol, err_msg=f"{name}, {lam}")


def test_the_loop_in_the_benchmark_is_condats():
    lams = np.array([0.1, 1.0, 10.0])
    x = np.stack([np.random.default_rng(seed).normal(size=40) for seed in range(3)])
    expected = [condat(chain, lam) for chain, lam in zip(x, lams, strict=True)]
    np.testing.assert_allclose(jax.jit(jax.vmap(johnson))(x, lams), expected, atol=1e-13)


def test_means_of_long_runs_are_accurate():
    x = 100 + np.random.default_rng(2).normal(size=100_000).astype(np.float32)
    p = nearest(jr.TotalVariation(np.inf), x, 1.0)
    np.testing.assert_allclose(p, np.full_like(x, x.mean(dtype=np.float64)), rtol=2.4e-7)


def test_widely_spread_values_take_more_rounds_but_end():
    x, lams = 6.0 ** np.random.default_rng(3).permutation(40), np.array([0.0, 1.0, 10.0, 1e3, 1e9])
    p = np.asarray(nearest(jr.TotalVariation(lams, axis=0), np.stack([x] * 5, 1), 1.0))
    np.testing.assert_array_equal(p[:, 0], x)
    np.testing.assert_allclose(p[:, 1:].T, [condat(x, lam) for lam in lams[1:]], rtol=1e-12)


def test_chains_are_independent():
    x, lams = np.random.default_rng(4).normal(size=(40, 5)), np.array([0.0, 0.1, 1.0, 5.0, np.inf])
    together = np.asarray(nearest(jr.TotalVariation(lams, axis=0), x, 1.0))
    alone = [solved(jr.TotalVariation(float(lam)), c)[0] for lam, c in zip(lams, x.T, strict=True)]
    np.testing.assert_allclose(together, np.stack(alone, 1), atol=1e-15)
    each = jax.vmap(lambda lam, c, step: jr.TotalVariation(lam).prox(c, step), (0, 1, 0), 1)
    steps = 2.0 ** np.arange(5)
    np.testing.assert_allclose(jax.jit(each)(lams / steps, x, steps), together, atol=1e-15)
    np.testing.assert_array_equal(together[:, 0], x[:, 0])
    x[3, 1] = np.nan
    bad = np.asarray(nearest(jr.TotalVariation(np.ones(5), axis=0), x, 1.0))
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


def test_bfloat16_is_the_exact_result_rounded_once():
    x, lams = np.random.default_rng(6).normal(size=50).astype(jnp.bfloat16), np.linspace(0, 1, 50)
    pens = jr.TotalVariation(0.3), jr.Slope(lams)
    flat, sorted_ = jax.jit(lambda pens, x: [pen.prox(x, 0.5) for pen in pens])(pens, x)
    np.testing.assert_array_equal(flat, condat(x.astype(float), 0.15).astype(jnp.bfloat16))
    np.testing.assert_array_equal(sorted_, slope_prox(x.astype(float), 0.5 * lams).astype(jnp.bfloat16))


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


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_fused_distance_is_the_linear_programs(n):
    rng, seeds = np.random.default_rng(n), 8
    x, g = rng.integers(-1, 2, size=(seeds, n)).astype(float), 2 * rng.normal(size=(seeds, n))
    sparse, lam = np.resize([0.0, 0.4], (seeds, 1)), rng.random((seeds, 1))
    expected = [flow_distance(*case) for case in zip(x, g, sparse[:, 0], lam[:, 0], strict=True)]
    np.testing.assert_allclose(distance_to_fused(x, g, sparse, lam), expected, atol=1e-9)


def test_fused_lasso_is_one_prox_after_the_other():
    @jax.jit
    def distance(x, fused):
        p = jr.L1(0.2).prox(fused, 0.8)
        return fused_distance(p.T, (p - x).T / 0.8, 0.2, 0.5)

    x = np.random.default_rng(7).normal(size=(40, 5))
    fused = nearest(jr.TotalVariation(np.full(5, 0.5), axis=0), x, 0.8)
    assert np.all(np.asarray(distance(x, fused)) <= 1e-14)


def test_critical_of_total_variation():
    critical = jax.jit(jr.TotalVariation(1.0).critical)
    x = np.random.default_rng(8).normal(size=1000)
    assert float(critical((x - x.mean()).astype(np.float32))) < np.inf
    g, x = np.resize([1.0, 2.0, -4.0, 1.0], 40), np.stack([x[:40]] * 5, 1)
    assert float(critical(g)) == 3
    assert float(critical(g + 0.1)) == np.inf
    lams = float(critical(x[:, 0] - x[:, 0].mean())) * np.array([1.0001, 0.99, 0.9, 0.5, 2.0])
    spread = np.ptp(nearest(jr.TotalVariation(lams, axis=0), x, 1.0), 0)
    np.testing.assert_array_equal(spread > 0, [False, True, True, True, False])


@pytest.mark.parametrize("method", ["measure", "critical", lambda pen, x: pen.prox(x, 1.0)])
def test_total_variation_wants_one_axis(method):
    call = method if callable(method) else lambda pen, x: getattr(pen, method)(x)
    for axis, shape in ((None, (3, 2)), ((0, 1), (3, 2)), (None, ())):
        with pytest.raises(ValueError, match="`TotalVariation` needs one axis"):
            call(jr.TotalVariation(1.0, axis=axis), np.ones(shape))


# ------------------------------------------------------------------ slope


@quick
@given(chains(), st.randoms(use_true_random=False))
def test_slope_is_the_stacks(case, random):
    x, scale = case
    lams = scale * np.array([random.choice([0.0, 1.0, random.random()]) for _ in x])
    p, distance, value = solved(jr.Slope(lams), x)
    np.testing.assert_allclose(p, slope_prox(x, lams), atol=1e-13 * (1 + scale))
    assert float(distance) <= 1e-13 * (1 + scale)
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
    np.testing.assert_allclose(value(oscar, x), a * np.abs(x).sum() + b * pairs)


def test_slope_wants_a_lambda_per_rank():
    with pytest.raises(ValueError, match=r"`Slope` needs .* as a group has weights, 4; got shape \(3,\)"):
        jr.Slope(np.ones(3), axis=0).prox(np.ones((4, 3)), 1.0)
