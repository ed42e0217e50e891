"""Penalties on what layers put out."""

import jax
import jax.numpy as jnp

from jaxreg.pytree import lift, tree_add
from jaxreg.requirements import require_penalties


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
    >>> slope, parts = jax.grad(jr.penalized(loss_fn, pens), has_aux=True)(params)

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
    >>> slope, parts = nnx.grad(jr.penalized(loss_fn, pens), has_aux=True)(model)

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
