"""Errors of fits on the rows that were held out from them."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex.programs import program


def deviance(datafit, eta, y):
    """2(f − min f) of each row: the squared error, summed over targets, for `Squared`."""
    return 2 * (datafit.loss(eta, y) - datafit.saturated(y))


def misclassification(datafit, eta, y):
    """1 where the likeliest class is not that of the row."""
    likeliest, truth = (eta > 0, y > 0) if eta.ndim == 1 else (jnp.argmax(eta, -1), jnp.argmax(y, -1))
    return (likeliest != truth).astype(eta.dtype)


METRICS = {"deviance": deviance, "misclassification": misclassification}


def check_metric(metric, classes) -> None:
    """Refuse what is neither a name that fits the data nor a function."""
    if not (callable(metric) or metric in METRICS):
        names = ", ".join(f'"{name}"' for name in METRICS)
        raise ValueError(f"`cross_validate` needs `metric` to be {names} or a function, got {metric!r}.")
    if metric == "misclassification" and classes is None:
        raise ValueError('`cross_validate` needs classes in `y` for `metric="misclassification"`.')


def held_out_errors(metric, datafit, problem, test, coef, intercept) -> np.ndarray:
    """The mean error of fits to F folds on the rows of `test` (F, n): (F, L) of coef (F, L, ...) for X as given."""
    coef, intercept = problem.redo(coef, intercept)
    count, most = len(problem.y), test.sum(1).max()
    place = np.stack([np.pad(rows := np.flatnonzero(mask), (0, most - len(rows))) for mask in test])
    used = np.arange(most) < test.sum(1)[:, None]  # folds of fewer rows are padded with row 0
    arrays = problem.X.reshape(count, -1), problem.y, problem.weight
    flat = coef.reshape(*coef.shape[:2], arrays[0].shape[1], -1)
    targets = 1 if problem.classes is not None else problem.y[0].size
    with jax.enable_x64(True):
        return np.asarray(_errors(metric, datafit, *arrays, place, used, flat, intercept)) / targets


@program(static_argnums=0)
def _errors(metric, datafit, X, y, weight, place, used, coef, intercept):
    def of_fold(fold):
        place, used, coef, intercept = fold
        truth, s = y[place], jnp.where(used, weight[place], 0)

        def of_fit(coef, intercept):
            eta = X[place] @ coef + intercept
            eta = eta if y.ndim > 1 else eta[:, 0]
            if isinstance(metric, str):
                error = METRICS[metric](datafit, eta, truth)
            else:
                error = metric(datafit.mean(eta), truth)
                error = error.reshape(len(error), -1).sum(1)
            return s @ jnp.where(used, error, 0) / jnp.sum(s)

        return jax.vmap(of_fit)(coef, intercept)

    return jax.lax.map(of_fold, (place, used, coef, intercept))
