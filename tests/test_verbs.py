"""Optax's contract, over every verb."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import jaxreg as jr

NUMBER = 0.3


def penalties(lam=NUMBER):
    return {"w": jr.GroupL2(lam, axis=0), "b": None}


def separable(lam=NUMBER):
    return {"w": jr.L1(lam), "b": None}


def constraints(k=NUMBER):
    return {"w": jr.L2Ball(k, axis=0), "b": None}


# name -> (nouns of a strength, link from nouns)
VERBS = {
    "add_penalty_gradient": (penalties, jr.add_penalty_gradient),
    "decay": (penalties, lambda pens: jr.decay(pens, 0.1)),
    "proximal": (penalties, lambda pens: jr.proximal(pens, 0.1)),
    "cpr": (penalties, lambda pens: jr.cpr(pens, 0.2, 0.5)),
    "cpr inflection": (penalties, lambda pens: jr.cpr(pens, jr.inflection_point(every=1), 0.5)),
    "proximal_adam": (separable, lambda pens: jr.proximal_adam(0.1, pens)),
    "projected": (constraints, lambda cons: jr.projected(cons, update_dtype="param")),
    "projected momentum": (constraints, lambda cons: jr.projected(cons, update_dtype="param", momentum=0.9)),
    "multipliers": (constraints, lambda cons: jr.multipliers(cons, 0.1)),
    "multipliers damped": (
        constraints,
        lambda cons: jr.multipliers(cons, 0.1, augmentation=0.2, proportional=0.3, alternating=True),
    ),
    "multipliers certified": (
        constraints,
        lambda cons: jr.multipliers(
            cons, 0.1, proportional=0.3, ema=0.5, restart=True, log_space=True, start=0.1, certify=True
        ),
    ),
    "multipliers_for": (constraints, lambda cons: jr.multipliers_for(lambda p: jr.violation(cons, p), 0.1)),
}
# the contract is the same; `test_exact_steps.py` and `test_cpr.py` have their own tests of the state
SLOW = {"projected momentum", "multipliers damped", "cpr inflection", "multipliers certified"}
verbs = pytest.mark.parametrize("verb", [pytest.param(v, marks=pytest.mark.slow) if v in SLOW else v for v in VERBS])


def in_dtypes(*quick):
    """All dtypes, the quick ones in a quick run: what wrappers could break shows in the narrow ones."""
    every = (jnp.bfloat16, jnp.float32, jnp.float64)
    marks = {dtype: [] if dtype in quick else [pytest.mark.slow] for dtype in every}
    return pytest.mark.parametrize("dtype", [pytest.param(d, marks=marks[d]) for d in every], ids=str)


dtypes, narrow = in_dtypes(jnp.bfloat16, jnp.float32), in_dtypes(jnp.bfloat16)


def make(verb, number=NUMBER):
    nouns, link = VERBS[verb]
    return link(nouns(number))


def tree(seed, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return {"w": jnp.asarray(rng.normal(size=(4, 3)), dtype), "b": jnp.asarray(rng.normal(size=3), dtype)}


def assert_same(a, b):
    chex.assert_trees_all_equal_dtypes(a, b)
    chex.assert_trees_all_equal(a, b)


def dtypes_of(state):
    return jax.tree.map(lambda x: (x.shape, x.dtype), state)


@verbs
def test_params_none_raises_optax_message(verb):
    tx, params = make(verb), tree(0)
    with pytest.raises(ValueError) as ours:
        tx.update(params, tx.init(params))
    decayed = optax.add_decayed_weights(0.1)
    with pytest.raises(ValueError) as theirs:
        decayed.update(params, decayed.init(params), None)
    assert str(ours.value) == str(theirs.value)


@verbs
def test_extra_args_pass(verb):
    tx, params = make(verb), tree(0)
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    with_extra = tx.update(tree(1), tx.init(params), params, value=1.0, anything="else")
    assert_same(with_extra, tx.update(tree(1), tx.init(params), params))


@verbs
@dtypes
def test_dtypes_and_structure_are_stable_and_nothing_recompiles(verb, dtype):
    tx, params = make(verb), tree(0, dtype)
    traces = []

    @jax.jit
    def step(updates, state, params):
        traces.append(1)
        return tx.update(updates, state, params)

    state = tx.init(params)
    for seed in range(3):
        updates, new = step(tree(seed, dtype), state, params)
        chex.assert_trees_all_equal_dtypes(updates, params)
        assert jax.tree.structure(new) == jax.tree.structure(state)
        assert dtypes_of(new) == dtypes_of(state)
        state = new
    assert len(traces) == 1
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(state))


@verbs
@dtypes
def test_jit_is_eager(verb, dtype):
    tx, params = make(verb), tree(0, dtype)
    eager, jitted = (
        tx.update(tree(1, dtype), tx.init(params), params),
        jax.jit(tx.update)(tree(1, dtype), tx.init(params), params),
    )
    chex.assert_trees_all_close(eager, jitted, rtol=4 * float(jnp.finfo(dtype).eps), atol=1e-7)


@verbs
@narrow
def test_scan_and_cond(verb, dtype):
    tx, params = optax.chain(make(verb)), tree(0, dtype)

    def step(carry, t):
        params, state = carry
        updates, state = jax.lax.cond(
            t % 2 == 0, lambda: tx.update(tree(1, dtype), state, params), lambda: (tree(2, dtype), state)
        )
        return (optax.apply_updates(params, updates), state), None

    (scanned, state), _ = jax.lax.scan(step, (params, tx.init(params)), jnp.arange(4))
    chex.assert_trees_all_equal_shapes_and_dtypes(scanned, params)
    looped, once = (params, tx.init(params)), jax.jit(step)
    for t in range(4):
        looped, _ = once(looped, jnp.asarray(t))
    chex.assert_trees_all_close((scanned, state), looped, rtol=0.01 if dtype == jnp.bfloat16 else 1e-5)


@verbs
@narrow
def test_multi_steps_and_apply_if_finite(verb, dtype):
    params = tree(0, dtype)
    for wrapper in (lambda tx: optax.MultiSteps(tx, 2), lambda tx: optax.apply_if_finite(tx, 3)):
        tx = wrapper(make(verb))
        state = tx.init(params)
        for seed in range(4):
            updates, new = jax.jit(tx.update)(tree(seed, dtype), state, params)
            assert dtypes_of(new) == dtypes_of(state)
            state = new
            params = optax.apply_updates(params, updates)
    chex.assert_tree_all_finite(params)


@verbs
@dtypes
def test_inject_hyperparams(verb, dtype):
    nouns, link = VERBS[verb]
    params = tree(0, dtype)
    injected = optax.inject_hyperparams(lambda number: link(nouns(number)), hyperparam_dtype=jnp.float32)(number=NUMBER)
    state = injected.init(params)
    updates, new = jax.jit(injected.update)(tree(1, dtype), state, params)
    assert dtypes_of(new) == dtypes_of(state)
    expected, _ = make(verb).update(tree(1, dtype), make(verb).init(params), params)
    chex.assert_trees_all_close(updates, expected, rtol=4 * float(jnp.finfo(dtype).eps), atol=1e-6)


def test_inject_hyperparams_on_the_verbs_themselves():
    params = tree(0)
    for injected, plain in (
        (optax.inject_hyperparams(jr.decay)(pens=penalties(), learning_rate=0.1), jr.decay(penalties(), 0.1)),
        (optax.inject_hyperparams(jr.proximal)(penalties(), 0.1), jr.proximal(penalties(), 0.1)),
        (optax.inject_hyperparams(jr.cpr)(penalties(), 0.2, 0.5), jr.cpr(penalties(), 0.2, 0.5)),
        (optax.inject_hyperparams(jr.projected)(constraints()), jr.projected(constraints())),
        (optax.inject_hyperparams(jr.multipliers)(constraints(), 0.1), jr.multipliers(constraints(), 0.1)),
    ):
        state, other = injected.init(params), plain.init(params)
        for seed in range(3):
            updates, new = injected.update(tree(seed), state, params)
            expected, other = plain.update(tree(seed), other, params)
            assert dtypes_of(new) == dtypes_of(state)
            state = new
            chex.assert_trees_all_close(updates, expected, rtol=1e-6)


@verbs
def test_masked_and_partition(verb):
    _, link = VERBS[verb]
    single = VERBS[verb][0]()["w"]
    params, updates = tree(0), tree(1)
    expected, _ = make(verb).update(updates, make(verb).init(params), params)
    if verb == "proximal_adam":  # the one that has a step for what has no penalty
        expected["b"] = updates["b"]

    for nouns in (single, VERBS[verb][0]()):  # one object, and a tree made for the whole of the parameters
        tx = optax.masked(link(nouns), {"w": True, "b": False})
        state = tx.init(params)
        masked, new = tx.update(updates, state, params)
        assert_same(masked, expected)
        assert dtypes_of(new) == dtypes_of(state)

        tx = optax.partition({"reg": link(nouns), "plain": optax.identity()}, {"w": "reg", "b": "plain"})
        partitioned, _ = jax.jit(tx.update)(updates, tx.init(params), params)
        chex.assert_trees_all_close(partitioned, expected, rtol=1e-5)


def test_masking_a_whole_subtree():
    params = {"body": tree(0), "head": tree(1)}
    pens = jr.by_path(params, {"*/w": jr.SquaredL2(1.0)})
    tx = optax.masked(jr.decay(pens, 0.5), {"body": True, "head": False})
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zero, tx.init(params), params)
    np.testing.assert_allclose(updates["body"]["w"], -0.5 * params["body"]["w"])
    np.testing.assert_array_equal(updates["head"]["w"], 0)


@pytest.mark.parametrize("verb", [v for v in VERBS if VERBS[v][0] is penalties])  # a radius of 0 is not "off"
@pytest.mark.parametrize("bad", [False, True])
def test_traced_zero_is_literal_zero(verb, bad):
    nouns, link = VERBS[verb]
    params, updates = tree(0), tree(1)
    if bad:
        params["w"] = params["w"].at[0, 0].set(jnp.inf)

    def run(lam):
        tx = link(nouns(lam))
        return tx.update(updates, tx.init(params), params)[0]

    assert_same(run(0.0), updates)
    assert_same(jax.jit(run)(0.0), updates)


def test_gradient_in_lam_survives_zero():
    params, updates = tree(0, jnp.float64), tree(1, jnp.float64)
    for verb in ("add_penalty_gradient", "decay", "proximal"):

        def f(lam, verb=verb):
            tx = make(verb, lam)
            return jnp.sum(jnp.sin(tx.update(updates, tx.init(params), params)[0]["w"]))

        values, slopes = jax.jit(jax.vmap(jax.value_and_grad(f)))(jnp.array([0.0, 1e-6]))
        np.testing.assert_allclose(slopes[0], (values[1] - values[0]) / 1e-6, rtol=1e-4)


@verbs
def test_schedule_of_the_nouns(verb):
    nouns, link = VERBS[verb]
    if verb == "multipliers_for":  # which takes functions, of the count too
        at = lambda cons, count: cons(count) if callable(cons) else cons
        link = lambda cons: jr.multipliers_for(lambda p, count: jr.violation(at(cons, count), p), 0.1)
    counts = []

    def schedule(count):
        counts.append(count)
        return nouns(0.1 * (count + 1))

    tx, params = link(schedule), tree(0)
    state, plain_state = tx.init(params), None
    assert int(counts[0]) == 0
    for t in range(3):
        updates, state = tx.update(tree(1), state, params)
        plain = link(nouns(0.1 * (t + 1)))
        plain_state = plain.init(params) if plain_state is None else plain_state
        expected, plain_state = plain.update(tree(1), plain_state, params)
        chex.assert_trees_all_close(updates, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("verb", [jr.decay, jr.proximal])
def test_schedule_of_the_learning_rate(verb):
    rate = optax.linear_schedule(0.1, 0.3, 2)
    params, tx = tree(0), verb(penalties(), rate)
    state = tx.init(params)
    for t in range(3):
        updates, state = tx.update(tree(1), state, params)
        plain = verb(penalties(), 0.1 * (t + 1))
        chex.assert_trees_all_close(updates, plain.update(tree(1), plain.init(params), params)[0], atol=1e-6)


def test_schedule_of_the_dual_rate():
    tx, params = jr.multipliers(constraints(), lambda count: jnp.where(count < 1, 0.0, 1.0)), tree(0)
    _, state = tx.update(tree(1), tx.init(params), params)
    assert not np.any(state.alpha["w"])
    _, state = tx.update(tree(1), state, params)
    assert np.all(np.asarray(state.alpha["w"]) > 0)


@verbs
@dtypes
def test_strong_float32_strength_keeps_the_dtype_and_is_not_rounded_away(verb, dtype):
    params, updates = tree(0, dtype), jax.tree.map(jnp.zeros_like, tree(0, dtype))
    tx = make(verb, jnp.asarray(NUMBER, jnp.float32))
    chex.assert_trees_all_equal_dtypes(tx.update(updates, tx.init(params), params)[0], params)


def test_small_lam_survives_bf16():
    # 1 − 1e-4 is 1 in bf16: a product of rounded numbers would not decay at all.
    params = {"w": jnp.full((4, 3), 100.0, jnp.bfloat16)}
    tx = jr.decay(jr.SquaredL2(jnp.asarray(1e-4, jnp.float32)), 1.0)
    updates, _ = tx.update({"w": jnp.zeros((4, 3), jnp.bfloat16)}, tx.init(params), params)
    np.testing.assert_allclose(np.asarray(updates["w"], np.float32), -0.01, rtol=2**-8)


@verbs
def test_vmap_over_the_strength_is_a_loop(verb):
    params = tree(0)

    def run(number):
        tx = make(verb, number)
        state = tx.init(params)
        p = params
        for seed in range(3):
            updates, state = tx.update(tree(seed), state, p)
            p = optax.apply_updates(p, jax.tree.map(lambda u: -0.1 * u, updates))
        return p

    numbers = jnp.asarray([0.0, 0.1, 1.0, 10.0], jnp.float32)
    batch, alone = jax.jit(jax.vmap(run))(numbers), jax.jit(run)
    for i, number in enumerate(numbers):
        chex.assert_trees_all_close(jax.tree.map(lambda x, i=i: x[i], batch), alone(number), rtol=1e-5, atol=1e-6)


def test_checkpoints_continue_bit_identically(tmp_path):
    params, links = tree(0), {verb: make(verb) for verb in VERBS}
    states = {verb: tx.update(tree(1), tx.init(params), params)[1] for verb, tx in links.items()}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "states", states)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "states", jax.eval_shape(lambda: states))
    for verb, tx in links.items():
        assert_same(tx.update(tree(2), restored[verb], params), tx.update(tree(2), states[verb], params))


@verbs
def test_state_can_be_donated(verb):
    tx, params = make(verb), tree(0)
    step = jax.jit(tx.update, donate_argnums=1)
    _, state = step(tree(1), tx.init(params), params)
    step(tree(1), state, params)


@pytest.mark.parametrize("verb", [v for v in VERBS if v != "proximal_adam"])  # nor does optax's own Adam
@dtypes
def test_strict_promotion(verb, dtype):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        tx, params = make(verb), tree(0, dtype)
        state = jax.eval_shape(tx.init, params)  # what promotes is refused while tracing
        jax.eval_shape(tx.update, tree(1, dtype), state, params)


@verbs
def test_python_float_parameters(verb):
    # a scalar is its own group; optax takes it too
    nouns, link = VERBS[verb]
    noun = jr.L2Ball(0.5) if nouns is constraints else jr.SquaredL2(0.5)
    tx = link(noun)
    updates, _ = tx.update(-0.25, tx.init(1.0), 1.0)
    assert np.isfinite(updates)


@verbs
def test_nan_updates_stay_visible(verb):
    for noun in (jr.L1(0.1), jr.GroupL2(0.1), jr.ElasticNet(0.1, 0.5), jr.SquaredL2(0.1)):
        cons = (jr.L2Ball(1.0), jr.L1Ball(1.0), jr.Box(-1.0, 1.0), jr.NonNegative())
        if VERBS[verb][0] is separable and not noun.separable:
            continue
        for n in cons if VERBS[verb][0] is constraints else (noun,):
            tx, p = VERBS[verb][1](n), jnp.asarray([0.5, 0.6])
            updates, _ = tx.update(jnp.asarray([jnp.nan, 1.0]), tx.init(p), p)
            assert np.isnan(optax.apply_updates(p, updates)[0])


@pytest.mark.parametrize("what", ["rate", "augmentation", "proportional", "bound"])
def test_hypergradients_through_multipliers(what):
    target = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))

    def fit(value):
        numbers = {"rate": 0.1, "augmentation": 0.1, "proportional": 0.1, "bound": 0.2, what: value}
        link = jr.multipliers(
            jr.L2Ball(numbers["bound"], axis=0),
            numbers["rate"],
            augmentation=numbers["augmentation"],
            proportional=numbers["proportional"],
        )
        tx = optax.chain(link, optax.sgd(0.1))

        def step(carry, _):
            w, state = carry
            updates, state = tx.update(w - target, state, w)
            return (optax.apply_updates(w, updates), state), None

        w = jnp.ones((4, 3))
        return jnp.sum(jax.lax.scan(step, (w, tx.init(w)), None, 12)[0][0] ** 2)

    h = 1e-6
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(fit)))(jnp.array([0.0, h, 0.13, 0.13 + h, 0.13 - h]))
    np.testing.assert_allclose(slopes[0], (values[1] - values[0]) / h, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(slopes[2], (values[3] - values[4]) / (2 * h), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_hypergradients_through_penalties():
    target = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    for verb in ("add_penalty_gradient", "decay", "proximal"):
        for noun in (jr.L1, jr.SquaredL2, lambda lam: jr.GroupL2(lam, axis=0), lambda lam: jr.ElasticNet(lam, 0.5)):

            def fit(lam, verb=verb, noun=noun):
                link = VERBS[verb][1](noun(lam))
                sgd = optax.sgd(0.1)
                tx = optax.chain(link, sgd) if verb == "add_penalty_gradient" else optax.chain(sgd, link)
                w = target + 1
                state = tx.init(w)
                for _ in range(5):
                    updates, state = tx.update(w - target, state, w)
                    w = optax.apply_updates(w, updates)
                return jnp.sum(w**2)

            slope = jax.jit(jax.grad(fit))
            np.testing.assert_allclose(slope(0.13), (fit(0.13 + 1e-6) - fit(0.13 - 1e-6)) / 2e-6, rtol=1e-5)
            np.testing.assert_allclose(slope(0.0), (fit(1e-6) - fit(0.0)) / 1e-6, rtol=1e-4)


# ------------------------------------------------------------------ refusals


class Smooth(jr.Penalty):
    """A penalty without a prox."""

    def measure(self, x):
        return jnp.sum(x**4)


class Count(jr.Penalty):
    """A penalty whose gradient says nothing."""

    differentiable = False

    def measure(self, x):
        return jnp.sum(x != 0).astype(x.dtype)

    def prox(self, x, step):
        return jnp.where(x**2 > 2 * step, x, 0)


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda f: jr.proximal(f(Smooth()), 0.1), r"`proximal` needs .*`prox`; `Smooth` has none.*`decay`"),
        (lambda f: jr.decay(f(Count()), 0.1), r"`decay` needs .*gradient.*`Count`.*`proximal`"),
        (lambda f: jr.add_penalty_gradient(f(Count())), r"`add_penalty_gradient` needs .*`Count`.*`proximal`"),
        (
            lambda f: jr.projected(f(jr.SublevelSet(jr.ElasticNet(1.0, 0.5), 1.0))),
            r"`projected` needs .*SublevelSet\(ElasticNet\)` has none. Use `multipliers`",
        ),
        (lambda f: jr.projected(f(jr.Equality(jr.L2Ball(1.0)))), r"`Equality\(L2Ball\)` has none. Use `multipliers`"),
        (lambda f: jr.projected(f(jr.L1(1.0))), r"`projected` needs constraints.*got L1.*`SublevelSet`"),
        (lambda f: jr.multipliers(f(jr.L1(1.0)), 0.1), r"`multipliers` needs constraints.*got L1"),
        (lambda f: jr.decay(f(jr.L2Ball(1.0)), 0.1), r"`decay` needs penalties.*got L2Ball.*`projected`"),
    ],
)
def test_refused_when_built(build, message, scheduled):
    wrap = (lambda noun: lambda count: noun) if scheduled else (lambda noun: noun)
    with pytest.raises(TypeError, match=message):
        build(wrap)


@pytest.mark.parametrize(
    "build",
    [
        lambda: jr.decay(penalties(), "0.1"),
        lambda: jr.proximal(penalties(), None),
        lambda: jr.multipliers(constraints(), 0.1, augmentation="0.1"),
    ],
)
def test_what_is_no_rate(build):
    with pytest.raises(TypeError, match="needs a number"):
        build()


@pytest.mark.parametrize("rate", [-0.1, float("nan")])
def test_literal_rates_are_checked(rate):
    for build in (
        lambda: jr.decay(penalties(), rate),
        lambda: jr.proximal(penalties(), rate),
        lambda: jr.multipliers(constraints(), rate),
        lambda: jr.multipliers(constraints(), 0.1, augmentation=rate),
        lambda: jr.multipliers(constraints(), 0.1, proportional=rate),
    ):
        with pytest.raises(ValueError, match=r"needs `.*` >= 0, got"):
            build()


def test_an_axis_out_of_range_is_refused_at_init():
    for link in (
        jr.proximal(jr.L1(1.0, axis=5), 0.1),
        jr.decay(jr.SquaredL2(1.0, axis=5), 0.1),
        jr.projected(jr.L2Ball(1.0, axis=5)),
        jr.multipliers(jr.L2Ball(1.0, axis=5), 0.1),
    ):
        with pytest.raises(ValueError, match=r"that have axis 5, got shape \(3,\)"):
            link.init(jnp.ones(3))


@verbs
def test_integer_parameters_are_refused_by_name(verb):
    params = {"w": jnp.ones((4, 3), int), "b": jnp.ones(3)}
    with pytest.raises(TypeError, match="needs floating-point parameters, got int64 of shape") as error:
        make(verb).init(params)
    assert any("at 'w'" in note for note in error.value.__notes__)


# ------------------------------------------------------------------ projected: rounding


@pytest.mark.usefixtures("optimized")
def test_projected_returns_the_update_itself_inside():
    rng = np.random.default_rng(0)
    for dtype in (jnp.float32, jnp.float64, jnp.bfloat16):
        p = jnp.asarray(rng.normal(size=(50, 40)), dtype)
        u = jnp.asarray(1e-5 * rng.normal(size=(50, 40)), dtype)
        tx = jr.projected(jr.L2Ball(7.0, axis=0))
        moved, _ = tx.update(u, tx.init(p), p)
        inside = np.linalg.norm(np.asarray(p, np.float64) + np.asarray(u, np.float64), axis=0) < 6.999
        assert 5 < inside.sum() < 40
        np.testing.assert_array_equal(np.asarray(moved, np.float64)[:, inside], np.asarray(u, np.float64)[:, inside])
        assert moved.dtype == (jnp.float32 if dtype == jnp.bfloat16 else dtype)


@pytest.mark.usefixtures("optimized")
def test_projected_is_the_identity_inside_under_jit_in_bf16():
    # XLA may keep the excess precision of a bf16 update that is widened at once.
    rng = np.random.default_rng(0)
    p, g = (jnp.asarray(rng.normal(size=(64, 64)), jnp.bfloat16) for _ in range(2))
    plain, ball = optax.sgd(0.0137), optax.chain(optax.sgd(0.0137), jr.projected(jr.L2Ball(1e3)))
    results = []
    for tx in (plain, ball):
        step = jax.jit(lambda p, g, tx=tx: optax.apply_updates(p, tx.update(g, tx.init(p), p)[0]))
        results.append(np.asarray(step(p, g), np.float32))
    np.testing.assert_array_equal(*results)


def test_projected_in_bf16_from_far_outside():
    p = {"w": jnp.asarray([3000.0, 4000.0], jnp.bfloat16)}
    tx = jr.projected(jr.L2Ball(1.0))
    updates, _ = tx.update({"w": jnp.zeros(2, jnp.bfloat16)}, tx.init(p), p)
    w = optax.apply_updates(p, updates)["w"]
    assert w.dtype == jnp.bfloat16
    w = np.asarray(w, np.float64)
    assert np.linalg.norm(w) <= 1 + 2**-7
    np.testing.assert_allclose(w / np.linalg.norm(w), [0.6, 0.8], atol=2**-7)
    # update_dtype="param" cannot do it; `project` after apply_updates is correctly rounded, always.
    coarse, _ = jr.projected(jr.L2Ball(1.0), update_dtype="param").update(
        {"w": jnp.zeros(2, jnp.bfloat16)}, tx.init(p), p
    )
    assert coarse["w"].dtype == jnp.bfloat16
    exact = jr.project(jr.L2Ball(1.0), optax.apply_updates(p, coarse))
    assert np.linalg.norm(np.asarray(exact["w"], np.float64)) <= 1 + 2**-7
    np.testing.assert_array_equal(jr.project(jr.L2Ball(1.0), p)["w"], jnp.asarray([0.6, 0.8], jnp.bfloat16))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_projected_lands_within_one_rounding(dtype):
    rng = np.random.default_rng(1)
    for scale in (1.0, 30.0, 1000.0):
        p = jnp.asarray(scale * rng.normal(size=(20, 8)), dtype)
        u = jnp.asarray(scale * rng.normal(size=(20, 8)), dtype)
        ball = jr.L2Ball(1.0, axis=0)
        tx = jr.projected(ball)
        w = optax.apply_updates(p, tx.update(u, tx.init(p), p)[0])
        target = np.asarray(ball.project(p.astype(jnp.float64) + u.astype(jnp.float64)))
        # half an ulp of the float32 sum at the larger of old and new, half an ulp of the leaf's dtype at the new
        larger = np.maximum(np.abs(np.asarray(p, np.float64)), np.abs(target))
        slack = 2**-23 * larger + float(jnp.finfo(dtype).eps) * np.abs(target)
        assert np.all(np.abs(np.asarray(w, np.float64) - target) <= slack + 1e-7)


def test_update_dtype_is_checked():
    with pytest.raises(ValueError, match='`projected` needs `update_dtype` None or "param"'):
        jr.projected(jr.L2Ball(1.0), update_dtype="float32")


# ------------------------------------------------------------------ against optax, and the rule of order


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.float64, 1e-12)])
@pytest.mark.parametrize("which", ["adamw", "add_decayed_weights"])
def test_equals_optax(dtype, tolerance, which):
    lam, lr = 0.1, 0.01
    ours, theirs = {
        "adamw": (optax.chain(optax.adam(lr), jr.decay(jr.SquaredL2(lam), lr)), optax.adamw(lr, weight_decay=lam)),
        "add_decayed_weights": (
            optax.chain(jr.add_penalty_gradient(jr.SquaredL2(lam)), optax.adam(lr)),
            optax.chain(optax.add_decayed_weights(lam), optax.adam(lr)),
        ),
    }[which]

    def train(tx):
        def step(carry, t):
            params, state = carry
            grads = jax.grad(lambda p: jnp.sum(jnp.cos(p["w"] + t)) + jnp.sum(p["b"] ** 2))(params)
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        params = tree(0, dtype)
        return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(100, dtype=dtype))[1]

    chex.assert_trees_all_close(train(ours), train(theirs), atol=tolerance, rtol=0)


def test_regularize_is_the_chain_written_out():
    pens, cons, lr = penalties(), constraints(), 0.1
    duals = jr.multipliers(cons, 0.2)
    params = tree(0)
    for kwargs, links in (
        ({}, []),
        ({"gradient": pens}, ["gradient"]),
        ({"gradient": pens, "decay": pens, "proximal": pens, "constraint": cons, "multipliers": duals}, "all"),
        ({"constraint": jr.projected(cons, update_dtype="param")}, ["constraint"]),
    ):
        written = {
            "gradient": jr.add_penalty_gradient(pens),
            "multipliers": duals,
            "optimizer": optax.adam(lr),
            "decay": jr.decay(pens, lr),
            "proximal": jr.proximal(pens, lr),
            "constraint": jr.projected(cons),
        }
        chain = optax.chain(*(v for k, v in written.items() if links == "all" or k in links or k == "optimizer"))
        ours = jr.regularize(optax.adam(lr), lr, **kwargs)
        a, b = params, params
        sa, sb = ours.init(a), chain.init(b)
        for seed in range(5):
            ua, sa = jax.jit(ours.update)(tree(seed), sa, a)
            ub, sb = jax.jit(chain.update)(tree(seed), sb, b)
            a, b = optax.apply_updates(a, ua), optax.apply_updates(b, ub)
        assert_same((a, sa), (b, sb))


def test_regularize_refuses():
    with pytest.raises(TypeError, match="`regularize` needs a gradient transformation as `multipliers`, such as"):
        jr.regularize(optax.sgd(0.1), 0.1, multipliers=constraints())
    with pytest.raises(TypeError, match="`regularize` needs a gradient transformation as `optimizer`"):
        jr.regularize(0.1, 0.1)


def test_proximal_gives_exact_zeros_and_gradient_steps_do_not():
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=50), jnp.float32)}
    pens = jr.L1(1.0)
    for tx, zeros in (
        (optax.chain(optax.sgd(0.1), jr.proximal(pens, 0.1)), True),
        (optax.chain(jr.add_penalty_gradient(pens), optax.sgd(0.1)), False),
    ):
        p, state = params, tx.init(params)
        for _ in range(40):
            updates, state = tx.update(jax.tree.map(jnp.zeros_like, p), state, p)
            p = optax.apply_updates(p, updates)
        assert bool(jnp.any(p["w"] == 0)) == zeros
