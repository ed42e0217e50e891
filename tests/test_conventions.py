"""Other libraries' numbers mean what `jaxreg.conventions` says: by running them, or by values they gave."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn.linear_model import ElasticNet, Lasso, LogisticRegression, Ridge

import jaxreg as jr
from jaxreg import conventions as cv

NAN = float("nan")
W = np.random.default_rng(0).normal(size=(4, 3))


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    """Keras on jax, without the user's settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "jax")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        keras = pytest.importorskip("keras")
    assert jax.config.jax_enable_x64  # importing Keras leaves it alone
    return keras


def descend(tx, gradient, w, steps):
    def step(carry, _):
        w, state = carry
        updates, state = tx.update(gradient(w), state, w)
        return (optax.apply_updates(w, updates), state), None

    return jax.jit(lambda w: jax.lax.scan(step, (w, tx.init(w)), None, steps)[0][0])(w)


@functools.partial(jax.jit, static_argnums=0)
def optimalities(loss, penalties, w):
    gradient = jax.grad(loss)(w)
    return [penalty.optimality(w, gradient) for penalty in penalties]


# ------------------------------------------------------------------ both ways

PAIRS = [  # from, to, their numbers, what both need besides
    (cv.from_keras_l1, cv.to_keras_l1, {"l1": 0.3}, {}),
    (cv.from_keras_l2, cv.to_keras_l2, {"l2": 0.3}, {}),
    (cv.from_keras_l1_l2, cv.to_keras_l1_l2, {"l1": 0.3, "l2": 0.2}, {}),
    (cv.from_torch_weight_decay, cv.to_torch_weight_decay, {"weight_decay": 0.3}, {}),
    (cv.from_loshchilov_hutter, cv.to_loshchilov_hutter, {"lam": 0.3}, {"learning_rate": 0.1}),
    (cv.from_sklearn_ridge, cv.to_sklearn_ridge, {"alpha": 3}, {"num_examples": 50}),
    (cv.from_sklearn_lasso, cv.to_sklearn_lasso, {"alpha": 0.3}, {}),
    (cv.from_sklearn_elastic_net, cv.to_sklearn_elastic_net, {"alpha": 0.3, "l1_ratio": 0.4}, {}),
    (cv.from_sklearn_logistic, cv.to_sklearn_logistic, {"C": 3, "l1_ratio": 0.4}, {"num_examples": 50}),
    (cv.from_glmnet, cv.to_glmnet, {"lam": 0.3, "alpha": 0.4}, {"y_sd": 2.5}),
    (cv.from_textbook, cv.to_textbook, {"lam": 3}, {"num_examples": 50}),
]
each_pair = pytest.mark.parametrize(("there", "back", "numbers", "context"), PAIRS, ids=[p[1].__name__ for p in PAIRS])


@each_pair
def test_round_trip(there, back, numbers, context):
    found = jax.tree.leaves(back(there(**numbers, **context), **context))
    np.testing.assert_allclose(found, list(numbers.values()), rtol=1e-14)
    assert all(isinstance(x, (int, float)) for x in found)  # what Keras and scikit-learn insist on


@each_pair
def test_round_trip_of_batched_tracers(there, back, numbers, context):
    batch = {name: np.array([1.0, 0.5, 0.25]) * x for name, x in numbers.items()}
    found = jax.jit(jax.vmap(lambda x: back(there(**x, **context), **context)))(batch)
    np.testing.assert_allclose(jax.tree.leaves(found), list(batch.values()), rtol=1e-12)


@each_pair
def test_strengths_of_zero(there, back, numbers, context):
    zeros = {name: 3.0 if name == "C" else 0.0 for name, x in numbers.items()}
    both = zeros, jax.tree.map(jnp.asarray, zeros)
    slopes = jax.value_and_grad(lambda x: there(**x, **context).value(W))
    for args, (value, grad) in zip(both, jax.jit(lambda *both: [slopes(x) for x in both])(*both), strict=True):
        assert float(value) == 0 or "C" in zeros
        assert np.all(np.isfinite(jax.tree.leaves(grad)))
        np.testing.assert_allclose(
            jax.tree.leaves(back(there(**args, **context), **context)), jax.tree.leaves(list(zeros.values()))
        )


@each_pair
def test_bad_numbers(there, back, numbers, context):
    for name, x in (numbers | context).items():
        for bad in (-1, NAN):
            with pytest.raises(ValueError, match=rf"`{there.__name__}` needs `{name}` (>=? 0|in \[0, 1\]), got {bad}"):
                there(**(numbers | context | {name: bad}))
        if name in context:
            for bad in (0, -x, NAN):
                with pytest.raises(ValueError, match=f"`{back.__name__}` needs `{name}` > 0, got {bad}"):
                    back(there(**numbers, **context), **{name: bad})
    with pytest.raises(TypeError, match=f"`{back.__name__}` needs .* as `penalty`, got GroupL2"):
        back(jr.GroupL2(1.0), **context)


def test_more_bad_numbers():
    with pytest.raises(ValueError, match="`from_sklearn_logistic` needs `C` > 0, got 0"):
        cv.from_sklearn_logistic(0, 50)
    with pytest.raises(ValueError, match=r"`from_glmnet` needs `alpha` in \[0, 1\], got 1.5"):
        cv.from_glmnet(1.0, 1.5)
    with pytest.raises(TypeError, match="`to_keras_l2` needs SquaredL2 as `penalty`, got L1"):
        cv.to_keras_l2(jr.L1(0.1))
    with pytest.raises(TypeError, match=r"`to_glmnet` needs L1 or SquaredL2 or ElasticNet as `penalty`, got 0\.1"):
        cv.to_glmnet(0.1)


def test_mixtures_take_the_pure_ones():
    assert cv.to_keras_l1_l2(jr.L1(0.5)) == (0.5, 0)
    assert cv.to_keras_l1_l2(jr.SquaredL2(0.5)) == (0, 0.25)
    assert cv.to_sklearn_elastic_net(jr.L1(0.5)) == (0.5, 1)
    assert cv.to_glmnet(jr.SquaredL2(0.5), y_sd=3.0) == (1.5, 0)
    assert cv.to_sklearn_logistic(jr.SquaredL2(0), 50) == (math.inf, 0)
    assert cv.from_sklearn_logistic(math.inf, 50).lam == 0


# ------------------------------------------------------------------ Keras, run


@pytest.mark.parametrize(
    ("theirs", "numbers", "ours"),
    [
        ("L1", {"l1": 0.3}, cv.from_keras_l1),
        ("L2", {"l2": 0.3}, cv.from_keras_l2),
        ("L1L2", {"l1": 0.3, "l2": 0.2}, cv.from_keras_l1_l2),
    ],
)
def test_keras_regularizers(keras, theirs, numbers, ours):
    regularizer = getattr(keras.regularizers, theirs)(**numbers)

    @jax.jit
    def values(w):
        layer = keras.layers.Activation("tanh", activity_regularizer=regularizer)
        activations = layer(w.astype(jnp.float32))
        ours_of_both = ours(**numbers).value(w), jr.activity_penalty(ours(**numbers), activations)
        return ours_of_both, (regularizer(w), layer.losses[0])

    np.testing.assert_allclose(*values(W), rtol=1e-6)


def test_keras_takes_what_comes_back(keras):
    penalty = jr.ElasticNet(0.5, 0.3)
    regularizer = keras.regularizers.L1L2(*cv.to_keras_l1_l2(penalty))
    np.testing.assert_allclose(*jax.jit(lambda w: (regularizer(w), penalty.value(w)))(W), rtol=1e-6)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_keras_weight_decay_is_decoupled(keras, name):
    w = keras.Variable(W.astype(np.float32))
    optimizer = getattr(keras.optimizers, name)(0.1, weight_decay=0.3)
    inner = {"SGD": optax.sgd(0.1), "Adam": optax.adam(0.1, eps=1e-7)}[name]
    tx = optax.chain(inner, jr.decay(cv.from_torch_weight_decay(0.3), 0.1))
    ours = descend(tx, lambda w: jnp.sin(3 * w), np.asarray(w), 3)
    for _ in range(3):
        optimizer.apply([jnp.asarray(np.sin(3 * np.asarray(w)))], [w])
    np.testing.assert_allclose(ours, w, atol=1e-5)  # 1 − 0.999ᵗ in float32


def test_keras_norm_range_and_unit_norm(keras):
    theirs = [keras.constraints.MinMaxNorm(1.1, 1.5, rate=rate, axis=0) for rate in (1.0, 0.3)]
    ours = [jr.NormRange(1.1, 1.5, axis=0, rate=rate) for rate in (1.0, 0.3)] + [jr.Sphere(1.0, axis=0)]
    theirs += [keras.constraints.UnitNorm(axis=0)]
    projections = jax.jit(lambda w: ([con.project(w) for con in ours], [con(w) for con in theirs]))
    np.testing.assert_allclose(*projections(W), rtol=1e-6)


def test_keras_max_norm_shrinks_inside_the_ball(keras):
    theirs, ours = keras.constraints.MaxNorm(5.0, axis=0), jr.L2Ball(5.0, axis=0)

    @jax.jit
    def projections(w, single, large):
        after = jax.lax.fori_loop(0, 100_000, lambda _, w: theirs(w), single)
        return theirs(w)[0, 0], ours.project(w)[0, 0], after[0, 0], ours.project(large), theirs(large)

    w = np.full((1, 1), 0.01)
    shrunk, kept, after, *of_large = projections(w, w.astype(np.float32), 10 * W)
    np.testing.assert_allclose(shrunk, 0.01 / (1 + 1e-5), rtol=1e-9)
    assert float(shrunk) < float(kept) == 0.01
    assert float(after) < 1e-5  # float32 rounds in favour of the decrease
    np.testing.assert_allclose(*of_large, rtol=1e-6)


def test_keras_non_negative(keras):
    theirs = keras.constraints.NonNeg()
    np.testing.assert_array_equal(*jax.jit(lambda w: (jr.NonNegative().project(w), theirs(w)))(W))


# ------------------------------------------------------------------ torch 2.13.0 (CPU, float64), stored

A = np.array([[1.0, 0, 2], [0, 1, 1], [-1, 2, 0], [2, -1, 1]])


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        (
            lambda pen: optax.chain(jr.add_penalty_gradient(pen), optax.sgd(0.01, momentum=0.9)),
            [-1.170181307, -0.3285517459999998, 1.313447559],
        ),
        (
            lambda pen: optax.chain(jr.add_penalty_gradient(pen), optax.adam(0.1)),
            [0.7007626264402774, -1.7007107256442782, 2.7007033596685983],
        ),
        (
            lambda pen: optax.chain(optax.adam(0.1), jr.decay(pen, 0.1)),
            [0.6229323874602309, -1.5354289664626315, 2.448307963319799],
        ),
    ],
    ids=["coupled SGD", "coupled Adam", "decoupled AdamW"],
)
def test_torch_weight_decay(chain, expected):
    # Three steps of torch.optim.SGD(lr=0.01, momentum=0.9), Adam(lr=0.1) and AdamW(lr=0.1), all with weight_decay=0.3,
    # on torch.sum((A @ w - 1) ** 2) from w = [1, -2, 3].
    gradient = jax.grad(lambda w: jnp.sum((A @ w - 1) ** 2))
    w = descend(chain(cv.from_torch_weight_decay(0.3)), gradient, np.array([1.0, -2.0, 3.0]), 3)
    np.testing.assert_allclose(w, expected, rtol=1e-12)


def test_torch_renorm_names_the_axis_that_is_kept():
    # torch.renorm(torch.tensor([[3.0, 0.3], [4.0, 0.4]]), 2, dim, 1.0) for dim = 1 and 0; it divides by norm + 1e-7.
    w = np.array([[3.0, 0.3], [4.0, 0.4]])
    columns, rows = jax.jit(lambda w: [jr.L2Ball(1.0, axis=axis).project(w) for axis in (0, 1)])(w)
    np.testing.assert_allclose(columns, [[0.5999999880000002, 0.3], [0.7999999840000003, 0.4]], rtol=1e-7)
    np.testing.assert_allclose(
        rows, [[0.9950371572066901, 0.099503715720669], [0.9950371654575145, 0.09950371654575146]], rtol=1e-7
    )


def test_batch_norm_running_variance(keras):
    # torch.nn.BatchNorm1d(2, eps=1e-5, momentum=0.1) after one call on x, in training mode: running_var and the output.
    x = np.array([[1.0, 2], [2, 4], [4, 9]])
    torch_variance = [1.1333333333333333, 2.2]
    torch_output = [
        [-1.069041531450298, -1.0190487428175696],
        [-0.2672603828625746, -0.3396829142725233],
        [1.3363019143128718, 1.3587316570900927],
    ]
    biased, unbiased = np.var(x, 0), np.var(x, 0, ddof=1)
    np.testing.assert_allclose(0.9 + 0.1 * unbiased, torch_variance, rtol=1e-12)
    np.testing.assert_allclose((x - np.mean(x, 0)) / np.sqrt(biased + 1e-5), torch_output, rtol=1e-9)

    layer = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    layer.build(x.shape)

    @jax.jit
    def theirs(x, trainable, rest):
        flax = nnx.BatchNorm(2, momentum=0.9, epsilon=1e-5, rngs=nnx.Rngs(0))
        output, (_, variance) = layer.stateless_call(trainable, rest, x, training=True)
        return (flax(x), flax.var[...]), (output, variance)

    values = [[v.value for v in kind] for kind in (layer.trainable_variables, layer.non_trainable_variables)]
    for output, variance in theirs(x.astype(np.float32), *values):
        np.testing.assert_allclose(output, torch_output, rtol=1e-5)
        np.testing.assert_allclose(variance, 0.9 + 0.1 * biased, rtol=1e-6)


def test_loshchilov_hutter_adamw():
    lam, rate, schedule = 0.02, 0.1, lambda t: 0.5 ** (0.25 * t)
    w, m, v = W, 0.0, 0.0
    for t in range(1, 6):  # their algorithm 2, line by line
        g = np.sin(3 * w)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        w = w - schedule(t - 1) * (rate * step + lam * w)

    scheduled = lambda t: rate * schedule(t)
    converted = jr.decay(cv.from_loshchilov_hutter(lam, rate), scheduled)
    for link in (converted, jr.decay(jr.SquaredL2(lam), schedule)):
        tx = optax.chain(optax.adam(scheduled), link)
        np.testing.assert_allclose(descend(tx, lambda w: jnp.sin(3 * w), W, 5), w, rtol=1e-12)


# ------------------------------------------------------------------ scikit-learn, run; glmnet, stored; the textbook

RNG = np.random.default_rng(1)
X = RNG.normal(size=(50, 6))
Y = X @ [2.0, 0, -1, 0, 0.5, 0] + RNG.normal(size=50)
TIGHT = dict(fit_intercept=False, tol=1e-12, max_iter=100_000)
squared = lambda w: jnp.mean((X @ w - Y) ** 2) / 2
logistic = lambda w: jnp.mean(jnp.logaddexp(0, -jnp.sign(Y) * (X @ w)))


@pytest.mark.parametrize(
    ("peer", "loss", "penalty"),
    [
        (Ridge(3.0, **TIGHT), squared, cv.from_sklearn_ridge(3.0, 50)),
        (Lasso(0.1, **TIGHT), squared, cv.from_sklearn_lasso(0.1)),
        (ElasticNet(0.1, l1_ratio=0.3, **TIGHT), squared, cv.from_sklearn_elastic_net(0.1, 0.3)),
        (LogisticRegression(C=0.3, **TIGHT), logistic, cv.from_sklearn_logistic(0.3, 50)),
        (
            LogisticRegression(C=0.3, l1_ratio=1.0, solver="liblinear", **TIGHT),
            logistic,
            cv.from_sklearn_logistic(0.3, 50, 1.0),
        ),
        (
            LogisticRegression(C=0.3, l1_ratio=0.4, solver="saga", **TIGHT),
            logistic,
            cv.from_sklearn_logistic(0.3, 50, 0.4),
        ),
    ],
    ids=["Ridge", "Lasso", "ElasticNet", "LogisticRegression", "l1 LogisticRegression", "mixed LogisticRegression"],
)
def test_scikit_learn_solutions_are_certified(peer, loss, penalty):
    w = np.ravel(peer.fit(X, np.sign(Y) if loss is logistic else Y).coef_)
    wrong = jax.tree.map(lambda x: x / 2, penalty)  # half the strength, and half the ratio where there is one
    ours, of_wrong = optimalities(loss, (penalty, wrong), w)
    assert float(ours) < 1e-6
    assert float(of_wrong) > 1e-2


@pytest.mark.parametrize("standardized", [True, False])
def test_glmnet_divides_a_gaussian_y(standardized):
    # python-glmnet 2.6.1 (glmnet's Fortran): ElasticNet(alpha=0.3, lambda_path=[5, 0.4], standardize=False, n_splits=0,
    # tol=1e-16).fit(X, y), at λ = 0.4.
    X = np.array([[1.0, 0, 2], [0, 1, 1], [-1, 2, 0], [2, -1, 1], [0, 0, -3], [1, 1, 1]])
    y = np.array([5.0, 1, -6, 12, -4, 3])
    w, b = np.array([3.093045680020225, -1.8780087039030404, 1.3601523743938904]), 0.7724307204767777
    scale = np.std(y)
    if standardized:  # as its documentation recommends: then no number differs
        y, w, b = y / scale, w / scale, b / scale
    penalty = cv.from_glmnet(0.4 / scale, 0.3) if standardized else cv.from_glmnet(0.4, 0.3, y_sd=scale)
    loss = lambda w: jnp.mean((X @ w + b - y) ** 2) / 2
    ours, wrong = optimalities(loss, (penalty, cv.from_glmnet(0.4, 0.3)), w)
    assert float(ours) < 1e-6
    assert float(wrong) > 1e-2


def test_textbook():
    loss = lambda w: jnp.mean(jnp.sin(w))

    @jax.jit
    def totals(w):
        textbook = jr.penalized(loss, cv.from_textbook(0.7, 12))(w)[0]
        return textbook, jr.penalized(loss, jr.SquaredL2(0.7), num_examples=12)(w)[0]

    expected = np.mean(np.sin(W)) + 0.7 / (2 * 12) * np.sum(W**2)
    np.testing.assert_allclose(totals(W), [expected] * 2, rtol=1e-12)
