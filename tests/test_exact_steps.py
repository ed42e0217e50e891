"""Exact steps: the prox in the metric of the optimizer, implicit decay, momentum of the moves that were made."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import Lasso
from table import PENALTIES, SHAPES, distance, first_of_each_class, follow, project, violation

import jaxreg as jr

RNG = np.random.default_rng(0)
W = {"w": RNG.normal(size=(4, 3)), "b": RNG.normal(size=3)}
GRADS = [jax.tree.map(lambda p: RNG.normal(size=p.shape), W) for _ in range(4)]
SHAPE = SHAPES["matrix"]
SEPARABLE = [row for row in PENALTIES if row.exact and row.noun(SHAPE).separable]
QUICK = first_of_each_class(SEPARABLE)
rows = pytest.mark.parametrize(
    "row", [pytest.param(row, id=str(row), marks=[] if row in QUICK else [pytest.mark.slow]) for row in SEPARABLE]
)


def run(tx, params=W, grads=GRADS):
    """Parameters after each step, and the state, eagerly."""
    state, path = tx.init(params), []
    for g in grads:
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path, state


STACKED = jax.tree.map(lambda *g: np.stack(g), *GRADS)


def compiled(tx, params=W, inputs=STACKED, gradient=lambda params, given: given):
    """`follow` as one program."""
    return jax.tree.map(np.asarray, jax.jit(lambda *args: follow(tx, *args, gradient))(params, inputs))


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
    x = (1.5 * np.random.default_rng(1).normal(size=SHAPE)).astype(np.float32)
    steps = np.resize([0.0, 0.3, 2.0, 0.05, 100.0], SHAPE)
    each = np.unique(steps)
    proxes = jax.jit(lambda x, steps, each: (pen.prox(x, steps), jax.vmap(lambda step: pen.prox(x, step))(each)))
    whole, ones = map(np.asarray, proxes(x, steps, each))
    for step, one in zip(each, ones, strict=True):
        np.testing.assert_allclose(whole[steps == step], one[steps == step], rtol=1e-6)
        np.testing.assert_array_equal(whole[steps == step] == 0, one[steps == step] == 0)
    np.testing.assert_array_equal(whole[steps == 0], x[steps == 0])
    assert np.all(np.isfinite(whole))


@rows
def test_the_step_solves_its_problem(row):
    # 0 ∈ m + d(z − θ)/η + ∂λΩ(z); θ = 0, so that the kinks of anchors are met without rounding.
    pen, rng, eta, theta = row.noun(SHAPE), np.random.default_rng(2), 0.3, np.zeros(SHAPE)

    @jax.jit
    def distances(m, d):
        tx = jr.proxgen(pen, eta, *fixed(m / d, d))
        steps = theta + tx.update(m, tx.init(theta), theta)[0], pen.prox(theta - eta * m / d, eta)
        return [pen.optimality(z, m + d * (z - theta) / eta) for z in steps]

    exact, euclidean = map(float, distances(rng.normal(size=SHAPE), np.exp(rng.normal(size=SHAPE))))
    assert exact < 1e-13
    # The Euclidean prox of the same step solves another problem (of L0, every point is stationary in its support).
    assert isinstance(pen, jr.L0) or euclidean > 1e-3


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
    g, theta = np.array([0.5, -2.0, 1e-3, 0.0], dtype), np.ones(4, dtype)
    options = dict(b2=0.9, eps=1e-3, eps_root=1e-2)
    lam, rate = 1e-3, 1e-2
    adam, tx = optax.scale_by_adam(**options), jr.proximal_adam(rate, jr.L1(lam), **options)

    @jax.jit
    def second_steps(g, theta):
        state, ours = adam.init(theta), tx.init(theta)
        for t in (1, 2):
            scaled, state = adam.update(g / t, state)
            u, ours = tx.update(g / t, ours, theta)
        return scaled, optax.tree.bias_correction(state.mu, 0.9, state.count), u

    scaled, mean, u = map(np.asarray, second_steps(g, theta))
    threshold = u.astype(np.float64) - (-rate * scaled).astype(np.float64)  # −ηλ/d, all weights being > 0
    d = -rate * lam / threshold
    seen = mean != 0
    np.testing.assert_allclose(d[seen], mean[seen] / scaled[seen], rtol=tolerance)
    np.testing.assert_allclose(d[~seen], 1e-3 + 0.1, rtol=tolerance)


def test_with_no_metric_it_is_the_prox_after_sgd():
    pens = {"w": jr.L1(0.3) + jr.SquaredL2(0.2), "b": jr.MCP(0.5, 2.0)}
    rate = optax.linear_schedule(0.2, 0.05, 3)
    expected = run(optax.chain(optax.sgd(rate, momentum=0.5), jr.proximal(pens, rate)))[0]
    ones = jax.tree.map(np.ones_like, W)
    for trace, diagonal in (
        (optax.trace(0.5), lambda state: 1.0),
        (optax.trace(0.5), lambda state: ones),
    ):
        # The momentum of `optax.sgd` comes before the learning rate, too.
        chex.assert_trees_all_equal(run(jr.proxgen(pens, rate, trace, diagonal))[0], expected)


def test_schedules_are_followed_step_by_step():
    rates = np.array([0.3, 0.0, 0.1, 0.7])
    pens = lambda count: jr.L1(0.1 * (count + 1))
    path, _ = compiled(jr.proximal_adam(lambda t: jnp.asarray(rates)[t], pens, eps_root=1e-3))
    params, mu, nu = W, *[jax.tree.map(np.zeros_like, W)] * 2
    for t, g in enumerate(GRADS):
        mu = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mu, g)
        nu = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, nu, g)

        def soft_step(p, m, v, t=t):
            d = np.sqrt(v / (1 - 0.999 ** (t + 1)) + 1e-3) + 1e-8
            z = p - rates[t] * m / (1 - 0.9 ** (t + 1)) / d
            return np.sign(z) * np.maximum(np.abs(z) - rates[t] * 0.1 * (t + 1) / d, 0)

        params = jax.tree.map(soft_step, params, mu, nu)
        chex.assert_trees_all_close(jax.tree.map(lambda p, t=t: p[t], path), params, atol=1e-12)


def test_a_weight_without_gradients_becomes_zero_at_once():
    w = np.array([3.0, 3.0], np.float32)
    moved = compiled(jr.proximal_adam(1e-3, jr.L1(1e-3)), w, np.array([[0.0, 1.0]], np.float32))[0][0]
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
    return compiled(tx, np.zeros(d), np.arange(steps), lambda w, _: grad(w))[0][-1]


def test_proximal_adam_solves_the_lasso_and_adam_then_proximal_does_not():
    grad, lam, solution = lasso()
    pen, lr, steps = jr.L1(lam), 0.03, 3000
    w = train(jr.proximal_adam(lr, pen), grad, steps)
    g = grad(w)
    assert float(distance(pen, w, g)) < 1e-12
    zero = w == 0
    assert np.all(np.abs(g[zero]) <= lam)
    np.testing.assert_allclose(g[~zero], -lam * np.sign(w[~zero]), atol=1e-12)
    np.testing.assert_array_equal(zero, solution == 0)
    assert 0 < zero.sum() < len(zero)
    np.testing.assert_allclose(w, solution, atol=1e-9)

    wrong = train(optax.chain(optax.adam(lr), jr.proximal(pen, lr)), grad, steps)
    # It ends near least squares: no weight is 0, the distance is 0.59, and the residual is the whole of λ = 0.05.
    assert not np.any(wrong[solution == 0] == 0)
    assert np.max(np.abs(wrong - solution)) > 0.5
    assert float(distance(pen, wrong, grad(wrong))) > 0.9 * lam


def test_other_preconditioners_solve_the_same_problem():
    grad, lam, solution = lasso()
    rms = optax.scale_by_rms(decay=0.99, eps=1e-6)
    tx = jr.proxgen(jr.L1(lam), 0.02, rms, lambda s: jax.tree.map(lambda v: jnp.sqrt(v + 1e-6), s.nu))
    np.testing.assert_allclose(train(tx, grad, 4000), solution, atol=1e-9)


# ------------------------------------------------------------------ transformations of it


def test_vmap_over_lam_is_a_loop_jit_is_eager_and_hypergradients_are_finite():
    tx = lambda lam: jr.proximal_adam(0.1, {"w": jr.L1(lam), "b": None}, eps_root=1e-8)

    def loss(lam):
        w = follow(tx(lam), W, STACKED)[0]["w"][-1]
        return jnp.sum(jnp.sin(w)), w

    numbers, h = np.array([0.0, 0.1, 1.0, 50.0]), 1e-6
    lanes = jax.jit(jax.vmap(jax.value_and_grad(loss, has_aux=True)))(np.array([*numbers, h, 0.1 + h, 0.1 - h]))
    (values, batch), slopes = jax.tree.map(np.asarray, lanes)
    for i, lam in enumerate(numbers):
        np.testing.assert_allclose(batch[i], run(tx(lam))[0][-1]["w"], rtol=1e-9, atol=1e-12)
    assert np.all(batch[3] == 0)
    np.testing.assert_allclose(slopes[1], (values[5] - values[6]) / (2 * h), rtol=1e-5)
    np.testing.assert_allclose(slopes[0], (values[4] - values[0]) / h, rtol=1e-4)


def test_masks_and_frozen_parts_pass():
    pens = {"w": jr.L1(0.5), "b": None}
    whole, plain = (compiled(tx)[0] for tx in (jr.proximal_adam(0.1, pens), optax.sgd(0.1)))
    tx = optax.partition({"reg": jr.proximal_adam(0.1, pens), "plain": optax.sgd(0.1)}, {"w": "reg", "b": "plain"})
    split = compiled(tx)[0]
    chex.assert_trees_all_close(split, {"w": whole["w"], "b": plain["b"]}, rtol=1e-12)


def test_regularize_takes_it_as_the_optimizer():
    unit = jr.L2Ball(0.8)
    ours = compiled(jr.regularize(jr.proximal_adam(0.1, jr.L1(0.5)), 0.1, constraint=unit))[0]
    chex.assert_trees_all_equal(ours, compiled(optax.chain(jr.proximal_adam(0.1, jr.L1(0.5)), jr.projected(unit)))[0])


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
    tx = jr.decay(pen, 0.3, implicit=True)

    @jax.jit
    def moved(p, u):
        new = p + tx.update(u, tx.init(p), p)[0]
        return new, p + u - 0.3 * jax.grad(pen.value)(new)

    np.testing.assert_allclose(*moved(W["w"], GRADS[0]["w"]), atol=1e-12)


def test_explicit_decay_diverges_where_implicit_does_not():
    zeros = np.zeros((20, *W["w"].shape))
    decays = (jr.decay(jr.SquaredL2(3.0), 1.0, implicit=i) for i in (False, True))
    explicit, implicit = (compiled(tx, W["w"], zeros)[0][-1] for tx in decays)
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
    ours = compiled(optax.chain(optax.sgd(0.1), jr.projected(cons, momentum=0.9)))[0]
    chex.assert_trees_all_close(ours, compiled(optax.sgd(0.1, momentum=0.9))[0], rtol=1e-12)


def test_momentum_by_hand():
    betas, ball = np.array([0.9, 0.5, 0.0, 0.8]), jr.L2Ball(1.0, axis=0)
    cons = {"w": ball, "b": None}
    path, state = run(optax.chain(optax.sgd(0.3), jr.projected(cons, momentum=lambda t: jnp.asarray(betas)[t])))
    p, last = W, W
    for t, g in enumerate(GRADS):
        z = jax.tree.map(lambda p, q, g, t=t: p - 0.3 * g + betas[t] * (p - q), p, last, g)
        p, last = {"w": np.asarray(project(ball, z["w"])), "b": z["b"]}, p
        chex.assert_trees_all_close(path[t], p, atol=1e-12)
    chex.assert_trees_all_close(state[1].velocity, jax.tree.map(np.subtract, p, last), atol=1e-12)


def test_a_weight_leaves_the_boundary_when_its_gradient_turns():
    # Pushed out for 100 steps, in for 20: the buffer of optax needs 7 of them to turn.
    def inside_after(tx):
        path, _ = compiled(tx, np.zeros(1), np.repeat([[-1.0], [1.0]], (100, 20), axis=0))
        return np.flatnonzero(path[100:] < 1)[0] + 1

    box = jr.Box(-1.0, 1.0)
    assert inside_after(optax.chain(optax.sgd(0.1, momentum=0.9), jr.projected(box))) == 7
    assert inside_after(optax.chain(optax.sgd(0.1), jr.projected(box, momentum=0.9))) == 1


@pytest.mark.parametrize("update_dtype", [None, "param"])
def test_the_velocity_is_float32_at_least(update_dtype):
    params = {"w": np.ones((2, 2), jnp.bfloat16), "b": np.ones(2, np.float16), "c": np.ones((), np.float64)}
    tx = jr.projected({"w": jr.L2Ball(1.0), "b": None, "c": None}, momentum=0.9, update_dtype=update_dtype)
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(2):
        updates, new = update(params, state, params)
        assert [v.dtype for v in jax.tree.leaves(new.velocity)] == [jnp.float32, jnp.float64, jnp.float32]
        chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
        chex.assert_trees_all_equal_dtypes(updates, params if update_dtype else new.velocity)
        state = new
    with pytest.raises(TypeError, match="`projected` with `momentum` needs floating-point parameters, got int32"):
        tx.init({**params, "b": np.ones(2, np.int32)})


@pytest.mark.parametrize("momentum", [-0.1, float("nan")])
def test_bad_momentum(momentum):
    with pytest.raises(ValueError, match="`projected` needs `momentum` >= 0, got"):
        jr.projected(jr.L2Ball(1.0), momentum=momentum)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32], ids=str)
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_projected_lands_within_one_rounding(dtype, momentum):
    rng, scales = np.random.default_rng(1), (30.0, 3.0, 0.01)
    cons = {
        "l2": jr.L2Ball(0.7, axis=0),
        "l1": jr.L1Ball(0.7),
        "box": jr.Box(-0.2, 0.7),
        "one": jr.Simplex(0.75, axis=0),
    }
    draws = {name: rng.normal(size=(4, *SHAPE)) for name in cons}
    ws = {name: (30 * w).astype(dtype) for name, (w, *_) in draws.items()}
    us = {name: (np.reshape(scales, (3, 1, 1)) * u[1:]).astype(dtype) for name, u in draws.items()}
    path, states = compiled(jr.projected(cons, momentum=momentum), ws, us)
    for t, scale in enumerate(scales):
        moving = t > 0 and momentum is not None
        pushes = {name: momentum * states.velocity[name][t - 1].astype(np.float64) if moving else 0 for name in cons}
        asked = {name: ws[name].astype(np.float64) + us[name][t].astype(np.float64) + pushes[name] for name in cons}
        for name, target in project(cons, asked).items():
            new, target = path[name][t], np.asarray(target)
            assert new.dtype == dtype
            # half an ulp of the dtype at the new weight; float32 arithmetic at the size of what is projected
            half = float(jnp.finfo(dtype).eps) / 2 * np.abs(target)
            size = np.max(np.abs(ws[name].astype(np.float64))) + scale * 3 + np.max(np.abs(pushes[name]))
            assert np.all(np.abs(new.astype(np.float64) - target) <= half + 2**-22 * size), name
        ws = {name: path[name][t] for name in cons}


# ------------------------------------------------------------------ averages


def test_averages_of_a_convex_set_are_inside_and_of_a_sphere_are_not():
    ball, sphere, rng = jr.L2Ball(1.0), jr.Sphere(1.0), np.random.default_rng(3)
    for con, stays in ((ball, True), (sphere, False)):
        start, grads = np.array([1, 0, 0, 0], np.float32), (3 * rng.normal(size=(30, 4))).astype(np.float32)
        average = exact = start
        for w in compiled(optax.chain(optax.sgd(0.5), jr.projected(con)), start, grads)[0]:
            average = optax.incremental_update(w, average, 0.1)
            exact = np.asarray(project(con, optax.incremental_update(w, exact, 0.1)))
        assert (float(violation(con, average)) < 1e-6) is stays
        assert abs(np.linalg.norm(exact) - 1) < 1e-6 or stays
        assert float(violation(con, exact)) < 1e-6


def test_schedule_free_averages_are_projected_when_they_are_read():
    ball, draws = jr.L2Ball(1.0), np.random.default_rng(4).normal(size=(5, 2))
    tx = optax.contrib.schedule_free(optax.sgd(0.5), learning_rate=0.5)
    last = jax.tree.map(lambda x: x[-1], compiled(tx, np.array([1.0, 0.0]), draws, lambda w, draw: w - 3 + draw))
    average = optax.contrib.schedule_free_eval_params(*last[::-1])
    assert float(violation(ball, average)) > 0.1
    np.testing.assert_allclose(np.linalg.norm(project(ball, average)), 1.0)
