"""Ridge paths in closed form for many folds: an SVD for each, or one for all that leave out a row."""

import numpy as np

from jaxreg.convex.gram import column_scale
from jaxreg.convex.lanes import Paths
from jaxreg.convex.problem import Problem
from jaxreg.convex.ridge import closed_form, over_lams


def ridge_paths(problem: Problem, train, standardize: str | None, lams) -> Paths:
    """What `engine.paths` answers for `Squared` and `SquaredL2` at each of `lams`, exact for each fold of `train`."""
    flat, y = problem.X.reshape(len(problem.X), -1), problem.y.reshape(len(problem.y), -1)
    fits = [_fit(problem, flat, y, rows, standardize, lams) for rows in train]
    *parts, null = zip(*fits, strict=True)
    coef, intercept, certificate, objective, loss = (np.stack(part)[:, None] for part in parts)
    lead = certificate.shape
    coef, intercept = problem.undo(coef.reshape(*lead, *problem.shape), intercept.reshape(*lead, *problem.y.shape[1:]))
    null = np.array(null)
    return Paths(coef, intercept, certificate, objective, loss, np.zeros(lead, int), "gap", null, null)


def rows_left_out(problem: Problem, lams) -> np.ndarray:
    """The residuals (K, n, ...) of rows under the fits to the others at the same λ, columns as they are."""
    return closed_form(np, problem.X, problem.y, lams, problem.weight, problem.fit_intercept, "mean").loo


def _fit(problem, X, y, rows, standardize, lams):
    """(coef, intercept, certificate, objective, loss) at every λ of one fold, and the loss of its intercept alone."""
    X, y, s = X[rows], y[rows], problem.weight[rows] / problem.weight[rows].sum()
    mean, y_mean = s @ X, s @ y
    center, y_center = (mean, y_mean) if problem.fit_intercept else (np.zeros_like(mean), np.zeros_like(y_mean))
    scale = 1.0 if standardize is None else column_scale(X, s, problem.fit_intercept, standardize)
    X, y = (X - center) / scale, y - y_center
    fits = closed_form(np, X, y, lams, s, False, None)
    rest = over_lams(np, X, fits.coef) - y  # (K, n, t)
    slope = over_lams(np, X.T, s[:, None] * rest) + lams[:, None, None] * fits.coef
    gap = np.square(slope).sum((1, 2)) / (2 * lams)
    null = s @ np.square(y).sum(1) / 2
    loss = np.square(rest).sum(2) @ s / 2
    objective = loss + lams * np.square(fits.coef).sum((1, 2)) / 2
    coef = fits.coef / np.reshape(scale, (-1, 1))
    return coef, y_center - np.einsum("p,kpt->kt", center, coef), gap / (null if null > 0 else 1), objective, loss, null
