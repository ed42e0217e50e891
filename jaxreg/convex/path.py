"""A family of convex problems, one for each strength, solved and certified."""

import time
from typing import TYPE_CHECKING

import jax
import numpy as np

from jaxreg.convex import engine
from jaxreg.convex.degrees import degrees_of_freedom
from jaxreg.convex.problem import SCALES, column_names, prepare
from jaxreg.convex.ridge import feature_dims
from jaxreg.convex.solve import check_numbers, require_prox
from jaxreg.convex.strengths import at_lams, checked_lams, chosen_lams
from jaxreg.sweeps.program import import_ahead
from jaxreg.sweeps.progress import Progress

if TYPE_CHECKING:
    import xarray


def path(
    datafit,
    penalty,
    X,
    y,
    lams=None,
    num: int = 100,
    eps: float = 1e-3,
    *,
    tol: float = 1e-6,
    max_iter: int = 20_000,
    sample_weight=None,
    fit_intercept: bool = True,
    standardize: str | bool | None = None,
) -> "xarray.Dataset":
    r"""The solutions of `solve` for every strength, each with its certificate.

    Strengths go down from λ_max, the least at which all coefficients are 0, in blocks that start where the one before
    ended. Least squares with `L1` is followed from knot to knot; else all λ of a block are one batch.

    Args:
        datafit: as in `solve`.
        penalty: Ω: its `lam`, a number, is replaced by each λ; an array is multiplied by it.
        X: (n, *features).
        y: (n,) or (n, targets), or labels.
        lams: the strengths, in any order; None takes `num`, evenly spaced in log λ, from λ_max to eps·λ_max.
        num: how many.
        eps: the last over the first.
        tol: on each certificate.
        max_iter: steps of each block to stop at.
        sample_weight: as in `solve`.
        fit_intercept: as in `solve`.
        standardize: as in `solve`.

    Returns:
        A Dataset over `lam`, descending: `coef`, `intercept`, `certificate`, `converged`, `iterations`, `objective`,
        `support` (coefficients that are not 0), `df` (effective degrees of freedom, without the intercept's) and
        `deviance` (the share explained). `attrs["kind"]` says what the certificate is.

    Raises:
        TypeError: as `solve`.
        ValueError: as `solve`, and if `lams` are not positive, or none can be chosen.

    >>> import jaxreg as jr
    >>> X, y = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 1.0]]), np.array([1.0, 3.0, 5.0, 7.0])
    >>> lasso = path(jr.convex.Squared(), jr.L1(1.0), X, y, num=3)
    >>> lasso["lam"].values.round(4).tolist(), lasso["support"].values.tolist()
    ([2.5, 0.0791, 0.0025], [0, 1, 1])

    References:
        Friedman, Hastie and Tibshirani, Regularization paths via coordinate descent, 2010, section 2.5;
        Zou, Hastie and Tibshirani, On the "degrees of freedom" of the lasso, 2007.
    """
    require_prox(penalty, "path")
    problem = prepare("path", datafit, X, y, sample_weight, fit_intercept, standardize)
    check_numbers("path", tol, max_iter)
    import_ahead()
    begin, model = time.perf_counter(), None
    if lams is not None:
        lams = checked_lams("path", lams)
    with Progress("path", num if lams is None else len(lams), "strength") as report:
        if lams is None:
            lams, model = chosen_lams("path", datafit, penalty, problem, num, eps)
            lams = lams[0]
        penalties = at_lams("path", penalty, lams[None])
        options = {"standardize": SCALES[standardize], "tol": tol, "max_iter": max_iter, "model": model}
        found = engine.paths(datafit, penalties, problem, **options, report=report)
    import xarray

    seconds = time.perf_counter() - begin
    coef, intercept = found.coef[0, 0], found.intercept[0, 0]
    one = jax.tree.map(lambda leaf: leaf[0], penalties)
    df = degrees_of_freedom(datafit, one, problem, *problem.redo(coef, intercept))
    features = feature_dims(problem.X.ndim - 1)
    targets = ["target"] * (problem.y.ndim - 1)
    value = found.certificate[0, 0]
    variables = {
        "coef": (["lam", *features, *targets], coef),
        "intercept": (["lam", *targets], intercept),
        "certificate": ("lam", value),
        "converged": ("lam", value <= tol),
        "iterations": ("lam", found.iterations[0, 0]),
        "objective": ("lam", found.objective[0, 0]),
        "support": ("lam", np.count_nonzero(coef.reshape(len(lams), -1), 1)),
        "df": ("lam", df),
        "deviance": ("lam", _explained(found)),
    }
    coords = {"lam": lams, **column_names(X)}
    if problem.classes is not None and targets:
        coords["target"] = problem.classes
    attrs = {"kind": found.kind, "tol": tol, "run_seconds": seconds}
    return xarray.Dataset(variables, coords, attrs)


def _explained(found) -> np.ndarray:
    """1 − deviance/null deviance for each λ."""
    null, spread = found.null_loss[0], found.spread[0]
    return 1 - (found.loss[0, 0] - (null - spread)) / (spread if spread > 0 else 1)
