"""What the functions of noise take: arrays, rates, axes; and what they say of others."""

import operator

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.arrays import is_floating


def floating(x, api: str) -> jax.Array:
    """`x` as an array; a TypeError if it is not of a floating dtype, which noise cannot be added to."""
    x = array(x, api, "numbers")
    if not is_floating(x):
        raise TypeError(f"`{api}` needs floating-point numbers, got {x.dtype} of shape {x.shape}.")
    return x


def array(x, api: str, what: str) -> jax.Array:
    """`x` as an array; a TypeError if it is none, as a tree is."""
    if isinstance(x, jax.Array):
        return x
    numpy = None if x is None or isinstance(x, (str, bytes, dict)) else np.asarray(x)
    if numpy is None or numpy.dtype.kind in "OUS":
        raise TypeError(f"`{api}` needs an array of {what}, got {type(x).__name__}.")
    return jnp.asarray(x)


@jax.jit  # in one program, so that `jax.debug_nans` sees a NaN that is chosen alone
def valid(x, ok):
    """`x` where `ok`, NaN elsewhere: what was wrong with a traced number is seen in what comes out."""
    return jnp.where(ok, x, jnp.nan)


def number(value, api: str, name: str, low: float, high: float) -> jax.Array:
    """`value` as a scalar array: an error if it is a literal outside of its range, NaN if it is traced."""
    literal = isinstance(value, (int, float, np.number)) or (isinstance(value, np.ndarray) and not value.ndim)
    if literal and np.isreal(value) and not low <= value <= high:
        line = f"in [{low:g}, {high:g}]" if high < np.inf else f"≥ {low:g}"
        raise ValueError(f"`{api}` needs `{name}` {line}, got {value}.")
    got = value
    try:
        value = jnp.asarray(value)
    except (TypeError, ValueError):
        value = None
    if value is None or not (jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)):
        raise TypeError(f"`{api}` needs a number as `{name}`, got {type(got).__name__}.")
    if value.ndim:
        raise ValueError(f"`{api}` needs one number as `{name}`, got shape {value.shape}; `jax.vmap` takes many.")
    value = value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(jnp.float32)
    return valid(value, (value >= low) & (value <= high))


def axes_of(axes, x: jax.Array, api: str, name: str) -> tuple[int, ...]:
    """Axes of `x`, distinct, as non-negative integers."""
    try:
        axes = tuple(operator.index(a) for a in (axes if isinstance(axes, (tuple, list)) else (axes,)))
    except TypeError:
        raise TypeError(f"`{api}` needs ints as `{name}`, got {axes!r}.") from None
    if any(not -x.ndim <= a < x.ndim for a in axes):
        raise ValueError(f"`{api}` needs an array that has the axes {name}={axes}, got shape {x.shape}.")
    if len({a % x.ndim for a in axes}) < len(axes):
        raise ValueError(f"`{api}` needs distinct axes, got {name}={axes} for shape {x.shape}.")
    return tuple(a % x.ndim for a in axes)
