"""Grids and sweeps."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import jaxreg as jr
from jaxreg.sweeps.program import _EXECUTABLES


def ridge(lam, lr, seed, X, y):
    """Ridge by gradient descent: scalar, vector and nested outputs."""
    w = 0.1 * jax.random.normal(jax.random.key(seed), X.shape[1:], X.dtype)

    def step(w, _):
        loss = jnp.mean((X @ w - y) ** 2)
        return w - lr * (2 / len(y) * X.T @ (X @ w - y) + lam * w), loss

    w, losses = jax.lax.scan(step, w, None, 20)
    return {"loss": losses[-1], "curve": losses, "final": {"w": w, "norm": jnp.linalg.norm(w)}}


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 3))
    return {"X": jnp.asarray(X), "y": X @ np.array([1.0, 2.0, 3.0])}


GRID = dict(lam=[0.0, 0.1, 1.0], lr=np.array([0.05, 0.1]), seed=range(4))


def test_dataset_has_the_axes_and_the_outputs(problem):
    runs = jr.sweep(ridge, jr.grid(**GRID), **problem)
    assert isinstance(runs, xr.Dataset)
    assert runs["loss"].dims == ("lam", "lr", "seed")
    assert runs["curve"].dims == ("lam", "lr", "seed", "curve_dim_0")
    assert runs["final.w"].shape == (3, 2, 4, 3)
    assert runs["final.norm"].dims == ("lam", "lr", "seed")
    assert runs["diverged"].dtype == bool
    assert not runs["diverged"].any()
    np.testing.assert_array_equal(runs["lam"], GRID["lam"])
    np.testing.assert_array_equal(runs["seed"], range(4))
    for i, lam in enumerate(GRID["lam"]):
        for j, lr in enumerate(GRID["lr"]):
            single = ridge(lam, lr, 2, **problem)
            np.testing.assert_allclose(runs["final.w"][i, j, 2], single["final"]["w"], atol=1e-12)
            np.testing.assert_allclose(runs["curve"][i, j, 2], single["curve"], atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 5, 7, 24, 1000, None])
def test_one_trace_whatever_the_chunk(problem, chunk):
    traces = []

    def train(**kwargs):
        traces.append(1)
        return ridge(**kwargs)

    runs = jr.sweep(train, jr.grid(**GRID), chunk=chunk, **problem)
    assert len(traces) == 1
    assert runs.attrs["chunk"] <= 24 if chunk is None else runs.attrs["chunk"] == min(chunk, 24)
    whole = jr.sweep(ridge, jr.grid(**GRID), **problem)
    for name in whole:
        np.testing.assert_allclose(runs[name], whole[name], rtol=1e-12)


def test_same_chunk_is_bit_identical(problem):
    one, two = (jr.sweep(ridge, jr.grid(**GRID), chunk=7, **problem) for _ in range(2))
    xr.testing.assert_identical(one.drop_attrs(), two.drop_attrs())


def test_other_outputs_and_fixed_arguments():
    grid = jr.grid(k=[1.0, 2.0])
    assert jr.sweep(lambda k: k**2, grid)["value"].values.tolist() == [1, 4]
    runs = jr.sweep(lambda k, n, name, f: (f(k) * n, jnp.ones(n)), grid, n=3, name="static", f=jnp.square)
    assert runs["0"].values.tolist() == [3, 12]
    assert runs["1"].shape == (2, 3)
    texts = np.array(["a", "b"])
    assert jr.sweep(lambda k, texts: k * len(texts[0]), grid, texts=texts, chunk=np.int64(1))[
        "value"
    ].values.tolist() == [1, 2]
    assert jr.sweep(lambda k: k, jr.grid(k=jnp.asarray([1, 2], jnp.bfloat16)))["value"].values.tolist() == [1, 2]
    half = jr.sweep(lambda k: {"x": k.astype(jnp.bfloat16), "none": None}, grid)
    assert half["x"].dtype == np.float32
    assert list(half) == ["x", "diverged", "finished"]


def test_fixed_arrays_are_arguments_of_the_program():
    big = np.arange(1000.0)
    constants = []

    def train(k, data):
        constants.append(isinstance(data["x"], jax.core.Tracer))
        return k * jnp.sum(data["x"])

    jr.sweep(train, jr.grid(k=[1.0]), data={"x": big, "name": "text"})
    assert constants == [True]


def test_divergence_stays_in_its_cell(problem):
    rates = [0.05, 1e200, 0.1]
    runs = jr.sweep(ridge, jr.grid(lam=[0.1], lr=rates, seed=range(2)), chunk=6, **problem)
    np.testing.assert_array_equal(runs["diverged"].sel(lam=0.1), [[False] * 2, [True] * 2, [False] * 2])
    calm = jr.sweep(ridge, jr.grid(lam=[0.1], lr=[0.05, 0.06, 0.1], seed=range(2)), chunk=6, **problem)
    for name in runs:
        for i in (0, 2):
            np.testing.assert_array_equal(runs[name][:, i], calm[name][:, i])


def test_netcdf_round_trip(problem, tmp_path):
    runs = jr.sweep(ridge, jr.grid(**GRID), **problem)
    runs.to_netcdf(tmp_path / "runs.nc")
    with xr.open_dataset(tmp_path / "runs.nc") as again:
        xr.testing.assert_identical(runs, again.load())


def test_integers_that_do_not_fit_are_refused():
    with jax.enable_x64(False), pytest.raises(ValueError, match="`sweep` needs integers that fit int32 for 'seed'"):
        jr.sweep(lambda seed: seed, jr.grid(seed=[1, 2**32 + 1]))


@pytest.mark.parametrize("with_tqdm", [True, False])
def test_progress(problem, capfd, monkeypatch, with_tqdm):
    if not with_tqdm:
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    jr.sweep(ridge, jr.grid(**GRID), chunk=12, progress=True, **problem)
    err = capfd.readouterr().err
    assert "24/24" in err
    jr.sweep(ridge, jr.grid(**GRID), chunk=12, **problem)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("axes", "error", "message"),
    [
        ({}, ValueError, "`grid` needs at least one axis"),
        ({"lam": []}, ValueError, r"`grid` needs a non-empty .* got shape \(0,\) for 'lam'"),
        ({"lam": 0.1}, ValueError, r"`grid` needs .* got shape \(\) for 'lam'"),
        ({"lam": [[0.1]]}, ValueError, r"`grid` needs .* got shape \(1, 1\) for 'lam'"),
    ],
)
def test_bad_grids(axes, error, message):
    with pytest.raises(error, match=message):
        jr.grid(**axes)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: jr.sweep(lambda lam: lam, jr.grid(lamb=[1.0])), ValueError, r"each grid axis .*\['lam'\]; got 'lamb'"),
        (lambda: jr.sweep(lambda lam: lam, jr.grid(lam=[1.0]), x=1), ValueError, "each fixed argument .*; got 'x'"),
        (lambda: jr.sweep(lambda lam, y: lam, jr.grid(lam=[1.0])), ValueError, r"missing: \['y'\]"),
        (lambda: jr.sweep(lambda lam: lam, jr.grid(lam=[1.0]), lam=2.0), ValueError, r"\['lam'\] both as axis and"),
        (lambda: jr.sweep(lambda lam: lam, {"lam": [1.0]}), TypeError, r"`sweep` needs a space such as `grid"),
        (lambda: jr.sweep(lambda lam: lam, jr.grid(lam=[1.0]), chunk=0), ValueError, "`chunk` to be .* got 0"),
        (lambda: jr.sweep(lambda lam: {"lam": lam}, jr.grid(lam=[1.0])), ValueError, "outputs named unlike .*'lam'"),
        (lambda: jr.sweep(lambda lam: {"a": {"b": lam}, "a.b": lam}, jr.grid(lam=[1.0])), ValueError, "distinct names"),
        (lambda: jr.sweep(lambda s: jax.random.key(s), jr.grid(s=[1])), TypeError, "return numbers, got key"),
        (
            lambda: jr.sweep(lambda lam: lam, jr.grid(lam=[1.0]), chunk=True),
            ValueError,
            "`chunk` to be .* got True",
        ),
        (lambda: jr.sweep(lambda s: {"a/b": s, "a": {"b": s}}, jr.grid(s=[1])), ValueError, "distinct names"),
        (
            lambda: jr.sweep(lambda s: {"a": jnp.ones(2), "a_dim_0": s}, jr.grid(s=[1])),
            ValueError,
            "outputs and dims with distinct names",
        ),
        (lambda: jr.sweep(lambda diverged: 1.0, jr.grid(diverged=[1])), ValueError, "axes named unlike .*'diverged'"),
        (lambda: jr.sweep(lambda s: "text", jr.grid(s=[1])), TypeError, "`sweep` needs `train` to return arrays"),
    ],
)
def test_bad_sweeps(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_paths_are_names_of_outputs(tmp_path):
    params = {"hidden": {"kernel": jnp.array([[3.0, 0.0], [4.0, 0.0]])}}
    train = lambda s: {"norms": jr.diagnostics.norms(jax.tree.map(lambda x: s * x, params), axis=0)}
    for given in ({}, {"store": tmp_path / "store"}):
        runs = jr.sweep(train, jr.grid(s=[1.0, 2.0]), **given)
        assert runs["norms.hidden.kernel"].values.tolist() == [[5.0, 0.0], [10.0, 0.0]]


def test_programs_that_call_lapack_run_one_at_a_time():
    # In jax 0.10 two at a time wait for each other for ever; the sweep would not end.
    def train(seed):
        x = jax.random.normal(jax.random.key(seed), (500, 500), jnp.float64)
        return {
            "top": jax.lax.scan(
                lambda s, _: (s + jnp.linalg.cholesky(x @ x.T + jnp.eye(500))[-1, -1], None), 0.0, None, 10
            )[0]
        }

    runs = jr.sweep(train, jr.grid(seed=range(6)), chunk=2)
    assert np.isfinite(runs["top"]).all()


@pytest.mark.parametrize(
    ("train", "options", "number"),
    [
        (ridge, {}, 1),
        (ridge, {"chunk": 10}, 1),
        (ridge, {"progress": "loss", "store": "store"}, 1),
        (jr.Trainable(lambda lam: jnp.full(31, lam), lambda w: w / 2, jnp.sum, steps=4, every=2), {}, 2),
    ],
    ids=["chosen chunk", "given chunk", "store", "Trainable"],
)
def test_a_group_is_one_program(train, options, number, tmp_path):
    # Shapes that no other test has: what JAX does on the way for the first time, it would compile as well.
    rng, compiled = np.random.default_rng(0), []
    options = options | ({"store": tmp_path / "store"} if "store" in options else {})
    axes, fixed = {"lam": np.linspace(0.1, 1, 29)}, {}
    if train is ridge:
        fixed = {"lr": 0.1, "seed": 0, "X": rng.normal(size=(31, 7)), "y": rng.normal(size=31)}

    def listen(event, seconds, *, fun_name="", **facts):
        if event.endswith("backend_compile_duration"):
            compiled.append(fun_name)

    _EXECUTABLES.clear()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jr.sweep(train, jr.grid(**axes), **options, **fixed)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compiled) == number, compiled
