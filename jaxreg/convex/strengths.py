"""Grids of λ, and a penalty at every λ of one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.penalties import ElasticNet, Huber, SquaredL2


def checked_lams(api: str, lams, zero: bool = False) -> np.ndarray:
    """Given strengths as a float64 array (K,), the strongest first; refused unless finite and positive (or `zero`)."""
    lams = np.asarray(lams)
    if lams.dtype.kind not in "biuf" or lams.ndim != 1 or lams.size == 0:
        raise ValueError(f"`{api}` needs `lams` as a list of numbers, got {lams.dtype} of shape {lams.shape}.")
    lams = lams.astype(np.float64)
    wrong = ~(np.isfinite(lams) & (lams >= 0 if zero else lams > 0))
    if wrong.any():
        raise ValueError(f"`{api}` needs finite `lams` {'>=' if zero else '>'} 0, got {lams[wrong][0]}.")
    return -np.sort(-lams)


def automatic_lams(api: str, datafit, penalty, problem, num: int = 100, eps: float = 1e-3, gradient=None) -> np.ndarray:
    r"""`num` strengths, evenly spaced in log λ, from λ_max, the least at which all coefficients are 0, to eps·λ_max.

    Where no strength is enough, as for ridge, from 10L to eps²·10L, L the curvature of the fit in its steepest
    direction: there, from less than a tenth of a degree of freedom for each coefficient to nearly all of it.
    """
    if not (isinstance(num, (int, np.integer)) and num >= 1):
        raise ValueError(f"`{api}` needs an int >= 1 as `num`, got {num!r}.")
    if not 0 < eps < 1:
        raise ValueError(f"`{api}` needs `eps` in (0, 1), got {eps}.")
    if _smooth(penalty):
        rows = np.sqrt(problem.weight)[:, None] * problem.X.reshape(len(problem.X), -1)
        steepest = np.linalg.eigvalsh(rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows)[-1]
        top, eps = 10 * (datafit.curvature or 1.0) * steepest, eps**2
    elif not hasattr(type(penalty), "critical"):
        raise ValueError(f"`{api}` needs `lams` for `{type(penalty).__name__}`, of which no largest strength is known.")
    else:
        gradient = null_gradient(datafit, problem) if gradient is None else gradient
        with jax.enable_x64(True):
            top = float(_critical(penalty, gradient))
    if not (np.isfinite(top) and top > 0):
        reason = "no strength sets all coefficients to 0" if top else "all coefficients are 0 at every strength"
        raise ValueError(f"`{api}` needs `lams` here, where {reason}.")
    return np.geomspace(top, top * eps, int(num))


def null_gradient(datafit, problem) -> np.ndarray:
    """The gradient of the fit where all coefficients are 0, next to the intercept fitted without them."""
    with jax.enable_x64(True):
        slope = np.asarray(_null_slope(datafit, problem.y, problem.weight, problem.fit_intercept))
    rows = (problem.weight * slope.T).reshape(-1, len(slope)) @ problem.X.reshape(len(slope), -1)  # (t, p)
    return rows.T.reshape(problem.shape)


@jax.jit
def _critical(penalty, gradient):
    return penalty.critical(gradient)


@functools.partial(jax.jit, static_argnums=3)
def _null_slope(datafit, y, weight, fit_intercept):
    eta = jnp.zeros_like(y)
    return datafit.slope(eta + datafit.intercept(eta, y, weight) if fit_intercept else eta, y)


def at_lams(api: str, penalty, lams, l1_ratios=None):
    """`penalty` with leaves of leading axes as `lams` has: a number `lam` is replaced, an array multiplied by each λ.

    With `l1_ratios` (R,) and `lams` (R, K), a row of strengths for each.
    """
    name = strength_name(api, penalty)
    lams, lam = np.asarray(lams, np.float64), np.asarray(getattr(penalty, name), np.float64)
    new = jax.tree.map(lambda leaf: np.broadcast_to(np.asarray(leaf, np.float64), lams.shape + np.shape(leaf)), penalty)
    object.__setattr__(new, name, lams if lam.ndim == 0 else lams.reshape(*lams.shape, *[1] * lam.ndim) * lam)
    if l1_ratios is not None:
        ratios = np.asarray(l1_ratios, np.float64)[:, None]
        object.__setattr__(new, "l1_ratio", np.broadcast_to(ratios, lams.shape))
    return new


def check_at_lams(api: str, penalty, l1_ratios=None) -> None:
    """Refuse a penalty without a strength, or l1_ratios that are none of its numbers."""
    strength_name(api, penalty)
    if l1_ratios is None:
        return
    if not hasattr(penalty, "l1_ratio"):
        raise TypeError(f"`{api}` needs a penalty with an `l1_ratio` to vary, got `{type(penalty).__name__}`.")
    ratios = np.asarray(l1_ratios, np.float64)
    if ratios.ndim != 1 or ratios.size == 0 or not ((ratios >= 0) & (ratios <= 1)).all():
        raise ValueError(f"`{api}` needs `l1_ratios` as a list of numbers in [0, 1], got {l1_ratios!r}.")


def strength_name(api: str, penalty) -> str:
    """The field that holds the strength of a penalty."""
    for name in ("lam", "lams"):
        if hasattr(penalty, name):
            return name
    raise TypeError(f"`{api}` needs a penalty with a strength `lam` to vary, got `{type(penalty).__name__}`.")


def _smooth(penalty) -> bool:
    """Whether no finite strength sets a coefficient to 0."""
    return isinstance(penalty, (SquaredL2, Huber)) or (
        isinstance(penalty, ElasticNet) and np.all(penalty.l1_ratio == 0)
    )
