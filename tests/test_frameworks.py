"""Every verb on every framework and on stacks of layers, against numpy one layer at a time; tied weights."""

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
from jaxreg.pytree import flatten

X = np.ones((2, 4), np.float32)
KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 3)
LAYERS = {"length": 3, "variable_axes": {"params": 0}, "split_rngs": {"params": True}}


def filled(shapes):
    """Parameters without the compile time of random ones."""
    return jax.tree.map(lambda p: jnp.asarray(np.cos(np.arange(p.size)).reshape(p.shape).astype(p.dtype)), shapes)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.Dense(4)(x), None


class Vmapped(nn.Module):
    @nn.compact
    def __call__(self, x):
        stack = nn.vmap(nn.Dense, in_axes=None, axis_size=3, **{k: v for k, v in LAYERS.items() if k != "length"})
        return stack(5)(x)


class Nnx(nnx.Module):
    """A layer and a stack of three, which `__call__` scans."""

    def __init__(self, rngs):
        self.first = nnx.Linear(4, 4, rngs=rngs)

        @nnx.split_rngs(splits=3)
        @nnx.vmap
        def stack(rngs):
            return nnx.Linear(4, 4, rngs=rngs)

        self.stack = stack(rngs)

    def __call__(self, x):
        run = nnx.scan(lambda h, layer: layer(h), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return run(self.first(x), self.stack)


def linen_scan():
    return jax.eval_shape(nn.scan(Block, **LAYERS)().init, KEY, X, None)["params"]


def linen_vmap():
    return jax.eval_shape(Vmapped().init, KEY, X)["params"]


def vmap_of_init():
    return jax.eval_shape(jax.vmap(lambda key: nn.Dense(5).init(key, X)["params"]), KEYS)


def in_nnx():
    return nnx.state(nnx.eval_shape(lambda: Nnx(nnx.Rngs(0))), nnx.Param)


def equinox():
    def net():
        stack = eqx.filter_vmap(lambda key: eqx.nn.Linear(4, 3, key=key))(KEYS)
        return [eqx.nn.Linear(5, 4, use_bias=False, key=KEY), stack]

    return eqx.filter(eqx.filter_eval_shape(net), lambda x: isinstance(x, jax.ShapeDtypeStruct))


def haiku():
    def net(x):
        return hk.Linear(2)(hk.experimental.layer_stack(3)(lambda h: hk.Linear(4, name="block")(h))(x))

    return jax.eval_shape(hk.transform(net).init, KEY, X)


MODELS = {  # shapes of parameters, pattern of kernels, the axis of incoming weights, in a layer and in a stack of them
    "linen scan": (linen_scan, "*/kernel", -2),
    "linen vmap": (linen_vmap, "*/kernel", -2),
    "vmap of init": (vmap_of_init, "*/kernel", -2),
    "nnx": (in_nnx, "*/kernel", -2),
    "equinox": (equinox, "*/weight", -1),
    "haiku": (haiku, "*/w", -2),
}


@pytest.mark.parametrize("model", MODELS)
def test_every_verb_acts_on_each_unit_of_each_layer(model):
    make, pattern, axis = MODELS[model]
    params = filled(make())
    name = pattern.removeprefix("*/")
    kernels = {path: np.asarray(leaf) for path, leaf in flatten(params)[0] if path[-1] == name}
    others = {path: np.asarray(leaf) for path, leaf in flatten(params)[0] if path[-1] != name}
    assert any(leaf.ndim == 3 for leaf in kernels.values())
    assert any(leaf.ndim == 2 for leaf in others.values())  # the biases of a stack

    squares = jr.by_path(params, {pattern: jr.SquaredL2(0.5)})
    groups = jr.by_path(params, {pattern: jr.GroupL2(0.8, axis=axis)})
    ball = jr.by_path(params, {pattern: jr.L2Ball(0.5, axis=axis)})

    def verbs(params):
        def moved(tx, steps=1):
            grads, state = jax.tree.map(jnp.zeros_like, params), tx.init(params)
            for _ in range(steps):
                updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        (penalized, _), slope = jax.value_and_grad(jr.penalized(lambda p: 0.0, groups), has_aux=True)(params)
        multiplied, state = moved(optax.chain(jr.multipliers(ball, 2.0), optax.sgd(0.5)), steps=2)
        return {
            "penalized": penalized,
            "slope": slope,
            "add_penalty_gradient": moved(optax.chain(jr.add_penalty_gradient(squares), optax.sgd(0.2)))[0],
            "decay": moved(optax.chain(optax.adam(0.2), jr.decay(squares, 0.2)))[0],
            "proximal": moved(optax.chain(optax.sgd(0.2), jr.proximal(groups, 0.2)))[0],
            "cpr": moved(optax.chain(optax.sgd(0.2), jr.cpr(groups, 0.4, 0.5)))[0],
            "projected": moved(optax.chain(optax.sgd(0.2), jr.projected(ball)))[0],
            "multipliers": multiplied,
            "alpha": state[0].alpha,
            "prox": jr.prox(groups, params, 0.2),
            "project": jr.project(ball, params),
            "violation": jr.violation(ball, params),
        }

    out = jax.jit(verbs)(params)

    def by_layer(fn):
        """`fn(W, sizes)` for each layer W with the norms of its units, all by numpy."""
        results = {}
        for path, kernel in kernels.items():
            inside = 0 if axis == -2 else 1
            matrices = kernel if kernel.ndim == 3 else kernel[None]
            layers = [fn(w, np.linalg.norm(w, axis=inside, keepdims=True)) for w in matrices]
            results[path] = np.stack(layers) if kernel.ndim == 3 else layers[0]
        return results

    shrunk = by_layer(lambda w, size: w * np.maximum(1 - 0.2 * 0.8 / size, 0))
    inside = by_layer(lambda w, size: w * np.minimum(0.5 / size, 1))
    excess = by_layer(lambda w, size: np.squeeze(size - 0.5, 0 if axis == -2 else 1))
    expected = {
        "slope": by_layer(lambda w, size: 0.8 * w / size),
        "add_penalty_gradient": by_layer(lambda w, size: 0.9 * w),
        "decay": by_layer(lambda w, size: 0.9 * w),
        "proximal": shrunk,
        "cpr": by_layer(lambda w, size: w * np.maximum(1 - 0.8 * 0.5 * np.maximum(0.8 * size - 0.4, 0) / size, 0)),
        "prox": shrunk,
        "projected": inside,
        "project": inside,
        "violation": excess,
        "alpha": {path: 2 * np.maximum(2 * v, 0) for path, v in excess.items()},  # after two steps in place
        "multipliers": by_layer(lambda w, size: w * (1 - 0.5 * np.maximum(2 * (size - 0.5), 0) / size)),
    }
    sizes = by_layer(lambda w, size: np.sum(size))
    np.testing.assert_allclose(out["penalized"], 0.8 * sum(np.sum(s) for s in sizes.values()), rtol=1e-5)
    for verb, wanted in expected.items():
        got = dict(flatten(out[verb])[0])
        for path, kernel in wanted.items():
            np.testing.assert_allclose(got[path], kernel, rtol=1e-5, atol=1e-6, err_msg=f"{verb} {path}")
        if verb in ("violation", "alpha"):
            assert got.keys() == wanted.keys()
        else:
            assert jax.tree.structure(out[verb]) == jax.tree.structure(params)  # Equinox's Nones are where they were
            for path, bias in others.items():
                np.testing.assert_array_equal(got[path], 0 if verb == "slope" else bias)


def test_nnx_optimizer_on_a_scanned_stack():
    model = nnx.jit(lambda: Nnx(nnx.Rngs(0)))()
    params = nnx.state(model, nnx.Param)  # Variables, as `init` sees them; `update` sees their arrays
    squares = jr.by_path(params, {"*/kernel": jr.SquaredL2(0.5)})
    units = jr.by_path(params, {"stack/kernel": jr.L2Ball(0.6, axis=-2)})
    multipliers = jr.multipliers(units, 0.5, alternating=True)
    tx = jr.regularize(optax.sgd(0.1), 0.1, decay=squares, constraint=units, multipliers=multipliers)
    optimizer = nnx.jit(lambda model: nnx.Optimizer(model, tx, wrt=nnx.Param))(model)
    first, stack = np.asarray(model.first.kernel[...]), np.asarray(model.stack.kernel[...])
    size, alpha = np.linalg.norm(stack, axis=1, keepdims=True), 0

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(lambda m: 0 * jnp.sum(m(X)))(model))

    direction = stack / size
    for _ in range(2):
        step(model, optimizer)
        alpha = np.maximum(alpha + 0.5 * (size - 0.6), 0)
        size = np.minimum(0.95 * size - 0.1 * alpha, 0.6)
    np.testing.assert_allclose(model.first.kernel[...], 0.95**2 * first, rtol=1e-5)
    np.testing.assert_allclose(model.stack.kernel[...], size * direction, rtol=1e-5, atol=1e-7)
    leaves = [leaf for leaf in jax.tree.leaves(nnx.state(optimizer.opt_state)) if leaf.shape == (3, 4)]
    assert any(np.allclose(leaf, np.squeeze(alpha, 1), rtol=1e-5) for leaf in leaves)
    assert np.max(alpha) > 0


# ------------------------------------------------------------------ tied weights: one leaf, counted once


class TiedLinen(nn.Module):
    @nn.compact
    def __call__(self, ids):
        embed = nn.Embed(7, 4)
        return embed.attend(embed(ids))


class TiedNnx(nnx.Module):
    def __init__(self, rngs):
        self.first, self.last = nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)
        self.last.kernel = self.first.kernel


def tied_linen():
    params = filled(jax.eval_shape(TiedLinen().init, KEY, np.arange(3))["params"])
    return params, "*/embedding", params["Embed_0"]["embedding"]


def tied_nnx():
    params = filled(nnx.state(nnx.eval_shape(lambda: TiedNnx(nnx.Rngs(0))), nnx.Param))
    return params, "*/kernel", params["first"]["kernel"][...]


def two_layers():
    return filled(eqx.filter_eval_shape(lambda: [eqx.nn.Linear(4, 4, key=KEY) for _ in range(2)]))


def tied_equinox():
    layers = two_layers()
    shared = eqx.nn.Shared(layers, lambda m: m[1].weight, lambda m: m[0].weight)
    return eqx.filter(shared, eqx.is_array), "*/weight", layers[0].weight


def tied_haiku():
    def net(x):
        layer = hk.Linear(4)
        return layer(layer(x))

    params = filled(jax.eval_shape(hk.transform(net).init, KEY, X))
    return params, "*/w", params["linear"]["w"]


@pytest.mark.parametrize("make", [tied_linen, tied_nnx, tied_equinox, tied_haiku])
def test_weights_tied_by_the_framework_count_once(make):
    params, pattern, weight = make()
    pens = jr.by_path(params, {pattern: jr.SquaredL2(2.0)})
    np.testing.assert_allclose(jr.value(pens, params), np.sum(np.asarray(weight) ** 2), rtol=1e-6)


def test_arrays_tied_by_hand_warn():
    layers = two_layers()
    tied = eqx.tree_at(lambda m: m[1].weight, layers, layers[0].weight)
    with pytest.warns(UserWarning, match="one array stands at two paths, '0/weight', '1/weight'"):
        jr.by_path(tied, {"*/weight": jr.L1(1.0)})


def test_nnx_variables_hold_nouns():
    model = nnx.jit(lambda: nnx.Linear(3, 2, rngs=nnx.Rngs(0)))()
    state = nnx.state(model, nnx.Param)
    moved = jax.tree.map(lambda p: jnp.asarray(np.asarray(p) + np.float32(2)), state)
    count = sum(p.size for p in jax.tree.leaves(state))
    pens = jr.towards(jr.SquaredL2(1.0), state)
    some = jr.towards(jr.by_path(state, {"bias": jr.SquaredL2(1.0)}), state)
    nets = jax.tree.map(lambda _: jr.ElasticNet(0.1, 1.0), state)
    pairs = (pens, moved), (some, moved), (nets, state), (jr.L1(0.1), state)
    far, biases, net, lasso = map(float, jax.jit(lambda: [jr.value(*pair) for pair in pairs])())
    np.testing.assert_allclose([far, biases], [2.0 * count, 2.0 * state["bias"].size], rtol=1e-6)
    np.testing.assert_allclose(net, lasso)
    optimizer = nnx.Optimizer(model, optax.chain(optax.sgd(0.5), jr.decay(pens, 0.5)), wrt=nnx.Param)
    start = np.array(model.kernel[...])  # the state is the model's own Variables
    nnx.update(model, moved)
    optimizer.update(model, jax.tree.map(jnp.zeros_like, state))
    np.testing.assert_allclose(model.kernel[...], start + 1.0, rtol=1e-6)
