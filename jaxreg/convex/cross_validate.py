"""Cross-validation: folds × strengths × l1_ratios as one batch of paths, each solution with its certificate."""

import time
from typing import TYPE_CHECKING

import numpy as np

from jaxreg.convex import engine
from jaxreg.convex.datafits import Squared
from jaxreg.convex.folds import split
from jaxreg.convex.held_out import check_metric, held_out_errors
from jaxreg.convex.problem import SCALES, column_names, prepare
from jaxreg.convex.ridge import feature_dims
from jaxreg.convex.ridge_paths import rows_left_out
from jaxreg.convex.solve import check_numbers, require_prox
from jaxreg.convex.strengths import at_lams, check_at_lams, checked_lams, chosen_lams
from jaxreg.penalties import SquaredL2
from jaxreg.sweeps.program import import_ahead
from jaxreg.sweeps.progress import Progress

if TYPE_CHECKING:
    import xarray


def cross_validate(
    datafit,
    penalty,
    X,
    y,
    *,
    lams=None,
    num: int = 100,
    eps: float = 1e-3,
    l1_ratios=None,
    folds=5,
    repeats: int = 1,
    stratify=None,
    groups=None,
    seed: int | None = 0,
    metric="deviance",
    sample_weight=None,
    fit_intercept: bool = True,
    standardize: str | bool | None = None,
    tol: float = 1e-6,
    max_iter: int = 20_000,
) -> "xarray.Dataset":
    r"""The error of every strength on rows that it was not fitted to, and the fits to all rows.

        error(fold, λ) = Σ_{i in test} sᵢ d(yᵢ, xᵢ·Ŵ + b̂)/Σ_{i in test} sᵢ,
        (Ŵ, b̂) = argmin Σ_{i in train} sᵢ f(xᵢ·W + b, yᵢ)/Σ_{i in train} sᵢ + Ω_λ(W)

    d is the deviance 2(f − min f), averaged over targets: of `Squared` the squared error. `cv.best("error")` is
    the strength of the least mean error over folds, `cv.best("error", "1se")` the largest within a standard error
    (standard deviation/√folds) of it; both come with `coef` and `intercept` of the fit to all rows.
    `jr.plotting.cross_validation(cv)` draws it.

    Args:
        datafit: f: `Squared`, `Logistic`, `Multinomial`, `Huber`, `Poisson`.
        penalty: Ω: its `lam`, a number, is replaced by each λ; an array is multiplied by it.
        X: (n, *features).
        y: (n,) or (n, targets), or labels.
        lams: the strengths; None takes `num`, evenly spaced in log λ, from the least at which all coefficients of the
            fit to all rows are 0, to `eps` times it; for each of `l1_ratios` its own. For ridge, over the range in
            which its degrees of freedom change.
        num: how many, if `lams` is None.
        eps: the smallest as a share of the largest, if `lams` is None.
        l1_ratios: values of the penalty's `l1_ratio` to try as well; None is its own.
        folds: how many, "loo", an object with `split` such as scikit-learn's splitters, or a list of (train, test).
        repeats: how often to split anew. Standard errors over all folds are then too small: they share rows.
        stratify: whether folds get their share of each class, or labels (n,) of which they do; None: of classes in y.
        groups: labels (n,) of rows that are held out together.
        seed: of the shuffling; None takes rows as they come.
        metric: "deviance", "misclassification", or a function of the predicted means and the encoded y of m rows,
            written in `jax.numpy`, that is an error for each, (m,) or (m, targets).
        sample_weight: (n,), in fits and errors. Rows of weight 0 are absent.
        fit_intercept: whether there is an unpenalised b.
        standardize: what columns are scaled by inside, in each fold by its own rows: None, "std", "sample_std", "norm".
        tol: on the certificate of every fit.
        max_iter: of a block of strengths.

    Returns:
        A Dataset over fold and lam, the strongest first, or, with `l1_ratios`, over fold and a list `config` with
        the coordinates `l1_ratio` and `lam`: `error`, `certificate`, `converged`, `iterations`, `diverged`; and of the
        fits to all rows `coef`, `intercept`, `support` (nonzero coefficients), `refit_certificate`, `refit_converged`.

    Raises:
        TypeError: for a penalty without a prox or a strength to vary, and for sparse `X`.
        ValueError: for data no problem can be made of, folds that do not fit them, or strengths that are not positive.

    >>> from jaxreg import SquaredL2
    >>> x = np.arange(12.0)
    >>> cv = cross_validate(Squared(), SquaredL2(1.0), np.stack([x, x % 2], 1), 2 * x, lams=[8.0, 1.0, 0.1], folds=3)
    >>> cv["error"].dims, cv.best("error")["lam"].item()
    (('fold', 'lam'), 0.1)

    References:
        Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2nd ed., section 7.10.
    """
    began, api = time.perf_counter(), "cross_validate"
    require_prox(penalty, api)
    check_at_lams(api, penalty, l1_ratios)
    check_numbers(api, tol, max_iter)
    problem = prepare(api, datafit, X, y, sample_weight, fit_intercept, standardize)
    check_metric(metric, problem.classes)
    import_ahead()
    splits = split(problem, y, sample_weight, folds, repeats, stratify, groups, seed)
    everything, scaling, model = engine.everything(problem), SCALES[standardize], None
    ridge = isinstance(datafit, Squared) and isinstance(penalty, SquaredL2) and np.ndim(penalty.lam) == 0
    ridge = ridge and isinstance(folds, str) and scaling is None and metric == "deviance"
    train = everything if ridge else np.concatenate([splits.train, everything])
    if lams is not None:
        lams = np.stack([checked_lams(api, lams)] * (1 if l1_ratios is None else len(l1_ratios)))
    with Progress(f"{api}: {len(train)} fits", num if lams is None else lams.shape[1], "strength") as report:
        if lams is None:
            lams, model = chosen_lams(api, datafit, penalty, problem, num, eps, l1_ratios, train, scaling)
        strengths = at_lams(api, penalty, lams, l1_ratios)
        options = {"train": train, "standardize": scaling, "tol": tol, "max_iter": max_iter, "model": model}
        fits = engine.paths(datafit, strengths, problem, **options, report=report)
    if ridge:  # each fold's follows from the fit to all rows
        error = np.square(rows_left_out(problem, lams[0])).reshape(lams.size, len(problem.y), -1).mean(-1).T
    else:
        lead = len(splits.test), lams.size
        coef, intercept = (x[:-1].reshape(*lead, *x.shape[3:]) for x in (fits.coef, fits.intercept))
        error = held_out_errors(metric, datafit, problem, splits.test, coef, intercept)
    data = _dataset(problem, fits, error, lams, l1_ratios, tol).assign_coords(
        repeat=("fold", splits.repeat), **column_names(X)
    )
    seconds = time.perf_counter() - began
    name = "squared error" if isinstance(datafit, Squared) and metric == "deviance" else metric
    name = getattr(name, "__name__", name)
    data.attrs = {"metric": name, "kind": fits.kind, "repetitions": "fold", "run_seconds": seconds}
    return data


def _dataset(problem, fits, error, lams, l1_ratios, tol) -> "xarray.Dataset":
    """The results over fold and lam, or fold and config."""
    import xarray

    from jaxreg.sweeps import runs as _  # noqa: F401 (gives the Dataset its `best`)

    dim = "lam" if l1_ratios is None else "config"
    parts = fits.coef, fits.intercept, fits.certificate, fits.iterations
    coef, intercept, certificate, iterations = (x.reshape(len(x), lams.size, *x.shape[3:]) for x in parts)
    of_folds = (np.broadcast_to(x[:-1] if len(x) > 1 else x, error.shape) for x in (certificate, iterations))
    fold_certificate, fold_iterations = of_folds
    targets = ["target"] * (problem.y.ndim - 1)
    variables = {
        "error": (["fold", dim], error),
        "certificate": (["fold", dim], fold_certificate),
        "converged": (["fold", dim], fold_certificate <= tol),
        "iterations": (["fold", dim], fold_iterations),
        "diverged": (["fold", dim], ~np.isfinite(error)),
        "coef": ([dim, *feature_dims(problem.X.ndim - 1), *targets], coef[-1]),
        "intercept": ([dim, *targets], intercept[-1]),
        "support": (dim, np.count_nonzero(coef[-1].reshape(lams.size, -1), 1)),
        "refit_certificate": (dim, certificate[-1]),
        "refit_converged": (dim, certificate[-1] <= tol),
    }
    coords = {"fold": range(len(error)), "lam": (dim, lams.ravel())}
    if l1_ratios is not None:
        coords["l1_ratio"] = dim, np.repeat(np.asarray(l1_ratios, float), lams.shape[1])
    if problem.classes is not None and problem.y.ndim == 2:
        coords["target"] = problem.classes
    return xarray.Dataset(variables, coords)
