"""Successive halving and Hyperband: who goes on, how far, at what cost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxreg.sweeps.halving import halving, hyperband


def plain(bracket):
    return [tuple(rung) for rung in bracket.rungs]


def cost(bracket):
    """Steps trained in all."""
    total, running, start = 0, len(bracket.indices), 0
    for steps, survivors in bracket.rungs:
        total += running * (steps - start)
        running, start = survivors, steps
    return total


def by_the_paper(R, eta, s, n):
    """The inner loop of algorithm 1: rungs as (r_i, survivors)."""
    rungs = []
    for i in range(s + 1):
        n_i, r_i = n // eta**i, R // eta ** (s - i)
        rungs.append((r_i, n_i // eta if i < s else n_i))
    return rungs


def test_hyperband_is_that_of_the_paper():
    brackets = hyperband("loss").brackets(143, 81, 1)
    assert [len(b.indices) for b in brackets] == [81, 34, 15, 8, 5]
    assert plain(brackets[0]) == [(1, 27), (3, 9), (9, 3), (27, 1), (81, 1)]
    for bracket, s in zip(brackets, range(4, -1, -1), strict=True):
        assert plain(bracket) == by_the_paper(81, 3, s, len(bracket.indices))
        assert cost(bracket) <= 5 * 81 + 81  # B = (s_max + 1)R, and what ⌈n_s⌉ adds
    assert sum(map(cost, brackets)) < 143 * 81 / 6


@given(
    count=st.integers(1, 300),
    steps=st.integers(1, 2000),
    every=st.integers(1, 100),
    factor=st.integers(2, 5),
    least=st.integers(1, 300),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_laws(count, steps, every, factor, least):
    every, least = min(every, steps), min(least, steps)
    policies = [halving("m", factor=factor, min_steps=least), hyperband("m", factor=factor, seed=3)]
    for policy in policies:
        brackets = policy.brackets(count, steps, every)
        dealt = np.concatenate([b.indices for b in brackets])
        assert sorted(dealt) == list(range(count))  # each configuration once
        for indices, rungs in brackets:
            ends, survivors = zip(*rungs, strict=True)
            assert (np.diff(indices) > 0).all()
            assert ends[-1] == steps
            assert all(end % every == 0 for end in ends[:-1])
            assert (np.diff([0, *ends]) > 0).all()
            running = [len(indices), *survivors]
            assert (np.diff(running[:-1]) < 0).all()
            assert running[-1] == running[-2] >= 1
            assert survivors[-1] >= len(indices) // factor ** len(rungs)
    one = policies[0].brackets(count, steps, every)[0]
    assert one.rungs[0].steps >= least


def test_halving():
    rungs = lambda count, steps, every=1, **options: plain(
        halving("m", **{"min_steps": 1, **options}).brackets(count, steps, every)[0]
    )
    assert rungs(27, 9) == [(1, 9), (3, 3), (9, 3)]
    assert rungs(27, 27) == [(1, 9), (3, 3), (9, 1), (27, 1)]
    assert rungs(16, 8, factor=2) == [(1, 8), (2, 4), (4, 2), (8, 2)]
    assert rungs(28, 100, every=10, min_steps=5) == [(10, 9), (30, 3), (100, 3)]  # 90 would not leave a rung
    assert rungs(2, 81) == [(1, 1), (81, 1)]  # no rung where nothing is dropped
    assert rungs(1, 81) == [(81, 1)]
    assert rungs(27, 9, min_steps=9) == [(9, 27)]


def test_survivors():
    nan = np.nan
    least, most = halving("m", min_steps=1), halving("m", min_steps=1, mode="max")
    assert least.select([3.0, 1.0, 2.0, 1.0], 2).tolist() == [1, 3]
    assert least.select([1.0, 1.0, 1.0, 0.0], 2).tolist() == [0, 3]
    assert least.select([nan, np.inf, nan, 5.0], 3).tolist() == [0, 1, 3]
    assert most.select([nan, 1.0, -np.inf, 3.0, 3.0], 1).tolist() == [3]
    assert most.select([nan, 1.0, -np.inf, 3.0, 3.0], 4).tolist() == [1, 2, 3, 4]
    assert least.select(np.array([2, 1], np.int32), 5).tolist() == [0, 1]
    assert least.select([nan, nan], 1).tolist() == [0]


def test_deals_are_those_of_the_seed():
    deal = lambda **options: [b.indices.tolist() for b in hyperband("m", **options).brackets(100, 27, 1)]
    assert deal() == deal(seed=0) == deal(mode="max")
    assert deal() != deal(seed=1)
    assert hyperband("m") == hyperband("m") != hyperband("m", seed=1)  # its repr may identify a store
    assert repr(hyperband("m")) == "Hyperband(metric='m', factor=3, over=None, mode='min', seed=0)"


def test_brackets_by_share_of_few():
    sizes = [len(b.indices) for b in hyperband("m").brackets(10, 81, 1)]
    assert sizes == [6, 2, 1, 1]  # of 81, 34, 15, 8, 5 in 143: 5.7, 2.4, 1.05, .6, .3
    assert [plain(b) for b in hyperband("m").brackets(1, 81, 1)] == [[(81, 1)]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: halving(3, min_steps=1), TypeError, "`halving` needs `metric` .* got 3"),
        (lambda: halving("m", factor=1, min_steps=1), ValueError, "`factor` to be an integer ≥ 2, got 1"),
        (lambda: halving("m", factor=2.5, min_steps=1), ValueError, "`factor` to be an integer ≥ 2, got 2.5"),
        (lambda: halving("m", min_steps=0), ValueError, "`min_steps` to be an integer ≥ 1, got 0"),
        (lambda: halving("m", min_steps=1, mode="least"), ValueError, "`mode` to be .*got 'least'"),
        (lambda: halving("m", min_steps=10).brackets(3, 9, 1), ValueError, "`min_steps` ≤ the 9 steps .*got 10"),
        (lambda: hyperband("m", seed=-1), ValueError, "`seed` to be an integer ≥ 0, got -1"),
        (lambda: hyperband("m").brackets(3, 9, 10), ValueError, "1 ≤ `every` ≤ `steps`, got 3, every 10, 9 steps"),
        (lambda: hyperband("m").brackets(0, 9, 1), ValueError, "a configuration"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
