"""One sweep on eight devices of a process, and shared by two processes."""

import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.interpreters

HERE = Path(__file__).parent
CHECKS = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


def python(code):
    """A process of its own, whose devices are not those of this one."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=HERE,
    )  # fmt: skip


# Eight devices. The checks run in one process, as starting one takes longer than most of them.


@pytest.fixture(scope="module")
def on_eight_devices(tmp_path_factory):
    child = python(f"""
        import json, jax
        jax.config.update("jax_num_cpu_devices", 8)
        jax.config.update("jax_enable_x64", True)
        import test_sweep_devices as tests
        print(json.dumps(tests.run_checks({str(tmp_path_factory.mktemp("devices"))!r})))
    """)
    out, _ = child.communicate(timeout=300)
    assert child.returncode == 0, out
    return json.loads(out.splitlines()[-1])


def run_checks(folder):
    import traceback

    failed = {}
    for name, function in CHECKS.items():
        path = Path(folder) / name
        path.mkdir()
        try:
            function(path)
        except BaseException:
            failed[name] = traceback.format_exc()
    return failed


def ridge(lam, lr, seed, X, y):
    import jax
    import jax.numpy as jnp

    theta = jax.random.normal(jax.random.key(seed), X.shape[1:])
    theta, _ = jax.lax.scan(lambda t, _: (t - lr * (X.T @ (X @ t - y) + lam * t), None), theta, None, 20)
    return {"theta": theta, "loss": jnp.mean((X @ theta - y) ** 2)}


def problem():
    import numpy as np

    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 4))
    return {"X": X, "y": X @ np.ones(4) + rng.normal(size=20)}


def space():
    import numpy as np

    import jaxreg as jr

    return jr.grid(lam=np.logspace(-2, 1, 5), lr=[0.001, 0.002, 0.005], seed=range(3))  # 45 = 5·8 + 5 configurations


def descent(every=5, **options):
    """Trained in steps, a bowl of its own for each configuration."""
    import jax
    import jax.numpy as jnp

    import jaxreg as jr

    def init(seed):
        return jax.random.normal(jax.random.key(seed), (3,)), jnp.zeros((), int)

    def step(state, lam, lr):
        return state[0] - lr * (lam * state[0] + jnp.sin(state[0])), state[1] + 1

    def report(state, lam):
        return {"loss": jnp.sum(state[0] ** 2) * lam, "state": state[0]}

    return jr.Trainable(init, step, report, steps=20, every=every, **options)


def assert_equal(one, two):
    """To the bit, times apart."""
    drop = {"compile_seconds", "run_seconds", "chunk", "models_run"}
    one, two = (runs.load().assign_attrs({k: v for k, v in runs.attrs.items() if k not in drop}) for runs in (one, two))
    for runs in (one, two):
        runs.attrs = {k: v for k, v in runs.attrs.items() if k not in drop}
    assert one.identical(two), (one, two)


@check
def plain_with_a_ragged_tail(_):
    import jax

    import jaxreg as jr

    told = []
    runs = jr.sweep(
        ridge, space(), chunk=16, **problem(),
        callbacks=[lambda done, total, chunk: told.append((done, total, {len(v) for v in chunk.values()}))],
    )  # fmt: skip
    assert told == [(16, 45, {16}), (32, 45, {16}), (45, 45, {13})]
    # as many configurations on a device at once: the same program, and the same bits
    assert_equal(runs, jr.sweep(ridge, space(), chunk=2, devices=jax.devices()[:1], **problem()))


@check
def chunks_are_rounded_up_to_the_devices(_):
    import jax

    import jaxreg as jr

    runs = jr.sweep(ridge, space(), chunk=20, **problem())
    assert runs.attrs["chunk"] == 24
    assert_equal(runs, jr.sweep(ridge, space(), chunk=3, devices=jax.devices()[:1], **problem()))
    some = jr.sweep(ridge, space(), chunk=8, devices=jax.devices()[2:5], **problem())
    assert some.attrs["chunk"] == 9
    assert_equal(runs, some)


@check
def fewer_configurations_than_devices(_):
    import jax

    import jaxreg as jr

    few = jr.grid(lam=[0.1, 1.0, 10.0], lr=[0.001], seed=[0])
    runs = jr.sweep(ridge, few, **problem())
    assert runs["loss"].shape == (3, 1, 1)
    assert_equal(runs, jr.sweep(ridge, few, chunk=1, devices=jax.devices()[:1], **problem()))


@check
def trainable_with_stop(_):
    import jax

    import jaxreg as jr

    kwargs = {"space": space()}
    train = descent(stop=lambda state, lam: lam * state[0][0] ** 2 < 0.05)
    told = []
    runs = jr.sweep(
        train, chunk=24, callbacks=[lambda done, _, chunk: told.append((done, chunk["loss"].size))], **kwargs
    )
    assert told == [(24, 24), (45, 21)]
    assert {5, 20} <= {*runs["steps"].values.flat}
    assert_equal(runs, jr.sweep(train, chunk=3, devices=jax.devices()[:1], **kwargs))


@check
def halving_on_devices(_):
    import jax
    import numpy as np

    import jaxreg as jr

    search = jr.halving("loss", factor=3, min_steps=5)
    runs = jr.sweep(descent(), space(), chunk=16, halving=search)
    alone = jr.sweep(descent(), space(), chunk=2, halving=search, devices=jax.devices()[:1])
    assert int((runs["steps"] == 20).sum()) == 15
    for name in runs.data_vars:
        np.testing.assert_allclose(runs[name], alone[name], rtol=1e-12)


@check
def each_device_has_loops_of_its_own(_):
    """A loop goes on as long as one of a device's configurations needs it, and not for those elsewhere."""
    import jax

    import jaxreg as jr

    turns = []

    def train(n):
        def turn(i):
            jax.debug.callback(lambda: turns.append(1))
            return i + 1

        return jax.lax.while_loop(lambda i: i < n, turn, 0)

    runs = jr.sweep(train, jr.grid(n=range(8)), chunk=8)
    jax.effects_barrier()
    assert runs["value"].values.tolist() == [*range(8)]
    assert len(turns) == sum(range(8))


@check
def fixed_arrays_lie_on_every_device(_):
    import jax

    import jaxreg as jr
    from jaxreg.sweeps import program

    seen = []
    compiled = program.Part.compiled

    def spied(self, size):
        run = compiled(self, size)

        def call(lanes, numbers, shared):
            seen.append([array.sharding.is_fully_replicated and len(array.sharding.device_set) for array in shared])
            return run(lanes, numbers, shared)

        return call

    program.Part.compiled = spied
    try:
        X = jax.device_put(problem()["X"], jax.devices()[3])  # wherever it was
        jr.sweep(ridge, space(), chunk=16, X=X, y=problem()["y"])
    finally:
        program.Part.compiled = compiled
    assert seen == [[8, 8]] * 3


@check
def a_store_of_eight_devices_goes_on_with_one(path):
    import jax
    import numpy as np

    import jaxreg as jr

    everything = jr.sweep(ridge, space(), chunk=16, **problem())
    first = jr.sweep(ridge, space(), chunk=16, store=path / "store", **problem())
    assert_equal(first, everything)
    (path / "store" / "chunks" / "0000-000001.nc").unlink()
    one = {"devices": jax.devices()[:1], "store": path / "store"}
    told = []
    again = jr.sweep(ridge, space(), chunk=2, callbacks=[lambda *call: told.append(call[:2])], **one, **problem())
    assert told == [(45, 45)]  # the chunk that was lost, as it was planned
    for name in ("loss", "theta"):
        np.testing.assert_allclose(again[name], everything[name], rtol=1e-12)
    wider = jr.grid(lam=everything["lam"].values, lr=[0.001, 0.002, 0.005], seed=range(4))
    told.clear()
    jr.sweep(ridge, wider, chunk=15, callbacks=[lambda *call: told.append(call[:2])], **one, **problem())
    assert told == [(60, 60)]


@pytest.mark.parametrize("name", CHECKS)
def test_on_eight_devices(on_eight_devices, name):
    assert name not in on_eight_devices, on_eight_devices[name]


# Two processes on this machine. Each line of a test is one call of `run_pair` in both.


def pair(script, folder, pause=0.0, devices=(2, 2)):
    """The processes 0 and 1 of a run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        python(f"""
            import jax
            jax.config.update("jax_num_cpu_devices", {devices[index]})
            jax.config.update("jax_enable_x64", True)
            jax.distributed.initialize({address!r}, 2, {index}, heartbeat_timeout_seconds=10)
            import test_sweep_devices as tests
            tests.{script}({index}, tests.Path({str(folder)!r}), {pause})
        """)
        for index in range(2)
    ]


def finished(children):
    outs = [child.communicate(timeout=120)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], "\n".join(outs)
    return outs


def sweep_ridge(store=None, pause=0.0, **options):
    """The result, and how many chunks ran in this process."""
    import time

    import jaxreg as jr

    told = []

    def callback(done, total, chunk):
        told.append((done, total))
        time.sleep(pause)

    runs = jr.sweep(ridge, space(), **{"chunk": 4, **options}, store=store, callbacks=[callback], **problem())
    return runs.load(), told


def by_two(index, folder, _):
    import numpy as np

    import jaxreg as jr
    from jaxreg.sweeps.processes import exchange

    runs, told = sweep_ridge()  # 12 chunks, the last of a single configuration
    assert told == (
        [(n, 24) for n in range(4, 25, 4)] if index == 0 else [(4, 21), (8, 21), (12, 21), (16, 21), (20, 21), (21, 21)]
    )
    runs.to_netcdf(folder / f"{index}.nc")

    own, shared = folder / f"own{index}", folder / "shared"
    for store in (own, shared):
        there, told = sweep_ridge(store)
        assert_equal(there, runs)
        assert len(told) == 6
    assert len([*own.glob("chunks/*.nc")]) == 6
    assert len([*shared.glob("chunks/*.nc")]) == 12

    # What is missing is dealt out; a new folder is given the plans.
    exchange()
    if index == 0:
        for lost in (0, 1, 2, 5, 7):
            (shared / f"chunks/0000-{lost:06d}.nc").unlink()
    else:
        shutil.rmtree(own)
    exchange()
    for store, count in ((shared, (3, 2)), (own, (3, 3))):
        there, told = sweep_ridge(store)
        assert_equal(there, runs)
        assert len(told) == count[index], told

    # Each chooses a chunk of its own: that of the first counts. Dtypes are those of the session.
    chosen, _ = sweep_ridge(chunk=None, store=folder / f"chosen{index}")
    exchange()
    plans = [json.loads((folder / f"chosen{i}" / "plans" / "0000.json").read_text()) for i in range(2)]
    assert plans[0] == plans[1]
    np.testing.assert_allclose(chosen["theta"], runs["theta"], rtol=1e-12)
    with jax_x32():
        narrow, _ = sweep_ridge()
    assert narrow["theta"].dtype == np.float32
    assert 0 < float(narrow["loss"].min()) < float(narrow["loss"].max()) < 1e3

    # Stopped in one process: the rest is there. Failed in one: the other hears of it.
    def interrupt(done, total, chunk):
        if index == 1 and done == 8:
            os.kill(os.getpid(), signal.SIGINT)

    some = jr.sweep(ridge, space(), chunk=4, callbacks=[interrupt], **problem())
    assert 24 + 8 <= int(some["finished"].sum()) <= 24 + 12
    assert np.array_equal(some["loss"].values[some["finished"].values], runs["loss"].values[some["finished"].values])

    def fail(done, total, chunk):
        if index == 1 and done == 8:
            raise OSError("the disk is full")

    message = "failed in process 1 of 2" if index == 0 else "the disk is full"
    with pytest.raises(RuntimeError if index == 0 else OSError, match=message):
        jr.sweep(ridge, space(), chunk=4, callbacks=[fail], **problem())
    with pytest.raises(RuntimeError if index == 0 else ValueError, match="process 1 of 2" if index == 0 else "a file"):
        sweep_ridge(store=folder / f"as{index}" if index == 0 else __file__)

    with pytest.raises(ValueError, match="these differ: the space, `chunk`"):
        jr.sweep(ridge, jr.grid(lam=[1.0 + index], lr=[0.1], seed=[0]), chunk=4 + index, **problem())
    with pytest.raises(ValueError, match="a single process for `halving`"):
        jr.sweep(descent(), space(), halving=jr.halving("loss", min_steps=5))
    with pytest.raises(ValueError, match="a single process for `executor`"):
        sweep_ridge(executor=concurrent.futures.ThreadPoolExecutor)


@contextlib.contextmanager
def jax_x32():
    import jax

    with jax.enable_x64(False):
        yield


def test_two_processes(tmp_path):
    import xarray

    finished(pair("by_two", tmp_path))
    alone, _ = sweep_ridge()
    for index in range(2):
        with xarray.open_dataset(tmp_path / f"{index}.nc") as runs:
            xarray.testing.assert_allclose(runs.load(), alone, rtol=1e-12)  # two devices there, one here


def slowly(index, folder, pause):
    runs, told = sweep_ridge(folder / "store", pause)
    runs.to_netcdf(folder / f"{index}.nc")
    print(len(told))


@pytest.mark.slow
def test_processes_with_unlike_devices(tmp_path):
    import xarray

    finished(pair("slowly", tmp_path, devices=(2, 1)))
    alone, _ = sweep_ridge()
    one, two = (xarray.load_dataset(tmp_path / f"{index}.nc") for index in range(2))
    assert_equal(one, two)
    xarray.testing.assert_allclose(one, alone, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_is_killed(tmp_path, killed):
    """What is finished is safe, and both, run again, end with what an undisturbed run gives."""
    import xarray

    children = pair("slowly", tmp_path, pause=1.0)
    chunks = tmp_path / "store" / "chunks"
    deadline = time.monotonic() + 60
    while len([*chunks.glob("*.nc")]) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    children[killed].send_signal(signal.SIGKILL)
    outs = [child.communicate(timeout=120)[0] for child in children]
    assert all(child.returncode != 0 for child in children), outs  # JAX ends the other one
    there = {path.name: path.stat().st_mtime_ns for path in chunks.glob("*.nc")}
    assert 3 <= len(there) < 12
    outs = finished(pair("slowly", tmp_path))
    assert sum(int(out.split()[-1]) for out in outs) == 12 - len(there)
    assert there == {path.name: path.stat().st_mtime_ns for path in chunks.glob("*.nc") if path.name in there}
    (tmp_path / "undisturbed").mkdir()
    finished(pair("slowly", tmp_path / "undisturbed"))
    for index in range(2):
        one, two = (xarray.load_dataset(folder / f"{index}.nc") for folder in (tmp_path, tmp_path / "undisturbed"))
        assert_equal(one, two)
