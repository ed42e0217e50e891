"""Constrained parameter regularization: problems with known answers, the rules for the bound, trees and transforms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr

TARGET = np.array([3.0, 4.0])


def train(pen, bound, rate, target, w, steps=1000, **options):
    """SGD at .1 on ½‖θ − target‖², with R and α of every step."""
    tx = optax.chain(optax.sgd(0.1), jr.cpr(pen, bound, rate, **options))

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(w - target, state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), (pen.value(w), state[1].alpha)

    (w, _), (measure, alpha) = jax.lax.scan(step, (w, tx.init(w)), None, steps)
    return w, measure, alpha


# ------------------------------------------------------------------ problems with known answers


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float64, 1e-12), (jnp.float32, 2e-6)], ids=["f64", "f32"])
def test_a7_reaches_the_bound_from_anywhere(dtype, tolerance):
    rates, starts = np.meshgrid([0.01, 0.1, 1.0], [0, 1, 2])
    points = np.array([(0, 0), (0.6, 0.8), (3, 4)], dtype)[starts.ravel()]
    run = jax.jit(jax.vmap(lambda rate, w: train(jr.SquaredL2(2.0), 1.0, rate, TARGET.astype(dtype), w)))
    w, measure, alpha = map(np.asarray, run(rates.ravel().astype(dtype), points))
    np.testing.assert_allclose(alpha[:, -1], 0.2, atol=tolerance)
    np.testing.assert_allclose(measure[:, -1], 1, atol=tolerance)
    np.testing.assert_allclose(w, np.broadcast_to([0.6, 0.8], w.shape), atol=tolerance)


def written_out(rate, start, after, steps=3000):
    """The explicit shrink, R measured before the step (algorithm 1) or after it (the authors' code)."""
    w, alpha = np.array(start), 0.0
    for _ in range(steps):
        moved = w - 0.1 * (w - TARGET)
        at = moved if after else w
        alpha = max(alpha + rate * (at @ at - 1), 0.0)
        w = moved - 2 * alpha * at
        if not w @ w < 1e6:
            break
    return alpha, w @ w


def test_a7_of_the_published_forms():
    for start in ((0.0, 0.0), (0.6, 0.8), (3.0, 4.0)):
        np.testing.assert_allclose(written_out(0.01, start, after=False), (0.2, 1), atol=1e-9)  # the same fixed point
    np.testing.assert_allclose(written_out(0.1, (0.0, 0.0), after=True), (0.2222222, 0.3086420), atol=1e-7)
    for rate, start in ((1.0, (0.6, 0.8)), (1.0, (3.0, 4.0)), (0.1, (3.0, 4.0))):
        assert written_out(rate, start, after=False)[1] > 1e6


@pytest.mark.parametrize(
    ("pen", "rates"),
    [  # those of .01, .1 and 1 with which it gets there; a mean and a std want more gain, a sum of |w| bears less
        (jr.SquaredL2(2.0), [0.01, 0.1, 1.0]),
        (jr.GroupL2(1.0), [0.01, 0.1, 1.0]),
        (jr.Huber(1.0, 1.0), [0.01, 0.1, 1.0]),
        (jr.SquaredL2(2 / 64), [0.1, 1.0]),
        (jr.StandardDeviation(1.0), [0.1, 1.0]),
        (jr.L1(1.0), [0.01, 0.1]),
    ],
    ids=["SquaredL2", "GroupL2", "Huber", "mean square", "StandardDeviation", "L1"],
)
def test_a7_is_at_the_bound_within_1000_steps(pen, rates):
    def run(rate, target):
        return train(pen, 0.5, rate, target, target)[1][-20:]

    targets = np.random.default_rng(0).normal(size=(10, 8, 8))
    measure = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(np.array(rates), targets)
    np.testing.assert_allclose(measure, 0.5, rtol=1e-4)


def test_per_weight_divides_the_gain_by_the_size_of_the_group():
    def alpha(w, pen, rate, **options):
        tx = jr.cpr(pen, 0.1, rate, **options)
        return tx.update(w, tx.init(w), w)[1].alpha

    @jax.jit
    def run(w, empty):
        sizes = {12: jr.L1(1.0), 3: jr.GroupL2(1.0, axis=1)}
        pairs = {n: (alpha(w, pen, 0.6, per_weight=True), alpha(w, pen, 0.6 / n)) for n, pen in sizes.items()}
        return pairs, alpha(empty, jr.L1(1.0), 1.0, per_weight=True)

    pairs, nothing = run(np.random.default_rng(0).normal(size=(4, 3)), np.zeros((0, 3)))
    for n, (divided, expected) in pairs.items():
        np.testing.assert_allclose(divided, expected, rtol=1e-12, err_msg=str(n))
        assert np.all(np.asarray(divided) > 0)
    assert np.isfinite(nothing)


def test_two_steps_by_hand():
    tx = jr.cpr(jr.SquaredL2(3.0), 2.0, lambda count: 0.1 * (count + 1))  # R = 1.5 ‖w‖²
    w, u, update = np.array([1.0, 2.0]), np.array([0.5, -0.5]), jax.jit(tx.update)
    state = tx.init(w)
    assert (int(state.count), float(state.alpha), float(state.bound), bool(state.active)) == (0, 0, 2, True)
    assert state.trend is None
    alpha = 0.1 * (7.5 - 2)
    updates, state = update(u, state, w)
    first = (w + u) / (1 + 3 * alpha)
    np.testing.assert_allclose(w + np.asarray(updates), first, rtol=1e-14)
    np.testing.assert_allclose(state.alpha, alpha, rtol=1e-14)
    alpha = alpha + 0.2 * (1.5 * first @ first - 2)
    updates, state = update(u, state, first)
    np.testing.assert_allclose(first + np.asarray(updates), (first + u) / (1 + 3 * alpha), rtol=1e-14)
    np.testing.assert_allclose(state.alpha, alpha, rtol=1e-14)
    state = update(u, state, np.array([1.0, 0.0]))[1]  # inside α falls, and not below 0
    np.testing.assert_allclose(state.alpha, alpha - 0.3 * 0.5, rtol=1e-14)
    assert float(update(u, state, np.zeros(2))[1].alpha) == 0


PENS = {
    "L1": lambda axis: jr.L1(0.7, axis=axis),
    "SquaredL2": lambda axis: jr.SquaredL2(0.7, axis=axis),
    "Huber": lambda axis: jr.Huber(0.7, 0.5, axis=axis),
    "GroupL2": lambda axis: jr.GroupL2(0.7, axis=axis),
    "StandardDeviation": lambda axis: jr.StandardDeviation(0.7, axis=axis),
    "Towards": lambda axis: jr.Towards(jr.GroupL2(0.7, axis=axis), 0.5),
    "Sum": lambda axis: jr.L1(0.3, axis=axis) + jr.SquaredL2(0.7, axis=axis),
}


@pytest.mark.parametrize(("name", "axis"), [*((n, 1) for n in PENS if n != "Sum"), ("SquaredL2", 0), ("GroupL2", 0)])
def test_one_multiplier_per_group(name, axis):
    # A square matrix: multipliers along the wrong axis would fit.
    w, u = (np.random.default_rng(seed).normal(size=(4, 4)) for seed in (0, 1))
    bounds = np.array([0.0, 0.1, 0.2, np.inf])

    def roll(pen, k, w, u):
        tx = jr.cpr(pen, k, 0.5)

        def step(carry, _):
            w, state = carry
            updates, state = tx.update(u, state, w)
            return (w + updates, state), None

        (w, state), _ = jax.lax.scan(step, (w, tx.init(w)), None, 2)
        return w, state.alpha

    @jax.jit
    def run(pens, bounds, w, u):
        groups = jax.vmap(lambda k, w, u: roll(pens[1], k, w, u), (0, 1 - axis, 1 - axis), (1 - axis, 0))
        return roll(pens[0], bounds, w, u), groups(bounds, w, u)

    (whole, alpha), (single, one) = run((PENS[name](axis), PENS[name](None)), bounds, w, u)
    assert len(set(np.asarray(alpha).tolist())) == 4
    assert np.asarray(alpha)[3] == 0
    np.testing.assert_allclose(whole, single, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(alpha, one, rtol=1e-12)


def test_sums_have_one_group():
    @jax.jit
    def run(pen, w):
        tx = jr.cpr(pen, 0.1)
        updates, state = tx.update(jnp.zeros_like(w), tx.init(w), w)
        return w + updates, pen.prox(w, state.alpha)

    np.testing.assert_allclose(*run(PENS["Sum"](None), np.ones((4, 4))), rtol=1e-14)
    for pen in (PENS["Sum"](0), jr.Towards(PENS["Sum"](0), 0.5)):
        with pytest.raises(TypeError, match=r"`cpr` needs one group in `.*Sum"):
            jr.cpr(pen, 0.1).init(np.ones((4, 4)))


# ------------------------------------------------------------------ the rules for the bound


def follow(rule, series, dtype=np.float64, rate=0.25):
    """Bounds, whether they hold, α and updates when the weights take the values of `series`, each its own group."""
    tx, series = jr.cpr(jr.L1(1.0, axis=()), rule, rate), np.asarray(series, dtype)

    def step(state, w):
        updates, state = tx.update(jnp.full_like(w, 0.37), state, w)
        return state, (state.bound, state.active, state.alpha, updates)

    followed = jax.jit(lambda series: jax.lax.scan(step, tx.init(series[0]), series)[1])(series)
    return [np.asarray(x).astype(float) for x in followed]


def test_initial_norm():
    bound, active, alpha, _ = follow(jr.initial_norm(1.5), [[2.0], [4.0], [4.0]])
    assert np.all(bound == 3)
    assert np.all(active == 1)
    np.testing.assert_array_equal(alpha[:, 0], [0, 0.25, 0.5])
    traced = jax.jit(jax.grad(lambda f: jr.cpr(jr.SquaredL2(2.0), jr.initial_norm(f)).init(np.ones(3)).bound))(0.5)
    assert float(traced) == 3


def test_warm_start():
    bound, active, alpha, updates = follow(jr.warm_start(2), [[2.0], [9.0], [4.0], [6.0], [4.0]])
    np.testing.assert_array_equal(active[:, 0], [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(bound[:, 0], [0, 0, 4, 4, 4])
    np.testing.assert_array_equal(alpha[:, 0], [0, 0, 0, 0.5, 0.5])
    np.testing.assert_array_equal(updates[:3], 0.37)  # bit for bit
    np.testing.assert_allclose(updates[3:], 0.37 - 0.5, rtol=1e-14)
    np.testing.assert_array_equal(follow(jr.warm_start(0), [[2.0], [2.0]])[1], 1)


def test_inflection_point_by_hand():
    rng = np.random.default_rng(0)
    series = np.cumsum(rng.random((60, 50)) + np.linspace(0, 1, 60)[:, None], 0)
    bound, active, *_ = follow(jr.inflection_point(every=4, ema=0.6), series)
    when = []
    for j in range(50):
        r, samples, k = series[0, j], [series[0, j]], None
        for t in range(60):
            r = 0.6 * r + 0.4 * series[t, j]
            if t and t % 4 == 0:
                samples.append(r)
                rise = np.diff(samples)
                if k is None and t >= 12 and rise[-1] <= rise[-2]:
                    k = series[t, j]
                    when.append(t)
            assert active[t, j] == (k is not None)
            np.testing.assert_allclose(bound[t, j], k or 0, rtol=1e-12)
    assert min(when) == 12
    assert len(set(when)) > 3


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=str)
def test_inflection_point_finds_norms_of_any_size(dtype):
    t = np.arange(90)[:, None]
    sizes = np.array([1e-30, 1e-6, 0.5, 1.0, 1000.0, 1e6, 1e30])
    shapes = {
        "constant": np.ones_like(t) * sizes,
        "saturating": (1 - np.exp(-t / 30)) * sizes,
        "logistic": sizes / (1 + np.exp(4 - t / 8)),
        "falling": sizes * (0.2 + 0.8 / (1 + np.exp((t - 40) / 3))),
        "accelerating": (1 + (t / 10) ** 3) * sizes,
    }
    series = np.concatenate(list(shapes.values()), 1)
    bound, active, _, updates = follow(jr.inflection_point(every=10, ema=0.5), series, dtype)
    ends = {name: a for name, a in zip(shapes, np.split(active, 5, 1), strict=True)}
    for name in ("constant", "saturating", "logistic", "falling"):
        assert np.all(ends[name][-1] == 1), name
        assert np.all(ends[name][:30] == 0)
    assert np.all(ends["constant"][30] == 1)
    assert not np.any(ends["accelerating"])
    measure = np.abs(series.astype(dtype).astype(float))
    first = np.argmax(active, 0)
    found = active[-1] == 1
    np.testing.assert_array_equal(bound[-1][found], measure[first, np.arange(35)][found])
    np.testing.assert_array_equal(updates[:30], np.asarray(0.37, dtype).astype(float))


# ------------------------------------------------------------------ trees and transforms


def test_bounds_are_a_tree():
    params = {"a": {"w": np.ones((2, 3)), "b": np.ones(3)}, "c": {"w": np.ones(2), "b": np.ones(2)}}
    pens = jr.by_path(params, {"*/w": jr.SquaredL2(2.0)})
    tx = jr.cpr(pens, {"a": jr.inflection_point(every=1), "c": 0.5})
    norm = jr.cpr(pens, {"a": None, "c": jr.initial_norm(2.0)})
    warm = jr.cpr(pens, jr.by_path(params, {"a/w": jr.warm_start(3)}))
    state, other, by_path = jax.jit(lambda params: (tx.init(params), norm.init(params), warm.init(params)))(params)
    assert state.alpha["a"]["b"] is None
    assert state.bound["a"]["b"] is None
    assert float(state.bound["c"]["w"]) == 0.5
    assert not state.active["a"]["w"]
    assert float(state.trend.smooth["a"]["w"]) == 6
    zero, update = jax.tree.map(np.zeros_like, params), jax.jit(tx.update)
    updates, state = update(zero, state, params)
    np.testing.assert_array_equal(updates["a"]["w"], 0)
    np.testing.assert_allclose(updates["c"]["w"], 1 / (1 + 2 * 1.5) - 1)
    for _ in range(3):
        _, state = update(zero, state, params)
    assert state.active["a"]["w"]
    assert float(state.bound["a"]["w"]) == 6
    assert other.trend is None
    assert other.alpha["a"]["w"] is None
    assert float(other.bound["c"]["w"]) == 4
    assert [bool(active) for active in jax.tree.leaves(by_path.active)] == [False]


@pytest.mark.parametrize("pen", [jr.SquaredL2(2.0), jr.StandardDeviation(1.0)], ids=["L2", "std"])
def test_the_bound_is_batched_and_differentiated(pen):
    target = np.random.default_rng(0).normal(size=(4, 3))
    run = jax.jit(lambda k: jnp.sum(jnp.sin(train(pen, k, 0.1, target, target, steps=20)[0])))
    h = 1e-6
    bounds = np.array([0.1, 0.2, 1.0, 0.2 + h, 0.2 - h])
    batch, slope = map(np.asarray, jax.jit(lambda bounds: (jax.vmap(run)(bounds), jax.grad(run)(0.2)))(bounds))
    np.testing.assert_allclose(batch, [run(k) for k in bounds], rtol=1e-10)
    np.testing.assert_allclose(slope, (batch[3] - batch[4]) / (2 * h), rtol=1e-6)


def test_a_scheduled_bound_and_an_injected_one():
    scheduled = jr.cpr(jr.GroupL2(1.0), lambda count: 5.0 - count, 0.1)
    injected = optax.inject_hyperparams(lambda k: jr.cpr(jr.GroupL2(1.0), k, 0.1))(k=lambda count: 5.0 - count)

    def run(tx, w):
        state, after = tx.init(w), []
        for _ in range(3):
            updates, state = tx.update(jnp.zeros(2), state, w)
            after.append(w + updates)
        return after

    for after in jax.jit(lambda w: [run(scheduled, w), run(injected, w)])(np.array([3.0, 4.0])):
        np.testing.assert_allclose(np.linalg.norm(after, axis=1), 5 - np.array([0.0, 0.1, 0.3]), rtol=1e-6)


def test_adamcpr_is_the_chain_and_leaves_biases_alone():
    rng = np.random.default_rng(0)
    params = {"kernel": rng.normal(size=(4, 3)).astype(np.float32), "bias": np.ones(3, np.float32)}
    pens = jr.by_path(params, {"*/kernel": jr.SquaredL2(2.0)})
    ours = jr.adamcpr(0.1, pens, jr.initial_norm(0.5), b1=0.8, nesterov=True)
    adam = optax.adam(0.1, b1=0.8, nesterov=True)
    written = optax.chain(adam, jr.cpr(pens, jr.initial_norm(0.5), per_weight=True))

    def run(tx, params):
        def step(carry, t):
            params, state = carry
            grads = jax.grad(lambda p: jnp.sum(jnp.cos(p["kernel"] + t)) + jnp.sum(p["bias"] ** 2))(params)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(60, dtype=jnp.float32))[0]

    runs = jax.jit(lambda params: ([run(tx, params) for tx in (ours, written, adam)], jr.adamcpr(1e-3).init(params)))
    ((p, state), (q, _), (plain, _)), (_, default) = runs(params)
    jax.tree.map(np.testing.assert_array_equal, p, q)
    np.testing.assert_array_equal(p["bias"], plain["bias"])
    norm = lambda p: np.sum(np.square(p["kernel"]))
    assert norm(p) < 1.1 * float(state[1].bound["kernel"]) < norm(plain)
    assert not any(map(bool, jax.tree.leaves(default.active)))
    assert float(default.trend.smooth["bias"]) == 1.5


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: jr.cpr(jr.SquaredL2(1.0), -1.0), ValueError, "`cpr` needs `bound` >= 0, got -1.0"),
        (lambda: jr.cpr(jr.SquaredL2(1.0), "1"), TypeError, "`cpr` needs a number or an array as `bound`, got '1'"),
        (lambda: jr.cpr(jr.SquaredL2(1.0), jr.L2Ball(1.0)), TypeError, "`cpr` needs a number, .* as `bound`.*L2Ball"),
        (lambda: jr.cpr(jr.SquaredL2(1.0), 1.0, -0.1), ValueError, "`cpr` needs `dual_learning_rate` >= 0, got -0.1"),
        (lambda: jr.cpr(jr.L2Ball(1.0), 1.0), TypeError, "`cpr` needs penalties .* got L2Ball"),
        (lambda: jr.cpr(jr.Orthogonality(1.0), 1.0), TypeError, "`cpr` needs penalties with an exact `prox`"),
        (lambda: jr.initial_norm(-1.0), ValueError, "`initial_norm` needs `factor` >= 0, got -1.0"),
        (lambda: jr.warm_start(1.5), TypeError, "`warm_start` needs an int as `steps`, got 1.5"),
        (lambda: jr.warm_start(-1), ValueError, "`warm_start` needs `steps` >= 0, got -1"),
        (lambda: jr.inflection_point(0), ValueError, "`inflection_point` needs `every` >= 1, got 0"),
        (lambda: jr.inflection_point(ema=1.5), ValueError, r"`inflection_point` needs `ema` in \[0, 1\], got 1.5"),
        (
            lambda: jr.cpr(jr.SquaredL2(1.0, axis=0), np.ones(4)).init(np.ones((4, 3))),
            ValueError,
            r"`cpr` needs a `bound` that broadcasts to the groups of its leaf, of shape \(3,\); got shape \(4,\)",
        ),
    ],
)
def test_refuses(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_tree_of_bounds_that_does_not_fit_says_so():
    with pytest.raises(ValueError, match="nothing was given for 'a'") as error:
        jr.cpr(jr.SquaredL2(1.0), {"b": 1.0}).init({"a": np.ones(2)})
    assert error.value.__notes__ == ["jaxreg: `bound` of `cpr`"]
