"""Folds: which rows a model is trained on and which are held out to test it, as masks."""

from typing import NamedTuple

import numpy as np


class Folds(NamedTuple):
    """Masks (F, n): the rows of training and of test of each fold, and of which repetition it is (F,)."""

    train: np.ndarray
    test: np.ndarray
    repeat: np.ndarray


def make_folds(n: int, folds=5, *, repeats: int = 1, stratify=None, groups=None, seed: int | None = 0, y=None) -> Folds:
    r"""Rows 0…n−1 in folds, each of which is held out once in every repetition.

    Args:
        n: how many rows there are.
        folds: how many folds; "loo", each row by itself; an object with `split`, such as scikit-learn's splitters; or a
            list of (train, test), arrays of row numbers or boolean masks.
        repeats: how often to shuffle and split anew.
        stratify: labels (n,): every fold gets its share of each.
        groups: labels (n,): rows of a group are held out together.
        seed: of the shuffling; None takes rows as they come, neighbours together.
        y: what a splitter is to see as `y`.

    Returns:
        The masks. Folds of given splitters may leave rows out of both.

    Raises:
        ValueError: if there are fewer than two folds, more folds than rows, members of a class or groups, a fold
            without rows to train on or to test, or rows in both.

    >>> make_folds(5, 2, seed=None).test.astype(int).tolist()
    [[1, 1, 1, 0, 0], [0, 0, 0, 1, 1]]
    >>> make_folds(6, 2, groups=["a", "b", "b", "b", "a", "c"]).test.astype(int).tolist()
    [[0, 1, 1, 1, 0, 0], [1, 0, 0, 0, 1, 1]]
    """
    stratify, groups = _labels("stratify", stratify, n), _labels("groups", groups, n)
    if isinstance(folds, str) and folds != "loo":
        raise ValueError(f'`cross_validate` needs `folds` to be a number, "loo", a splitter or a list, got {folds!r}.')
    counted = isinstance(folds, (int, np.integer)) and not isinstance(folds, bool)
    if not counted and repeats != 1:
        raise ValueError(f"`cross_validate` needs a number of `folds` to repeat them, got {folds!r}.")
    if not counted and not isinstance(folds, str):
        return _given(folds, n, y if stratify is None else stratify, groups)
    if isinstance(folds, str) and (stratify is not None or groups is not None):
        raise ValueError('`cross_validate` needs a number of `folds` for `stratify` and `groups`, got "loo".')
    number = int(folds) if counted else n
    if repeats < 1 or (repeats > 1 and seed is None):
        raise ValueError(f"`cross_validate` needs `repeats` >= 1, and a `seed` for more than one, got {repeats}.")
    _check_number(number, n, stratify, groups)
    rng = np.random.default_rng(seed) if counted and seed is not None else None
    place = np.stack([_places(n, number, stratify, groups, rng) for _ in range(repeats)])
    test = (place[:, None] == np.arange(number)[:, None]).reshape(-1, n)
    return Folds(~test, test, np.repeat(np.arange(repeats), number))


def split(problem, y, sample_weight, folds, repeats, stratify, groups, seed) -> Folds:
    """The folds of a problem's rows, those of `y` that have weight; stratified by its classes unless told otherwise.

    Each is trained on every class.
    """
    n = len(y)
    present = np.ones(n, bool) if sample_weight is None else np.asarray(sample_weight) > 0
    counted = isinstance(folds, (int, np.integer))
    if stratify is None:
        stratify = problem.classes is not None and groups is None and counted
    if isinstance(stratify, (bool, np.bool_)):
        stratify = y if stratify else None
    if counted or isinstance(folds, str):  # absent rows take no part
        stratify, groups = (_labels(*named, n) for named in (("stratify", stratify), ("groups", groups)))
        stratify, groups = (labels if labels is None else labels[present] for labels in (stratify, groups))
        splits = make_folds(present.sum(), folds, repeats=repeats, stratify=stratify, groups=groups, seed=seed)
    else:
        splits = make_folds(n, folds, repeats=repeats, stratify=stratify, groups=groups, y=y)
        splits = splits._replace(train=splits.train[:, present], test=splits.test[:, present])
    for i, (train, test) in enumerate(zip(splits.train, splits.test, strict=True)):
        if not (train.any() and test.any()):
            raise ValueError(f"`cross_validate` needs rows with weight to train on and to test; fold {i} has none.")
        if problem.classes is not None and not _has_all(problem, train):
            raise ValueError(
                f"`cross_validate` needs every class among the rows that a fold is trained on, not so in fold {i}: "
                "take fewer folds, or `stratify=True`."
            )
    return splits


def _has_all(problem, rows) -> bool:
    shares = problem.y[rows].mean(0)
    return bool(np.all(shares > 0) and (problem.y.ndim > 1 or shares < 1))


def _places(n, number, stratify, groups, rng) -> np.ndarray:
    """The fold of each row."""
    order = np.arange(n) if rng is None else rng.permutation(n)
    place = np.empty(n, int)
    if groups is not None:  # large groups first, each into the fold that is smallest so far
        first = np.full(groups.max() + 1, n)
        np.minimum.at(first, groups[order], np.arange(n))
        sizes, filled, home = np.bincount(groups), np.zeros(number, int), np.empty(groups.max() + 1, int)
        for group in np.lexsort((first, -sizes)):
            home[group] = np.argmin(filled)
            filled[home[group]] += sizes[group]
        return home[groups]
    if stratify is not None:  # class by class, dealt out like cards
        place[order[np.argsort(stratify[order], kind="stable")]] = np.arange(n) % number
        return place
    place[order] = np.sort(np.arange(n) % number)
    return place


def _check_number(number, n, stratify, groups) -> None:
    if not 2 <= number <= n:
        raise ValueError(f"`cross_validate` needs 2 <= `folds` <= {n}, the number of rows, got {number}.")
    if stratify is not None and groups is not None:
        raise ValueError(
            "`cross_validate` needs `stratify` or `groups`, not both; give scikit-learn's `StratifiedGroupKFold` as "
            "`folds`."
        )
    if groups is not None and groups.max() + 1 < number:
        raise ValueError(f"`cross_validate` needs as many groups as folds, {number}; got {groups.max() + 1}.")
    if stratify is not None and np.bincount(stratify).min() < number:
        raise ValueError(
            f"`cross_validate` needs {number} members of each class, as many as folds; the smallest has "
            f"{np.bincount(stratify).min()}. Take fewer folds, or `stratify=False`."
        )


def _given(folds, n, y, groups) -> Folds:
    """What a splitter or a list of pairs says."""
    if hasattr(folds, "split"):
        folds = folds.split(np.zeros((n, 1)), y, groups)
    elif groups is not None:
        raise ValueError("`cross_validate` needs a number of `folds` or a splitter for `groups`, got a list.")
    try:
        pairs = [(_mask(train, n), _mask(test, n)) for train, test in folds]
    except (TypeError, IndexError) as error:
        raise ValueError(
            f"`cross_validate` needs `folds` as pairs (train, test) of row numbers below {n} or masks: {error}."
        ) from None
    if len(pairs) < 2:
        raise ValueError(f"`cross_validate` needs 2 folds at least, got {len(pairs)}.")
    for i, (train, test) in enumerate(pairs):
        if not (train.any() and test.any()):
            raise ValueError(f"`cross_validate` needs rows to train on and to test in every fold; fold {i} has none.")
        if (train & test).any():
            row = np.flatnonzero(train & test)[0]
            raise ValueError(f"`cross_validate` needs test rows that are not trained on; fold {i} has row {row} twice.")
    train, test = (np.stack(masks) for masks in zip(*pairs, strict=True))
    return Folds(train, test, np.zeros(len(pairs), int))


def _mask(rows, n) -> np.ndarray:
    rows = np.asarray(rows)
    if rows.dtype == bool:
        if rows.shape != (n,):
            raise IndexError(f"a mask of shape {rows.shape}")
        return rows
    mask = np.zeros(n, bool)
    mask[rows.astype(int, casting="same_kind") if rows.size else slice(0)] = True
    return mask


def _labels(name, labels, n) -> np.ndarray | None:
    """The number of each row's label."""
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.shape != (n,):
        raise ValueError(f"`cross_validate` needs `{name}` of shape ({n},), got shape {labels.shape}.")
    return np.unique(labels, return_inverse=True)[1]
