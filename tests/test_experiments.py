"""The main job, small; and the data it reads."""

import json

import numpy as np
import pytest
import xarray as xr

from experiments import data, lambda_sweep, trade_off
from experiments.benchmarks import rounds, transformations


@pytest.mark.filterwarnings("default")  # of matplotlib's and scikit-learn's own imports
@pytest.mark.parametrize(
    "arguments",
    [
        ["--penalty", "l1", "--enforce", "proximal"],
        pytest.param(["--penalty", "l1", "--enforce", "penalized"], marks=pytest.mark.slow),
        pytest.param(["--penalty", "group_l2", "--enforce", "gradient"], marks=pytest.mark.slow),
        pytest.param(["--penalty", "elastic_net", "--enforce", "decay"], marks=pytest.mark.slow),
        pytest.param(["--constraint", "max_norm"], marks=pytest.mark.slow),
        ["--constraint", "max_norm", "--enforce", "multipliers"],
        ["--halving"],
    ],
    ids=lambda a: "-".join(x.strip("-") for x in a),
)
def test_main_job(arguments, tmp_path, capsys):
    small = [
        "--strengths",
        "4",
        "--seeds",
        "2",
        "--steps",
        "150",
        "--width",
        "16",
        "--chunk",
        "16",
        "--out",
        str(tmp_path),
    ]
    lambda_sweep.main([*arguments, *small, "--store", str(tmp_path / "store")])
    printed = capsys.readouterr().out
    lambda_sweep.main([*arguments, *small, "--store", str(tmp_path / "store")])  # nothing is left to do
    assert capsys.readouterr().out.splitlines()[:3] == printed.splitlines()[:3]
    assert "models/s, compiled in" in printed
    assert "1 s.e." in printed
    (file,) = tmp_path.glob("*.nc")
    assert file.with_suffix(".png").stat().st_size > 10_000
    with xr.open_dataset(file) as runs:
        strength = "radius" if "--constraint" in arguments else "lam"
        assert dict(runs["val_error"].sizes) == {strength: 4, "lr": 4, "seed": 2}
        assert not runs["diverged"].any()
        if "--halving" in arguments:
            assert sorted(np.unique(runs["steps"])) == [10, 30, 150]
            return
        assert (runs["val_error"].isel({strength: -1 if strength == "radius" else 0}) < 0.3).all()
        strongest = runs.isel({strength: 0 if strength == "radius" else -1})
        if arguments[-1] == "proximal":
            assert (strongest["exact_zeros"] > 0.05).all()
        else:
            assert (strongest["exact_zeros"] == 0).all()
        if arguments == ["--constraint", "max_norm"]:
            assert (strongest["largest_unit_norm"] <= float(strongest["radius"]) * (1 + 1e-6)).all()


@pytest.mark.filterwarnings("default")
def test_trade_off(tmp_path, capsys):
    trade_off.main(["--bounds", "6", "--steps", "1000", "--out", str(tmp_path)])
    assert "−dJ*/dk of the curve" in capsys.readouterr().out
    assert (tmp_path / "trade_off.png").stat().st_size > 10_000
    with xr.open_dataset(tmp_path / "trade_off.nc") as runs:
        tight = runs.isel(k=slice(0, 4))  # the others take longer
        np.testing.assert_allclose(tight["alpha_projected"], tight["alpha"][:, -1], rtol=2e-3)
        np.testing.assert_allclose(tight["k_penalized"], tight["k"], rtol=2e-3)
        assert (np.diff(runs["alpha"][:, -1]) < 0).all()
        assert (np.diff(runs["loss"]) < 0).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_main_job_as_it_is(tmp_path):
    lambda_sweep.main(["--out", str(tmp_path)])
    with xr.open_dataset(next(tmp_path.glob("*.nc"))) as runs:
        assert dict(runs["test_error"].sizes) == {"lam": 24, "lr": 4, "seed": 3}
        assert lambda_sweep.Config.steps >= 1000
        best = lambda_sweep.choose(runs, lambda_sweep.Config())["best"]
        assert float(best["test_error"].mean()) <= 0.05


@pytest.mark.parametrize("arguments", [["--enforce", "projected"], ["--constraint", "max_norm", "--enforce", "decay"]])
def test_main_job_refuses_a_verb_that_does_not_fit(arguments, capsys):
    with pytest.raises(SystemExit):
        lambda_sweep.main(arguments)
    assert f"--enforce {arguments[-1]} needs --" in capsys.readouterr().err


def test_benchmark_of_transformations(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rounds, "RESULTS", tmp_path)
    transformations.main(["--size", "16", "--rounds", "2", "--no-networks"])
    assert "adam → projected per column" in capsys.readouterr().out
    (rows,) = json.loads((tmp_path / "transformations.json").read_text())["tables"].values()
    by_chain = {row["chain"]: row for row in rows}
    assert by_chain["adamw"]["to adamw"] == 1
    assert by_chain["multipliers per column → adam"]["extra bytes"] < 16 * 16 * 4  # numbers per group, none per weight


def test_digits():
    arrays = data.load("digits")
    assert {k: v.shape for k, v in arrays.items() if k[0] == "x"} == {
        "x_train": (1077, 64),
        "x_val": (360, 64),
        "x_test": (360, 64),
    }
    rows = np.concatenate([arrays[f"x_{part}"] for part in ("train", "val", "test")])
    assert len(rows) == 1797
    assert len(np.unique(rows, axis=0)) == 1797


def test_files_are_present_and_unaltered(data_dir):
    for name in data.SHA256:
        assert data.path(name).parent.is_relative_to(data_dir)
    assert data.load("mnist1d")["x_train"].shape == (3200, 40)
    mnist = data.load("mnist")
    assert mnist["x_train"].shape == (50000, 784)
    assert mnist["x_train"].max() == 1
    assert np.bincount(mnist["y_test"]).min() == 892


def test_missing_and_altered_files_are_errors(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAXREG_DATA", str(tmp_path))
    with pytest.raises(data.DataError, match=r"mnist1d\.npz is missing in JAXREG_DATA"):
        data.load("mnist1d")
    (tmp_path / "mnist1d.npz").write_bytes(b"other")
    with pytest.raises(data.DataError, match="is altered: its SHA-256 is not"):
        data.load("mnist1d")
    monkeypatch.delenv("JAXREG_DATA")
    with pytest.raises(SystemExit):
        lambda_sweep.main(["--dataset", "mnist1d"])
    assert "mnist1d needs JAXREG_DATA, a folder with mnist1d.npz" in capsys.readouterr().err


def test_mnist_without_data_or_network_says_how_to_get_it(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.delenv("JAXREG_DATA", raising=False)
    monkeypatch.setattr("sklearn.datasets.fetch_openml", fail)
    with pytest.raises(data.DataError, match=r"mnist needs JAXREG_DATA.*OpenML.*no network"):
        data.load("mnist")
