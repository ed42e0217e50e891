"""Early stopping as a carry: pure, so that each lane of a `vmap` stops when it should and keeps its own best."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class EarlyStoppingState(NamedTuple):
    """What `early_stopping` remembers.

    Attributes:
        best: the least metric so far, NaN before there is one; float32 at least.
        best_params: the parameters that had it; those of the first update before there is one.
        best_count: the update that saw them, counted from 0.
        wait: the number of updates since the last improvement.
        stopped: whether patience is exhausted. From then on nothing here changes.
        count: the number of updates made.
    """

    best: jax.Array
    best_params: Any
    best_count: jax.Array
    wait: jax.Array
    stopped: jax.Array
    count: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class EarlyStopping:
    """What `early_stopping` returns: `init` and `update`, both pure."""

    patience: jax.Array | int
    min_delta: jax.Array | float

    def init(self, params) -> EarlyStoppingState:
        """The state before the first update."""
        zero = jnp.zeros((), jnp.int32)
        none = jnp.full((), jnp.nan, jnp.result_type(float))
        return EarlyStoppingState(none, jax.tree.map(jnp.asarray, params), zero, zero, jnp.zeros((), bool), zero)

    def update(self, state: EarlyStoppingState, metric, params) -> EarlyStoppingState:
        """The state after one more look at the metric of `params`."""
        metric = jnp.asarray(metric)
        if metric.ndim:
            raise ValueError(f"`early_stopping` needs a scalar metric, got shape {metric.shape}; map it by `jax.vmap`.")
        metric = metric.astype(state.best.dtype)
        first = jnp.isnan(state.best) & ~jnp.isnan(metric)
        improved = first | (metric + self.min_delta < state.best)
        wait = jnp.where(improved, 0, state.wait + 1)
        new = EarlyStoppingState(
            best=jnp.where(improved, metric, state.best),
            best_params=None,
            best_count=jnp.where(improved, state.count, state.best_count),
            wait=wait,
            # Never at the first update: there is nothing yet that it could be worse than.
            stopped=~improved & (wait >= self.patience) & (state.count > 0),
            count=state.count + 1,
        )
        new, old = new._replace(best_params=()), state._replace(best_params=())
        kept = jax.tree.map(lambda n, o: jnp.where(state.stopped, o, n.astype(o.dtype)), new, old)
        take = (improved | (state.count == 0)) & ~state.stopped
        return kept._replace(best_params=jax.tree.map(lambda n, o: jnp.where(take, n, o), params, state.best_params))


def early_stopping(patience, min_delta=0.0) -> EarlyStopping:
    r"""Stop when a metric has not improved for `patience` updates in a row, and keep the best parameters.

        improved: metric < best − min_delta,     wait = 0 if improved else wait + 1,     stopped: wait ≥ patience

    A carry for `scan`, one per lane under `vmap`. Keras' `EarlyStopping(restore_best_weights=True)` does the same, but
    that NaN never improves on anything here, the first metric included. A loop inside a program cannot end for one lane
    alone: hold its parameters where `state.stopped`, or let `sweep` stop it, through a `Trainable`.

    Args:
        patience: how many updates in a row may bring no improvement; may be traced, as an axis of a sweep is.
        min_delta: by how much the metric must fall to count as improved; may be traced.

    Returns:
        An `EarlyStopping` with `init(params) -> state` and `update(state, metric, params) -> state`; the state has
        `stopped`, `best`, `best_params`, `best_count`, `wait` and `count`.

    Raises:
        ValueError: if `patience` or `min_delta` is a literal number below 0 or NaN, or the metric is no scalar.

    >>> stopping = early_stopping(patience=2)
    >>> state = stopping.init({"w": 0.0})
    >>> for step, metric in enumerate([3.0, 1.0, 2.0, 1.5, 0.5]):
    ...     state = stopping.update(state, metric, {"w": 10.0 * step})
    >>> bool(state.stopped), float(state.best), float(state.best_params["w"]), int(state.count)
    (True, 1.0, 10.0, 4)

    References:
        Goodfellow, Bengio, Courville, "Deep Learning" (2016), algorithm 7.1.
    """
    for name, value in {"patience": patience, "min_delta": min_delta}.items():
        if isinstance(value, (int, float, np.ndarray, np.generic)) and not np.all(np.asarray(value) >= 0):
            raise ValueError(f"`early_stopping` needs `{name}` ≥ 0, got {value}.")
    return EarlyStopping(patience, min_delta)
