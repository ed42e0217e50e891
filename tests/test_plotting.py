"""Pictures of results: what is drawn, for grids, names, lists of configurations and unfinished sweeps."""

import matplotlib
import numpy as np
import pytest
import xarray as xr

from jaxreg import plotting
from jaxreg.plotting import axes
from jaxreg.plotting.parallel import scale
from jaxreg.plotting.repetitions import mean_and_error
from jaxreg.sweeps import runs as _  # noqa: F401 (gives a Dataset its `best`)

matplotlib.use("Agg")
LAM = np.array([0.0, *np.geomspace(1e-4, 1e-1, 4)])
OPTIMIZERS = ["sgd", "adam", "muon"]


@pytest.fixture(autouse=True)
def _close():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture
def grid():
    dims = ("lam", "optimizer", "seed")
    error = np.random.default_rng(0).random((5, 3, 4))
    coords = {"lam": LAM, "optimizer": OPTIMIZERS, "seed": range(4)}
    return xr.Dataset({"error": (dims, error), "diverged": (dims, np.zeros(error.shape, bool))}, coords)


@pytest.fixture
def listed():
    rng = np.random.default_rng(0)
    values = {
        "lam": 10 ** rng.uniform(-6, -1, 30),
        "rate": rng.uniform(0, 0.9, 30),
        "momentum": np.where(np.arange(30) % 3 == 0, 0.9, np.nan),
        "optimizer": np.array([*OPTIMIZERS, ""], object)[np.arange(30) % 4],
    }
    return xr.Dataset({"error": ("config", rng.random(30))}, {name: ("config", v) for name, v in values.items()})


def labels(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def test_validation_curve(grid):
    ax = plotting.validation_curve(grid, "error", "lam", "optimizer")
    assert [line.get_label() for line in ax.lines] == [f"optimizer = {name}" for name in OPTIMIZERS]
    np.testing.assert_allclose(ax.lines[1].get_ydata(), grid["error"].mean("seed")[:, 1])
    assert ax.get_xscale() == "log"
    assert labels(ax.xaxis)[-1] == "0"
    backwards = plotting.validation_curve(grid.isel(lam=slice(None, None, -1)), "error", "lam", "optimizer")
    np.testing.assert_allclose(backwards.lines[1].get_ydata(), ax.lines[1].get_ydata())


def test_names_along_an_axis(grid):
    ax = plotting.validation_curve(grid, "error", "optimizer", "lam")
    assert labels(ax.xaxis) == OPTIMIZERS
    assert len(ax.containers) == 5  # with error bars
    ax = plotting.heatmap(grid, "error", "optimizer", "lam")
    assert labels(ax.xaxis) == OPTIMIZERS
    assert labels(ax.yaxis) == ["0", "0.0001", "0.001", "0.01", "0.1"]
    row, column = np.unravel_index(np.argmin(grid["error"].mean("seed").values), (5, 3))
    assert ax.lines[0].get_xydata().tolist() == [[column, row]]


def test_a_long_axis_has_its_ends(grid):
    fine = grid.isel(lam=np.arange(20) % 5).assign_coords(lam=[*np.geomspace(1e-5, 1, 19), np.inf])
    assert labels(plotting.heatmap(fine, "error", "lam", "optimizer").xaxis)[::4] == ["1e-5", "∞"]


def test_many_lines_differ(grid):
    many = grid.isel(optimizer=0).expand_dims(width=range(20)).transpose("lam", "width", "seed")
    ax = plotting.validation_curve(many, "error", "lam", "width")
    assert len({tuple(np.atleast_1d(line.get_color())) for line in ax.lines}) == 20


def test_lists_of_configurations_are_points(listed):
    ax = plotting.validation_curve(listed, "error", "lam", "optimizer")
    assert len(ax.containers) == 4
    x, y = ax.containers[0].lines[0].get_data()
    here = listed.isel(config=np.flatnonzero(listed["optimizer"] == "sgd")).sortby("lam")
    np.testing.assert_allclose([x, y], [here["lam"], here["error"]])
    ax = plotting.heatmap(listed, "error", "lam", "rate")
    best = listed.isel(config=np.argmin(listed["error"].values))
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[best["lam"], best["rate"]]])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")
    plotting.heatmap(listed, "error", "momentum", "optimizer")


def test_seeds_along_a_list(grid):
    grid["error"][2, 1, 3] = np.nan
    grid = grid.assign(finished=~grid["diverged"])
    expected = mean_and_error("", grid, "error", "seed")
    assert float(expected[1][0, 0]) == pytest.approx(grid["error"].values[0, 0].std(ddof=1) / 2)
    stacked = grid.stack(config=["seed", "lam", "optimizer"])
    rows = stacked.reset_index("config")
    for runs in (stacked, rows):
        for found, values in zip(mean_and_error("", runs, "error", "seed"), expected, strict=True):
            np.testing.assert_allclose(found, values.values.ravel())
        assert len(plotting.validation_curve(runs, "error", "lam", "optimizer").containers[0].lines[0].get_xdata()) == 5
        best = runs.best("error")
        ring = plotting.heatmap(runs, "error", "lam", "optimizer").lines[0].get_xydata()
        assert ring[0, 1] == OPTIMIZERS.index(best["optimizer"])
        ax = plotting.overview(runs, "error")
        assert labels(ax.xaxis) == ["lam", "optimizer", "error"]
        assert [len(lines.get_segments()) for lines in ax.collections] == [1, 14]
    ax = plotting.overview(rows.isel(config=np.flatnonzero(rows["optimizer"] == "sgd")[:-1]), "error")
    assert (ax.get_xlabel(), ax.get_title()) == ("lam", "mean and standard error of 3 to 4 seeds")


def test_low_is_dark_in_all_pictures(grid):
    heat = plotting.heatmap(grid, "error", "lam", "optimizer").images[0]
    lines = plotting.parallel_coordinates(grid, "error").collections[-1]
    for colours in (heat.get_cmap(), lines.get_cmap()):
        assert sum(colours(0.0)[:3]) < sum(colours(1.0)[:3])


@pytest.mark.parametrize("norm", [None, "log"])
def test_cells_without_a_result(grid, listed, norm):
    options = {} if norm is None else {"norm": norm}
    some = grid.copy(deep=True)
    least = np.unravel_index(np.argmin(some["error"].mean("seed").values), (5, 3))
    some["diverged"][(*least, 0)] = True  # by another output
    some["error"][0, 0, 0] = np.inf
    ax = plotting.heatmap(some, "error", "lam", "optimizer", **options)
    assert np.ma.getmaskarray(ax.images[0].get_array()).T[least]
    assert np.ma.getmaskarray(ax.images[0].get_array())[0, 0]
    assert ax.lines[0].get_xydata().tolist() != [list(least)]
    assert "grey: diverged or unfinished" in ax.figure.axes[1].get_ylabel()
    nothing = plotting.heatmap(grid * np.nan, "error", "lam", "optimizer", **options)
    assert not nothing.lines
    plotting.heatmap(listed * np.nan, "error", "lam", "rate", **options)
    plotting.validation_curve(grid * np.nan, "error", "lam", "optimizer")
    empty = plotting.parallel_coordinates(grid * np.nan, "error")
    empty.figure.canvas.draw()
    assert len(empty.collections[0].get_segments()) == 15


def test_parallel_coordinates_of_a_grid(grid):
    ax = plotting.parallel_coordinates(grid, "error")
    ax.figure.canvas.draw()
    assert labels(ax.xaxis) == ["lam", "optimizer", "error"]
    lines = ax.collections[-1].get_segments()
    assert len(lines) == 15
    mean = grid["error"].mean("seed")
    heights = np.sort([line[-1, 1] for line in lines])
    np.testing.assert_allclose(heights, np.sort(scale(mean.values.ravel()).heights))
    best = next(line for line in ax.lines if "lowest error" in line.get_label())
    assert best.get_label() == f"lowest error: {mean.min().item():.3g}"
    assert best.get_ydata()[-1] == 0
    i, j = np.unravel_index(np.argmin(mean.values), (5, 3))
    expected = [scale(LAM).heights[i], j / 2]
    np.testing.assert_allclose(best.get_ydata()[:2], expected, atol=0.04)  # lines lie side by side
    most = plotting.parallel_coordinates(grid, "error", ["optimizer", "lam"], mode="max")
    assert labels(most.xaxis) == ["optimizer", "lam", "error"]
    assert any("highest error" in line.get_label() for line in most.lines)


def test_parallel_coordinates_of_a_list(listed):
    listed["error"][3] = np.nan
    listed = listed.assign(finished=("config", np.arange(30) != 4))
    listed["error"][4] = np.nan
    ax = plotting.parallel_coordinates(listed, "error")
    ax.figure.canvas.draw()
    assert labels(ax.xaxis) == ["lam", "rate", "momentum", "optimizer", "error"]
    lost, lines = (collection.get_segments() for collection in ax.collections)
    assert (len(lost), len(lines)) == (1, 28)
    assert lost[0].shape == (4, 2)
    assert {text.get_text() for text in ax.texts} >= {"none", "sgd", "adam", "0.9", "0.001"}


def test_overview(grid, listed):
    assert plotting.overview(grid, "error").get_title() == "ring: the lowest mean of 4 seeds"
    one = grid.isel(optimizer=[1])
    assert plotting.overview(one, "error").get_title() == "mean and standard error of 4 seeds"
    assert plotting.overview(one.isel(lam=[0], seed=0), "error").get_xlabel() == "lam"
    assert not plotting.overview(grid, "error", over=None).get_title()  # three dims: parallel coordinates
    assert labels(plotting.overview(listed, "error").xaxis)[0] == "lam"


@pytest.mark.parametrize(
    ("values", "heights"),
    [
        ([1, 2, 3], [0, 0.5, 1]),
        ([1e-4, 1e-2, 1.0], [0, 0.5, 1]),
        ([0.0, 1e-4, 1e-2, 1.0], [0, 0.12, 0.56, 1]),
        ([1.0, 10.0, 100.0, np.inf], [0, 0.44, 0.88, 1]),
        ([-1.0, 0.0, 1.0], [0, 0.5, 1]),
        ([5.0, np.nan], [0.5, -0.12]),
        (["a", "b", "", "a"], [0, 1, -0.12, 0]),
        ([False, True], [0, 1]),
        ([64, "auto"], [0, 1]),
        ([np.nan, np.nan], [-0.12, -0.12]),
        ([0.0, 0.0], [0.5, 0.5]),
    ],
)
def test_scales(values, heights):
    array = np.array(values, object) if isinstance(values[-1], str) else np.array(values)
    np.testing.assert_allclose(scale(array).heights, heights, atol=1e-12)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5"), (1e-6, "1e-6"), (64, "64"), (np.inf, "∞"), (np.nan, "none"), ("", "none"), ("adam", "adam")],
)
def test_labels(value, text):
    assert axes.label(value) == text


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: plotting.heatmap(r, "loss", "lam", "optimizer"), KeyError, "`heatmap` needs `metric` to be one of"),
        (
            lambda r: plotting.validation_curve(r, "error", "lam"),
            ValueError,
            r"`validation_curve` needs a metric with the dims \['lam'\] alone, got the further dims \['optimizer'\]: .*"
            r"`runs.isel\(optimizer=0\)`",
        ),
        (lambda r: plotting.heatmap(r, "error", "lam", "rate"), KeyError, "a dim or a coordinate along one, .*'rate'"),
        (lambda r: plotting.parallel_coordinates(r, "error", ["lam"]), ValueError, "further dims .'optimizer'"),
        (lambda r: plotting.parallel_coordinates(r, "error", mode="least"), ValueError, "`mode` to be .*'least'"),
        (
            lambda r: plotting.parallel_coordinates(r.isel(lam=[0], optimizer=[0]), "error"),
            ValueError,
            "something that varies",
        ),
        (
            lambda r: plotting.heatmap(r, "error", "lam", "optimizer", over="sed"),
            ValueError,
            "`over` to be .* got 'sed'",
        ),
        (
            lambda r: plotting.overview(r.assign(curve=r["error"].expand_dims(step=5, axis=3)), "curve"),
            ValueError,
            r"`overview` needs one number per configuration, got 'curve' with the further dims \['step'\]",
        ),
        (
            lambda r: plotting.parallel_coordinates(r.assign(curve=r["error"].expand_dims(step=5, axis=3)), "curve"),
            ValueError,
            r"`parallel_coordinates` needs one number per configuration",
        ),
        (lambda r: plotting.heatmap(r * 1j, "error", "lam", "optimizer"), ValueError, "needs numbers to draw"),
    ],
)
def test_bad_plots(grid, call, error, message):
    with pytest.raises(error, match=message):
        call(grid)
