"""The README's table of axes: change one group of weights, and one unit of the layer changes."""

import ast
import itertools
import re
from functools import partial
from pathlib import Path

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxreg.pytree import flatten

README = (Path(__file__).parent.parent / "README.md").read_text()
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
IMAGE, TOKENS = (RNG.normal(size=shape).astype(np.float32) for shape in ((2, 5, 5, 3), (2, 5, 6)))
ROW = TOKENS[:, 0]
IDS = np.arange(7)


def table():
    """{(layer, framework): axis} of the README."""
    lines = re.search(r"^\| layer \|.*?\n\n", README, re.M | re.S)[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line]
    return {
        (layer, framework): ast.literal_eval(axis.strip("`"))
        for layer, *row in cells[2:]
        for framework, axis in zip(cells[0][1:], row, strict=True)
        if axis
    }


AXES = table()


def filled(shapes):
    """Parameters without the compile time of random ones."""
    return jax.tree.map(lambda p: np.cos(np.arange(np.prod(p.shape))).reshape(p.shape).astype(np.float32), shapes)


# Each framework: a layer and its inputs -> (parameters, function of the parameters).


def linen(layer, *inputs):
    return filled(jax.eval_shape(layer.init, KEY, *inputs)["params"]), lambda p: layer.apply({"params": p}, *inputs)


def in_nnx(layer, *inputs):
    graph, params = nnx.split(nnx.eval_shape(lambda: layer(rngs=nnx.Rngs(0))))
    params = filled(nnx.filter_state(params, nnx.Param))
    return params, lambda p: nnx.merge(graph, p)(*inputs)


def in_keras(layer, *inputs, **kwargs):
    layer.build(*(x.shape for x in inputs))
    names = [v.path for v in layer.trainable_variables]
    params = filled({v.path: v.value for v in layer.trainable_variables})
    rest = [v.value for v in layer.non_trainable_variables]
    return params, lambda p: layer.stateless_call([p[name] for name in names], rest, *inputs, **kwargs)[0]


def in_haiku(fn, *inputs):
    net = hk.without_apply_rng(hk.transform(fn))
    return filled(jax.eval_shape(net.init, KEY, *inputs)), lambda p: net.apply(p, *inputs)


def equinox(layer, *inputs):
    shapes, rest = eqx.partition(eqx.filter_eval_shape(layer, key=KEY), lambda x: isinstance(x, jax.ShapeDtypeStruct))
    return filled(shapes), lambda p: jax.vmap(eqx.combine(p, rest))(*inputs)


def last(case):
    """The case with its units on axis -1: Equinox's convolutions have them on axis 1."""
    params, apply = case
    return params, lambda p: jnp.moveaxis(apply(p), 1, -1)


def tokens(case):
    """The case with the tokens on axis -1, as units."""
    params, apply = case
    return params, lambda p: apply(p).T


def hidden(case, part):
    """The case of a cell that returns several things, its hidden state being `part(returned)`."""
    params, apply = case
    return params, lambda p: part(apply(p))


def merged(case, outputs, by_heads):
    """Attention whose output kernel, at the path `outputs`, is the identity: what comes out are the values, by unit."""
    params, apply = case
    shape = (2, 3, 6) if by_heads else (6, 6)
    return params, lambda p: apply(swap(p, outputs, np.eye(6, dtype=np.float32).reshape(shape)))


def swap(params, path, weight):
    leaves, structure = flatten(params)
    return jax.tree.unflatten(structure, [weight if "/".join(p) == path else leaf for p, leaf in leaves])


CHW = np.moveaxis(IMAGE, -1, 1)
STATE = np.cos(np.arange(8, dtype=np.float32)).reshape(2, 4) / 2
FLAX, KERAS, HAIKU, EQUINOX = "Flax (linen, nnx)", "Keras", "Haiku", "Equinox"
DENSE, CONV, DEPTHWISE, TRANSPOSED = (
    "dense",
    "2-D convolution",
    "depthwise 2-D convolution",
    "transposed 2-D convolution",
)
QUERY, OUTPUT = "attention: query, key, value", "attention: output"
CELL, EMBEDDING = "recurrent cell: one gate of a unit", "embedding: one token's vector"
FLIPPED = "the same, `transpose_kernel=True`"


def keras():
    return pytest.importorskip("keras").layers


def haiku_lstm(x, h):
    return hk.LSTM(4)(x, hk.LSTMState(h, h))


def haiku_attention(x):
    return hk.MultiHeadAttention(2, 3, model_size=6, w_init=hk.initializers.RandomNormal())(x, x, x)


def linen_attention():
    return linen(nn.MultiHeadDotProductAttention(2, qkv_features=6), TOKENS)


def nnx_attention():
    return in_nnx(partial(nnx.MultiHeadAttention, 2, 6, 6, decode=False), TOKENS)


def keras_attention():
    return in_keras(keras().MultiHeadAttention(2, 3, name="a"), TOKENS, TOKENS)


def equinox_attention():
    return equinox(partial(eqx.nn.MultiheadAttention, 2, 6), TOKENS, TOKENS, TOKENS)


CASES = [  # row, framework, path of the weight, the layer
    (DENSE, FLAX, "kernel", lambda: linen(nn.Dense(4), ROW)),
    (DENSE, FLAX, "kernel", lambda: in_nnx(partial(nnx.Linear, 6, 4), ROW)),
    (DENSE, KERAS, "a/kernel", lambda: in_keras(keras().Dense(4, name="a"), ROW)),
    (DENSE, HAIKU, "linear/w", lambda: in_haiku(lambda x: hk.Linear(4)(x), ROW)),
    (DENSE, EQUINOX, "weight", lambda: equinox(partial(eqx.nn.Linear, 6, 4), ROW)),
    (CONV, FLAX, "kernel", lambda: linen(nn.Conv(4, (3, 2)), IMAGE)),
    (CONV, FLAX, "kernel", lambda: in_nnx(partial(nnx.Conv, 3, 4, (3, 2)), IMAGE)),
    (CONV, KERAS, "a/kernel", lambda: in_keras(keras().Conv2D(4, (3, 2), name="a"), IMAGE)),
    (CONV, HAIKU, "conv2_d/w", lambda: in_haiku(lambda x: hk.Conv2D(4, (3, 2))(x), IMAGE)),
    (CONV, EQUINOX, "weight", lambda: last(equinox(partial(eqx.nn.Conv2d, 3, 4, (3, 2)), CHW))),
    (DEPTHWISE, FLAX, "kernel", lambda: linen(nn.Conv(6, (3, 2), feature_group_count=3), IMAGE)),
    (DEPTHWISE, FLAX, "kernel", lambda: in_nnx(partial(nnx.Conv, 3, 6, (3, 2), feature_group_count=3), IMAGE)),
    (
        DEPTHWISE,
        KERAS,
        "a/kernel",
        lambda: in_keras(keras().DepthwiseConv2D((3, 2), depth_multiplier=2, name="a"), IMAGE),
    ),
    (DEPTHWISE, HAIKU, "depthwise_conv2_d/w", lambda: in_haiku(lambda x: hk.DepthwiseConv2D(2, (3, 2))(x), IMAGE)),
    (DEPTHWISE, EQUINOX, "weight", lambda: last(equinox(partial(eqx.nn.Conv2d, 3, 6, (3, 2), groups=3), CHW))),
    (TRANSPOSED, FLAX, "kernel", lambda: linen(nn.ConvTranspose(4, (3, 2)), IMAGE)),
    (TRANSPOSED, FLAX, "kernel", lambda: in_nnx(partial(nnx.ConvTranspose, 3, 4, (3, 2)), IMAGE)),
    (FLIPPED, FLAX, "kernel", lambda: linen(nn.ConvTranspose(4, (3, 2), transpose_kernel=True), IMAGE)),
    (
        FLIPPED,
        FLAX,
        "kernel",
        lambda: in_nnx(partial(nnx.ConvTranspose, 3, 4, (3, 2), transpose_kernel=True), IMAGE),
    ),
    (TRANSPOSED, KERAS, "a/kernel", lambda: in_keras(keras().Conv2DTranspose(4, (3, 2), name="a"), IMAGE)),
    (TRANSPOSED, HAIKU, "conv2_d_transpose/w", lambda: in_haiku(lambda x: hk.Conv2DTranspose(4, (3, 2))(x), IMAGE)),
    (TRANSPOSED, EQUINOX, "weight", lambda: last(equinox(partial(eqx.nn.ConvTranspose2d, 3, 4, (3, 2)), CHW))),
    (QUERY, FLAX, "value/kernel", lambda: merged(linen_attention(), "out/kernel", True)),
    (QUERY, FLAX, "value/kernel", lambda: merged(nnx_attention(), "out/kernel", True)),
    (QUERY, KERAS, "a/value/kernel", lambda: merged(keras_attention(), "a/attention_output/kernel", True)),
    (
        QUERY,
        HAIKU,
        "multi_head_attention/value/w",
        lambda: merged(in_haiku(haiku_attention, TOKENS), "multi_head_attention/linear/w", False),
    ),
    (QUERY, EQUINOX, "value_proj/weight", lambda: merged(equinox_attention(), "output_proj/weight", False)),
    (OUTPUT, FLAX, "out/kernel", linen_attention),
    (OUTPUT, FLAX, "out/kernel", nnx_attention),
    (OUTPUT, KERAS, "a/attention_output/kernel", keras_attention),
    (OUTPUT, HAIKU, "multi_head_attention/linear/w", lambda: in_haiku(haiku_attention, TOKENS)),
    (OUTPUT, EQUINOX, "output_proj/weight", equinox_attention),
    (
        CELL,
        FLAX,
        "hi/kernel",
        lambda: hidden(linen(nn.OptimizedLSTMCell(4), (STATE, STATE), ROW), lambda out: out[1]),
    ),
    (
        CELL,
        FLAX,
        "dense_i/kernel",
        lambda: hidden(in_nnx(partial(nnx.OptimizedLSTMCell, 6, 4), (STATE, STATE), ROW), lambda out: out[1]),
    ),
    (
        CELL,
        KERAS,
        "a/lstm_cell/kernel",
        lambda: in_keras(keras().LSTM(4, name="a"), TOKENS[:, :1], initial_state=[STATE, STATE]),
    ),
    (CELL, HAIKU, "lstm/linear/w", lambda: hidden(in_haiku(haiku_lstm, ROW, STATE), lambda out: out[0])),
    (
        CELL,
        EQUINOX,
        "weight_hh",
        lambda: hidden(equinox(partial(eqx.nn.LSTMCell, 6, 4), ROW, (STATE, STATE)), lambda out: out[0]),
    ),
    (EMBEDDING, FLAX, "embedding", lambda: tokens(linen(nn.Embed(7, 3), IDS))),
    (EMBEDDING, FLAX, "embedding", lambda: tokens(in_nnx(partial(nnx.Embed, 7, 3), IDS))),
    (EMBEDDING, KERAS, "a/embeddings", lambda: tokens(in_keras(keras().Embedding(7, 3, name="a"), IDS))),
    (EMBEDDING, HAIKU, "embed/embeddings", lambda: tokens(in_haiku(lambda i: hk.Embed(7, 3)(i), IDS))),
    (EMBEDDING, EQUINOX, "weight", lambda: tokens(equinox(partial(eqx.nn.Embedding, 7, 3), IDS))),
]


@pytest.fixture(autouse=True)
def keras_on_jax(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")


@pytest.mark.parametrize(("layer", "framework", "path", "make"), CASES)
def test_a_group_is_the_incoming_weights_of_one_unit(layer, framework, path, make):
    params, apply = make()
    leaves = {"/".join(p): leaf for p, leaf in flatten(params)[0]}
    if layer == QUERY:  # values show their units; queries and keys have the same shape
        assert leaves[path].shape == leaves[path.replace("value", "query")].shape
        assert leaves[path].shape == leaves[path.replace("value", "key")].shape
    weight, outputs = leaves[path], jax.jit(lambda weight: apply(swap(params, path, weight)))
    plain = np.asarray(outputs(weight))
    axis = AXES[layer, framework]
    inside = {a % weight.ndim for a in (axis if isinstance(axis, tuple) else (axis,))}
    groups = [range(1) if a in inside else range(n) for a, n in enumerate(weight.shape)]
    feeds = []
    for group in itertools.product(*groups):
        where = tuple(slice(None) if a in inside else i for a, i in enumerate(group))
        changed = np.array(weight)
        changed[where] += 0.5 * np.cos(changed[where] + 1)
        feeds.append(np.any(np.asarray(outputs(changed)) != plain, tuple(range(plain.ndim - 1))))
    feeds = np.array(feeds)  # (groups, units)
    assert np.all(feeds.sum(1) == 1)  # a group feeds one unit
    gates = 4 if layer == CELL and len(feeds) > feeds.shape[1] else 1
    assert np.all(feeds.sum(0) == gates)  # and no other group feeds it, but for the gates of a cell


def test_every_entry_of_the_table_is_tested():
    assert AXES.keys() == {(layer, framework) for layer, framework, *_ in CASES}
