"""The decoupled verb: the penalty's gradient joins the step."""

import jax.numpy as jnp
import optax

from jaxreg.arrays import floating, times
from jaxreg.penalties import Penalty
from jaxreg.pytree import checked_number
from jaxreg.requirements import require_penalties
from jaxreg.transforms.base import at, check_rate, stateless_link
from jaxreg.transforms.gradient import gradient
from jaxreg.transforms.proximal import prox_link


def decay(
    pens, learning_rate, *, peak=None, cautious: bool = False, implicit: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""Decoupled decay: u ← u − η∇λΩ(θ). With `SquaredL2` this is AdamW's weight decay, u − ηλθ.

    It comes *last*, after the learning rate, and carries its own sign and rate. Before the optimizer the weights grow:

        optax.chain(optax.adam(lr), jr.decay(jr.SquaredL2(1e-2), lr))

    The forms of the field, each on its own or together:

    - `decay(pens, lr)`: u − η_t∇λΩ(θ), optax's and torch's AdamW.
    - `decay(pens, schedule)` with a schedule of its own, 1.0 for none: u − s_t∇λΩ(θ), Loshchilov and Hutter's AdamW.
    - `decay(pens, lr, peak=max_lr)`: u − (η_t²/η_max)∇λΩ(θ), AdamC, which keeps the norm of normalized layers steady.
    - `decay(pens, lr, cautious=True)`: only entries in which the step does not work against it, u·∇λΩ(θ) ≤ 0.
    - `decay(jr.Towards(pen, anchor), lr)`: u − η_t∇λΩ(θ − anchor), towards pretrained weights; `jr.towards` for trees.
    - `decay(pens, lr, implicit=True)`: θ⁺ = θ + u − η_t∇λΩ(θ⁺), which is prox_{ηλΩ}(θ + u), for `SquaredL2`
      (θ + u)/(1 + ηλ). The explicit form diverges where ηλ > 2, the implicit one nowhere.

    Args:
        pens: a penalty with a gradient (`implicit`: with a prox), a prefix tree of such and None, or a schedule count
            -> either.
        learning_rate: η ≥ 0, a number or a schedule count -> number; 1.0 makes decay independent of the learning rate.
        peak: η_max > 0, the largest learning rate of the schedule; None for no correction.
        cautious: leave out entries that the step u moves the other way.
        implicit: take the gradient at the new weights rather than at the old ones.

    Returns:
        A gradient transformation; its state is a count.

    Raises:
        TypeError: if `pens` holds anything but penalties with a gradient, or with a prox where `implicit`.
        ValueError: if a literal `learning_rate` is negative or NaN, a literal `peak` is not positive, or `cautious`
            and `implicit` are both asked for.

    >>> import jax.numpy as jnp, jaxreg as jr
    >>> tx = optax.chain(optax.sgd(0.5), jr.decay(jr.SquaredL2(0.5), 0.5))
    >>> w = jnp.array([2.0, -2.0])
    >>> tx.update(jnp.array([1.0, 1.0]), tx.init(w), w)[0].tolist()
    [-1.0, 0.0]
    >>> tx = optax.chain(optax.sgd(0.5), jr.decay(jr.SquaredL2(0.5), 0.5, cautious=True))
    >>> tx.update(jnp.array([1.0, 1.0]), tx.init(w), w)[0].tolist()
    [-1.0, -0.5]
    >>> tx = optax.chain(optax.sgd(0.5), jr.decay(jr.SquaredL2(2.0), 0.5, implicit=True))
    >>> optax.apply_updates(w, tx.update(jnp.array([1.0, 1.0]), tx.init(w), w)[0]).tolist()
    [0.75, -1.25]

    References:
        Loshchilov and Hutter, Decoupled weight decay regularization, 2019, algorithm 2 (where η is the schedule alone);
        Defazio, Why gradients rapidly increase near the end of training, arXiv 2506.02285 (AdamC);
        Chen et al., Cautious weight decay, arXiv 2510.12402.
    """
    check_rate(learning_rate, "decay")
    if peak is not None:
        peak = checked_number("decay", "peak", peak, positive=True)

    def rate(count, dtype=None):
        now = jnp.asarray(at(learning_rate, count), dtype)
        return now if peak is None else now * (now / jnp.asarray(peak, now.dtype))

    if implicit:
        if cautious:
            raise ValueError(
                "`decay` needs `implicit` or `cautious`, got both: the gradient at the new weights is not known when "
                "its sign is asked for."
            )
        return prox_link(pens, rate, "decay(implicit=True)")

    def link(pen, u, p, count):
        g, wide = gradient(pen, p), floating(u, pen)
        if cautious:
            g = jnp.where(jnp.sign(wide) * jnp.sign(g) > 0, 0, g)
        return (wide - times(rate(count, g.dtype), g)).astype(u.dtype)

    def require(pens):
        require_penalties(pens, "decay", differentiable=True)

    return stateless_link("decay", pens, require, Penalty.value, link)
