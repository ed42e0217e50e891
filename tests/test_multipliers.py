"""Multipliers: every method by hand, invariants, functions of parameters and batch, several leaves as one."""

import os
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxreg as jr

# ------------------------------------------------------------------ by hand


def roll(steps, equality=False, **options):
    """v_t of L2Ball(1) along |w_t|, with gradients that the test chooses; returns the pushes and the alphas."""
    con = jr.Equality(jr.L2Ball(1.0)) if equality else jr.L2Ball(1.0)
    return follow(jr.multipliers(con, 0.5, **options), jnp.array([0.0, 1.0]) * steps[:, None])


def follow(tx, ws):
    """The pushes on the last weight and the alphas along these weights, with gradients of 0."""

    def step(state, w):
        u, state = tx.update(jnp.zeros_like(w), state, w)
        return state, (u[-1], state.alpha)

    return jax.lax.scan(step, tx.init(ws[0]), ws)[1]


E = np.exp
METHODS = [
    # v = 1, 2, −0.5, −0.9; η = ½; ∇v is (0, 1)
    ({}, [0, 0.5, 1.5, 1.25], [0.5, 1.5, 1.25, 0.8]),
    ({"augmentation": 0.2}, [0.2, 0.9, 1.4, 1.07], [0.5, 1.5, 1.25, 0.8]),
    ({"proportional": 0.1}, [0, 0.5, 1.6, 1.1], [0.5, 1.6, 1.1, 0.61]),
    ({"proportional": 1.0}, [0, 0.5, 2.5, 0], [0.5, 2.5, 0, 0]),
    # ξ = 1, 1.5, 0.5, −0.2
    ({"proportional": 1.0, "ema": 0.5}, [0, 0.5, 2.0, 0.75], [0.5, 2.0, 0.75, 0]),
    ({"proportional": 1.0, "equality": True}, [0, 0.5, 2.5, -0.25], [0.5, 2.5, -0.25, -1.1]),
    ({"augmentation": 2.0, "equality": True}, [2, 4.5, 0.5, -0.55], [0.5, 1.5, 1.25, 0.8]),
    ({"restart": True}, [0, 0.5, 1.5, 0], [0.5, 1.5, 0, 0]),
    ({"restart": True, "equality": True}, [0, 0.5, 1.5, 1.25], [0.5, 1.5, 1.25, 0.8]),
    ({"start": 0.25}, [0.25, 0.75, 1.75, 1.5], [0.75, 1.75, 1.5, 1.05]),
    ({"log_space": True, "start": 1.0}, [1, E(0.5), E(1.5), E(1.25)], [E(0.5), E(1.5), E(1.25), E(0.8)]),
    (
        {"log_space": True, "start": 2.0, "restart": True, "augmentation": 1.0},
        [3, 2 * E(0.5) + 2, 2 * E(1.5) - 0.5, 1.1],
        [2 * E(0.5), 2 * E(1.5), 2, 2 * E(-0.45)],
    ),
    # measured: ‖w‖ ≤ 2, v = 0, 1, −1.5, −1.9
    ({"measured": jr.L2Ball(2.0), "augmentation": 0.2}, [0.2, 0.4, 0.4, 0], [0, 0.5, 0, 0]),
]


def test_every_method_by_hand_in_both_orders():
    both = lambda steps, options: [roll(steps, alternating=second, **options) for second in (False, True)]
    rolled = jax.jit(lambda steps: [both(steps, options) for options, *_ in METHODS])(np.array([2.0, 3.0, 0.5, 0.1]))
    for (options, pushes, alphas), (simultaneous, alternating) in zip(METHODS, rolled, strict=True):
        np.testing.assert_allclose(simultaneous[0], pushes, atol=1e-12, err_msg=str(options))
        np.testing.assert_allclose(simultaneous[1], alphas, atol=1e-12, err_msg=str(options))
        # Alternating: the same multipliers, each used a step earlier.
        used = np.asarray(alphas) + options.get("augmentation", 0) * np.array([1, 2, -0.5, -0.9])
        used = used if options.get("equality") else np.maximum(used, 0)
        np.testing.assert_allclose(alternating[0], used, atol=1e-12, err_msg=str(options))
        np.testing.assert_allclose(alternating[1], alphas, atol=1e-12, err_msg=str(options))
    for options, pushes, alphas in (METHODS[4], METHODS[-2]):  # eagerly, a step
        tx, w = jr.multipliers(jr.L2Ball(1.0), 0.5, **options), jnp.array([0.0, 2.0])
        u, state = tx.update(jnp.zeros(2), tx.init(w), w)
        np.testing.assert_allclose([u[-1], state.alpha], [pushes[0], alphas[0]], atol=1e-12, err_msg=str(options))


def test_schedules_of_gains_are_followed():
    ramp = lambda count: 0.1 * count
    scheduled = jr.multipliers(jr.L2Ball(1.0), ramp, augmentation=ramp, proportional=ramp, ema=ramp)

    @jax.jit
    def pairs(w, u):
        state, pairs = scheduled.init(w), []
        for t in range(3):
            plain = jr.multipliers(jr.L2Ball(1.0), ramp(t), augmentation=ramp(t), proportional=ramp(t), ema=ramp(t))
            twin = state if t else plain.init(w)._replace(smoothed=state.smoothed)
            pairs.append((plain.update(u, twin, w * (t + 1)), scheduled.update(u, state, w * (t + 1))))
            state = pairs[-1][1][1]
        return pairs

    followed = pairs(np.array([0.0, 3.0]), np.zeros(2))
    for expected, got in followed[1:]:  # a literal κ = 0 keeps no average
        chex.assert_trees_all_close(got, expected)
    assert float(got[1].alpha) > 0


def test_an_infinite_bound_has_multiplier_zero_and_no_nan():
    ball = jr.L2Ball(jnp.asarray([jnp.inf, 1.0]), axis=0)
    cases = [{}, {"augmentation": 0.0, "proportional": 0.0}, {"augmentation": 0.5, "proportional": 0.5}]

    def run(options):
        tx, w = jr.multipliers(ball, 0.5, **options), jnp.ones((2, 2))
        state = tx.init(w)
        for _ in range(3):
            u, state = tx.update(jnp.zeros((2, 2)), state, w)
        return u, state.alpha, jr.kkt_residuals(ball, w, u, state.alpha)

    literal, traced = jax.jit(lambda traced: (list(map(run, cases)), list(map(run, traced))))(cases)
    for options, (u, alpha, residuals) in zip(2 * cases, literal + traced, strict=True):
        assert np.all(np.isfinite(u)), options
        assert np.asarray(alpha)[0] == 0, options
        assert np.asarray(alpha)[1] > 0, options
        assert np.all(np.isfinite(np.asarray(residuals))), options


def test_kkt_residuals_by_hand():
    cons = {"w": jr.L2Ball(1.0), "e": jr.Equality(jr.L2Ball(1.0)), "b": None}
    params = {"w": np.array([3.0, 4.0]), "e": np.array([0.5]), "b": np.array([1.0])}
    grads = {"w": np.array([-1.2, -1.6]), "e": np.array([0.25]), "b": np.array([-0.125])}
    alpha = {"w": np.array(2.0), "e": np.array(-0.25), "b": None}
    residuals = jax.jit(lambda params: jr.kkt_residuals(cons, params, grads, alpha))
    assert [float(r) for r in residuals(params)] == pytest.approx([0.125, 4.0, 8.0])
    params["w"] = np.array([0.3, 0.4])
    assert float(residuals(params).feasibility) == 0.5  # an equality misses from below too


# ------------------------------------------------------------------ invariants


options = st.fixed_dictionaries(
    {
        "augmentation": st.sampled_from([0.0, 0.5]),
        "proportional": st.sampled_from([0.0, 0.7]),
        "ema": st.sampled_from([0.0, 0.9]),
        "alternating": st.booleans(),
        "restart": st.booleans(),
        "log_space": st.booleans(),
    }
)


@settings(max_examples=12, deadline=None)
@given(options=options, seed=st.integers(0, 1000), rate=st.sampled_from([0.01, 0.3]))
def test_multipliers_are_never_negative_and_vanish_where_slack(options, seed, rate):
    rng = np.random.default_rng(seed)
    con = jr.L2Ball(rng.uniform(0.1, 2, 3), axis=0)
    tx = jr.multipliers(con, rate, start=1.0 if options["log_space"] else None, **options)
    rough = rng.normal(size=(30, 4, 3)) * rng.choice([0.01, 1, 30], (30, 1, 1))
    # Then slack by half of every radius: α returns to 0, or shrinks by e^{−ηv} a step in log space.
    inside = rough[0] / np.linalg.norm(rough[0], axis=0) * 0.5 * con.radius

    @jax.jit
    def run(ws, inside):
        def step(state, w):
            u, state = tx.update(jnp.zeros_like(w), state, w)
            return state, (state.alpha, jnp.sum(u * w, 0))

        state, (alphas, pushes) = jax.lax.scan(step, tx.init(ws[0]), ws)
        sleep = lambda _, state: tx.update(jnp.zeros_like(inside), state, inside)[1]
        return alphas, pushes, jax.lax.fori_loop(0, 20_000, sleep, state).alpha

    alphas, pushes, slept = map(np.asarray, run(rough, inside))
    assert np.all(alphas >= 0)
    assert np.all(pushes >= 0)  # towards the inside, never outwards
    if options["log_space"]:
        assert np.all(slept < 1e-3 * alphas[-1])
    else:
        assert np.all(slept == 0)


def test_a_checkpoint_continues_bit_identically(tmp_path):
    cons = {"w": jr.L2Ball(0.3, axis=0), "b": None}
    link = jr.multipliers(cons, 0.1, augmentation=0.2, proportional=0.3, ema=0.5, restart=True, certify=True)
    tx = optax.chain(link, optax.adam(0.1))
    params = {"w": np.arange(12.0).reshape(4, 3) / 7, "b": np.ones(3)}

    @jax.jit
    def step(params, state):
        updates, state = tx.update(jax.tree.map(jnp.cos, params), state, params)
        return optax.apply_updates(params, updates), state

    def go(params, state, steps):
        for _ in range(steps):
            params, state = step(params, state)
        return params, state

    start = jax.jit(tx.init)(params)
    whole = go(params, start, 7)
    half = go(params, start, 3)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "run", half)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "run", jax.eval_shape(lambda: half))
    restored = jax.tree.map(np.asarray, restored)  # bound to no device, as the others are: for the same program
    chex.assert_trees_all_equal(go(*restored, 4), whole)


def test_a_slack_constraint_changes_no_solution():
    cases = [
        {"restart": restart, **options}
        for restart in (False, True)
        for options in ({"start": 0.3}, {"log_space": True, "start": 1.0})
    ]

    def solve(options):
        w, state = sgd(jr.multipliers(jr.L2Ball(1.0), 0.1, **options), lambda w: w - 0.5, jnp.ones(1), 0.1, 3000)
        return w, state.alpha

    for options, (w, alpha) in zip(cases, jax.jit(lambda: list(map(solve, cases)))(), strict=True):
        np.testing.assert_allclose(w, 0.5, atol=1e-8, err_msg=str(options))
        assert float(alpha) < 1e-30, options


def test_a_bound_that_becomes_finite():
    # From ∞ to 1 at step 3: the multiplier begins there, and the PI part with it.
    cons = lambda count: jr.L2Ball(jnp.where(count < 3, jnp.inf, 1.0))
    cases = [{}, {"ema": 0.5}, {"restart": True}, {"log_space": True, "start": 0.1}]
    links = [jr.multipliers(cons, 0.5, proportional=1.0, **options) for options in cases]
    followed = jax.jit(lambda ws: [follow(tx, ws) for tx in links])(np.tile([0.0, 2.0], (5, 1)))
    for options, (pushes, alphas) in zip(cases, followed, strict=True):
        assert np.all(np.isfinite(pushes)), options
        if "log_space" not in options:
            np.testing.assert_allclose(alphas, [0, 0, 0, 0.5, 1.0], err_msg=str(options))


def test_a_multiplier_in_log_space_that_ran_away_returns():
    tx = jr.multipliers(jr.L2Ball(1.0), 100.0, log_space=True, start=1.0)
    _, alphas = jax.jit(lambda ws: follow(tx, ws))(np.array([[3.0e3, 4.0e3], [0.0, 0.0]]))
    away, back = np.asarray(alphas)
    assert np.isfinite(away)
    assert back < 1e300


def test_a_slept_multiplier_in_log_space_wakes_up():
    tx = jr.multipliers(jr.L2Ball(1.0), 1.0, log_space=True, start=0.1)
    sizes = np.repeat(np.array([0.0, 2.0], np.float32), [300, 100])
    _, alphas = jax.jit(lambda ws: follow(tx, ws))(sizes[:, None] * np.array([0, 1], np.float32))
    assert alphas.dtype == jnp.float32
    assert np.asarray(alphas)[-1] > 1


# ------------------------------------------------------------------ functions


def sgd(link, grad, w, rate, steps, **extra):
    tx = optax.chain(link, optax.sgd(rate))

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(grad(w), state, w, **extra)
        return (optax.apply_updates(w, updates), state), None

    (w, state), _ = jax.lax.scan(step, (w, tx.init(w)), None, steps)
    return w, state[0]


def test_functions_are_constraints():
    # The nearest point to (3, 4, 5) with x₁ + x₂ + x₃ = 3 and x₁ ≥ 1.5, by a dict of one equality and one inequality
    target = np.array([3.0, 4.0, 5.0])
    fn = lambda x: {"sum": jnp.sum(x) - 3.0, "least": 1.5 - x[:1]}
    equality = {"sum": True, "least": False}
    tx = jr.multipliers_for(fn, 0.1, equality=equality, certify=True)

    @jax.jit
    def solve():
        x, state = sgd(tx, lambda x: x - target, jnp.zeros(3), 0.1, 3000)
        residuals = [jr.kkt_residuals(fn, y, y - target, state.alpha, equality=equality) for y in (x, x + 0.5)]
        return x, state, *residuals

    x, state, residuals, off = solve()
    np.testing.assert_allclose(x, [1.5, 0.25, 1.25], atol=1e-8)  # α of the sum 3.75, of the bound 2.25
    assert float(state.alpha["sum"]) == pytest.approx(3.75)
    assert state.alpha["least"].item() == pytest.approx(2.25)
    assert max(float(r) for r in state.residuals) < 1e-8
    assert max(float(r) for r in residuals) < 1e-8
    assert off.feasibility == pytest.approx(1.5)
    assert off.complementarity == pytest.approx(3.75 * 1.5)
    assert off.stationarity == pytest.approx(0.5)


def test_a_norm_over_several_leaves_has_one_multiplier():
    target = {"a": {"w": np.array([[3.0, 0.0]])}, "b": {"w": np.array([4.0]), "bias": np.array([9.0])}}
    grad = lambda p: jax.tree.map(jnp.subtract, p, target)
    joint = jr.jointly({"*/w": jr.Equality(jr.L2Ball(1.0)), "*": jr.L1Ball(7.0)})
    assert joint.equality == {"*/w": True, "*": False}
    whole = jr.jointly(jr.L2Ball(1.0))
    assert whole.equality is False

    @jax.jit
    def solve():
        p, state = sgd(jr.multipliers_for(joint, 0.3), grad, jax.tree.map(jnp.zeros_like, target), 0.1, 3000)
        bf16 = jax.tree.map(lambda x: jnp.ones((64, 64), jnp.bfloat16), target)
        return p, state.alpha, jr.kkt_residuals(joint, p, grad(p), state.alpha), whole(target), whole(bf16)

    p, alpha, residuals, at_target, at_ones = solve()
    np.testing.assert_allclose(p["a"]["w"], [[0.6, 0.0]], atol=1e-8)
    np.testing.assert_allclose(p["b"]["w"], [0.8], atol=1e-8)
    np.testing.assert_allclose(p["b"]["bias"], [7.0], atol=1e-8)
    assert float(alpha["*/w"]) == pytest.approx(4.0)
    assert float(alpha["*"]) == pytest.approx(2.0)
    assert max(float(r) for r in residuals) < 1e-8
    assert float(at_target) == pytest.approx(np.sqrt(9 + 16 + 81) - 1)
    assert float(at_ones) == pytest.approx(np.sqrt(3 * 64**2) - 1)


def test_the_batch_comes_by_name_and_count_is_there():
    def rate(params, batch, count, floor=0.0):
        return jnp.mean(jax.nn.sigmoid(batch @ params)) - 0.3 + floor + 0.0 * count

    tx, w, zero = jr.multipliers_for(rate, 0.5, start=0.0), np.ones(3), np.zeros(3)
    started = jr.multipliers_for(rate, 0.5, start=2.0)

    @jax.jit
    def run(batch):
        _, state = tx.update(zero, tx.init(w), w, batch=batch, unrelated=1)
        u, _ = started.update(zero, state._replace(alpha=jnp.array(2.0)), w, batch=batch)
        return state, u, jax.value_and_grad(rate)(w, batch, 0.0)

    state, u, (v, slope) = run(np.random.default_rng(0).normal(size=(20, 3)))
    assert float(state.alpha) == pytest.approx(max(0.5 * float(v), 0))
    np.testing.assert_allclose(u, 2 * np.asarray(slope))
    with pytest.raises(TypeError, match=r"`multipliers_for` needs the arguments \['batch'\]"):
        tx.update(zero, state, w)
    with pytest.raises(ValueError, match=r"`multipliers_for` of what `init` does not have, .* needs `start`"):
        jr.multipliers_for(rate, 0.5).init(w)


@pytest.mark.parametrize("c", [0.0, 1.0])
def test_an_infinite_bound_in_the_lagrangian(c):
    objective = jr.lagrangian(lambda w: (jnp.sum(w**2), jnp.sum(w) - jnp.inf), augmentation=c)
    (value, v), slope = jax.jit(jax.value_and_grad(objective, has_aux=True))(np.ones(2), np.array(0.0))
    np.testing.assert_allclose(slope, 2)
    assert float(value) == 2
    assert np.isneginf(v)


def test_where_a_constraint_is_slack_the_lagrangian_is_constant():
    objective = jr.lagrangian(lambda w: (0.0, jnp.sum(w) - 5), augmentation=0.5)
    (value, _), slope = jax.jit(jax.value_and_grad(objective, has_aux=True))(np.zeros(2), np.array(0.3))
    assert float(value) == pytest.approx(-(0.3**2) / (2 * 0.5))
    assert not np.any(slope)


def test_arguments_of_functions_whatever_their_form():
    w, zero = np.ones(2), np.zeros(2)
    links = [
        jr.multipliers_for(fn, 0.5, start=0.0)
        for fn in (
            lambda *args, **kwargs: jnp.sum(args[0]) - kwargs["bound"],
            lambda value, **rest: jnp.sum(value) - rest["bound"],
            lambda p, *, bound, other=3.0: jnp.sum(p) - bound,
            jax.jit(lambda p, bound: jnp.sum(p) - bound),
        )
    ]
    # Links in one chain, each with its own violations
    chain = optax.chain(jr.multipliers(jr.L2Ball(1.0), 0.5), jr.multipliers_for(None, 0.5, start=0.0, name="rate"))

    @jax.jit
    def run(w):
        states = [tx.update(zero, tx.init(w), w, bound=1.0, value=7.0)[1] for tx in links]
        return states, chain.update(zero, chain.init(w), 3 * w, rate=1.0)[1]

    states, (first, second) = run(w)
    assert [float(state.alpha) for state in states] == [0.5] * 4
    assert float(first.alpha) == pytest.approx(0.5 * (np.sqrt(18) - 1))
    assert float(second.alpha) == 0.5
    with pytest.raises(TypeError, match="`multipliers_for` needs a function whose further arguments have names"):
        jr.multipliers_for(lambda p, bound, /: p - bound, 0.5)


def test_leaves_that_are_no_arrays_take_no_part():
    q = {"w": np.ones(2), "n": np.array(3), "f": jax.nn.relu}
    cons = {"w": jr.L2Ball(1.0), "n": None, "f": None}
    fn = lambda q: jnp.sum(q["w"]) - 1
    for link in (jr.multipliers(cons, 0.5, certify=True), jr.multipliers_for(fn, 0.5, certify=True)):
        for rest in ({"n": np.array(0), "f": jax.nn.relu}, {"n": None, "f": None}):
            u, state = link.update({"w": np.zeros(2), **rest}, link.init(q), q)
            u, state = link.update({"w": np.zeros(2), **rest}, state, q)
            assert np.all(np.asarray(u["w"]) > 0)
            assert u["f"] is rest["f"]
            assert float(state.residuals.stationarity) > 0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=str)
def test_functions_under_strict_promotion(dtype):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        p, bound = {"a": np.ones(2, dtype), "b": np.ones(3)}, np.ones((), np.float32)
        for link in (
            jr.multipliers_for(lambda p, bound: jnp.sum(p["a"]) - bound, 0.5, start=0.0, certify=True),
            jr.multipliers_for(jr.jointly(jr.L2Ball(1.0)), 0.5),
        ):
            state = jax.eval_shape(link.init, p)  # what promotes is refused while tracing
            update = lambda p, state, bound: link.update(p, state, p, bound=bound)
            u, again = jax.eval_shape(update, p, state, bound)
            chex.assert_trees_all_equal_dtypes(u, p)
            chex.assert_trees_all_equal_dtypes(again, state)
            assert u.keys() == p.keys()


def test_one_pass_is_two_passes():
    data = np.random.default_rng(1).normal(size=(8, 3))
    loss = lambda w: jnp.mean(jnp.square(data @ w - 1))
    excess = lambda w: {"l1": jnp.sum(jnp.sqrt(w**2 + 1e-3)) - 0.5, "two": w[:2] - 0.1}

    def run(w0, equality, c):
        both = jr.lagrangian(lambda w: (loss(w), excess(w)), equality=equality, augmentation=c)
        zeros = jax.tree.map(jnp.zeros_like, excess(w0))
        one = optax.chain(jr.multipliers_for(None, 0.2, equality=equality, start=zeros), optax.sgd(0.1))
        two = optax.chain(jr.multipliers_for(excess, 0.2, equality=equality, augmentation=c), optax.sgd(0.1))

        def step(carry, _):
            w, s, x, t = carry
            grads, v = jax.grad(both, has_aux=True)(w, s[0].alpha)
            u, s = one.update(grads, s, w, violation=v)
            d, t = two.update(jax.grad(loss)(x), t, x)
            return (optax.apply_updates(w, u), s, optax.apply_updates(x, d), t), None

        (w, s, x, t), _ = jax.lax.scan(step, (w0, one.init(w0), w0, two.init(w0)), None, 20)
        value, v = both(w, jax.tree.map(lambda v: jnp.full_like(v, 0.3), excess(w)))
        return w, s[0].alpha, x, t[0].alpha, value - loss(w), v

    cases = [(equality, c) for equality in (False, True) for c in (0.0, 0.4)]
    results = jax.jit(lambda w0: [run(w0, *case) for case in cases])(np.array([0.3, -0.2, 0.5]))
    for (equality, c), (w, alpha, x, beta, gain, v) in zip(cases, results, strict=True):
        name = f"equality={equality}, c={c}"
        np.testing.assert_allclose(w, x, atol=1e-12, err_msg=name)
        for k in alpha:
            np.testing.assert_allclose(alpha[k], beta[k], atol=1e-12, err_msg=name)
        # Its value is the augmented Lagrangian's: the largest over α' of J + α'v − (α' − α)²/2c
        if c and not equality:
            v = np.concatenate([np.ravel(x) for x in jax.tree.leaves(v)])
            best = np.maximum(0.3 + c * v, 0)
            np.testing.assert_allclose(gain, np.sum(best * v - (best - 0.3) ** 2 / (2 * c)))


def test_what_cannot_be_differentiated_is_measured():
    # At most 2 non-zero weights of 4, by the gradient of ‖x‖₁ and exact zeros by `proximal` with the multiplier's λ.
    w, zero = np.array([3.0, -2.0, 0.5, 0.1]), np.zeros(4)
    links = (
        jr.multipliers(jr.L1Ball(0.0), 0.1, measured=jr.Sparse(2), certify=True),
        jr.multipliers_for(lambda x: jnp.sum(jnp.abs(x)), 0.1, measured=lambda x: jnp.sum(x != 0) - 2, certify=True),
    )
    tx = jr.multipliers(jr.L1Ball(0.0), 0.1)
    elsewhere = lambda violation: tx.update(zero, tx.init(w), w, violation=violation)

    @jax.jit
    def run(w, violation):
        after_one = [(tx, tx.update(zero, tx.init(w), w)[1]) for tx in links]
        return [tx.update(zero, state, w) for tx, state in after_one], elsewhere(violation)[1]

    twice, once = run(w, np.asarray(3.0))
    for u, state in twice:
        assert float(state.violation) == 2
        assert float(state.alpha) == pytest.approx(0.4)
        np.testing.assert_allclose(u, 0.2 * np.sign(w))
    assert float(once.alpha) == pytest.approx(0.3)
    with pytest.raises(ValueError, match=r"`multipliers` needs violations of the shapes \[\(\)\], got \[\(3,\)\]"):
        jax.eval_shape(elsewhere, np.ones(3))


def test_the_certificate_in_the_state_is_kkt_residuals():
    con, target = jr.L2Ball(1.0, axis=0), np.random.default_rng(0).normal(size=(4, 3)) * 2
    tx = optax.chain(jr.multipliers(con, 0.2, certify=True), optax.sgd(0.1))

    def step(w, state):
        updates, state = tx.update(w - target, state, w)
        return optax.apply_updates(w, updates), state

    @jax.jit
    def run(w):
        before, state = jax.lax.fori_loop(0, 399, lambda _, carry: step(*carry), (w, tx.init(w)))
        _, last = step(before, state)
        return last[0], jr.kkt_residuals(con, before, before - target, state[0].alpha), con.violation(before)

    state, expected, violation = run(np.zeros((4, 3)))
    chex.assert_trees_all_close(state.residuals, expected, atol=1e-12)
    assert max(float(r) for r in state.residuals) < 1e-6
    np.testing.assert_array_equal(state.violation, violation)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: jr.multipliers(jr.L2Ball(1.0), 0.1, ema=1.0), ValueError, r"`multipliers` needs `ema` in \[0, 1\)"),
        (lambda: jr.multipliers(jr.L2Ball(1.0), 0.1, augmentation=-1.0), ValueError, "`multipliers` needs `augmentat"),
        (lambda: jr.multipliers(jr.L2Ball(1.0), 0.1, start="1"), TypeError, "`multipliers` needs .* as `start`"),
        (lambda: jr.multipliers(jr.L2Ball(1.0), 0.1, log_space=True, start=0.0), ValueError, "`start` > 0 in log"),
        (lambda: jr.multipliers(jr.L2Ball(1.0), 0.1, log_space=True), ValueError, "needs a `start` > 0 in log space"),
        (lambda: jr.multipliers(jr.L2Ball(1.0), 0.1, start=-1.0), ValueError, "`start` >= 0 for inequalities"),
        (
            lambda: jr.multipliers(jr.Equality(jr.L2Ball(1.0)), 0.1, log_space=True, start=1.0),
            ValueError,
            "needs inequalities in",
        ),
        (
            lambda: jr.multipliers(jr.L2Ball(1.0), 0.1, start={"a": 1.0}).init({"w": np.ones(2)}),
            ValueError,
            "multipliers need a `start` for all violations, or a tree like them",
        ),
        (
            lambda: jr.multipliers(jr.L2Ball(1.0, axis=0), 0.1, start=np.ones(3)).init(np.ones((2, 2))),
            ValueError,
            r"`start` that broadcasts to their violations, of shape \(2,\); got shape \(3,\)",
        ),
        (
            lambda: jr.kkt_residuals(jr.L2Ball(1.0), {"w": np.ones(2)}, {"w": np.ones(2)}, 0.0),
            ValueError,
            "`kkt_residuals` needs `alpha`, a tree like the violations",
        ),
        (lambda: jr.lagrangian(jnp.sum, augmentation=-1.0), ValueError, "`lagrangian` needs `augmentation` >= 0"),
        (lambda: jr.lagrangian(jnp.sum)(np.ones(2), 1.0), TypeError, r"`lagrangian` needs .* \(scalar loss, viol"),
        (lambda: jr.lagrangian(lambda x: (x[0], x))(np.ones(2), {"a": 1.0}), ValueError, "`lagrangian` needs mult"),
        (
            lambda: jr.multipliers_for(lambda x: {"a": x, "b": x}, 0.1, equality={"c": True}).init(np.ones(2)),
            ValueError,
            "need as `equality` a bool, or a tree of bools",
        ),
        (lambda: jr.multipliers_for(jr.L2Ball(1.0), 0.1), TypeError, "`multipliers_for` needs a function .* as `fn`"),
        (lambda: jr.multipliers_for(None, 0.1, alternating=True), ValueError, "without a function needs neither"),
        (
            lambda: jr.multipliers_for(None, 0.1).init(np.ones(2)),
            ValueError,
            "`multipliers_for` without a function needs `start`",
        ),
        (lambda: jr.jointly(jr.L2Ball(1.0, axis=0)), ValueError, r"`jointly` needs constraints without `axis`"),
        (lambda: jr.jointly({"*": jr.L1(1.0)}), TypeError, "`jointly` needs constraints"),
        (lambda: jr.jointly({"x": jr.L2Ball(1.0)})({"w": np.ones(2)}), ValueError, "`jointly` needs every pattern to"),
        (
            lambda: jr.multipliers(jr.L2Ball(1.0), 0.1, measured=jr.L2Ball(1.0, axis=0)).init(np.ones((2, 2))),
            ValueError,
            r"`multipliers` needs `measured` with violations of the shapes \[\(\)\], got \[\(2,\)\]",
        ),
        (
            lambda: jr.multipliers_for(lambda x: x, 0.1, equality=True, log_space=True, start=1.0).init(np.ones(2)),
            ValueError,
            "`multipliers_for` needs inequalities in log space",
        ),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: jr.multipliers(jr.jointly({"*/kernel": jr.L2Ball(1.0)}), 0.1),
        lambda: jr.multipliers(lambda p: jnp.sum(p["w"]) - 1, 0.1),
        lambda: jr.projected(jr.jointly(jr.L2Ball(1.0))),
    ],
)
def test_a_function_of_the_parameters_is_sent_to_multipliers_for(make):
    with pytest.raises((TypeError, ValueError, IndexError)) as caught:
        make()
    assert any("are for `multipliers_for`" in note for note in caught.value.__notes__)


def test_links_know_their_place():
    ball, sgd = jr.L2Ball(1.0), optax.sgd(0.1)
    with pytest.raises(TypeError, match="`regularize` needs as `constraint` a link that comes last"):
        jr.regularize(sgd, 0.1, constraint=jr.multipliers(ball, 0.1))
    with pytest.raises(TypeError, match="`regularize` needs as `decay` a link that comes last"):
        jr.regularize(sgd, 0.1, decay=jr.add_penalty_gradient(jr.L1(0.1)))
    for link in (
        jr.projected(ball),
        jr.projected(ball, momentum=0.9),
        jr.cpr(jr.L1(1.0), 1.0),
        jr.decay(jr.L1(1.0), 1),
    ):
        with pytest.raises(TypeError, match="`regularize` needs as `multipliers` a link that comes first"):
            jr.regularize(sgd, 0.1, multipliers=link)
    fn = jr.multipliers_for(ball.violation, 0.1)
    jr.regularize(sgd, 0.1, multipliers=fn, decay=jr.cpr(jr.SquaredL2(1.0), 1.0), constraint=jr.projected(ball))


def test_a_warm_start_from_another_state():
    params = {"a": np.ones((2, 3)), "b": np.ones((2, 2)), "c": np.ones(1)}
    cons = {"a": jr.L2Ball(1.0, axis=0), "b": jr.L2Ball(1.0, axis=0), "c": None}
    tx = jr.multipliers(cons, 0.5)
    alpha = jax.jit(lambda p: tx.update(p, tx.init(p), p)[1].alpha)(params)
    again = jax.jit(jr.multipliers(cons, 0.5, start=alpha).init)(params)
    chex.assert_trees_all_equal(again.alpha, alpha)
    assert np.all(np.asarray(alpha["a"]) > 0)


@pytest.mark.filterwarnings("default")  # of matplotlib's own imports
@pytest.mark.parametrize(("groups", "lines"), [((), 1), ((3,), 3), ((2, 20), 1)])
def test_a_plot_of_multipliers(groups, lines):
    import matplotlib as mpl

    mpl.use("Agg")
    alpha = np.abs(np.random.default_rng(0).normal(size=(30, *groups)))
    up, down = jr.plotting.multipliers(alpha, alpha - 1, steps=10 * np.arange(30))
    assert len(up.lines) == lines
    assert len(down.lines) == lines + 1  # zero
    assert up.lines[0].get_xdata()[-1] == 290
    if not groups:
        np.testing.assert_array_equal(up.lines[0].get_ydata(), alpha)
        np.testing.assert_array_equal(down.lines[0].get_ydata(), alpha - 1)
    with pytest.raises(ValueError, match="needs `alpha` and `violation` of one shape"):
        jr.plotting.multipliers(alpha, alpha[1:])
    tree = {"w": alpha, "b": None, "v": alpha[:, None]}
    up, _ = jr.plotting.multipliers(tree, tree)
    assert len(up.lines) == (2 * lines if groups != (2, 20) else 1)
    if not groups:
        assert [line.get_label() for line in up.lines] == ["v 0", "w"]
    with pytest.raises(ValueError, match="`multipliers` needs 30 `steps`"):
        jr.plotting.multipliers(alpha, alpha, labels=["a"] * 50)


SHARDED = """
import jax, jax.numpy as jnp, numpy as np, optax, jaxreg as jr
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
assert jax.device_count() == 8
mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))
rng = np.random.default_rng(0)
params = {"w": jnp.asarray(rng.normal(size=(16, 6)), jnp.float32), "v": jnp.asarray(rng.normal(size=8), jnp.float32)}
cons = {"w": jr.L2Ball(1.0, axis=0), "v": jr.L1Ball(2.0)}
tx = optax.chain(
    jr.multipliers(cons, 0.1, augmentation=0.3, certify=True),
    jr.multipliers_for(jr.jointly(jr.L2Ball(2.0)), 0.1),
    optax.adam(0.1),
    jr.cpr({"w": jr.SquaredL2(1.0, axis=0), "v": None}, 0.4),
    jr.projected(cons),
)

@jax.jit
def step(params, state):
    updates, state = tx.update(jax.tree.map(jnp.sin, params), state, params)
    return optax.apply_updates(params, updates), state

def run(params):
    state = tx.init(params)
    for _ in range(4):
        params, state = step(params, state)
    return params, state

plain = run(params)
for specs in ({"w": P("a", "b"), "v": P(("a", "b"))}, {"w": P(("a",), None), "v": P("b")}):
    placed = jax.device_put(params, {k: NamedSharding(mesh, s) for k, s in specs.items()})
    sharded = run(placed)
    assert len(sharded[0]["w"].sharding.device_set) == 8
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), plain, sharded)
print("same")
"""


@pytest.mark.interpreters
def test_norms_over_sharded_axes_are_right():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).parent.parent
    result = subprocess.run([sys.executable, "-c", SHARDED], capture_output=True, text=True, cwd=root, env=env)
    assert result.stdout.strip() == "same", result.stderr
