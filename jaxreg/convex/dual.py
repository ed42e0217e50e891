"""The dual side of penalties: conjugates, and the scaling that makes a point feasible.

With v = Xᵀ(s·θ) the dual of min Σ sᵢfᵢ(xᵢ·w) + Ω(w) is max −Σ sᵢfᵢ*(θᵢ) − Ω*(−v). A norm has Ω* = 0 where its dual
norm, which `critical` knows, is at most λ, and ∞ elsewhere.

`TotalVariation` is no norm: it does not see constants, and no scaling makes Σv = 0. Sums, anchors and penalties that
are not convex have no conjugate here.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.arrays import floating, per_entry, times
from jaxreg.penalties import (
    L1,
    ElasticNet,
    GroupL2,
    GroupLinf,
    Nuclear,
    Penalty,
    Slope,
    SparseGroup,
    SpectralNorm,
    SquaredL2,
)

NORMS = (L1, GroupL2, GroupLinf, SparseGroup, Slope, Nuclear, SpectralNorm)


def has_dual(penalty: Penalty) -> bool:
    """Whether `feasible` knows the penalty: its class, and strengths above 0 (as far as they have values).

    Without a strength nothing bounds what is not penalized: its dual constraint, Xᵀ(s·θ) = 0, is met by no scaling.
    """
    if type(penalty) not in (*NORMS, SquaredL2, ElasticNet):
        return False
    lam = strengths(penalty)
    if isinstance(lam, jax.core.Tracer):
        return True
    return bool(np.all(np.max(lam, -1) > 0 if isinstance(penalty, Slope) and np.ndim(lam) else np.asarray(lam) > 0))


def strengths(penalty: Penalty):
    """λ, by whatever name."""
    return penalty.lams if isinstance(penalty, Slope) else penalty.lam


def feasible(penalty: Penalty, v) -> tuple[jax.Array, jax.Array]:
    """(c, Ω*(c·v)) with a c in [0, 1] for which the conjugate is finite, 1 if it can be."""
    v = floating(v, penalty)
    if isinstance(penalty, (SquaredL2, ElasticNet)):
        lam = per_entry(penalty.lam, v, penalty)
        ratio = per_entry(penalty.l1_ratio, v, penalty) if isinstance(penalty, ElasticNet) else jnp.zeros((), v.dtype)
        sparse, smooth = times(lam, ratio), times(lam, 1 - ratio)
        bounded = (smooth == 0) & (jnp.abs(v) > sparse)  # entries with a kink and no more
        c = jnp.min(jnp.where(bounded, sparse / jnp.where(bounded, jnp.abs(v), 1), 1), initial=1)
        over = jnp.where(jnp.isinf(sparse), 0, jnp.maximum(c * jnp.abs(v) - sparse, 0))
        return c, jnp.sum(jnp.where(smooth > 0, jnp.square(over) / jnp.where(smooth > 0, 2 * smooth, 1), 0))
    critical, lam = penalty.critical(v), strengths(penalty)
    lam = jnp.asarray(lam, v.dtype) if jnp.ndim(lam) == 0 else jnp.ones((), v.dtype)
    inside = critical <= lam
    return jnp.where(inside, 1, lam / jnp.where(inside, 1, critical)), jnp.zeros((), v.dtype)
