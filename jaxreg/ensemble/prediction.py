"""What the members predict together."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.pytree import checked_number


class Moments(NamedTuple):
    """Mean and variance of an ensemble's prediction, the variance in its two parts."""

    mean: jax.Array
    within: jax.Array  # mean of the members' own variances: noise of the data, by their own account
    between: jax.Array  # variance of the members' means: what they disagree about

    @property
    def variance(self) -> jax.Array:
        """Within + between, the variance of the mixture."""
        return self.within + self.between


def moments(mean, variance=0.0, *, axis: int = 0, ddof: int = 0) -> Moments:
    r"""Mean and variance of the equal mixture of members, by the law of total variance.

        μ̄ = (1/M) Σ μ_m,   σ̄² = (1/M) Σ σ_m² + (1/M) Σ (μ_m − μ̄)²

    The Gaussian with these moments is the prediction of a deep ensemble: `gaussian_nll(m.mean, m.variance, y)`. For
    class probabilities, `mean` is the mixture's, and `mixture_logits` its logarithm.

    Args:
        mean: the members' predictions μ_m, with an axis of members.
        variance: their variances σ_m², of the same shape, or a number; 0 for members that give none.
        axis: the axis of members.
        ddof: 0 for the mixture's own variance; 1 to divide the spread by M − 1, an unbiased estimate of the variance
            over all members that could have been trained.

    Returns:
        A `Moments`, without the axis of members, float32 at least. Of one member: itself, bit for bit, and no spread.

    Raises:
        TypeError: if predictions are no real numbers.
        ValueError: if there is no such axis, no member, or with `ddof=1` a single one, or `variance` has another shape.

    >>> both = moments(jnp.array([1.0, 3.0]), jnp.array([0.5, 1.5]))
    >>> both.mean.item(), both.within.item(), both.between.item(), both.variance.item()
    (2.0, 1.0, 1.0, 2.0)

    References:
        Lakshminarayanan, Pritzel and Blundell, Simple and scalable predictive uncertainty estimation using deep
        ensembles, 2017, section 2.4.
    """
    mean = _wide("moments", "mean", mean)
    _check_members("moments", mean, axis)
    if ddof not in (0, 1):
        raise ValueError(f"`moments` needs 0 or 1 as `ddof`, got {ddof!r}.")
    if mean.shape[axis] == 1 and ddof:
        raise ValueError("`moments` needs two members at least for `ddof=1`: one says nothing of their spread.")
    variance = jnp.broadcast_to(_variance("moments", variance, mean, mean.shape), mean.shape)
    return Moments(jnp.mean(mean, axis), jnp.mean(variance, axis), jnp.var(mean, axis, ddof=ddof))


def gaussian_nll(mean, variance, y) -> jax.Array:
    r"""−log N(y; μ, σ²) = ½ log 2πσ² + (y − μ)²/2σ², entry by entry: what a member that gives both is trained with.

    Args:
        mean: μ.
        variance: σ² > 0, of the same shape, or a number; make it positive by `jax.nn.softplus(raw) + 1e-6`, say.
        y: the targets, of the same shape.

    Returns:
        An array, float32 at least; the loss is its mean.

    Raises:
        TypeError: if an argument is no real number.
        ValueError: if shapes do not fit, or a literal `variance` is not positive.

    >>> round(gaussian_nll(1.0, 4.0, 3.0).item(), 3)
    2.112

    References:
        Lakshminarayanan, Pritzel and Blundell, 2017, eq. 1; Nix and Weigend, Estimating the mean and variance of the
        target probability distribution, 1994.
    """
    mean, y = _wide("gaussian_nll", "mean", mean), _wide("gaussian_nll", "y", y)
    _check_targets("gaussian_nll", y, mean.shape)
    variance = _variance("gaussian_nll", variance, mean, mean.shape or y.shape, positive=True)
    return _nll(mean, variance, y)


def gaussian_mixture_nll(mean, variance, y, *, axis: int = 0) -> jax.Array:
    r"""−log (1/M) Σ_m N(y; μ_m, σ_m²), entry by entry: the members' mixture itself, not its moments.

    Args:
        mean: the members' μ_m, with an axis of members.
        variance: their σ_m² > 0, of the same shape, or a number.
        y: the targets, without that axis.
        axis: the axis of members.

    Returns:
        An array of the shape of `y`, float32 at least; of one member, its own `gaussian_nll`.

    Raises:
        TypeError: if an argument is no real number.
        ValueError: if there is no such axis or no member, shapes do not fit, or a literal `variance` is not positive.

    >>> round(gaussian_mixture_nll(jnp.array([-1.0, 1.0]), 1.0, 0.0).item(), 3)
    1.419
    """
    mean, y = _wide("gaussian_mixture_nll", "mean", mean), _wide("gaussian_mixture_nll", "y", y)
    _check_members("gaussian_mixture_nll", mean, axis)
    axis %= mean.ndim
    lead = mean.shape[:axis] + mean.shape[axis + 1 :]
    _check_targets("gaussian_mixture_nll", y, lead, alone=False)
    y = jnp.broadcast_to(y, lead)
    variance = _variance("gaussian_mixture_nll", variance, mean, mean.shape, positive=True)
    return -_log_mean_exp(-_nll(mean, variance, jnp.expand_dims(y, axis)), axis)


def mixture_logits(logits, *, axis: int = 0) -> jax.Array:
    r"""log (1/M) Σ_m softmax(logits_m): log-probabilities of the ensemble, logits of it like any other.

    It averages probabilities, where the mean of the logits would be a product of experts. Any loss or score that takes
    logits takes these.

    Args:
        logits: the members', with an axis of members and the classes last.
        axis: the axis of members, not the last.

    Returns:
        Log-probabilities without the axis of members, float32 at least; of one member, its `log_softmax`.

    Raises:
        TypeError: if they are no real numbers.
        ValueError: if there is no such axis or no member, or fewer than two classes.

    >>> logits = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
    >>> [round(p, 3) for p in jnp.exp(mixture_logits(logits)).tolist()]
    [0.7, 0.3]
    """
    logits = check_classes("mixture_logits", logits)
    _check_members("mixture_logits", logits, axis, last=False)
    return _log_mean_exp(jax.nn.log_softmax(logits), axis % logits.ndim)


def mixture_nll(logits, labels, *, axis: int = 0) -> jax.Array:
    r"""−log (1/M) Σ_m softmax(logits_m)_y, per example: at most the mean of the members' own (Jensen).

    Args:
        logits: the members', with an axis of members and the classes last.
        labels: integers, of the shape of `logits` without these two axes.
        axis: the axis of members, not the last.

    Returns:
        An array of the shape of `labels`, float32 at least; of one member, its cross-entropy.

    Raises:
        TypeError: if `logits` are no real numbers or `labels` no integers.
        ValueError: if there is no such axis or no member, fewer than two classes, or shapes do not fit.

    >>> logits = jnp.log(jnp.array([[[0.5, 0.5]], [[0.9, 0.1]]]))
    >>> round(mixture_nll(logits, jnp.array([0])).item(), 3)
    0.357

    References:
        Lakshminarayanan, Pritzel and Blundell, 2017, section 2.4.
    """
    logits = check_classes("mixture_nll", logits)
    _check_members("mixture_nll", logits, axis, last=False)
    axis %= logits.ndim
    lead = logits.shape[:axis] + logits.shape[axis + 1 : -1]
    labels = check_labels("mixture_nll", labels, lead)
    # One class is taken before the sum over members: one that is masked by −∞ in all of them has no part in it.
    return -_log_mean_exp(at_label(jax.nn.log_softmax(logits), jnp.expand_dims(labels, axis)), axis)


def _wide(api, name, x) -> jax.Array:
    """Real numbers in float32 at least."""
    x = jnp.asarray(x)
    if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
        raise TypeError(f"`{api}` needs real numbers as `{name}`, got {x.dtype} of shape {x.shape}.")
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _variance(api, variance, mean, shape, positive=False) -> jax.Array:
    variance = _wide(api, "variance", checked_number(api, "variance", variance, positive)).astype(mean.dtype)
    if variance.shape not in ((), shape):  # (n, 1) and (n,) would broadcast to (n, n)
        raise ValueError(
            f"`{api}` needs `variance` of shape {shape}, one for each mean, or a number; got {variance.shape}."
        )
    return variance


def _nll(mean, variance, y) -> jax.Array:
    return (jnp.log(2 * jnp.pi * variance) + jnp.square(y - mean) / variance) / 2


def _check_targets(api, y, shape, alone=True) -> None:
    if y.shape not in ((), shape) and not (alone and not shape):
        raise ValueError(f"`{api}` needs `y` of shape {shape}, one for each prediction; got {y.shape}.")


def _check_members(api, x, axis, last=True) -> None:
    if (
        not isinstance(axis, (int, np.integer))
        or not -x.ndim <= axis < x.ndim - (not last)
        or (axis == -1 and not last)
    ):
        other = "" if last else " other than the last, of classes"
        raise ValueError(f"`{api}` needs predictions with an axis {axis!r} of members{other}, got shape {x.shape}.")
    if not x.shape[axis]:
        raise ValueError(f"`{api}` needs one member at least, got shape {x.shape}.")


def check_classes(api, logits) -> jax.Array:
    """Logits in float32 at least, of two classes at least."""
    logits = _wide(api, "logits", logits)
    if not logits.ndim or logits.shape[-1] < 2:
        raise ValueError(f"`{api}` needs logits of two classes at least, on the last axis; got shape {logits.shape}.")
    return logits


def check_labels(api, labels, shape) -> jax.Array:
    """Labels as integers, one for each prediction."""
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"`{api}` needs integers as `labels`, got {labels.dtype}.")
    if labels.shape != shape:
        raise ValueError(
            f"`{api}` needs `labels` of shape {shape}, one for each prediction; got {labels.shape}. Predictions of "
            "members have an axis more than those of one network; `mixture_logits` takes it away."
        )
    return labels


def at_label(values, labels) -> jax.Array:
    """The entry of each row at its label."""
    labels = jnp.broadcast_to(labels, values.shape[:-1])
    return jnp.take_along_axis(values, labels[..., None], -1)[..., 0]


def _log_mean_exp(x, axis) -> jax.Array:
    """−∞ where all are, with gradient 0 there; `jax.nn.logsumexp` has NaN."""
    peak = jax.lax.stop_gradient(jnp.max(x, axis))
    peak = jnp.where(peak == -jnp.inf, 0, peak)
    total = jnp.sum(jnp.exp(x - jnp.expand_dims(peak, axis)), axis)
    some = total > 0
    mean = jnp.log(jnp.where(some, total, 1)) + peak - jnp.log(x.shape[axis]).astype(x.dtype)
    return jnp.where(some, mean, jnp.where(jnp.isnan(total), jnp.nan, -jnp.inf))
