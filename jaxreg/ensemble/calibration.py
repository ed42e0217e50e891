"""Whether a classifier is right as often as it says."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.ensemble.prediction import check_classes, check_labels


class Reliability(NamedTuple):
    """A reliability diagram: one entry a bin of confidence; 0 in bins without examples."""

    confidence: jax.Array  # mean probability of the predicted class
    accuracy: jax.Array  # share that is predicted right
    count: jax.Array  # examples


def reliability(logits, labels, *, bins: int = 15) -> Reliability:
    r"""Confidence max_c p_c and accuracy in bins ((b − 1)/B, b/B] of confidence.

    Args:
        logits: (..., classes); for an ensemble, its `mixture_logits`.
        labels: integers, of the shape of `logits` without classes; one that is no class gives NaN.
        bins: B, an int ≥ 1.

    Returns:
        A `Reliability` of arrays (B,), float32 at least: plot `accuracy` against `confidence` where `count` > 0.

    Raises:
        TypeError: if `logits` are no real numbers or `labels` no integers.
        ValueError: if there are no examples, fewer than two classes or no bins, or shapes do not fit.

    >>> logits = jnp.log(jnp.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))
    >>> reliability(logits, jnp.array([0, 1, 1]), bins=2).count.tolist()
    [0.0, 3.0]

    References:
        Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, 2017, eq. 1 and 2.
    """
    return _reliability("reliability", logits, labels, bins)


def _reliability(api, logits, labels, bins) -> Reliability:
    logits = check_classes(api, logits)
    labels = check_labels(api, labels, logits.shape[:-1])
    if not labels.size:
        raise ValueError(f"`{api}` needs one example at least, got `logits` of shape {logits.shape}.")
    if not isinstance(bins, (int, np.integer)) or bins < 1:
        raise ValueError(f"`{api}` needs an int >= 1 as `bins`, got {bins!r}.")
    logits, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    confidence = jnp.max(jax.nn.softmax(logits), -1)
    right = jnp.where(_known(labels, logits), jnp.argmax(logits, -1) == labels, jnp.nan).astype(confidence.dtype)
    bin_of = jnp.clip(jnp.ceil(confidence * bins) - 1, 0, bins - 1).astype(int)
    inside = jax.nn.one_hot(bin_of, bins, dtype=confidence.dtype)
    count = jnp.sum(inside, 0)
    mean = lambda x: jnp.sum(inside * x[:, None], 0) / jnp.maximum(count, 1)  # noqa: E731
    return Reliability(mean(confidence), mean(right), count)


def calibration_error(logits, labels, *, bins: int = 15) -> jax.Array:
    r"""Expected calibration error, Σ_b (n_b/n) |accuracy_b − confidence_b| over bins of confidence.

    It is not a proper score: a classifier that always says how frequent classes are has none. Beside it stand the
    `brier_score` and `mixture_nll`. Few examples in a bin push it up by about √(2/(πn_b))·√(accuracy(1 − accuracy)).

    Args:
        logits: (..., classes); for an ensemble, its `mixture_logits`.
        labels: integers, of the shape of `logits` without classes; one that is no class gives NaN.
        bins: of equal width, an int ≥ 1.

    Returns:
        A scalar in [0, 1], float32 at least.

    Raises:
        TypeError: if `logits` are no real numbers or `labels` no integers.
        ValueError: if there are no examples, fewer than two classes or no bins, or shapes do not fit.

    >>> logits = jnp.log(jnp.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))
    >>> round(calibration_error(logits, jnp.array([0, 1, 1]), bins=2).item(), 3)
    0.1

    References:
        Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, 2015;
        Guo, Pleiss, Sun and Weinberger, 2017, eq. 3.
    """
    confidence, accuracy, count = _reliability("calibration_error", logits, labels, bins)
    return jnp.sum(count * jnp.abs(accuracy - confidence)) / jnp.sum(count)


def brier_score(logits, labels) -> jax.Array:
    r"""Σ_c (p_c − [c = y])² per example, in [0, 2]: a proper score, minimal in the mean at the true probabilities.

    scikit-learn's `brier_score_loss` for two classes is half of its mean.

    Args:
        logits: (..., classes); for an ensemble, its `mixture_logits`.
        labels: integers, of the shape of `logits` without classes; one that is no class gives NaN.

    Returns:
        An array of the shape of `labels`, float32 at least.

    Raises:
        TypeError: if `logits` are no real numbers or `labels` no integers.
        ValueError: if there are fewer than two classes, or shapes do not fit.

    >>> brier_score(jnp.log(jnp.array([[0.75, 0.25]])), jnp.array([1])).round(4).tolist()
    [1.125]

    References:
        Brier, Verification of forecasts expressed in terms of probability, 1950, eq. 2.
    """
    logits = check_classes("brier_score", logits)
    labels = check_labels("brier_score", labels, logits.shape[:-1])
    truth = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return jnp.where(_known(labels, logits), jnp.sum(jnp.square(jax.nn.softmax(logits) - truth), -1), jnp.nan)


def _known(labels, logits):
    """Whether a label is a class; scores of others are NaN."""
    return (labels >= 0) & (labels < logits.shape[-1])
