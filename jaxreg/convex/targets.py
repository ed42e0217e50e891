"""What is regressed on: numbers, counts and labels, checked and as arrays."""

import numpy as np


def numbers(y, api: str) -> np.ndarray:
    """`y` as float64 of shape (n,) or (n, t); refused unless finite."""
    y = array(y, "y", api)
    if y.dtype.kind not in "biuf" and y.dtype != "bfloat16":
        raise TypeError(f"`{api}` needs numbers as `y`, got {y.dtype} of shape {y.shape}.")
    y = y.astype(np.float64)
    if y.ndim not in (1, 2) or (y.shape[-1] == 0 and y.ndim == 2):
        raise ValueError(f"`{api}` needs `y` of shape (n,) or (n, targets), got shape {y.shape}.")
    rows = np.flatnonzero(~np.isfinite(y).reshape(len(y), -1).all(1))
    if rows.size:
        raise ValueError(f"`{api}` needs finite `y`, got {y[rows[0]]} in row {rows[0]}.")
    return y


def counts(y, api: str) -> np.ndarray:
    """`y` as `numbers`; refused unless none is negative and every target has a positive one."""
    y = numbers(y, api)
    rows = np.flatnonzero((y < 0).reshape(len(y), -1).any(1))
    if rows.size:
        raise ValueError(f"`{api}` needs `y` >= 0, got {y[rows[0]]} in row {rows[0]}.")
    if not (y > 0).any(0).all():
        raise ValueError(f"`{api}` needs a positive `y` for every target: with none, the intercept is -inf.")
    return y


def labels(y, api: str) -> tuple[np.ndarray, np.ndarray]:
    """The sorted classes among the labels `y` of shape (n,), two at least, and each label's place among them."""
    y = array(y, "y", api)
    if y.ndim != 1:
        raise ValueError(f"`{api}` needs one label for each row, `y` of shape (n,), got shape {y.shape}.")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        row = np.flatnonzero(~np.isfinite(y))[0]
        raise ValueError(f"`{api}` needs finite `y`, got {y[row]} in row {row}.")
    try:
        classes, places = np.unique(y, return_inverse=True)
    except TypeError:
        raise TypeError(f"`{api}` needs labels that can be sorted, got {y.dtype}: {y[:3]}...") from None
    if y.dtype.kind == "f" and len(classes) > 2 and not np.array_equal(classes, np.round(classes)):
        raise ValueError(f"`{api}` needs labels as `y`, got numbers such as {y[0]}: for these take `Squared()`.")
    if len(classes) < 2:
        raise ValueError(f"`{api}` needs two classes in `y` at least, got {len(classes)}: {classes.tolist()}.")
    return classes, places


def array(x, name: str, api: str) -> np.ndarray:
    """`x` as an array; ragged lists are refused. A table of bools and floats is one of objects, which are numbers."""
    try:
        values = np.asarray(x)
        if values.dtype == object and all(isinstance(v, (bool, int, float, np.number, np.bool_)) for v in values.flat):
            values = values.astype(np.float64)
    except ValueError as error:
        raise ValueError(f"`{api}` needs an array as `{name}`: {error}.") from None
    return values
