"""Folds: every row held out once, classes and groups as asked, scikit-learn's splitters, and what is refused."""

import numpy as np
import pytest
from sklearn import model_selection

from jaxreg.convex.folds import make_folds

Y = np.repeat(["a", "b", "c"], [23, 12, 6])
GROUPS = np.random.default_rng(0).integers(0, 9, 41)


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("kind", [{}, {"stratify": Y}, {"groups": GROUPS}], ids=["plain", "stratify", "groups"])
def test_every_row_is_held_out_once(kind, seed):
    folds = make_folds(41, 5, seed=seed, **kind)
    assert folds.test.shape == (5, 41)
    assert (folds.test.sum(0) == 1).all()
    assert (folds.train == ~folds.test).all()
    if "groups" in kind:
        assert all(len(set(GROUPS[test]) & set(GROUPS[~test])) == 0 for test in folds.test)
        assert np.ptp(folds.test.sum(1)) <= np.bincount(GROUPS).max()
    else:
        assert np.ptp(folds.test.sum(1)) <= 1
    if "stratify" in kind:
        assert all(np.ptp([(Y[test] == label).sum() for test in folds.test]) <= 1 for label in "abc")


def test_without_shuffling_as_scikit_learn():
    expected = [test for _, test in model_selection.KFold(5).split(np.zeros(42))]
    for test, rows in zip(make_folds(42, 5, seed=None).test, expected, strict=True):
        assert np.flatnonzero(test).tolist() == rows.tolist()
    assert (make_folds(7, "loo").test == np.eye(7, dtype=bool)).all()


def test_seeds_and_repetitions():
    one, other = make_folds(30, 3, seed=1), make_folds(30, 3, seed=2)
    assert (one.test == make_folds(30, 3, seed=1).test).all()
    assert (one.test != other.test).any()
    thrice = make_folds(30, 3, repeats=3, stratify=np.arange(30) % 2)
    assert thrice.repeat.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert (thrice.test.sum(0) == 3).all()
    assert (thrice.test[:3] != thrice.test[3:6]).any()


@pytest.mark.parametrize(
    "splitter",
    [
        model_selection.StratifiedKFold(3, shuffle=True, random_state=0),
        model_selection.StratifiedGroupKFold(3),
        model_selection.TimeSeriesSplit(4),
        model_selection.RepeatedKFold(n_splits=3, n_repeats=2, random_state=0),
    ],
    ids=lambda s: type(s).__name__,
)
def test_splitters_and_their_lists(splitter):
    groups = GROUPS if isinstance(splitter, model_selection.StratifiedGroupKFold) else None
    pairs = list(splitter.split(np.zeros(41), Y, groups))
    for folds in (make_folds(41, splitter, groups=groups, y=Y), make_folds(41, pairs)):
        for i, (train, test) in enumerate(pairs):
            assert np.flatnonzero(folds.train[i]).tolist() == sorted(train)
            assert np.flatnonzero(folds.test[i]).tolist() == sorted(test)
    masks = [(np.isin(np.arange(41), train), np.isin(np.arange(41), test)) for train, test in pairs]
    assert (make_folds(41, masks).test == folds.test).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"folds": 11}, "folds` <= 10"),
        ({"folds": 1}, "2 <= `folds`"),
        ({"folds": "ten"}, '"loo"'),
        ({"folds": "loo", "repeats": 2}, "to repeat"),
        ({"folds": "loo", "groups": range(10)}, '"loo"'),
        ({"folds": 2, "repeats": 2, "seed": None}, "`seed`"),
        ({"folds": 5, "stratify": [0] * 6 + [1] * 4}, "the smallest has 4"),
        ({"folds": 3, "groups": [0] * 6 + [1] * 4}, "as many groups as folds, 3; got 2"),
        ({"folds": 2, "groups": [0, 1] * 5, "stratify": [0, 1] * 5}, "not both"),
        ({"folds": 2, "groups": [0, 1]}, r"`groups` of shape \(10,\)"),
        ({"folds": [(range(10), [])] * 2}, "fold 0 has none"),
        ({"folds": [([1, 2], [0]), ([], [1])]}, "fold 1 has none"),
        ({"folds": [([1, 2], [2])] * 2}, "row 2 twice"),
        ({"folds": [([1, 2], [0])]}, "2 folds at least"),
        ({"folds": [([1, 2], [10])] * 2}, "below 10"),
        ({"folds": [([0.5], [1])] * 2}, "row numbers"),
        ({"folds": [([True, False], [1])] * 2}, "mask of shape"),
        ({"folds": 7.5}, "pairs"),
        ({"folds": [([1], [2])] * 2, "groups": range(10)}, "got a list"),
    ],
)
def test_bad_folds_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        make_folds(10, **options)
