"""Paths, prefixes and trees of every framework."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxreg as jr
from jaxreg.pytree import flatten, is_noun

X = np.ones((2, 3), np.float32)
KEY = jax.random.key(0)


def filled(shapes):
    """Parameters without the compile time of random ones."""
    return jax.tree.map(lambda p: jnp.asarray(np.cos(np.arange(p.size)).reshape(p.shape).astype(p.dtype)), shapes)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.relu(nn.Dense(4)(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(4, 2, rngs=rngs)])

    def __call__(self, x):
        return self.layers[0](nnx.relu(self.first(x)))


built = nnx.jit(lambda: Nnx(nnx.Rngs(0)))


def linen():
    return filled(jax.eval_shape(Linen().init, KEY, X)["params"])


def nnx_state():
    return filled(nnx.state(nnx.eval_shape(lambda: Nnx(nnx.Rngs(0))), nnx.Param))


def equinox():
    shapes = eqx.filter_eval_shape(lambda: eqx.nn.MLP(3, 2, 4, 1, use_bias=True, key=KEY))
    return filled(eqx.filter(shapes, lambda x: isinstance(x, jax.ShapeDtypeStruct)))


def haiku():
    return filled(jax.eval_shape(hk.transform(lambda x: hk.nets.MLP([4, 2])(x)).init, KEY, X))


def plain():
    params = {"first": {"kernel": np.ones((3, 4)), "bias": np.zeros(4)}, "kernel": np.ones((4, 2))}
    return jax.tree.map(jnp.asarray, params)


FRAMEWORKS = {  # params, pattern of kernels, the axis of incoming weights, number of kernels
    "linen": (linen, "*/kernel", 0, 2),
    "nnx": (nnx_state, "*/kernel", 0, 2),
    "equinox": (equinox, "*/weight", 1, 2),
    "haiku": (haiku, "*/w", 0, 2),
    "plain": (plain, "*/kernel", 0, 2),
}
frameworks = pytest.mark.parametrize("framework", FRAMEWORKS)


@frameworks
def test_by_path_chooses_kernels(framework):
    make, pattern, axis, kernels = FRAMEWORKS[framework]
    params = make()
    pens = jr.by_path(params, {pattern: jr.SquaredL2(2.0, axis=axis)})
    chosen = dict(flatten(pens, is_leaf=is_noun)[0])
    leaves = dict(flatten(params)[0])
    assert chosen.keys() >= leaves.keys()  # Equinox's None fields are None in both
    assert sum(p is not None for p in chosen.values()) == kernels
    assert all((chosen[path] is not None) == (leaf.ndim == 2) for path, leaf in leaves.items())
    total = sum(np.sum(np.asarray(leaf) ** 2) for leaf in leaves.values() if leaf.ndim == 2)
    np.testing.assert_allclose(jr.value(pens, params), total, rtol=1e-6)


@frameworks
def test_verbs_on_every_framework(framework):
    make, pattern, axis, _ = FRAMEWORKS[framework]
    params = make()
    pens = jr.by_path(params, {pattern: jr.SquaredL2(0.5)})
    ball = jr.by_path(params, {pattern: jr.L2Ball(0.1, axis=axis)})
    verbs = {
        "decay": jr.regularize(optax.adam(0.1), 0.1, decay=pens),
        "proximal": jr.regularize(optax.sgd(0.1), 0.1, proximal=pens),
        "projected": jr.regularize(optax.sgd(0.1), 0.1, constraint=ball),
        "multipliers": jr.regularize(optax.sgd(0.1), 0.1, multipliers=jr.multipliers(ball, 0.5, proportional=0.1)),
        "gradient": jr.regularize(optax.sgd(0.1), 0.1, gradient=pens),
    }

    init = jax.jit(lambda params: {verb: tx.init(params) for verb, tx in verbs.items()})

    def moved(tx, params, state):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
            assert jax.tree.structure(updates) == jax.tree.structure(params)
            return (optax.apply_updates(params, updates), state), None

        (params, state), _ = jax.lax.scan(step, (params, state), None, 3)
        return jr.value(pens, params), jr.violation(ball, params), state

    run = jax.jit(lambda p, states: (jr.value(pens, p), {v: moved(tx, p, states[v]) for v, tx in verbs.items()}))
    start, ends = run(params, init(params))
    for verb, (end, violation, state) in ends.items():
        assert float(end) < float(start), verb
        if verb == "projected":
            for leaf in jax.tree.leaves(violation):
                assert np.all(np.asarray(leaf) <= 1e-7)
        if verb == "multipliers":
            alphas = [np.asarray(alpha) for alpha in jax.tree.leaves(state[0].alpha)]
            assert min(np.min(alpha) for alpha in alphas) > 0
            assert sorted(alpha.shape for alpha in alphas) == [(2,), (4,)]


@pytest.mark.parametrize("verb", ["projected", "multipliers", "cpr"])
def test_nnx_optimizer(verb):
    model = built()
    ball = jr.by_path(nnx.state(model, nnx.Param), {"*/kernel": jr.L2Ball(0.1, axis=0)})
    link = jr.multipliers(ball, 0.5, proportional=0.1) if verb == "multipliers" else None
    tx = jr.regularize(optax.sgd(0.1), 0.1, constraint=ball if verb == "projected" else None, multipliers=link)
    if verb == "cpr":
        norms = jr.by_path(nnx.state(model, nnx.Param), {"*/kernel": jr.GroupL2(1.0, axis=0)})
        tx = optax.chain(optax.sgd(0.1), jr.cpr(norms, 0.1, 0.5))
    optimizer = nnx.jit(lambda model: nnx.Optimizer(model, tx, wrt=nnx.Param))(model)
    violation = jax.jit(lambda params: jr.violation(ball, params))

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(lambda m: jnp.sum(m(X) ** 2))(model))

    before = violation(nnx.state(model, nnx.Param))
    for _ in range(4):
        step(model, optimizer)
    after = violation(nnx.state(model, nnx.Param))
    largest = lambda v: max(np.max(leaf) for leaf in jax.tree.leaves(v))
    assert largest(after) < (1e-7 if verb == "projected" else largest(before))


def test_penalized_on_an_nnx_model():
    model = built()
    model.norm = nnx.BatchNorm(4, rngs=nnx.Rngs(0))  # its statistics are leaves of the model too
    model.nothing = nnx.Param(None)
    pens = jr.by_path(model, {"first/kernel": jr.SquaredL2(1.0)})
    loss = jr.penalized(lambda m: jnp.sum(m(X)), pens)
    squares = np.square(model.first.kernel[...])
    assert float(loss(model)[1]["penalty"]) == pytest.approx(0.5 * np.sum(squares), rel=1e-6)


def test_equinox_training_step_keeps_nones_and_functions():
    model = eqx.filter_jit(eqx.nn.MLP)(3, 2, 4, 1, use_bias=False, key=KEY)
    params, rest = eqx.partition(model, eqx.is_array)
    pens = jr.by_path(params, {"*/weight": jr.SquaredL2(1.0)})
    tx = optax.chain(optax.sgd(0.1), jr.decay(pens, 0.1))  # a tree of penalties in a callable module is no schedule
    loss = lambda p: jnp.sum(jax.vmap(eqx.combine(p, rest))(X))

    @jax.jit
    def step(params):
        updates, _ = tx.update(jax.grad(loss)(params), tx.init(params), params)
        return eqx.apply_updates(params, updates)

    assert jax.tree.structure(step(params)) == jax.tree.structure(params)


# ------------------------------------------------------------------ by_path


def test_first_match_wins_and_star_crosses_slashes():
    params = {"a": {"b": {"kernel": 1.0, "bias": 1.0}}, "head": {"kernel": 1.0}, "kernel": 1.0}
    one, two = jr.L1(1.0), jr.L1(2.0)
    tree = jr.by_path(params, {"head/*": None, "*/kernel": one, "*": two})
    assert tree == {"a": {"b": {"kernel": one, "bias": two}}, "head": {"kernel": None}, "kernel": one}
    assert jr.by_path(params, {"a/*": one})["a"]["b"] == {"kernel": one, "bias": one}


@pytest.mark.parametrize("rules", [{"*/weight": jr.L1(1.0)}, {"*": jr.L1(1.0), "*/kernel": None}, {"KERNEL": None}])
def test_a_pattern_that_wins_nothing_raises_with_the_paths(rules):
    with pytest.raises(ValueError, match=r"`by_path` needs every pattern to win.*'first/kernel'.*'kernel'"):
        jr.by_path(plain(), rules)


def test_by_path_refuses_other_values():
    with pytest.raises(TypeError, match=r"`by_path` needs penalties, constraints or None, got 0\.1"):
        jr.by_path(plain(), {"*": 0.1})

    with pytest.raises(TypeError, match="`by_path` needs a mapping"):
        jr.by_path(plain(), jr.L1(1.0))


def test_tied_arrays_warn():
    w = jnp.asarray(np.ones(3))
    with pytest.warns(UserWarning, match="one array stands at two paths, 'a', 'b'"):
        jr.by_path({"a": w, "b": w}, {"*": jr.L1(1.0)})


def test_a_field_called_value_is_part_of_the_path():
    class Module(eqx.Module):
        value: jax.Array

    assert flatten(Module(np.ones(2)))[0][0][0] == ("value",)
    assert flatten({"value": np.ones(2)})[0][0][0] == ("value",)
    assert flatten(nnx_state())[0][0][0] == ("first", "bias")


# ------------------------------------------------------------------ prefixes


def test_prefix_trees():
    params = plain()
    pens = {"first": jr.SquaredL2(2.0), "kernel": None}
    assert float(jr.value(pens, params)) == 12
    assert float(jr.value(jr.SquaredL2(2.0), params)) == 20
    assert float(jr.value(None, params)) == 0
    assert float(jr.value(jr.L1(1.0), {})) == 0
    moved = jr.prox(pens, params, 0.5)
    np.testing.assert_array_equal(moved["first"]["kernel"], 0.5)
    assert moved["kernel"] is params["kernel"]
    v = jr.violation({"first": None, "kernel": jr.L2Ball(1.0, axis=0)}, params)
    assert v["first"] == {"kernel": None, "bias": None}
    np.testing.assert_allclose(v["kernel"], [1, 1])
    assert jr.project({"first": None, "kernel": jr.NonNegative()}, params)["kernel"] is not None


@pytest.mark.parametrize(
    ("pens", "message"),
    [
        ({"first": jr.L1(1.0)}, "nothing was given for 'kernel'"),
        ({"first": jr.L1(1.0), "kernel": None, "other": jr.L1(1.0)}, "L1 at 'other' has no parameters"),
        ({"first": {"kernel": jr.L1(1.0)}, "kernel": None}, "nothing was given for 'first/bias'"),
        ({"first": None, "kernel": {"deeper": jr.L1(1.0)}}, "nothing was given for 'kernel'"),
        ([jr.L1(1.0), None], "nothing was given for 'first/bias'"),
    ],
)
def test_a_prefix_that_does_not_fit_raises(pens, message):
    for use in (jr.value, lambda pens, p: jr.decay(pens, 0.1).init(p)):
        with pytest.raises(ValueError, match=message):
            use(pens, plain())


def test_masked_and_none_leaves_pass_through():
    masked = {"first": optax.MaskedNode(), "kernel": np.ones((4, 2), np.float32), "none": None}
    pens = {"first": {"kernel": jr.L1(1.0), "bias": None}, "kernel": jr.L1(1.0), "none": jr.L1(1.0)}
    assert float(jr.value(pens, masked)) == 8
    out = jr.prox(pens, masked, 0.5)
    assert isinstance(out["first"], optax.MaskedNode)
    assert out["none"] is None


def test_an_error_on_a_leaf_names_its_path():
    with pytest.raises(
        ValueError, match=r"`L2Ball\(axis=\(1,\)\)` needs parameters that have axis 1, got shape \(4,\)"
    ) as e:
        jr.projected(jr.L2Ball(1.0, axis=1)).init(plain())
    assert "jaxreg: L2Ball at 'first/bias'" in e.value.__notes__


def test_vmapped_stacks_are_chosen_by_path_not_rank():
    init = jax.vmap(lambda key: Linen().init(key, X)["params"])
    params = filled(jax.eval_shape(lambda: init(jax.random.split(KEY, 5))))
    pens = jr.by_path(params, {"*/kernel": jr.SquaredL2(1.0)})
    decayed = jax.jit(jax.vmap(lambda p: jr.prox(pens, p, 1.0)))(params)
    np.testing.assert_array_equal(decayed["Dense_0"]["bias"], params["Dense_0"]["bias"])
    np.testing.assert_allclose(decayed["Dense_0"]["kernel"], np.asarray(params["Dense_0"]["kernel"]) / 2)
