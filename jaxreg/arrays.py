"""One array: the dtype of arithmetic, groups along axes, strengths per group or entry, norms safe at zero."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Axis = int | tuple[int, ...] | None

LARGE = 2**16  # entries of an array from where passes over memory count, not operations


def floating(x, api: Any) -> jax.Array:
    """`x` as an array of at least float32, in which all arithmetic runs."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"`{type(api).__name__}` needs floating-point parameters, got {x.dtype} of shape {x.shape}.")
    return x.astype(widest([x.dtype]))


def is_floating(x) -> bool:
    """Whether a leaf is an array or a number of a floating dtype; trees hold functions and counters too."""
    array = isinstance(x, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct, float))
    return array and jnp.issubdtype(jnp.result_type(x), jnp.floating)


def widest(dtypes) -> jnp.dtype:
    """The widest of floating dtypes, float32 at least."""
    return max([jnp.dtype(jnp.float32), *dtypes], key=lambda dtype: jnp.finfo(dtype).bits)


def group_axes(axis: Axis, x: jax.Array, api: Any) -> tuple[int, ...]:
    """The axes of `x` inside one group, as non-negative integers."""
    if axis is None:
        return tuple(range(x.ndim))
    for a in axis:
        if not -x.ndim <= a < x.ndim:
            raise ValueError(
                f"`{type(api).__name__}(axis={axis})` needs parameters that have axis {a}, got shape {x.shape}."
            )
    axes = tuple(a % x.ndim for a in axis)
    if len(set(axes)) < len(axes):
        raise ValueError(f"`{type(api).__name__}(axis={axis})` names one axis of a leaf of shape {x.shape} twice.")
    return axes


def per_group(v, x: jax.Array, axes: tuple[int, ...], api: Any) -> jax.Array:
    """A number per group, in `x`'s dtype, with the group's axes kept at size 1."""
    v = jnp.asarray(v, x.dtype)
    if v.ndim == 0:
        return v
    groups = tuple(n for i, n in enumerate(x.shape) if i not in axes)
    return jnp.expand_dims(_broadcast(v, groups, "groups", api), axes)


def in_groups(noun, x, number) -> tuple[jax.Array, tuple[int, ...], jax.Array]:
    """`x` in which arithmetic runs, the axes inside its groups, and the noun's `number` per group, kept at size 1."""
    x = floating(x, noun)
    axes = group_axes(noun.axis, x, noun)
    return x, axes, per_group(number, x, axes, noun)


def per_entry(v, x: jax.Array, api: Any) -> jax.Array:
    """A number per entry of `x`, in `x`'s dtype (scalars stay scalars)."""
    v = jnp.asarray(v, x.dtype)
    return v if v.ndim == 0 else _broadcast(v, x.shape, "entries", api)


def _broadcast(v, shape, of, api):
    try:
        return jnp.broadcast_to(v, shape)
    except ValueError:
        raise ValueError(
            f"`{type(api).__name__}` needs a number or an array that broadcasts to the {of} of its leaf, "
            f"of shape {shape}; got shape {v.shape}."
        ) from None


def masked(x: jax.Array, strength: jax.Array) -> jax.Array:
    """`x` with its infinite entries at 0 where `strength` is 0, so that 0·∞ = 0, traced or literal.

    The entries are masked, never the product: the derivative in `strength` survives.
    """
    return jnp.where((strength == 0) & jnp.isinf(x), 0, x)


def times(a, b) -> jax.Array:
    """a·b with 0·∞ = 0, whichever is which."""
    return masked(a, b) * masked(b, a)


def magnitude(x: jax.Array) -> jax.Array:
    """|x| with derivative 0 at 0."""
    return x * jnp.sign(x)


def safe_sqrt(x: jax.Array) -> jax.Array:
    """√x with derivative 0 at 0."""
    zero = x == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


def norm(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """2-norm over `axes`, kept at size 1: gradient 0 at 0, no overflow or underflow of the squares."""
    return polar(x, axes)[1]


def polar(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """x/‖x‖ (0 at 0) and ‖x‖ over `axes`, kept at size 1."""
    scale, scaled, size = _norms(x, axes)
    scale = jax.lax.stop_gradient(scale)
    return x * (1 / scale) / jnp.where(scaled == 0, 1, scaled), size


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _norms(x, axes):
    """A power of two per group, ‖x/scale‖ and ‖x‖."""
    scale, squares = _scaled_squares(x, axes)
    return scale, jnp.sqrt(squares), scale * jnp.sqrt(squares)


@_norms.defjvp
def _(axes, primals, tangents):
    (x,), (dx,) = primals, tangents
    scale, scaled, size = _norms(x, axes)
    scale = jax.lax.stop_gradient(scale)  # a zero tangent would meet 1/scale², which may be infinite
    along = jnp.sum(x * (1 / scale) * dx, axes, keepdims=True)
    slope = jnp.where(scaled == 0, 0, along / jnp.where(scaled == 0, 1, scaled))
    return (scale, scaled, size), (jnp.zeros_like(scale), slope * (1 / scale), slope)


@functools.partial(jax.jit, static_argnames="axes")  # eagerly, the loop would compile anew each time
def _scaled_squares(x, axes):
    """A power of two per group, and Σ(x/scale)², which neither overflows nor underflows.

    Scaling by a power of two changes no bit of the norm where plain squares are in range.
    """

    def scaled(x):
        scale = power_of_two(jnp.max(jnp.abs(x), axes, keepdims=True, initial=0))
        return scale, jnp.sum(jnp.square(x * (1 / scale)), axes, keepdims=True)

    def plain_if_in_range(x):
        squares, info = jnp.sum(jnp.square(x), axes, keepdims=True), jnp.finfo(x.dtype)
        in_range = jnp.all((squares > x.size * info.tiny / info.eps) & (squares < jnp.inf))
        # Unlike `cond`, a loop is not run by `vmap` where no group needs it. Times 1, as XLA takes out of a loop what
        # does not depend on it.
        return jax.lax.while_loop(
            lambda c: ~c[0], lambda c: (~c[0], *scaled(x * c[1])), (in_range, jnp.ones_like(squares), squares)
        )[1:]

    # XLA on a CPU writes x/scale to memory, which takes longer than all else. A GPU does not, but waits for a loop.
    if not isinstance(x.size, int) or x.size < LARGE:  # symbolic, when exported
        return scaled(x)
    return jax.lax.platform_dependent(x, cpu=plain_if_in_range, default=scaled)


def power_of_two(x):
    """The largest power of two ≤ x whose inverse is normal; 1 for zero, subnormal, infinite and NaN."""
    info = jnp.finfo(x.dtype)
    integer = jnp.uint32 if info.bits == 32 else jnp.uint64
    exponent = integer(((1 << info.nexp) - 1) << info.nmant)
    power = jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(x, integer) & exponent, x.dtype)
    return jnp.where((power > 0) & jnp.isfinite(power), jnp.minimum(power, 2.0 ** (info.maxexp - 2)), 1)
