"""Every diagnostic against counts by NumPy, on trees of every framework, under jit and vmap."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn.linear_model import LinearRegression
from test_frameworks import MODELS, filled

import jaxreg as jr
from jaxreg.pytree import flatten

diag = jr.diagnostics
RNG = np.random.default_rng(0)


def sparse(params):
    """The same tree with about a third of its entries at 0."""
    cut = lambda p: jnp.where(jnp.abs(p) < 0.5, 0, p)
    return jax.tree.map(cut, params)


def plain():
    shapes = {"hidden": {"kernel": (4, 6), "bias": (6,)}, "conv": {"kernel": (2, 2, 3, 5)}, "scale": ()}
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), shapes, is_leaf=lambda s: type(s) is tuple)


TREES = {"plain": plain} | {
    name: make for name, (make, _, _) in MODELS.items() if name in ("linen scan", "nnx", "equinox", "haiku")
}


@pytest.mark.parametrize(
    ("tree", "dtype"), [(tree, jnp.float32) for tree in TREES] + [("plain", jnp.bfloat16), ("plain", jnp.float64)]
)
def test_trees_against_numpy(tree, dtype):
    params = jax.tree.map(lambda p: p.astype(dtype), sparse(filled(TREES[tree]())))
    leaves = {"/".join(path): np.asarray(leaf, np.float64) for path, leaf in flatten(params)[0]}
    wide = jnp.promote_types(dtype, jnp.float32)
    turn = lambda p: jnp.flip(p).astype(p.dtype)

    def measure(params):
        turned = jax.tree.map(turn, params)
        return diag.norms(params), diag.zeros(params), diag.penalties(jr.L1(0.5), params), diag.angles(params, turned)

    stack = jax.tree.map(lambda p: jnp.stack([p, jnp.zeros_like(p)]), params)
    norms, zeros, penalties, angles = jax.jit(jax.vmap(measure))(stack)
    assert set(norms) == set(zeros) == set(penalties) == set(angles) == set(leaves)
    for path, leaf in leaves.items():
        assert norms[path].dtype == penalties[path].dtype == angles[path].dtype == wide
        np.testing.assert_allclose(norms[path][0], np.sqrt((leaf**2).sum()), rtol=1e-5)
        assert zeros[path].count[0] == (leaf == 0).sum()
        np.testing.assert_allclose(zeros[path].share[0], (leaf == 0).mean(), rtol=1e-6)
        np.testing.assert_allclose(penalties[path][0], 0.5 * np.abs(leaf).sum(), rtol=1e-5)
        cosine = (leaf * np.flip(leaf)).sum() / max((leaf**2).sum(), 1e-30) if leaf.any() else 1
        np.testing.assert_allclose(np.cos(angles[path][0]), cosine, atol=1e-5)
        assert norms[path][1] == angles[path][1] == 0
        assert zeros[path].share[1] == 1
    np.testing.assert_allclose(sum(part[0] for part in penalties.values()), jr.value(jr.L1(0.5), params), rtol=1e-5)


@pytest.mark.parametrize("model", ["nnx", "equinox", "haiku"])
def test_groups_of_each_framework(model):
    make, pattern, axis = MODELS[model]
    params = sparse(filled(make()))
    norms, zeros = diag.norms(params, pattern, axis=axis), diag.zeros(params, pattern, axis=axis)
    kernels = {"/".join(path): np.asarray(leaf) for path, leaf in flatten(params)[0] if path[-1] == pattern[2:]}
    assert norms.keys() == zeros.keys() == kernels.keys()
    for path, kernel in kernels.items():
        np.testing.assert_allclose(norms[path], np.linalg.norm(kernel, axis=axis), rtol=1e-5)
        assert np.array_equal(zeros[path].count, (kernel == 0).sum(axis))


def test_what_is_left_out():
    """Counters, None, masked leaves and penalties of None have no entry; the empty group has no zeros."""
    params = {
        "w": jnp.ones(3),
        "step": jnp.array(3),
        "none": None,
        "masked": optax.MaskedNode(),
        "empty": jnp.ones((0, 2)),
    }
    assert set(diag.norms(params)) == {"w", "empty"}
    count, share = diag.zeros(params)["empty"]
    assert count == share == 0
    assert diag.norms(params, "empty", axis=0)["empty"].tolist() == [0, 0]
    pens = {"w": jr.SquaredL2(2.0), "step": None, "none": None, "masked": None, "empty": None}
    assert {path: part.item() for path, part in diag.penalties(pens, params).items()} == {"w": 3.0}
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    assert set(diag.norms(model, "*/kernel", axis=0)) == {"kernel"}
    assert diag.norms(jnp.array([3.0, 4.0])) == {"": 5.0}


def test_angles_near_0_and_near_pi():
    x = jnp.ones(1000, jnp.float32)
    y = x.at[0].add(1e-3)
    exact = 1e-3 * np.sqrt(999) / 1000  # the part of e₀ across x, over ‖x‖
    np.testing.assert_allclose(diag.angles(x, y)[""], exact, rtol=1e-3)  # arccos has no digit of it in float32
    np.testing.assert_allclose(diag.angles(x, -3 * x)[""], np.pi, rtol=1e-6)
    np.testing.assert_allclose(diag.angles(x, 0 * x)[""], np.pi / 2, rtol=1e-6)
    kernel = RNG.normal(size=(4, 3))
    across = diag.angles(kernel, kernel + kernel[:, ::-1], axis=0)[""]
    u, v = (a / np.linalg.norm(a, axis=0) for a in (kernel, kernel + kernel[:, ::-1]))
    np.testing.assert_allclose(across, np.arccos(np.minimum((u * v).sum(0), 1)), atol=1e-7)


def test_dead_units():
    before, after = RNG.normal(size=(5, 6)), RNG.normal(size=(6, 2))
    before[:, 1] *= 1e-4
    after[3] = 0
    before[:, 4], after[4] = before[:, 4] * 1e-5, after[4] * 1e5  # one way or the other, it computes the same
    strength = np.linalg.norm(before, axis=0) * np.linalg.norm(after, axis=1)
    np.testing.assert_allclose(diag.unit_strengths(before, after), strength, rtol=1e-12)
    dead = [False, True, False, True, False, False]
    assert jax.jit(diag.dead_units)(before, after).tolist() == dead
    assert diag.dead_units(before.T, after.T, axis=1, outgoing_axis=0).tolist() == dead  # (out, in)
    shares = jax.jit(jax.vmap(lambda tolerance: diag.dead_units(before, after, tolerance).mean()))(
        jnp.array([0.0, 1e-3, 1e9])
    )
    np.testing.assert_allclose(shares, [0, 2 / 6, 1])
    first, second = RNG.normal(size=(3, 3, 2, 4)), RNG.normal(size=(3, 3, 4, 5))
    first[..., 2] = 0
    channels = diag.dead_units(first, second, axis=(0, 1, 2), outgoing_axis=(0, 1, 3))
    assert channels.tolist() == [False, False, True, False]
    net = nn.Dense(3).init(jax.random.key(0), jnp.ones((1, 2)))["params"]
    layer = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    assert not diag.dead_units(net["kernel"], layer.kernel).any()  # an nnx Variable is an array


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_activations(dtype):
    z = jnp.asarray(RNG.normal(size=(8, 3, 3, 4)), dtype).at[..., 1].set(-1.0)
    a = jax.nn.relu(z)
    assert jax.jit(lambda a: diag.silent_units(a, axis=(0, 1, 2)))(a).tolist() == [False, True, False, False]
    flat = np.asarray(a, np.float64).reshape(-1, 4)
    tolerances = np.array([0.0, flat.max(0).mean(), 9.0])
    found = jax.jit(jax.vmap(lambda t: diag.silent_units(a, t, axis=(0, 1, 2))))(tolerances.astype(np.float32))
    assert np.array_equal(found, (flat[None] <= tolerances[:, None, None].astype(np.float32)).all(1))
    inside = np.abs(np.asarray(z, np.float64)) < 0.5
    np.testing.assert_allclose(jax.jit(diag.linear_share)(z), inside.mean(), rtol=1e-6)
    np.testing.assert_allclose(diag.linear_share(z, axis=(0, 1, 2)), inside.mean((0, 1, 2)), rtol=1e-6)
    shares = jax.jit(jax.vmap(lambda t: diag.linear_share(z, t)))(jnp.array([0.0, 0.25, 1e9]))
    np.testing.assert_allclose(shares, [0, (np.abs(np.asarray(z, np.float64)) < 0.25).mean(), 1], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_linear_r2_against_sklearn(dtype):
    x = RNG.normal(size=(60, 5))
    x[:, 3], x[:, 4] = 7.0, 2 * x[:, 0]  # a constant, and a copy
    x = np.asarray(jnp.asarray(x, dtype), np.float64)
    gains = np.array([0.0, 1e-12, 0.1, 1.0, 10.0])
    W = RNG.normal(size=(5, 3))
    outputs = [np.asarray(jnp.asarray(np.tanh(g * x @ W), dtype), np.float64) for g in gains]
    found = jax.jit(jax.vmap(diag.linear_r2, (None, 0)))(jnp.asarray(x, dtype), jnp.asarray(outputs, dtype))
    for r2, y in zip(found[1:], outputs[1:], strict=True):
        expected = _r2(x, y)
        np.testing.assert_allclose(r2, expected, atol=1e-4 if dtype != jnp.float64 else 1e-12)
    assert found[0] == 1  # constant
    assert diag.linear_r2(x, np.full(60, 0.1)) == 1
    assert diag.linear_r2(x[:, None], outputs[3].reshape(60, 1, 3)).shape == ()


def _r2(x, y):
    """Of all outputs in one sum."""
    rest = y - LinearRegression().fit(x, y).predict(x)
    return 1 - (rest**2).sum() / ((y - y.mean(0)) ** 2).sum()


def test_ridge_degrees_of_freedom():
    X, weight = RNG.normal(size=(12, 4)), RNG.uniform(0.5, 2, 12)
    lams = np.array([0.0, 0.1, 3.0, np.inf])
    Z = X - X.mean(0)
    hat = [np.trace(Z @ np.linalg.solve(Z.T @ Z + 12 * lam * np.eye(4), Z.T)) for lam in lams[:3]]
    found = jax.jit(diag.ridge_degrees_of_freedom)(X, lams)
    np.testing.assert_allclose(found, [*hat, 0], rtol=1e-9)
    np.testing.assert_allclose(found[:3], jr.convex.ridge(X, X[:, 0], lams[:3])["df"], rtol=1e-9)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(lambda lam: diag.ridge_degrees_of_freedom(X, lam)))(lams), found, rtol=1e-9
    )
    weighted = jr.convex.ridge(X, X[:, 0], lams[:3], sample_weight=weight, fit_intercept=False)["df"]
    ours = diag.ridge_degrees_of_freedom(X, lams[:3], weight, fit_intercept=False)
    np.testing.assert_allclose(ours, weighted, rtol=1e-9)
    short = diag.ridge_degrees_of_freedom(jnp.asarray(X, jnp.bfloat16), 0.1)
    assert short.dtype == jnp.float32
    np.testing.assert_allclose(short, found[1], rtol=1e-2)


def test_lasso_degrees_of_freedom():
    X = RNG.normal(size=(20, 6)) * np.logspace(-3, 3, 6)
    X[:, 5], X[:, 4] = X[:, 0] * 5, 0.1  # a copy in other units, and a constant
    y = X[:, 1] + RNG.normal(size=20)
    X = X / np.where(X.std(0) > 1e-9, X.std(0), 1) * np.logspace(-2, 2, 6)
    masks = RNG.random((9, 6)) < 0.6
    coef = np.where(masks, RNG.normal(size=(9, 6)), 0)
    Z = X[:, :4] - X[:, :4].mean(0)
    expected = [np.linalg.matrix_rank(Z[:, [0, *np.flatnonzero(m[1:4]) + 1]]) - (not (m[0] or m[5])) for m in masks]
    found = jax.jit(jax.vmap(lambda w: diag.lasso_degrees_of_freedom(X, w)))(coef)
    assert found.tolist() == expected
    assert diag.lasso_degrees_of_freedom(X, coef.T[:, :3]).item() == sum(expected[:3])  # three targets
    path = jr.convex.path(jr.convex.Squared(), jr.L1(1.0), X[:, :4], y, num=5)
    ours = [diag.lasso_degrees_of_freedom(X[:, :4], w) for w in path["coef"].values]
    np.testing.assert_array_equal(ours, path["df"].values)


BAD = [
    ("matches none", lambda: diag.norms({"w": jnp.ones(2)}, "*/kernel")),
    ("a glob such as", lambda: diag.zeros({"w": jnp.ones(2)}, 0)),
    ("`norms` needs None or distinct axes", lambda: diag.norms({"w": jnp.ones(2)}, axis=1)),
    ("`zeros` needs None or distinct axes", lambda: diag.zeros({"w": jnp.ones((2, 2))}, axis=(0, -2))),
    ("needs penalties", lambda: diag.penalties(jr.L2Ball(1.0), {"w": jnp.ones(2)})),
    ("two trees alike", lambda: diag.angles({"w": jnp.ones(2)}, {"w": jnp.ones(3)})),
    ("two trees alike", lambda: diag.angles({"w": jnp.ones(2)}, {"v": jnp.ones(2)})),
    ("as many units before as after", lambda: diag.dead_units(jnp.ones((2, 3)), jnp.ones((4, 1)))),
    ("`outgoing_axis`", lambda: diag.unit_strengths(jnp.ones((2, 3)), jnp.ones(3))),
    ("one example at least", lambda: diag.silent_units(jnp.ones((0, 3)))),
    ("one pre-activation at least", lambda: diag.linear_share(jnp.ones((0, 3)))),
    ("real numbers", lambda: diag.linear_share(jnp.ones(3, complex))),
    ("more examples than 3 features", lambda: diag.linear_r2(jnp.ones((4, 3)), jnp.ones(4))),
    ("outputs for each input", lambda: diag.linear_r2(jnp.ones((9, 3)), jnp.ones(4))),
    ("with examples and features", lambda: diag.ridge_degrees_of_freedom(jnp.ones((0, 3)), 1.0)),
    ("of shape", lambda: diag.lasso_degrees_of_freedom(jnp.ones((4, 3)), jnp.ones(2))),
]


@pytest.mark.parametrize(("message", "call"), BAD, ids=[message for message, _ in BAD])
def test_bad_input(message, call):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_linear_r2_does_not_depend_on_units(dtype):
    x = np.random.default_rng(0).normal(size=(300, 2))
    outputs = jnp.asarray(2 * x[:, 1] + x[:, 0] ** 2, dtype)
    expected = jr.diagnostics.linear_r2(jnp.asarray(x, dtype), outputs)
    for inputs, unit in (([1e6, 1], 1), ([1e6, 1e-6], 1), ([1, 1], 1e-9), ([1, 1], 1e9)):
        scaled = jr.diagnostics.linear_r2(jnp.asarray(x * inputs, dtype), unit * outputs)
        np.testing.assert_allclose(scaled, expected, rtol=1e-5)


def test_no_parameter_is_lost():
    with pytest.raises(ValueError, match="`norms` needs parameters with distinct paths"):
        jr.diagnostics.norms({"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}})
    with pytest.raises(ValueError, match=r"`angles` needs two trees alike: \['b'\] are only in the second"):
        jr.diagnostics.angles({"a": jnp.ones(1)}, {"a": jnp.ones(1), "b": jnp.ones(1)})
    with pytest.raises(ValueError, match="needs `weight` of shape"):
        jr.diagnostics.ridge_degrees_of_freedom(jnp.ones((3, 2)), 1.0, jnp.ones(4))


def test_trees_and_what_sow_stores_are_refused_by_name():
    with pytest.raises(TypeError, match=r"^`silent_units` needs an array, got a tuple"):
        jr.diagnostics.silent_units((jnp.ones((3, 2)),))
    with pytest.raises(TypeError, match=r"^`dead_units` needs an array, got a dict"):
        jr.diagnostics.dead_units({"kernel": jnp.ones((3, 2))}, {"kernel": jnp.ones((2, 3))})
    with pytest.raises(ValueError, match=r"^`dead_units` needs as many units"):
        jr.diagnostics.dead_units(jnp.ones((3, 2)), jnp.ones((4, 1)))
