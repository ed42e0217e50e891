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

X = jnp.linspace(-1.0, 1.0, 16)[:, None]
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
    hidden = jnp.maximum(X @ first["kernel"] + first["bias"], 0)
    loss = jnp.mean((hidden @ last["kernel"] + last["bias"] - jnp.sin(3 * X)) ** 2)
    squares = jnp.sum(first["kernel"] ** 2) + jnp.sum(last["kernel"] ** 2)
    sizes = jnp.sum(jnp.abs(first["bias"])) + jnp.sum(jnp.abs(last["bias"]))
    return loss + lam * jnp.sum(jnp.abs(hidden)) / len(X) + KERNEL / 2 * squares + BIAS * sizes, jnp.mean(hidden)


@jax.jit
def train_linen(lam):
    params = Linen().init(jax.random.key(0), X)["params"]
    pens = jr.by_path(params, {"*/kernel": jr.SquaredL2(KERNEL), "*/bias": jr.L1(BIAS)})

    def loss_fn(params):
        y, sown = Linen().apply({"params": params}, X, mutable="intermediates")
        activity = jr.activity_penalty({"hidden": jr.L1(lam)}, sown["intermediates"])
        return jnp.mean((y - jnp.sin(3 * X)) ** 2) + activity

    loss, tx = jr.penalized(loss_fn, pens), optax.adam(0.03)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss, has_aux=True)(params)[0], state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), None, 80)
    return loss(params)[0], params["first"], params["last"]


def train_nnx(lam):
    model = Nnx(nnx.Rngs(0))
    pens = jr.by_path(nnx.state(model, nnx.Param), {"*/kernel": jr.SquaredL2(KERNEL), "*/bias": jr.L1(BIAS)})
    optimizer = nnx.Optimizer(model, optax.adam(0.03), wrt=nnx.Param)
    traces = []

    def loss_fn(model):
        traces.append(None)
        y, sown = nnx.capture(model, nnx.Intermediate)(X)
        return jnp.mean((y - jnp.sin(3 * X)) ** 2) + jr.activity_penalty({"hidden": jr.L1(lam)}, sown)

    loss = jr.penalized(loss_fn, pens)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(loss, has_aux=True)(model)[0])

    for _ in range(80):
        step(model, optimizer)
    assert len(traces) == 1
    assert not jax.tree.leaves(nnx.state(model, nnx.Intermediate))
    layers = [{"kernel": layer.kernel[...], "bias": layer.bias[...]} for layer in (model.first, model.last)]
    return loss(model)[0], *layers


@pytest.mark.parametrize("train", [train_linen, train_nnx])
def test_kernel_bias_and_activity_penalties_in_flax(train):
    means = []
    for lam in (0.0, 0.05):
        total, first, last = train(lam)
        expected, mean = by_hand(first, last, lam)
        np.testing.assert_allclose(total, expected, rtol=1e-6)
        assert expected < by_hand(jax.tree.map(jnp.zeros_like, first), jax.tree.map(jnp.zeros_like, last), lam)[0]
        means.append(float(mean))
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
    assert float(jr.activity_penalty(jr.L1(0.1), y)) == pytest.approx(activity, rel=1e-6)
    params = {v.name: v.value for v in layer.trainable_variables}
    pens = jr.by_path(params, {"kernel": jr.SquaredL2(0.6), "bias": jr.L1(0.2)})  # Keras' L2 has no ½
    assert float(jr.value(pens, params)) == pytest.approx(kernel + bias, rel=1e-6)


# ------------------------------------------------------------------ what lands where


def test_linen_init_returns_what_is_sown_but_for_intermediates():
    penalty = functools.partial(jr.activity_penalty, jr.L1(1.0))
    collected = {}
    for collection in ("intermediates", "activations"):
        net = Linen(collection)
        variables = net.init(jax.random.key(0), X)
        assert (collection in variables) == (collection == "activations")
        clean = net.apply({"params": variables["params"]}, X, mutable=collection)[1]
        assert [h.shape for h in jax.tree.leaves(clean)] == [(16, 6)]
        carried = net.apply(variables, X, mutable=collection)[1]
        collected[collection] = float(penalty(clean)), float(penalty(carried))
    (once, again), (fresh, stale) = collected["intermediates"], collected["activations"]
    assert once == again == fresh  # "intermediates", or the parameters alone: what this call sowed
    assert stale == 2 * fresh  # init's batch is counted too, which the docstring tells how to avoid


def test_every_call_of_a_shared_linen_module_counts():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x, boundary):
            net = Linen()
            return net(x), net(boundary)

    params = Twice().init(jax.random.key(0), X, X[:4])["params"]
    sown = Twice().apply({"params": params}, X, X[:4], mutable="intermediates")[1]["intermediates"]
    first, second = sown["Linen_0"]["hidden"]  # batches of different sizes, each divided by its own
    assert (len(first), len(second)) == (16, 4)
    expected = jnp.sum(first) / 16 + jnp.sum(second) / 4
    np.testing.assert_allclose(jr.activity_penalty(jr.L1(1.0), sown), expected)
    only = jr.by_path(sown, {"*/hidden/1": jr.L1(1.0)})
    np.testing.assert_allclose(jr.activity_penalty(only, sown), jnp.sum(second) / 4)


@pytest.mark.filterwarnings("ignore:Using 'Module.sow..' outside:DeprecationWarning")
def test_nnx_pop():
    model = Nnx(nnx.Rngs(0))
    model(X), model(X[:4])
    sown = nnx.pop(model, nnx.Intermediate)
    assert not jax.tree.leaves(nnx.state(model, nnx.Intermediate))
    hidden = jnp.maximum(model.first(X), 0)
    expected = jnp.sum(hidden) / 16 + jnp.sum(hidden[:4]) / 4
    for pens in (jr.L1(1.0), {"hidden": jr.L1(1.0)}, jr.by_path(sown, {"hidden*": jr.L1(1.0)})):
        np.testing.assert_allclose(jr.activity_penalty(pens, sown), expected, rtol=1e-6)


# ------------------------------------------------------------------ by hand


def test_each_leaf_is_divided_by_its_own_batch():
    activations = {"a": jnp.ones((2, 3)), "b": [jnp.ones((4, 5)), jnp.ones((8, 1))], "c": jnp.array(7.0)}
    pens = {"a": jr.SquaredL2(2.0), "b": jr.L1(1.0), "c": None}
    assert float(jr.activity_penalty(pens, activations)) == 6 / 2 + 20 / 4 + 8 / 8
    assert float(jr.activity_penalty(jr.L1(1.0), jnp.ones((2, 3)), batch_axis=-1)) == 2
    assert float(jr.activity_penalty(None, activations)) == 0


def test_axis_and_strengths_see_the_batch():
    a = jnp.array([[3.0, 1.0], [4.0, 0.0]])
    assert float(jr.activity_penalty(jr.GroupL2(1.0, axis=0), a)) == (5 + 1) / 2
    np.testing.assert_allclose(jr.activity_penalty(jr.GroupL2(1.0, axis=1), a), (np.sqrt(10) + 4) / 2)
    assert float(jr.activity_penalty(jr.L1(jnp.array([1.0, 10.0])), a)) == (7 + 10) / 2


@pytest.mark.parametrize("pen", [jr.L1(1.0), jr.SquaredL2(1.0), jr.GroupL2(1.0), jr.GroupL2(1.0, axis=0)])
def test_an_empty_batch_adds_zero(pen):
    total, slope = jax.jit(jax.value_and_grad(lambda a: jr.activity_penalty(pen, a)))(jnp.zeros((0, 3)))
    assert float(total) == 0
    assert slope.shape == (0, 3)


def test_dtype_jit_and_vmap():
    assert jr.activity_penalty(jr.L1(1.0), jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.float32
    assert jr.activity_penalty(jr.L1(1.0), {}).dtype == jnp.float32
    swept = jax.jit(jax.vmap(lambda lam: jr.activity_penalty(jr.L1(lam), jnp.ones((2, 3)))))(jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(swept, [3, 6])


def test_refusals():
    with pytest.raises(
        ValueError, match=r"`activity_penalty` needs activations that have axis 0 .*got shape \(\)"
    ) as e:
        jr.activity_penalty(jr.L1(1.0), {"a": jnp.ones((2, 3)), "b": jnp.array(1.0)})
    assert "jaxreg: L1 at 'b'" in e.value.__notes__
    for axis in (2, -3):
        with pytest.raises(ValueError, match=rf"have axis {axis} \(`batch_axis`\), got shape \(2, 3\)"):
            jr.activity_penalty(jr.L1(1.0), jnp.ones((2, 3)), batch_axis=axis)
    with pytest.raises(TypeError, match="`activity_penalty` needs an int as `batch_axis`, got None"):
        jr.activity_penalty(jr.L1(1.0), jnp.ones((2, 3)), batch_axis=None)
    with pytest.raises(TypeError, match=r"`activity_penalty` needs penalties .*got L2Ball"):
        jr.activity_penalty(jr.L2Ball(1.0), jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="L1 at 'hidden' has no parameters"):  # nothing was sown
        jr.activity_penalty({"hidden": jr.L1(1.0), "other": None}, {"other": jnp.ones(2)})
