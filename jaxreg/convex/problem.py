"""A convex problem as it is solved: data checked, y encoded, columns centred and scaled; and the way back."""

from typing import NamedTuple

import jax
import numpy as np

from jaxreg.convex.datafits import Datafit
from jaxreg.convex.targets import array

SCALES = {None: None, False: None, True: "std", "std": "std", "sample_std": "sample_std", "norm": "norm"}


class Problem(NamedTuple):
    """min over (W, b) of Σᵢ sᵢ f(xᵢ·W + b, yᵢ) + Ω(W), with NumPy arrays in float64.

    Attributes:
        X: (n, *features), less `center`, over `scale`; rows without weight are left out.
        y: encoded, (n,) or (n, targets).
        weight: s, (n,), of sum 1.
        center: the weighted means of the columns, 0 without intercept.
        scale: what the columns were divided by, 1 without `standardize`.
        fit_intercept: whether there is a b.
        classes: the labels that y stands for, None if it does for numbers.
        dtype: of the iterates, float32 or float64, as X was given.
    """

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    fit_intercept: bool
    classes: np.ndarray | None
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of W."""
        return self.X.shape[1:] + self.y.shape[1:]

    @np.errstate(invalid="ignore", over="ignore")  # of what diverged
    def undo(self, coef, intercept) -> tuple[np.ndarray, np.ndarray]:
        """(W, b) for X as it was given; both may have leading axes of lanes."""
        coef = np.asarray(coef, np.float64) / self._column(self.scale)
        return coef, np.asarray(intercept, np.float64) - self._shift(coef)

    @np.errstate(invalid="ignore", over="ignore")
    def redo(self, coef, intercept) -> tuple[np.ndarray, np.ndarray]:
        """(W, b) for the columns as they are here, from those for X as it was given."""
        coef = np.asarray(coef, np.float64)
        return coef * self._column(self.scale), np.asarray(intercept, np.float64) + self._shift(coef)

    def _column(self, v):
        return v.reshape(v.shape + (1,) * (self.y.ndim - 1))

    def _shift(self, coef):
        first = coef.ndim - len(self.shape)
        return np.sum(coef * self._column(self.center), tuple(range(first, first + self.center.ndim)))


def prepare(api: str, datafit, X, y, sample_weight=None, fit_intercept=True, standardize=None) -> Problem:
    """The problem of these data, for the function `api`, which errors name.

    `standardize`: None, X as it is (scikit-learn's convention); "std" or True, unit standard deviations of divisor n
    (glmnet's, `StandardScaler`'s); "sample_std", of divisor n − 1; "norm", unit 2-norms (LARS', and scikit-learn's
    former `normalize=True`). Deviations are from the weighted mean, norms too if there is an intercept; n is the number
    of rows that have weight.
    """
    if not isinstance(datafit, Datafit):
        hint = f": `{datafit.__name__}()`" if isinstance(datafit, type) and issubclass(datafit, Datafit) else ""
        raise TypeError(f"`{api}` needs a datafit, such as `Squared()`, got {datafit!r}{hint}.")
    if not isinstance(fit_intercept, (bool, np.bool_)):
        raise TypeError(f"`{api}` needs True or False as `fit_intercept`, got {fit_intercept!r}.")
    if not isinstance(standardize, (str, bool, type(None))) or standardize not in SCALES:
        raise ValueError(f'`{api}` needs `standardize` in None, "std", "sample_std", "norm", got {standardize!r}.')
    X, y, dtype = _matrix(api, X, y)
    weight = _weight(api, sample_weight, len(X))
    n = np.count_nonzero(weight)
    if n < 2:
        counted = "" if n == len(X) else " with weight"
        raise ValueError(f"`{api}` needs two rows{counted} at least, got {n}.")
    if n < len(X):
        rows = weight > 0
        X, y, weight = X[rows], y[rows], weight[rows]
    _finite(api, X)
    y, classes = datafit.encode(y, api)
    mean = np.tensordot(weight, X, 1)
    center = mean if fit_intercept else np.zeros_like(mean)
    scale = _scale(api, SCALES[standardize], X, weight, mean, center)
    X = X - center  # a copy, as X may be the user's
    if SCALES[standardize] is not None:
        X /= scale
    return Problem(X, y, weight, center, scale, bool(fit_intercept), classes, dtype)


def column_names(X) -> dict[str, list]:
    """The coordinate `feature` of a table with named columns."""
    columns = getattr(X, "columns", None)
    return {} if columns is None or len(np.shape(X)) != 2 else {"feature": [str(c) for c in columns]}


def _matrix(api, X, y):
    """X in float64, y as an array, and the dtype of the iterates."""
    if isinstance(X, jax.core.Tracer) or isinstance(y, jax.core.Tracer):
        raise TypeError(f"`{api}` needs arrays with values, got traced ones; under `jit`, `vmap` and `grad` use `fit`.")
    if hasattr(X, "todense"):
        kind = type(X).__name__
        raise TypeError(f"`{api}` needs dense `X`, got {kind} of shape {X.shape}: `toarray` or `todense`, if it fits.")
    X, y = array(X, "X", api), array(y, "y", api)
    if X.dtype.kind not in "biuf" and X.dtype != "bfloat16":
        raise TypeError(f"`{api}` needs numbers in `X`, got {X.dtype} of shape {X.shape}.")
    if X.ndim < 2 or 0 in X.shape[1:]:
        raise ValueError(f"`{api}` needs `X` of shape (n, features), got shape {X.shape}.")
    if y.ndim == 0 or len(y) != len(X):
        raise ValueError(f"`{api}` needs as many rows in `X` as in `y`, got shapes {X.shape} and {y.shape}.")
    narrow = X.dtype.kind not in "biu" and X.dtype.itemsize <= 4
    return X.astype(np.float64, copy=False), y, np.dtype(np.float32 if narrow else np.float64)


def _finite(api, X):
    if np.isfinite(X).all():
        return
    wrong = ~np.isfinite(X)
    columns = np.argwhere(wrong.any(0))
    column = tuple(columns[0].tolist())
    row = int(np.flatnonzero(wrong[(slice(None), *column)])[0])
    name, more = column[0] if len(column) == 1 else column, f" and {len(columns) - 1} more" if len(columns) > 1 else ""
    raise ValueError(f"`{api}` needs finite `X`, got {X[(row, *column)]} in column {name} (row {row}){more}.")


def _weight(api, sample_weight, n):
    """Weights of sum 1."""
    if sample_weight is None:
        return np.ones(n) / max(n, 1)
    weight = np.asarray(sample_weight)
    if weight.dtype.kind not in "biuf":
        raise TypeError(f"`{api}` needs numbers as `sample_weight`, got {weight.dtype}.")
    if weight.shape != (n,):
        raise ValueError(f"`{api}` needs `sample_weight` of shape ({n},), one for each row, got shape {weight.shape}.")
    weight = weight.astype(np.float64)
    rows = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if rows.size:
        raise ValueError(f"`{api}` needs finite `sample_weight` >= 0, got {weight[rows[0]]} in row {rows[0]}.")
    if not weight.any():
        raise ValueError(f"`{api}` needs a positive `sample_weight`, got zeros alone.")
    weight = weight / weight.max()
    return weight / weight.sum()


def _scale(api, kind, X, weight, mean, center):
    if kind is None:
        return np.ones_like(mean)
    rounding = 8 * np.finfo(np.float64).eps * np.abs(X).max(0)
    constant = np.argwhere(np.ptp(X, 0) <= rounding)
    if constant.size:
        columns = ", ".join(str(c[0] if len(c) == 1 else tuple(c)) for c in constant[:5].tolist())
        more = f" and {len(constant) - 5} more" if len(constant) > 5 else ""
        raise ValueError(f"`{api}` needs columns that vary, to standardize them: constant are {columns}{more}.")
    n = len(X)
    deviation = np.square(X - (center if kind == "norm" else mean))
    factor = {"std": 1, "sample_std": n / (n - 1), "norm": n}[kind]
    return np.sqrt(factor * np.tensordot(weight, deviation, 1))
