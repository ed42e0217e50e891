"""Examples mixed with others of their batch, and their targets in the same shares."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.arrays import is_floating, widest
from jaxreg.noise.arguments import array, axes_of, floating, number, valid


def mixup(key, x, y, alpha, *, num_classes: int | None = None) -> tuple[jax.Array, jax.Array]:
    r"""λx + (1 − λ)x′ and λy + (1 − λ)y′, (x′, y′) being another example of the batch, λ ~ Beta(α, α).

    Each example has its own λ, of mean ½ and variance 1/(4(2α + 1)), and one partner, by a permutation of the batch.
    The authors' code draws one λ for a batch, which has the same mean loss.

    Args:
        key: a key of `jax.random`.
        x: examples along axis 0, of a floating dtype.
        y: their targets along axis 0: of a floating dtype (one-hot, or numbers to regress on), or integer labels.
        alpha: α ≥ 0, of .1 to .4 in the paper. 0 returns x bit for bit (λ is 0 or 1 in the limit, each example
            itself or its partner; as in the authors' code it is 1); ∞ gives λ = ½.
        num_classes: the number of classes of integer labels, which become one-hot; at least 2.

    Returns:
        The examples, of the shape and dtype of `x`, and the targets, of those of `y` or one-hot of float32 at least.
        Shares sum to 1: so does each row of one-hot targets, up to their dtype's rounding.

    Raises:
        ValueError: if the batch is empty, x and y differ in its size, labels lack `num_classes`, it is less than 2,
            or a literal α is negative or is not one number.
        TypeError: if x is not of a floating dtype, or α is no number.

    >>> x, y = mixup(jax.random.key(0), jnp.eye(3), jnp.array([0, 1, 2]), 0.4, num_classes=3)
    >>> bool((x == y).all()), y.sum(1).tolist()
    (True, [1.0, 1.0, 1.0])

    References:
        Zhang et al., mixup: beyond empirical risk minimization, 2018, section 2.
    """
    x = floating(x, "mixup")
    alpha = number(alpha, "mixup", "alpha", 0, math.inf)
    y = _targets(x, y, num_classes, "mixup")
    draw, other = _pairs(key, x)
    share = _shares(draw, alpha, len(x))
    share = jnp.where(other == jnp.arange(len(x)), 1, share)  # its own partner
    return _mixed(x, x[other], share), _mixed(y, y[other], share)


def cutmix(key, x, y, alpha, *, num_classes: int | None = None, axes=(1, 2)) -> tuple[jax.Array, jax.Array]:
    r"""A box of each example is pasted from another of the batch, and targets are mixed in the shares of its pixels.

    λ ~ Beta(α, α) for each example; the box has sides n·√(1 − λ), rounded down to even, and its centre anywhere, so
    that some of it may be cut off. The weight of y′ is the exact share of the pixels that were pasted.

    Args:
        key: a key of `jax.random`.
        x: examples along axis 0, of any dtype.
        y: their targets along axis 0: of a floating dtype, or integer labels.
        alpha: α ≥ 0, 1 in the paper (λ uniform). 0 pastes nothing.
        num_classes: the number of classes of integer labels, which become one-hot; at least 2.
        axes: the axes of the box: (1, 2) of NHWC images, (2, 3) of NCHW ones, 1 of (batch, time, features). With d
            axes its sides are n·(1 − λ)^(1/d).

    Returns:
        The examples, of the shape and dtype of `x`, and the targets, of those of `y` or one-hot of float32 at least.
        Shares sum to 1: so does each row of one-hot targets, up to their dtype's rounding.

    Raises:
        ValueError: if the batch is empty, x and y differ in its size, labels lack `num_classes`, it is less than 2,
            x lacks an axis or `axes` names none or axis 0, or a literal α is negative or is not one number.
        TypeError: if α is no number.

    >>> images = jnp.zeros((2, 8, 8, 1)).at[1].set(1.0)
    >>> x, y = cutmix(jax.random.key(3), images, jnp.array([0, 1]), 1.0, num_classes=2)
    >>> bool((x.mean((1, 2, 3)) == y[:, 1]).all()), y.sum(1).tolist()
    (True, [1.0, 1.0])

    References:
        Yun et al., CutMix: regularization strategy to train strong classifiers with localizable features, 2019, eq. 1
        and 2, algorithm A1.
    """
    x = array(x, "cutmix", "examples")
    alpha = number(alpha, "cutmix", "alpha", 0, math.inf)
    axes = axes_of(axes, x, "cutmix", "axes")
    if not axes or 0 in axes:
        raise ValueError(f"`cutmix` needs axes of a box within one example, axis 0 being the batch; got axes={axes}.")
    if 0 in (x.shape[axis] for axis in axes):
        raise ValueError(f"`cutmix` needs one pixel at least along axes={axes}, got shape {x.shape}.")
    y = _targets(x, y, num_classes, "cutmix")
    draw, other = _pairs(key, x)
    where, draw = jax.random.split(draw)
    side = (1 - _shares(draw, alpha, len(x))) ** (1 / len(axes))
    inside, share = jnp.ones((len(x),) + (1,) * (x.ndim - 1), bool), jnp.ones(len(x), widest([y.dtype]))
    for axis, k in zip(axes, jax.random.split(where, len(axes)), strict=True):
        size = x.shape[axis]
        half = jnp.floor(side * size).astype(int) // 2
        centre = jax.random.randint(k, (len(x),), 0, size)
        low, high = jnp.maximum(centre - half, 0), jnp.minimum(centre + half, size)
        at = jnp.arange(size)
        row = (low[:, None] <= at) & (at < high[:, None])
        inside &= row.reshape([len(x), *(size if a == axis else 1 for a in range(1, x.ndim))])
        share *= (high - low) / size
    return jnp.where(inside, x[other], x), _mixed(y, y[other], 1 - share)


def _pairs(key, x):
    """A key for what follows, and the partner of each example."""
    key, order = jax.random.split(key)
    return key, jax.random.permutation(order, len(x))


def _shares(key, alpha, count):
    """λ ~ Beta(α, α), in float32 for all dtypes; 1 at α = 0 and ½ at ∞, where `jax.random.beta` is NaN."""
    alpha = alpha.astype(jnp.float32)
    proper = (alpha > 0) & (alpha < jnp.inf)
    some = jnp.where(proper, alpha, 1)
    drawn = jax.random.beta(key, some, some, (count,), jnp.float32)
    return valid(jnp.where(proper, drawn, jnp.where(alpha == 0, 1, 0.5)), ~jnp.isnan(alpha))


def _mixed(a, b, share):
    """share·a + (1 − share)·b along axis 0; a or b itself, bit for bit, where the share is 1 or 0."""
    share = share.reshape((-1,) + (1,) * (a.ndim - 1)).astype(widest([a.dtype]))
    return jnp.where(share == 1, a, jnp.where(share == 0, b, share * a + (1 - share) * b)).astype(a.dtype)


def _targets(x, y, num_classes, api):
    """`y` as floating-point targets, after a look at the shapes of both."""
    y = array(y, api, "targets")
    if not (x.ndim and y.ndim and len(x) == len(y)):
        raise ValueError(f"`{api}` needs x and y of one length along axis 0, got shapes {x.shape} and {y.shape}.")
    if not len(x):
        raise ValueError(f"`{api}` needs at least one example, got an empty batch of shape {x.shape}.")
    if is_floating(y):
        return y
    if jnp.issubdtype(y.dtype, jnp.complexfloating):
        raise TypeError(f"`{api}` needs real targets or integer labels, got {y.dtype}.")
    if not isinstance(num_classes, (int, np.integer)) or num_classes < 2:
        raise ValueError(
            f"`{api}` needs `num_classes` of at least 2 with labels of {y.dtype}, got {num_classes!r}; or floating-"
            "point targets, one-hot or numbers."
        )
    return jax.nn.one_hot(y.astype(int), int(num_classes), dtype=widest([x.dtype] if is_floating(x) else []))
