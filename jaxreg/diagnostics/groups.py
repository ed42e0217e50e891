"""Arrays and the groups in them, as diagnostics take them."""

import jax
import jax.numpy as jnp
from numpy.lib.array_utils import normalize_axis_tuple


def real(api: str, x) -> jax.Array:
    """`x` as an array of real numbers, in float32 at least."""
    if isinstance(x, (dict, tuple)):
        raise TypeError(
            f"`{api}` needs an array, got a {type(x).__name__}: pass the kernel, or what `sow` stored, itself."
        )
    x = jnp.asarray(x)
    if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
        raise TypeError(f"`{api}` needs real numbers, got {x.dtype} of shape {x.shape}.")
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def axes_inside(api: str, axis, x, name: str = "axis") -> tuple[int, ...]:
    """The axes inside one group of `x`, as non-negative integers."""
    if axis is None:
        return tuple(range(x.ndim))
    try:
        return normalize_axis_tuple(axis, x.ndim)
    except (TypeError, ValueError):
        raise ValueError(
            f"`{api}` needs None or distinct axes of the array as `{name}`, got {axis!r} for shape {x.shape}."
        ) from None
