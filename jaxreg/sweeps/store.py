"""A folder of finished chunks."""

import contextlib
import copy
import json
import threading
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from jaxreg.sweeps import netcdf
from jaxreg.sweeps.files import Lock, read_json, remove_leftovers, set_aside, write_file, write_json
from jaxreg.sweeps.folder import blank, check_folder, chunk_path, load, load_plans
from jaxreg.sweeps.identity import check_identity, merged_identity
from jaxreg.sweeps.outputs import nonfinite
from jaxreg.sweeps.spaces import Dim, Space

DIVERGED = "diverged"


class Store:
    """The chunks of a sweep that are done, and what makes them those of this sweep; locked while it is open.

    Safe for one thread that writes and one that reads. Opening it runs no code: JSON, NetCDF and plain numbers.

    Args:
        path: the folder; made where there is none.
        identity: what a chunk depends on: {"arguments": [names], "fixed": {path: text},
            "train": {group: text of its jaxpr}, "options": {name: text}}.
        process: the index of this process in a run of several.

    Raises:
        ValueError: if another sweep made the store (what differs is told, nothing is touched), the folder is no store,
            a newer version wrote it, or another process has it open.
        OSError: if the folder cannot be made or written.
    """

    def __init__(self, path, identity: dict, *, process: int = 0):
        self.path = Path(path).expanduser()
        self._process = process
        self._mutex = threading.Lock()
        self._finished: set[str] = set()
        self.cells: dict[tuple, tuple[str, int]] = {}
        self.tasks: dict[str, list[tuple]] = {}
        self.group: dict[str, str] = {}
        self._plans = 0

        with self._writing(self.path):
            check_folder(self.path)
            check_identity(self.path, load(self.path), identity)  # before anything is touched
            for folder in ("plans", "chunks", "carries"):
                (self.path / folder).mkdir(parents=True, exist_ok=True)
            self._lock = Lock(self.path / f"lock-{process}")
        try:
            self._open(identity)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, identity: dict) -> None:
        check_identity(self.path, load(self.path), identity)  # again: another process may have made it just now
        self._update(lambda facts: facts.update(identity=merged_identity(facts["identity"], identity)))
        with self._writing(self.path):
            remove_leftovers(self.path, self._process)
        self._arguments = sorted(identity["arguments"])
        for tasks in load_plans(self.path):
            self._add(tasks)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Release the lock."""
        self._lock.release()

    # Plans

    def extend(self, tasks: list[tuple[str, list[tuple]]]) -> list[str]:
        """Plan further tasks, (group, cells) each; their ids. On the disk before it returns, all or none."""
        if not tasks:
            return []
        new = [cell for _, cells in tasks for cell in cells]
        if len({*new, *self.cells}) < len(new) + len(self.cells):
            raise ValueError("`Store.extend` needs cells that no plan has, each once.")
        planned = [{"group": group, "cells": [list(cell) for cell in cells]} for group, cells in tasks]
        plan = {"arguments": self._arguments, "tasks": planned}
        path = self.path / "plans" / f"{self._plans:04d}.json"
        # Listed before looking for the plan: chunks that another process of this run writes by it are not among them.
        orphans = list((self.path / "chunks").glob(f"{self._plans:04d}-*.nc"))
        if not path.exists():
            with self._writing(path):
                for orphan in orphans:
                    set_aside(orphan, "its plan is lost")
                write_json(path, plan, self._process)
        elif read_json(path) != plan:
            raise ValueError(f"`sweep` needs the same plan in each process of a run; {path} is another one.")
        return self._add(planned)

    def _add(self, tasks: list[dict]) -> list[str]:
        ids = [f"{self._plans:04d}-{i:06d}" for i in range(len(tasks))]
        for id, task in zip(ids, tasks, strict=True):
            self.group[id] = task["group"]
            self.tasks[id] = [tuple(cell) for cell in task["cells"]]
            self.cells.update({cell: (id, row) for row, cell in enumerate(self.tasks[id])})
        self._plans += 1
        return ids

    # Chunks

    def finished(self, task: str) -> bool:
        """Whether the chunk is there, whole; a damaged one is set aside and counts as missing."""
        if task in self._finished:
            return True
        path = chunk_path(self.path, task)
        expected = _columns(self._arguments, self.tasks[task])
        try:
            found = netcdf.read(path, expected)
            if not all(_same(found[name], expected[name]) for name in expected):
                raise netcdf.Damaged("it has other configurations than planned")
        except FileNotFoundError:
            return False
        except (netcdf.Damaged, KeyError) as error:
            with self._writing(path):
                set_aside(path, error)
            return False
        self._finished.add(task)
        return True

    def write(self, task: str, outputs: dict[str, np.ndarray]) -> None:
        """Write the outputs, (rows, ...) each, of a finished task; 'diverged' is added where it is not among them."""
        if DIVERGED not in outputs:
            outputs = {DIVERGED: nonfinite(outputs, len(self.tasks[task])), **outputs}
        variables = {**outputs, **_columns(self._arguments, self.tasks[task])}
        image = netcdf.encode(variables, {"group": self.group[task]})
        path = chunk_path(self.path, task)
        with self._writing(path):
            write_file(path, lambda file: file.write(image), self._process)
        self._finished.add(task)

    def read(self, task: str, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """The outputs of a finished task; or some of them, 'diverged' only where it is named."""
        found = netcdf.read(chunk_path(self.path, task), names)
        return {name: found[name] for name in found if names is not None or name not in {DIVERGED, *self._arguments}}

    # Carries

    def write_carry(self, task: str, step: int, leaves: list[np.ndarray]) -> None:
        """Keep the state of an unfinished task, in the place of the one before."""
        arrays = {f"leaf{i}": _native(leaf) for i, leaf in enumerate(leaves)}
        dtypes = np.array([leaf.dtype.name for leaf in leaves], str)
        path = self._carry_path(task)
        with self._writing(path):
            write_file(path, lambda file: np.savez(file, step=step, dtypes=dtypes, **arrays), self._process)

    def read_carry(self, task: str) -> tuple[int, list[np.ndarray]] | None:
        """The step and the state that was kept last, if any."""
        path = self._carry_path(task)
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                dtypes = [jax.numpy.dtype(name) for name in file["dtypes"].tolist()]
                return int(file["step"]), [file[f"leaf{i}"].view(dtype) for i, dtype in enumerate(dtypes)]
        except FileNotFoundError:
            return None
        except (OSError, MemoryError):
            raise
        except Exception as error:  # damage surfaces as errors of many types, from zipfile, zlib and numpy
            with self._writing(path):
                set_aside(path, error)
            return None

    def drop_carry(self, task: str) -> None:
        """Forget the state of a task."""
        path = self._carry_path(task)
        with self._writing(path):
            path.unlink(missing_ok=True)

    def _carry_path(self, task: str) -> Path:
        return self.path / "carries" / f"{task}.npz"

    # Facts

    def remember(self, key: str, value) -> None:
        """Keep a fact that JSON can hold."""
        self._update(lambda facts: facts["choices"].update({key: value}))

    def recall(self, key: str):
        """A fact that was kept, else None."""
        return load(self.path)["choices"].get(key)

    def describe(self, space, outputs: dict[str, dict], attrs: dict, coords: dict | None = None) -> None:
        """What `open_store` shows: every configuration of every space so far, and the outputs of every group.

        Args:
            space: the configurations.
            outputs: {group: {output: {"shape": [...], "dtype": "float32"}}}, and "dims" where its axes have names.
            attrs: of the dataset, in place of those before.
            coords: of those dims, {name: list}.
        """

        def add(facts):
            facts["space"] = _joined(facts["space"], space)
            facts["outputs"].update(outputs)
            facts["attrs"].update(attrs)
            facts["coords"].update(coords or {})

        self._update(add)

    def _update(self, change) -> None:
        path = self.path / "sweep.json"
        with self._mutex, self._writing(path):
            before = load(self.path)
            facts = copy.deepcopy(before) or blank()
            change(facts)
            facts = json.loads(json.dumps(facts))
            if facts != before:
                write_json(path, facts, self._process)

    @contextlib.contextmanager
    def _writing(self, path: Path):
        try:
            yield
        except OSError as error:
            count = sum(1 for _ in (self.path / "chunks").glob("*.nc"))
            safe = f" The {count} finished chunks are safe; the same call resumes." if count else ""
            raise OSError(error.errno, f"`sweep` cannot write {path}: {error.strerror}.{safe}") from error


def _columns(names: list[str], cells: list[tuple]) -> dict[str, np.ndarray | list[str]]:
    columns = {}
    for name, values in zip(names, zip(*cells, strict=True), strict=True):
        numbers = np.array([np.nan if value is None else value for value in values])
        if numbers.dtype.kind not in "biufc":
            columns[name] = ["" if value is None else str(value) for value in values]
        elif any(value is not None for value in values):
            columns[name] = numbers
    return columns


def _same(one, two) -> bool:
    if isinstance(one, list) or isinstance(two, list):
        return one == two
    return one.dtype == two.dtype and one.tobytes() == two.tobytes()


def _native(leaf: np.ndarray) -> np.ndarray:
    # NumPy's files know its own dtypes; bfloat16 and the like go as unsigned integers of their size.
    return leaf.view(f"u{leaf.dtype.itemsize}") if leaf.dtype.kind not in "biufc" else leaf


def _joined(known: dict | None, space: Space) -> dict:
    if known is None:
        return space.to_json()
    old, new = Space.from_json(known), Space.from_json(space.to_json())
    old_cells, new_cells = set(old.cells()), set(new.cells())
    if old_cells <= new_cells:
        return new.to_json()
    if new_cells <= old_cells:
        return known
    product = _product(old, new)
    if product is not None and product.size == len(old_cells | new_cells):
        return product.to_json()
    return (old | new).to_json()


def _product(old: Space, new: Space) -> Space | None:
    """Both spaces' values along each dim, the old ones first; None if they have other dims."""
    mine, others = ({dim.name: dim for dim in space.dims} for space in (old, new))
    if {name: {*dim.columns} for name, dim in mine.items()} != {name: {*dim.columns} for name, dim in others.items()}:
        return None
    dims = {name: (Space((mine[name],)) | Space((others[name],))).dims[0] for name in mine}
    return Space(tuple(Dim(name, dim.columns) for name, dim in dims.items()))
