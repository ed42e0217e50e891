"""`python -m jaxreg.sweeps show`."""

import os

import numpy as np
import pytest

from jaxreg.sweeps import runs
from jaxreg.sweeps.__main__ import main
from jaxreg.sweeps.grids import configurations, grid
from jaxreg.sweeps.store import Store

SPACES = {
    "curve": grid(lam=[0.0, 0.1, 1.0], seed=range(2)),
    "map": grid(lam=[0.0, 0.1, 1.0], optimizer=["sgd", "adam"], seed=range(2)),
    "many": grid(lam=[0.0, 0.1, 1.0], lr=[0.1, 0.2], optimizer=["sgd", "adam"]),
    "list": configurations([{"lam": 0.1, "lr": 1.0}, {"lam": 0.2, "optimizer": "sgd"}, {"lam": 0.3, "lr": 2.0}]),
    "seeds": grid(seed=range(3)),
    "seeds of a list": configurations([{"seed": 1}, {"seed": 2}]),
    "list with seeds": grid(lam=[0.0, 0.1, 1.0], seed=range(2)) | grid(lam=[0.1], seed=[2]),
    "list of one": configurations([{"lam": 1.0, "seed": 1}]),
    "one of four": grid(lam=[0.0, 0.1], lr=[0.1, 0.2], k=[1.0, 2.0], only=["sgd"]),
    "one": grid(lam=[0.1]),
}


@pytest.mark.parametrize("name", SPACES)
def test_files(name, tmp_path, capsys):
    space = SPACES[name]
    outputs = {"error": np.arange(float(space.size)), "curve": np.ones((space.size, 3))}
    runs.dataset(space, outputs, {}).to_netcdf(tmp_path / "runs.nc", engine="h5netcdf")
    assert main(["show", str(tmp_path / "runs.nc")]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{space.size} model")
    assert out.endswith(f"wrote {tmp_path / 'show.png'}, error\n")
    assert (tmp_path / "show.png").read_bytes()[1:4] == b"PNG"


def test_a_store_while_it_runs(tmp_path, capsys):
    space = SPACES["map"]
    root = tmp_path / "store"
    with Store(root, {"arguments": space.arguments, "fixed": {}, "train": {}, "options": {}}) as store:
        groups, cells = space.groups(), space.cells()
        tasks = store.extend([(group.name, [cells[row] for row in group.rows]) for group in groups])
        specification = {"error": {"shape": [], "dtype": "float64"}, "other": {"shape": [], "dtype": "float64"}}
        store.describe(space, {group.name: specification for group in groups}, {})
        store.write(tasks[0], {"error": groups[0].rows * 1.0, "other": groups[0].rows * 2.0})
        figure = tmp_path / "other.pdf"
        assert main(["show", str(root), "--metric", "other", "--out", str(figure)]) == 0
    assert "6 unfinished" in capsys.readouterr().out
    assert figure.read_bytes().startswith(b"%PDF")
    assert not (root / "show.png").exists()


def test_the_reader_of_a_pipe_may_go(tmp_path, monkeypatch, capsys):
    runs.dataset(SPACES["one"], {"error": np.ones(1)}, {}).to_netcdf(tmp_path / "runs.nc", engine="h5netcdf")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        assert main(["show", str(tmp_path / "runs.nc")]) == 0
    assert not capsys.readouterr().err
    assert (tmp_path / "show.png").exists()


def test_nothing_to_plot(tmp_path, capsys):
    runs.dataset(SPACES["one"], {"curve": np.ones((1, 3))}, {}).to_netcdf(tmp_path / "runs.nc", engine="h5netcdf")
    assert main(["show", str(tmp_path / "runs.nc")]) == 0
    assert "nothing to plot" in capsys.readouterr().out
    assert not (tmp_path / "show.png").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{}/nowhere"], "there is no "),
        (["{}"], "`open_store` needs a store of `sweep`"),
        (["{}/text.nc"], "is no NetCDF file"),
        (["{}/runs.nc", "--metric", "loss"], r"one of ['error']; got 'loss'"),
        (["{}/runs.nc", "--out", "{}/nowhere/a.png"], "No such file"),
        (["{}/runs.nc", "--out", "{}/a.strange"], "not supported"),
    ],
)
def test_clear_errors(tmp_path, capsys, argv, message):
    (tmp_path / "text.nc").write_text("no numbers")
    runs.dataset(SPACES["one"], {"error": np.ones(1)}, {}).to_netcdf(tmp_path / "runs.nc", engine="h5netcdf")
    assert main(["show", *(part.format(tmp_path) for part in argv)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("python -m jaxreg.sweeps: ")
    assert message in err
    with pytest.raises(SystemExit) as exit:
        main([])
    assert exit.value.code == 2
