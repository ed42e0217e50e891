"""One convex problem, solved and certified."""

import dataclasses

import jax
import numpy as np

from jaxreg.convex import engine
from jaxreg.convex.problem import SCALES, prepare
from jaxreg.penalties import Penalty
from jaxreg.sweeps.progress import Progress


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """A linear model, and how far it can be from the best.

    Attributes:
        coef: W, (*features, *targets) float64, on X as given.
        intercept: b, a number or (targets,).
        certificate: by `kind`, relative: a duality gap, or a distance to stationarity; see `Certificate`.
        kind: "gap", "optimality" or "fixed_point".
        objective: Σ sᵢ f(xᵢ·W + b, yᵢ) + Ω(W).
        iterations: steps of the solver.
        converged: whether the certificate is at most the tolerance.
        stalled: whether it stopped above it with iterations to spare: rounding, as a rule.
        classes: the labels, None where y is numbers.
        datafit: what was fitted.
    """

    coef: np.ndarray
    intercept: np.ndarray
    certificate: float
    kind: str
    objective: float
    iterations: int
    converged: bool
    stalled: bool
    classes: np.ndarray | None
    datafit: object = dataclasses.field(repr=False)

    def predict(self, X) -> np.ndarray:
        """What is expected at X: the mean of y, or the most probable label."""
        mean = self.predict_mean(X)
        if self.classes is None:
            return mean
        return self.classes[np.argmax(mean, -1) if mean.ndim == 2 else (mean > 0.5).astype(int)]

    def predict_mean(self, X) -> np.ndarray:
        """The mean of y at X, of labels their probabilities (of two, the second's)."""
        X = np.asarray(X, np.float64)
        features = self.coef.ndim - np.ndim(self.intercept)
        if X.ndim <= features or X.shape[X.ndim - features :] != self.coef.shape[:features]:
            need = ", ".join(map(str, ("n", *self.coef.shape[:features])))
            raise ValueError(f"`predict` needs `X` of shape ({need}), got {X.shape}.")
        with jax.enable_x64(True):
            return np.asarray(self.datafit.mean(np.tensordot(X, self.coef, features) + self.intercept))


def solve(
    datafit,
    penalty: Penalty,
    X,
    y,
    *,
    tol: float = 1e-6,
    max_iter: int = 20_000,
    sample_weight=None,
    fit_intercept: bool = True,
    standardize: str | bool | None = None,
    start=None,
) -> Solution:
    r"""The linear model of least penalized loss, with its certificate.

        min over (W, b) of  Σᵢ sᵢ f(xᵢ·W + b, yᵢ) + Ω(W),   s = sample_weight/Σ sample_weight, 1/n by default

    Nothing is said on the way and nothing stops short in silence: `converged` and `stalled` tell. Iterates have the
    dtype of X (integers count as float64), and go on in float64 where float32 does not reach the tolerance;
    certificates are float64. All that whether or not `jax_enable_x64` is set.

    Args:
        datafit: f: `Squared`, `Logistic`, `Multinomial`, `Huber`, `Poisson`.
        penalty: Ω on W whole, any with a `prox`. With `GroupL2(lam, axis=1)` and y of shape (n, targets) this is the
            multi-task lasso; with X of shape (n, groups, size), the group lasso.
        X: (n, *features), dense.
        y: (n,) or (n, targets); labels for `Logistic` (two) and `Multinomial`.
        tol: on the certificate.
        max_iter: steps to stop at.
        sample_weight: (n,), each row's share in the mean; a row of weight 0 is no row.
        fit_intercept: whether there is a b; it is never penalized.
        standardize: what the penalty sees of the columns: None, as they are (scikit-learn's convention); "std" or
            True, over their standard deviations (glmnet's); "sample_std", of divisor n − 1; "norm", over the 2-norms
            of the centred columns (LARS'). The answer is for X as given.
        start: W to start at, on X as given.

    Returns:
        A `Solution`.

    Raises:
        TypeError: if X is sparse, not of numbers or traced, or `penalty` has no prox.
        ValueError: if shapes do not fit, or X or y is not finite, has one row, one class or (to be standardized) a
            constant column.

    >>> import jaxreg as jr
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([1.0, 3.0, 5.0, 7.0])
    >>> solution = solve(jr.convex.Squared(), jr.L1(0.5), X, y)
    >>> solution.coef.round(6).tolist(), float(solution.intercept.round(6)), solution.converged
    ([1.6], 1.6, True)

    References:
        Ndiaye, Fercoq, Gramfort and Salmon, Gap safe screening rules for sparsity enforcing penalties, 2017.
    """
    require_prox(penalty, "solve")
    problem = prepare("solve", datafit, X, y, sample_weight, fit_intercept, standardize)
    check_numbers("solve", tol, max_iter)
    if start is not None:
        start = np.asarray(start, np.float64)
        if start.shape != problem.shape:
            raise ValueError(f"`solve` needs `start` of shape {problem.shape}, got {start.shape}.")
        if not np.isfinite(start).all():
            raise ValueError(f"`solve` needs finite `start`, got {start[~np.isfinite(start)][0]}.")
        start = problem.redo(start, np.zeros(problem.y.shape[1:]))[0]
    one = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64)[None, None], penalty)
    options = {"standardize": SCALES[standardize], "tol": tol, "max_iter": max_iter, "start": start}
    with Progress("solve") as report:
        found = engine.paths(datafit, one, problem, **options, report=lambda phase, _: report(phase))
    value, iterations = float(found.certificate[0, 0, 0]), int(found.iterations[0, 0, 0])
    converged = value <= tol
    return Solution(
        coef=found.coef[0, 0, 0],
        intercept=found.intercept[0, 0, 0],
        certificate=value,
        kind=found.kind,
        objective=float(found.objective[0, 0, 0]),
        iterations=iterations,
        converged=converged,
        stalled=not converged and iterations < max_iter,
        classes=problem.classes,
        datafit=datafit,
    )


def require_prox(penalty, api: str) -> None:
    """Raise TypeError unless `penalty` is a penalty with a prox."""
    if not isinstance(penalty, Penalty):
        hint = f": `{penalty.__name__}(lam)`" if isinstance(penalty, type) and issubclass(penalty, Penalty) else ""
        got = f"an array of shape {penalty.shape}" if hasattr(penalty, "shape") else repr(penalty)
        raise TypeError(f"`{api}` needs a penalty, such as `L1(0.1)`, got {got}{hint}.")
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(penalty)):
        raise TypeError(
            f"`{api}` needs strengths with values, got traced ones; under `jit`, `vmap` and `grad` use `fit`."
        )
    if not penalty.proximable:
        raise TypeError(f"`{api}` needs a penalty with an exact `prox`, which `{type(penalty).__name__}` has not.")


def check_numbers(api: str, tol, max_iter) -> None:
    """Refuse a tolerance that is not positive and a number of steps below 1."""
    if isinstance(tol, str) or np.ndim(tol) or tol is None or not tol > 0:
        raise ValueError(f"`{api}` needs `tol` > 0, got {tol}.")
    if not (isinstance(max_iter, (int, np.integer)) and max_iter >= 1):
        raise ValueError(f"`{api}` needs an int >= 1 as `max_iter`, got {max_iter!r}.")
