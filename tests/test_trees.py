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

X = jnp.ones((2, 3))


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


def linen():
    return Linen().init(jax.random.key(0), X)["params"]


def nnx_state():
    return nnx.state(Nnx(nnx.Rngs(0)), nnx.Param)


def equinox():
    return eqx.filter(eqx.nn.MLP(3, 2, 4, 1, use_bias=True, key=jax.random.key(0)), eqx.is_array)


def haiku():
    return hk.transform(lambda x: hk.nets.MLP([4, 2])(x)).init(jax.random.key(0), X)


def plain():
    return {"first": {"kernel": jnp.ones((3, 4)), "bias": jnp.zeros(4)}, "kernel": jnp.ones((4, 2))}


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
@pytest.mark.parametrize("verb", ["decay", "proximal", "projected", "multipliers", "gradient"])
def test_verbs_on_every_framework(framework, verb):
    make, pattern, axis, _ = FRAMEWORKS[framework]
    params = make()
    pens = jr.by_path(params, {pattern: jr.SquaredL2(0.5)})
    ball = jr.by_path(params, {pattern: jr.L2Ball(0.1, axis=axis)})
    tx = {
        "decay": lambda: jr.regularize(optax.adam(0.1), 0.1, decay=pens),
        "proximal": lambda: jr.regularize(optax.sgd(0.1), 0.1, proximal=pens),
        "projected": lambda: jr.regularize(optax.sgd(0.1), 0.1, constraint=ball),
        "multipliers": lambda: jr.regularize(
            optax.sgd(0.1), 0.1, multipliers=jr.multipliers(ball, 0.5, proportional=0.1)
        ),
        "gradient": lambda: jr.regularize(optax.sgd(0.1), 0.1, gradient=pens),
    }[verb]()
    grads = jax.tree.map(jnp.zeros_like, params)
    state = tx.init(params)
    start = jr.value(pens, params)
    for _ in range(3):
        updates, state = jax.jit(tx.update)(grads, state, params)
        assert jax.tree.structure(updates) == jax.tree.structure(params)
        params = optax.apply_updates(params, updates)
    assert jr.value(pens, params) < start
    if verb == "projected":
        for leaf in jax.tree.leaves(jr.violation(ball, params)):
            assert np.all(leaf <= 1e-7)
    if verb == "multipliers":
        assert min(np.min(a) for a in jax.tree.leaves(state[0].alpha)) > 0
        assert sorted(a.shape for a in jax.tree.leaves(state[0].alpha)) == [(2,), (4,)]


@pytest.mark.parametrize("verb", ["projected", "multipliers", "cpr"])
def test_nnx_optimizer(verb):
    model = Nnx(nnx.Rngs(0))
    ball = jr.by_path(nnx.state(model, nnx.Param), {"*/kernel": jr.L2Ball(0.1, axis=0)})
    link = jr.multipliers(ball, 0.5, proportional=0.1) if verb == "multipliers" else None
    tx = jr.regularize(optax.sgd(0.1), 0.1, constraint=ball if verb == "projected" else None, multipliers=link)
    if verb == "cpr":
        norms = jr.by_path(nnx.state(model, nnx.Param), {"*/kernel": jr.GroupL2(1.0, axis=0)})
        tx = optax.chain(optax.sgd(0.1), jr.cpr(norms, 0.1, 0.5))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(lambda m: jnp.sum(m(X) ** 2))(model))

    before = jr.violation(ball, nnx.state(model, nnx.Param))
    for _ in range(4):
        step(model, optimizer)
    after = jr.violation(ball, nnx.state(model, nnx.Param))
    largest = lambda v: max(float(jnp.max(leaf)) for leaf in jax.tree.leaves(v))
    assert largest(after) < (1e-7 if verb == "projected" else largest(before))


def test_penalized_on_an_nnx_model():
    model = Nnx(nnx.Rngs(0))
    model.norm = nnx.BatchNorm(4, rngs=nnx.Rngs(0))  # its statistics are leaves of the model too
    model.nothing = nnx.Param(None)
    pens = jr.by_path(model, {"first/kernel": jr.SquaredL2(1.0)})
    loss = jr.penalized(lambda m: jnp.sum(m(X)), pens)
    assert float(loss(model)[1]["penalty"]) == pytest.approx(
        0.5 * float(jnp.sum(model.first.kernel[...] ** 2)), rel=1e-6
    )


def test_equinox_training_step_keeps_nones_and_functions():
    model = eqx.nn.MLP(3, 2, 4, 1, use_bias=False, key=jax.random.key(0))
    params, rest = eqx.partition(model, eqx.is_array)
    pens = jr.by_path(params, {"*/weight": jr.SquaredL2(1.0)})
    tx = optax.chain(optax.sgd(0.1), jr.decay(pens, 0.1))  # a tree of penalties in a callable module is no schedule
    loss = lambda p: jnp.sum(jax.jit(jax.vmap(eqx.combine(p, rest)))(X))
    updates, _ = tx.update(jax.jit(jax.grad(loss))(params), tx.init(params), params)
    assert jax.tree.structure(eqx.apply_updates(params, updates)) == jax.tree.structure(params)


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
    w = jnp.ones(3)
    with pytest.warns(UserWarning, match="one array stands at two paths, 'a', 'b'"):
        jr.by_path({"a": w, "b": w}, {"*": jr.L1(1.0)})


def test_a_field_called_value_is_part_of_the_path():
    class Module(eqx.Module):
        value: jax.Array

    assert flatten(Module(jnp.ones(2)))[0][0][0] == ("value",)
    assert flatten({"value": jnp.ones(2)})[0][0][0] == ("value",)
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
    masked = {"first": optax.MaskedNode(), "kernel": jnp.ones((4, 2)), "none": None}
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
    params = jax.jit(jax.vmap(lambda k: Linen().init(k, X)["params"]))(jax.random.split(jax.random.key(0), 5))
    pens = jr.by_path(params, {"*/kernel": jr.SquaredL2(1.0)})
    decayed = jax.jit(jax.vmap(lambda p: jr.prox(pens, p, 1.0)))(params)
    np.testing.assert_array_equal(decayed["Dense_0"]["bias"], params["Dense_0"]["bias"])
    np.testing.assert_allclose(decayed["Dense_0"]["kernel"], params["Dense_0"]["kernel"] / 2)
