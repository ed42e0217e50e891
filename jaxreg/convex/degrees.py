"""Effective degrees of freedom: how many of the fit's directions follow y."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex.newton import curvatures
from jaxreg.convex.support import free, require_support
from jaxreg.penalties import L1, ElasticNet, SquaredL2

MOST = 1024  # coefficients of which a Hessian is made


def degrees_of_freedom(datafit, penalties, problem, coef, intercept) -> np.ndarray:
    r"""tr[H_AA (H_AA + ∇²Ω_AA)⁻¹] at each strength, (K,): A the free weights, H the loss's Hessian.

    The intercept is minimised out of H. For `L1` this is the number of weights that are not 0; for ridge it is
    Σ d²/(d² + nλ). NaN where Ω is not smooth on its support, or has too many weights there.

    Args:
        datafit: the datafit.
        penalties: leaves with a leading axis (K,).
        problem: what it was fitted to.
        coef: (K, *features, *targets), for the columns as they are in `problem`.
        intercept: (K, *targets).

    References:
        Zou, Hastie and Tibshirani, On the "degrees of freedom" of the lasso, 2007, theorem 1;
        Vaiter, Deledalle, Fadili, Peyré and Dossal, The degrees of freedom of partly smooth regularizers, 2017, eq. 4.
    """
    if isinstance(penalties, L1):
        return np.count_nonzero(coef.reshape(len(coef), -1), 1).astype(float)
    try:
        require_support(penalties, "df")
    except TypeError:
        return np.full(len(coef), np.nan)
    at = [jax.tree.map(lambda leaf, k=k: leaf[k], penalties) for k in range(len(coef))]
    return np.array([_one(datafit, *each, problem) for each in zip(at, coef, intercept, strict=True)])


def _one(datafit, penalty, coef, intercept, problem) -> float:
    kept = np.flatnonzero(_free(penalty, coef))
    if kept.size > MOST:
        return np.nan
    n, t = len(problem.y), coef.size // problem.X[0].size
    X, W = problem.X.reshape(n, -1), coef.reshape(-1, t)
    eta = (X @ W).reshape(problem.y.shape) + intercept
    bend = np.asarray(_curvatures(datafit, eta, problem.y)) * problem.weight[:, None, None]
    feature, target = np.unravel_index(kept, W.shape)
    outputs = X[:, None, feature] * (np.arange(t)[:, None] == target)  # (n, t, |A|), ∂η/∂w
    bent = np.einsum("ntu,nua->nta", bend, outputs, optimize=True)
    H = np.tensordot(outputs, bent, ((0, 1), (0, 1)))
    if problem.fit_intercept:
        across = bent.sum(0)
        H = H - across.T @ np.linalg.pinv(bend.sum(0), hermitian=True) @ across
    whole = H + _penalty_hessian(penalty, coef, kept)
    if not np.isfinite(whole).all():
        return np.nan
    return float(np.trace(np.linalg.pinv(whole, rcond=1e-12, hermitian=True) @ H)) if kept.size else 0.0


def _penalty_hessian(penalty, coef, kept):
    """∇²Ω of the kept weights."""
    if isinstance(penalty, (SquaredL2, ElasticNet)):
        share = 1 - np.asarray(penalty.l1_ratio) if isinstance(penalty, ElasticNet) else 1.0
        return np.diag(np.broadcast_to(penalty.lam * share, coef.shape).reshape(-1)[kept])
    if coef.size > MOST:
        return np.full((kept.size, kept.size), np.nan)
    return np.asarray(_hessian(penalty, coef))[np.ix_(kept, kept)]


@jax.jit
def _free(penalty, coef):
    return free(penalty, coef).reshape(-1)


@jax.jit
def _curvatures(datafit, eta, y):
    return curvatures(datafit, eta, y)


@jax.jit
def _hessian(penalty, coef):
    return jax.hessian(lambda w: penalty.value(w.reshape(coef.shape)))(jnp.reshape(coef, -1))
