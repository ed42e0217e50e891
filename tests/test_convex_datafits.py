"""The laws of datafits: derivatives, conjugates, intercepts, weights; and that they are scikit-learn's losses."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from convex_table import DATAFITS
from sklearn import metrics

from jaxreg import convex

each = pytest.mark.parametrize("row", DATAFITS, ids=str)


def outputs(y, scale=2.0, seed=1):
    return np.random.default_rng(seed).normal(scale=scale, size=y.shape)


def weights(n, seed=2):
    w = np.random.default_rng(seed).random(n)
    return w / w.sum()


def total(x):
    """Over targets."""
    return np.asarray(x).reshape(len(x), -1).sum(1)


@each
def test_slope_and_bend_are_derivatives(row):
    _, _, y = row.data(6)
    eta, datafit = outputs(y), row.datafit

    @jax.jit
    def derivatives(eta):
        gradient = jax.grad(lambda eta: datafit.loss(eta, y).sum())
        return datafit.slope(eta, y), gradient(eta), datafit.bend(eta, y), jax.jacfwd(gradient)(eta)

    slope, gradient, bend, hessian = derivatives(eta)
    hessian = hessian.reshape(eta.size, eta.size)
    np.testing.assert_allclose(slope, gradient, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(np.ravel(bend), np.diag(hessian), rtol=1e-10, atol=1e-15)
    if datafit.curvature is not None:
        assert np.linalg.eigvalsh(hessian).max() <= datafit.curvature + 1e-12


def test_curvature_is_reached():
    @jax.jit
    def bends(one, three):
        shared = convex.Multinomial().bend(three, np.eye(3)[:1])
        return [datafit.bend(one, 0.0) for datafit in (convex.Squared(), convex.Huber(0.7), convex.Logistic())], shared

    (squared, huber, logistic), shared = bends(np.zeros(1), np.array([[0.0, 0.0, -1e3]]))
    assert squared == convex.Squared.curvature
    assert huber == convex.Huber.curvature
    assert logistic == convex.Logistic.curvature
    assert (
        2 * shared[0, 0] == convex.Multinomial.curvature
    )  # two classes have all probability: p(1 − p)[[1, −1], [−1, 1]]


@each
def test_fenchel_young(row):
    """f(η) + f*(u) ≥ uη, equal where u is the slope; `excess` is the difference; −f*(0) is the least f."""
    _, _, y = row.data(6)
    eta, datafit = outputs(y), row.datafit
    slope, loss = jax.jit(datafit.slope), jax.jit(datafit.loss)
    parts = jax.jit(lambda u: (datafit.conjugate(u, y), datafit.excess(eta, u, y)))
    f = loss(eta, y)
    for seed, share in ((1, 1.0), (3, 1.0), (4, 0.3), (5, 0.0)):
        u = share * slope(outputs(y, seed=seed), y)
        conjugate, excess = parts(u)
        left = f + conjugate - total(u * eta)
        assert (left >= -1e-14 * (1 + np.abs(f))).all()
        np.testing.assert_allclose(excess, left, rtol=1e-10, atol=1e-12)
        assert (excess >= -1e-15).all()
        assert (left.max() > 1e-3) == (seed > 1)
    np.testing.assert_allclose(datafit.saturated(y), loss(row.best(y), y), atol=1e-12)
    assert (f > datafit.saturated(y)).all()
    if row.outside is not None:
        assert np.isinf(parts(np.full_like(eta, row.outside))[0]).all()


@each
def test_far_outputs_do_not_overflow(row):
    _, _, y = row.data(6)
    cases = list(itertools.product((np.float32, np.float64), (-1e4, 1e4)))
    etas = [np.concatenate([np.zeros_like(y[:1]), np.full_like(y[1:], far)]).astype(dtype) for dtype, far in cases]
    found = jax.jit(lambda etas: [(row.datafit.loss(eta, y), row.datafit.slope(eta, y)) for eta in etas])(etas)
    for (dtype, far), (loss, slope) in zip(cases, found, strict=True):
        assert loss.dtype == slope.dtype == dtype
        assert not np.isnan(loss).any()
        assert not np.isnan(slope).any()
        overflows = isinstance(row.datafit, convex.Poisson) and far > 0
        assert np.isinf(loss[1:]).all() if overflows else np.isfinite(loss).all()
        if isinstance(row.datafit, convex.Logistic):
            np.testing.assert_allclose(loss[1:], np.where((y > 0) == (far > 0), 0, 1e4)[1:])


# ------------------------------------------------------------------ intercepts


@each
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_intercept_is_stationary(row, dtype):
    """For lanes of outputs at many scales, batched: the mean slope is rounding."""
    _, _, y = row.data()
    weight = weights(len(y)).astype(dtype)

    def mean_slope(eta):
        b = row.datafit.intercept(eta, y, weight)
        return b, jnp.tensordot(weight, row.datafit.slope(eta + b, y), 1)

    eta = np.stack([outputs(y, scale, seed) for seed, scale in enumerate((0.0, 1.0, 10.0, 30.0))]).astype(dtype)
    b, slope = jax.jit(jax.vmap(mean_slope))(eta)
    assert b.dtype == dtype
    assert b.shape == (4, *y.shape[1:])
    size = np.abs(y).max() + 100  # of what is added up
    assert np.abs(slope).max() < 2 * np.finfo(dtype).eps * size


@pytest.mark.parametrize("datafit", [convex.Logistic(), convex.Multinomial()], ids=["logistic", "multinomial"])
def test_intercept_of_separated_classes(datafit):
    """It is found between classes however far apart: slopes are tiny there, and cancel."""
    y, _ = datafit.encode(np.arange(30) % (2 if isinstance(datafit, convex.Logistic) else 3))
    weight = weights(30)

    def slopes(scale):
        eta = scale * (y - 0.3)
        b = datafit.intercept(eta, y, weight)
        slope = datafit.slope(eta + b, y)
        return b, jnp.tensordot(weight, slope, 1), jnp.tensordot(weight, jnp.abs(slope), 1)

    b, mean, size = jax.jit(jax.vmap(slopes))(jnp.array([1.0, 100.0, 1e4]))
    assert np.isfinite(b).all()
    assert (np.abs(mean) <= 1e-9 * size + 1e-15).all()
    assert (size[1:] < 1e-10).all()  # between, not beyond


def test_intercept_in_the_tail_of_a_sigmoid():
    """Where Newton's method goes down by 1 a step, 280 times."""
    y, weight, eta = np.zeros(5), np.ones(5), np.zeros(5)
    y[0], weight[0], eta[1] = 1, 1e-130, 3000
    b = convex.Logistic().intercept(jnp.asarray(eta), y, jnp.asarray(weight))
    assert b == pytest.approx(np.log(1e-130) - 3000, rel=1e-12)


# ------------------------------------------------------------------ scikit-learn's, and y as it is given


def test_losses_are_those_of_scikit_learn():
    by_name = {row.name: row for row in DATAFITS}

    def drawn(name):
        row = by_name[name]
        _, given, y = row.data()
        eta = jnp.asarray(outputs(y, 1.0))
        return row.datafit, given, y, eta, np.asarray(row.datafit.mean(eta))

    datafit, given, y, eta, mean = drawn("squared, three targets")
    ours = datafit.loss(eta, y).mean()
    assert 2 * ours == pytest.approx(3 * metrics.mean_squared_error(given, mean))
    datafit, given, y, eta, mean = drawn("logistic")
    assert datafit.loss(eta, y).mean() == pytest.approx(metrics.log_loss(given, mean))
    datafit, given, y, eta, mean = drawn("multinomial")
    assert datafit.loss(eta, y).mean() == pytest.approx(metrics.log_loss(given, mean))
    datafit, given, y, eta, mean = drawn("poisson")
    deviance = 2 * (datafit.loss(eta, y) - datafit.saturated(y)).mean()
    assert deviance == pytest.approx(metrics.mean_poisson_deviance(given, mean))


def test_labels_of_any_kind():
    for given in ([3, -1, 3], ["b", "a", "b"], [True, False, True], [0.5, 0.25, 0.5], np.array([3, -1, 3], object)):
        y, classes = convex.Logistic().encode(given)
        assert y.tolist() == [1, 0, 1]
        assert classes.tolist() == sorted(set(given))
        y, _ = convex.Multinomial().encode(given)
        assert y.tolist() == [[0, 1], [1, 0], [0, 1]]
    y, classes = convex.Poisson().encode(jnp.array([0, 2]))
    assert y.dtype == np.float64
    assert classes is None


def test_two_classes_by_either_datafit():
    """The multinomial loss of outputs (0, η) is the logistic loss of η."""
    eta = jnp.asarray(outputs(np.zeros(6)))
    given = [0, 1, 1, 0, 1, 0]
    one = convex.Logistic().loss(eta, convex.Logistic().encode(given)[0])
    two = convex.Multinomial().loss(jnp.stack([0 * eta, eta], 1), convex.Multinomial().encode(given)[0])
    np.testing.assert_allclose(one, two, rtol=1e-13)


def test_huber_needs_a_scale():
    with pytest.raises(ValueError, match="`Huber` needs `delta` > 0, got 0"):
        convex.Huber(0)
    with pytest.raises(ValueError, match="`Huber` needs `delta` >= 0, got -1"):
        convex.Huber(-1)
