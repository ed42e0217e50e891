"""The proximal verb: a step, then the penalty's prox. Its zeros are exact."""

import jax
import jax.numpy as jnp
import optax

from jaxreg.arrays import floating
from jaxreg.requirements import require_penalties
from jaxreg.transforms.base import at, check_rate, stateless_link


def proximal(pens, learning_rate) -> optax.GradientTransformationExtraArgs:
    r"""Proximal step: the new parameters are prox_{ηλΩ}(θ + u). Its zeros are exact, in every dtype.

    It comes *last*, after the learning rate, which it has to know:

        optax.chain(optax.sgd(lr), jr.proximal(jr.L1(1e-3), lr))

    With plain SGD this is proximal gradient descent. After a preconditioner (Adam) the prox is still the Euclidean one,
    which solves another problem than the preconditioned step does: there use `proximal_adam` or `proxgen`. Updates keep
    their dtype: in bf16 and f16 a large move rounds to the magnitude of the larger of old and new weight.

    Args:
        pens: a penalty with a prox, a prefix tree of such and None, or a schedule count -> either.
        learning_rate: η ≥ 0, a number or a schedule count -> number.

    Returns:
        A gradient transformation; its state is a count. Where the prox leaves θ + u as it is, it returns u itself.

    Raises:
        TypeError: if `pens` holds anything but penalties with a prox.
        ValueError: if a literal `learning_rate` is negative or NaN.

    >>> import jax.numpy as jnp, jaxreg as jr
    >>> tx = optax.chain(optax.sgd(1.0), jr.proximal(jr.L1(0.5), 1.0))
    >>> w = jnp.array([2.0, 0.1])
    >>> u, _ = tx.update(jnp.array([1.0, 0.2]), tx.init(w), w)
    >>> optax.apply_updates(w, u).tolist()
    [0.5, 0.0]

    References:
        Parikh and Boyd, Proximal algorithms, 2014, section 4.2.
    """
    check_rate(learning_rate, "proximal")
    return prox_link(pens, lambda count: at(learning_rate, count), "proximal")


def prox_link(pens, rate, verb) -> optax.GradientTransformationExtraArgs:
    """The link p + u → prox of the step `rate(count)`."""
    return stateless_link(
        verb,
        pens,
        lambda pens: require_penalties(pens, verb, proximable=True),
        lambda pen, p: (pen.measure(p), pen.prox(p, 1.0)),
        lambda pen, u, p, count: shrink(pen, u, p, rate(count)),
    )


def shrink(pen, u, p, step):
    """The update that takes p to prox(p + u), in the wider of their dtypes."""
    moved = move(u, p, lambda z: pen.prox(z, step), pen)
    return moved.astype(max(u.dtype, jnp.result_type(p), key=lambda dtype: jnp.finfo(dtype).bits))


def move(u, p, onto, api):
    """The update that takes p to onto(p + u), in float32 at least; u itself where `onto` changes nothing."""
    info = jnp.finfo(u.dtype)
    p, u = floating(p, api), floating(u, api)
    if info.bits < 32:  # under jit, XLA may skip the rounding of a narrow u that is widened at once
        u = jax.lax.reduce_precision(u, info.nexp, info.nmant)
    z = p + u
    target = onto(z)
    # u − (z − z) is u bit for bit, and unlike u alone it keeps the derivatives of `onto`, at λ = 0 for one.
    finite = jnp.isfinite(z)
    stay = u - (jnp.where(finite, z, 0) - jnp.where(finite, target, 0))
    return jnp.where(target == z, stay, target - p)
