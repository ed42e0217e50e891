"""Effective degrees of freedom: how many of the fit's directions follow y."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex.datafits import Squared
from jaxreg.convex.programs import program
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
    gram = _gram(problem) if isinstance(datafit, Squared) and problem.X[0].size <= MOST else None
    at = [jax.tree.map(lambda leaf, k=k: leaf[k], penalties) for k in range(len(coef))]
    return np.array([_one(datafit, *each, problem, gram) for each in zip(at, coef, intercept, strict=True)])


def _one(datafit, penalty, coef, intercept, problem, gram) -> float:
    kept = np.flatnonzero(_kept(penalty, coef))
    if not 0 < kept.size <= MOST:
        return np.nan if kept.size else 0.0
    feature, target = np.unravel_index(kept, (problem.X[0].size, coef.size // problem.X[0].size))
    if gram is not None:
        H = gram[np.ix_(feature, feature)] * (target[:, None] == target)
    else:
        H = _hessian(datafit, coef, intercept, problem, feature, target)
    whole = H + _penalty_hessian(penalty, coef, kept)
    if not np.isfinite(whole).all():
        return np.nan
    try:
        return float(np.trace(np.linalg.solve(whole, H)))
    except np.linalg.LinAlgError:
        return float(np.trace(np.linalg.pinv(whole, hermitian=True) @ H))


def _gram(problem):
    """XᵀSX of all columns."""
    X = problem.X.reshape(len(problem.X), -1)
    return (X.T * problem.weight) @ X


def _hessian(datafit, coef, intercept, problem, feature, target):
    """H of some weights, the intercept minimised out."""
    n, t = len(problem.y), coef.size // problem.X[0].size
    X = problem.X.reshape(n, -1)
    eta = (X @ coef.reshape(-1, t)).reshape(problem.y.shape) + intercept
    bend = np.asarray(_curvatures(datafit, eta, problem.y)) * problem.weight[:, None, None]
    outputs = X[:, None, feature] * (np.arange(t)[:, None] == target)  # (n, t, |A|), ∂η/∂w
    bent = np.einsum("ntu,nua->nta", bend, outputs, optimize=True)
    H = np.tensordot(outputs, bent, ((0, 1), (0, 1)))
    if not problem.fit_intercept:
        return H
    across = bent.sum(0)
    return H - across.T @ np.linalg.pinv(bend.sum(0), hermitian=True) @ across


def _kept(penalty, coef):
    if isinstance(penalty, (SquaredL2, ElasticNet)):
        smooth = np.asarray(penalty.l1_ratio) == 0 if isinstance(penalty, ElasticNet) else True
        return (coef != 0) | (smooth & np.isfinite(penalty.lam))
    return _free(penalty, coef)


def _penalty_hessian(penalty, coef, kept):
    """∇²Ω of the kept weights."""
    if isinstance(penalty, (SquaredL2, ElasticNet)):
        share = 1 - np.asarray(penalty.l1_ratio) if isinstance(penalty, ElasticNet) else 1.0
        return np.diag(np.broadcast_to(penalty.lam * share, coef.shape).reshape(-1)[kept])
    if coef.size > MOST:
        return np.full((kept.size, kept.size), np.nan)
    return np.asarray(_second(penalty, coef))[np.ix_(kept, kept)]


@program
def _free(penalty, coef):
    return free(penalty, coef).reshape(-1)


@program
def _curvatures(datafit, eta, y):
    return datafit.hessian(eta, y)


@program
def _second(penalty, coef):
    return jax.hessian(lambda w: penalty.value(w.reshape(coef.shape)))(jnp.reshape(coef, -1))
