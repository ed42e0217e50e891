"""Proxes against brute force, and the identities between members."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from table import nearest, project, value, violation

import jaxreg as jr

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4)) * 2
GRID = np.linspace(0, 4.5, 45_001)


def assert_same(*pairs):
    """The two of each pair have the same value and the same prox."""
    answers = jax.jit(lambda pens, x: [[(pen.value(x), pen.prox(x, 0.7)) for pen in pair] for pair in pens])(pairs, X)
    for pair, ((cost, prox), (other_cost, other_prox)) in zip(pairs, answers, strict=True):
        np.testing.assert_allclose(cost, other_cost, rtol=1e-12, err_msg=str(pair))
        np.testing.assert_allclose(prox, other_prox, atol=1e-12, err_msg=str(pair))


def mcp(z, lam, gamma):
    a = np.abs(z)
    return np.where(a <= gamma * lam, lam * a - a**2 / (2 * gamma), gamma * lam**2 / 2)


def scad(z, lam, gamma):
    a = np.abs(z)
    middle = (2 * gamma * lam * a - a**2 - lam**2) / (2 * (gamma - 1))
    return np.where(a <= lam, lam * a, np.where(a <= gamma * lam, middle, lam**2 * (gamma + 1) / 2))


TEXTBOOK = {
    "L0": (lambda lam: jr.L0(lam), lambda z, lam: lam * (z != 0)),
    "LpHalf": (lambda lam: jr.LpHalf(lam), lambda z, lam: lam * np.sqrt(np.abs(z))),
    "Huber": (
        lambda lam: jr.Huber(lam, 0.6),
        lambda z, lam: lam * np.where(np.abs(z) <= 0.6, z**2 / 2, 0.6 * (np.abs(z) - 0.3)),
    ),
    **{f"MCP {g}": (lambda lam, g=g: jr.MCP(lam, g), lambda z, lam, g=g: mcp(z, lam, g)) for g in (0.5, 1.0, 1.5, 4.0)},
    **{f"SCAD {g}": (lambda lam, g=g: jr.SCAD(lam, g), lambda z, lam, g=g: scad(z, lam, g)) for g in (1.2, 2.0, 3.7)},
    **{
        f"LogSum {e}": (lambda lam, e=e: jr.LogSum(lam, e), lambda z, lam, e=e: lam * np.log1p(np.abs(z) / e))
        for e in (0.1, 1.0, 3.0)
    },
}


@pytest.mark.parametrize("name", TEXTBOOK)
def test_prox_is_the_global_minimum(name):
    make, cost = TEXTBOOK[name]
    for lam in (0.3, 1.0, 2.5):
        wide = np.linspace(-9, 9, 37)
        np.testing.assert_allclose(value(make(lam), wide), cost(wide, lam).sum(), rtol=1e-12)
        for step in (0.2, 1.0, 4.0):
            points = np.concatenate([np.linspace(-4, 4, 41), RNG.normal(size=8)])
            p, costs = np.asarray(nearest(make(lam), points, step)), step * cost(GRID, lam)
            for x, z in zip(points, p, strict=True):
                best = np.min(0.5 * (GRID - np.abs(x)) ** 2 + costs)  # costs are even
                assert 0.5 * (z - x) ** 2 + step * cost(z, lam) <= best + 1e-12


def test_limits():
    assert_same(
        (jr.Huber(0.5, np.inf), jr.SquaredL2(0.5)),
        (jr.MCP(0.5, np.inf), jr.L1(0.5)),
        (jr.SCAD(0.5, np.inf), jr.L1(0.5)),
        (jr.GroupMCP(0.5, np.inf, axis=0), jr.GroupL2(0.5, axis=0)),
        (jr.SparseGroup(0.5, 1.0, axis=0), jr.L1(0.5)),
        (jr.SparseGroup(0.5, 0.0, axis=0), jr.GroupL2(0.5, axis=0)),
        (jr.GroupMCP(0.5, 2.0, axis=()), jr.MCP(0.5, 2.0)),
        (jr.GroupLinf(0.5, axis=()), jr.L1(0.5)),
    )


def test_moreau_decomposition():
    pairs = (
        (jr.GroupLinf(0.8, axis=0), jr.L1Ball(0.8 * 0.7, axis=0)),
        (jr.L1(0.8), jr.LinfBall(0.8 * 0.7)),
        (jr.GroupL2(0.8, axis=0), jr.L2Ball(0.8 * 0.7, axis=0)),
        (jr.Nuclear(0.8), jr.SpectralBall(0.8 * 0.7)),
        (jr.SpectralNorm(0.8), jr.NuclearBall(0.8 * 0.7)),
    )
    sums = jax.jit(lambda pairs, x: [pen.prox(x, 0.7) + ball.project(x) for pen, ball in pairs])(pairs, X)
    for pair, total in zip(pairs, sums, strict=True):
        np.testing.assert_allclose(total, X, atol=1e-12, err_msg=str(pair))


def test_moreau_envelopes():
    pens, tree = {"a": jr.GroupL2(0.8, axis=0), "b": None}, {"a": X, "b": X[0]}

    @jax.jit
    def run(x, tree):
        slope = jax.grad(lambda t: jr.moreau_envelope(pens, t, 0.7))(tree)
        of_the_1_norm = jr.moreau_envelope(jr.L1(0.8), x, 0.7), jr.Huber(1 / 0.7, 0.7 * 0.8).value(x)
        return of_the_1_norm, slope, jr.prox(pens, tree, 0.7)["a"]

    (envelope, huber), slope, near = jax.tree.map(np.asarray, run(X, tree))
    np.testing.assert_allclose(envelope, huber, rtol=1e-12)
    np.testing.assert_allclose(slope["a"], (X - near) / 0.7, atol=1e-12)
    assert not np.any(slope["b"])


def test_sums():
    ridge, lasso = jr.SquaredL2(0.6), jr.L1(0.4)
    assert_same(
        (ridge + lasso, jr.ElasticNet(1.0, 0.4)),
        (lasso + lasso + ridge, jr.L1(0.8) + ridge),
        (jr.GroupL2(0.6, axis=0) + lasso, jr.SparseGroup(1.0, 0.4, axis=0)),
        (jr.ElasticNet(1.0, 0.4) + jr.SquaredL2(0.1), jr.Sum((lasso, jr.SquaredL2(0.7)))),
        (jr.Towards(jr.SquaredL2(1.0), 3.0) + jr.Towards(jr.SquaredL2(1.0), 1.0), jr.Sum((TwoPulls(),))),
        (sum([jr.L1(1.0), jr.SquaredL2(2.0)]), jr.ElasticNet(3.0, 1 / 3)),
        (jr.L1([1.0, 2.0, 3.0, 4.0]), jr.L1(np.arange(1.0, 5))),
    )
    assert jax.eval_shape((lasso + jr.GroupL2(1.0, axis=0)).measure, X).shape == ()
    assert jax.eval_shape((jr.L1(1.0, axis=0) + jr.GroupL2(1.0, axis=0)).measure, X).shape == (4,)


def TwoPulls():
    return jr.Sum((jr.Towards(jr.SquaredL2(1.0), 1.0), jr.Towards(jr.SquaredL2(1.0), 3.0)))


WITHOUT_A_RULE = [
    jr.L1(1.0) + jr.Nuclear(1.0),
    jr.GroupL2(1.0, axis=0) + jr.GroupL2(1.0, axis=1),
    jr.L1(np.ones(4)) + jr.TotalVariation(1.0, axis=0),
    jr.GroupL2(1.0, axis=0) + jr.SquaredL2(np.ones(4)),
    jr.L1(1.0) + jr.MCP(1.0, 3.0),
    jr.SquaredL2(1.0) + jr.Orthogonality(1.0, axis=0),
]


def test_sums_without_a_rule_have_values():
    values = jax.jit(lambda pens, x: [pen.value(x) for pen in pens])(WITHOUT_A_RULE, X)
    np.testing.assert_array_equal(np.isfinite(values), True)


@pytest.mark.parametrize("pen", WITHOUT_A_RULE, ids=lambda p: "+".join(type(t).__name__ for t in p.terms))
def test_sums_without_a_rule_are_refused_by_name(pen):
    assert not pen.proximable
    name = f"Sum({', '.join(type(t).__name__ for t in pen.terms)})"
    with pytest.raises(TypeError, match="`prox` of") as refusal:
        pen.prox(X, 1.0)
    assert name in str(refusal.value)
    with pytest.raises(TypeError, match="`proximal` needs penalties with an exact `prox`") as refusal:
        jr.proximal(pen, 0.1)
    assert name in str(refusal.value)
    jr.decay(pen, 0.1)


def test_optax_projections_and_where_they_stop():
    theirs = optax.projections
    simplex = theirs.projection_simplex

    @jax.jit
    def run(x):
        return {
            "simplex": (jr.Simplex(1.0).project(x.ravel()), simplex(x.ravel(), 1.0)),
            "box": (jr.LinfBall(0.5).project(x), theirs.projection_linf_ball(x, 0.5)),
            "sphere": (jr.Sphere(2.0).project(x), theirs.projection_l2_sphere(x, 2.0)),
            "columns": (jr.Simplex(2.0, axis=0).project(x), jax.vmap(lambda c: simplex(c, 2.0), 1, 1)(x)),
            "rows": (jr.Simplex(2.0, axis=1).project(x), jax.vmap(lambda c: simplex(c, 2.0))(x)),
        }

    for name, (got, expected) in run(X).items():
        np.testing.assert_allclose(got, expected, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: jr.multipliers(jr.Sparse(3), 0.1), "`multipliers` needs .* that of `Sparse` says nothing. Use"),
        (lambda: jr.multipliers(jr.Equality(jr.RankAtMost(3)), 0.1), r"that of `Equality\(RankAtMost\)` says nothing"),
        (lambda: jr.multipliers(jr.SublevelSet(jr.L0(1.0), 3), 0.1), r"that of `SublevelSet\(L0\)` says nothing"),
        (lambda: jr.decay(jr.L0(1.0), 0.1), "`decay` needs penalties with a gradient; that of `L0` says nothing"),
        (lambda: jr.penalized(sum, jr.L0(1.0) + jr.L1(1.0)), r"that of `Sum\(L0, L1\)` says nothing"),
        (lambda: jr.proximal(jr.Towards(jr.Orthogonality(1.0), 0.0), 0.1), r"`Towards\(Orthogonality\)` has none"),
        (lambda: jr.Towards(3.0, 1.0), "`Towards` needs a penalty, got 3.0"),
        (lambda: jr.Sum((jr.L1(1.0), 3.0)), "`Sum` needs a penalty, got 3.0"),
        (lambda: jr.L1(1.0) + 3.0, "unsupported operand"),
    ],
)
def test_refusals(use, message):
    with pytest.raises(TypeError, match=message):
        use()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: jr.MCP(1.0, 0.0), "`MCP` needs `gamma` > 0, got 0.0"),
        (lambda: jr.SCAD(1.0, 1.0), "`SCAD` needs `gamma` > 1, got 1.0"),
        (lambda: jr.LogSum(1.0, 0.0), "`LogSum` needs `eps` > 0, got 0.0"),
        (lambda: jr.GroupMCP(1.0, -1.0), "`GroupMCP` needs `gamma` >= 0, got -1.0"),
        (lambda: jr.SparseGroup(1.0, 1.5), r"`SparseGroup` needs `l1_ratio` in \[0, 1\], got 1.5"),
        (lambda: jr.NormRange(2.0, 1.0), "`NormRange` needs `lower` <= `upper`, got lower=2.0, upper=1.0"),
        (lambda: jr.NormRange(1.0, 2.0, rate=1.5), r"`NormRange` needs `rate` in \[0, 1\], got 1.5"),
        (lambda: jr.Sparse(-1), "`Sparse` needs `k` >= 0, got -1"),
        (lambda: jr.Huber(1.0, float("nan")), "`Huber` needs `delta` >= 0, got nan"),
    ],
)
def test_bad_numbers(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_top_k_of_ties_keeps_exactly_k():
    @jax.jit
    def run(ones, x, ks):
        return jr.Sparse(2, axis=0).project(ones), jax.vmap(lambda k: jr.Sparse(k).project(x))(ks)

    ties, traced = map(np.asarray, run(np.ones((4, 3)), X.ravel(), np.arange(4)))
    np.testing.assert_array_equal(np.sum(ties != 0, 0), [2, 2, 2])
    np.testing.assert_array_equal(np.sum(traced != 0, 1), [0, 1, 2, 3])


def test_norm_range_arrives_at_its_rate():
    gap = np.linalg.norm(X, axis=0) - 1.0
    assert np.all(gap > 0)
    p = project(jr.NormRange(0.5, 1.0, axis=0, rate=0.25), X)
    np.testing.assert_allclose(np.linalg.norm(p, axis=0) - 1, 0.75 * gap, rtol=1e-12)


def test_training_with_hard_thresholds_finds_the_support():
    design, truth = RNG.normal(size=(200, 20)), np.r_[3.0, -2.0, 1.5, 1.0, np.zeros(16)]
    slope = jax.grad(lambda w: 0.5 * jnp.mean((design @ w - design @ truth) ** 2))

    def train(tx):
        def step(carry, _):
            w, state = carry
            u, state = tx.update(slope(w), state, w)
            return (optax.apply_updates(w, u), state), None

        w = jnp.zeros(20)
        return jax.lax.scan(step, (w, tx.init(w)), None, 300)[0][0]

    how = {"L0": dict(proximal=jr.L0(0.05)), "MCP": dict(proximal=jr.MCP(0.1, 5.0)), "k": dict(constraint=jr.Sparse(4))}
    trained = jax.jit(lambda: {k: train(jr.regularize(optax.sgd(0.3), 0.3, **v)) for k, v in how.items()})()
    for name, w in trained.items():
        np.testing.assert_array_equal(np.asarray(w) != 0, truth != 0, err_msg=name)
        np.testing.assert_allclose(w, truth, atol=1e-6, err_msg=name)  # neither shrinks what is large


# ------------------------------------------------------------------ what reviews found


@pytest.mark.parametrize("spread", [1e-3, 1e-8])
def test_l1_levels_with_weights_decades_apart(spread):
    lam = np.array([spread, 1.0])
    truth = project(jr.SublevelSet(jr.L1(lam), 0.5), np.ones(2))
    near = project(jr.SublevelSet(jr.L1(lam.astype(np.float32)), 0.5), np.ones(2, np.float32))
    np.testing.assert_allclose(near, truth, rtol=1e-6)
    # 1 − θs + (s(1 − θs) + 1 − θ = ½)
    theta = (spread + 1 - 0.5) / (spread**2 + 1)
    np.testing.assert_allclose(truth, [1 - theta * spread, 1 - theta], rtol=1e-12)


def test_adaptive_lasso_weights_land_inside():
    con = jr.SublevelSet(jr.L1((1 / np.abs([3.0, 1e-4, 2.0, 1e-3, 0.5])).astype(np.float32)), 2.0)
    x = np.array([2.9, 0.001, 2.1, 0.02, 0.4], np.float32)
    p, violation = jax.jit(lambda con, x: (p := con.project(x), con.violation(p)))(con, x)
    np.testing.assert_allclose(p, [2.8375797, 0, 2.0063694, 0, 0.02547774], rtol=1e-5)
    assert float(violation) <= 1e-5


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_sums_of_huge_weights_do_not_overflow_in_proxes(dtype):
    x, pens = np.resize(np.array([3e38, 3e38, -3e38], dtype), 10), (jr.TotalVariation(1.0), jr.Slope(1.0))
    flat, sorted_ = jax.jit(lambda pens, x: [pen.prox(x, 1.0) for pen in pens])(pens, x)
    np.testing.assert_array_equal(flat, x)
    np.testing.assert_allclose(np.float64(sorted_), np.float64(x), rtol=0.01)


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "make", [jr.TotalVariation, jr.GroupLinf, *(pytest.param(c, marks=slow) for c in (jr.Slope, jr.Nuclear))]
)
def test_derivatives_of_derivatives_in_reverse(make):
    z = np.array([1.0, 2.5, 0.2])

    def slope_size(lam):
        return jnp.sum(jax.grad(lambda z: jr.moreau_envelope(make(lam), z, 1.0))(z) ** 2)

    h = 1e-6
    lams = np.array([0.3, 0.3 + h, 0.3 - h])
    values, slopes = map(np.asarray, jax.jit(jax.vmap(jax.value_and_grad(slope_size)))(lams))
    np.testing.assert_allclose(slopes[0], (values[1] - values[2]) / (2 * h), rtol=1e-6)


def test_counts_are_what_violation_allows():
    # bound/λ is rounded down below k in float32 for some of them, and up above it for others
    numbers = [(0.3, 6), (0.15, 7), (1 / 3, 7), (0.1, 7), (0.05, 7), (0.003, 3), (0.043, 7), (0.001, 10)]
    x = np.arange(1.0, 12.0, dtype=np.float32)
    for lam, k in numbers:
        con = jr.SublevelSet(jr.L0(lam), lam * k)
        p = np.asarray(project(con, x))
        assert float(violation(con, p)) <= 0
        one_more = np.where(np.arange(11) >= 10 - np.sum(p != 0), x, np.float32(0))
        assert float(violation(con, one_more)) > 0


def test_sums_with_infinite_and_huge_quadratics():
    for lam, anchor in ((np.inf, 1.0), (1e36, 1000.0)):
        pull = jr.Towards(jr.SquaredL2(lam), anchor) + jr.L1(0.1)
        np.testing.assert_allclose(nearest(pull, np.full(2, 3, np.float32), 1.0), anchor)


def test_strengths_add_in_the_dtype_of_the_weights():
    x = np.array([300.0], np.float32)
    for dtype, *strengths in ((np.int8, 100, 100), (jnp.bfloat16, 1, 1 / 256)):
        p = nearest(sum(jr.L1(np.asarray(lam, dtype)) for lam in strengths), x, 1.0)
        np.testing.assert_allclose(p, 300 - sum(strengths), rtol=1e-7)


def test_narrow_weights_reach_a_wide_anchor():
    def run(pull, x, g):
        p = pull.prox(x, 1.0)
        return pull.measure(p), pull.optimality(p, g)

    pull, g = jr.Towards(jr.L1(1.0), np.float32(0.1)), np.array([0.3], np.float32)
    assert [float(v) for v in jax.jit(run)(pull, np.array([0.5], jnp.bfloat16), g)] == [0, 0]


def test_infinite_weights_cost_infinitely():
    pens = jr.Huber(1.0, np.inf), jr.MCP(1.0, np.inf), jr.SCAD(1.0, np.inf)
    run = jax.jit(lambda pens, x: [*(pen.value(x) for pen in pens), jr.moreau_envelope(jr.L1(1.0), x, 1.0)])
    np.testing.assert_array_equal(run(pens, np.array([np.inf, 1.0])), np.inf)


@pytest.mark.slow
def test_second_derivatives_at_low_rank_are_finite():
    pen = jr.Nuclear(0.7)
    for f in (lambda z: jr.moreau_envelope(pen, z, 1.0), lambda z: jnp.sum(jnp.sin(pen.prox(z, 1.0)))):
        assert np.all(np.isfinite(jax.jit(jax.jacfwd(jax.grad(f)))(jnp.ones((4, 3)))))


def test_decay_at_rate_zero_ignores_infinite_weights():
    link = jr.decay(jr.SquaredL2(0.1), 0.0)
    p = np.array([np.inf, 1.0])
    np.testing.assert_array_equal(jax.jit(lambda u: link.update(u, link.init(p), p)[0])(np.ones(2)), [1, 1])


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: jr.decay(jr.SquaredL2, 0.1), "`decay` needs penalties .* got <class"),
        (lambda: jr.Equality(jr.Sphere(1.0)), "`Equality` needs a constraint with an inside; `Sphere`"),
        (lambda: jr.L1(None), "`L1` needs a number or an array as `lam`, got None"),
        (lambda: jr.SquaredL2({"w": 1.0}), "`SquaredL2` needs .* For a tree, map `SquaredL2` over it"),
        (lambda: jr.Towards(jr.L1(1.0), {"w": 1.0}), "`Towards` needs .* as `anchor`.* For a tree, use `towards`"),
        (lambda: jr.prox(jr.L1(1.0), X, "1"), "`prox` needs a number or an array as `step`, got '1'"),
        (lambda: jr.decay(jr.L1(1.0), 0.1, peak=lambda t: 0.1), "`decay` needs a number or an array as `peak`"),
        (lambda: jr.Sum(()), "`Sum` needs a tuple of penalties"),
        (lambda: jr.GroupL2(1.0, axis="0"), "`GroupL2` needs an int, a tuple of ints or None as `axis`, got '0'"),
        (lambda: jr.penalized(lambda p: p, jr.L1(1.0))(X), r"`penalized` needs .* a scalar.* got shape \(6, 4\)"),
        (lambda: jr.penalized(lambda p: (1.0, p), jr.L1(1.0))(X), "`penalized` needs .* with `has_aux`; got a tuple"),
    ],
)
def test_more_refusals(use, message):
    with pytest.raises(TypeError, match=message):
        use()


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: jr.L1([1.0, -1.0]), "`L1` needs `lam` >= 0"),
        (lambda: jr.L2Ball(np.array([-1.0, 1.0]), axis=0), "`L2Ball` needs `radius` >= 0"),
        (lambda: jr.prox(jr.L1(1.0), X, -1.0), "`prox` needs `step` >= 0, got -1.0"),
        (lambda: jr.moreau_envelope(jr.L1(1.0), X, 0.0), "`moreau_envelope` needs `step` > 0"),
    ],
)
def test_more_bad_numbers(use, message):
    with pytest.raises(ValueError, match=message):
        use()
