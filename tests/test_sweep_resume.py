"""Stores of sweeps: more values, other sweeps, configurations that diverge, errors while tracing."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import jaxreg as jr
from jaxreg.sweeps import work
from jaxreg.sweeps.fixed import Fixed
from jaxreg.sweeps.program import Program, mesh_of

HERE = Path(__file__).parent
X = np.random.default_rng(0).normal(size=(4, 3))


def make(factor=2.0, values=X, op=jnp.sin):
    """A `train` with a constant, a closed-over array and an operation of its own."""

    def train(lam, opt, seed, data, power=2.0):
        w = jax.random.normal(jax.random.key(seed), (3,))
        w = op(factor * (values @ w)) * lam + jnp.sum(data["x"]) ** power
        return {"loss": jnp.sum(w) + len(opt), "w": w if opt == "sgd" else w[:2]}

    return train


FIXED = {"data": {"x": np.arange(3.0)}, "power": 2.0}
AXES = {"lam": [0.1, 1.0, 10.0], "opt": ["sgd", "adam"], "seed": range(3)}


def run(folder, train=None, fixed=FIXED, **axes):
    """The results, and the configurations that were computed for them."""
    new = []

    def note(done, total, chunk):
        new.extend(zip(*(chunk[name].tolist() for name in sorted({**AXES, **axes})), strict=True))

    found = jr.sweep(train or make(), jr.grid(**{**AXES, **axes}), chunk=4, store=folder, callbacks=[note], **fixed)
    return found, sorted(new)


def product(lam=(0.1, 1.0, 10.0), opt=("sgd", "adam"), seed=range(3)):
    return sorted((a, b, c) for a in lam for b in opt for c in seed)


def assert_close(found, expected):
    assert set(found.variables) == set(expected.variables)
    for name in expected.variables:
        assert found[name].dims == expected[name].dims
        if found[name].dtype.kind == "f":
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)
        else:
            np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize(
    ("more", "new"),
    [
        ({"lam": [0.1, 0.5, 1.0, 10.0, 5.0]}, product(lam=(0.5, 5.0))),
        ({"seed": range(4)}, product(seed=[3])),
        ({"opt": ["rms", "sgd", "adam"]}, product(opt=["rms"])),
        ({"opt": ["adam"], "lam": [10.0, 0.1]}, []),
        ({"opt": ["adam"], "lam": [10.0, 7.0, 7.0]}, product(opt=["adam"], lam=[7.0])),
        ({"lam": [10.0, 1.0, 0.1, 1.0]}, []),
    ],
)
def test_more_values_cost_what_is_new(tmp_path, more, new):
    _, computed = run(tmp_path / "store")
    assert computed == product()
    found, computed = run(tmp_path / "store", **more)
    assert computed == new
    assert_close(found, run(None, **more)[0])


def test_a_killed_sweep_is_extended(tmp_path, monkeypatch):
    def die(self, task, outputs, real=work.Work._record):
        if self.done >= 8:
            raise KeyboardInterrupt
        return real(self, task, outputs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(work.Work, "_record", die)
        run(tmp_path / "store")
    found, computed = run(tmp_path / "store", seed=range(4))
    assert len(computed) == 24 - 8
    assert_close(found, run(None, seed=range(4))[0])


def test_lists_in_any_order(tmp_path):
    rows = [{"lam": lam, "opt": opt, "seed": seed} for lam, opt, seed in product()]
    new = []
    options = {"callbacks": [lambda done, total, chunk: new.extend(chunk["lam"])], "chunk": 4, **FIXED}
    first = jr.sweep(make(), rows[:10], store=tmp_path, **options)
    assert len(new) == 10
    shuffled = [rows[i] for i in np.random.default_rng(0).permutation(18)]
    again = jr.sweep(make(), shuffled + shuffled[:3], store=tmp_path, **options)
    assert len(new) == 18
    assert again.sizes["config"] == 21
    assert_close(again, jr.sweep(make(), shuffled + shuffled[:3], chunk=4, **FIXED))
    names = ("lam", "opt", "seed")
    where = {tuple(again[name].values[i].item() for name in names): i for i in range(21)}
    at = [where[tuple(row[name] for name in names)] for row in rows[:10]]
    np.testing.assert_array_equal(first["loss"], again["loss"][at])


def test_arguments_that_some_configurations_lack(tmp_path):
    def train(lam, momentum=0.5):
        return lam + momentum

    one, two = jr.grid(lam=[1.0, 2.0]), jr.grid(lam=[1.0, 2.0]) * jr.grid(momentum=[0.0, 0.5])
    jr.sweep(train, one | two, store=tmp_path / "store")
    found = jr.sweep(train, two | one, store=tmp_path / "store")
    assert found.attrs["models_run"] == 6  # of the first call: nothing was run in the second
    assert found["value"].values.tolist() == [1.0, 1.5, 2.0, 2.5, 1.5, 2.5]


# Refusals


def contents(root):
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in root.rglob("*")}


class Scale:
    def __init__(self, by):
        self.by = by

    def __call__(self, x):
        return self.by * x

    def __repr__(self):
        return "Scale()"


def scaled(scale, lam):
    return scale(lam)


def count(steps=4, every=2, **options):
    parts = (lambda lam: lam, lambda x: x / 2, lambda x: {"x": x})
    return jr.Trainable(*parts, steps=steps, every=every, **options)


LAM = jr.grid(lam=[1.0, 2.0])
BASE = {
    "train": lambda store: run(store),
    "trainable": lambda store: jr.sweep(count(), LAM, store=store),
    "object": lambda store: jr.sweep(scaled, jr.grid(scale=[Scale(1.0)], lam=[1.0]), store=store),
    "static": lambda store: jr.sweep(lambda lam: lam, jr.grid(lam=jr.static([1, 2])), store=store),
    "halved": lambda store: jr.sweep(count(), LAM, store=store, halving=jr.halving("x", factor=2, min_steps=2)),
}
OTHER = {
    "constant": ("train", lambda store: run(store, make(3.0)), r"`train` for opt=sgd(.|\n)*\+ .* 3\.0:f64"),
    "closed-over array": ("train", lambda store: run(store, make(values=X + 1e-12)), r"\+float64\[4, 3\] "),
    "operation": ("train", lambda store: run(store, make(op=jnp.cos)), r"\n  - .* = sin .*\n  \+ .* = cos "),
    "fixed array": (
        "train",
        lambda store: run(store, fixed={**FIXED, "data": {"x": np.array([0.0, 1.0, 2.0 + 1e-15])}}),
        r"'data/x': float64\[3\] \w+ -> float64\[3\] \w+\n",
    ),
    "fixed number": ("train", lambda store: run(store, fixed={**FIXED, "power": 3.0}), r"'power': 2\.0 -> 3\.0"),
    "no fixed argument": ("train", lambda store: run(store, fixed={"data": FIXED["data"]}), r"'power': 2\.0 -> \(abs"),
    "other axis": (
        "train",
        lambda store: jr.sweep(lambda mu, opt, seed, **rest: make()(mu, opt, seed, **rest),
                               jr.grid(mu=[0.1], opt=["sgd"], seed=[0]), store=store, **FIXED),
        r"axes: \['lam', 'opt', 'seed'\] -> \['mu', 'opt', 'seed'\]",
    ),
    "other dtype": ("train", lambda store: run(store, lam=np.array([0.1], np.float32)), ":f32"),
    "steps": ("trainable", lambda store: jr.sweep(count(6), LAM, store=store), r"-steps = 4\n  \+steps = 6"),
    "every": ("trainable", lambda store: jr.sweep(count(every=1), LAM, store=store), r"\+ +length=1\n"),
    "stop": ("trainable", lambda store: jr.sweep(count(stop=lambda x: x > 1), LAM, store=store), r"\+ .* gt "),
    "halving": (
        "trainable",
        lambda store: jr.sweep(count(), LAM, store=store, halving=jr.halving("x", min_steps=2)),
        r"option 'halving': \(absent\) -> Halving\(metric='x'",
    ),
    "same label": (
        "object",
        lambda store: jr.sweep(scaled, jr.grid(scale=[Scale(2.0)], lam=[1.0]), store=store),
        r"for scale=Scale\(\).*\n.*\n.*\n.* mul 1\.0.*\n.* mul 2\.0",
    ),
    "batched": ("static", lambda store: jr.sweep(lambda lam: lam, LAM, store=store), "option 'static': lam -> "),
    "other configurations": (
        "halved",
        lambda store: jr.sweep(count(), jr.grid(lam=[2.0, 1.0]), store=store,
                               halving=jr.halving("x", factor=2, min_steps=2)),
        r"option 'configurations': \w+ -> \w+\n",
    ),
    "other rule": (
        "halved",
        lambda store: jr.sweep(count(), LAM, store=store, halving=jr.halving("x", factor=3, min_steps=2)),
        "option 'halving'",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    root = tmp_path_factory.mktemp("stores")
    for name, make_store in BASE.items():
        make_store(root / name)
    return root


@pytest.mark.parametrize("what", OTHER)
def test_another_sweep_is_refused(stores, what):
    base, call, told = OTHER[what]
    before = contents(stores / base)
    with pytest.raises(ValueError, match=rf"made with, to resume it; what changed:\n(.*\n)*.*{told}(.|\n)*as it was"):
        call(stores / base)
    assert contents(stores / base) == before


def test_other_precision_is_refused(stores):
    before = contents(stores / "train")
    with jax.enable_x64(False), pytest.raises(ValueError, match=r"\+.*f32"):
        run(stores / "train")
    assert contents(stores / "train") == before


def test_sets_have_no_order_and_objects_no_address():
    names = [f"name{i}" for i in range(20)]
    one, two = (Fixed({"names": frozenset(order)}).describe() for order in (names, names[::-1]))
    assert one == two
    assert one != Fixed({"names": frozenset(names[1:])}).describe()
    one, two = object(), object()
    assert Fixed({"thing": one}).describe() == Fixed({"thing": two}).describe()


def test_halving_that_does_not_fit_makes_no_store(tmp_path):
    for rule, told in [
        (jr.halving("x", min_steps=20), "`min_steps` ≤ the 4 steps"),
        (jr.halving("y", min_steps=2), r"`halving` to name a number that `train` returns, \['x', .*'steps'\]; got 'y'"),
        (jr.halving("x", min_steps=2, over="sed"), r"`over` to be one of \['lam'\], got 'sed'"),
    ]:
        with pytest.raises(ValueError, match=told):
            jr.sweep(count(), LAM, store=tmp_path / "store", halving=rule)
    assert not (tmp_path / "store").exists()


# The text of a program


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))


@jax.custom_jvp
def tripled(x):
    return 3 * x


tripled.defjvp(lambda x, t: (3 * x[0], 3 * t[0]))
shifted = jax.jit(lambda x: x + 1)


def rules_of_their_own(lam):
    x = jnp.linspace(-1.0, 1.0, 6) * lam
    y = jax.nn.relu(x) + jax.nn.silu(x) + jax.nn.gelu(x) + jax.nn.log_softmax(x) + doubled(x) + tripled(shifted(x))
    loss = optax.softmax_cross_entropy_with_integer_labels(y[None], jnp.array([1])).sum() + optax.huber_loss(y).sum()
    jax.debug.print("{}", loss)
    return loss + jax.checkpoint(jnp.sin)(lam)


def trained(lam):
    optimizer = optax.adamw(optax.cosine_decay_schedule(0.1, 10), weight_decay=lam)

    def step(carry, _):
        w, state = carry
        updates, state = optimizer.update(jax.grad(rules_of_their_own)(w), state, w)
        return (w + updates, state), None

    return jax.lax.scan(step, (lam, optimizer.init(lam)), None, 3)[0][0]


def iterated(lam):
    root = jax.lax.while_loop(lambda x: x < 3, lambda x: x + lam, lam)
    root += jax.pure_callback(lambda x: np.asarray(x), jax.ShapeDtypeStruct((), lam.dtype), lam)
    return jax.lax.cond(root > 3.1, jnp.sin, jnp.cos, root) + jnp.quantile(X * lam, 0.3) + jnp.linalg.det(X[:3] * lam)


def texts():
    mesh, number = mesh_of(jax.local_devices()[:1]), {"lam": np.dtype("float32")}
    return [Program(f, {}, number, Fixed({}), [], mesh).fingerprint for f in (rules_of_their_own, trained, iterated)]


@pytest.mark.interpreters
def test_the_text_is_the_same_in_another_process():
    code = "import jax; jax.config.update('jax_enable_x64', True)\nimport test_sweep_resume as t; print(*t.texts())"
    env = os.environ | {"PYTHONPATH": f"{HERE}:{HERE.parent}", "PYTHONHASHSEED": "7"}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == texts()


CONSTANTS = {
    "plain": lambda a: lambda lam: jnp.sum(a * lam),
    "scan": lambda a: lambda lam: jax.lax.scan(lambda c, _: (c + jnp.sum(a * lam), None), 0.0, None, 2)[0],
    "jit": lambda a: jax.jit(lambda lam: jnp.sum(a * lam)),
    "cond": lambda a: lambda lam: jax.lax.cond(lam > 0, lambda: jnp.sum(a * lam), lambda: lam),
    "checkpoint": lambda a: jax.checkpoint(lambda lam: jnp.sum(a * lam)),
    "output": lambda a: lambda lam: {"a": a},
}


@pytest.mark.parametrize("where", CONSTANTS)
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize("literal", [False, True])  # newer versions of JAX keep arrays in the equations
def test_every_number_in_a_closed_over_array_counts(where, kind, literal):
    a = np.arange(2000.0)
    b = a.copy()
    b[1000] = np.nextafter(1000.0, 2000.0)
    mesh, before = mesh_of(jax.local_devices()[:1]), jax.config.jax_use_simplified_jaxpr_constants
    try:
        jax.config.update("jax_use_simplified_jaxpr_constants", literal)
        one, two, again = (
            Program(CONSTANTS[where](kind(x)), {}, {"lam": np.dtype(float)}, Fixed({}), [], mesh).fingerprint
            for x in (a, b, a)
        )
    finally:
        jax.config.update("jax_use_simplified_jaxpr_constants", before)
    assert one == again
    assert one != two


def test_programs_that_differ_in_names_alone():
    # their texts are one; an executable of the one must not serve the other
    assert jr.sweep(lambda a, b: {"x": a - b}, jr.grid(a=[3.0], b=[1.0]))["x"].item() == 2.0
    assert jr.sweep(lambda c, d: {"x": c - d}, jr.grid(c=[5.0], d=[1.0]))["x"].item() == 4.0


def test_static_values_alone(tmp_path):
    for store in (None, tmp_path / "store"):
        found = jr.sweep(
            lambda n, name: {"sum": jnp.arange(n).sum()}, jr.grid(n=jr.static([2, 3]), name=["a"]), store=store
        )
        assert found["sum"].values.tolist() == [[1], [3]]


# Configurations that diverge


def descend(rate):
    w, curve = jax.lax.scan(lambda w, _: (w - rate * X.T @ (X @ w - 1.0), jnp.sum(w)), jnp.ones(3), None, 200)
    return {"w": w, "curve": curve}


DESCENT = jr.Trainable(
    lambda: jnp.ones(3),
    lambda w, rate: w - rate * X.T @ (X @ w - 1.0),
    lambda w: {"w": w, "loss": jnp.sum(X @ w - 1.0)},
    steps=200,
    every=50,
)


def loop(rate):
    count, x = jax.lax.while_loop(
        lambda s: (s[0] < 30) & ~(s[1] < 1e-3), lambda s: (s[0] + 1, s[1] * rate * jnp.exp(s[1] / 99)), (0, 1.0)
    )
    return {"count": count, "x": x}


@pytest.mark.parametrize("train", [descend, DESCENT, loop], ids=["scan", "trainable", "while_loop"])
def test_who_diverges_does_so_alone(train):
    # One chunk size and one number of configurations: the same program, which is what the bits depend on.
    wild = jr.sweep(train, jr.grid(rate=[0.01, 1e300, 0.05, 9.0, 0.1]), chunk=5)
    calm = jr.sweep(train, jr.grid(rate=[0.01, 0.02, 0.05, 0.03, 0.1]), chunk=5)
    assert wild["diverged"].values.tolist() == [False, True, False, True, False]
    assert not calm["diverged"].any()
    for name in wild:
        assert wild[name].values[::2].tobytes() == calm[name].values[::2].tobytes()


# Errors while tracing


def failing(lam, opt):
    if opt == "b":
        raise RuntimeError("no such optimizer")
    return lam


CONCRETE = {
    "shape": lambda n: jnp.ones(n),
    "reshape": lambda n: jnp.ones(4).reshape(n, -1),
    "branch": lambda n: 1.0 if n > 1 else 0.0,
    "loop": lambda n: sum(jnp.ones(2) for _ in range(n)),
    "float": lambda n: float(n),
}


def test_an_error_tells_the_static_values_and_nothing_ran(tmp_path):
    ran = []
    with pytest.raises(RuntimeError, match="no such optimizer") as raised:
        jr.sweep(failing, jr.grid(lam=[1.0], opt=["a", "b"]), store=tmp_path / "store", callbacks=[ran.append])
    assert "with opt=b; batched there: lam: float64" in "".join(raised.value.__notes__)
    assert not ran
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("what", CONCRETE)
def test_shapes_cannot_depend_on_batched_numbers(what):
    with pytest.raises((TypeError, jax.errors.JAXTypeError)) as raised:
        jr.sweep(CONCRETE[what], jr.grid(n=[1, 2]))
    assert "`width=jr.static([64, 128])`" in "".join(raised.value.__notes__)
    with pytest.raises((TypeError, jax.errors.JAXTypeError)) as raised:
        jr.sweep(lambda x: jnp.sin("text"), jr.grid(x=[1.0]))
    assert "static" not in "".join(raised.value.__notes__)


def test_shapes_and_names_of_groups(tmp_path):
    def train(lam, k):
        return {"w": jnp.full(k, lam), "count": k} | ({"more": True} if k == 3 else {})

    for store in (None, tmp_path / "store"):
        space = jr.grid(lam=[1.0, 2.0], k=jr.static([1, 3]))
        found = jr.sweep(train, space, store=store).load()
        np.testing.assert_array_equal(found["w"][:, 0], [[1, np.nan, np.nan], [2, np.nan, np.nan]])
        np.testing.assert_array_equal(found["w"][:, 1], [[1] * 3, [2] * 3])
        np.testing.assert_array_equal(found["more"], [[np.nan, 1], [np.nan, 1]])
        assert found["count"].dtype.kind == "i"
        assert not found["diverged"].any()
        part = jr.sweep(train, jr.grid(lam=[1.0, 2.0], k=jr.static([1])), store=store).load()
        xr.testing.assert_identical(part["w"], found["w"][:, :1, :1])
        assert set(part) == {"w", "count", "diverged", "finished"}


@pytest.mark.parametrize(
    ("train", "space", "told"),
    [
        (lambda lam, k: {"w": jnp.ones((1,) * k) * lam}, jr.grid(lam=[1.0], k=jr.static([1, 2])),
         r"needs 'w' to have as many axes for all static values, got shapes \(1,\) with k=1, \(1, 1\) with k=2"),
        (lambda w_dim_0: {"w": jnp.ones(2)}, jr.grid(w_dim_0=[1.0]), "unlike the dims of outputs"),
        (jr.Trainable(lambda step: step, lambda x: x, lambda x: x, steps=1), jr.grid(step=[1.0]), r"got \['step'\]"),
        (jr.Trainable(lambda a: a, lambda x: x, lambda x: {"steps": x}, steps=1), jr.grid(a=[1.0]), r"got \['steps'\]"),
        (jr.Trainable(lambda a: a, lambda x: x, lambda x: {"x": x, "x_by_step": x}, steps=1), jr.grid(a=[1.0]),
         r"got \['x_by_step'\]"),
    ],
)  # fmt: skip
def test_results_that_have_no_place_are_refused_before_anything_runs(train, space, told):
    with pytest.raises(ValueError, match=told):
        jr.sweep(train, space, callbacks=[lambda *_: pytest.fail("it ran")])


def curves(folder, number):
    space = jr.grid(lam=np.linspace(0.0, 1.0, number))
    found = jr.sweep(lambda lam: {"curve": lam * jnp.arange(2000.0)}, space, chunk=100, store=folder)
    return found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.slow
def test_a_store_is_larger_than_memory(tmp_path):
    curves(tmp_path / "small", 1000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found, after = curves(tmp_path / "large", 10_000)
    assert found["curve"].nbytes == 160_000_000
    assert after - before < 40_000_000  # less than a kilobyte for each configuration, and a few chunks
    np.testing.assert_allclose(found["curve"][9_999], np.arange(2000.0))


# What the text of a program does not show by itself


def test_configurations_of_jax_that_change_results():
    draw = lambda x: x * jax.random.uniform(jax.random.key(3), (3,)).sum()
    for partitionable in (True, False):
        with jax.threefry_partitionable(partitionable):
            np.testing.assert_array_equal(jr.sweep(draw, jr.grid(x=[1.0]))["value"], draw(jnp.ones(1)))


def test_exported_functions_of_one_name():
    for factor in (2.0, 3.0):
        exported = jax.export.export(jax.jit(lambda x, factor=factor: jnp.sin(x * factor)))(
            jax.ShapeDtypeStruct((3,), jnp.float64)
        )
        found = jr.sweep(lambda x, call=exported.call: call(jnp.ones(3)).sum() * x, jr.grid(x=[1.0]))
        np.testing.assert_allclose(found["value"], 3 * np.sin(factor))


def test_threads_have_the_configuration_of_the_caller():
    def seen(x):
        kind = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.pure_callback(lambda a: np.float32(np.asarray(a) - 1.0), kind, x, vmap_method="sequential")

    with jax.enable_x64(False):
        jr.sweep(seen, jr.grid(x=[1.0]))
    with jax.enable_x64(True):
        found = jr.sweep(seen, jr.grid(x=[1 + 1e-12, 1 + 2e-12]), chunk=1)
    np.testing.assert_allclose(found["value"], [1e-12, 2e-12], rtol=1e-3)
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        jr.sweep(lambda x: jnp.log(x - 2), jr.grid(x=[1.0, 1.5]))


def test_minus_zero_is_zero():
    assert (1 / jr.sweep(lambda x: x, jr.grid(x=[-0.0, 2.0]))["value"]).values.tolist() == [np.inf, 0.5]


def test_a_slow_chunk_does_not_hold_up_the_others(tmp_path):
    order = []
    loop = lambda n: jax.lax.fori_loop(0, n, lambda i, x: jnp.cos(x @ x), jnp.ones((64, 64))).sum()
    runs = jr.sweep(
        loop, jr.grid(n=[5000, 1, 2, 3, 4, 5]), chunk=1, store=tmp_path / "store",
        callbacks=[lambda done, total, chunk: order.append(int(chunk["n"][0]))],
    )  # fmt: skip
    assert order == runs["n"].values.tolist()  # told of in their order
    written = sorted((tmp_path / "store" / "chunks").glob("*.nc"), key=lambda path: path.stat().st_mtime_ns)
    if len(os.sched_getaffinity(0)) > 1:
        assert written[0].name != "0000-000000.nc"  # but safe as soon as they are done


def test_errors_while_running_name_their_chunk():
    def fail(a):
        raise RuntimeError("broken")

    call = lambda x: jax.pure_callback(fail, jax.ShapeDtypeStruct((), jnp.float64), x, vmap_method="sequential")
    with pytest.raises(Exception, match="broken") as raised:
        jr.sweep(call, jr.grid(x=[1.0, 2.0]), chunk=2)
    assert "a chunk of 2 configurations, {'x': 1.0} to {'x': 2.0}" in "".join(raised.value.__notes__)
