"""Matrices by their singular values: what spectral penalties and constraints share.

A leaf is read as a matrix whose columns are its last group axis and whose rows are the group's other axes: (in, out)
kernels as they are, HWIO kernels as (H·W·I, O). Nothing here tells a matrix from its transpose, so the tall one is
taken: `x` has shape (..., m, n) with m ≥ n, its singular values (..., n), descending, and numbers shape (..., 1).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxreg.arrays import floating, group_axes, norm, per_group, power_of_two
from jaxreg.geometry import onto_octahedron

product = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


class Factors(NamedTuple):
    """x = u diag(s) vᵀ: u (..., m, n) and v (..., n, n) with orthonormal columns."""

    u: jax.Array
    s: jax.Array
    v: jax.Array


def matrices(noun: Any, x, *numbers) -> tuple[Any, ...]:
    """`x` as tall matrices, the function that brings their likes back to the shape of `x`, and numbers per group."""
    x = floating(x, noun)
    axes = tuple(sorted(group_axes(noun.axis, x, noun)))
    order = (*(i for i in range(x.ndim) if i not in axes), *axes)
    moved = x.transpose(order)
    stack = moved.shape[: x.ndim - len(axes)]
    columns = x.shape[axes[-1]] if axes else 1
    rows = math.prod(x.shape[a] for a in axes[:-1])
    flip = rows < columns

    def back(y):
        y = (transpose(y) if flip else y).reshape(moved.shape)
        return y.transpose(sorted(range(x.ndim), key=order.__getitem__))

    z = moved.reshape(*stack, rows, columns)
    numbers = [per_group(v, x, axes, noun) for v in numbers]
    numbers = [v if v.ndim == 0 else jnp.squeeze(v, axes)[..., None] for v in numbers]
    return transpose(z) if flip else z, back, *numbers


def transpose(x) -> jax.Array:
    """xᵀ, of each matrix."""
    return jnp.swapaxes(x, -1, -2)


@jax.custom_jvp
def svd(x) -> Factors:
    """The thin singular value decomposition; NaN for a matrix with an entry that is not finite.

    Derivatives of vectors leave out what has no limit: rotations between equal singular values, and 1/0. They are for
    second derivatives of spectral maps; the first ones are exact everywhere, by `rebuild`.
    """
    # Squares must not overflow; a power of two changes no bit. LAPACK may never return from an infinite entry.
    scale = power_of_two(jnp.max(jnp.abs(x), (-2, -1), keepdims=True, initial=0))
    finite = jnp.all(jnp.isfinite(x), (-2, -1), keepdims=True)
    u, s, vt = jnp.linalg.svd(jnp.where(finite, x / scale, 0), full_matrices=False)
    u, s, vt = (jnp.where(finite, a, jnp.nan) for a in (u, s[..., None, :], vt))
    return Factors(u, s[..., 0, :] * scale[..., 0], transpose(vt))


@svd.defjvp
def _(primals, tangents):
    (x,), (dx,) = primals, tangents
    u, s, v = factors = svd(x)
    inner, outer = _split(u, dx, v)
    row, column = s[..., :, None], s[..., None, :]
    level = _level(x, s)
    turn = _ratio(1, (column - row) * (column + row), tiny=level * level)
    du = product(u, turn * (inner * column + row * transpose(inner))) + outer * _ratio(1, column, tiny=level)
    dv = product(v, turn * (row * inner + transpose(inner) * column))
    return factors, Factors(du, jnp.diagonal(inner, axis1=-2, axis2=-1), dv)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def rebuild(slopes: tuple[float, float], x, factors: Factors, f, above) -> jax.Array:
    """u diag(f) vᵀ for f a function of the singular values of x, with its exact derivative.

    f is linear in two pieces: each fᵢ(s) has slope `slopes[1]` where `above`, else `slopes[0]`. How f depends on
    thresholds, and they on s, is up to the derivative of `f` itself. Where f = s the result is x, bit for bit.
    """
    u, s, v = factors
    # From x or from 0, whichever is nearer: the rounding is that of the smaller part.
    nearer = peak(jnp.abs(s - f)) <= peak(jnp.abs(f))
    part = product(u * jnp.where(nearer, s - f, f)[..., None, :], transpose(v))
    return jnp.where(nearer[..., None], x - part, part)


@rebuild.defjvp
def _(slopes, primals, tangents):
    # d(u diag(f) vᵀ) = u(A∘sym(P) + B∘skew(P) + diag(df))vᵀ + (I − uuᵀ)dx v diag(f/s)vᵀ, P = uᵀdx v
    (x, (u, s, v), f, above), (dx, _, df, _) = primals, tangents
    inner, outer = _split(u, dx, v)
    slope = jnp.where(above, slopes[1], slopes[0]).astype(s.dtype)
    row, column = (lambda w: w[..., :, None]), (lambda w: w[..., None, :])
    same = row(above) == column(above)
    level = _level(x, s)
    apart = jnp.where(same, row(slope), _ratio(row(f) - column(f), row(s) - column(s), tiny=level))
    joint = _ratio(row(f) + column(f), row(s) + column(s), row(slope), tiny=level)
    even, odd = (inner + transpose(inner)) / 2, (inner - transpose(inner)) / 2
    eye = jnp.eye(s.shape[-1], dtype=s.dtype)
    core = (1 - eye) * (apart * even + joint * odd) + eye * column(df)
    outer = outer * _ratio(column(f), column(s), column(slope), tiny=level)
    return rebuild(slopes, x, Factors(u, s, v), f, above), product(product(u, core) + outer, transpose(v))


def _split(u, dx, v):
    """uᵀ dx v, and what of dx v is outside the columns of u."""
    right = product(dx, v)
    inner = product(transpose(u), right)
    return inner, right - product(u, inner)


def _level(x, s):
    """What is within the rounding of the largest singular value has no inverse."""
    return jax.lax.stop_gradient(float(jnp.finfo(s.dtype).eps) * x.shape[-2] * peak(s)[..., None])


def _ratio(a, b, otherwise=0.0, tiny=0.0):
    """a/b, and `otherwise` where b is 0 or as good as 0."""
    tiny = jnp.abs(b) <= jnp.maximum(tiny, jnp.finfo(b.dtype).tiny / jnp.finfo(b.dtype).eps)
    return jnp.where(tiny, otherwise, a / jnp.where(tiny, 1, b))


def peak(s) -> jax.Array:
    """The largest singular value of each matrix, kept at size 1; 0 if it has none."""
    return jnp.max(s, -1, keepdims=True, initial=0)


def noise(x, factors: Factors, dtype) -> jax.Array:
    """Up to here a singular value may be 0: what the arithmetic leaves, and the rounding of the weights to `dtype`."""
    s = factors.s
    return x.shape[-2] * float(jnp.finfo(s.dtype).eps) * peak(s) + float(jnp.finfo(dtype).eps) * norm(s, (-1,))


def signs(x, factors: Factors, dtype) -> jax.Array:
    """1 where a singular value is not 0, else 0; NaN where it is."""
    s = factors.s
    return jnp.where(jnp.isnan(s), s, (s > noise(x, factors, dtype)).astype(s.dtype))


def tops(x, factors: Factors, dtype) -> jax.Array:
    """Weights of an average over the largest singular values; all 0 where x = 0, NaN where they are."""
    s = factors.s
    top = ((s >= peak(s) - noise(x, factors, dtype)) & (s > 0)).astype(s.dtype)
    return jnp.where(jnp.isnan(s), s, top / jnp.maximum(jnp.sum(top, -1, keepdims=True), 1))


def nuclear(x) -> jax.Array:
    """Σs of each matrix, kept at size 1; its gradient leaves the null space alone."""
    return _weighted(signs, functools.partial(jnp.sum, axis=-1, keepdims=True), x)


def spectral(x) -> jax.Array:
    """max s of each matrix, kept at size 1; its gradient is an average over the largest."""
    return _weighted(tops, peak, x)


def onto_nuclear_ball(x, radius) -> jax.Array:
    """Nearest matrix with Σs ≤ radius, x itself where it is one; of trace `radius` if x ⪰ 0 has as much."""
    factors = svd(x)
    f = onto_octahedron(factors.s, radius, (-1,))
    inside = jnp.all(f == factors.s, -1, keepdims=True)
    return rebuild((0.0, 1.0), x, factors, f, (f > 0) | inside)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _weighted(weights: Callable, reduce: Callable, x) -> jax.Array:
    """reduce(s) with the gradient u diag(w) vᵀ, w = weights(x, factors, dtype)."""
    return _value_and_slope(weights, reduce, x)[0]


@_weighted.defjvp
def _(weights, reduce, primals, tangents):
    value, slope = _value_and_slope(weights, reduce, *primals)
    return value, jnp.sum(slope * tangents[0], (-2, -1))[..., None]


def _value_and_slope(weights, reduce, x):
    factors = svd(x)
    w = jax.lax.stop_gradient(weights(x, factors, x.dtype))
    value = jnp.sum(w * factors.s, -1, keepdims=True)
    value += jax.lax.stop_gradient(reduce(factors.s) - value)  # what is within the noise counts, without a slope
    return value, rebuild((0.0, 0.0), x, factors, w, w > 0)
