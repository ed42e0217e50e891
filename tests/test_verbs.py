"""Optax's contract, over every verb."""

import functools

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
    return {k: jnp.asarray(rng.normal(size=shape).astype(dtype)) for k, shape in (("w", (4, 3)), ("b", 3))}


def trees(steps, dtype=jnp.float32):
    """The trees of the first seeds, stacked for `scan`."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *(tree(seed, dtype) for seed in range(steps)))


@functools.cache
def program(verb, dtype):
    """The verb, its update as one program to which states are donated, and a list that grows with each trace."""
    tx, traces = make(verb), []

    def update(updates, state, params):
        traces.append(dtype)
        return tx.update(updates, state, params)

    return tx, jax.jit(update, donate_argnums=1), traces


def rolled(tx, params, updates):
    """The parameters and the state after one step for each of the stacked updates."""

    def step(carry, updates):
        params, state = carry
        updates, new = tx.update(updates, state, params)
        assert dtypes_of(new) == dtypes_of(state)
        return (optax.apply_updates(params, updates), new), None

    return jax.lax.scan(step, (params, tx.init(params)), updates)[0]


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
    params = tree(0, dtype)
    tx, step, traces = program(verb, dtype)
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
    (tx, step, _), params = program(verb, dtype), tree(0, dtype)
    eager, jitted = (update(tree(1, dtype), tx.init(params), params) for update in (tx.update, step))
    chex.assert_trees_all_close(eager, jitted, rtol=4 * float(jnp.finfo(dtype).eps), atol=1e-7)


@verbs
@narrow
def test_scan_and_cond(verb, dtype):
    (tx, once, _), params, one, two = program(verb, dtype), tree(0, dtype), tree(1, dtype), tree(2, dtype)
    chained = optax.chain(tx)

    def step(carry, t):
        params, state = carry
        updates, state = jax.lax.cond(t % 2 == 0, lambda: chained.update(one, state, params), lambda: (two, state))
        return (optax.apply_updates(params, updates), state), None

    (scanned, (state,)), _ = jax.lax.scan(step, (params, chained.init(params)), np.arange(4))
    chex.assert_trees_all_equal_shapes_and_dtypes(scanned, params)
    looped = params, tx.init(params)
    for t in range(4):
        updates, last = (two, looped[1]) if t % 2 else once(one, looped[1], looped[0])
        looped = optax.apply_updates(looped[0], updates), last
    chex.assert_trees_all_close((scanned, state), looped, rtol=0.01 if dtype == jnp.bfloat16 else 1e-5)


@verbs
@narrow
def test_multi_steps_and_apply_if_finite(verb, dtype):
    @jax.jit
    def run(params, updates):
        wrapped = optax.MultiSteps(make(verb), 2), optax.apply_if_finite(make(verb), 3)
        return [rolled(tx, params, updates)[0] for tx in wrapped]

    moved = run(tree(0, dtype), trees(4, dtype))
    chex.assert_tree_all_finite(moved)
    for params in moved:
        chex.assert_trees_all_equal_dtypes(params, tree(0, dtype))


@verbs
@dtypes
def test_inject_hyperparams(verb, dtype):
    nouns, link = VERBS[verb]
    (tx, step, _), params, updates = program(verb, dtype), tree(0, dtype), tree(1, dtype)
    injected = optax.inject_hyperparams(lambda number: link(nouns(number)), hyperparam_dtype=jnp.float32)(number=NUMBER)
    state = injected.init(params)
    moved, new = jax.jit(injected.update)(updates, state, params)
    assert dtypes_of(new) == dtypes_of(state)
    expected, _ = step(updates, tx.init(params), params)
    chex.assert_trees_all_close(moved, expected, rtol=4 * float(jnp.finfo(dtype).eps), atol=1e-6)


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
        state = tx.init(params)
        partitioned, new = tx.update(updates, state, params)
        assert_same(partitioned, expected)
        assert dtypes_of(jax.eval_shape(tx.update, updates, state, params)) == dtypes_of((partitioned, new))
    compiled, _ = jax.jit(tx.update)(updates, state, params)
    chex.assert_trees_all_close(compiled, expected, rtol=1e-5)


def test_masking_a_whole_subtree():
    params = {"body": tree(0), "head": tree(1)}
    pens = jr.by_path(params, {"*/w": jr.SquaredL2(1.0)})
    tx = optax.masked(jr.decay(pens, 0.5), {"body": True, "head": False})
    zero = jax.tree.map(np.zeros_like, params)
    updates, _ = tx.update(zero, tx.init(params), params)
    np.testing.assert_allclose(updates["body"]["w"], -0.5 * np.asarray(params["body"]["w"]))
    np.testing.assert_array_equal(updates["head"]["w"], 0)


@pytest.mark.parametrize("verb", [v for v in VERBS if VERBS[v][0] is penalties])  # a radius of 0 is not "off"
def test_traced_zero_is_literal_zero(verb):
    nouns, link = VERBS[verb]
    params, updates = tree(0), tree(1)
    bad = params | {"w": np.where(np.arange(12).reshape(4, 3) == 0, np.float32(np.inf), params["w"])}

    def run(lam, params):
        tx = link(nouns(lam))
        return tx.update(updates, tx.init(params), params)[0]

    traced = jax.jit(run)
    for p in (params, bad):
        assert_same(run(0.0, p), updates)
        assert_same(traced(0.0, p), updates)


def test_gradient_in_lam_survives_zero():
    params, updates = tree(0, jnp.float64), tree(1, jnp.float64)

    def f(lam, verb):
        tx = make(verb, lam)
        return jnp.sum(jnp.sin(tx.update(updates, tx.init(params), params)[0]["w"]))

    @jax.jit
    @jax.vmap
    def both(lam):
        return {v: jax.value_and_grad(f)(lam, v) for v in ("add_penalty_gradient", "decay", "proximal")}

    for verb, pair in both(np.array([0.0, 1e-6])).items():
        values, slopes = map(np.asarray, pair)
        np.testing.assert_allclose(slopes[0], (values[1] - values[0]) / 1e-6, rtol=1e-4, err_msg=verb)


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
    params, updates = tree(0), trees(3)

    def run(number):
        return rolled(optax.chain(make(verb, number), optax.scale(-0.1)), params, updates)[0]

    numbers = np.asarray([0.0, 0.1, 1.0, 10.0], np.float32)
    batch, loop = jax.jit(lambda numbers: (jax.vmap(run)(numbers), jax.lax.map(run, numbers)))(numbers)
    chex.assert_trees_all_close(batch, loop, rtol=1e-5, atol=1e-6)


def test_checkpoints_continue_bit_identically(tmp_path):
    params, programs = tree(0), {verb: program(verb, jnp.float32) for verb in VERBS}
    states = {verb: step(tree(1), tx.init(params), params)[1] for verb, (tx, step, _) in programs.items()}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "states", states)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "states", jax.eval_shape(lambda: states))
    restored = jax.tree.map(np.asarray, restored)  # bound to no device, as the states are: for the same programs
    for verb, (_, step, _) in programs.items():
        assert_same(step(tree(2), restored[verb], params), step(tree(2), states[verb], params))


@verbs
def test_state_can_be_donated(verb):
    (tx, step, _), params = program(verb, jnp.float32), tree(0)
    _, state = step(tree(1), tx.init(params), params)
    step(tree(1), state, params)
    assert any(x.is_deleted() for x in jax.tree.leaves(state))


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
    updates, _ = jax.jit(lambda: tx.update(-0.25, tx.init(1.0), 1.0))()
    assert np.isfinite(updates)


@verbs
def test_nan_updates_stay_visible(verb):
    nouns, link = VERBS[verb]
    every = [jr.L1(0.1), jr.GroupL2(0.1), jr.ElasticNet(0.1, 0.5), jr.SquaredL2(0.1)]
    if nouns is separable:
        every = [pen for pen in every if pen.separable]
    if nouns is constraints:
        every = [jr.L2Ball(1.0), jr.L1Ball(1.0), jr.Box(-1.0, 1.0), jr.NonNegative()]

    @jax.jit
    def moved(u, p):
        return [optax.apply_updates(p, tx.update(u, tx.init(p), p)[0]) for tx in map(link, every)]

    for noun, w in zip(every, moved(np.array([np.nan, 1.0]), np.array([0.5, 0.6])), strict=True):
        assert np.isnan(np.asarray(w)[0]), noun


def test_hypergradients_through_multipliers():
    target = np.random.default_rng(0).normal(size=(4, 3))

    def fit(numbers):
        rate, augmentation, proportional, bound = numbers
        link = jr.multipliers(jr.L2Ball(bound, axis=0), rate, augmentation=augmentation, proportional=proportional)
        tx = optax.chain(link, optax.sgd(0.1))

        def step(carry, _):
            w, state = carry
            updates, state = tx.update(w - target, state, w)
            return (optax.apply_updates(w, updates), state), None

        w = jnp.ones((4, 3))
        return jnp.sum(jax.lax.scan(step, (w, tx.init(w)), None, 12)[0][0] ** 2)

    h, one = 1e-6, np.eye(4)[:, None, :]  # each number in turn moves, the others stay
    points = np.array([0.0, h, 0.13, 0.13 + h, 0.13 - h])[:, None]
    lanes = np.where(one, points, [0.1, 0.1, 0.1, 0.2])
    values, slopes = map(np.asarray, jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(fit))))(lanes))
    for i, what in enumerate(("rate", "augmentation", "proportional", "bound")):
        v, slope = values[i], slopes[i, :, i]
        np.testing.assert_allclose(slope[0], (v[1] - v[0]) / h, rtol=1e-4, atol=1e-6, err_msg=what)
        np.testing.assert_allclose(slope[2], (v[3] - v[4]) / (2 * h), rtol=1e-4, atol=1e-6, err_msg=what)


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
            link.init(np.ones(3))


@verbs
def test_integer_parameters_are_refused_by_name(verb):
    params = {"w": np.ones((4, 3), int), "b": np.ones(3)}
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
    p, zero = {"w": np.asarray([3000.0, 4000.0], jnp.bfloat16)}, {"w": np.zeros(2, jnp.bfloat16)}
    ball, project = jr.L2Ball(1.0), jax.jit(lambda p: jr.project(jr.L2Ball(1.0), p)["w"])

    @jax.jit
    def step(p, zero):
        links = jr.projected(ball), jr.projected(ball, update_dtype="param")
        updates = [tx.update(zero, tx.init(p), p)[0] for tx in links]
        return updates, [optax.apply_updates(p, u) for u in updates]

    (_, coarse), (w, near) = step(p, zero)
    w = w["w"]
    assert w.dtype == jnp.bfloat16
    w = np.asarray(w, np.float64)
    assert np.linalg.norm(w) <= 1 + 2**-7
    np.testing.assert_allclose(w / np.linalg.norm(w), [0.6, 0.8], atol=2**-7)
    # update_dtype="param" cannot do it; `project` after apply_updates is correctly rounded, always.
    assert coarse["w"].dtype == jnp.bfloat16
    assert np.linalg.norm(np.asarray(project(near), np.float64)) <= 1 + 2**-7
    np.testing.assert_array_equal(project(p), np.asarray([0.6, 0.8], jnp.bfloat16))


def test_projected_lands_within_one_rounding():
    ball = jr.L2Ball(1.0, axis=0)
    tx = jr.projected(ball)

    def land(p, u):
        w = optax.apply_updates(p, tx.update(u, tx.init(p), p)[0])
        return w, ball.project(p.astype(jnp.float64) + u.astype(jnp.float64))

    steps = np.array([1.0, 30.0, 1000.0])[:, None, None, None] * np.random.default_rng(1).normal(size=(3, 2, 20, 8))
    cases = [np.moveaxis(steps.astype(dtype), 1, 0) for dtype in (jnp.float16, jnp.bfloat16, jnp.float32)]
    landed = jax.jit(lambda cases: [jax.vmap(land)(*case) for case in cases])(cases)
    for (p, _), (w, target) in zip(cases, landed, strict=True):
        assert w.dtype == p.dtype
        w, target = np.asarray(w, np.float64), np.asarray(target)
        # half an ulp of the float32 sum at the larger of old and new, half an ulp of the leaf's dtype at the new
        larger = np.maximum(np.abs(p.astype(np.float64)), np.abs(target))
        slack = 2**-23 * larger + float(jnp.finfo(p.dtype).eps) * np.abs(target)
        assert np.all(np.abs(w - target) <= slack + 1e-7), p.dtype


def test_update_dtype_is_checked():
    with pytest.raises(ValueError, match='`projected` needs `update_dtype` None or "param"'):
        jr.projected(jr.L2Ball(1.0), update_dtype="float32")


# ------------------------------------------------------------------ against optax, and the rule of order


def test_equals_optax():
    lam, lr = 0.1, 0.01
    pairs = {
        "adamw": (optax.chain(optax.adam(lr), jr.decay(jr.SquaredL2(lam), lr)), optax.adamw(lr, weight_decay=lam)),
        "add_decayed_weights": (
            optax.chain(jr.add_penalty_gradient(jr.SquaredL2(lam)), optax.adam(lr)),
            optax.chain(optax.add_decayed_weights(lam), optax.adam(lr)),
        ),
    }

    def train(tx, params):
        def step(carry, t):
            params, state = carry
            grads = jax.grad(lambda p: jnp.sum(jnp.cos(p["w"] + t)) + jnp.sum(p["b"] ** 2))(params)
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(100, dtype=params["w"].dtype))[1]

    everything = jax.jit(lambda params: {k: [train(tx, params) for tx in pair] for k, pair in pairs.items()})
    for dtype, tolerance in ((jnp.float32, 1e-6), (jnp.float64, 1e-12)):
        for which, (ours, theirs) in everything(tree(0, dtype)).items():
            chex.assert_trees_all_equal_dtypes(ours, tree(0, dtype))
            for k in ours:
                np.testing.assert_allclose(ours[k], theirs[k], atol=tolerance, rtol=0, err_msg=f"{which} {dtype}")


def test_regularize_is_the_chain_written_out():
    pens, cons, lr = penalties(), constraints(), 0.1
    duals, pairs = jr.multipliers(cons, 0.2), []
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
        pairs.append((jr.regularize(optax.adam(lr), lr, **kwargs), chain))
    run = jax.jit(lambda p, updates: [[rolled(tx, p, updates) for tx in pair] for pair in pairs])
    for ours, written in run(tree(0), trees(5)):
        assert_same(ours, written)


def test_regularize_refuses():
    with pytest.raises(TypeError, match="`regularize` needs a gradient transformation as `multipliers`, such as"):
        jr.regularize(optax.sgd(0.1), 0.1, multipliers=constraints())
    with pytest.raises(TypeError, match="`regularize` needs a gradient transformation as `optimizer`"):
        jr.regularize(0.1, 0.1)


def test_proximal_gives_exact_zeros_and_gradient_steps_do_not():
    params, pens = {"w": np.random.default_rng(0).normal(size=50).astype(np.float32)}, jr.L1(1.0)
    links = (
        optax.chain(optax.sgd(0.1), jr.proximal(pens, 0.1)),
        optax.chain(jr.add_penalty_gradient(pens), optax.sgd(0.1)),
    )
    updates = {"w": np.zeros((40, 50), np.float32)}
    exact, rough = jax.jit(lambda p, updates: [rolled(tx, p, updates)[0]["w"] for tx in links])(params, updates)
    assert np.any(np.asarray(exact) == 0)
    assert not np.any(np.asarray(rough) == 0)
