"""Noise that is normal, added or multiplied."""

import jax
import jax.numpy as jnp

from jaxreg.arrays import widest
from jaxreg.noise.arguments import floating, number, valid


def gaussian_dropout(key, x, rate) -> jax.Array:
    r"""x∘(1 + ε), ε ~ N(0, rate/(1 − rate)): noise with the mean and variance of dropout, x and x²·rate/(1 − rate).

    Flax and JAX have none; Keras' `GaussianDropout` is equal to it in law.

    Args:
        key: a key of `jax.random`.
        x: an array of a floating dtype.
        rate: the rate of the dropout with this variance, in [0, 1]. 0 returns x bit for bit. At 1 the variance is
            infinite: every entry is at ∞ or −∞, where its draws tend to, but for those that are 0.

    Returns:
        An array of the shape and dtype of `x`; normal numbers are drawn in float32 at least.

    Raises:
        ValueError: if a literal rate is outside [0, 1], or is not one number.
        TypeError: if x is not of a floating dtype, or the rate is no number.

    >>> draws = gaussian_dropout(jax.random.key(0), jnp.full(100_000, 2.0), 0.2)
    >>> print(f"{draws.mean():.1f} {draws.var():.1f}")
    2.0 1.0

    References:
        Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, 2014, section 10.
    """
    x, rate = floating(x, "gaussian_dropout"), number(rate, "gaussian_dropout", "rate", 0, 1)
    work = widest([x.dtype])
    rate, noise = rate.astype(work), jax.random.normal(key, x.shape, work)
    finite, some = rate < 1, (rate > 0) & (rate < 1)  # √ has no slope at 0
    stddev = jnp.sqrt(jnp.where(some, rate, 0.5) / (1 - jnp.where(some, rate, 0.5)))
    drawn = x * (1 + jnp.where(some, stddev, 0) * noise)
    sign = jax.lax.stop_gradient(jnp.sign(x) * jnp.sign(noise))
    limit = jnp.where(sign > 0, jnp.inf, jnp.where(sign < 0, -jnp.inf, sign))
    return valid(jnp.where(finite, drawn, limit), ~jnp.isnan(rate)).astype(x.dtype)


def gaussian_noise(key, x, stddev) -> jax.Array:
    r"""x + σε, ε ~ N(0, 1): mean x, variance σ².

    On the inputs of a linear model with n examples it adds nσ²‖w‖² to the squared error, a ridge penalty. For noise
    on gradients take `optax.add_noise`.

    Args:
        key: a key of `jax.random`.
        x: an array of a floating dtype.
        stddev: σ ≥ 0; 0 returns x bit for bit.

    Returns:
        An array of the shape and dtype of `x`; normal numbers are drawn in float32 at least.

    Raises:
        ValueError: if a literal σ is negative, or is not one number.
        TypeError: if x is not of a floating dtype, or σ is no number.

    >>> draws = gaussian_noise(jax.random.key(0), jnp.full(100_000, 2.0), 1.0)
    >>> print(f"{draws.mean():.1f} {draws.var():.1f}")
    2.0 1.0

    References:
        Bishop, Training with noise is equivalent to Tikhonov regularization, 1995, eq. 17.
    """
    x, stddev = floating(x, "gaussian_noise"), number(stddev, "gaussian_noise", "stddev", 0, jnp.inf)
    work = widest([x.dtype])
    stddev = stddev.astype(work)
    noisy = x + stddev * jax.random.normal(key, x.shape, work)
    return jnp.where(stddev == 0, x, noisy).astype(x.dtype)  # −0 + 0 would be 0
