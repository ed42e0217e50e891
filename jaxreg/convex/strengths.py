"""Grids of λ, and a penalty at every λ of one."""

import jax
import numpy as np

from jaxreg.convex import engine
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


def automatic_lams(api: str, datafit, penalty, problem, num: int = 100, eps: float = 1e-3) -> np.ndarray:
    """The strengths of `chosen_lams` for one penalty and all rows."""
    return chosen_lams(api, datafit, penalty, problem, num, eps)[0][0]


def chosen_lams(
    api: str,
    datafit,
    penalty,
    problem,
    num: int = 100,
    eps: float = 1e-3,
    l1_ratios=None,
    train=None,
    standardize: str | None = None,
):
    r"""`num` strengths, evenly spaced in log λ, from λ_max, the least at which all coefficients are 0, to eps·λ_max.

    Where no strength is enough, as for ridge, from 10L to eps²·10L, L the curvature of the fit in its steepest
    direction: there, from less than a tenth of a degree of freedom for each coefficient to nearly all of it.

    Args:
        api: what errors name.
        datafit: the datafit.
        penalty: a penalty with some strength.
        problem: from `prepare`.
        num: how many.
        eps: the smallest as a share of the largest.
        l1_ratios: a row of strengths for each; None is one row.
        train: the folds that are to be solved, the last of which has all rows; None is one fold of all.
        standardize: as in `engine.paths`.

    Returns:
        (R, num), and what judged it, with which `engine.paths` may go on, or None.
    """
    if not (isinstance(num, (int, np.integer)) and num >= 1):
        raise ValueError(f"`{api}` needs an int >= 1 as `num`, got {num!r}.")
    if not 0 < eps < 1:
        raise ValueError(f"`{api}` needs `eps` in (0, 1), got {eps}.")
    if not (_smooth(penalty) or hasattr(type(penalty), "critical")):
        name = type(penalty).__name__
        raise ValueError(f"`{api}` needs `lams` for `{name}`, of which no largest strength is known.")
    ratios = [None] if l1_ratios is None else list(l1_ratios)
    some = at_lams(api, penalty, np.ones((len(ratios), int(num))), l1_ratios)
    smooth = [_smooth(jax.tree.map(lambda leaf, r=r: leaf[r], some)) for r in range(len(ratios))]
    tops, shares, model = np.zeros(len(ratios)), np.full(len(ratios), eps), None
    if any(smooth):
        rows = np.sqrt(problem.weight)[:, None] * problem.X.reshape(len(problem.X), -1)
        steepest = np.linalg.eigvalsh(rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows)[-1]
        tops[smooth], shares[smooth] = 10 * (datafit.curvature or 1.0) * steepest, eps**2
    if not all(smooth):
        train = engine.everything(problem) if train is None else train
        model = engine.prepared(datafit, some, problem, train, standardize, critical=True)
        sparse = ~np.array(smooth)
        tops[sparse] = engine.critical(model, some)[sparse]
    for top in tops:
        if not (np.isfinite(top) and top > 0):
            reason = "no strength sets all coefficients to 0" if top else "all coefficients are 0 at every strength"
            raise ValueError(f"`{api}` needs `lams` here, where {reason}.")
    return np.stack([np.geomspace(top, top * share, int(num)) for top, share in zip(tops, shares, strict=True)]), model


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
