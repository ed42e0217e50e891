"""The reprojection verb: a step, then the nearest point of the constraint set."""

import jax.numpy as jnp
import optax

from jaxreg.requirements import require_constraints
from jaxreg.transforms.base import stateless_link
from jaxreg.transforms.proximal import move


def projected(cons, *, update_dtype=None) -> optax.GradientTransformationExtraArgs:
    r"""Reprojection: the new parameters are proj_{Ω ≤ k}(θ + u), max-norm regularization with `L2Ball(c, axis=0)`.

    It comes *last*, after the learning rate:

        optax.chain(optax.sgd(lr), jr.projected(jr.by_path(params, {"*/kernel": jr.L2Ball(3.0, axis=0)})))

    Where θ + u is inside, u is returned bit for bit. Elsewhere θ + (proj − θ) is subject to rounding: the update of
    leaves narrower than float32 is float32 (`optax.apply_updates` casts the sum back; Equinox's does not), and lands
    within one rounding at the magnitude of the larger of old and new weight. For the projection correctly rounded,
    call `jr.project(cons, params)` after `apply_updates`.

    Args:
        cons: a constraint with a projection, a prefix tree of such and None, or a schedule count -> either.
        update_dtype: None for the rule above; "param" for the dtype of each parameter, on which wrappers insist that
            choose between two updates (`jax.lax.cond`, `optax.MultiSteps`, `optax.apply_if_finite`).

    Returns:
        A gradient transformation; its state is a count.

    Raises:
        TypeError: if `cons` holds anything but constraints with a projection.
        ValueError: if `update_dtype` is neither None nor "param".

    >>> import jaxreg as jr
    >>> tx = optax.chain(optax.sgd(1.0), jr.projected(jr.L2Ball(2.0)))
    >>> w = jnp.array([3.0, 3.0])
    >>> u, _ = tx.update(jnp.array([3.0, -1.0]), tx.init(w), w)
    >>> optax.apply_updates(w, u).tolist()
    [0.0, 2.0]

    References:
        Goodfellow, Bengio and Courville, Deep Learning, 2016, section 7.2;
        Srivastava et al., Dropout, 2014, section 5.1.
    """
    if update_dtype not in (None, "param"):
        raise ValueError(f'`projected` needs `update_dtype` None or "param", got {update_dtype!r}.')

    def link(con, u, p, count):
        moved = move(u, p, con.project, con)
        return moved.astype(jnp.result_type(p)) if update_dtype == "param" else moved

    return stateless_link(
        cons,
        lambda cons: require_constraints(cons, "projected", projectable=True),
        lambda con, p: con.project(p),
        link,
    )
