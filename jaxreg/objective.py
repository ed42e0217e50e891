"""Penalties and constraints on whole trees: value, prox, project, violation, the penalized loss, activity penalties.

`pens` and `cons` are one object, or a pytree prefix of the parameters with None for "leave alone" (see `by_path`).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxreg.arrays import floating
from jaxreg.penalties import Towards
from jaxreg.pytree import checked_number, entries, lift, pairs, tree_add
from jaxreg.requirements import require_constraints, require_penalties


def value(pens, params) -> jax.Array:
    r"""Σ λΩ(θ) over the parameters, a scalar of float32 at least.

    Args:
        pens: a penalty, or a prefix tree of penalties and None.
        params: the parameters.

    >>> import jaxreg as jr
    >>> value({"w": jr.L1(0.5), "b": None}, {"w": jnp.array([1.0, -2.0]), "b": jnp.array(9.0)}).item()
    1.5
    """
    require_penalties(pens, "value")
    values = []
    lift(lambda pen, p: values.append(pen.value(p)), pens, params)
    return tree_add(values)


def prox(pens, params, step):
    r"""argmin_z ½‖z − θ‖² + step·Σ λΩ(z), the proximal operator, leaf by leaf.

    Args:
        pens: a penalty with a prox, or a prefix tree of such and None.
        params: the parameters θ.
        step: the step size, a number.

    >>> import jaxreg as jr
    >>> prox(jr.L1(1.0), {"w": jnp.array([3.0, -0.2])}, step=0.5)["w"].tolist()
    [2.5, 0.0]
    """
    require_penalties(pens, "prox", proximable=True)
    step = checked_number("prox", "step", step)
    return lift(lambda pen, p: pen.prox(p, step), pens, params)


def moreau_envelope(pens, params, step) -> jax.Array:
    r"""min_z ‖z − θ‖²/(2·step) + Σ λΩ(z), the penalty made smooth; its gradient is (θ − prox(θ))/step.

    Args:
        pens: a penalty with a prox, or a prefix tree of such and None.
        params: the parameters θ.
        step: the width of the smoothing, > 0, a number.

    Returns:
        A scalar of float32 at least. With `L1` it is Huber's function.

    >>> import jaxreg as jr
    >>> moreau_envelope(jr.L1(1.0), {"w": jnp.array([3.0, -0.5])}, step=1.0).item()
    2.625

    References:
        Parikh and Boyd, Proximal algorithms, 2014, section 3.1.
    """
    require_penalties(pens, "moreau_envelope", proximable=True)
    step = checked_number("moreau_envelope", "step", step, positive=True)
    values = []

    def envelope(pen, p):
        p = floating(p, pen)
        z = pen.prox(p, step)
        lost = jnp.where(jnp.isinf(p), 0, p - z)
        values.append(jnp.sum(jnp.square(lost)) / (2 * jnp.asarray(step, p.dtype)) + pen.value(z))

    lift(envelope, pens, params)
    return tree_add(values)


def towards(pens, anchors):
    r"""λΩ(θ − anchor) for a whole tree: each penalty of `pens` as `Towards(penalty, anchor)`.

    With `SquaredL2` it pulls to pretrained weights (L2-SP); with an array λ for each weight, the Fisher information
    say, it is elastic weight consolidation.

    Args:
        pens: a penalty, or a prefix tree of penalties and None.
        anchors: a tree of arrays with the structure of the parameters.

    Returns:
        A tree of penalties and None, for any verb.

    Raises:
        TypeError: if `pens` holds anything but penalties.

    With the Fisher information as a tree: `towards(jax.tree.map(jr.SquaredL2, fisher), anchors)`.

    >>> import jaxreg as jr
    >>> pens = towards(jr.SquaredL2(2.0), {"w": jnp.ones(2)})
    >>> value(pens, {"w": jnp.array([1.0, 3.0])}).item()
    4.0

    References:
        Li, Grandvalet and Davoine, Explicit inductive bias for transfer learning, 2018, eq. 3;
        Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks, 2017, eq. 3.
    """
    require_penalties(pens, "towards")
    matched, _ = pairs(pens, anchors)
    return entries([None if pen is None else Towards(pen, anchor) for _, pen, anchor in matched], anchors)


def project(cons, params):
    r"""The nearest parameters that satisfy the constraints; those inside are returned bit for bit.

    After `optax.apply_updates`, this gives the projection correctly rounded in any dtype.

    Args:
        cons: a constraint with a projection, or a prefix tree of such and None.
        params: the parameters θ.

    >>> import jaxreg as jr
    >>> project(jr.Box(0.0, 1.0), {"w": jnp.array([3.0, 0.25])})["w"].tolist()
    [1.0, 0.25]
    """
    require_constraints(cons, "project", projectable=True)
    return lift(lambda con, p: con.project(p), cons, params)


def violation(cons, params):
    r"""Signed Ω(θ) − k per group, ≤ 0 inside: a tree with None where nothing is constrained.

    Args:
        cons: a constraint, or a prefix tree of constraints and None.
        params: the parameters θ.

    >>> import jaxreg as jr
    >>> violation({"w": jr.L2Ball(1.0), "b": None}, {"w": jnp.array([3.0, 4.0]), "b": jnp.zeros(2)})["w"].item()
    4.0
    """
    require_constraints(cons, "violation")
    return lift(lambda con, p: con.violation(p), cons, params, otherwise=lambda p: None)


def penalized(loss_fn: Callable, pens, num_examples=None, has_aux: bool = False) -> Callable:
    r"""The penalized objective J̃(θ) = J(θ) + λΩ(θ), or J(θ) + λΩ(θ)/m with `num_examples` = m.

    With `num_examples=m` and `SquaredL2(lam)` it is the textbook J + λ/(2m) Σ‖W‖²_F.

    Args:
        loss_fn: `loss_fn(params, *args, **kwargs)` -> scalar J, or (J, aux) with `has_aux`.
        pens: a penalty, or a prefix tree of penalties and None.
        num_examples: m > 0, the number the penalty is divided by; None divides by nothing.
        has_aux: whether `loss_fn` returns (J, aux).

    Returns:
        A function of the same arguments -> (total, {"loss", "penalty"[, "aux"]}), for `jax.grad(..., has_aux=True)`.

    Raises:
        ValueError: if a literal `num_examples` is not positive.
        TypeError: if `pens` holds anything but penalties with a gradient; when called, if the loss is no scalar.

    >>> import jaxreg as jr
    >>> loss = penalized(lambda w, x: jnp.sum(w * x), jr.SquaredL2(2.0))
    >>> total, parts = loss(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]))
    >>> total.item(), parts["loss"].item(), parts["penalty"].item()
    (16.0, 11.0, 5.0)
    """
    require_penalties(pens, "penalized", differentiable=True)
    if isinstance(num_examples, (int, float)) and not num_examples > 0:
        raise ValueError(f"`penalized` needs `num_examples` > 0 or None, got {num_examples}.")

    def objective(params, *args, **kwargs):
        loss, *aux = loss_fn(params, *args, **kwargs) if has_aux else (loss_fn(params, *args, **kwargs),)
        if isinstance(loss, tuple) or jnp.shape(loss) != ():
            got = "a tuple" if isinstance(loss, tuple) else f"shape {jnp.shape(loss)}"
            raise TypeError(
                f"`penalized` needs a loss function that returns a scalar, or (scalar, aux) with `has_aux`; got {got}."
            )
        penalty = value(pens, params)
        if num_examples is not None:
            penalty = penalty / jnp.asarray(num_examples, penalty.dtype)
        parts = {"loss": loss, "penalty": penalty}
        if has_aux:
            (parts["aux"],) = aux
        return tree_add([jnp.asarray(loss), penalty]), parts

    return objective
