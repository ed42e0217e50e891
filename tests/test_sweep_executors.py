"""One sweep, its chunks computed by the workers of executors."""

import concurrent.futures
import functools
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg as jr

pytestmark = pytest.mark.interpreters

SPACE = jr.grid(lam=np.arange(1.0, 9.0), seed=range(3))  # 24 configurations
CHUNK = 4


def ridge(lam, seed, X, y, marker=None, key=None, power=2):
    """Ridge regression by gradient descent; with a marker, something happens the first time that lam = 5 is there."""
    if os.environ.get("JAXREG_TEST_OTHER"):
        lam = lam + 1.0

    def visit(lam):
        path, what = marker
        if lam == 5.0 and not Path(path).exists():
            Path(path).touch()
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("no luck")
        return lam

    if marker is not None:
        lam = jax.pure_callback(visit, jax.ShapeDtypeStruct((), lam.dtype), lam, vmap_method="sequential")
    key = jax.random.key(0) if key is None else key
    theta = jax.random.normal(jax.random.fold_in(key, seed), X.shape[1:])
    theta, _ = jax.lax.scan(lambda t, _: (t - 1e-3 * (X.T @ (X @ t - y) + lam * t), None), theta, None, 20)
    return {"theta": theta, "loss": jnp.mean(jnp.abs(X @ theta - y) ** power)}


def begin(seed):
    return jax.random.normal(jax.random.key(seed), (3,))


def step(theta, lam):
    return theta - 0.1 * lam * theta


def report(theta, lam):
    return {"loss": jnp.sum(theta**2)}


def near(theta):
    return jnp.sum(theta**2) < 0.01


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 4))
    return {"X": jnp.array(X), "y": X @ np.ones(4)}


@pytest.fixture(scope="module")
def alone(data):
    return jr.sweep(ridge, SPACE, chunk=CHUNK, **data)


def spawned(workers=1):
    return concurrent.futures.ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


@pytest.fixture(scope="module")
def pool():
    with spawned() as executor:
        yield executor
    assert multiprocessing.active_children() == []


def run(executor, data, train=ridge, space=SPACE, **options):
    return jr.sweep(train, space, chunk=CHUNK, executor=executor, **data, **options)


def assert_same(one, two):
    assert one.load().drop_attrs().identical(two.load().drop_attrs()), (one, two)


def test_threads(data, alone):
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        told = []
        runs = run(executor, data, callbacks=[lambda done, total, chunk: told.append((done, total, chunk["lam"].size))])
        assert_same(runs, alone)
        assert told == [(4 * i, 24, 4) for i in range(1, 7)]
        assert_same(run(executor, data, lambda lam, seed, X, y: ridge(lam, seed, X, y)), alone)  # nothing is pickled
        assert executor.submit(int).result() == 0  # not ours to shut down


def test_executors_that_it_makes_are_shut_down(data, alone):
    made = []

    def make():
        made.append(concurrent.futures.ThreadPoolExecutor(2))
        return made[-1]

    assert_same(run(make, data), alone)
    with pytest.raises(RuntimeError, match="shutdown"):
        made[0].submit(int)
    assert_same(run(concurrent.futures.ThreadPoolExecutor, data), alone)


def test_ctrl_c_ends_after_the_chunks_that_run(data, alone):
    def interrupt(done, total, chunk):
        if done == 8:
            os.kill(os.getpid(), signal.SIGINT)

    def slow(lam, seed, X, y):
        wait = lambda x: time.sleep(0.05) or x
        lam = jax.pure_callback(wait, jax.ShapeDtypeStruct((), lam.dtype), lam, vmap_method="sequential")
        return ridge(lam, seed, X, y)

    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        runs = run(executor, data, slow, callbacks=[interrupt])
    done = runs["finished"].values
    assert 8 <= done.sum() <= 12
    assert np.array_equal(runs["loss"].values[done], alone["loss"].values[done])
    assert np.isnan(runs["loss"].values[~done]).all()


def test_processes(pool, data, alone):
    assert_same(run(pool, data), alone)
    # static values, a key and arrays of JAX among what is fixed
    options = {"space": SPACE * jr.grid(power=jr.static([1, 2])), "key": jax.random.key(3), "chunk": CHUNK}
    assert_same(jr.sweep(ridge, executor=pool, **options, **data), jr.sweep(ridge, **options, **data))
    train = jr.Trainable(begin, step, report, steps=6, every=2, stop=near)
    assert_same(run(pool, {}, train), jr.sweep(train, SPACE, chunk=CHUNK))
    with jax.enable_x64(False), jax.default_matmul_precision("highest"):
        narrow = run(pool, {"X": np.float32(data["X"]), "y": np.float32(data["y"])})
        assert narrow["theta"].dtype == np.float32


def test_errors_of_workers_name_their_chunk(pool, data, alone, tmp_path):
    with pytest.raises(Exception, match="no luck") as caught:
        run(pool, data, marker=(str(tmp_path / "marker"), "raise"), power=2)
    assert "a chunk of 4 configurations, {'lam': 5.0, 'seed': 0} to {'lam': 6.0" in caught.value.__notes__[0]
    assert_same(run(pool, data), alone)  # the pool lives on, and has nothing left to do


def test_workers_trace_the_same_program(pool, data, monkeypatch):
    run(pool, data)
    monkeypatch.setenv("JAXREG_TEST_OTHER", "1")  # as an edited module, which the workers imported before
    with pytest.raises(ValueError, match="same program as here"):
        run(pool, data)


def test_what_cannot_be_pickled(pool, data, alone, monkeypatch):
    pytest.importorskip("cloudpickle")
    train = lambda lam, seed, X, y: ridge(lam, seed, X, y)
    assert_same(run(pool, data, train), alone)
    with pytest.raises(TypeError, match=r"can be pickled for `executor`: .*lock"):
        run(pool, data, marker=threading.Lock())
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pytest.raises(TypeError, match=r"lambda.* top level of a module"):
        run(pool, data, train)


def test_dead_workers_are_replaced(data, alone, tmp_path, caplog):
    others = multiprocessing.active_children()
    with caplog.at_level(logging.WARNING, "jaxreg.sweeps"):
        runs = run(spawned, data, marker=(str(tmp_path / "marker"), "kill"))
    assert_same(runs, alone)
    assert "The workers died" in caplog.text
    assert (tmp_path / "marker").exists()
    assert multiprocessing.active_children() == others


@pytest.mark.slow
def test_a_bare_pool_that_dies(data, alone, tmp_path):
    options = {"marker": (str(tmp_path / "marker"), "kill"), "store": tmp_path / "store"}
    with spawned(2) as executor, pytest.raises(concurrent.futures.BrokenExecutor, match="of 6 chunks are done"):
        run(executor, data, **options)
    there = len([*(tmp_path / "store" / "chunks").glob("*.nc")])
    assert 1 <= there < 6
    told = []
    with spawned(2) as executor:
        runs = run(executor, data, callbacks=[lambda *call: told.append(call[0])], **options)
    assert told == [4 * i for i in range(there + 1, 7)]
    assert_same(runs, alone)


@pytest.mark.slow
def test_loky(data, alone, tmp_path):
    loky = pytest.importorskip("loky")
    make = functools.partial(loky.get_reusable_executor, max_workers=2)
    train = lambda lam, seed, X, y, marker: ridge(lam, seed, X, y, marker)
    assert_same(run(make, data, train, marker=(str(tmp_path / "marker"), "kill")), alone)
    with make() as executor:
        assert_same(run(executor, data), alone)
        with pytest.raises(concurrent.futures.BrokenExecutor, match="of 6 chunks are done"):
            run(executor, data, marker=(str(tmp_path / "other"), "kill"))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["client", "executor"])
def test_dask(data, alone, tmp_path, form):
    """Dask gives the chunks of dead workers to others by itself."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "silence_logs": logging.CRITICAL}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        executor = client if form == "client" else client.get_executor()
        assert_same(run(executor, data, lambda lam, seed, X, y: ridge(lam, seed, X, y)), alone)
        assert_same(run(executor, data, marker=(str(tmp_path / "marker"), "kill")), alone)
        with pytest.raises(Exception, match="no luck") as caught:
            run(executor, data, marker=(str(tmp_path / "other"), "raise"))
        assert "{'lam': 5.0, 'seed': 0}" in caught.value.__notes__[-1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"executor": 3}, TypeError, "an executor with `submit`"),
        ({"executor": lambda: 3}, TypeError, r"`executor\(\)` to be one"),
        ({"executor": concurrent.futures.ThreadPoolExecutor, "devices": jax.devices()}, ValueError, "no `devices`"),
        ({"devices": []}, ValueError, "distinct `devices`"),
        ({"devices": jax.devices() * 2}, ValueError, "distinct `devices`"),
    ],
)
def test_refused(data, options, error, message):
    with pytest.raises(error, match=message):
        jr.sweep(ridge, SPACE, chunk=CHUNK, **options, **data)


def test_halving_needs_the_states(data):
    train = jr.Trainable(begin, step, report, steps=6, every=2)
    with pytest.raises(ValueError, match="no `halving` with an `executor`"):
        jr.sweep(train, SPACE, halving=jr.halving("loss", min_steps=2), executor=concurrent.futures.ThreadPoolExecutor)
