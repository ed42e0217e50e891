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
    weights = np.asarray(jax.jit(lambda: ens.bootstrap_weights(key, n, members))())
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
    weights = np.asarray(jax.jit(lambda: ens.bayesian_bootstrap_weights(key, n, members))())
    np.testing.assert_allclose(weights.sum(1), n, rtol=1e-6)
    assert (weights > 0).all()
    assert stats.kstest(weights[:, 0] / n, stats.beta(1, n - 1).cdf).pvalue > 1e-4
    assert abs(weights.var(0).mean() - (n - 1) / (n + 1)) < 0.02


@pytest.mark.parametrize("weights", [ens.bootstrap_weights, ens.bayesian_bootstrap_weights])
def test_weights_under_jit_and_vmap(weights, key):
    keys = jax.random.split(key, 3)
    drawn, alone, one = jax.jit(lambda: (jax.vmap(lambda k: weights(k, 9))(keys), weights(key, 9), weights(key, 1)))()
    assert drawn.shape == (3, 9)
    np.testing.assert_allclose(drawn, [weights(k, 9) for k in keys], rtol=1e-6)
    np.testing.assert_allclose(weights(key, 9), alone, rtol=1e-6)
    assert len({tuple(row) for row in np.asarray(drawn)}) == 3
    assert one.tolist() == [1.0]


def test_weights_are_the_sample():
    """A weighted fit is the fit to the copies, and all members train in one program."""
    x, y, key = RNG.normal(size=(12, 2)), RNG.normal(size=12), jax.random.key(3)

    def fit(w):
        return jnp.linalg.solve(x.T @ (w[:, None] * x), x.T @ (w * y))

    @jax.jit
    def train():
        weights = ens.bootstrap_weights(key, 12, 5)
        return weights, jax.vmap(fit)(weights)

    for w, member in zip(*map(np.asarray, train()), strict=True):
        copies = np.repeat(np.arange(12), w.astype(int))
        np.testing.assert_allclose(member, np.linalg.lstsq(x[copies], y[copies])[0], rtol=1e-9)


def test_moments_are_those_of_the_mixture():
    @jax.jit
    def found(mean, variance):
        across = jax.vmap(ens.moments, in_axes=(1, 1))(mean, variance).variance
        last = ens.moments(mean.T, 0.5, axis=-1).variance
        return ens.moments(mean, variance), ens.moments(mean, ddof=1).between, last, across

    m, between, last, across = found(MEAN, VARIANCE)
    np.testing.assert_allclose(m.mean, MEAN.mean(0), rtol=1e-12)
    second = (VARIANCE + MEAN**2).mean(0)  # E y² of the mixture
    np.testing.assert_allclose(m.variance, second - MEAN.mean(0) ** 2, rtol=1e-9)
    np.testing.assert_allclose(m.within, VARIANCE.mean(0), rtol=1e-12)
    np.testing.assert_allclose(between, MEAN.var(0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(last, MEAN.var(0) + 0.5, rtol=1e-12)
    np.testing.assert_allclose(across, m.variance, rtol=1e-12)
    np.testing.assert_allclose(ens.moments(MEAN, VARIANCE), m, rtol=1e-12)


def test_negative_log_likelihoods():
    @jax.jit
    def found(mean, variance, y, logits, labels):
        members = {axis: jnp.moveaxis(logits, 0, axis) for axis in (0, 1, -2)}
        return {
            "members": jax.vmap(ens.gaussian_nll, (0, 0, None))(mean, variance, y),
            "mixture": ens.gaussian_mixture_nll(mean, variance, y),
            "last": ens.gaussian_mixture_nll(mean.T, variance.T, y, axis=-1),
            "picked": [ens.mixture_nll(z, labels, axis=axis) for axis, z in members.items()],
            "logits": [ens.mixture_logits(z, axis=axis) for axis, z in members.items()],
            "by label": jax.vmap(ens.mixture_nll, (1, 0))(logits, labels),
        }

    out = found(MEAN, VARIANCE, Y, LOGITS, LABELS)
    each = -stats.norm.logpdf(Y, MEAN, np.sqrt(VARIANCE))
    np.testing.assert_allclose(out["members"], each, rtol=1e-12)
    mixture = -np.log(np.exp(-each).mean(0))
    for nll in (out["mixture"], out["last"], ens.gaussian_mixture_nll(MEAN, VARIANCE, Y)):
        np.testing.assert_allclose(nll, mixture, rtol=1e-12)
    p = softmax(LOGITS).mean(0)
    picked = -np.log(p[np.arange(CASES), LABELS])
    for nll in (*out["picked"], out["by label"], ens.mixture_nll(LOGITS, LABELS)):
        np.testing.assert_allclose(nll, picked)
    for logits in out["logits"]:
        np.testing.assert_allclose(np.exp(logits), p)
    members = -np.log(softmax(LOGITS)[:, np.arange(CASES), LABELS])
    assert (picked <= members.mean(0)).all()


@jax.jit
def alone(mean, variance, logits, y):
    """What an ensemble of one predicts, and its member."""
    wide = jnp.promote_types(mean.dtype, jnp.float32)
    m, log_probs = ens.moments(mean, variance), jax.nn.log_softmax(logits[0].astype(wide))
    nlls = ens.gaussian_mixture_nll(mean, variance, y), ens.mixture_nll(logits, LABELS)
    member_nlls = ens.gaussian_nll(mean, variance, y[None])[0], -log_probs[np.arange(CASES), LABELS]
    member = mean[0].astype(wide), variance[0].astype(wide), log_probs, *member_nlls
    return (m.mean, m.variance, ens.mixture_logits(logits), *nlls), member


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_an_ensemble_of_one_is_the_member(dtype):
    args = [a.astype(dtype) for a in (MEAN[:1], VARIANCE[:1], LOGITS[:1], Y)]
    for ours, member in zip(*alone(*args), strict=True):
        assert ours.dtype == jnp.promote_types(dtype, jnp.float32)
        assert np.array_equal(ours, member)


def test_gradients_are_finite_where_a_class_is_masked():
    logits, labels = LOGITS.copy(), np.maximum(LABELS, 1)
    logits[..., 0] = -np.inf
    slopes = jax.jit(lambda z, m: (jax.grad(nll)(z), jax.grad(far)(m)))
    nll, far = lambda z: ens.mixture_nll(z, labels).sum(), lambda m: ens.gaussian_mixture_nll(m, 1.0, 0.0).sum()
    for slope in slopes(logits, np.array([1e3, 2e3])):  # exp(−10⁶/2) underflows
        assert np.isfinite(slope).all()


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

    @jax.jit
    def measure(logits):
        sweep = jax.vmap(lambda t: ens.calibration_error(t * logits, labels))(np.array([0.0, 1.0, 1e4]))
        scores = ens.brier_score(logits, labels), ens.brier_score(logits[:, :2], labels % 2)
        diagram, edge = (
            ens.reliability(logits, labels, bins=bins),
            ens.reliability(np.zeros((1, 2)), labels[:1], bins=2),
        )
        return ens.calibration_error(logits, labels, bins=bins), diagram, edge, scores, sweep

    found, diagram, edge, (brier, brier_of_two), sweep = jax.tree.map(np.asarray, measure(logits))
    np.testing.assert_allclose(found, error, rtol=1e-12)
    assert diagram.count.sum() == n
    assert edge.count.tolist() == [1, 0]  # ½ belongs to the lower half
    assert diagram.count[0] == diagram.accuracy[0] == diagram.confidence[0] == 0  # of three classes, one has 1/3
    np.testing.assert_allclose((diagram.count * diagram.accuracy).sum() / n, right.mean())
    np.testing.assert_allclose(brier, ((p - np.eye(CLASSES)[labels]) ** 2).sum(1), rtol=1e-12)
    sklearn = brier_score_loss(labels % 2, softmax(logits[:, :2])[:, 1])
    np.testing.assert_allclose(brier_of_two.mean(), 2 * sklearn, rtol=1e-12)
    always = abs((labels == 0).mean() - 1 / CLASSES)  # t = 0: the first class, with probability 1/3
    np.testing.assert_allclose(sweep[[0, 2]], [always, 1 - right.mean()], rtol=1e-6, atol=1e-12)


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
    members = np.array([[[-np.inf, 0.0, 2.0]], [[-np.inf, 1.0, 0.5]]])

    @jax.jit
    def found(logits):
        second = lambda log_probs: jax.grad(lambda z: log_probs(z)[..., 1].sum())
        alone, expected = (second(log_probs)(logits[:1]) for log_probs in (ens.mixture_logits, jax.nn.log_softmax))
        return second(ens.mixture_logits)(logits), ens.mixture_logits(logits), alone, expected

    both, logits, alone, expected = map(np.asarray, found(members))
    assert np.isfinite(both).all()
    assert np.isneginf(logits[..., 0]).all()
    np.testing.assert_allclose(alone, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ens.gaussian_nll(np.zeros(7), np.ones((7, 1)), np.zeros(7)),
        lambda: ens.moments(np.zeros((3, 3)), np.ones(3)),
        lambda: ens.moments(np.zeros((4, 7)), np.ones((7, 4))),
        lambda: ens.gaussian_mixture_nll(np.zeros((4, 3)), np.ones(4), np.ones(3)),
    ],
)
def test_variances_of_another_shape_are_refused(call):
    with pytest.raises(ValueError, match=r"^`\w+` needs `variance` of shape .* got \("):
        call()
    with pytest.raises(ValueError, match="`gaussian_mixture_nll` needs `y` of shape"):
        ens.gaussian_mixture_nll(np.zeros(2), 1.0, np.ones(5))


def test_labels_that_are_no_class_give_nan_and_members_are_told_of():
    logits, labels = np.zeros((2, 3)), np.array([1, 9])
    assert np.isnan(ens.brier_score(logits, labels)).tolist() == [False, True]
    assert np.isnan(ens.calibration_error(logits, labels))
    with pytest.raises(ValueError, match=r"^`calibration_error` needs `labels` .* `mixture_logits` takes it away"):
        ens.calibration_error(np.zeros((5, 2, 3)), labels)
