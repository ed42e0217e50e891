"""Activity penalties, by hand and as Flax sows them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxreg as jr

X = np.linspace(-1.0, 1.0, 16)[:, None]
KERNEL, BIAS = 1e-3, 1e-2


class Linen(nn.Module):
    collection: str = "intermediates"

    @nn.compact
    def __call__(self, x):
        hidden = nn.relu(nn.Dense(6, name="first")(x))
        self.sow(self.collection, "hidden", hidden)
        return nn.Dense(1, name="last")(hidden)


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.first, self.last = nnx.Linear(1, 6, rngs=rngs), nnx.Linear(6, 1, rngs=rngs)

    def __call__(self, x):
        hidden = nnx.relu(self.first(x))
        self.sow(nnx.Intermediate, "hidden", hidden)
        return self.last(hidden)


def by_hand(first, last, lam):
    """The objective with Keras' three kinds of penalty, and the mean activation."""
    hidden = np.maximum(X @ first["kernel"] + first["bias"], 0)
    loss = np.mean((hidden @ last["kernel"] + last["bias"] - np.sin(3 * X)) ** 2)
    squares = np.sum(first["kernel"] ** 2) + np.sum(last["kernel"] ** 2)
    sizes = np.sum(np.abs(first["bias"])) + np.sum(np.abs(last["bias"]))
    return loss + lam * np.sum(np.abs(hidden)) / len(X) + KERNEL / 2 * squares + BIAS * sizes, np.mean(hidden)


@jax.jit
def train_linen(lam):
    params = Linen().init(jax.random.key(0), X)["params"]
    pens = jr.by_path(params, {"*/kernel": jr.SquaredL2(KERNEL), "*/bias": jr.L1(BIAS)})

    def loss_fn(params):
        y, sown = Linen().apply({"params": params}, X, mutable="intermediates")
        activity = jr.activity_penalty({"hidden": jr.L1(lam)}, sown["intermediates"])
        return jnp.mean((y - np.sin(3 * X)) ** 2) + activity

    loss, tx = jr.penalized(loss_fn, pens), optax.adam(0.03)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss, has_aux=True)(params)[0], state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), None, 80)
    return loss(params)[0], params["first"], params["last"]


def nnx_loss(model, lam):
    pens = jr.by_path(nnx.state(model, nnx.Param), {"*/kernel": jr.SquaredL2(KERNEL), "*/bias": jr.L1(BIAS)})

    def loss_fn(model):
        y, sown = nnx.capture(model, nnx.Intermediate)(X)
        return jnp.mean((y - np.sin(3 * X)) ** 2) + jr.activity_penalty({"hidden": jr.L1(lam)}, sown)

    return jr.penalized(loss_fn, pens)(model)


ADAM, TRACES = optax.adam(0.03), []
make_nnx = nnx.jit(lambda: Nnx(nnx.Rngs(0)))


@nnx.jit
def nnx_step(model, optimizer, lam):
    TRACES.append(lam)
    optimizer.update(model, nnx.grad(nnx_loss, has_aux=True)(model, lam)[0])


def train_nnx(lam):
    model = make_nnx()
    optimizer = nnx.Optimizer(model, ADAM, wrt=nnx.Param)
    for _ in range(80):
        nnx_step(model, optimizer, lam)
    assert len(TRACES) == 1
    assert not jax.tree.leaves(nnx.state(model, nnx.Intermediate))
    layers = [{"kernel": layer.kernel[...], "bias": layer.bias[...]} for layer in (model.first, model.last)]
    return nnx.jit(nnx_loss)(model, lam)[0], *layers


@pytest.mark.parametrize("train", [train_linen, train_nnx])
def test_kernel_bias_and_activity_penalties_in_flax(train):
    means = []
    for lam in (0.0, 0.05):
        total, *layers = jax.tree.map(np.asarray, train(lam))
        expected, mean = by_hand(*layers, lam)
        np.testing.assert_allclose(total, expected, rtol=1e-6)
        assert expected < by_hand(*jax.tree.map(np.zeros_like, layers), lam)[0]
        means.append(mean)
    assert means[1] < 0.7 * means[0]


def test_equals_keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    layer = keras.layers.Dense(
        4,
        kernel_regularizer=keras.regularizers.L2(0.3),
        bias_regularizer=keras.regularizers.L1(0.2),
        bias_initializer="ones",
        activity_regularizer=keras.regularizers.L1(0.1),
    )
    y = layer(X)
    activity, kernel, bias = (float(loss) for loss in layer.losses)
    params = {v.name: v.value for v in layer.trainable_variables}
    pens = jr.by_path(params, {"kernel": jr.SquaredL2(0.6), "bias": jr.L1(0.2)})  # Keras' L2 has no ½
    ours = jax.jit(lambda y, params: (jr.activity_penalty(jr.L1(0.1), y), jr.value(pens, params)))(y, params)
    np.testing.assert_allclose(ours, [activity, kernel + bias], rtol=1e-6)


# ------------------------------------------------------------------ what lands where


def test_linen_init_returns_what_is_sown_but_for_intermediates():
    penalty = functools.partial(jr.activity_penalty, jr.L1(1.0))

    @functools.partial(jax.jit, static_argnums=0)
    def collected(collection):
        net = Linen(collection)
        variables = net.init(jax.random.key(0), X)
        assert (collection in variables) == (collection == "activations")
        clean = net.apply({"params": variables["params"]}, X, mutable=collection)[1]
        assert [h.shape for h in jax.tree.leaves(clean)] == [(16, 6)]
        carried = net.apply(variables, X, mutable=collection)[1]
        return penalty(clean), penalty(carried)

    once, again, fresh, stale = map(float, collected("intermediates") + collected("activations"))
    assert once == again == fresh  # "intermediates", or the parameters alone: what this call sowed
    assert stale == 2 * fresh  # init's batch is counted too, which the docstring tells how to avoid


def test_every_call_of_a_shared_linen_module_counts():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x, boundary):
            net = Linen()
            return net(x), net(boundary)

    @jax.jit
    def run():
        params = Twice().init(jax.random.key(0), X, X[:4])["params"]
        sown = Twice().apply({"params": params}, X, X[:4], mutable="intermediates")[1]["intermediates"]
        only = jr.by_path(sown, {"*/hidden/1": jr.L1(1.0)})
        return sown, jr.activity_penalty(jr.L1(1.0), sown), jr.activity_penalty(only, sown)

    sown, both, boundary = run()
    first, second = map(np.asarray, sown["Linen_0"]["hidden"])  # batches of different sizes, each divided by its own
    assert (len(first), len(second)) == (16, 4)
    np.testing.assert_allclose(both, first.sum() / 16 + second.sum() / 4)
    np.testing.assert_allclose(boundary, second.sum() / 4)


@pytest.mark.filterwarnings("ignore:Using 'Module.sow..' outside:DeprecationWarning")
def test_nnx_pop():
    model = make_nnx()
    model(X), model(X[:4])
    sown = nnx.pop(model, nnx.Intermediate)
    assert not jax.tree.leaves(nnx.state(model, nnx.Intermediate))
    hidden = np.maximum(model.first(X), 0)
    expected = np.sum(hidden) / 16 + np.sum(hidden[:4]) / 4
    for pens in (jr.L1(1.0), {"hidden": jr.L1(1.0)}, jr.by_path(sown, {"hidden*": jr.L1(1.0)})):
        np.testing.assert_allclose(jr.activity_penalty(pens, sown), expected, rtol=1e-6)


# ------------------------------------------------------------------ by hand


def test_each_leaf_is_divided_by_its_own_batch():
    activations = {"a": np.ones((2, 3)), "b": [np.ones((4, 5)), np.ones((8, 1))], "c": np.array(7.0)}
    pens = {"a": jr.SquaredL2(2.0), "b": jr.L1(1.0), "c": None}
    assert float(jax.jit(jr.activity_penalty)(pens, activations)) == 6 / 2 + 20 / 4 + 8 / 8
    assert float(jr.activity_penalty(jr.L1(1.0), np.ones((2, 3)), batch_axis=-1)) == 2
    assert float(jr.activity_penalty(None, activations)) == 0


def test_axis_and_strengths_see_the_batch():
    pens = jr.GroupL2(1.0, axis=0), jr.GroupL2(1.0, axis=1), jr.L1(np.array([1.0, 10.0]))
    a = np.array([[3.0, 1.0], [4.0, 0.0]])
    unit, example, weighted = jax.jit(lambda a: [jr.activity_penalty(pen, a) for pen in pens])(a)
    assert float(unit) == (5 + 1) / 2
    np.testing.assert_allclose(example, (np.sqrt(10) + 4) / 2)
    assert float(weighted) == (7 + 10) / 2


def test_an_empty_batch_adds_zero():
    pens = jr.L1(1.0), jr.SquaredL2(1.0), jr.GroupL2(1.0), jr.GroupL2(1.0, axis=0)
    slopes = jax.jit(lambda a: [jax.value_and_grad(lambda a: jr.activity_penalty(pen, a))(a) for pen in pens])
    for pen, (total, slope) in zip(pens, slopes(np.zeros((0, 3))), strict=True):
        assert float(total) == 0, pen
        assert slope.shape == (0, 3), pen


def test_dtype_jit_and_vmap():
    penalty = lambda a, lam=1.0: jr.activity_penalty(jr.L1(lam), a)
    assert jax.eval_shape(penalty, np.ones((2, 3), jnp.bfloat16)).dtype == np.float32
    assert penalty({}).dtype == np.float32
    swept = jax.jit(jax.vmap(lambda lam: penalty(np.ones((2, 3)), lam)))(np.array([1.0, 2.0]))
    np.testing.assert_array_equal(swept, [3, 6])


def test_refusals():
    with pytest.raises(
        ValueError, match=r"`activity_penalty` needs activations that have axis 0 .*got shape \(\)"
    ) as e:
        jr.activity_penalty(jr.L1(1.0), {"a": np.ones((2, 3)), "b": np.array(1.0)})
    assert "jaxreg: L1 at 'b'" in e.value.__notes__
    for axis in (2, -3):
        with pytest.raises(ValueError, match=rf"have axis {axis} \(`batch_axis`\), got shape \(2, 3\)"):
            jr.activity_penalty(jr.L1(1.0), np.ones((2, 3)), batch_axis=axis)
    with pytest.raises(TypeError, match="`activity_penalty` needs an int as `batch_axis`, got None"):
        jr.activity_penalty(jr.L1(1.0), np.ones((2, 3)), batch_axis=None)
    with pytest.raises(TypeError, match=r"`activity_penalty` needs penalties .*got L2Ball"):
        jr.activity_penalty(jr.L2Ball(1.0), np.ones((2, 3)))
    with pytest.raises(ValueError, match="L1 at 'hidden' has no parameters"):  # nothing was sown
        jr.activity_penalty({"hidden": jr.L1(1.0), "other": None}, {"other": np.ones(2)})
