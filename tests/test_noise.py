"""Noise: its laws over many draws, what is exact, and bad input."""

import functools

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
rated = pytest.mark.parametrize("name", RATED)
X = jnp.array([[1.5, -0.0, jnp.inf], [-2.0, 0.3, jnp.nan]])


def within(draws, mean, variance, errors=4.5):
    """Whether the mean and variance of draws are the law's, up to standard errors; exactly so where it has none."""
    draws = np.asarray(draws, np.float64)
    assert abs(draws.mean() - mean) <= errors * np.sqrt(variance / draws.size) + 1e-12
    fourth = ((draws - draws.mean()) ** 4).mean()
    assert abs(draws.var() - variance) <= errors * np.sqrt(max(fourth - draws.var() ** 2, 0) / draws.size) + 1e-12


def law(name, rate, x):
    """Mean and variance given x."""
    if name == "gaussian_noise":
        return x, rate**2
    if name == "alpha_dropout":
        q, low = 1 - rate, -1.7580993408473766
        a = (q + low**2 * q * (1 - q)) ** -0.5
        return a * (q * x + (1 - q) * low) - a * (1 - q) * low, a**2 * q * (1 - q) * (x - low) ** 2
    return x, x**2 * rate / (1 - rate)


@rated
def test_mean_and_variance(key, name):
    apply = jax.jit(lambda rate: RATED[name](key, jnp.full(DRAWS, 1.5), rate))
    traced, literal = apply(0.3), RATED[name](key, jnp.full(DRAWS, 1.5), 0.3)
    np.testing.assert_allclose(traced, literal, rtol=1e-14, atol=1e-14)  # fused or not
    within(traced, *law(name, 0.3, 1.5))
    within(apply(0.0), 1.5, 0.0)
    if name not in ("gaussian_dropout", "gaussian_noise"):
        assert (apply(1.0) == 0).all()


@rated
@pytest.mark.parametrize("dtype", DTYPES)
def test_rate_zero_is_the_identity_bit_for_bit(key, name, dtype):
    x = X.astype(dtype)
    apply = RATED[name]
    literal = jax.jit(lambda x: (apply(key, x, 0), apply(key, x, 0.0), apply(key, x[:1, :1], 0.5)))(x)
    traced = jax.jit(lambda x, *rates: [apply(key, x, rate) for rate in rates])
    for out in (*literal[:2], *traced(x, jnp.zeros(()), jnp.zeros((), jnp.bfloat16))):
        assert out.dtype == dtype
        assert np.asarray(out).tobytes() == np.asarray(x).tobytes()
    assert literal[2].dtype == dtype


@rated
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_gradients_are_finite(key, name, rate):
    x = jnp.array([[1.5, -0.0, 3e38, 0.0, -1e-40, 2.0]], jnp.float32)
    total = lambda x, rate: jnp.sum(jnp.where(jnp.isfinite(y := RATED[name](key, x, rate)), y, 0))
    for slope in jax.jit(jax.grad(total, (0, 1)))(x / 1e19, rate):
        assert jnp.isfinite(slope).all()


def test_rate_one():
    key, x = jax.random.key(1), jnp.array([1.5, -0.0, 0.0, -2.0])
    for name in ("dropout", "alpha_dropout", "drop_connect", "drop_path"):
        for rate in (1, 1.0, jnp.ones(())):
            assert (RATED[name](key, x, rate) == 0).all()
    near, at = (noise.gaussian_dropout(key, x, rate) for rate in (1 - 1e-12, 1.0))
    np.testing.assert_array_equal(jnp.sign(near), jnp.sign(at))
    assert jnp.isinf(at[np.array([0, 3])]).all()
    assert (at[1:3] == 0).all()
    near = noise.alpha_dropout(key, x, 1 - 1e-12)
    assert jnp.max(jnp.abs(near)) < 1e-5


@rated
def test_traced_rates_are_one_more_axis(key, name):
    rates, x = jnp.array([0.0, 0.2, 0.9]), jax.random.normal(key, (5, 4))
    apply = RATED[name]
    together = jax.jit(jax.vmap(lambda rate: apply(key, x, rate)))(rates)
    np.testing.assert_allclose(together, jnp.stack([apply(key, x, float(r)) for r in rates]), rtol=1e-14)


def test_dropout_is_that_of_flax(key):
    with jax.enable_x64(False):  # where flax draws in float32, as its users do
        x = jax.random.normal(key, (16, 4, 4, 5))
        layer = lambda rate, dims: nn.Dropout(rate, dims, deterministic=False).apply({}, x, rng=key)
        for dims in ((), (1, 2)):
            np.testing.assert_allclose(noise.dropout(key, x, 0.3, broadcast_dims=dims), layer(0.3, dims), rtol=2e-7)
        with pytest.raises(jax.errors.TracerBoolConversionError):  # why there is ours
            jax.jit(layer, static_argnums=1)(0.5, ())


def test_draws_do_not_depend_on_dtypes(key):
    rates = [0.3, np.float32(0.3), jnp.float32(0.3), jnp.float64(0.3)]
    masks = [noise.dropout(key, jnp.ones(10**4, dtype), rate) != 0 for rate, dtype in zip(rates, DTYPES, strict=True)]
    with jax.enable_x64(False):
        masks.append(noise.dropout(key, jnp.ones(10**4), 0.3) != 0)
    assert all((mask == masks[0]).all() for mask in masks)
    coarse, fine = (noise.gaussian_noise(key, jnp.zeros(10**4, dtype), 1.0) for dtype in (jnp.bfloat16, jnp.float32))
    np.testing.assert_array_equal(coarse, fine.astype(jnp.bfloat16))


def test_what_shares_one_fate(key):
    x = jnp.ones((40, 3, 3, 20))
    spatial, path = noise.dropout(key, x, 0.4, broadcast_dims=(1, 2)), noise.drop_path(key, x, 0.4)
    assert (spatial == spatial[:, :1, :1]).all()
    assert 0.5 < (spatial[:, 0, 0] > 0).mean() < 0.7
    assert (path == path[:, :1, :1, :1]).all()
    assert 0 < (path > 0).mean() < 1
    last = noise.drop_path(key, x, 0.4, batch_axis=-1)
    assert (last == last[:1, :1, :1]).all()
    alpha = noise.alpha_dropout(key, x, 0.4, broadcast_dims=(1, 2))
    assert (alpha == alpha[:, :1, :1]).all()
    assert len(np.unique(alpha)) == 2


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.7])
def test_alpha_dropout_keeps_mean_and_variance_after_selu(key, rate):
    x = jax.nn.selu(jax.random.normal(key, (DRAWS,), jnp.float32))
    dropped = jax.jit(noise.alpha_dropout)(jax.random.key(1), x, rate)
    within(dropped, 0.0, 1.0)
    assert abs(noise.dropout(key, x, rate).var() - 1) > 0.04  # which dropout does not


def test_drop_connect_on_trees(key):
    params = {"bias": jnp.ones(50), "count": jnp.arange(3), "hidden": {"kernel": jnp.ones((50, 50))}, "none": None}
    dropped = noise.drop_connect(key, params, 0.5)
    assert jax.tree.structure(dropped) == jax.tree.structure(params)
    assert dropped["count"] is params["count"]
    assert 0.4 < (dropped["bias"] > 0).mean() < 0.9
    assert not (dropped["hidden"]["kernel"][0] == dropped["bias"]).all()
    only = noise.drop_connect(key, params, {"bias": None, "count": None, "hidden": 0.5, "none": None})
    assert only["bias"] is params["bias"]
    within(only["hidden"]["kernel"], 1.0, 1.0)
    np.testing.assert_array_equal(noise.drop_connect(key, X, 0.5), noise.dropout(key, X, 0.5))
    each = jax.jit(jax.vmap(lambda key: noise.drop_connect(key, {"w": jnp.ones(200)}, 0.5)))(jax.random.split(key, 3))[
        "w"
    ]
    assert not (each[0] == each[1]).all()
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


@pytest.mark.parametrize(("mix", "dtype"), [(noise.mixup, jnp.bfloat16), (noise.cutmix, jnp.float64)])
def test_shares_of_examples_and_targets_are_one_and_sum_to_one(key, mix, dtype):
    images = jnp.eye(N, dtype=dtype)[:, None, None, :] * jnp.ones((1, 8, 6, 1), dtype)
    x, y = mix(key, images, jnp.arange(N), 1.0, num_classes=N)
    assert x.dtype == dtype
    assert y.dtype == (jnp.float64 if dtype == jnp.float64 else jnp.float32)
    assert (y.sum(1) == 1).all()
    assert (y >= 0).all()
    np.testing.assert_allclose(np.asarray(x, np.float64).mean((1, 2)), y, atol=1e-6 + float(jnp.finfo(dtype).eps))
    assert len(np.unique(y.max(1))) > (10 if mix is noise.cutmix else 150)
    again = mix(key, images, y, 0.0)
    for before, after in zip((images, y), again, strict=True):
        assert after.dtype == before.dtype
        assert np.asarray(after).tobytes() == np.asarray(before).tobytes()


def test_the_weights_of_mixup_are_beta(key):
    x, mix = jnp.arange(1e5), jax.jit(noise.mixup)
    partner = 2 * mix(key, x, x, jnp.inf)[0] - x  # where λ = ½
    assert set(np.asarray(partner)) == set(range(10**5))
    for alpha in (0.2, 1.0):
        mixed = mix(key, x, x, alpha)[0]
        weights = np.divide(mixed - partner, x - partner)[x != partner]
        within(weights, 0.5, 1 / (4 * (2 * alpha + 1)))
    assert jnp.isnan(mix(key, x, x, -1.0)[1]).all()  # traced, a bad number is not made a good one


def test_boxes_are_boxes_and_everywhere(key):
    images = jnp.broadcast_to(jnp.arange(float(N)).reshape(-1, 1, 1, 1), (N, 6, 5, 2))
    x, y = noise.cutmix(key, images, jnp.ones((N, 1)), 1.0)
    pasted = np.asarray(x != images)
    assert (pasted == pasted[..., :1]).all()
    rows, columns = pasted.any((2, 3)), pasted.any((1, 3))
    assert (pasted[..., 0] == rows[:, :, None] & columns[:, None, :]).all()
    assert (np.abs(np.diff(np.pad(rows, ((0, 0), (1, 1))).astype(int), axis=1)).sum(1) <= 2).all()  # one interval
    assert pasted.mean(0).min() > 0.05
    assert (y == 1).all()  # a target both share stays
    wave = jnp.eye(N)[:, None, :] * jnp.ones((1, 8, 1))
    x, y = noise.cutmix(key, wave, jnp.eye(N), 1.0, axes=1)
    np.testing.assert_allclose(x.mean(1), y, atol=1e-12)
    pictures = jnp.ones((N, 4, 4), jnp.uint8)
    assert noise.cutmix(key, pictures, jnp.ones(N), 1.0)[0].dtype == jnp.uint8


def test_alpha_is_one_more_axis_and_gradients_are_finite(key):
    x, y, alphas = jax.random.normal(key, (N, 3, 2, 1)), jnp.arange(N) % 3, jnp.array([0.0, 0.2, 1.0])

    def loss(x, alpha):
        x, mixed = noise.mixup(key, x, y, alpha, num_classes=3)
        x, mixed = noise.cutmix(key, x, mixed, 1 - alpha)
        return -jnp.sum(mixed * jax.nn.log_softmax(x.reshape(N, -1)[:, :3])), (x, mixed)

    slopes, together = jax.jit(jax.vmap(jax.grad(loss, has_aux=True), in_axes=(None, 0)))(x, alphas)
    assert jnp.isfinite(slopes).all()
    for i, alpha in enumerate(alphas):
        for one, all_ in zip(loss(x, float(alpha))[1], together, strict=True):
            np.testing.assert_allclose(all_[i], one, rtol=1e-13, atol=1e-13)


@rated
def test_bad_rates(key, name):
    x, word = jnp.ones((2, 3)), "stddev" if name == "gaussian_noise" else "rate"
    for rate in [-0.1, float("nan"), np.float32(-1)] + [1.1, 2, jnp.inf] * (word == "rate"):
        with pytest.raises(ValueError, match=f"`{name}` needs `{word}` .*, got"):
            RATED[name](key, x, rate)
    with pytest.raises(ValueError, match=rf"`{name}` needs one number as `{word}`, got shape \(2,\)"):
        RATED[name](key, x, jnp.ones(2))
    for rate in ("0.5", 0.5j, True):
        with pytest.raises(TypeError, match=f"`{name}` needs a number as `{word}`"):
            RATED[name](key, x, rate)
    with pytest.raises(TypeError, match=f"`{name}` needs floating-point numbers, got int"):
        RATED[name](key, jnp.arange(3), 0.5)
    assert RATED[name](key, jnp.ones((0, 3)), 0.5).shape == (0, 3)


def test_bad_axes(key):
    x = jnp.ones((2, 3))
    with pytest.raises(ValueError, match=r"`dropout` needs an array that has the axes broadcast_dims=\(2,\)"):
        noise.dropout(key, x, 0.5, broadcast_dims=(2,))
    with pytest.raises(ValueError, match="`alpha_dropout` needs distinct axes"):
        noise.alpha_dropout(key, x, 0.5, broadcast_dims=(1, -1))
    with pytest.raises(TypeError, match="`dropout` needs ints"):
        noise.dropout(key, x, 0.5, broadcast_dims=(1.0,))
    with pytest.raises(ValueError, match="`drop_path` needs an array that has the axes batch_axis"):
        noise.drop_path(key, jnp.ones(()), 0.5)
    for axes in ((0, 1), ()):
        with pytest.raises(ValueError, match="`cutmix` needs axes of a box within one example"):
            noise.cutmix(key, x, x, 1.0, axes=axes)


@pytest.mark.parametrize("mix", [noise.mixup, functools.partial(noise.cutmix, axes=1)], ids=["mixup", "cutmix"])
def test_bad_batches(key, mix):
    x, labels = jnp.ones((4, 3)), jnp.array([0, 1, 0, 1])
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
    link = optax.add_noise(0.25, 0.55, key)
    theirs, _ = link.update(jnp.zeros(DRAWS), link.init(jnp.zeros(DRAWS)))
    within(theirs, 0.0, 0.25)
    within(noise.gaussian_noise(key, jnp.zeros(DRAWS), 0.5), 0.0, 0.25)


@rated
def test_a_traced_number_out_of_range_is_seen_in_what_comes_out(key, name):
    wrong = jnp.array([jnp.nan, -0.5] if name == "gaussian_noise" else [jnp.nan, -0.5, 1.5])
    x = jnp.array([1.5, -2.0])
    assert jnp.isnan(jax.jit(jax.vmap(lambda rate: RATED[name](key, x, rate)))(wrong)).all()


def test_debugging_nans_finds_none(key):
    x = jnp.array([0.0, 1.5])
    with jax.debug_nans(True):
        noise.gaussian_dropout(key, x, 0.3)
        noise.dropout(key, x, 0.3)
        noise.mixup(key, x, x, 0.0)


def test_what_is_its_own_partner_stays(key):
    x = jnp.array([[0.1, 1e30]])
    assert (noise.mixup(key, x, x, 0.4)[0] == x).all()
    x = jnp.array([[jnp.inf, 1.0], [jnp.inf, 2.0], [jnp.inf, 3.0]])
    assert jnp.isposinf(noise.mixup(key, x, x, 1e-6)[0][:, 0]).all()  # shares of exactly 0 and 1


def test_alpha_of_cutmix(key):
    labels = jnp.arange(400)
    images = jnp.broadcast_to(labels.astype(float).reshape(-1, 1, 1, 1), (400, 8, 8, 1))
    untouched = {
        alpha: (noise.cutmix(key, images, images[:, :1, 0, 0], alpha)[0] == images).mean() for alpha in (0.01, 50.0)
    }
    assert untouched[0.01] > 0.5  # λ near 0 or 1, half each; of large boxes some is cut off
    share = (noise.cutmix(key, images, images[:, :1, 0, 0], 0.01)[0] == images).all((1, 2, 3)).mean()
    assert 0.4 < share < 0.6
    assert (noise.cutmix(key, images, images[:, :1, 0, 0], 50.0)[0] == images).all((1, 2, 3)).mean() < 0.05  # λ near ½


def test_numpy_integers_and_trees_without_leaves(key):
    x, labels = jnp.ones((2, 4, 4, 3)), jnp.array([True, False])
    assert noise.cutmix(key, x, labels, 1.0, num_classes=np.int64(2), axes=np.array([1, 2]).tolist())[1].shape == (2, 2)
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
        (lambda key: noise.dropout(key, jnp.ones(2), None), TypeError, "a number as `rate`, got NoneType"),
        (lambda key: noise.dropout(key, jnp.ones(2), np.array(2.0)), ValueError, r"`rate` in \[0, 1\], got 2.0"),
        (lambda key: noise.dropout(key, jnp.ones(2), 0.5, broadcast_dims=None), TypeError, "ints as `broadcast_dims`"),
        (lambda key: noise.mixup(key, jnp.ones(2), None, 0.5), TypeError, "`mixup` needs an array of targets"),
        (lambda key: noise.mixup(key, jnp.ones(2), jnp.ones(2) * 1j, 0.5), TypeError, "real targets or integer labels"),
        (
            lambda key: noise.drop_connect(key, {"a": {"kernel": jnp.ones(2)}}, {"bias": None}),
            ValueError,
            r"`drop_connect` needs one rate, or a tree prefix .* for the parameters \['a/kernel'\]",
        ),
        (lambda key: noise.cutmix(key, jnp.ones((2, 0, 4)), jnp.ones(2), 1.0), ValueError, "one pixel at least"),
    ],
)
def test_plain_mistakes(key, call, error, message):
    with pytest.raises(error, match=message):
        call(key)
