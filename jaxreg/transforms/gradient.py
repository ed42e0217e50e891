"""The coupled verb: the penalty's gradient joins the loss's."""

import jax
import optax

from jaxreg.arrays import floating
from jaxreg.penalties import Penalty
from jaxreg.requirements import require_penalties
from jaxreg.transforms.base import OnGradients, stateless_link


def add_penalty_gradient(pens) -> optax.GradientTransformationExtraArgs:
    r"""Add ∇λΩ(θ) to the gradients: g ← g + ∇λΩ(θ). With `SquaredL2` this is L2 regularization, g + λθ.

    It comes *first* in the chain (coupled), or between preconditioner and learning rate (decoupled). Last, its sign
    would be wrong and the weights would grow:

        optax.chain(jr.add_penalty_gradient(pens), optax.adam(lr))

    Args:
        pens: a penalty with a gradient, a prefix tree of such and None, or a schedule count -> either.

    Returns:
        A gradient transformation; its state is a count.

    Raises:
        TypeError: if `pens` holds anything but penalties with a gradient.

    >>> import jax.numpy as jnp, jaxreg as jr
    >>> tx = optax.chain(jr.add_penalty_gradient(jr.SquaredL2(0.5)), optax.sgd(1.0))
    >>> w = jnp.array([2.0])
    >>> tx.update(jnp.array([1.0]), tx.init(w), w)[0].tolist()
    [-2.0]

    References:
        Goodfellow, Bengio and Courville, Deep Learning, 2016, eq. 7.4.
    """

    def link(pen, u, p, count):
        return (floating(u, pen) + gradient(pen, p)).astype(u.dtype)

    verb = "add_penalty_gradient"

    def require(pens):
        require_penalties(pens, verb, differentiable=True)

    return stateless_link(verb, pens, require, Penalty.value, link, place=OnGradients)


def gradient(pen: Penalty, x) -> jax.Array:
    """∇λΩ(x), in float32 at least."""
    return jax.grad(pen.value)(floating(x, pen))
