"""Parameters by their paths."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, is_floating, norm, polar
from jaxreg.diagnostics.groups import axes_inside, real
from jaxreg.pytree import flatten, pairs
from jaxreg.requirements import require_penalties
from jaxreg.select import choose


def norms(params, pattern: str = "*", *, axis: Axis = None) -> dict[str, jax.Array]:
    r"""‖θ_g‖₂ of each group of each parameter: {path: norms}.

    Args:
        params: the parameters, a pytree of any framework.
        pattern: which of them, a glob as for `by_path`; leaves that are not floating are left out.
        axis: the axes inside one group (0 for the incoming weights of a unit of an `(in, out)` kernel, 1 for
            `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group for each parameter.

    Returns:
        Arrays without `axis`, float32 at least; sums do not overflow, and the gradient at 0 is 0.

    Raises:
        ValueError: if `pattern` matches nothing, or a parameter it matches has no such axes.

    >>> norms({"w": jnp.array([[3.0, 0.0], [4.0, 0.0]]), "b": jnp.array([2.0])}, "w", axis=0)["w"].tolist()
    [5.0, 0.0]
    """
    found = {}
    for path, leaf in _chosen("norms", params, pattern):
        x = real("norms", leaf)
        axes = axes_inside("norms", axis, x)
        found[path] = jnp.squeeze(norm(x, axes), axes)
    return found


class Zeros(NamedTuple):
    """How many entries are exactly 0, and which share that is."""

    count: jax.Array
    share: jax.Array


def zeros(params, pattern: str = "*", *, axis: Axis = None) -> dict[str, Zeros]:
    r"""Exact zeros in each group of each parameter: {path: (count, share)}.

    `proximal` makes them; gradients of a penalty do not. Subnormal numbers count where the device takes them for 0.

    Args:
        params: the parameters, a pytree of any framework.
        pattern: which of them, a glob as for `by_path`; leaves that are not floating are left out.
        axis: the axes inside one group (0 for the incoming weights of a unit of an `(in, out)` kernel, 1 for
            `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group for each parameter.

    Returns:
        A `Zeros` of arrays without `axis` at each path: `count` integers, `share` floats, 0 in groups without entries.

    Raises:
        ValueError: if `pattern` matches nothing, or a parameter it matches has no such axes.

    >>> count, share = zeros({"w": jnp.array([[3.0, 0.0], [4.0, 0.0]])})["w"]
    >>> count.item(), share.item()
    (2, 0.5)
    """
    found = {}
    for path, leaf in _chosen("zeros", params, pattern):
        x = jnp.asarray(leaf)
        axes = axes_inside("zeros", axis, x)
        count = jnp.count_nonzero(x == 0, axes)
        found[path] = Zeros(count, count / max(math.prod(x.shape[a] for a in axes), 1))
    return found


def penalties(pens, params) -> dict[str, jax.Array]:
    r"""λΩ(θ) of each penalized parameter: {path: value}; `jr.value` is their sum.

    Args:
        pens: a penalty, or a prefix tree of penalties and None.
        params: the parameters.

    Returns:
        Scalars of float32 at least, for parameters that have a penalty.

    Raises:
        TypeError: if `pens` holds anything but penalties.
        ValueError: if `pens` does not fit `params`.

    >>> import jaxreg as jr
    >>> parts = penalties({"w": jr.L1(0.5), "b": None}, {"w": jnp.array([1.0, -2.0]), "b": jnp.array(9.0)})
    >>> {path: part.item() for path, part in parts.items()}
    {'w': 1.5}
    """
    require_penalties(pens, "penalties")
    matched, _ = pairs(pens, params)
    return {"/".join(path): pen.value(leaf) for path, pen, leaf in matched if pen is not None}


def angles(before, after, pattern: str = "*", *, axis: Axis = None) -> dict[str, jax.Array]:
    r"""∠(θ_g, θ'_g) in radians between each group of two trees of parameters: {path: angles}.

    Of parameters before and after a step it is the rotation of that step, all that a scale-invariant weight learns.
    Computed as 2·atan2(‖u − v‖, ‖u + v‖) with u = θ/‖θ‖, v = θ'/‖θ'‖, it is as exact for small angles as for large.

    Args:
        before: parameters, a pytree of any framework.
        after: parameters with the same paths and shapes.
        pattern: which of them, a glob as for `by_path`; leaves that are not floating are left out.
        axis: the axes inside one group (0 for the incoming weights of a unit of an `(in, out)` kernel, 1 for
            `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group for each parameter.

    Returns:
        Arrays in [0, π] without `axis`, float32 at least; π/2 where one of two groups is 0, and 0 where both are.

    Raises:
        ValueError: if `pattern` matches nothing, a parameter it matches has no such axes, or the trees do not fit.

    >>> round(angles({"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([0.0, 2.0])})["w"].item(), 3)
    1.571

    References:
        Kahan, How futile are mindless assessments of roundoff in floating-point computation?, 2006, section 12.
    """
    chosen, others, found = _chosen("angles", before, pattern), dict(_chosen("angles", after, pattern)), {}
    more = sorted(others.keys() - dict(chosen).keys())
    if more:
        raise ValueError(f"`angles` needs two trees alike: {more} are only in the second.")
    for path, leaf in chosen:
        if path not in others or jnp.shape(others[path]) != jnp.shape(leaf):
            other = f"shape {jnp.shape(others[path])}" if path in others else "nothing"
            raise ValueError(
                f"`angles` needs two trees alike: {path!r} has shape {jnp.shape(leaf)} before, {other} after."
            )
        x = real("angles", leaf)
        axes = axes_inside("angles", axis, x)
        u, v = polar(x, axes)[0], polar(real("angles", others[path]), axes)[0]
        found[path] = jnp.squeeze(2 * jnp.arctan2(norm(u - v, axes), norm(u + v, axes)), axes)
    return found


def _chosen(api: str, params, pattern: str) -> list[tuple[str, jax.Array]]:
    """[(path, leaf)] of the floating leaves that `pattern` matches."""
    if not isinstance(pattern, str):
        raise TypeError(f"`{api}` needs a glob such as '*/kernel' as `pattern`, got {pattern!r}.")
    leaves = [(path, leaf) for path, leaf in flatten(params)[0] if is_floating(leaf)]
    winners = choose(leaves, {pattern: None}, api)
    found = [("/".join(path), leaf) for (path, leaf), winner in zip(leaves, winners, strict=True) if winner is not None]
    if len(dict(found)) < len(found):
        raise ValueError(f"`{api}` needs parameters with distinct paths, got {[path for path, _ in found]}.")
    return found
