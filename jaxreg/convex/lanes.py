"""Lanes: thousands of problems side by side, their coefficients flat, one row of features for each target."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Layout(NamedTuple):
    """How flat coefficients (targets, p) and those of the user, (*features, *targets), become each other."""

    features: tuple[int, ...]
    targets: tuple[int, ...]  # () or (t,)

    def narrowed(self, width: int) -> "Layout":
        """That of `width` columns, itself if these are all."""
        return self if width == math.prod(self.features) else self._replace(features=(width,))

    def coef(self, w):
        """(t, p), or a flat (1, t·p) -> (*features, *targets)."""
        w = w.reshape((self.targets or (1,)) + self.features)
        return jnp.moveaxis(w, 0, -1) if self.targets else w[0]

    def flat(self, coef):
        """(*features, *targets) -> (t, p)."""
        rows = jnp.moveaxis(coef, -1, 0) if self.targets else coef[None]
        return rows.reshape(rows.shape[0], -1)

    def on_flat(self, fn: Callable) -> Callable:
        """`fn(penalty, coef, ...)` on lanes (F, L) of flat coefficients, those in its result flat again."""

        def one(penalty, w, *rest):
            out = fn(penalty, self.coef(w), *rest)
            return self.flat(out).reshape(w.shape) if out.shape == self.features + self.targets else out

        return jax.vmap(jax.vmap(one))


def dot(a, b) -> jax.Array:
    """⟨a, b⟩ of each lane."""
    return jnp.sum(a * b, (-2, -1))


def pick(choice, a, b) -> jax.Array:
    """The lanes of `a` where `choice`, those of `b` elsewhere."""
    return jnp.where(choice[..., None, None], a, b)


class State(NamedTuple):
    """Where every lane is."""

    w: jax.Array  # (F, L, t, p)
    product: jax.Array  # Gw
    y: jax.Array  # extrapolated
    y_product: jax.Array
    momentum: jax.Array  # (F, L)
    bound: jax.Array  # (F, L), of the curvature


@jax.jit
def fresh(quadratic, w, bound) -> State:
    """At w, without momentum."""
    product = quadratic.product(w)
    return State(w, product, w, product, jnp.ones_like(bound), bound)


class Paths(NamedTuple):
    """Solutions for F folds, R families and K strengths each, on X as given."""

    coef: np.ndarray  # (F, R, K, *features, *targets)
    intercept: np.ndarray  # (F, R, K, *targets)
    certificate: np.ndarray  # (F, R, K)
    objective: np.ndarray  # (F, R, K)
    loss: np.ndarray  # (F, R, K), the objective without the penalty
    iterations: np.ndarray  # (F, R, K)
    kind: str
