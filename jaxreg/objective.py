"""Penalties and constraints on whole trees: value, prox, project, violation, the penalized loss, activity penalties.

`pens` and `cons` are one object, or a pytree prefix of the parameters with None for "leave alone" (see `by_path`).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxreg.constraints import Constraint
from jaxreg.penalties import Penalty
from jaxreg.pytree import Noun, lift, nouns_of, tree_add


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
    return lift(lambda pen, p: pen.prox(p, step), pens, params)


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
        penalty = value(pens, params)
        if num_examples is not None:
            penalty = penalty / jnp.asarray(num_examples, penalty.dtype)
        parts = {"loss": loss, "penalty": penalty}
        if has_aux:
            (parts["aux"],) = aux
        return tree_add([jnp.asarray(loss), penalty]), parts

    return objective


def activity_penalty(pens, activations, *, batch_axis: int = 0) -> jax.Array:
    r"""Σ λΩ(a) / n over the activations a, n = `a.shape[batch_axis]` being the batch size of each: a scalar.

    The activity regularizer of Keras, to be added to the loss; `penalized` adds those of kernels and biases. A penalty
    acts on the whole array, batch included: `GroupL2(lam, axis=0)` makes a group of one unit's activations over the
    batch, `axis=1` of one example's, and an array `lam` broadcasts likewise.

    Args:
        pens: a penalty, or a prefix tree of penalties and None, as for `value`.
        activations: arrays with a batch axis, such as a collection that Flax has sown: every entry counts.
        batch_axis: the axis of the examples, an int; negative counts from the end.

    Returns:
        A scalar of float32 at least; an empty batch adds 0.

    Raises:
        TypeError: if `pens` holds anything but penalties, or `batch_axis` is no int.
        ValueError: if an activation has no axis `batch_axis`.

    >>> import jaxreg as jr
    >>> activations = {"hidden": jnp.ones((4, 3)), "logits": jnp.ones((4, 2))}
    >>> activity_penalty({"hidden": jr.L1(0.5), "logits": None}, activations).item()
    1.5

    Flax linen. Sow into "intermediates", which `init` leaves out. Any other collection comes back from `init`, filled
    by its batch, and `apply` appends to it: whatever you sow into, keep only `init(...)["params"]`.

    >>> import flax.linen as nn
    >>> class Net(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x):
    ...         hidden = nn.relu(nn.Dense(3)(x))
    ...         self.sow("intermediates", "hidden", hidden)
    ...         return nn.Dense(1)(hidden)
    >>> net, x = Net(), jnp.ones((8, 2))
    >>> params = net.init(jax.random.key(0), x)["params"]
    >>> def loss_fn(params):
    ...     y, sown = net.apply({"params": params}, x, mutable="intermediates")
    ...     return jnp.mean((y - 1) ** 2) + activity_penalty(jr.L1(1e-3), sown["intermediates"])
    >>> pens = jr.by_path(params, {"*/kernel": jr.SquaredL2(1e-2), "*/bias": jr.L1(1e-2)})
    >>> slope, parts = jax.grad(penalized(loss_fn, pens), has_aux=True)(params)

    Flax nnx. `capture` returns what is sown. Without it the values pile up in the model, which `jit` then traces anew
    at each step, until `nnx.pop(model, nnx.Intermediate)` takes them out.

    >>> from flax import nnx
    >>> class Net(nnx.Module):
    ...     def __init__(self, rngs):
    ...         self.first, self.last = nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 1, rngs=rngs)
    ...     def __call__(self, x):
    ...         hidden = nnx.relu(self.first(x))
    ...         self.sow(nnx.Intermediate, "hidden", hidden)
    ...         return self.last(hidden)
    >>> def loss_fn(model):
    ...     y, sown = nnx.capture(model, nnx.Intermediate)(x)
    ...     return jnp.mean((y - 1) ** 2) + activity_penalty({"hidden": jr.L1(1e-3)}, sown)
    >>> model = Net(nnx.Rngs(0))
    >>> pens = jr.by_path(model, {"*/kernel": jr.SquaredL2(1e-2), "*/bias": jr.L1(1e-2)})
    >>> slope, parts = nnx.grad(penalized(loss_fn, pens), has_aux=True)(model)

    References:
        Keras documentation, Layer weight regularizers, `activity_regularizer`.
    """
    require_penalties(pens, "activity_penalty")
    if type(batch_axis) is not int:
        raise TypeError(f"`activity_penalty` needs an int as `batch_axis`, got {batch_axis!r}.")
    values = []

    def per_example(pen, activation):
        shape = jnp.shape(activation)
        if not -len(shape) <= batch_axis < len(shape):
            raise ValueError(
                f"`activity_penalty` needs activations that have axis {batch_axis} (`batch_axis`), got shape {shape}."
            )
        values.append(pen.value(activation) / max(shape[batch_axis], 1))

    lift(per_example, pens, activations)
    return tree_add(values)


# ------------------------------------------------------------------ what a verb can ask of its nouns


def require_penalties(pens, verb: str, *, proximable: bool = False, differentiable: bool = False) -> None:
    """Raise TypeError, naming the verb to use, unless `pens` holds penalties that can do what `verb` needs."""
    _require(pens, Penalty, verb, "penalties", "For a constraint use `projected` or `multipliers`.")
    for pen in nouns_of(pens):
        name = type(pen).__name__
        if proximable and not pen.proximable:
            raise TypeError(
                f"`{verb}` needs penalties with an exact `prox`; `{name}` has none. Use `penalized`, "
                "`add_penalty_gradient` or `decay`, which need only its gradient."
            )
        if differentiable and not pen.differentiable:
            raise TypeError(
                f"`{verb}` needs penalties with a gradient; that of `{name}` says nothing. Use `proximal`, which "
                "needs only its `prox`."
            )


def require_constraints(cons, verb: str, *, projectable: bool = False) -> None:
    """Raise TypeError, naming the verb to use, unless `cons` holds constraints that can do what `verb` needs."""
    _require(
        cons, Constraint, verb, "constraints", "For a penalty use `decay` or `proximal`, or bound it: `SublevelSet`."
    )
    for con in nouns_of(cons):
        if projectable and not con.projectable:
            inner = getattr(con, "penalty", None) or getattr(con, "constraint", None)
            name = f"{type(con).__name__}({type(inner).__name__})" if inner else type(con).__name__
            raise TypeError(
                f"`{verb}` needs constraints with a closed-form projection; `{name}` has none. Use `multipliers`, "
                "which needs only its `violation`."
            )


def _require(nouns, kind: type[Noun], verb: str, plural: str, advice: str) -> None:
    for entry in nouns_of(nouns):
        if not isinstance(entry, kind):
            hint = advice if isinstance(entry, Noun) else "See `by_path` for trees of them."
            raise TypeError(f"`{verb}` needs {plural} (or None for 'leave alone'), got {entry!r}. {hint}")
