"""Noise: its laws over many draws, what is exact, and bad input."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr
from jaxreg import noise

DRAWS = 10**6
DTYPES = [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64]
RATED = {  # all of f(key, x, rate)
    "dropout": noise.dropout,
    "gaussian_dropout": noise.gaussian_dropout,
    "gaussian_noise": noise.gaussian_noise,
    "alpha_dropout": noise.alpha_dropout,
    "drop_connect": noise.drop_connect,
    "drop_path": noise.drop_path,
}
RNG = np.random.default_rng(0)
rated = pytest.mark.parametrize("name", RATED)
X = np.array([[1.5, -0.0, np.inf], [-2.0, 0.3, np.nan]])


def each(key, x, *rates):
    """All of RATED by name, at each rate."""
    return {name: [apply(key, x, rate) for rate in rates] for name, apply in RATED.items()}


def within(draws, mean, variance, errors=4.5, what=""):
    """Whether the mean and variance of draws are the law's, up to standard errors; exactly so where it has none."""
    draws = np.asarray(draws, np.float64)
    assert abs(draws.mean() - mean) <= errors * np.sqrt(variance / draws.size) + 1e-12, what
    fourth = np.square(np.square(draws - draws.mean())).mean()
    error = np.sqrt(max(fourth - draws.var() ** 2, 0) / draws.size)
    assert abs(draws.var() - variance) <= errors * error + 1e-12, what


def law(name, rate, x):
    """Mean and variance given x."""
    if name == "gaussian_noise":
        return x, rate**2
    if name == "alpha_dropout":
        q, low = 1 - rate, -1.7580993408473766
        a = (q + low**2 * q * (1 - q)) ** -0.5
        return a * (q * x + (1 - q) * low) - a * (1 - q) * low, a**2 * q * (1 - q) * (x - low) ** 2
    return x, x**2 * rate / (1 - rate)


def test_mean_and_variance(key):
    x = np.full(DRAWS, 1.5)
    draw = jax.jit(lambda rate: each(key, x, rate, 0.3))
    some, none, all_ = (draw(rate) for rate in (0.3, 0.0, 1.0))
    for name, (traced, literal) in some.items():
        np.testing.assert_allclose(traced, literal, rtol=1e-14, atol=1e-14, err_msg=name)
        within(traced, *law(name, 0.3, 1.5), what=name)
        within(none[name][0], 1.5, 0.0, what=name)
        assert (np.asarray(all_[name][0]) == 0).all() == (name not in ("gaussian_dropout", "gaussian_noise")), name


def test_rate_zero_is_the_identity_bit_for_bit(key):
    points = [X.astype(dtype) for dtype in DTYPES]
    zeros = jax.jit(lambda *rates: [each(key, x, 0, 0.0, *rates) for x in points])
    for x, found in zip(points, zeros(np.zeros(()), np.zeros((), jnp.bfloat16)), strict=True):
        half = jax.eval_shape(lambda: each(key, x[:1, :1], 0.5))
        for name, outs in found.items():
            assert {out.dtype for out in (*outs, *half[name])} == {x.dtype}, name
            assert {np.asarray(out).tobytes() for out in outs} == {x.tobytes()}, name


def test_gradients_are_finite(key):
    x = np.array([[1.5, -0.0, 3e38, 0.0, -1e-40, 2.0]], np.float32) / np.float32(1e19)

    def slopes(x, rate):
        total = lambda apply: lambda *at: jnp.sum(jnp.where(jnp.isfinite(y := apply(key, *at)), y, 0))
        return {name: jax.grad(total(apply), (0, 1))(x, rate) for name, apply in RATED.items()}

    for name, found in jax.jit(jax.vmap(slopes, (None, 0)))(x, np.array([0.0, 0.3, 1.0])).items():
        assert all(np.isfinite(slope).all() for slope in found), name


def test_rate_one():
    key, x = jax.random.key(1), np.array([1.5, -0.0, 0.0, -2.0])
    ones, near = jax.jit(lambda one: (each(key, x, 1, 1.0, one), each(key, x, 1 - 1e-12)))(np.ones(()))
    for name in ("dropout", "alpha_dropout", "drop_connect", "drop_path"):
        assert (np.asarray(ones[name]) == 0).all(), name
    for at in ones["gaussian_dropout"]:
        np.testing.assert_array_equal(np.sign(near["gaussian_dropout"][0]), np.sign(at))
        assert np.isinf(at)[[0, 3]].all()
        assert (np.asarray(at)[1:3] == 0).all()
    assert np.abs(near["alpha_dropout"]).max() < 1e-5


def test_nothing_stays_nothing(key):
    for name, (out,) in jax.jit(lambda: each(key, np.ones((0, 3)), 0.5))().items():
        assert out.shape == (0, 3), name


def test_traced_rates_are_one_more_axis(key):
    rates, x = np.array([0.0, 0.2, 0.9, 1.0]), RNG.normal(size=(5, 4))
    together = jax.jit(jax.vmap(lambda rate: each(key, x, rate)))(rates)
    for name, found in each(key, x, *rates.tolist()).items():
        np.testing.assert_allclose(together[name][0], found, rtol=1e-14, err_msg=name)


def test_dropout_is_that_of_flax(key):
    with jax.enable_x64(False):  # where flax draws in float32, as its users do
        x = RNG.normal(size=(16, 4, 4, 5)).astype(np.float32)
        layer = lambda rate, dims: nn.Dropout(rate, dims, deterministic=False).apply({}, x, rng=key)
        both = lambda dims: (noise.dropout(key, x, 0.3, broadcast_dims=dims), layer(0.3, dims))
        for ours, theirs in jax.jit(lambda: [both(()), both((1, 2))])():
            np.testing.assert_allclose(ours, theirs, rtol=2e-7)
        with pytest.raises(jax.errors.TracerBoolConversionError):  # why there is ours
            jax.jit(layer, static_argnums=1)(0.5, ())


def test_draws_do_not_depend_on_dtypes(key):
    ones, nothing = np.ones(10**4), np.zeros(10**4)

    @jax.jit
    def draw(*rates):
        pairs = zip((0.3, np.float32(0.3), *rates), DTYPES, strict=True)
        normal = [noise.gaussian_noise(key, nothing.astype(dtype), 1.0) for dtype in (jnp.bfloat16, jnp.float32)]
        return [noise.dropout(key, ones.astype(dtype), rate) for rate, dtype in pairs], normal

    dropped, (coarse, fine) = draw(np.float32(0.3), np.float64(0.3))
    with jax.enable_x64(False):
        dropped.append(jax.jit(lambda: noise.dropout(key, ones.astype(np.float32), 0.3))())
    masks = [np.asarray(y) != 0 for y in dropped]
    assert all((mask == masks[0]).all() for mask in masks)
    np.testing.assert_array_equal(coarse, np.asarray(fine).astype(jnp.bfloat16))


def test_what_shares_one_fate(key):
    x = np.ones((40, 3, 3, 20))

    @jax.jit
    def draw():
        spatial, alpha = (f(key, x, 0.4, broadcast_dims=(1, 2)) for f in (noise.dropout, noise.alpha_dropout))
        return spatial, noise.drop_path(key, x, 0.4), noise.drop_path(key, x, 0.4, batch_axis=-1), alpha

    spatial, path, last, alpha = map(np.asarray, draw())
    assert (spatial == spatial[:, :1, :1]).all()
    assert 0.5 < (spatial[:, 0, 0] > 0).mean() < 0.7
    assert (path == path[:, :1, :1, :1]).all()
    assert 0 < (path > 0).mean() < 1
    assert (last == last[:1, :1, :1]).all()
    assert (alpha == alpha[:, :1, :1]).all()
    assert len(np.unique(alpha)) == 2


def test_alpha_dropout_keeps_mean_and_variance_after_selu(key):
    @jax.jit
    def draw(rate):
        x = jax.nn.selu(jax.random.normal(key, (DRAWS,), jnp.float32))
        return noise.alpha_dropout(jax.random.key(1), x, rate), noise.dropout(key, x, rate)

    for rate in (0.05, 0.3, 0.7):
        dropped, plain = draw(rate)
        within(dropped, 0.0, 1.0, what=rate)
        assert abs(np.asarray(plain).var() - 1) > 0.04, rate  # which dropout does not


def test_drop_connect_on_trees(key):
    kernel, bias = np.ones((50, 50)), np.ones(50)
    params = {"bias": bias, "count": np.arange(3), "hidden": {"kernel": kernel}, "none": None}

    @jax.jit
    def draw(params):
        dropped = noise.drop_connect(key, params, 0.5)
        assert jax.tree.structure(dropped) == jax.tree.structure(params)
        assert dropped["count"] is params["count"]
        lanes = jax.vmap(lambda key: noise.drop_connect(key, {"w": np.ones(200)}, 0.5))(jax.random.split(key, 3))
        return dropped, lanes["w"], noise.drop_connect(key, X, 0.5), noise.dropout(key, X, 0.5)

    dropped, lanes, alone, plain = jax.tree.map(np.asarray, draw(params))
    assert 0.4 < (dropped["bias"] > 0).mean() < 0.9
    assert not (dropped["hidden"]["kernel"][0] == dropped["bias"]).all()
    assert not (lanes[0] == lanes[1]).all()
    np.testing.assert_array_equal(alone, plain)
    only = noise.drop_connect(key, params, {"bias": None, "count": 0.5, "hidden": 0.5, "none": None})
    assert only["bias"] is bias
    assert only["count"] is params["count"]
    within(only["hidden"]["kernel"], 1.0, 1.0)
    with pytest.raises(ValueError, match=r"`drop_connect` needs one rate, or a tree prefix .*'bias'"):
        noise.drop_connect(key, params, {"hidden": 0.5})


def test_a_rate_is_swept():
    def train(rate, seed):
        return noise.dropout(jax.random.key(seed), jnp.ones(1000), rate).mean()

    runs = jr.sweep(train, jr.grid(rate=[0.0, 0.5, 1.0], seed=range(2)))
    values = runs[next(iter(runs.data_vars))].values
    assert (values[0] == 1).all()
    assert (values[2] == 0).all()
    assert 0 < abs(values[1] - 1).max() < 0.2


N = 200  # one batch size: programs of Beta take seconds to compile
mixup = jax.jit(noise.mixup, static_argnames="num_classes")
cutmix = jax.jit(noise.cutmix, static_argnames=("num_classes", "axes"))


@pytest.mark.parametrize(("mix", "dtype"), [(mixup, jnp.bfloat16), (cutmix, jnp.float64)], ids=["mixup", "cutmix"])
def test_shares_of_examples_and_targets_are_one_and_sum_to_one(key, mix, dtype):
    images = np.broadcast_to(np.eye(N, dtype=dtype)[:, None, None], (N, 8, 6, N))
    x, y = map(np.asarray, mix(key, images, np.arange(N), 1.0, num_classes=N))
    assert x.dtype == dtype
    assert y.dtype == (np.float64 if dtype == jnp.float64 else np.float32)
    assert (y.sum(1) == 1).all()
    assert (y >= 0).all()
    np.testing.assert_allclose(x.astype(float).mean((1, 2)), y, atol=1e-6 + float(jnp.finfo(dtype).eps))
    assert len(np.unique(y.max(1))) > (10 if mix is cutmix else 150)
    for before, after in zip((images, np.eye(N)), mix(key, images, np.arange(N), 0.0, num_classes=N), strict=True):
        assert np.asarray(after).tobytes() == np.asarray(before, after.dtype).tobytes()
    assert [out.dtype for out in jax.eval_shape(mix, key, images, y, 0.0)] == [dtype, y.dtype]


def test_the_weights_of_mixup_are_beta(key):
    x = np.arange(2e4)  # gamma draws run one after another on CPUs
    mix = lambda alpha: map(np.asarray, mixup(key, x, x, alpha))
    partner = 2 * next(mix(np.inf)) - x  # where λ = ½
    assert set(partner) == set(x)
    for alpha in (0.2, 1.0):
        weights = ((next(mix(alpha)) - partner) / np.where(x == partner, np.nan, x - partner))[x != partner]
        within(weights, 0.5, 1 / (4 * (2 * alpha + 1)))
    assert all(out.tobytes() == x.tobytes() for out in mix(0.0))
    assert all(np.isnan(out[x != partner]).all() for out in mix(-1.0))  # traced, a bad number is not made a good one


def test_boxes_are_boxes_and_everywhere(key):
    images = np.broadcast_to(np.arange(float(N)).reshape(-1, 1, 1, 1), (N, 8, 6, N))
    x, y = cutmix(key, images, np.zeros(N, int), 1.0, num_classes=N)
    pasted = np.asarray(x) != images
    assert (pasted == pasted[..., :1]).all()
    rows, columns = pasted.any((2, 3)), pasted.any((1, 3))
    assert (pasted[..., 0] == rows[:, :, None] & columns[:, None, :]).all()
    assert (np.abs(np.diff(np.pad(rows, ((0, 0), (1, 1))).astype(int), axis=1)).sum(1) <= 2).all()  # one interval
    assert pasted.mean(0).min() > 0.05
    assert (np.asarray(y)[:, 0] == 1).all()  # a target both share stays


def test_boxes_along_one_axis_of_any_dtype(key):
    wave, targets = np.broadcast_to(np.eye(N, dtype=np.uint8)[:, None], (N, 8, N)), np.c_[np.eye(N), np.ones(N)]
    x, y = map(np.asarray, cutmix(key, wave, targets, 1.0, axes=1))
    assert x.dtype == np.uint8
    np.testing.assert_allclose(x.mean(1), y[:, :N], atol=1e-12)
    assert (y[:, N] == 1).all()
    again = cutmix(key, wave, y, 0.0, axes=1)
    assert all(np.asarray(after).tobytes() == before.tobytes() for before, after in zip((wave, y), again, strict=True))


def test_alpha_is_one_more_axis_without_a_nan_on_the_way(key):
    x, y, alphas = RNG.normal(size=(N, 3, 2, 1)), np.arange(N) % 3, np.array([0.0, 0.2, 1.0])

    def mix(x, alpha):
        x, mixed = noise.mixup(key, x, y, alpha, num_classes=3)
        return noise.cutmix(key, x, mixed, 1 - alpha)

    def loss(x, alpha):
        x, mixed = mix(x, alpha)
        return -jnp.sum(mixed * jax.nn.log_softmax(x.reshape(N, -1)[:, :3])), (x, mixed)

    slopes, together = jax.jit(jax.vmap(jax.grad(loss, has_aux=True), in_axes=(None, 0)))(x, alphas)
    assert np.isfinite(slopes).all()
    for i, alpha in enumerate(alphas.tolist()):
        with jax.debug_nans(True):
            literal = mix(x, alpha)
        for one, all_ in zip(literal, together, strict=True):
            np.testing.assert_allclose(np.asarray(all_)[i], one, rtol=1e-13, atol=1e-13)


@rated
def test_bad_rates(key, name):
    x, word = np.ones((2, 3)), "stddev" if name == "gaussian_noise" else "rate"
    for rate in [-0.1, float("nan"), np.float32(-1)] + [1.1, 2, np.inf] * (word == "rate"):
        with pytest.raises(ValueError, match=f"`{name}` needs `{word}` .*, got"):
            RATED[name](key, x, rate)
    with pytest.raises(ValueError, match=rf"`{name}` needs one number as `{word}`, got shape \(2,\)"):
        RATED[name](key, x, np.ones(2))
    for rate in ("0.5", 0.5j, True):
        with pytest.raises(TypeError, match=f"`{name}` needs a number as `{word}`"):
            RATED[name](key, x, rate)
    with pytest.raises(TypeError, match=f"`{name}` needs floating-point numbers, got int"):
        RATED[name](key, np.arange(3), 0.5)


def test_bad_axes(key):
    x = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"`dropout` needs an array that has the axes broadcast_dims=\(2,\)"):
        noise.dropout(key, x, 0.5, broadcast_dims=(2,))
    with pytest.raises(ValueError, match="`alpha_dropout` needs distinct axes"):
        noise.alpha_dropout(key, x, 0.5, broadcast_dims=(1, -1))
    with pytest.raises(TypeError, match="`dropout` needs ints"):
        noise.dropout(key, x, 0.5, broadcast_dims=(1.0,))
    with pytest.raises(ValueError, match="`drop_path` needs an array that has the axes batch_axis"):
        noise.drop_path(key, np.ones(()), 0.5)
    for axes in ((0, 1), ()):
        with pytest.raises(ValueError, match="`cutmix` needs axes of a box within one example"):
            noise.cutmix(key, x, x, 1.0, axes=axes)


@pytest.mark.parametrize("mix", [noise.mixup, functools.partial(noise.cutmix, axes=1)], ids=["mixup", "cutmix"])
def test_bad_batches(key, mix):
    x, labels = np.ones((4, 3)), np.array([0, 1, 0, 1])
    with pytest.raises(ValueError, match="at least one example, got an empty batch"):
        mix(key, x[:0], labels[:0], 1.0, num_classes=2)
    with pytest.raises(ValueError, match=r"one length along axis 0, got shapes \(4, 3\) and \(3,\)"):
        mix(key, x, labels[:3], 1.0, num_classes=2)
    for classes in (None, 1, 2.0):
        with pytest.raises(ValueError, match=f"`num_classes` of at least 2 with labels of int.*, got {classes}"):
            mix(key, x, labels, 1.0, num_classes=classes)
    for alpha in (-1, float("nan")):
        with pytest.raises(ValueError, match="needs `alpha` ≥ 0, got"):
            mix(key, x, x, alpha)
    with pytest.raises(TypeError, match="`mixup` needs floating-point numbers"):
        noise.mixup(key, labels, labels, 1.0)


def test_the_difference_from_noise_on_gradients(key):
    """`optax.add_noise` is normal noise of a variance that falls, on updates: equal in law at its first step."""
    link, nothing = optax.add_noise(0.25, 0.55, key), np.zeros(DRAWS)

    @jax.jit
    def draw():
        return link.update(nothing, link.init(nothing))[0], noise.gaussian_noise(key, nothing, 0.5)

    for draws in draw():
        within(draws, 0.0, 0.25)


def test_a_traced_number_out_of_range_is_seen_in_what_comes_out(key):
    wrong = np.array([np.nan, -0.5, 1.5])  # 1.5 is a standard deviation
    outs = jax.jit(jax.vmap(lambda rate: each(key, np.array([1.5, -2.0]), rate)))(wrong)
    for name, (out,) in outs.items():
        assert np.isnan(out[:2] if name == "gaussian_noise" else out).all(), name


def test_debugging_nans_finds_none(key):
    x = np.array([0.0, 1.5])
    with jax.debug_nans(True):
        noise.gaussian_dropout(key, x, 0.3)
        noise.dropout(key, x, 0.3)


def test_what_is_its_own_partner_stays(key):
    x = np.array([[0.1, 1e30]])
    assert (np.asarray(mixup(key, x, x, 0.4)[0]) == x).all()
    x = np.ones((N, 8, 6, N), jnp.bfloat16)
    x[..., 0] = np.inf
    out = mixup(key, x, np.arange(N), 1e-6, num_classes=N)[0]
    assert np.isposinf(np.asarray(out)[..., 0]).all()  # shares of exactly 0 and 1


def test_alpha_of_cutmix():
    images = np.broadcast_to(np.arange(float(N)).reshape(-1, 1, 1, 1), (N, 8, 6, N))
    stays = {0.01: [], 50.0: []}
    for alpha, seed in itertools.product(stays, (0, 1)):
        x = cutmix(jax.random.key(seed), images, np.arange(N), alpha, num_classes=N)[0]
        stays[alpha].append(np.asarray(x) == images)
    assert np.mean(stays[0.01]) > 0.5  # λ near 0 or 1, half each; of large boxes some is cut off
    whole = {alpha: np.all(same, (2, 3, 4)).mean() for alpha, same in stays.items()}
    assert 0.4 < whole[0.01] < 0.6
    assert whole[50.0] < 0.05  # λ near ½


def test_numpy_integers_and_trees_without_leaves(key):
    x, labels, axes = np.ones((2, 4, 4, 3)), np.array([True, False]), np.array([1, 2]).tolist()
    mix = functools.partial(noise.cutmix, alpha=1.0, num_classes=np.int64(2), axes=axes)
    assert jax.eval_shape(mix, key, x, labels)[1].shape == (2, 2)
    assert noise.dropout(key, x, 0.5, broadcast_dims=np.int64(1)).shape == x.shape
    assert noise.drop_connect(key, {}, 0.5) == {}


def test_arrays_of_numpy_and_lists_are_taken(key):
    for x in (np.ones((2, 3)), [[1.0] * 3] * 2):
        np.testing.assert_array_equal(noise.dropout(key, x, 0.5), noise.dropout(key, jnp.ones((2, 3)), 0.5))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda key: noise.dropout(key, None, 0.5), TypeError, "`dropout` needs an array of numbers, got NoneType"),
        (lambda key: noise.dropout(key, {"a": 1.0}, 0.5), TypeError, "`dropout` needs an array of numbers, got dict"),
        (lambda key: noise.dropout(key, np.ones(2), None), TypeError, "a number as `rate`, got NoneType"),
        (lambda key: noise.dropout(key, np.ones(2), np.array(2.0)), ValueError, r"`rate` in \[0, 1\], got 2.0"),
        (lambda key: noise.dropout(key, np.ones(2), 0.5, broadcast_dims=None), TypeError, "ints as `broadcast_dims`"),
        (lambda key: noise.mixup(key, np.ones(2), None, 0.5), TypeError, "`mixup` needs an array of targets"),
        (lambda key: noise.mixup(key, np.ones(2), np.ones(2) * 1j, 0.5), TypeError, "real targets or integer labels"),
        (
            lambda key: noise.drop_connect(key, {"a": {"kernel": np.ones(2)}}, {"bias": None}),
            ValueError,
            r"`drop_connect` needs one rate, or a tree prefix .* for the parameters \['a/kernel'\]",
        ),
        (lambda key: noise.cutmix(key, np.ones((2, 0, 4)), np.ones(2), 1.0), ValueError, "one pixel at least"),
    ],
)
def test_plain_mistakes(key, call, error, message):
    with pytest.raises(error, match=message):
        call(key)
