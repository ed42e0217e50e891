"""What the functions of noise take: arrays, rates, axes; and what they say of others."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.arrays import is_floating


def floating(x, api: str) -> jax.Array:
    """`x` as an array; a TypeError if it is not of a floating dtype, which noise cannot be added to."""
    x = x if isinstance(x, jax.Array) else jnp.asarray(x)
    if not is_floating(x):
        raise TypeError(f"`{api}` needs floating-point numbers, got {x.dtype} of shape {x.shape}.")
    return x


def number(value, api: str, name: str, low: float, high: float) -> jax.Array:
    """`value` as a scalar array; its range is checked where it costs nothing: of Python's and NumPy's numbers."""
    if isinstance(value, (int, float, np.number)) and not low <= value <= high:
        line = f"in [{low:g}, {high:g}]" if high < np.inf else f"≥ {low:g}"
        raise ValueError(f"`{api}` needs `{name}` {line}, got {value}.")
    try:
        value = jnp.asarray(value)
    except (TypeError, ValueError):
        value = None
    if value is None or not (jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)):
        raise TypeError(f"`{api}` needs a number as `{name}`.")
    if value.ndim:
        raise ValueError(f"`{api}` needs one number as `{name}`, got shape {value.shape}; `jax.vmap` takes many.")
    return value


def axes_of(axes, x: jax.Array, api: str, name: str) -> tuple[int, ...]:
    """Axes of `x`, distinct, as non-negative integers."""
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    if any(type(a) is not int for a in axes):
        raise TypeError(f"`{api}` needs ints as `{name}`, got {axes!r}.")
    if any(not -x.ndim <= a < x.ndim for a in axes):
        raise ValueError(f"`{api}` needs an array that has the axes {name}={axes}, got shape {x.shape}.")
    if len({a % x.ndim for a in axes}) < len(axes):
        raise ValueError(f"`{api}` needs distinct axes, got {name}={axes} for shape {x.shape}.")
    return tuple(a % x.ndim for a in axes)
