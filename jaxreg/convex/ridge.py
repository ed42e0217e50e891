"""Ridge regression in closed form: every λ, its degrees of freedom and its leave-one-out residuals from one SVD."""

import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.arrays import widest
from jaxreg.convex.datafits import Squared
from jaxreg.convex.problem import prepare
from jaxreg.convex.strengths import automatic_lams
from jaxreg.penalties import SquaredL2

if TYPE_CHECKING:
    import xarray


def ridge(
    X, y, lams=None, *, num=100, sample_weight=None, fit_intercept=True, standardize=None, loo="sum"
) -> "xarray.Dataset":
    r"""Ridge regression at every λ, in closed form from one singular value decomposition of X̃.

        argmin ‖y − Xw − b‖²/(2n) + (λ/2)‖w‖²,   ŵ = V diag(d/(d² + nλ)) Uᵀy,   X − x̄ = U diag(d) Vᵀ
        df(λ) = Σ d²/(d² + nλ)
        leave-one-out residual = (yᵢ − ŷᵢ)/(1 − 1/n − hᵢ),   hᵢ = Σ_k u²ᵢₖ d²ₖ/(d²ₖ + nλ)
        GCV = n‖y − ŷ‖²/(n − 1 − df)²

    With λ = 0, the least-squares solution of least norm, whatever the rank; its leave-one-out residuals are those of
    the interpolating fits where it interpolates (n ≤ p).

    Args:
        X: (n, *features).
        y: (n,) or (n, targets).
        lams: λ ≥ 0: a number; (K,); or (K, targets), strengths of each target's own. None takes `num` of them, from
            hardly any degrees of freedom to nearly all.
        num: how many, if `lams` is None.
        sample_weight: (n,), scaled to sum 1, in place of 1/n. Rows of weight 0 are absent.
        fit_intercept: whether there is an unpenalised b; without, 1/n and −1 above are absent.
        standardize: what columns are scaled by inside, and the answer undone: None, "std", "sample_std" or "norm".
        loo: what the other rows keep when one is left out. "sum": their weights, and so the strength nλ of the sum, as
            in PRESS and scikit-learn's RidgeCV; "mean": λ, with 1/(n − 1) for 1/n, as in `cross_validate`.

    Returns:
        A Dataset over lam (absent for a number; with the coordinate `strength` for strengths of each target's own),
        feature, target and sample: `coef`, `intercept`, `df`, `loo` (residuals), `gcv`; NumPy arrays in float64.

    Raises:
        ValueError: if the data are not finite or do not fit one another, or λ is negative.

    >>> fits = ridge([[0.0], [1.0], [2.0]], [0.0, 2.0, 4.0], [0.0, 2 / 3])
    >>> fits["coef"].values.round(4).tolist(), fits["df"].values.round(4).tolist()
    ([[2.0], [1.0]], [1.0, 0.5])

    References:
        Hoerl and Kennard, Ridge regression, 1970; Golub, Heath and Wahba, Generalized cross-validation as a method for
        choosing a good ridge parameter, 1979, eq. 1.3–1.4; Hastie, Tibshirani and Friedman, The Elements of
        Statistical Learning, 2nd ed., eq. 3.47 and 3.50.
    """
    import xarray

    problem = prepare("ridge", Squared(), X, y, sample_weight, fit_intercept, standardize)
    if lams is None:
        lams = automatic_lams("ridge", Squared(), SquaredL2(1.0), problem, num)
    lams, targets = np.asarray(lams, np.float64), problem.y.shape[1:]
    if lams.ndim > 1 and lams.shape[1:] != targets:
        own = f" or (K, targets) = (K, {targets[0]})" if targets else ""
        raise ValueError(f"`ridge` needs `lams` as a number, of shape (K,){own}; got shape {lams.shape}.")
    if not (lams >= 0).all():
        raise ValueError(f"`ridge` needs `lams` >= 0, got {lams[~(lams >= 0)][0]}.")
    _check_loo(loo)
    weight = None if sample_weight is None else problem.weight
    fits = closed_form(np, problem.X, problem.y, lams, weight, problem.fit_intercept, loo)
    coef, intercept = problem.undo(fits.coef, fits.intercept)
    own = ["target"] * len(targets)
    per_lam = ["lam", *own] if lams.ndim > 1 else ["lam"]
    rows = range(len(problem.y)) if sample_weight is None else np.flatnonzero(sample_weight)
    data = xarray.Dataset(
        {
            "coef": (["lam", *feature_dims(problem.X.ndim - 1), *own], coef),
            "intercept": (["lam", *own], intercept),
            "df": (per_lam, fits.df),
            "loo": (["lam", "sample", *own], fits.loo),
            "gcv": (["lam", *own], fits.gcv),
        },
        {"sample": rows, **({"strength": (per_lam, lams)} if lams.ndim > 1 else {"lam": lams.reshape(-1)})},
    )
    return data.isel(lam=0) if lams.ndim == 0 else data


def feature_dims(axes: int) -> list[str]:
    """The names of the axes of X beyond the first."""
    return ["feature"] if axes == 1 else [f"feature_{i}" for i in range(axes)]


class RidgePath(NamedTuple):
    """Ridge at K strengths; `t` is the shape of one row of y, () or (targets,)."""

    coef: jax.Array  # (K, *features, *t)
    intercept: jax.Array  # (K, *t)
    df: jax.Array  # (K,), or (K, targets) where each target has its own strengths
    loo: jax.Array  # (K, n, *t), residuals
    gcv: jax.Array  # (K, *t)


class _Factors(NamedTuple):
    """√s(X − x̄) = u diag(d) vt, and y in its terms."""

    u: jax.Array  # (n, r), orthonormal columns; zero where d is
    d: jax.Array  # (r,), zero beyond the numerical rank
    vt: jax.Array  # (r, p)
    uy: jax.Array  # (r, t)
    rest: jax.Array  # (n, t): what no column explains
    free: jax.Array  # (n, 1): what a row's leverage leaves at λ = 0


@functools.partial(jax.jit, static_argnames=("fit_intercept", "loo"))
def ridge_svd(X, y, lams, weight=None, *, fit_intercept: bool = True, loo: str = "sum") -> RidgePath:
    r"""`ridge` as a pure function of arrays, to be used under `jit`, `vmap` and, in `lams` and `y`, `grad`.

        argmin ½ Σᵢ sᵢ(yᵢ − xᵢ·w − b)² + (λ/2)‖w‖²,   s = weight/Σ weight

    Args:
        X: (n, *features), unscaled; not checked.
        y: (n,) or (n, targets).
        lams: λ ≥ 0, a number, (K,), or (K, targets) for strengths of each target's own.
        weight: (n,), or None for 1/n.
        fit_intercept: whether there is an unpenalised b.
        loo: what the rows that stay keep when one is left out, "sum" or "mean", as in `ridge`.

    Returns:
        A `RidgePath`; K = 1 for a number.

    >>> X, y = jnp.array([[0.0], [1.0], [2.0]]), jnp.array([0.0, 2.0, 4.0])
    >>> ridge_svd(X, y, jnp.array([0.0, 2 / 3])).coef.round(4).tolist()
    [[2.0], [1.0]]
    """
    _check_loo(loo)
    X, y = jnp.asarray(X), jnp.asarray(y)
    dtype = widest([v.dtype for v in (X, y) if jnp.issubdtype(v.dtype, jnp.floating)])
    X, y, lams = X.astype(dtype), y.astype(dtype), jnp.asarray(lams, dtype)
    weight = weight if weight is None else jnp.asarray(weight, dtype)
    with jax.default_matmul_precision("highest"):
        return closed_form(jnp, X, y, lams, weight, fit_intercept, loo)


def _check_loo(loo) -> None:
    if loo not in ("sum", "mean"):
        raise ValueError(f'`ridge` needs `loo` to be "sum" or "mean", got {loo!r}.')


def closed_form(xp, X, y, lams, weight, fit_intercept, loo) -> RidgePath:
    """The fits by NumPy, `xp`, with nothing to compile; or by `jax.numpy`. With `loo` None, no residuals nor GCV."""
    n, features, targets = len(X), X.shape[1:], y.shape[1:]
    X, y = X.reshape(n, -1), y.reshape(n, -1)
    s = xp.full(n, 1 / n, X.dtype) if weight is None else weight / xp.sum(weight)
    center = (s @ X, s @ y) if fit_intercept else (xp.zeros_like(X[0]), xp.zeros_like(y[0]))
    factors = _factorise(xp, X - center[0], y - center[1], s, fit_intercept)
    d2, uy = xp.square(factors.d)[:, None], factors.uy

    lams = lams.reshape(-1, 1, 1) if lams.ndim < 2 else lams[:, None]  # (K, 1, t or 1), over (K, r, t)
    inverse = xp.where(d2 > 0, 1 / xp.where(d2 > 0, d2 + lams, 1), 0)
    coef = over_lams(xp, xp.swapaxes(factors.vt, 0, 1), factors.d[:, None] * inverse * uy)
    intercept = center[1] - xp.sum(center[0][:, None] * coef, 1)
    df = xp.sum(d2 * inverse, 1)
    coef, intercept = coef.reshape(-1, *features, *targets), intercept.reshape(-1, *targets)
    df = df[:, 0] if df.shape[1] == 1 else df
    if loo is None:
        return RidgePath(coef, intercept, df, None, None)

    finite = xp.minimum(lams, xp.square(factors.d[0] / xp.finfo(X.dtype).eps))  # as good as ∞, where ∞/∞ is NaN
    if loo == "sum" or weight is None:
        residuals = _left_out(xp, factors, finite * (1 if loo == "sum" else 1 - 1 / n))
    else:
        each = functools.partial(_left_out_by_row, xp, factors, 1 - s[:, None, None])
        residuals = jax.lax.map(each, finite[:, 0]) if xp is jnp else np.stack([each(lam) for lam in finite[:, 0]])
    residuals = residuals / xp.sqrt(xp.where(s > 0, s, 1))[:, None]
    if weight is not None:  # a row without weight is left out of every fit
        absent = y - over_lams(xp, X, coef.reshape(len(coef), X.shape[1], -1)) - intercept.reshape(len(coef), 1, -1)
        residuals = xp.where((s > 0)[:, None], residuals, absent)
    gcv = _generalised(xp, factors, finite, xp.sum(s > 0), fit_intercept)
    return RidgePath(coef, intercept, df, residuals.reshape(-1, n, *targets), gcv.reshape(-1, *targets))


def over_lams(xp, matrix, z):
    """matrix (m, r) times z (K, r, t), as one product."""
    return xp.swapaxes(xp.tensordot(z, matrix, ((1,), (1,))), 1, 2)


def _factorise(xp, X, y, s, fit_intercept) -> _Factors:
    root = xp.sqrt(s)[:, None]
    u, d, vt = xp.linalg.svd(root * X, full_matrices=False)
    eps = xp.finfo(d.dtype).eps
    kept = d > d[:1] * max(X.shape) * eps
    u, d = xp.where(kept, u, 0), xp.where(kept, d, 0)
    uy = xp.swapaxes(u, 0, 1) @ (root * y)
    free = 1 - xp.sum(xp.square(u), 1, keepdims=True) - s[:, None] * fit_intercept
    return _Factors(u, d, vt, uy, root * y - u @ uy, xp.where(free > 8 * len(X) * eps, free, 0))


def _left_out(xp, factors, lams):
    """The √s-scaled residual of each row under the fit to the others, (K, n, t), at strengths (K, 1, t or 1).

    (I − H)y/diag(I − H), both divided by λ in a row that the columns leave no freedom (n ≤ p): the limit at λ = 0 is
    there that of the interpolating fits.
    """
    u, d, _, uy, rest, free = factors
    d2 = xp.square(d)[:, None]
    inverse = xp.where(d2 > 0, 1 / xp.where(d2 > 0, d2 + lams, 1), 0)
    above, below = over_lams(xp, u, inverse * uy), over_lams(xp, xp.square(u), inverse)
    return _ratio(xp, above, below, rest, free, lams)


def _left_out_by_row(xp, factors, stay, lam):
    """As `_left_out`, for one `lam` (t or 1,), which counts `stay` (n, 1, 1) times in the row."""
    u, d, _, uy, rest, free = factors
    d2, lams = xp.square(d)[:, None], stay * lam
    inverse = xp.where(d2 > 0, 1 / xp.where(d2 > 0, d2 + lams, 1), 0)  # (n, r, t or 1)
    above, below = xp.sum(u[:, :, None] * inverse * uy, 1), xp.sum(xp.square(u)[:, :, None] * inverse, 1)
    return _ratio(xp, above, below, rest, free, lams[:, 0])


def _ratio(xp, above, below, rest, free, lams):
    above = xp.where(free > 0, rest + lams * above, above)
    return above / xp.where(free > 0, free + lams * below, below)


def _generalised(xp, factors, lams, rows, fit_intercept):
    """Generalised cross-validation (K, t): ‖(I − H)y‖²/(trace(I − H)/n)², with the same limit as `_left_out`."""
    _, d, _, uy, rest, _ = factors
    d2 = xp.square(d)[:, None]
    spare = rows - fit_intercept - xp.sum(d > 0)
    left = xp.where(d2 > 0, xp.where(spare > 0, lams, 1) / xp.where(d2 > 0, d2 + lams, 1), 0)
    rss = xp.sum(xp.square(left * uy), 1) + xp.where(spare > 0, xp.sum(xp.square(rest), 0), 0)
    return rss / xp.square((spare + xp.sum(left, 1)) / rows)
