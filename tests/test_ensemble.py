"""Bootstrap weights, mixtures and calibration against NumPy; one member is itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import brier_score_loss

import jaxreg as jr

ens = jr.ensemble
MEMBERS, CASES, CLASSES = 4, 7, 3
RNG = np.random.default_rng(0)
LOGITS = 3 * RNG.normal(size=(MEMBERS, CASES, CLASSES))
LABELS = RNG.integers(CLASSES, size=CASES)
MEAN, VARIANCE, Y = RNG.normal(size=(MEMBERS, CASES)), RNG.uniform(0.1, 2, (MEMBERS, CASES)), RNG.normal(size=CASES)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_bootstrap_weights_are_multinomial_counts(key):
    n, members = 50, 4000
    weights = np.asarray(ens.bootstrap_weights(key, n, members))
    assert weights.dtype == np.float32
    assert weights.shape == (members, n)
    assert np.array_equal(weights.sum(1), np.full(members, n))
    assert np.array_equal(weights, np.round(weights))
    assert (weights >= 0).all()
    counts = weights[:, 0]  # of one example: Binomial(n, 1/n), independent over members
    se = np.sqrt((1 - 1 / n) / members)
    assert abs(counts.mean() - 1) < 5 * se
    assert abs(weights.var(0).mean() - (1 - 1 / n)) < 0.01
    expected = np.append(stats.binom.pmf(np.arange(4), n, 1 / n), stats.binom.sf(3, n, 1 / n)) * members
    seen = np.bincount(np.minimum(counts, 4).astype(int), minlength=5)
    assert stats.chisquare(seen, expected).pvalue > 1e-4
    covariance = np.cov(weights[:, 0], weights[:, 1])[0, 1]
    assert abs(covariance + 1 / n) < 5 / np.sqrt(members)
    assert abs((weights == 0).mean() - (1 - 1 / n) ** n) < 0.005  # out of bag


def test_bayesian_bootstrap_weights_are_dirichlet(key):
    n, members = 20, 4000
    weights = np.asarray(ens.bayesian_bootstrap_weights(key, n, members))
    np.testing.assert_allclose(weights.sum(1), n, rtol=1e-6)
    assert (weights > 0).all()
    assert stats.kstest(weights[:, 0] / n, stats.beta(1, n - 1).cdf).pvalue > 1e-4
    assert abs(weights.var(0).mean() - (n - 1) / (n + 1)) < 0.02


@pytest.mark.parametrize("weights", [ens.bootstrap_weights, ens.bayesian_bootstrap_weights])
def test_weights_under_jit_and_vmap(weights, key):
    keys = jax.random.split(key, 3)
    drawn = jax.jit(jax.vmap(lambda key: weights(key, 9)))(keys)
    assert drawn.shape == (3, 9)
    np.testing.assert_allclose(drawn, [weights(key, 9) for key in keys], rtol=1e-6)
    assert len({tuple(row) for row in np.asarray(drawn)}) == 3
    assert weights(key, 1).tolist() == [1.0]


def test_weights_are_the_sample():
    """A weighted fit is the fit to the copies, and all members train in one program."""
    x, y = RNG.normal(size=(12, 2)), RNG.normal(size=12)
    weights = ens.bootstrap_weights(jax.random.key(3), 12, 5)

    def fit(w):
        return jnp.linalg.solve(x.T @ (w[:, None] * x), x.T @ (w * y))

    members = jax.jit(jax.vmap(fit))(weights)
    for w, member in zip(np.asarray(weights).astype(int), members, strict=True):
        copies = np.repeat(np.arange(12), w)
        np.testing.assert_allclose(member, np.linalg.lstsq(x[copies], y[copies])[0], rtol=1e-9)


def test_moments_are_those_of_the_mixture():
    m = jax.jit(ens.moments)(MEAN, VARIANCE)
    np.testing.assert_allclose(m.mean, MEAN.mean(0), rtol=1e-12)
    second = (VARIANCE + MEAN**2).mean(0)  # E y² of the mixture
    np.testing.assert_allclose(m.variance, second - MEAN.mean(0) ** 2, rtol=1e-9)
    np.testing.assert_allclose(m.within, VARIANCE.mean(0), rtol=1e-12)
    np.testing.assert_allclose(ens.moments(MEAN, ddof=1).between, MEAN.var(0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(ens.moments(MEAN.T, 0.5, axis=-1).variance, MEAN.var(0) + 0.5, rtol=1e-12)
    across = jax.jit(jax.vmap(ens.moments, in_axes=(1, 1)))(MEAN, VARIANCE)
    np.testing.assert_allclose(across.variance, m.variance, rtol=1e-12)


def test_negative_log_likelihoods():
    each = -stats.norm.logpdf(Y, MEAN, np.sqrt(VARIANCE))
    np.testing.assert_allclose(jax.jit(jax.vmap(ens.gaussian_nll, (0, 0, None)))(MEAN, VARIANCE, Y), each, rtol=1e-12)
    mixture = -np.log(np.exp(-each).mean(0))
    np.testing.assert_allclose(jax.jit(ens.gaussian_mixture_nll)(MEAN, VARIANCE, Y), mixture, rtol=1e-12)
    np.testing.assert_allclose(ens.gaussian_mixture_nll(MEAN.T, VARIANCE.T, Y, axis=-1), mixture, rtol=1e-12)
    p = softmax(LOGITS).mean(0)
    picked = -np.log(p[np.arange(CASES), LABELS])
    for axis in (0, 1, -2):
        logits = np.moveaxis(LOGITS, 0, axis)
        np.testing.assert_allclose(ens.mixture_nll(logits, LABELS, axis=axis), picked)
        np.testing.assert_allclose(np.exp(ens.mixture_logits(logits, axis=axis)), p)
    by_label = jax.jit(jax.vmap(ens.mixture_nll, (1, 0)))(LOGITS, LABELS)
    np.testing.assert_allclose(by_label, picked)
    members = -np.log(softmax(LOGITS)[:, np.arange(CASES), LABELS])
    assert (picked <= members.mean(0)).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_an_ensemble_of_one_is_the_member(dtype):
    mean, variance, logits = (jnp.asarray(a[:1], dtype) for a in (MEAN, VARIANCE, LOGITS))
    wide = jnp.promote_types(dtype, jnp.float32)
    m = jax.jit(ens.moments)(mean, variance)
    assert m.mean.dtype == m.variance.dtype == wide
    assert np.array_equal(m.mean, mean[0].astype(wide))
    assert np.array_equal(m.variance, variance[0].astype(wide))
    y = jnp.asarray(Y, dtype)
    assert np.array_equal(ens.gaussian_mixture_nll(mean, variance, y), ens.gaussian_nll(mean, variance, y[None])[0])
    log_probs = jax.nn.log_softmax(logits[0].astype(wide))
    assert np.array_equal(ens.mixture_logits(logits), log_probs)
    nll = ens.mixture_nll(logits, LABELS)
    assert nll.dtype == wide
    assert np.array_equal(nll, -log_probs[np.arange(CASES), LABELS])


def test_gradients_are_finite_where_a_class_is_masked():
    logits = jnp.asarray(LOGITS).at[:, :, 0].set(-jnp.inf)
    labels = np.maximum(LABELS, 1)
    slope = jax.jit(jax.grad(lambda z: ens.mixture_nll(z, labels).sum()))(logits)
    assert np.isfinite(slope).all()
    far = jax.jit(jax.grad(lambda m: ens.gaussian_mixture_nll(m, 1.0, 0.0).sum()))(jnp.array([1e3, 2e3]))
    assert np.isfinite(far).all()  # exp(−10⁶/2) underflows


def test_calibration_against_numpy():
    n, bins = 300, 10
    logits, labels = 2 * RNG.normal(size=(n, CLASSES)), RNG.integers(CLASSES, size=n)
    p = softmax(logits)
    confidence, right = p.max(1), p.argmax(1) == labels
    error = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    found = jax.jit(lambda z: ens.calibration_error(z, labels, bins=bins))(logits)
    np.testing.assert_allclose(found, error, rtol=1e-12)
    diagram = ens.reliability(logits, labels, bins=bins)
    assert diagram.count.sum() == n
    assert diagram.count[0] == diagram.accuracy[0] == diagram.confidence[0] == 0  # of three classes, one has 1/3
    np.testing.assert_allclose((diagram.count * diagram.accuracy).sum() / n, right.mean())
    truth = np.eye(CLASSES)[labels]
    np.testing.assert_allclose(ens.brier_score(logits, labels), ((p - truth) ** 2).sum(1), rtol=1e-12)
    two = logits[:, :2]
    sklearn = brier_score_loss(labels % 2, softmax(two)[:, 1])
    np.testing.assert_allclose(ens.brier_score(two, labels % 2).mean(), 2 * sklearn, rtol=1e-12)
    sweep = jax.jit(jax.vmap(lambda t: ens.calibration_error(t * logits, labels)))(jnp.array([0.0, 1.0, 1e4]))
    always = abs((labels == 0).mean() - 1 / CLASSES)  # t = 0: the first class, with probability 1/3
    np.testing.assert_allclose(sweep[jnp.array([0, 2])], [always, 1 - right.mean()], rtol=1e-6)


BAD = [
    ("n` >= 1, got 0", lambda k: ens.bootstrap_weights(k, 0)),
    ("an int as `n`, got 2.0", lambda k: ens.bootstrap_weights(k, 2.0)),
    ("an int as `n`", lambda k: jax.jit(ens.bootstrap_weights)(k, 3)),
    ("members` >= 1, got 0", lambda k: ens.bayesian_bootstrap_weights(k, 3, 0)),
    ("two members at least", lambda k: ens.moments(MEAN[:1], ddof=1)),
    ("one member at least", lambda k: ens.moments(MEAN[:0])),
    ("axis 2 of members", lambda k: ens.moments(MEAN, axis=2)),
    ("real numbers as `mean`", lambda k: ens.moments(MEAN + 0j)),
    ("`variance` > 0", lambda k: ens.gaussian_nll(0.0, 0.0, 1.0)),
    (r"`y` of shape \(7, 1\)", lambda k: ens.gaussian_nll(MEAN[0][:, None], 1.0, Y)),
    (r"`y` of shape \(7,\)", lambda k: ens.gaussian_mixture_nll(MEAN, 1.0, Y[:, None])),
    ("one member at least", lambda k: ens.mixture_logits(LOGITS[:0])),
    ("two classes at least", lambda k: ens.mixture_logits(LOGITS[..., :1])),
    ("other than the last", lambda k: ens.mixture_nll(LOGITS, LABELS, axis=-1)),
    ("`mixture_logits` needs .* other than the last", lambda k: ens.mixture_logits(LOGITS, axis=-1)),
    ("other than the last", lambda k: ens.mixture_nll(LOGITS, LABELS, axis=2)),
    ("integers as `labels`", lambda k: ens.mixture_nll(LOGITS, LABELS + 0.5)),
    (r"`labels` of shape \(7,\)", lambda k: ens.mixture_nll(LOGITS, LABELS[:3])),
    ("one example at least", lambda k: ens.calibration_error(LOGITS[0, :0], LABELS[:0])),
    ("an int >= 1 as `bins`", lambda k: ens.reliability(LOGITS[0], LABELS, bins=0)),
    ("two classes at least", lambda k: ens.brier_score(LOGITS[0, :, :1], LABELS)),
]


@pytest.mark.parametrize(("message", "call"), BAD, ids=[message for message, _ in BAD])
def test_bad_input(message, call, key):
    with pytest.raises((TypeError, ValueError), match=message):
        call(key)


def test_a_class_masked_in_all_members_has_no_gradient():
    logits = jnp.array([[[-jnp.inf, 0.0, 2.0]], [[-jnp.inf, 1.0, 0.5]]])
    both = jax.jit(jax.grad(lambda z: jr.ensemble.mixture_logits(z)[..., 1].sum()))(logits)
    assert jnp.isfinite(both).all()
    assert jnp.isneginf(jr.ensemble.mixture_logits(logits)[..., 0]).all()
    alone = jax.jit(jax.grad(lambda z: jr.ensemble.mixture_logits(z)[..., 1].sum()))(logits[:1])
    expected = jax.jit(jax.grad(lambda z: jax.nn.log_softmax(z)[..., 1].sum()))(logits[:1])
    np.testing.assert_allclose(alone, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda: jr.ensemble.gaussian_nll(jnp.zeros(7), jnp.ones((7, 1)), jnp.zeros(7)),
        lambda: jr.ensemble.moments(jnp.zeros((3, 3)), jnp.ones(3)),
        lambda: jr.ensemble.moments(jnp.zeros((4, 7)), jnp.ones((7, 4))),
        lambda: jr.ensemble.gaussian_mixture_nll(jnp.zeros((4, 3)), jnp.ones(4), jnp.ones(3)),
    ],
)
def test_variances_of_another_shape_are_refused(call):
    with pytest.raises(ValueError, match=r"^`\w+` needs `variance` of shape .* got \("):
        call()
    with pytest.raises(ValueError, match="`gaussian_mixture_nll` needs `y` of shape"):
        jr.ensemble.gaussian_mixture_nll(jnp.zeros(2), 1.0, jnp.ones(5))


def test_labels_that_are_no_class_give_nan_and_members_are_told_of():
    logits, labels = jnp.zeros((2, 3)), jnp.array([1, 9])
    assert jnp.isnan(jr.ensemble.brier_score(logits, labels)).tolist() == [False, True]
    assert jnp.isnan(jr.ensemble.calibration_error(logits, labels))
    with pytest.raises(ValueError, match=r"^`calibration_error` needs `labels` .* `mixture_logits` takes it away"):
        jr.ensemble.calibration_error(jnp.zeros((5, 2, 3)), labels)
