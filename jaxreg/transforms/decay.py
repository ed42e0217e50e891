"""The decoupled verb: the penalty's gradient joins the step."""

import jax.numpy as jnp
import optax

from jaxreg.arrays import floating
from jaxreg.objective import require_penalties
from jaxreg.penalties import Penalty
from jaxreg.transforms.base import at, check_rate, stateless_link
from jaxreg.transforms.gradient import gradient


def decay(pens, learning_rate) -> optax.GradientTransformationExtraArgs:
    r"""Decoupled decay: u ← u − η∇λΩ(θ). With `SquaredL2` this is AdamW's weight decay, u − ηλθ.

    It comes *last*, after the learning rate, and carries its own sign and rate. Before the optimizer the weights grow:

        optax.chain(optax.adam(lr), jr.decay(jr.SquaredL2(1e-2), lr))

    Args:
        pens: a penalty with a gradient, a prefix tree of such and None, or a schedule count -> either.
        learning_rate: η ≥ 0, a number or a schedule count -> number; 1.0 makes decay independent of the learning rate.

    Returns:
        A gradient transformation; its state is a count.

    Raises:
        TypeError: if `pens` holds anything but penalties with a gradient.
        ValueError: if a literal `learning_rate` is negative or NaN.

    >>> import jax.numpy as jnp, jaxreg as jr
    >>> tx = optax.chain(optax.sgd(0.5), jr.decay(jr.SquaredL2(0.5), 0.5))
    >>> w = jnp.array([2.0])
    >>> tx.update(jnp.array([1.0]), tx.init(w), w)[0].tolist()
    [-1.0]

    References:
        Loshchilov and Hutter, Decoupled weight decay regularization, 2019, algorithm 2 (where η is the schedule alone).
    """
    check_rate(learning_rate, "decay")

    def link(pen, u, p, count):
        g = gradient(pen, p)
        return (floating(u, pen) - jnp.asarray(at(learning_rate, count), g.dtype) * g).astype(u.dtype)

    return stateless_link(pens, lambda pens: require_penalties(pens, "decay", differentiable=True), Penalty.value, link)
