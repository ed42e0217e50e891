"""What a sweep shows while it runs: in a terminal, in a notebook, in a log file."""

import io
import math
import sys
import types

import numpy as np
import pytest

from jaxreg.sweeps import progress
from jaxreg.sweeps.progress import Bar


@pytest.fixture
def clock(monkeypatch):
    now = types.SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now.seconds)
    return now


def test_a_line_a_second_and_the_last(capfd, clock):
    with Bar(100, "val_error") as bar:
        for i in range(20):  # two chunks of five models a second
            clock.seconds += 0.5
            bar.update(5, best=(1 / (1 + i), {"lam": 0.1 * i, "optimizer": "adam"}))
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert len(lines) == 11
    assert lines[0].startswith("sweep: 5/100 models; best val_error 1 at lam=0, optimizer=adam")
    assert lines[1] == "sweep: 15/100 models, 10 models/s, 8 s left; best val_error 0.3333 at lam=0.2, optimizer=adam"
    assert lines[-1] == "sweep: 100/100 models, 10 models/s, took 10 s; best val_error 0.05 at lam=1.9, optimizer=adam"


def test_the_last_word_of_a_sweep_that_ends_early(capfd, clock):
    with pytest.raises(KeyboardInterrupt), Bar(10, True) as bar:
        bar.update(2)
        clock.seconds += 0.1
        bar.update(2, rung=1)
        raise KeyboardInterrupt
    assert capfd.readouterr().err.splitlines()[-1] == "sweep: 4/10 models, 20 models/s, 0 s left; rung 1"


def test_the_best_is_the_least_so_far_whatever_nan(capfd, clock):
    with Bar(5, True) as bar:
        for best in (math.nan, 2.0, (3.0, "worse"), (np.float32(1.5), {"lam": np.float32(0.1)}), math.nan):
            clock.seconds += 2
            bar.update(1, best=best)
    lines = capfd.readouterr().err.splitlines()
    assert [line.partition("best ")[2] for line in lines] == ["", "2", "2", "1.5 at lam=0.1", "1.5 at lam=0.1"]


def test_models_made_earlier_do_not_count_in_the_rate(capfd, clock):
    with Bar(100, True, done=90) as bar:
        clock.seconds += 9  # compiling
        bar.update(2)
        clock.seconds += 2
        bar.update(4)
    first, second = capfd.readouterr().err.splitlines()
    assert first == "sweep: 92/100 models"
    assert second == "sweep: 96/100 models, 2 models/s, 2 s left"


def test_two_chunks_side_by_side_are_no_rate(capfd, clock):
    with Bar(24, True) as bar:
        clock.seconds += 60
        bar.update(12)
        clock.seconds += 0.03
        bar.update(12)
    assert capfd.readouterr().err.splitlines()[-1] == "sweep: 24/24 models, 0.4 models/s, took 1 min 00 s"


def test_silent(capfd):
    with Bar(2, False) as bar:
        bar.update(1, best=1.0)
        bar.update(1)
    assert capfd.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("with_tqdm", [True, False])
def test_terminal(monkeypatch, with_tqdm):
    if not with_tqdm:
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Bar(24, "loss") as bar:
        for _ in range(2):
            bar.update(12, best=(0.5, {"lam": 0.1}))
    shown = sys.stderr.getvalue()
    assert "24/24" in shown
    assert "best loss 0.5 at lam=0.1" in shown
    assert ("\r" in shown) == with_tqdm


def test_notebook(monkeypatch):
    kernel = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: kernel))
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Bar(2, True) as bar:
        bar.update(2)
    assert "\r" in sys.stderr.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(59.4, "59 s"), (185, "3 min 05 s"), (7500, "2 h 05 min")])
def test_clock(seconds, text):
    assert progress._clock(seconds) == text
