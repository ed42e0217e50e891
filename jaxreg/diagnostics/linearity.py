"""How linear a layer and a network are."""

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis
from jaxreg.diagnostics.groups import axes_inside, real


def linear_share(preactivations, threshold=0.5, *, axis: Axis = None) -> jax.Array:
    r"""The share of |z| < threshold: how much of a tanh layer works where tanh z ≈ z.

    At |z| = .5 tanh is 8 % below z, and its slope is .79.

    Args:
        preactivations: z, before tanh.
        threshold: a number; traced too.
        axis: the axes inside one group (0 for each unit of `(batch, units)`, 1 for each example); None is all in one.

    Returns:
        Shares without `axis`, float32 at least.

    Raises:
        ValueError: if there are no such axes, or a group has no entries.

    >>> linear_share(jnp.array([[0.1, -0.4], [0.5, 3.0]])).item()
    0.5
    """
    z = real("linear_share", preactivations)
    axes = axes_inside("linear_share", axis, z)
    if 0 in (z.shape[i] for i in axes):
        raise ValueError(f"`linear_share` needs one pre-activation at least, got shape {z.shape}.")
    return jnp.mean((jnp.abs(z) < threshold).astype(z.dtype), axes)


def linear_r2(x, outputs) -> jax.Array:
    r"""R² of the best linear fit, with an intercept, to a network's outputs: 1 if what it computes is linear in x.

        R² = 1 − min_{W,b} Σ‖f(xᵢ) − xᵢW − b‖² / Σ‖f(xᵢ) − f̄‖²

    All outputs count in one sum. Constant ones, up to rounding, are linear: 1. Where outputs hardly vary beside their
    mean, leave out the last bias, which changes nothing here but takes their digits.

    Args:
        x: the inputs (n, *features), of any rank.
        outputs: f(x), (n,) or (n, *outputs); under `vmap` over networks alone, x is factorised once.

    Returns:
        A scalar in [0, 1], up to rounding; float32 at least.

    Raises:
        ValueError: if the two differ in n, or n is not above the number of features plus one: any outputs would fit.

    >>> x = jnp.linspace(-1.0, 1.0, 9)[:, None]
    >>> [round(linear_r2(x, y).item(), 2) for y in (3 * x + 1, x + x**2)]
    [1.0, 0.76]
    """
    x, y = real("linear_r2", x), real("linear_r2", outputs)
    if not (x.ndim and y.ndim) or len(x) != len(y):
        raise ValueError(f"`linear_r2` needs outputs for each input, got shapes {x.shape} and {y.shape}.")
    dtype = jnp.promote_types(x.dtype, y.dtype)
    x, y = x.reshape(len(x), -1).astype(dtype), y.reshape(len(y), -1).astype(dtype)
    if len(x) <= x.shape[1] + 1:
        raise ValueError(
            f"`linear_r2` needs more examples than {x.shape[1]} features and an intercept, which fit any outputs of "
            f"fewer; got {len(x)}."
        )
    eps = jnp.finfo(dtype).eps
    largest = jnp.max(jnp.abs(y), initial=0)
    x, y = x - jnp.mean(x, 0), y - jnp.mean(y, 0)
    constant = jnp.max(jnp.abs(y), initial=0) <= 4 * eps * largest
    with jax.default_matmul_precision("highest"):
        size = jnp.max(jnp.abs(x), 0)  # R² does not depend on units; what is cut off as rounding would
        u, d, _ = jnp.linalg.svd(x / jnp.where(size > 0, size, 1), full_matrices=False)
        u = jnp.where(d > d[:1] * max(x.shape) * eps, u, 0)
        rest = y - u @ (u.T @ y)
    y, rest = (a / jnp.where(largest > 0, largest, 1) for a in (y, rest))  # squares of tiny ones would be 0
    total = jnp.sum(jnp.square(y))
    return jnp.where(constant, 1, 1 - jnp.sum(jnp.square(rest)) / jnp.where(constant, 1, total))
