"""Hidden units that do nothing."""

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, norm
from jaxreg.diagnostics.groups import axes_inside, real


def unit_strengths(incoming, outgoing, *, axis: Axis = 0, outgoing_axis: Axis = 1) -> jax.Array:
    r"""‖incoming_j‖·‖outgoing_j‖ of each hidden unit j.

    With ReLU it stays the same when a unit's incoming weights (and bias) are scaled by c > 0 and its outgoing ones by
    1/c, as does what the network computes.

    Args:
        incoming: the kernel before the units, `(in, units)`.
        outgoing: the kernel after them, `(units, out)`.
        axis: the axes of `incoming` inside one unit (0 for an `(in, units)` kernel, 1 for `(units, in)`, (0, 1, 2) for
            HWIO convolutions).
        outgoing_axis: those of `outgoing` (1 for `(units, out)`, 0 for `(out, units)`, (0, 1, 3) for HWIO).

    Returns:
        An array (units,), float32 at least.

    Raises:
        ValueError: if a kernel has no such axes, or the two differ in the number of units.

    >>> unit_strengths(jnp.array([[3.0, 0.0], [4.0, 0.0]]), jnp.array([[2.0], [7.0]])).tolist()
    [10.0, 0.0]
    """
    return _strengths("unit_strengths", incoming, outgoing, axis, outgoing_axis)


def _strengths(api, incoming, outgoing, axis, outgoing_axis) -> jax.Array:
    sizes = []
    for name, kernel, inside in (("axis", incoming, axis), ("outgoing_axis", outgoing, outgoing_axis)):
        x = real(api, kernel)
        axes = axes_inside(api, inside, x, name)
        sizes.append(jnp.squeeze(norm(x, axes), axes))
    if sizes[0].shape != sizes[1].shape:
        raise ValueError(
            f"`{api}` needs as many units before as after: without `axis={axis}` incoming weights have shape "
            f"{sizes[0].shape}, without `outgoing_axis={outgoing_axis}` outgoing ones {sizes[1].shape}."
        )
    return sizes[0] * sizes[1]


def dead_units(incoming, outgoing, tolerance=1e-3, *, axis: Axis = 0, outgoing_axis: Axis = 1) -> jax.Array:
    r"""‖incoming_j‖·‖outgoing_j‖ < tolerance: hidden units that are cut off, before or behind; a mask.

    One that is cut off before still adds what its bias makes it, a constant, to what follows. `silent_units` finds
    those that no example activates, whatever their weights.

    Args:
        incoming: the kernel before the units, `(in, units)`.
        outgoing: the kernel after them, `(units, out)`.
        tolerance: a number ≥ 0; traced too.
        axis: the axes of `incoming` inside one unit (0 for an `(in, units)` kernel, 1 for `(units, in)`, (0, 1, 2) for
            HWIO convolutions).
        outgoing_axis: those of `outgoing` (1 for `(units, out)`, 0 for `(out, units)`, (0, 1, 3) for HWIO).

    Returns:
        A mask (units,); its mean is the share.

    Raises:
        ValueError: if a kernel has no such axes, or the two differ in the number of units.

    >>> dead_units(jnp.array([[3.0, 0.0], [4.0, 0.0]]), jnp.array([[2.0], [7.0]])).tolist()
    [False, True]
    """
    return _strengths("dead_units", incoming, outgoing, axis, outgoing_axis) < tolerance


def silent_units(activations, tolerance=0.0, *, axis: Axis = 0) -> jax.Array:
    r"""|a| ≤ tolerance for every example: units that never fire on a batch; a mask.

    Args:
        activations: a layer's outputs, after ReLU; `(batch, units)`.
        tolerance: a number ≥ 0; traced too.
        axis: the axes of one unit's activations: 0 for `(batch, units)`, (0, 1, 2) for the channels of NHWC.

    Returns:
        A mask (units,); its mean is the share.

    Raises:
        ValueError: if there are no such axes, or no example.

    >>> silent_units(jnp.array([[0.0, 0.0], [2.0, 0.0]])).tolist()
    [False, True]
    """
    a = real("silent_units", activations)
    axes = axes_inside("silent_units", axis, a)
    if 0 in (a.shape[i] for i in axes):
        raise ValueError(f"`silent_units` needs one example at least, got activations of shape {a.shape}.")
    return jnp.all(jnp.abs(a) <= tolerance, axes)
