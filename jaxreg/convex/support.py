"""The weights that a penalty leaves free at a solution: in them it is smooth, and the implicit function theorem holds.

The other weights are 0, and stay there under small changes of the problem.
"""

import jax
import jax.numpy as jnp

from jaxreg.arrays import floating, in_groups, norm, per_entry, times
from jaxreg.penalties import (
    L0,
    L1,
    MCP,
    SCAD,
    ElasticNet,
    GroupL2,
    GroupMCP,
    Huber,
    LogSum,
    LpHalf,
    Penalty,
    Radial,
    Separable,
    SparseGroup,
    SquaredL2,
    Sum,
)
from jaxreg.pytree import title

DENSE = 512  # unknowns up to which a linear system is factored
STEPS = 5000  # of conjugate gradients, at most


def require_support(penalty, api: str) -> None:
    """Raise TypeError unless `penalty` is smooth in the weights that are not zero."""
    if isinstance(penalty, Sum):
        for term in penalty.terms:
            require_support(term, api)
        known = True
    else:
        known = isinstance(penalty, (Separable, Radial, SparseGroup)) and penalty.differentiable
    if not (isinstance(penalty, Penalty) and known and penalty.proximable):
        name = title(penalty) if isinstance(penalty, Penalty) else repr(penalty)
        raise TypeError(
            f"`{api}` needs a penalty that is smooth in the weights that are not zero (`L1`, `ElasticNet`, "
            "`SquaredL2`, `Huber`, `GroupL2`, `SparseGroup`, `MCP`, `SCAD`, `LogSum`, `GroupMCP`, or sums of them), "
            f"got {name}. Without derivatives, use `solve`."
        )


def is_convex(penalty) -> bool:
    """Whether `penalty` is known to be convex."""
    if isinstance(penalty, Sum):
        return all(map(is_convex, penalty.terms))
    return isinstance(penalty, (L1, SquaredL2, ElasticNet, Huber, GroupL2, SparseGroup))


def is_concave(penalty) -> bool:
    """Whether the penalty is known not to be convex, or holds one that is not."""
    inner = [getattr(penalty, name) for name in getattr(penalty, "__dataclass_fields__", ())]
    inner = [n for f in inner for n in (f if isinstance(f, (tuple, list)) else [f]) if isinstance(n, Penalty)]
    return isinstance(penalty, (L0, MCP, SCAD, LogSum, LpHalf, GroupMCP)) or any(map(is_concave, inner))


def free(penalty, w) -> jax.Array:
    """Whether each weight can move: it is not at a kink of the penalty."""
    if isinstance(penalty, Sum):
        return jnp.all(jnp.stack([free(term, w) for term in penalty.terms]), 0)
    if isinstance(penalty, Separable):
        w = floating(w, penalty)
        lam = per_entry(penalty.lam, w, penalty)
        flat = (times(lam, jnp.asarray(penalty.kink(w), w.dtype)) == 0) & jnp.isfinite(lam)
        return (w != 0) | flat
    w, axes, lam = in_groups(penalty, w, penalty.lam)
    size = norm(w, axes)
    if isinstance(penalty, SparseGroup):
        ratio = in_groups(penalty, w, penalty.l1_ratio)[2]
        alone = (w != 0) | (times(lam, ratio) == 0)
        return alone & ((size != 0) | (times(lam, 1 - ratio) == 0))
    kink = times(lam, jnp.asarray(penalty.profile(w, axes, lam).kink(size), w.dtype))
    return jnp.broadcast_to((size != 0) | (kink == 0), w.shape)


def solve_symmetric(matvec, b) -> jax.Array:
    """The x with `matvec(x)` = b, differentiable; where A is singular, one of least squares and without null space."""
    solve = _pseudo_inverse if b.size <= DENSE else _conjugate_gradient
    return jax.lax.custom_linear_solve(matvec, b, solve, symmetric=True)


def _pseudo_inverse(matvec, b):
    """By eigenvalues, rows and columns scaled to a diagonal of ones; those of rounding are left out."""
    A = jax.vmap(matvec)(jnp.eye(b.size, dtype=b.dtype))
    diagonal = jnp.abs(jnp.sum(A * jnp.eye(b.size, dtype=b.dtype), 0))
    scale = jnp.where(diagonal > 0, 1 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1)), 0)
    A = scale[:, None] * A * scale
    values, vectors = jnp.linalg.eigh(A)
    kept = jnp.abs(values) > 4 * b.size * jnp.finfo(b.dtype).eps * jnp.max(jnp.abs(values), initial=0)
    along = jnp.where(kept, (scale * b) @ vectors / jnp.where(kept, values, 1), 0)
    return scale * (vectors @ along)


def _conjugate_gradient(matvec, b):
    """Of the normal equations: what of b no x can reach does not enter."""
    eps = jnp.finfo(b.dtype).eps

    def unfinished(carry):
        x, r, _, square, size, count = carry
        rounding = 4 * eps * size * (jnp.linalg.norm(r) + size * jnp.linalg.norm(x))
        return (square > jnp.square(rounding)) & (count < STEPS)

    def step(carry):
        x, r, p, square, size, count = carry
        Ap = matvec(p)
        length = jnp.sum(Ap * Ap)
        a = square / jnp.where(length > 0, length, jnp.inf)
        x, r = x + a * p, r - a * Ap
        Ar = matvec(r)
        new = jnp.sum(Ar * Ar)
        size = jnp.maximum(size, jnp.sqrt(length) / jnp.linalg.norm(p))
        return x, r, Ar + new / square * p, new, size, count + 1

    Ab = matvec(b)
    start = jnp.zeros_like(b), b, Ab, jnp.sum(Ab * Ab), jnp.zeros((), b.dtype), 0
    return jax.lax.while_loop(unfinished, step, start)[0]
