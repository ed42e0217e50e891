"""The experiments on networks: each in its quick form, and at full size what it is to reproduce."""

import importlib
import json
import os

import matplotlib
import pytest

from experiments import __main__ as listing
from experiments import published

matplotlib.use("Agg")
NAMES = [
    "dropout_is_ridge",
    "grokking",
    "omnigrok",
    "equilibrium",
    "tanh_regime",
    "high_learning_rates",
    "max_norm_mnist",
    "noise_and_ensembles",
    "double_descent",
]  # rows of a quick form must agree, and at full size but for those of MISSED
IDLE = "a bound shrinks whole columns, and with them the outgoing weights of units that do nothing"
MISSED: dict[str, dict[str, str]] = {  # experiment -> {name of the row: why}
    "high_learning_rates": {
        "digits, relu, matrix ball and penalty at the same loss: dead units, matrix ball": IDLE,
        "digits, relu, unit balls and penalty at the same loss: dead units, unit balls": IDLE,
        "mnist, relu, unit balls and penalty at the same loss: dead units, unit balls": IDLE,
    },
    "max_norm_mnist": {
        "max-norm better than L2, points, printed at full size 0.27": "small, on a CPU: at rate 1 seeds differ by 2",
    },
}
NEEDS_DATA = {"max_norm_mnist", "double_descent", "omnigrok", "tanh_regime"}


def rows(name, tmp_path, *arguments):
    """What the experiment's command writes."""
    if name in NEEDS_DATA and not os.environ.get("JAXREG_DATA"):
        pytest.skip("JAXREG_DATA is not set")
    importlib.import_module(f"experiments.{name}").main([*arguments, "--out", str(tmp_path)])
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert record["rows"]
    assert set(record["versions"]) == {"jax", "jaxlib", "optax", "flax"}
    return {row["name"]: row for row in record["rows"] if row["agrees"] is not None}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", NAMES)
def test_quick(name, tmp_path, capsys):
    found = rows(name, tmp_path, "--quick")
    assert [row for row in found.values() if not row["agrees"]] == []
    assert f"{len(found)} of {len(found)} agree" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", NAMES)
def test_full(name, tmp_path):
    found = rows(name, tmp_path)
    assert {row["name"] for row in found.values() if not row["agrees"]} == set(MISSED.get(name, ()))


def test_every_experiment_is_listed(capsys):
    listing.main([])
    printed = capsys.readouterr().out
    for name in NAMES:
        assert f"{name}  (" in printed
    assert "?" not in [value for about in listing.experiments().values() for value in about.values()]


def test_results_are_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "HERE", tmp_path)
    (tmp_path / "toy.py").write_text('"""A toy | of one row."""\n\nCOST = "1 s"\nSHOWED = "That it works."\n')
    (tmp_path / "data.py").write_text('"""Not an experiment."""\n')
    some = [
        published.Row("a", 1.0, 1.1, 0.2),
        published.Range("b|c", 3.0, high=2.0),
        published.Seen("d", 0.25),
    ]
    published.write(some, tmp_path / "results" / "toy.json")
    (tmp_path / "results" / "toy.png").write_bytes(b"png")
    listing.main(["--record", str(tmp_path / "results")])
    text = (tmp_path / "RESULTS.md").read_text()
    assert "## toy" in text
    assert "That it works." in text
    assert "| a | 1 | 1.1 ± 2.0e-01 | agrees |" in text
    assert r"| b\|c | 3 | ≤ 2 | **differs** |" in text
    assert "| d | 0.25 |  |  |" in text
    assert (tmp_path / "figures" / "toy.png").read_bytes() == b"png"
    assert "data" not in text
    (tmp_path / "results" / "toy.json").write_text("[]")
    with pytest.raises(SystemExit, match="The results of toy are of an older form"):
        listing.main(["--record", str(tmp_path / "results")])
