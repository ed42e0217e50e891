"""One sweep on eight devices of a process, and shared by two processes."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKS = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


def python(code, timeout=180, **env):
    """A process of its own, whose devices are not those of this one."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=HERE, env={**os.environ, **env},
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
    drop = {"compile_seconds", "run_seconds", "chunk"}
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
