"""The right chain."""

import optax

from jaxreg.transforms.base import OnGradients, OnStep
from jaxreg.transforms.decay import decay as decay_link
from jaxreg.transforms.gradient import add_penalty_gradient
from jaxreg.transforms.projected import projected
from jaxreg.transforms.proximal import proximal as proximal_link


def regularize(
    optimizer, learning_rate, *, gradient=None, decay=None, proximal=None, constraint=None, multipliers=None
) -> optax.GradientTransformationExtraArgs:
    r"""The links in the right order: gradient → multipliers → optimizer → decay → proximal → projection.

        optax.chain(jr.add_penalty_gradient(gradient), multipliers, optimizer,
                    jr.decay(decay, learning_rate), jr.proximal(proximal, learning_rate), jr.projected(constraint))

    is what it builds, bit for bit, without the links that are None.

    Args:
        optimizer: an optax optimizer that already contains the learning rate; for a prox in Adam's metric
            `proximal_adam(learning_rate, pens)`, in the place of `proximal`.
        learning_rate: that learning rate, for `decay` and `proximal`: a number or a schedule.
        gradient: penalties for `add_penalty_gradient`.
        decay: penalties for `decay`, or a ready link such as `decay(pens, learning_rate, cautious=True)` or `cpr(...)`.
        proximal: penalties for `proximal`.
        constraint: constraints for `projected`, or a ready link such as `projected(cons, update_dtype="param")`.
        multipliers: a ready link, `multipliers(cons, dual_learning_rate, ...)` or `multipliers_for(...)`.

    Returns:
        A gradient transformation.

    Raises:
        TypeError: if `optimizer` or `multipliers` is no gradient transformation, a ready link is in the wrong place, or
            a link refuses what it is given.

    >>> import jax.numpy as jnp, jaxreg as jr
    >>> tx = regularize(optax.sgd(1.0), 1.0, decay=jr.SquaredL2(0.5), constraint=jr.Box(-1.0, 1.0))
    >>> w = jnp.array([2.0])
    >>> optax.apply_updates(w, tx.update(jnp.array([-3.0]), tx.init(w), w)[0]).tolist()
    [1.0]
    """
    for name, link in (("optimizer", optimizer), ("multipliers", multipliers)):
        if not (_is_link(link) or (link is None and name == "multipliers")):
            raise TypeError(
                f"`regularize` needs a gradient transformation as `{name}`"
                + (", such as `multipliers(cons, dual_learning_rate)`" if name == "multipliers" else "")
                + f", got {link!r}."
            )
    for name, link, place in (("multipliers", multipliers, 0), ("decay", decay, 1), ("constraint", constraint, 1)):
        if isinstance(link, (OnStep, OnGradients)[place]):
            comes = ("first, and works on gradients", "last, and works on the step")[place]
            raise TypeError(
                f"`regularize` needs as `{name}` a link that comes {comes}: this one would grow the weights."
            )
    links = [
        None if gradient is None else add_penalty_gradient(gradient),
        multipliers,
        optimizer,
        decay if decay is None or _is_link(decay) else decay_link(decay, learning_rate),
        None if proximal is None else proximal_link(proximal, learning_rate),
        constraint if constraint is None or _is_link(constraint) else projected(constraint),
    ]
    return optax.chain(*(link for link in links if link is not None))


def _is_link(x) -> bool:
    return isinstance(x, optax.GradientTransformation)
