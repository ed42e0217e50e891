"""Sweeps that are killed or interrupted, and go on to the same bits."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg as jr
from jaxreg.sweeps import files, store, work

pytestmark = pytest.mark.interpreters

HERE = Path(__file__).parent
X = np.random.default_rng(0).normal(size=(5, 3))


def train(lam, opt, seed, X):
    def step(w, _):
        gradient = X.T @ jax.nn.silu(X @ w) + lam * w
        return w - 0.1 * (jnp.sign(gradient) if opt == "sign" else gradient), jnp.sum(w**2)

    w, curve = jax.lax.scan(step, jax.random.normal(jax.random.key(seed), (3,)), None, 5)
    return {"loss": curve[-1], "curve": curve, "final": {"w": w, "positive": jnp.sum(w > 0)}}


def init(seed):
    """A state with a key, an integer and a narrow dtype in it."""
    key = jax.random.key(seed)
    momentum = jnp.zeros(3, jnp.bfloat16)
    stopping = jr.early_stopping(1).init(jnp.zeros(()))
    return {"w": jax.random.normal(key, (3,)), "key": key, "step": 0, "momentum": momentum, "stopping": stopping}


def step(state, lam, opt, X):
    key, noise = jax.random.split(state["key"])
    momentum = 0.5 * state["momentum"].astype(X.dtype) * (opt == "momentum")
    momentum += X.T @ jnp.tanh(X @ state["w"]) + lam * state["w"] + 0.1 * jax.random.normal(noise, (3,))
    w = state["w"] - 0.1 * momentum
    stopping = jr.early_stopping(1).update(state["stopping"], jnp.sum(w**2), w[0])
    state |= {"w": w, "key": key, "step": state["step"] + 1, "stopping": stopping}
    return state | {"momentum": momentum.astype(jnp.bfloat16)}


def report(state, X):
    return {"loss": jnp.sum(jnp.tanh(X @ state["w"]) ** 2), "w": state["w"], "at": state["step"]}


TRAINABLE = jr.Trainable(init, step, report, steps=8, every=2)
STOPPING = jr.Trainable(init, step, report, steps=8, every=2, stop=lambda state: state["stopping"].stopped)
GRID = jr.grid(lam=[0.0, 0.3, 3.0], opt=["sgd", "momentum"], seed=range(2))
LIST = [{"lam": lam, "seed": seed} for lam in (0.0, 0.3, 3.0) for seed in range(2)]


def plain(folder=None, **options):
    space = jr.grid(lam=[0.0, 0.1, 1.0], opt=["sgd", "sign"], seed=range(3))
    return jr.sweep(train, space, X=X, chunk=4, store=folder, **options)


def stopping(folder=None, **options):
    return jr.sweep(STOPPING, LIST, X=X, opt="sgd", chunk=4, store=folder, **options)


def halved(folder=None, **options):
    rule = jr.halving("loss", factor=2, min_steps=2)
    return jr.sweep(TRAINABLE, GRID, X=X, chunk=2, store=folder, halving=rule, **options)


def halved_stopping(folder=None, **options):
    rule = jr.halving("loss", factor=2, min_steps=2, over="seed")
    return jr.sweep(STOPPING, LIST, X=X, opt="momentum", chunk=4, store=folder, halving=rule, **options)


def hyperbanded(folder=None, **options):
    rule = jr.hyperband("loss", factor=2)
    return jr.sweep(TRAINABLE, GRID, X=X, chunk=2, store=folder, halving=rule, **options)


KINDS = {run.__name__: run for run in (plain, stopping, halved, halved_stopping, hyperbanded)}


@pytest.fixture(autouse=True)
def _every_block_is_saved(monkeypatch):
    monkeypatch.setattr(work, "SAVE_SECONDS", 0.0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """kind -> its results in a store, and how many files were written for them."""
    known = {}

    def find(kind):
        if kind not in known:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(work, "SAVE_SECONDS", 0.0)
                writes = Writes(patch)
                folder = tmp_path_factory.mktemp("undisturbed") / kind
                known[kind] = KINDS[kind](folder).load(), writes.count
        return known[kind]

    return find


def assert_same_bits(one, two):
    assert set(one.variables) == set(two.variables)
    for name in one.variables:
        assert one[name].dims == two[name].dims
        assert one[name].dtype == two[name].dtype
        assert one[name].values.tobytes() == two[name].values.tobytes(), name
    assert one.attrs["chunk"] == two.attrs["chunk"]


def chunks(folder):
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.glob("chunks/*.nc")}


def check_resumed(kind, folder, expected):
    """The same call completes a store to the same bits, computes nothing twice and leaves nothing else behind."""
    before = chunks(folder)
    assert_same_bits(KINDS[kind](folder), expected)
    assert before.items() <= chunks(folder).items()
    assert not [*folder.glob("carries/*"), *folder.rglob("*.tmp"), *folder.rglob("*.damaged")]


class Killed(BaseException):
    pass


class Writes:
    """Counts the files that are written; the process dies before the one of a given number, within it, or after it."""

    def __init__(self, patch, dies_at=None, when=None):
        self.count = 0
        real = files.write_file

        def write(path, content, process=0):
            self.count += 1
            if self.count - 1 == dies_at:
                if when == "within":
                    path.with_name(f"{path.name}.{process}-1-1.tmp").write_bytes(b"half a file")
                elif when == "after":
                    real(path, content, process)
                raise Killed
            real(path, content, process)

        patch.setattr(files, "write_file", write)
        patch.setattr(store, "write_file", write)


MOMENTS = ("before", "within", "after")


ALL = [pytest.param(kind, None, marks=pytest.mark.slow) for kind in KINDS]


@pytest.mark.parametrize(("kind", "number"), [("plain", 5), ("stopping", 4), ("halved", 6), *ALL])
def test_killed_at_any_file(tmp_path, kind, number, undisturbed):
    expected, writes = undisturbed(kind)
    points = [(at, when) for at in range(writes) for when in MOMENTS]
    if number:  # some that are spread over the run, and the last chunk's
        points = [(writes * i // number, MOMENTS[i % 3]) for i in range(1, number)] + [(writes - 2, "after")]
    for i, (at, when) in enumerate(points):
        with pytest.MonkeyPatch.context() as patch:
            Writes(patch, at, when)
            with pytest.raises(Killed):
                KINDS[kind](tmp_path / str(i))
        check_resumed(kind, tmp_path / str(i), expected)


def run_process(kind, folder):
    """What a process that is killed does."""
    jax.config.update("jax_enable_x64", True)
    work.SAVE_SECONDS = 0.0
    KINDS[kind](Path(folder), callbacks=[lambda *_: time.sleep(0.02)])  # so that some time is spent between files


def start_process(kind, folder):
    code = "import sys, test_sweep_kills; test_sweep_kills.run_process(*sys.argv[1:])"
    command = [sys.executable, "-c", code, kind, str(folder)]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": f"{HERE}:{HERE.parent}"}, stderr=subprocess.PIPE)


def kill(process):
    process.send_signal(signal.SIGKILL)
    _, told = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), told.decode()


@pytest.mark.parametrize(("kind", "after"), [("plain", 2), ("stopping", 1), ("halved", 8)])
def test_killed_by_the_system(tmp_path, kind, after, undisturbed):
    process = start_process(kind, tmp_path / "store")
    while len(chunks(tmp_path / "store")) < after and process.poll() is None:
        time.sleep(0.001)
    kill(process)
    assert len(chunks(tmp_path / "store")) >= after
    check_resumed(kind, tmp_path / "store", undisturbed(kind)[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_ten_times(tmp_path, kind, undisturbed):
    draw, folder = random.Random(kind), tmp_path / "store"
    start_process(kind, folder).communicate()  # compiles
    start = time.monotonic()
    shutil.rmtree(folder)
    start_process(kind, folder).communicate()
    seconds = time.monotonic() - start
    for i in range(10):  # some of them go on from where the one before was killed
        process = start_process(kind, folder)
        time.sleep(draw.uniform(0, 1.1 * seconds))
        kill(process)
        if i % 3 == 2:
            check_resumed(kind, folder, undisturbed(kind)[0])
            shutil.rmtree(folder)
    check_resumed(kind, folder, undisturbed(kind)[0])


# Ctrl-C


def ctrl_c(times, at):
    """A callback that presses Ctrl-C after a chunk."""
    called = []

    def press(*_):
        called.append(1)
        for _ in range(times if len(called) == at else 0):
            os.kill(os.getpid(), signal.SIGINT)

    return press


def between_blocks(monkeypatch, function, run=work.run):
    """Call a function whenever a block of a chunk begins."""

    def blocks(*chunk):
        for running in run(*chunk):
            if running:
                function()
            yield running

    monkeypatch.setattr(work, "run", blocks)


@pytest.mark.parametrize("stored", [True, False])
def test_one_ctrl_c_ends_after_a_chunk(tmp_path, stored, undisturbed):
    folder, expected = tmp_path / "store" if stored else None, undisturbed("plain")[0]
    handler = signal.getsignal(signal.SIGINT)
    found = plain(folder, callbacks=[ctrl_c(1, at=2)])
    assert signal.getsignal(signal.SIGINT) is handler
    finished = found["finished"].values
    assert 8 <= finished.sum() < finished.size  # the two that were told of, and what ran at the time
    for name in ("loss", "curve", "final.w", "final.positive"):
        np.testing.assert_array_equal(found[name].values[finished], expected[name].values[finished])
        assert np.isnan(found[name].values[~finished]).all()
    assert not found["diverged"].any()
    if stored:
        check_resumed("plain", folder, expected)


@pytest.mark.parametrize("block", [1, 5])
@pytest.mark.parametrize("kind", ["stopping", "halved"])
def test_one_ctrl_c_ends_after_a_block(tmp_path, monkeypatch, kind, block, undisturbed):
    monkeypatch.setattr(work, "SAVE_SECONDS", 1e9)
    between_blocks(monkeypatch, ctrl_c(1, at=block))
    found = KINDS[kind](tmp_path / "store")
    assert found["finished"].values.sum() < GRID.size
    assert list(tmp_path.glob("store/carries/*"))
    finished, expected = len(chunks(tmp_path / "store")), undisturbed(kind)[0]
    assert finished < len(GRID.groups()) * GRID.size
    check_resumed(kind, tmp_path / "store", expected)


def test_lost_states_are_computed_again(tmp_path, monkeypatch, undisturbed):
    between_blocks(monkeypatch, ctrl_c(1, at=8))  # in the second rung
    halved(tmp_path / "store")
    carries = [*tmp_path.glob("store/carries/*.npz")]
    assert len(carries) > 1
    for path in carries:
        path.write_bytes(path.read_bytes()[:100])
    found, expected = halved(tmp_path / "store"), undisturbed("halved")[0]
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)
    assert {path.suffix for path in tmp_path.glob("store/carries/*")} == {".damaged"}


def test_two_ctrl_c_end_at_once(tmp_path, undisturbed):
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    with pytest.raises(KeyboardInterrupt):
        plain(tmp_path / "store", callbacks=[ctrl_c(2, at=2)])
    assert signal.getsignal(signal.SIGINT) is before
    assert len(chunks(tmp_path / "store")) == 2
    check_resumed("plain", tmp_path / "store", undisturbed("plain")[0])


def test_outside_the_main_thread(undisturbed):
    found = []
    thread = threading.Thread(target=lambda: found.append(plain()))
    thread.start()
    thread.join()
    assert_same_bits(found[0], undisturbed("plain")[0])
