"""Results: labelled arrays, the best configuration, the summary."""

import copy
import inspect
import math
import pickle
import pydoc
import types

import numpy as np
import pytest
import xarray as xr

from jaxreg.sweeps import runs as results


def space(coords, dims):
    """What `dataset` needs of a space."""
    shape = tuple(dims.values())
    return types.SimpleNamespace(sizes=dims, shape=shape, size=math.prod(shape), coords=lambda: coords)


LAM, LR = np.array([0.0, 1e-4, 1e-3, 1e-2, np.inf]), np.array([0.1, 0.2, 0.4])
GRID = space({"lam": ("lam", LAM), "lr": ("lr", LR), "seed": ("seed", np.arange(4))}, {"lam": 5, "lr": 3, "seed": 4})
ROWS = {"optimizer": ("config", ["adam", "adam", "sgd", "sgd", "sgd"]), "lam": ("config", [0.1, 1.0, 0.1, 1.0, 2.0])}


@pytest.fixture
def runs():
    rng = np.random.default_rng(0)
    outputs = {"error": rng.random(60), "count": np.arange(60), "curve": rng.random((60, 7))}
    return results.dataset(GRID, outputs, {"run_seconds": 2.0, "compile_seconds": 0.5})


def test_dataset():
    rng = np.random.default_rng(0)
    outputs = {"error": rng.random(60), "curve": rng.random((60, 7, 2)).astype(np.float32)}
    outputs["curve"][13, 3] = np.inf
    whole = results.dataset(GRID, outputs, {"chunk": 5}, dims={"curve": ("step", "part")}, coords={"step": range(7)})
    assert whole["error"].dims == whole["diverged"].dims == ("lam", "lr", "seed")
    assert whole["curve"].dims == ("lam", "lr", "seed", "step", "part")
    np.testing.assert_array_equal(whole["error"].values.ravel(), outputs["error"])
    np.testing.assert_array_equal(np.flatnonzero(whole["diverged"]), [13])
    assert whole["step"].values.tolist() == list(range(7))
    assert whole["curve"].dtype == np.float32
    assert whole["finished"].dims == ("lam", "lr", "seed")
    assert whole["finished"].all()
    assert whole.attrs == {"chunk": 5}
    plain = results.dataset(GRID, outputs, {}, diverged=np.zeros(60))
    assert plain["curve"].dims[3:] == ("curve_dim_0", "curve_dim_1")
    assert not plain["diverged"].any()


def test_unfinished_cells_are_nan_and_not_diverged():
    finished = np.arange(60) < 50
    outputs = {
        "error": np.where(finished, np.arange(60.0), np.inf),  # what lies in unfinished cells is noise
        "half": np.zeros((60, 2), np.float16),
        "count": np.arange(60, dtype=np.int32),
        "wave": np.full(60, 1j, np.complex64),
        "good": np.ones(60, bool),
    }
    runs = results.dataset(GRID, outputs, {}, finished=finished)
    for name in outputs:
        np.testing.assert_array_equal(np.isnan(runs[name].values.reshape(60, -1)).all(1), ~finished, name)
    dtypes = {name: str(runs[name].dtype) for name in outputs}
    assert dtypes == dict(error="float64", half="float16", count="float64", wave="complex64", good="float32")
    assert runs["count"].values.ravel()[:50].tolist() == list(range(50))
    assert not runs["diverged"].any()
    assert int(runs["finished"].sum()) == 50
    assert "10 unfinished" in runs.summary()
    assert runs.best("error", rule="max")["lam"] == 1e-2  # the last λ whose three rates are done


def test_numbers_that_files_do_not_know():
    import ml_dtypes

    half = space({"k": ("k", np.array([1, 2], ml_dtypes.bfloat16))}, {"k": 2})
    assert results.dataset(half, {"value": np.ones(2)}, {})["k"].dtype == np.float32


def choose(runs):
    """The rules by hand, as loops."""
    cells = {}
    for i in range(5):
        for j in range(3):
            values = runs["error"].values[i, j]
            if not runs["diverged"].values[i, j].any():
                cells[i, j] = values.mean(), values.std(ddof=1) / 2
    best = min(cells, key=lambda c: cells[c][0])
    within = [c for c in cells if c[1] == best[1] and cells[c][0] <= sum(cells[best])]
    return {"min": best, "max": max(cells, key=lambda c: cells[c][0]), "1se": max(within), "bound": min(within)}


def test_best_against_loops():
    rng = np.random.default_rng(1)
    for _ in range(20):
        noise = rng.normal(size=(5, 3, 4)) + rng.normal(size=(5, 1, 1))
        noise[rng.random(noise.shape) < 0.02] = np.nan
        runs = results.dataset(GRID, {"error": noise.ravel()}, {})
        for name, (i, j) in choose(runs).items():
            options = {"rule": "1se", "strongest": "smallest"} if name == "bound" else {"rule": name}
            chosen = runs.best("error", **options)
            assert (chosen["lam"], chosen["lr"]) == (LAM[i], LR[j]), name
            np.testing.assert_array_equal(chosen["error"], noise[i, j])


def test_best_keeps_the_repetitions_and_other_outputs(runs):
    best = runs.best("error")
    assert dict(best.sizes) == {"seed": 4, "curve_dim_0": 7}
    xr.testing.assert_identical(best, results.best(runs, "error"))
    alone = runs.best("error", over=None)
    assert alone["error"] == runs["error"].min()
    assert alone["curve"].dims == ("curve_dim_0",)
    assert runs.isel(lr=0, lam=2).best("error")["lam"] == 1e-3
    assert runs.mean("seed").best("error")["lam"] == best["lam"]
    assert runs.sel(lr=0.2).best("error")["lr"] == 0.2


def test_one_standard_error_along_the_coordinates_of_a_list():
    error = np.array([[0.3], [0.3], [0.1], [0.11], [0.9]]) + 0.05 * np.tile([-1, 1], 4)
    listed = space({**ROWS, "seed": ("seed", range(8))}, {"config": 5, "seed": 8})
    runs = results.dataset(listed, {"error": error.ravel()}, {})
    assert runs.best("error")["lam"] == 0.1
    chosen = runs.best("error", rule="1se")
    assert (chosen["lam"], chosen["optimizer"]) == (1.0, "sgd")
    assert runs.drop_vars("lam").best("error")["optimizer"] == "sgd"
    with pytest.raises(ValueError, match=r"`best` needs `along` for rule=\"1se\" where there is no 'lam'"):
        runs.drop_vars("lam").best("error", rule="1se")
    with pytest.raises(ValueError, match="`along` to be a coordinate of numbers along one dim, got 'optimizer'"):
        runs.best("error", rule="1se", along="optimizer")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: r.best("loss"), KeyError, r"`metric` to be one of \['error', 'count', 'curve', .*got 'loss'"),
        (lambda r: r.best("curve"), ValueError, r"one number per configuration, got 'curve' with the further dims"),
        (lambda r: r.best("error", rule="least"), ValueError, "`rule` to be .* got 'least'"),
        (lambda r: r.best("error", rule="1se", strongest="big"), ValueError, "`strongest` to be .* got 'big'"),
        (lambda r: r.best("error", rule="1se", over=None), ValueError, "two repetitions along `over`, None"),
        (lambda r: r.isel(seed=[0]).best("error", rule="1se"), ValueError, "for a standard error; got 1"),
        (lambda r: r.best("error", rule="1se", along="rate"), ValueError, "`along` to be a coordinate .*'rate'"),
        (lambda r: r.best("error", over="sed"), ValueError, r"`over` to be a dim, of .*'seed'\], or .*; got 'sed'"),
        (lambda r: r.best("curve", over="curve_dim_0"), ValueError, "one number per configuration, got 'curve'"),
        (lambda r: r.best("error", over="curve_dim_0"), ValueError, "got 'curve_dim_0'"),
        (lambda r: r.summary(over="sed"), ValueError, "`summary` needs `over` .* got 'sed'"),
        (lambda r: (r * np.nan).best("error"), ValueError, "a configuration with a finite 'error'"),
        (lambda r: r.assign(error=r["error"] * 1j).best("error"), ValueError, "got 'error' with dtype complex128"),
    ],
)
def test_bad_best(runs, call, error, message):
    with pytest.raises(error, match=message):
        call(runs)


def test_summary(runs):
    runs["error"][0, 0, 0] = np.nan
    runs["diverged"][0, 0, 0] = True
    text = runs.summary()
    assert repr(text) == text == results.summary(runs)
    lines = text.splitlines()
    assert lines[0] == "60 models: lam 5 × lr 3 × seed 4; 1 diverged"
    assert lines[1] == "compiled in 0.5 s, ran 60 models in 2.0 s: 30 models/s"
    mean = runs["error"].mean("seed", skipna=False)
    best = runs.best("error")
    row = lines[3].split()
    assert row[:4] == ["error", *(f"{v:.4g}" for v in (mean.min(), mean.median(), mean.max()))]
    worst = runs.best("error", rule="max")
    assert row[4:] == [f"{n}={at[n].item():.4g}{c}" for at in (best, worst) for n, c in (("lam", ","), ("lr", ""))]
    assert lines[2].endswith("largest at (means over seed)")
    assert lines[-1] == "also: curve"
    assert len(runs.assign({f"output {i}": runs["error"] for i in range(50)}).summary().splitlines()) <= 12


def test_summary_of_little():
    listed = results.dataset(space(ROWS, {"config": 5}), {"error": np.arange(5.0)[::-1]}, {})
    assert listed.summary().splitlines()[0] == "5 models: config 5 (optimizer, lam)"
    assert listed.summary().splitlines()[-1].endswith("  optimizer=sgd, lam=2  optimizer=adam, lam=0.1")
    wide = listed.assign_coords(optimizer=("config", [f"{name} with a name of some length" for name in "abcde"]))
    assert wide.summary().splitlines()[-1].endswith("  optimizer=e with a name of some length, lam=2")
    assert "1 model\n" in listed.isel(config=0).summary()
    assert "nothing finite" in (listed * np.nan).summary()
    assert xr.Dataset().summary() == "1 model"


def listed(runs, keep=slice(None)):
    """The same runs as a list, of which some are kept: what the union of grids gives."""
    rows = runs.stack(config=["seed", "lam", "lr"]).reset_index("config").transpose("config", ...)
    return rows.isel(config=keep)


def test_seeds_along_a_list(runs):
    runs["error"][1, 1, 2] = np.nan  # of a repetition that diverged, the configuration is left out
    runs["error"][2, 1] = 0.4 + 0.001 * np.arange(4)
    rows = listed(runs, np.random.default_rng(0).permutation(60))
    for options in ({"rule": "min"}, {"rule": "max"}, {"rule": "1se", "over": "seed"}):
        expected, found = runs.best("error", **options), rows.best("error", **options)
        assert found["error"].dims == ("config",)
        assert (found["lam"].item(), found["lr"].item()) == (expected["lam"].item(), expected["lr"].item())
        found = found.sortby("seed")
        assert found["seed"].values.tolist() == [0, 1, 2, 3]
        np.testing.assert_array_equal(found["error"], expected["error"])
        np.testing.assert_array_equal(found["curve"], expected["curve"])
    assert rows.best("error", over=None)["error"] == runs["error"].min()
    assert rows.summary().splitlines()[2:] == runs.summary().splitlines()[2:]
    stacked = runs.stack(config=["lam", "seed"])  # and another dim beside
    assert stacked.best("error")["lam"] == runs.best("error")["lam"]


def test_seeds_along_a_list_that_is_ragged():
    rows = {"lam": ("config", [1.0, 1.0, 2.0, 2.0, 2.0, np.nan, np.nan]), "seed": ("config", [0, 1, 0, 1, 2, 0, 1])}
    error = np.array([0.0, 1.0, 0.4, 0.3, 0.2, 0.1, np.nan])
    runs = results.dataset(space(rows, {"config": 7}), {"error": error}, {})
    assert runs.best("error")["seed"].values.tolist() == [0, 1, 2]
    assert runs.best("error", rule="max")["error"].values.tolist() == [0.0, 1.0]
    assert runs.isel(config=slice(0, 5)).drop_vars("lam").best("error").sizes["config"] == 5  # nothing but seeds
    with pytest.raises(ValueError, match=r"two repetitions along `over`, 'seed', .* got 1"):
        runs.isel(config=[0, 5]).best("error", rule="1se")


def test_verbs_of_a_dataset_travel_with_it(runs):
    assert list(inspect.signature(runs.best).parameters)[:3] == ["metric", "rule", "over"]
    assert "standard error" in runs.best.__doc__
    assert "Best in module jaxreg.sweeps.runs" in pydoc.render_doc(runs.best)
    text = runs.summary()
    for other in (copy.deepcopy(runs), pickle.loads(pickle.dumps(runs))):
        xr.testing.assert_identical(other, runs)
        assert other.summary() == text
