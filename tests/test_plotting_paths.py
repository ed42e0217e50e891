"""Pictures of paths and of cross-validation: what is drawn, named, counted and marked."""

import matplotlib
import numpy as np
import pytest
import xarray as xr

from jaxreg import plotting
from jaxreg.plotting.paths import _apart

matplotlib.use("Agg")
LAM = np.geomspace(1, 1e-3, 7)
COEF = np.maximum(np.array([2.0, 1.0, 0.0, 0.05]) - LAM[:, None], 0) * [1, -1, 0, 1]
COEF[:, 3] *= 1e-3


@pytest.fixture(autouse=True)
def _close():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.fixture
def path():
    data = {"coef": (("lam", "feature"), COEF), "df": ("lam", np.arange(7.0))}
    return xr.Dataset(data, {"lam": LAM, "feature": ["a", "b", "never", "c"]})


def lines(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


@pytest.mark.parametrize(
    ("against", "x"), [("lam", LAM), ("norm", np.abs(COEF).sum(1)), ("df", np.arange(7.0))], ids=lambda v: str(v)[:4]
)
def test_coefficients_against(path, against, x):
    ax = plotting.coefficient_path(path.isel(lam=slice(None, None, -1)), against, marks={"best": LAM[2]})
    drawn = lines(ax)
    assert set(drawn) == {"a", "b", "c"}
    np.testing.assert_allclose(drawn["a"].get_xydata(), np.stack([x, COEF[:, 0]], 1))
    late = drawn["c"].get_ydata()  # it begins one place before it is nonzero
    np.testing.assert_array_equal(np.isnan(late), [True, True, *np.zeros(5, bool)])
    assert {text.get_text() for text in ax.texts} == {"a", "b", "c", "best"}
    left, right = ax.get_xlim()
    assert (left > right) == (against == "lam")
    top = ax.child_axes[0]
    assert [text.get_text() for text in top.get_xticklabels()] == ["2", "3"]
    mark = [line for line in ax.lines if np.ptp(line.get_xdata()) == 0 and line.get_linestyle() == "--"]
    assert mark[0].get_xdata()[0] == pytest.approx(x[2])


def test_many_coefficients_are_grey(path):
    ax = plotting.coefficient_path(path, labelled=1, scale=[1.0, 1.0, 1.0, 1e6])
    assert set(lines(ax)) == {"c"}
    assert lines(ax)["c"].get_ydata()[-1] == pytest.approx(COEF[-1, 3] * 1e6)
    assert sum(line.get_color() == "0.8" for line in ax.lines) == 2


def test_targets_zero_and_renamed(path):
    two = xr.concat([path, -path], "target").transpose("lam", "feature", ...)[["coef"]]
    two = two.assign_coords(lam=[*LAM[:-1], 0.0], target=["u", "v"])
    ax = plotting.coefficient_path(two)
    assert "a, u" in lines(ax)
    assert ax.get_xticklabels()[-1].get_text() == "0"
    ax = plotting.coefficient_path(path.drop_vars("feature"), names=["p", "q", "r", "s"])
    assert set(lines(ax)) == {"p", "q", "s"}
    assert set(lines(plotting.coefficient_path(path.drop_vars("feature")))) == {"0", "1", "3"}
    assert not lines(plotting.coefficient_path(0 * path))


def test_names_do_not_cover_one_another():
    placed = _apart(np.array([0.1, 0.11, 0.12, 0.5, 0.9]), 0.05)
    np.testing.assert_allclose(placed, [0.06, 0.11, 0.16, 0.5, 0.9])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"against": "time"}, '"lam" or "norm" or "df"'),
        ({"names": ["a"]}, "4 `names`, got 1"),
    ],
)
def test_bad_input_is_refused(path, options, said):
    with pytest.raises(ValueError, match=said):
        plotting.coefficient_path(path, **options)
    with pytest.raises(ValueError, match="`coef`"):
        plotting.coefficient_path(path.drop_vars("lam"))


@pytest.fixture
def cv():
    error = np.stack(
        [np.r_[9, 6, 4, 2.8, 2.9, 3, 3.2], np.r_[9, 6, 3.5, 2.7, 2.5, 3, 3.4], np.r_[9, 5, 3, 2.8, 2.6, 2, 3]]
    )
    data = {"error": (("fold", "lam"), error), "diverged": (("fold", "lam"), np.zeros(error.shape, bool))}
    return xr.Dataset({**data, "support": ("lam", [0, 1, 1, 2, 3, 3, 3])}, {"lam": LAM, "fold": range(3)})


def test_cross_validation(cv):
    ax = plotting.cross_validation(cv)
    mean = cv["error"].mean("fold")
    np.testing.assert_allclose(ax.lines[0].get_xydata(), np.stack([LAM, mean], 1))
    drawn = {name.split(":")[0]: line.get_xdata()[0] for name, line in lines(ax).items()}
    assert drawn == {"best": LAM[4], "within 1 s.e.": LAM[3]}
    assert [text.get_text() for text in ax.child_axes[0].get_xticklabels()] == ["1", "2", "3"]


def test_cross_validation_over_l1_ratios(cv):
    listed = (
        xr.concat([cv, cv.assign(error=cv["error"] + 0.5)], "l1_ratio")
        .assign_coords(l1_ratio=[0.2, 0.9])
        .drop_vars("support")
    )
    listed = listed.stack(config=["l1_ratio", "lam"]).reset_index("config").transpose("fold", "config")
    ax = plotting.cross_validation(listed)
    assert list(lines(ax))[:2] == ["l1_ratio = 0.2", "l1_ratio = 0.9"]
    assert "best: λ = 0.01, l1_ratio = 0.2" in lines(ax)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), cv["error"].mean("fold") + 0.5)
