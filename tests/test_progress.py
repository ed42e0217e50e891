"""What a call shows while it runs: in a terminal, in a notebook, in a log file."""

import io
import math
import re
import sys
import threading
import time
import types

import jax
import numpy as np
import pytest

import jaxreg as jr
from jaxreg.sweeps import progress
from jaxreg.sweeps.progress import Bar, Progress


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


@pytest.fixture
def open_terminal(monkeypatch):
    """What makes stderr a terminal; calls show their line at once."""
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(progress, "_TICK", 0.001)
    monkeypatch.delenv("JAXREG_PROGRESS", raising=False)

    def opened():  # in the test, as pytest captures anew after its fixtures
        monkeypatch.setattr(sys, "stderr", Terminal())
        return sys.stderr

    return opened


def wait_for(condition, seconds=5.0):
    end = time.perf_counter() + seconds
    while not condition():
        assert time.perf_counter() < end
        time.sleep(0.001)


def clean(text):
    """Whether the line that was shown last has been taken away."""
    return re.search(r"\r *\r$", text) is not None


def test_a_line_that_goes(open_terminal):
    terminal = open_terminal()
    with Progress("path", total=100, unit="strength") as report:
        report("solving", done=3)
        wait_for(lambda: "\rpath: solving, 3/100 strengths, 0 s" in terminal.getvalue())
        report("certifying")
        wait_for(lambda: "\rpath: certifying, 3/100 strengths, 0 s" in terminal.getvalue())
    assert clean(terminal.getvalue())
    assert "\n" not in terminal.getvalue()


def test_nothing_for_two_seconds(open_terminal, monkeypatch):
    terminal = open_terminal()
    monkeypatch.setattr(progress, "PATIENCE", 60.0)
    with Progress("path") as report:
        report("solving")
        time.sleep(0.02)
    assert terminal.getvalue() == ""


def test_the_program_that_is_compiled(open_terminal, monkeypatch):
    terminal = open_terminal()
    named, shown = [], progress._compiling

    class Names(dict):
        def __setitem__(self, thread, name):
            named.append(name)
            super().__setitem__(thread, name)

    monkeypatch.setattr(progress, "_compiling", Names())

    def _squares(x):
        return x * x

    with Progress("path") as report:
        jax.jit(_squares)(np.ones(3)).block_until_ready()
        assert progress._compiling == {}
        assert "squares" in named
        progress._listen(progress._LOWERED, 0.0, fun_name="jit(_squares)")
        wait_for(lambda: "\rpath: compiling squares, 0 s" in terminal.getvalue())
        report("solving")  # so this thread does not compile
        wait_for(lambda: "\rpath: solving, 0 s" in terminal.getvalue())
    assert shown == {}


@pytest.mark.parametrize("end", [KeyboardInterrupt, ValueError])
def test_a_call_that_fails_leaves_the_terminal_clean(open_terminal, end):
    terminal = open_terminal()
    with pytest.raises(end), Progress("path"):
        wait_for(terminal.getvalue)
        raise end
    assert clean(terminal.getvalue())
    assert progress._active == []


@pytest.mark.parametrize("shown", [True, False])
def test_calls_inside_a_call_are_silent(open_terminal, shown):
    terminal = open_terminal()
    with Progress("outer", shown=shown):
        with Progress("inner") as report:
            report("solving")
            assert not report.late
            time.sleep(0.01)
        time.sleep(0.01)
    assert "inner" not in terminal.getvalue()
    assert ("outer" in terminal.getvalue()) == shown


def test_silent_in_a_pipe_and_where_it_is_turned_off(open_terminal, monkeypatch):
    terminal = open_terminal()
    monkeypatch.setenv("JAXREG_PROGRESS", "0")
    with Progress("path"):
        assert progress._active == []
    monkeypatch.delenv("JAXREG_PROGRESS")
    closed = io.StringIO()
    closed.close()
    for stderr in (io.StringIO(), None, closed):
        monkeypatch.setattr(sys, "stderr", stderr)
        with Progress("path"):
            assert progress._active == []
    assert terminal.getvalue() == ""


def test_a_terminal_that_goes_away(open_terminal):
    terminal = open_terminal()
    with Progress("path") as report:
        wait_for(terminal.getvalue)
        terminal.close()
        report("solving")
        time.sleep(0.01)
    assert progress._active == []


def test_calls_in_several_threads(open_terminal):
    terminal = open_terminal()

    def calls():
        for i in range(50):
            with Progress("path") as report:
                report("solving", done=i)
                time.sleep(0.001)

    threads = [threading.Thread(target=calls) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert progress._active == []
    assert clean(terminal.getvalue())
    wait_for(lambda: progress._watcher is None)  # no thread is left


def test_a_line_in_a_notebook(open_terminal, monkeypatch):
    terminal = open_terminal()
    shown = []

    def display(data, *, raw, display_id):
        assert raw
        assert display_id
        shown.append(data["text/plain"])
        return types.SimpleNamespace(update=lambda data, raw: shown.append(data["text/plain"]))

    kernel = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: kernel))
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    with Progress("path") as report:
        wait_for(lambda: shown)
        report("solving")
        wait_for(lambda: shown[-1].startswith("path: solving"))
    assert shown[0].startswith("path")
    assert shown[-1] == ""
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("with_tqdm", [True, False])
def test_the_bar_takes_the_place_of_the_line(open_terminal, monkeypatch, with_tqdm):
    terminal = open_terminal()
    if not with_tqdm:
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with Progress("sweep") as report, Bar(24, None, progress=report) as bar:
        report("running")
        wait_for(lambda: "\rsweep: running, 0 s" in terminal.getvalue())
        bar.update(12)
        assert report.late != with_tqdm
        wait_for(lambda: with_tqdm or "\rsweep: 12/24 models" in terminal.getvalue())
        bar.update(12)
    assert ("100%" in terminal.getvalue()) == with_tqdm


def test_a_sweep_shows_its_bar_unless_told_not_to(open_terminal):
    terminal, space = open_terminal(), jr.grid(lam=[1.0, 2.0])

    def train(lam):
        return lam + 1

    jr.sweep(train, space, chunk=2, progress=False)
    assert terminal.getvalue() == ""
    jr.sweep(train, space, chunk=2)
    assert "2/2" in terminal.getvalue()
