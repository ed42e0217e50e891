"""Every diagnostic against counts by NumPy, on trees of every framework, under jit and vmap."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn.linear_model import LinearRegression
from test_frameworks import MODELS

import jaxreg as jr
from jaxreg.pytree import flatten

diag = jr.diagnostics
RNG = np.random.default_rng(0)
DTYPES = [jnp.bfloat16, jnp.float32, jnp.float64]


def sparse(shapes, dtype=None):
    """A tree of these shapes with about a third of its entries at 0."""
    wave = lambda p: np.cos(np.arange(np.prod(p.shape))).reshape(p.shape)
    return jax.tree.map(lambda p: np.where(np.abs(w := wave(p)) < 0.5, 0, w).astype(dtype or p.dtype), shapes)


def plain():
    shapes = {"hidden": {"kernel": (4, 6), "bias": (6,)}, "conv": {"kernel": (2, 2, 3, 5)}, "scale": ()}
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), shapes, is_leaf=lambda s: type(s) is tuple)


TREES = {"plain": plain} | {
    name: make for name, (make, _, _) in MODELS.items() if name in ("linen scan", "nnx", "equinox", "haiku")
}


@jax.jit
@jax.vmap
def measure(params):
    turned = jax.tree.map(jnp.flip, params)
    penalties, value = diag.penalties(jr.L1(0.5), params), jr.value(jr.L1(0.5), params)
    return diag.norms(params), diag.zeros(params), penalties, diag.angles(params, turned), value


@pytest.mark.parametrize(
    ("tree", "dtype"), [(tree, jnp.float32) for tree in TREES] + [("plain", jnp.bfloat16), ("plain", jnp.float64)]
)
def test_trees_against_numpy(tree, dtype):
    params = sparse(TREES[tree](), dtype)
    leaves = {"/".join(path): np.asarray(leaf, np.float64) for path, leaf in flatten(params)[0]}
    wide = jnp.promote_types(dtype, jnp.float32)
    stack = jax.tree.map(lambda p: np.stack([p, np.zeros_like(p)]), params)
    norms, zeros, penalties, angles, value = jax.tree.map(np.asarray, measure(stack))
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
    np.testing.assert_allclose(sum(part[0] for part in penalties.values()), value[0], rtol=1e-5)


def test_groups_of_each_framework():
    models = ("nnx", "equinox", "haiku")
    trees = [sparse(MODELS[model][0]()) for model in models]

    @jax.jit
    def by_group(*trees):
        each = [(params, *MODELS[model][1:]) for model, params in zip(models, trees, strict=True)]
        return [(diag.norms(p, pattern, axis=axis), diag.zeros(p, pattern, axis=axis)) for p, pattern, axis in each]

    for model, params, (norms, zeros) in zip(models, trees, by_group(*trees), strict=True):
        _, pattern, axis = MODELS[model]
        kernels = {"/".join(path): np.asarray(leaf) for path, leaf in flatten(params)[0] if path[-1] == pattern[2:]}
        assert norms.keys() == zeros.keys() == kernels.keys(), model
        for path, kernel in kernels.items():
            np.testing.assert_allclose(norms[path], np.linalg.norm(kernel, axis=axis), rtol=1e-5, err_msg=model)
            assert np.array_equal(zeros[path].count, (kernel == 0).sum(axis)), model
            np.testing.assert_allclose(zeros[path].share, (kernel == 0).mean(axis), rtol=1e-6, err_msg=model)


def test_what_is_left_out():
    """Counters, None, masked leaves and penalties of None have no entry; the empty group has no zeros."""
    left = {"step": np.array(3), "none": None, "masked": optax.MaskedNode()}
    params = {"w": np.ones(2), "empty": np.ones((0, 2))} | left
    norms, zeros, empty = jax.jit(lambda p: (diag.norms(p), diag.zeros(p), diag.norms(p, "empty", axis=0)))(params)
    assert set(norms) == {"w", "empty"}
    count, share = zeros["empty"]
    assert count == share == 0
    assert empty["empty"].tolist() == [0, 0]
    pens = {"w": jr.SquaredL2(3.0), "step": None, "none": None, "masked": None, "empty": None}
    assert {path: part.item() for path, part in diag.penalties(pens, params).items()} == {"w": 3.0}
    model = nnx.eval_shape(lambda: nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    assert set(jax.eval_shape(lambda model: diag.norms(model, "*/kernel", axis=0), model)) == {"kernel"}
    assert diag.norms(np.array([3.0, 4.0])) == {"": 5.0}
    assert diag.zeros(np.array([3.0, 0.0])) == {"": (1, 0.5)}


def test_angles_near_0_and_near_pi():
    x = np.ones(1000, np.float32)
    y = x + np.eye(1, 1000, dtype=np.float32)[0] * np.float32(1e-3)
    exact = 1e-3 * np.sqrt(999) / 1000  # the part of e₀ across x, over ‖x‖
    expected = [exact, np.pi, np.pi / 2]  # arccos has no digit of the first in float32
    others = np.stack([y, -3 * x, 0 * x])
    eager = diag.angles(x, y)[""]
    lanes = jax.jit(jax.vmap(lambda other: diag.angles(x, other)[""]))(others)
    np.testing.assert_allclose(lanes[1:], expected[1:], rtol=1e-6)
    np.testing.assert_allclose([eager, lanes[0]], exact, rtol=1e-3)
    kernel = RNG.normal(size=(4, 3))
    across = jax.jit(lambda other: diag.angles(kernel, other, axis=0)[""])(kernel + kernel[:, ::-1])
    u, v = (a / np.linalg.norm(a, axis=0) for a in (kernel, kernel + kernel[:, ::-1]))
    np.testing.assert_allclose(across, np.arccos(np.minimum((u * v).sum(0), 1)), atol=1e-7)


def test_dead_units():
    before, after = RNG.normal(size=(5, 6)), RNG.normal(size=(6, 2))
    before[:, 1] *= 1e-4
    after[3] = 0
    before[:, 4], after[4] = before[:, 4] * 1e-5, after[4] * 1e5  # one way or the other, it computes the same
    first, second = RNG.normal(size=(3, 3, 2, 4)), RNG.normal(size=(3, 3, 4, 5))
    first[..., 2] = 0

    @jax.jit
    def found(before, after, first, second, tolerances):
        return {
            "strengths": diag.unit_strengths(before, after),
            "dead": diag.dead_units(before, after),
            "transposed": diag.dead_units(before.T, after.T, axis=1, outgoing_axis=0),  # (out, in)
            "shares": jax.vmap(lambda tolerance: diag.dead_units(before, after, tolerance).mean())(tolerances),
            "channels": diag.dead_units(first, second, axis=(0, 1, 2), outgoing_axis=(0, 1, 3)),
        }

    out = jax.tree.map(np.asarray, found(before, after, first, second, np.array([0.0, 1e-3, 1e9])))
    strength = np.linalg.norm(before, axis=0) * np.linalg.norm(after, axis=1)
    np.testing.assert_allclose(out["strengths"], strength, rtol=1e-12)
    assert out["dead"].tolist() == out["transposed"].tolist() == [False, True, False, True, False, False]
    np.testing.assert_allclose(out["shares"], [0, 2 / 6, 1])
    assert out["channels"].tolist() == [False, False, True, False]
    variable = nnx.Param(jnp.asarray(after))  # an nnx Variable is an array
    assert diag.dead_units(jnp.asarray(before), variable).tolist() == out["dead"].tolist()


def test_activations():
    zs = [RNG.normal(size=(8, 3, 3, 4)).astype(dtype) for dtype in DTYPES]
    units = dict(axis=(0, 1, 2))
    for z in zs:
        z[..., 1] = -1

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0, 0))
    def found(zs, tolerances, thresholds):
        each = []
        for z, tolerance in zip(zs, tolerances, strict=True):
            a = jax.nn.relu(z)
            silent = diag.silent_units(a, **units), diag.silent_units(a, tolerance, **units)
            linear = diag.linear_share(z), diag.linear_share(z, **units), diag.linear_share(z, thresholds)
            each.append((*silent, *linear))
        return each

    flats = [np.maximum(z.astype(float), 0).reshape(-1, 4) for z in zs]
    tolerances = np.array([[0.0, flat.max(0).mean(), 9.0] for flat in flats], np.float32).T
    for z, flat, t, out in zip(zs, flats, tolerances.T, found(zs, tolerances, np.array([0, 0.25, 1e9])), strict=True):
        silent, silent_at, share, shares, share_at = map(np.asarray, out)
        size = np.abs(z.astype(float))
        assert silent[0].tolist() == [False, True, False, False], z.dtype
        assert np.array_equal(silent_at, (flat <= t[:, None, None]).all(1)), z.dtype
        np.testing.assert_allclose(share[0], (size < 0.5).mean(), rtol=1e-6)
        np.testing.assert_allclose(shares[0], (size < 0.5).mean((0, 1, 2)), rtol=1e-6)
        np.testing.assert_allclose(share_at, [0, (size < 0.25).mean(), 1], rtol=1e-6)
    np.testing.assert_allclose(diag.linear_share(z, **units), shares[0], rtol=1e-6)


def test_linear_r2_against_sklearn():
    x = RNG.normal(size=(60, 5))
    x[:, 3], x[:, 4] = 7.0, 2 * x[:, 0]  # a constant, and a copy
    gains, W = np.array([0.0, 1e-12, 0.1, 1.0, 10.0]), RNG.normal(size=(5, 3))
    inputs = [x.astype(dtype) for dtype in DTYPES]
    outputs = [np.tanh(gains[:, None, None] * (x.astype(float) @ W)).astype(x.dtype) for x in inputs]

    @jax.jit
    def found(inputs, outputs):
        image = diag.linear_r2(inputs[2][:, None], outputs[2][3].reshape(60, 1, 3))
        each = [jax.vmap(diag.linear_r2, (None, 0))(x, ys) for x, ys in zip(inputs, outputs, strict=True)]
        return each, image

    each, image = found(inputs, outputs)
    for x, ys, r2 in zip(inputs, outputs, each, strict=True):
        expected = [_r2(x.astype(float), y.astype(float)) for y in ys[1:]]
        np.testing.assert_allclose(r2[1:], expected, atol=1e-4 if x.dtype != np.float64 else 1e-12)
        assert np.asarray(r2)[0] == 1  # constant
    np.testing.assert_allclose(diag.linear_r2(x, ys[-1]), np.asarray(r2)[-1], rtol=1e-12)
    assert diag.linear_r2(x, np.full(ys[-1].shape, 0.1)) == 1  # up to the rounding of its mean
    assert image.shape == ()


def _r2(x, y):
    """Of all outputs in one sum."""
    rest = y - LinearRegression().fit(x, y).predict(x)
    return 1 - (rest**2).sum() / ((y - y.mean(0)) ** 2).sum()


def test_ridge_degrees_of_freedom():
    X, weight = RNG.normal(size=(12, 4)), RNG.uniform(0.5, 2, 12)
    lams = np.array([0.0, 0.1, 3.0, np.inf])
    Z = X - X.mean(0)
    hat = [np.trace(Z @ np.linalg.solve(Z.T @ Z + 12 * lam * np.eye(4), Z.T)) for lam in lams[:3]]

    @jax.jit
    def df(X, lams, weight):
        ours = diag.ridge_degrees_of_freedom
        lanes = jax.vmap(lambda lam: ours(X, lam))(lams)
        return ours(X, lams), lanes, ours(X, lams, weight, fit_intercept=False), ours(X.astype(jnp.bfloat16), 0.1)

    found, lanes, ours, short = map(np.asarray, df(X, lams, weight))
    np.testing.assert_allclose(found, [*hat, 0], rtol=1e-9)
    np.testing.assert_allclose(found[:3], jr.convex.ridge(X, X[:, 0], lams[:3])["df"], rtol=1e-9)
    np.testing.assert_allclose(lanes, found, rtol=1e-9)
    np.testing.assert_allclose(diag.ridge_degrees_of_freedom(X, lams), found, rtol=1e-9)
    weighted = jr.convex.ridge(X, X[:, 0], lams[:3], sample_weight=weight, fit_intercept=False)["df"]
    np.testing.assert_allclose(ours[:3], weighted, rtol=1e-9)
    assert short.dtype == np.float32
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
    path = jr.convex.path(jr.convex.Squared(), jr.L1(1.0), X[:, :4], y, num=5)
    df = jax.vmap(diag.lasso_degrees_of_freedom, (None, 0))
    found, ours = jax.jit(lambda: (df(X, coef), df(X[:, :4], path["coef"].values)))()
    assert found.tolist() == expected
    np.testing.assert_array_equal(ours, path["df"].values)
    assert diag.lasso_degrees_of_freedom(X, coef.T[:, :3]).item() == sum(expected[:3])  # three targets


BAD = [
    ("matches none", lambda: diag.norms({"w": np.ones(2)}, "*/kernel")),
    ("a glob such as", lambda: diag.zeros({"w": np.ones(2)}, 0)),
    ("`norms` needs None or distinct axes", lambda: diag.norms({"w": np.ones(2)}, axis=1)),
    ("`zeros` needs None or distinct axes", lambda: diag.zeros({"w": np.ones((2, 2))}, axis=(0, -2))),
    ("needs penalties", lambda: diag.penalties(jr.L2Ball(1.0), {"w": np.ones(2)})),
    ("two trees alike", lambda: diag.angles({"w": np.ones(2)}, {"w": np.ones(3)})),
    ("two trees alike", lambda: diag.angles({"w": np.ones(2)}, {"v": np.ones(2)})),
    ("as many units before as after", lambda: diag.dead_units(np.ones((2, 3)), np.ones((4, 1)))),
    ("`outgoing_axis`", lambda: diag.unit_strengths(np.ones((2, 3)), np.ones(3))),
    ("one example at least", lambda: diag.silent_units(np.ones((0, 3)))),
    ("one pre-activation at least", lambda: diag.linear_share(np.ones((0, 3)))),
    ("real numbers", lambda: diag.linear_share(np.ones(3, complex))),
    ("more examples than 3 features", lambda: diag.linear_r2(np.ones((4, 3)), np.ones(4))),
    ("outputs for each input", lambda: diag.linear_r2(np.ones((9, 3)), np.ones(4))),
    ("with examples and features", lambda: diag.ridge_degrees_of_freedom(np.ones((0, 3)), 1.0)),
    ("of shape", lambda: diag.lasso_degrees_of_freedom(np.ones((4, 3)), np.ones(2))),
]


@pytest.mark.parametrize(("message", "call"), BAD, ids=[message for message, _ in BAD])
def test_bad_input(message, call):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_linear_r2_does_not_depend_on_units(dtype):
    x = RNG.normal(size=(300, 2))
    outputs = (2 * x[:, 1] + x[:, 0] ** 2).astype(dtype)
    inputs = np.array([[1, 1], [1e6, 1], [1e6, 1e-6], [1, 1], [1, 1]])
    units = np.array([1, 1, 1, 1e-9, 1e9], dtype)
    scaled = jax.jit(jax.vmap(diag.linear_r2))((inputs[:, None] * x).astype(dtype), units[:, None] * outputs)
    np.testing.assert_allclose(scaled, np.repeat(np.asarray(scaled)[0], 5), rtol=1e-5)


def test_no_parameter_is_lost():
    with pytest.raises(ValueError, match="`norms` needs parameters with distinct paths"):
        jr.diagnostics.norms({"a/b": np.ones(1), "a": {"b": np.ones(1)}})
    with pytest.raises(ValueError, match=r"`angles` needs two trees alike: \['b'\] are only in the second"):
        jr.diagnostics.angles({"a": np.ones(1)}, {"a": np.ones(1), "b": np.ones(1)})
    with pytest.raises(ValueError, match="needs `weight` of shape"):
        jr.diagnostics.ridge_degrees_of_freedom(np.ones((3, 2)), 1.0, np.ones(4))


def test_trees_and_what_sow_stores_are_refused_by_name():
    with pytest.raises(TypeError, match=r"^`silent_units` needs an array, got a tuple"):
        jr.diagnostics.silent_units((np.ones((3, 2)),))
    with pytest.raises(TypeError, match=r"^`dead_units` needs an array, got a dict"):
        jr.diagnostics.dead_units({"kernel": np.ones((3, 2))}, {"kernel": np.ones((2, 3))})
    with pytest.raises(ValueError, match=r"^`dead_units` needs as many units"):
        jr.diagnostics.dead_units(np.ones((3, 2)), np.ones((4, 1)))
