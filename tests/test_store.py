"""Stores: what is written comes back, is shown by xarray, and belongs to one sweep."""

import json
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
import xarray as xr

from jaxreg.sweeps import runs
from jaxreg.sweeps.backend import open_store
from jaxreg.sweeps.grids import configurations, grid
from jaxreg.sweeps.spaces import Space
from jaxreg.sweeps.store import Store, _joined

IDENTITY = {
    "arguments": ["opt", "lam"],
    "fixed": {"data/X": "float32[3] ab", "k": "3"},
    "train": {"opt=a": "{ lambda ; a\n b = sin a\n in (b,) }"},
    "options": {"steps": "10"},
}
GROUP = "opt=a"
CELLS = [(0.5, "a"), (1e-5, "a"), (float("inf"), "a")]
OUTPUTS = {
    "loss": np.array([0.1, 2.0, 3.0], np.float32),
    "curve": np.arange(12.0).reshape(3, 4),
    "final.w": np.arange(6, dtype=np.float16).reshape(3, 2, 1),
    "count": np.array([-1, 2**40, 3]),
    "byte": np.array([1, 2, 255], np.uint8),
    "ok": np.array([True, False, True]),
    "root": np.array([1 + 2j, 3j, 4], np.complex64),
    "none": np.zeros((3, 0), np.float32),
}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


def contents(root):
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in root.rglob("*")}


def same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        assert one[name].dtype == two[name].dtype
        np.testing.assert_array_equal(one[name], two[name])


def test_what_is_written_comes_back(root):
    with Store(root, IDENTITY) as store:
        task, other = store.extend([(GROUP, CELLS), (GROUP, [(float(i), "a") for i in range(3)])])
        assert not store.finished(task)
        store.write(task, OUTPUTS)
        store.write(other, {name: output[::-1] for name, output in OUTPUTS.items()})  # of the same layout
        assert store.finished(task)
    with Store(root, IDENTITY) as store:
        assert store.tasks[task] == CELLS
        assert store.cells[CELLS[2]] == (task, 2)
        assert store.group == {task: GROUP, other: GROUP}
        assert store.finished(task)
        assert store.finished(other)
        same(store.read(task), OUTPUTS)
        same(store.read(other), {name: output[::-1] for name, output in OUTPUTS.items()})
        assert list(store.read(task, ["ok"])) == ["ok"]


def test_a_chunk_is_a_file_for_xarray(root):
    with Store(root, IDENTITY) as store:
        (task,) = store.extend([(GROUP, CELLS)])
        store.write(task, OUTPUTS | {"loss": np.array([0.1, np.nan, 3.0])})
    with xr.open_dataset(root / "chunks" / f"{task}.nc") as chunk:
        assert chunk.attrs["group"] == GROUP
        assert chunk["curve"].dims == ("row", "curve_dim_0")
        assert chunk["final.w"].dims == ("row", "final.w_dim_0", "final.w_dim_1")
        assert chunk["diverged"].values.tolist() == [False, True, False]
        assert chunk["lam"].values.tolist() == [cell[0] for cell in CELLS]
        assert chunk["opt"].values.tolist() == ["a"] * 3
        for name in OUTPUTS.keys() - {"loss"}:
            assert chunk[name].dtype == OUTPUTS[name].dtype
            np.testing.assert_array_equal(chunk[name], OUTPUTS[name])


def test_the_same_chunk_has_the_same_bytes(root):
    with Store(root, IDENTITY) as store:
        (task,) = store.extend([(GROUP, CELLS)])
        written = []
        for _ in range(2):
            store.write(task, OUTPUTS)
            written.append((root / "chunks" / f"{task}.nc").read_bytes())
    assert written[0] == written[1]


def test_plans_add_up(root):
    with Store(root, IDENTITY) as store:
        assert store.extend([]) == []
        first = store.extend([(GROUP, CELLS[:2]), (GROUP, CELLS[2:])])
        second = store.extend([("no lam", [(None, "b"), (7, "a"), (2 - 1j, "a")])])
        assert first + second == ["0000-000000", "0000-000001", "0001-000000"]
        for cells in ([CELLS[0]], [(9.0, "a"), (9.0, "a")]):
            with pytest.raises(ValueError, match="no plan has"):
                store.extend([(GROUP, cells)])
    with Store(root, IDENTITY) as store:
        assert store.tasks[second[0]] == [(None, "b"), (7, "a"), (2 - 1j, "a")]
        assert list(store.tasks) == first + second


def test_a_chunk_without_its_plan_is_not_taken_for_another(root, caplog):
    with Store(root, IDENTITY) as store:
        (task,) = store.extend([(GROUP, CELLS)])
        store.write(task, OUTPUTS)
    (root / "plans" / "0000.json").unlink()
    with Store(root, IDENTITY) as store:
        assert store.extend([(GROUP, [(1.0, "a"), (2.0, "a"), (3.0, "a")])]) == [task]
        assert not store.finished(task)
    assert "its plan is lost" in caplog.text


def test_processes_of_one_run_share_a_folder(root):
    with Store(root, IDENTITY) as one, Store(root, IDENTITY, process=1) as two:
        assert one.extend([(GROUP, CELLS)]) == two.extend([(GROUP, CELLS)]) == ["0000-000000"]
        one.write("0000-000000", OUTPUTS)
        assert two.finished("0000-000000")
        one.extend([(GROUP, [(1.0, "a")])])
        with pytest.raises(ValueError, match="same plan in each process"):
            two.extend([(GROUP, [(2.0, "a")])])


def test_carries_come_back_with_their_dtypes(root):
    leaves = [
        np.array([1, 2.5], ml_dtypes.bfloat16),
        np.array(3, np.int32),
        np.zeros((2, 0)),
        np.array([[True]]),
        np.array([1 + 1j]),
        np.array([1, -2], ml_dtypes.int4),
    ]
    with Store(root, IDENTITY) as store:
        assert store.read_carry("0000-000000") is None
        store.write_carry("0000-000000", 5, leaves)
        store.write_carry("0000-000000", 10, leaves)
    with Store(root, IDENTITY) as store:
        step, found = store.read_carry("0000-000000")
        assert step == 10
        same(dict(enumerate(found)), dict(enumerate(leaves)))
        store.drop_carry("0000-000000")
        store.drop_carry("0000-000000")
        assert store.read_carry("0000-000000") is None


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("opening a store ran code",)


def test_opening_runs_no_code(root):
    with Store(root, IDENTITY) as store:
        np.savez(root / "carries" / "0000-000000.npz", step=1, dtypes=np.array(["object"]), leaf0=np.array([Bomb()]))
        assert store.read_carry("0000-000000") is None


def test_one_thread_writes_while_another_reads(root):
    with Store(root, IDENTITY) as store, ThreadPoolExecutor(2) as threads:
        tasks = store.extend([(GROUP, [(float(100 * n + i), "a") for i in range(n)]) for n in range(1, 80)])

        def write(task):
            rows = np.array([cell[0] for cell in store.tasks[task]])
            store.write(task, {"loss": rows, "curve": rows[:, None] * np.ones(50)})

        def read(task):
            while not store.finished(task):
                time.sleep(0.001)
            found = store.read(task)
            np.testing.assert_array_equal(found["loss"], [cell[0] for cell in store.tasks[task]])
            np.testing.assert_array_equal(found["curve"][:, 7], found["loss"])

        written = threads.submit(lambda: [write(task) for task in tasks])  # more layouts than are kept
        threads.submit(lambda: [read(task) for task in tasks]).result(timeout=60)
        written.result()


def test_facts_are_remembered(root):
    with Store(root, IDENTITY) as store:
        assert store.recall("chunk") is None
        store.remember("chunk", {GROUP: 32})
    with Store(root, IDENTITY) as store:
        assert store.recall("chunk") == {GROUP: 32}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"arguments": ["lam", "lr"]}, "axes: ['lam', 'opt'] -> ['lam', 'lr']"),
        ({"fixed": {"data/X": "float32[3] cd", "k": "3"}}, "fixed argument 'data/X': float32[3] ab -> float32[3] cd"),
        ({"fixed": {"data/X": "float32[3] ab", "k": "3", "z": "1"}}, "fixed argument 'z': (absent) -> 1"),
        ({"fixed": {"data/X": "float32[3] ab"}}, "fixed argument 'k': 3 -> (absent)"),
        ({"options": {"steps": "20"}}, "option 'steps': 10 -> 20"),
        ({"train": {GROUP: "{ lambda ; a\n b = cos a\n in (b,) }"}}, "`train` for opt=a"),
    ],
)
def test_another_sweep_is_refused_and_nothing_touched(root, change, told):
    with Store(root, IDENTITY) as store:
        store.extend([(GROUP, CELLS)])
    before = contents(root)
    with pytest.raises(ValueError) as refused:
        Store(root, IDENTITY | change)
    assert told in str(refused.value)
    if "train" in change:
        assert "\n  - b = sin a\n  + b = cos a\n" in str(refused.value)
    assert contents(root) == before


def test_new_groups_are_added_and_then_checked(root):
    two = IDENTITY | {"train": {"opt=b": "old"}}
    for identity in (IDENTITY, two, IDENTITY):
        Store(root, identity).close()
    long = "\n".join(map(str, range(1000)))
    with pytest.raises(ValueError, match="982 lines more") as refused:
        Store(root, IDENTITY | {"train": {"opt=b": long}})
    assert len(str(refused.value).splitlines()) < 30


def test_a_newer_format_is_refused(root):
    Store(root, IDENTITY).close()
    facts = json.loads((root / "sweep.json").read_text())
    (root / "sweep.json").write_text(json.dumps(facts | {"format": 2, "jaxreg": "9.0"}))
    for attempt in (lambda: Store(root, IDENTITY), lambda: open_store(root)):
        with pytest.raises(ValueError, match=r"format 2, by jaxreg 9\.0; this version reads 1"):
            attempt()


# open_store

SPACE = grid(lam=[0.0, 0.1, 1.0], opt=["a", "b"], seed=range(4))
WIDTH = {"opt=a": 2, "opt=b": 3}


def fill(root, space=SPACE, skip=(), chunk=3, ragged=True):
    """A store with all tasks but those at `skip`; what its configurations give, in full."""
    width = WIDTH if ragged else dict.fromkeys(WIDTH, 3)
    with Store(root, {"arguments": space.arguments, "fixed": {}, "train": {}, "options": {}}) as store:
        cells, groups = space.cells(), space.groups()
        number = {cell: row for row, cell in enumerate(cells)}
        pieces = [(g.name, g.rows[i : i + chunk]) for g in groups for i in range(0, len(g.rows), chunk)]
        pieces = [(name, [cells[row] for row in rows if cells[row] not in store.cells]) for name, rows in pieces]
        store.extend([(name, cells) for name, cells in pieces if cells])
        described = {
            name: {
                "loss": {"shape": [], "dtype": "float32"},
                "count": {"shape": [], "dtype": "int32"},
                "w": {"shape": [width[name], 2], "dtype": "float64", "dims": ["unit", "in"]},
            }
            for name in {g.name for g in groups}
        }
        store.describe(space, described, {"chunk": chunk}, {"in": ["x", "y"]})
        for i, task in enumerate(store.tasks):
            if i not in skip and not store.finished(task):
                rows = np.array([number[cell] for cell in store.tasks[task]])
                store.write(task, {name: v[:, : width[store.group[task]]] if v.ndim > 1 else v for name, v in of(rows)})
    return dict(of(np.arange(space.size)))


def of(rows):
    yield "loss", np.where(rows == 5, np.nan, rows).astype(np.float32)
    yield "count", rows.astype(np.int32)
    yield "w", rows[:, None, None] + np.arange(6.0).reshape(3, 2) / 10


def test_a_whole_store_is_the_dataset_of_the_sweep(root):
    outputs = fill(root, ragged=False)
    expected = runs.dataset(SPACE, outputs, {"chunk": 3}, dims={"w": ("unit", "in")}, coords={"in": ["x", "y"]})
    found = open_store(root)
    xr.testing.assert_identical(found.load(), expected)
    xr.testing.assert_identical(xr.open_dataset(root), expected)
    assert found["count"].dtype == np.int32
    assert "count" not in xr.open_dataset(root, engine="jaxreg", drop_variables="count")


def test_ragged_outputs_are_padded_and_unfinished_ones_are_nan(root):
    outputs = fill(root, skip=(1,))
    found = open_store(root)
    finished = np.ones(SPACE.shape, bool)
    finished.reshape(-1)[SPACE.groups()[0].rows[3:6]] = False
    np.testing.assert_array_equal(found["finished"], finished)
    w = np.where(finished[..., None, None], outputs["w"].reshape(*SPACE.shape, 3, 2), np.nan)
    w[:, 0, :, 2:] = np.nan
    np.testing.assert_array_equal(found["w"], w)
    assert found["count"].dtype.kind == "f"
    np.testing.assert_array_equal(found["count"].values[finished], outputs["count"].reshape(SPACE.shape)[finished])
    assert np.isnan(found["count"].values[~finished]).all()
    assert found["diverged"].dtype == bool
    assert np.argwhere(found["diverged"].values).tolist() == [[0, 1, 1]]


KEYS = [
    (1, slice(None), slice(None, None, -2)),
    ([2, 0], 1, slice(1, 3), 0),
    ([2, 0], [1, 1], [3, 0], slice(None, None, 2), [1, 0]),
    (slice(0, 0),),
    (..., -1),
    (2, 1, 3, 2, 1),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_parts_are_read_as_of_an_array(root, key):
    fill(root, skip=(4,))
    lazy, whole = open_store(root)["w"], open_store(root)["w"].load()
    found, expected = lazy[key], whole[key]
    xr.testing.assert_identical(found, expected)
    pointwise = {"lam": xr.DataArray([0, 2, 0], dims="p"), "seed": xr.DataArray([3, 1, 0], dims="p")}
    xr.testing.assert_identical(open_store(root)["w"].isel(pointwise), whole.isel(pointwise))


def test_only_what_is_asked_for_is_read(root):
    fill(root)
    found = open_store(root)
    for chunk in (root / "chunks").glob("0000-00000[1-9].nc"):
        chunk.write_bytes(b"")
    assert found["loss"].sel(lam=0.0, opt="a")[:3].values.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"damaged.*run again"):
        found["loss"].load()


def test_a_store_is_shown_while_a_sweep_writes_it(root):
    space = configurations([{"lam": float(i)} for i in range(4)])
    with Store(root, {"arguments": ["lam"], "fixed": {}, "train": {}, "options": {}}) as store:
        with pytest.raises(ValueError, match="none yet"):
            open_store(root)
        store.describe(space, {"": {"loss": {"shape": [], "dtype": "float32"}}}, {})
        assert not open_store(root)["finished"].any()
        one, _ = store.extend([("", space.cells()[:2]), ("", space.cells()[2:])])
        store.write(one, {"loss": np.arange(2, dtype=np.float32)})
        found = pickle.loads(pickle.dumps(open_store(root)))
        np.testing.assert_array_equal(found["loss"], [0, 1, np.nan, np.nan])
        assert found["lam"].dims == ("config",)


def test_a_store_shows_all_that_was_run(root):
    fill(root)
    more = grid(lam=[0.0, 0.01, 0.1, 1.0], opt=["a", "b"], seed=range(4))
    fill(root, more)
    assert open_store(root).sizes["lam"] == 4
    fill(root, grid(lam=[0.1], opt=["b"], seed=[2]))  # a part: shown with the rest
    assert dict(open_store(root)["loss"].sizes) == {"lam": 4, "opt": 2, "seed": 4}
    fill(root, grid(lam=[5.0], opt=["a"], seed=[1]))  # no product contains both: a list of configurations
    assert dict(open_store(root)["loss"].sizes) == {"config": 33}
    assert open_store(root)["lam"].dims == ("config",)
    assert open_store(root)["finished"].all()


SEEDS = grid(seed=range(2))
EXTENSIONS = {  # the space before and after -> dims that show both
    "a longer axis": (grid(lam=[0.1, 1.0]) * SEEDS, grid(lam=[1.0, 2.0]) * SEEDS, {"lam": 3, "seed": 2}),
    "in another order": (grid(lam=[0.1]) * SEEDS, SEEDS * grid(lam=[2.0]), {"lam": 2, "seed": 2}),
    "batches": (
        configurations([{"lam": 0.1, "opt": "a"}, {"lam": 0.2}]) * SEEDS,
        configurations([{"lam": 0.2}, {"lam": 0.3, "opt": "b"}]) * SEEDS,
        {"config": 3, "seed": 2},
    ),
    "two axes": (grid(lam=[0.1]) * SEEDS, grid(lam=[1.0], seed=[2]), {"config": 3}),
    "other dims": (grid(lam=[0.1]) * SEEDS, configurations([{"lam": 0.1, "seed": 2}]), {"config": 3}),
}


@pytest.mark.parametrize("name", EXTENSIONS)
def test_what_is_a_product_is_shown_as_one(name):
    before, after, dims = EXTENSIONS[name]
    shown = Space.from_json(_joined(_joined(None, before), after))
    assert shown.sizes == dims
    cells = [dict(zip(sorted(s.arguments), cell, strict=True)) for s in (before, after) for cell in s.cells()]
    told = [dict(zip(sorted(shown.arguments), cell, strict=True)) for cell in shown.cells()]
    assert sorted(map(str, told)) == sorted({str({n: cell.get(n) for n in sorted(shown.arguments)}) for cell in cells})
    assert shown.cells()[0] == before.cells()[0]


@pytest.mark.parametrize("there", [True, False])
def test_no_store_is_told(tmp_path, there):
    path = tmp_path if there else tmp_path / "typo"
    with pytest.raises(ValueError, match=r"folder with 'sweep\.json'"):
        open_store(path)
