"""Exact steps: the prox in the metric of the optimizer, implicit decay, momentum of the moves that were made."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import Lasso
from table import PENALTIES, SHAPES, first_of_each_class

import jaxreg as jr

RNG = np.random.default_rng(0)
W = {"w": jnp.asarray(RNG.normal(size=(4, 3))), "b": jnp.asarray(RNG.normal(size=3))}
GRADS = [jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape)), W) for _ in range(4)]
SHAPE = SHAPES["matrix"]
SEPARABLE = [row for row in PENALTIES if row.exact and row.noun(SHAPE).separable]
QUICK = first_of_each_class(SEPARABLE)
rows = pytest.mark.parametrize(
    "row", [pytest.param(row, id=str(row), marks=[] if row in QUICK else [pytest.mark.slow]) for row in SEPARABLE]
)


def run(tx, params=W, grads=GRADS):
    """Parameters after each step, and the state."""
    state, path = tx.init(params), []
    for g in grads:
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path, state


nearest, distance = jax.jit(lambda pen, x, step: pen.prox(x, step)), jax.jit(lambda pen, x, g: pen.optimality(x, g))


def fixed(scaled, diagonal):
    """A preconditioner whose step and diagonal are given."""
    return optax.stateless(lambda g, params: scaled), lambda state: diagonal


# ------------------------------------------------------------------ which penalties have a prox in a metric


def test_who_is_separable():
    L1, group = jr.L1(1.0), jr.GroupL2(1.0)
    for pen, expected in (
        (L1, True),
        (jr.MCP(1.0), True),
        (group, False),
        (jr.Slope(1.0), False),
        (jr.Nuclear(1.0), False),
        (jr.Towards(L1, 1.0), True),
        (jr.Towards(group, 1.0), False),
        (L1 + jr.SquaredL2(1.0), True),
        (L1 + group, False),
        (jr.Towards(L1 + jr.SquaredL2(1.0), 2.0), True),
    ):
        assert pen.separable is expected
    assert {type(row.noun(SHAPE)) for row in SEPARABLE} >= {
        jr.L1, jr.SquaredL2, jr.ElasticNet, jr.Huber, jr.L0, jr.MCP, jr.SCAD, jr.LogSum, jr.LpHalf, jr.Towards, jr.Sum
    }  # fmt: skip


@rows
def test_a_step_per_weight_is_the_step_of_each_weight(row):
    pen = row.noun(SHAPE)
    x = jnp.asarray(1.5 * np.random.default_rng(1).normal(size=SHAPE), jnp.float32)
    steps = np.resize([0.0, 0.3, 2.0, 0.05, 100.0], SHAPE)
    whole = nearest(pen, x, steps)
    for step in np.unique(steps):
        one = nearest(pen, x, step)[steps == step]
        np.testing.assert_allclose(whole[steps == step], one, rtol=1e-6)
        np.testing.assert_array_equal(whole[steps == step] == 0, one == 0)
    np.testing.assert_array_equal(whole[steps == 0], x[steps == 0])
    assert np.all(np.isfinite(whole))


@rows
def test_the_step_solves_its_problem(row):
    # 0 ∈ m + d(z − θ)/η + ∂λΩ(z); θ = 0, so that the kinks of anchors are met without rounding.
    pen, rng, eta = row.noun(SHAPE), np.random.default_rng(2), 0.3
    m, d = rng.normal(size=SHAPE), np.exp(rng.normal(size=SHAPE))
    tx = jr.proxgen(pen, eta, *fixed(m / d, d))
    theta = jnp.zeros(SHAPE)
    z = theta + jax.jit(lambda m: tx.update(m, tx.init(theta), theta)[0])(m)
    assert float(distance(pen, z, m + d * (z - theta) / eta)) < 1e-13
    # The Euclidean prox of the same step solves another problem (of L0, every point is stationary in its support).
    z = nearest(pen, theta - eta * m / d, eta)
    assert isinstance(pen, jr.L0) or float(distance(pen, z, m + d * (z - theta) / eta)) > 1e-3


def test_what_couples_weights_is_refused_by_name():
    couples = "needs penalties on each weight by itself .*; `{}` couples weights.*Use `proximal` after .*`multipliers`"
    for pen, name in (
        (jr.GroupL2(1.0, axis=0), "GroupL2"),
        (jr.L1(1.0) + jr.GroupL2(1.0), r"Sum\(L1, GroupL2\)"),
        (jr.Towards(jr.Nuclear(1.0), 0.5), r"Towards\(Nuclear\)"),
    ):
        for nouns in (pen, {"w": pen, "b": None}, lambda count: pen):
            with pytest.raises(TypeError, match="`proximal_adam` " + couples.format(name)):
                jr.proximal_adam(0.1, nouns)
            with pytest.raises(TypeError, match="`proxgen` " + couples.format(name)):
                jr.proxgen(nouns, 0.1, optax.identity(), lambda state: 1.0)
    with pytest.raises(TypeError, match="`proximal_adam` needs penalties with an exact `prox`"):
        jr.proximal_adam(0.1, jr.Orthogonality(1.0))
    with pytest.raises(TypeError, match=r"`proximal_adam` needs penalties.*got L2Ball.*`projected`"):
        jr.proximal_adam(0.1, jr.L2Ball(1.0))
    with pytest.raises(TypeError, match="`proxgen` needs a gradient transformation as `transformation`"):
        jr.proxgen(jr.L1(1.0), 0.1, 1.0, lambda state: 1.0)
    with pytest.raises(TypeError, match=r"`proxgen` needs a function .* as `diagonal`"):
        jr.proxgen(jr.L1(1.0), 0.1, optax.identity(), 1.0)
    with pytest.raises(ValueError, match="`proximal_adam` needs `learning_rate` >= 0, got -1"):
        jr.proximal_adam(-1.0, jr.L1(1.0))


# ------------------------------------------------------------------ against optax, and the prox after plain SGD


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
    ("dtype", "rate"),
    [(jnp.bfloat16, 0.1), (jnp.float32, optax.linear_schedule(0.2, 0.0, 3)), (jnp.float64, 0.1)],
    ids=["bf16", "f32 schedule", "f64"],
)
def test_without_a_penalty_it_is_adam_bit_for_bit(dtype, rate):
    cast = lambda tree: jax.tree.map(lambda x: x.astype(dtype), tree)
    options = dict(b1=0.8, b2=0.95, eps=1e-3, eps_root=1e-4)
    adam = run(optax.adam(rate, **options), cast(W), list(map(cast, GRADS)))[0]
    for pens in (None, {"w": None, "b": None}, jr.L1(0.0), {"w": jr.MCP(1e-5, 2.0), "b": None}):
        ours, state = run(jr.proximal_adam(rate, pens, **options), cast(W), list(map(cast, GRADS)))
        chex.assert_trees_all_equal_dtypes(ours[0], cast(W))
        chex.assert_trees_all_equal(ours, adam)
    assert int(state.count) == len(GRADS)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-2), (jnp.float64, 1e-9)], ids=["f32", "f64"])
def test_the_diagonal_is_what_adam_divides_by(dtype, tolerance):
    # The update is the soft threshold at ηλ/d of Adam's, which gives d back.
    g = jnp.asarray([0.5, -2.0, 1e-3, 0.0], dtype)
    theta = jnp.asarray([1.0, 1.0, 1.0, 1.0], dtype)
    options = dict(b2=0.9, eps=1e-3, eps_root=1e-2)
    adam = optax.scale_by_adam(**options)
    scaled, state = adam.update(g, adam.init(theta))
    scaled, state = adam.update(g / 2, state)
    mean = optax.tree.bias_correction(state.mu, 0.9, state.count)

    lam, rate = 1e-3, 1e-2
    tx = jr.proximal_adam(rate, jr.L1(lam), **options)
    ours = tx.init(theta)
    for t in (1, 2):
        u, ours = tx.update(g / t, ours, theta)
    threshold = np.asarray(u, np.float64) - np.asarray(-rate * scaled, np.float64)  # −ηλ/d, all weights being > 0
    d = -rate * lam / threshold
    seen = np.asarray(mean != 0)
    np.testing.assert_allclose(d[seen], np.asarray(mean[seen] / scaled[seen]), rtol=tolerance)
    np.testing.assert_allclose(d[~seen], 1e-3 + 0.1, rtol=tolerance)


def test_with_no_metric_it_is_the_prox_after_sgd():
    pens = {"w": jr.L1(0.3) + jr.SquaredL2(0.2), "b": jr.MCP(0.5, 2.0)}
    rate = optax.linear_schedule(0.2, 0.05, 3)
    expected = run(optax.chain(optax.sgd(rate, momentum=0.5), jr.proximal(pens, rate)))[0]
    ones = jax.tree.map(jnp.ones_like, W)
    for trace, diagonal in (
        (optax.trace(0.5), lambda state: 1.0),
        (optax.trace(0.5), lambda state: ones),
    ):
        # The momentum of `optax.sgd` comes before the learning rate, too.
        chex.assert_trees_all_equal(run(jr.proxgen(pens, rate, trace, diagonal))[0], expected)


def test_schedules_are_followed_step_by_step():
    rates = jnp.array([0.3, 0.0, 0.1, 0.7])
    pens = lambda count: jr.L1(0.1 * (count + 1))
    path, _ = run(jr.proximal_adam(lambda t: rates[t], pens, eps_root=1e-3))
    adam, params = optax.scale_by_adam(eps_root=1e-3), W
    state = adam.init(W)
    for t, g in enumerate(GRADS):
        scaled, state = adam.update(g, state)
        nu = optax.tree.bias_correction(state.nu, 0.999, state.count)
        soft = lambda z, h: jnp.sign(z) * jnp.maximum(jnp.abs(z) - h, 0)
        params = jax.tree.map(
            lambda p, u, v, t=t: soft(p - rates[t] * u, rates[t] * 0.1 * (t + 1) / (jnp.sqrt(v + 1e-3) + 1e-8)),
            params, scaled, nu,
        )  # fmt: skip
        chex.assert_trees_all_close(path[t], params, atol=1e-12)


def test_a_weight_without_gradients_becomes_zero_at_once():
    w = jnp.array([3.0, 3.0], jnp.float32)
    tx = jr.proximal_adam(1e-3, jr.L1(1e-3))
    u, _ = tx.update(jnp.array([0.0, 1.0], jnp.float32), tx.init(w), w)
    moved = optax.apply_updates(w, u)
    assert moved[0] == 0
    np.testing.assert_allclose(moved[1], 3 - 1e-3 - 1e-6, rtol=1e-6)


# ------------------------------------------------------------------ the problem it solves


def lasso(n=40, d=12, lam=0.05):
    """Correlated scales, four weights that matter: gradient, λ and scikit-learn's solution."""
    rng = np.random.default_rng(0)
    design = rng.normal(size=(n, d)) * np.logspace(0, -1, d)
    target = design @ np.where(np.arange(d) % 3 == 0, 3 * rng.normal(size=d), 0) + 0.1 * rng.normal(size=n)
    solution = Lasso(lam, fit_intercept=False, tol=1e-14, max_iter=10**6).fit(design, target).coef_
    return lambda w: design.T @ (design @ w - target) / n, lam, solution


def train(tx, grad, steps, d=12):
    def step(carry, _):
        w, state = carry
        updates, state = tx.update(grad(w), state, w)
        return (optax.apply_updates(w, updates), state), None

    w = jnp.zeros(d)
    return jax.lax.scan(step, (w, tx.init(w)), None, steps)[0][0]


def test_proximal_adam_solves_the_lasso_and_adam_then_proximal_does_not():
    grad, lam, solution = lasso()
    pen, lr, steps = jr.L1(lam), 0.03, 3000
    w = train(jr.proximal_adam(lr, pen), grad, steps)
    g = grad(w)
    assert float(pen.optimality(w, g)) < 1e-12
    zero = np.asarray(w == 0)
    assert np.all(np.abs(g[zero]) <= lam)
    np.testing.assert_allclose(g[~zero], -lam * np.sign(w[~zero]), atol=1e-12)
    np.testing.assert_array_equal(zero, solution == 0)
    assert 0 < zero.sum() < len(zero)
    np.testing.assert_allclose(w, solution, atol=1e-9)

    wrong = train(optax.chain(optax.adam(lr), jr.proximal(pen, lr)), grad, steps)
    # It ends near least squares: no weight is 0, the distance is 0.59, and the residual is the whole of λ = 0.05.
    assert not np.any(wrong[solution == 0] == 0)
    assert np.max(np.abs(wrong - solution)) > 0.5
    assert float(pen.optimality(wrong, grad(wrong))) > 0.9 * lam


def test_other_preconditioners_solve_the_same_problem():
    grad, lam, solution = lasso()
    rms = optax.scale_by_rms(decay=0.99, eps=1e-6)
    tx = jr.proxgen(jr.L1(lam), 0.02, rms, lambda s: jax.tree.map(lambda v: jnp.sqrt(v + 1e-6), s.nu))
    np.testing.assert_allclose(train(tx, grad, 4000), solution, atol=1e-9)


# ------------------------------------------------------------------ transformations of it


def test_vmap_over_lam_is_a_loop_jit_is_eager_and_hypergradients_are_finite():
    def fit(lam):
        path, _ = run(jr.proximal_adam(0.1, {"w": jr.L1(lam), "b": None}, eps_root=1e-8))
        return path[-1]["w"]

    numbers = jnp.array([0.0, 0.1, 1.0, 50.0])
    batch = jax.jit(jax.vmap(fit))(numbers)
    for i, lam in enumerate(numbers):
        np.testing.assert_allclose(batch[i], fit(lam), rtol=1e-9, atol=1e-12)
    assert np.all(np.asarray(batch[-1]) == 0)
    loss = lambda lam: jnp.sum(jnp.sin(fit(lam)))
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(0.1), (loss(0.1 + 1e-6) - loss(0.1 - 1e-6)) / 2e-6, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(0.0), (loss(1e-6) - loss(0.0)) / 1e-6, rtol=1e-4)


def test_masks_and_frozen_parts_pass():
    pens = {"w": jr.L1(0.5), "b": None}
    whole = run(jr.proximal_adam(0.1, pens))[0][-1]
    tx = optax.partition({"reg": jr.proximal_adam(0.1, pens), "plain": optax.sgd(0.1)}, {"w": "reg", "b": "plain"})
    split = run(tx)[0][-1]
    chex.assert_trees_all_close(split["w"], whole["w"], rtol=1e-12)
    chex.assert_trees_all_close(split["b"], run(optax.sgd(0.1))[0][-1]["b"], rtol=1e-12)


def test_regularize_takes_it_as_the_optimizer():
    unit = jr.L2Ball(0.8)
    ours = run(jr.regularize(jr.proximal_adam(0.1, jr.L1(0.5)), 0.1, constraint=unit))[0][-1]
    chex.assert_trees_all_equal(ours, run(optax.chain(jr.proximal_adam(0.1, jr.L1(0.5)), jr.projected(unit)))[0][-1])


# ------------------------------------------------------------------ implicit decay


def test_implicit_decay_of_a_ridge():
    lam, peak = 0.7, 0.3
    rate = lambda t: jnp.array([0.0, 0.3, 0.2, 0.1])[t]
    for options, eta in (({}, rate), ({"peak": peak}, lambda t: rate(t) ** 2 / peak)):
        path, _ = run(optax.chain(optax.adam(rate), jr.decay(jr.SquaredL2(lam), rate, implicit=True, **options)))
        adam, params = optax.adam(rate), W
        state = adam.init(W)
        for t, g in enumerate(GRADS):
            u, state = adam.update(g, state)
            params = jax.tree.map(lambda p, u, t=t: (p + u) / (1 + eta(t) * lam), params, u)
            chex.assert_trees_all_close(path[t], params, atol=1e-12)


@pytest.mark.parametrize("pen", [jr.Huber(0.8, 0.5), jr.Towards(jr.SquaredL2(0.8), 0.5), jr.GroupL2(0.8)], ids=str)
def test_implicit_decay_takes_the_gradient_at_the_new_weights(pen):
    p, u = W["w"], GRADS[0]["w"]
    tx = jr.decay(pen, 0.3, implicit=True)
    new = p + tx.update(u, tx.init(p), p)[0]
    np.testing.assert_allclose(new, p + u - 0.3 * jax.jit(jax.grad(pen.value))(new), atol=1e-12)


def test_explicit_decay_diverges_where_implicit_does_not():
    zero = [jax.tree.map(jnp.zeros_like, W)] * 20
    explicit, implicit = (run(jr.decay(jr.SquaredL2(3.0), 1.0, implicit=i), W, zero)[0][-1]["w"] for i in (False, True))
    np.testing.assert_allclose(explicit, 2.0**20 * W["w"], rtol=1e-9)  # 1 − ηλ = −2
    np.testing.assert_allclose(implicit, W["w"] / 4.0**20, rtol=1e-9)


def test_implicit_decay_refuses():
    with pytest.raises(ValueError, match="`decay` needs `implicit` or `cautious`, got both"):
        jr.decay(jr.SquaredL2(1.0), 0.1, cautious=True, implicit=True)
    with pytest.raises(TypeError, match=r"`decay\(implicit=True\)` needs penalties with an exact `prox`"):
        jr.decay(jr.Orthogonality(1.0), 0.1, implicit=True)
    jr.decay(jr.L0(1.0), 0.1, implicit=True)  # it needs no gradient


# ------------------------------------------------------------------ momentum of the moves that were made


@pytest.mark.parametrize("cons", [None, jr.L2Ball(1e3), {"w": jr.L2Ball(1e3, axis=0), "b": None}], ids=str)
def test_momentum_is_the_heavy_ball_where_nothing_is_projected(cons):
    ours = run(optax.chain(optax.sgd(0.1), jr.projected(cons, momentum=0.9)))[0]
    chex.assert_trees_all_close(ours, run(optax.sgd(0.1, momentum=0.9))[0], rtol=1e-12)


def test_momentum_by_hand():
    betas, ball = jnp.array([0.9, 0.5, 0.0, 0.8]), jr.L2Ball(1.0, axis=0)
    cons = {"w": ball, "b": None}
    path, state = run(optax.chain(optax.sgd(0.3), jr.projected(cons, momentum=lambda t: betas[t])))
    p, last = W, W
    for t, g in enumerate(GRADS):
        z = jax.tree.map(lambda p, q, g, t=t: p - 0.3 * g + betas[t] * (p - q), p, last, g)
        p, last = {"w": ball.project(z["w"]), "b": z["b"]}, p
        chex.assert_trees_all_close(path[t], p, atol=1e-12)
    chex.assert_trees_all_close(state[1].velocity, jax.tree.map(jnp.subtract, p, last), atol=1e-12)


def test_a_weight_leaves_the_boundary_when_its_gradient_turns():
    # Pushed out for 100 steps, in for 20: the buffer of optax needs 7 of them to turn.
    def inside_after(tx):
        grads = [jnp.array([-1.0])] * 100 + [jnp.array([1.0])] * 20
        path, _ = run(tx, jnp.zeros(1), grads)
        return next(i for i, w in enumerate(path[100:], 1) if w[0] < 1)

    box = jr.Box(-1.0, 1.0)
    assert inside_after(optax.chain(optax.sgd(0.1, momentum=0.9), jr.projected(box))) == 7
    assert inside_after(optax.chain(optax.sgd(0.1), jr.projected(box, momentum=0.9))) == 1


@pytest.mark.parametrize("update_dtype", [None, "param"])
def test_the_velocity_is_float32_at_least(update_dtype):
    params = {"w": jnp.ones((2, 2), jnp.bfloat16), "b": jnp.ones(2, jnp.float16), "c": jnp.ones((), jnp.float64)}
    tx = jr.projected({"w": jr.L2Ball(1.0), "b": None, "c": None}, momentum=0.9, update_dtype=update_dtype)
    state = tx.init(params)
    for _ in range(2):
        updates, new = tx.update(params, state, params)
        assert [v.dtype for v in jax.tree.leaves(new.velocity)] == [jnp.float32, jnp.float64, jnp.float32]
        chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
        chex.assert_trees_all_equal_dtypes(updates, params if update_dtype else new.velocity)
        state = new
    with pytest.raises(TypeError, match="`projected` with `momentum` needs floating-point parameters, got int32"):
        tx.init({**params, "b": jnp.ones(2, jnp.int32)})


@pytest.mark.parametrize("momentum", [-0.1, float("nan")])
def test_bad_momentum(momentum):
    with pytest.raises(ValueError, match="`projected` needs `momentum` >= 0, got"):
        jr.projected(jr.L2Ball(1.0), momentum=momentum)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32], ids=str)
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_projected_lands_within_one_rounding(dtype, momentum):
    rng = np.random.default_rng(1)
    for con in (jr.L2Ball(0.7, axis=0), jr.L1Ball(0.7), jr.Box(-0.2, 0.7), jr.Simplex(0.75, axis=0)):
        tx = jr.projected(con, momentum=momentum)
        w = jnp.asarray(30 * rng.normal(size=SHAPE), dtype)
        state = tx.init(w)
        for scale in (30.0, 3.0, 0.01):
            u = jnp.asarray(scale * rng.normal(size=SHAPE), dtype)
            push = 0 if momentum is None else momentum * np.asarray(state.velocity, np.float64)
            target = np.asarray(con.project(w.astype(jnp.float64) + u.astype(jnp.float64) + push))
            updates, state = tx.update(u, state, w)
            new = optax.apply_updates(w, updates)
            assert new.dtype == dtype
            # half an ulp of the dtype at the new weight; float32 arithmetic at the size of what is projected
            half = float(jnp.finfo(dtype).eps) / 2 * np.abs(target)
            size = np.max(np.abs(np.asarray(w, np.float64))) + scale * 3 + np.max(np.abs(push))
            assert np.all(np.abs(np.asarray(new, np.float64) - target) <= half + 2**-22 * size), con
            w = new


# ------------------------------------------------------------------ averages


def test_averages_of_a_convex_set_are_inside_and_of_a_sphere_are_not():
    ball, sphere, rng = jr.L2Ball(1.0), jr.Sphere(1.0), np.random.default_rng(3)
    for con, stays in ((ball, True), (sphere, False)):
        tx, w = optax.chain(optax.sgd(0.5), jr.projected(con)), jnp.asarray([1.0, 0, 0, 0], jnp.float32)
        state, average, exact = tx.init(w), w, w
        for _ in range(30):
            u, state = tx.update(jnp.asarray(3 * rng.normal(size=4), jnp.float32), state, w)
            w = optax.apply_updates(w, u)
            average = optax.incremental_update(w, average, 0.1)
            exact = jr.project(con, optax.incremental_update(w, exact, 0.1))
        assert bool(con.violation(average) < 1e-6) is stays
        assert abs(float(jnp.linalg.norm(exact)) - 1) < 1e-6 or stays
        assert float(con.violation(exact)) < 1e-6


def test_schedule_free_averages_are_projected_when_they_are_read():
    ball, rng = jr.L2Ball(1.0), np.random.default_rng(4)
    tx, w = optax.contrib.schedule_free(optax.sgd(0.5), learning_rate=0.5), jnp.asarray([1.0, 0.0])
    state = tx.init(w)
    for _ in range(5):
        u, state = tx.update(w - 3 + jnp.asarray(rng.normal(size=2)), state, w)
        w = optax.apply_updates(w, u)
    average = optax.contrib.schedule_free_eval_params(state, w)
    assert float(ball.violation(average)) > 0.1
    np.testing.assert_allclose(jnp.linalg.norm(jr.project(ball, average)), 1.0)
