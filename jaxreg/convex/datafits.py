"""Datafits: the loss of a linear model's outputs η = x·W + b on one example, with what certificates need of it."""

import abc
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex import targets
from jaxreg.convex.intercepts import increasing_root, matching_margins
from jaxreg.pytree import check_above, check_fields, noun


class Datafit(abc.ABC):
    """f(η, y) on the outputs of one example, convex in η; targets are summed over.

    η and the encoded y have the same shape, (n,) or (n, targets); arithmetic runs in the dtype of η.
    """

    curvature: ClassVar[float | None]  # sup f'' (the largest eigenvalue of the Hessian), None where unbounded

    def __post_init__(self):
        check_fields(self)

    def encode(self, y, api: str | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """`y` checked, as float64, and its classes (None if it has none); errors name `api`."""
        return targets.numbers(y, api or type(self).__name__), None

    def loss(self, eta, y) -> jax.Array:
        """f(η, y) for each example."""
        return _over_targets(self.cost(eta, _like(eta, y)))

    @abc.abstractmethod
    def cost(self, eta, y) -> jax.Array:
        """f target by target."""

    @abc.abstractmethod
    def slope(self, eta, y) -> jax.Array:
        """∂f/∂η."""

    @abc.abstractmethod
    def bend(self, eta, y) -> jax.Array:
        """∂²f/∂η², of the Hessian its diagonal."""

    def hessian(self, eta, y) -> jax.Array:
        """∂²f/∂η² of each example, (n, t, t)."""
        if eta.ndim == 1:
            return self.bend(eta, y)[:, None, None]
        return jax.vmap(jax.jacfwd(lambda eta, y: self.slope(eta[None], y[None])[0]))(eta, y)

    @abc.abstractmethod
    def conjugate(self, u, y) -> jax.Array:
        """f*(u, y) = sup_η u·η − f(η, y) for each example; inf outside its domain."""

    @abc.abstractmethod
    def excess(self, eta, u, y) -> jax.Array:
        """f(η) + f*(u) − uη ≥ 0 for each example, for u in the domain of f*, without cancellation."""

    def saturated(self, y) -> jax.Array:
        """min_η f(η, y) for each example, from which deviance counts."""
        y = jnp.asarray(y)
        return -self.conjugate(jnp.zeros_like(y), y)

    def mean(self, eta) -> jax.Array:
        """The mean of y that η stands for: the inverse link."""
        return eta

    @abc.abstractmethod
    def intercept(self, eta, y, weight) -> jax.Array:
        """argmin_b Σᵢ wᵢ f(ηᵢ + b, yᵢ), to rounding."""

    def constant(self, y, weight) -> jax.Array:
        """`intercept` where all other outputs are 0."""
        return self.intercept(jnp.zeros(y.shape, weight.dtype), y, weight)

    def _mean_slope(self, eta, y, weight):
        """b -> the mean slope, its derivative in b and the slopes' mean size."""

        def function(b):
            slope = self.slope(eta + b, y)
            return _average(slope, weight), _average(self.bend(eta + b, y), weight), _average(jnp.abs(slope), weight)

        return function


@noun
class Squared(Datafit):
    """½(η − y)²: with weights 1/n, ‖y − Xw − b‖²/(2n).

    >>> Squared().loss(jnp.array([1.0, 2.0]), jnp.array([1.0, 5.0])).tolist()
    [0.0, 4.5]
    """

    curvature = 1.0

    def cost(self, eta, y):
        """½(η − y)²."""
        return jnp.square(eta - y) / 2

    def slope(self, eta, y):
        """η − y."""
        return eta - _like(eta, y)

    def bend(self, eta, y):
        """1."""
        return jnp.ones_like(eta)

    def conjugate(self, u, y):
        """½u² + uy."""
        return _over_targets(u * (u / 2 + _like(u, y)))

    def excess(self, eta, u, y):
        """½(η − y − u)²."""
        return _over_targets(jnp.square(eta - _like(eta, y) - u) / 2)

    def intercept(self, eta, y, weight):
        """The mean residual."""
        return _average(_like(eta, y) - eta, weight)


@noun
class Logistic(Datafit):
    """log(1 + eᶯ) − yη for two classes, the second of the sorted labels y = 1: the negative log-likelihood.

    >>> Logistic().encode(["no", "yes", "no"])
    (array([0., 1., 0.]), array(['no', 'yes'], dtype='<U3'))
    >>> [round(float(x), 4) for x in Logistic().loss(jnp.array([0.0, 1e4]), jnp.array([1.0, 0.0]))]
    [0.6931, 10000.0]
    """

    curvature = 0.25

    def encode(self, y, api=None):
        """0 and 1 for two labels."""
        api = api or "Logistic"
        classes, places = targets.labels(y, api)
        if len(classes) > 2:
            raise ValueError(f"`{api}` needs two classes in `y` with `Logistic`, got {len(classes)}: `Multinomial`.")
        return places.astype(np.float64), classes

    def cost(self, eta, y):
        """log(1 + exp(±η))."""
        return jnp.logaddexp(0, _sign(y) * eta)

    def slope(self, eta, y):
        """1/(1 + e⁻ᶯ) − y, without cancellation."""
        sign = _sign(_like(eta, y))
        return sign * jax.nn.sigmoid(sign * eta)

    def bend(self, eta, y):
        """p(1 − p)."""
        return jax.nn.sigmoid(eta) * jax.nn.sigmoid(-eta)

    def conjugate(self, u, y):
        """v log v + (1 − v) log(1 − v), v = ±u in [0, 1]."""
        v = _sign(_like(u, y)) * u
        return _over_targets(jnp.where((v >= 0) & (v <= 1), _entropy(v) + _entropy(1 - v), jnp.inf))

    def excess(self, eta, u, y):
        """The relative entropy of probabilities v = ±u to 1/(1 + e^∓ᶯ)."""
        sign = _sign(_like(eta, y))
        v, z = jnp.clip(sign * u, 0, 1), sign * eta
        cross = v * jnp.logaddexp(0, -z) + (1 - v) * jnp.logaddexp(0, z)
        return _over_targets(cross + _entropy(v) + _entropy(1 - v))

    def mean(self, eta):
        """The probability of the second class."""
        return jax.nn.sigmoid(eta)

    def intercept(self, eta, y, weight):
        """The root of the mean slope."""
        y, tiny = _like(eta, y), jnp.finfo(eta.dtype).tiny
        odds = jnp.log(jnp.maximum(_average(y, weight), tiny)) - jnp.log(jnp.maximum(_average(1 - y, weight), tiny))

        low, high = odds - jnp.max(eta, 0), odds - jnp.min(eta, 0)
        return increasing_root(self._mean_slope(eta, y, weight), low, high, odds - _average(eta, weight))

    def constant(self, y, weight):
        """The log odds of the second class."""
        y, tiny = jnp.asarray(y), jnp.finfo(jnp.result_type(y)).tiny
        return jnp.log(jnp.maximum(_average(y, weight), tiny)) - jnp.log(jnp.maximum(_average(1 - y, weight), tiny))


@noun
class Multinomial(Datafit):
    """log Σ_k exp(η_k) − η_y, the negative log-likelihood of k classes, one output for each.

    >>> Multinomial().encode([3, 1, 2])[0].tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """

    curvature = 0.5

    def encode(self, y, api=None):
        """An indicator column for each label."""
        classes, places = targets.labels(y, api or "Multinomial")
        return np.eye(len(classes))[places], classes

    def cost(self, eta, y):
        """log Σ exp(η − η_y), kept at size 1."""
        return jax.nn.logsumexp(eta - jnp.sum(jnp.where(y > 0, eta, 0), -1, keepdims=True), -1, keepdims=True)

    def slope(self, eta, y):
        """softmax(η) − y."""
        return jax.nn.softmax(eta) - _like(eta, y)

    def bend(self, eta, y):
        """p(1 − p)."""
        p = jax.nn.softmax(eta)
        return p * (1 - p)

    def hessian(self, eta, y):
        """diag(p) − ppᵀ."""
        p = jax.nn.softmax(eta)
        return p[:, :, None] * (jnp.eye(p.shape[1], dtype=p.dtype) - p[:, None])

    def conjugate(self, u, y):
        """Σ p log p, p = u + y in the simplex (up to rounding of its sum)."""
        p = u + _like(u, y)
        rounding = 32 * u.shape[-1] * jnp.finfo(u.dtype).eps
        inside = jnp.all(p >= 0, -1) & (jnp.abs(jnp.sum(u, -1)) <= rounding)
        return jnp.where(inside, jnp.sum(_entropy(p), -1), jnp.inf)

    def excess(self, eta, u, y):
        """The relative entropy of probabilities p = u + y to softmax(η)."""
        p = jnp.maximum(u + _like(u, y), 0)
        return jnp.sum(_entropy(p) - p * jax.nn.log_softmax(eta), -1)

    def mean(self, eta):
        """The probabilities of the classes."""
        return jax.nn.softmax(eta)

    def intercept(self, eta, y, weight):
        """The one of mean 0 with which the mean probabilities are the classes' shares."""
        weight = weight.astype(eta.dtype) / jnp.sum(weight).astype(eta.dtype)
        return matching_margins(eta, weight @ _like(eta, y), weight)

    def constant(self, y, weight):
        """The logs of the classes' shares, less their mean."""
        y = jnp.asarray(y)
        share = jnp.log(jnp.maximum(_average(y, weight), jnp.finfo(y.dtype).tiny))
        return share - jnp.mean(share)


@noun
class Huber(Datafit):
    """Huber's loss of residuals r = η − y: ½r² up to δ, δ(|r| − δ/2) beyond, so that outliers count less.

    Args:
        delta: δ > 0, in the units of y.

    Raises:
        ValueError: if a literal `delta` is not positive.

    >>> Huber(1.0).loss(jnp.array([0.5, 3.0]), jnp.zeros(2)).tolist()
    [0.125, 2.5]

    References:
        Huber, Robust estimation of a location parameter, 1964.
    """

    curvature = 1.0

    delta: jax.typing.ArrayLike = 1.35

    def __post_init__(self):
        check_fields(self)
        check_above(self, "delta", 0)

    def _residual(self, eta, y):
        """r, and r clipped at ±δ."""
        r, delta = eta - _like(eta, y), _like(eta, self.delta)
        return r, jnp.clip(r, -delta, delta)

    def cost(self, eta, y):
        """½r², or δ(|r| − δ/2)."""
        r, near = self._residual(eta, y)
        return near * (r - near / 2)

    def slope(self, eta, y):
        """r clipped at ±δ."""
        return self._residual(eta, y)[1]

    def bend(self, eta, y):
        """1 up to δ, 0 beyond."""
        r, near = self._residual(eta, y)
        return (r == near).astype(eta.dtype)

    def conjugate(self, u, y):
        """½u² + uy for |u| ≤ δ."""
        inside = jnp.abs(u) <= _like(u, self.delta)
        return _over_targets(jnp.where(inside, u * (u / 2 + _like(u, y)), jnp.inf))

    def excess(self, eta, u, y):
        """½(r̄ − u)² + (r − r̄)(r̄ − u), r̄ = r clipped at ±δ."""
        r, near = self._residual(eta, y)
        return _over_targets((near - u) * ((near - u) / 2 + (r - near)))

    def intercept(self, eta, y, weight):
        """The root of the mean slope."""
        r = _like(eta, y) - eta

        return increasing_root(self._mean_slope(eta, y, weight), jnp.min(r, 0), jnp.max(r, 0), _average(r, weight))


@noun
class Poisson(Datafit):
    """eᶯ − yη for counts (or rates) y ≥ 0 with mean eᶯ: the negative log-likelihood up to log y!.

    >>> Poisson().loss(jnp.array([0.0, -1e4]), jnp.array([2.0, 1.0])).tolist()
    [1.0, 10000.0]
    """

    curvature = None

    def encode(self, y, api=None):
        """`y` ≥ 0 as float64."""
        return targets.counts(y, api or "Poisson"), None

    def cost(self, eta, y):
        """eᶯ − yη."""
        return jnp.exp(eta) - y * eta

    def slope(self, eta, y):
        """eᶯ − y."""
        return jnp.exp(eta) - _like(eta, y)

    def bend(self, eta, y):
        """eᶯ."""
        return jnp.exp(eta)

    def conjugate(self, u, y):
        """v log v − v, v = u + y ≥ 0."""
        v = u + _like(u, y)
        return _over_targets(jnp.where(v >= 0, _entropy(v) - v, jnp.inf))

    def excess(self, eta, u, y):
        """eᶯ − v − v(η − log v), v = u + y."""
        v = jnp.maximum(u + _like(u, y), 0)
        ratio = eta - jnp.log(jnp.where(v > 0, v, 1))
        return _over_targets(jnp.where(v > 0, v * (jnp.expm1(ratio) - ratio), jnp.exp(eta)))

    def mean(self, eta):
        """eᶯ."""
        return jnp.exp(eta)

    def intercept(self, eta, y, weight):
        """log of the mean y over the mean eᶯ."""
        mean = jnp.maximum(_average(_like(eta, y), weight), jnp.finfo(eta.dtype).tiny)
        top = jnp.max(eta, 0)
        return jnp.log(mean) - top - jnp.log(_average(jnp.exp(eta - top), weight))


def _like(eta, y):
    return jnp.asarray(y, eta.dtype)


def _sign(y):
    """−1 for the second class."""
    return 1 - 2 * y


def _entropy(p):
    """p log p, 0 at 0."""
    return p * jnp.log(jnp.where(p > 0, p, 1))


def _over_targets(cost):
    return jnp.sum(cost, tuple(range(1, cost.ndim)))


def _average(x, weight):
    """The weighted mean over examples."""
    weight = weight.astype(x.dtype)
    return jnp.tensordot(weight, x, 1) / jnp.sum(weight)
