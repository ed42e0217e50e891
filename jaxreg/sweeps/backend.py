"""A store as a Dataset whose numbers are read when they are asked for."""

import os
from pathlib import Path

import numpy as np
import xarray
from xarray.backends import BackendArray, BackendEntrypoint
from xarray.core import indexing

from jaxreg.sweeps import netcdf
from jaxreg.sweeps import runs as _runs  # noqa: F401 (gives the Dataset its `best` and `summary`)
from jaxreg.sweeps.folder import chunk_path, load, load_plans
from jaxreg.sweeps.outputs import fill, merged
from jaxreg.sweeps.spaces import Space
from jaxreg.sweeps.store import DIVERGED


def open_store(path: str | os.PathLike, space: Space | None = None) -> xarray.Dataset:
    r"""The results in a store of `sweep`, while it runs, where it was killed, or when it is done.

    Nothing is locked and no code of the sweep is run. A variable is read from the finished chunks when its values are
    asked for, and only as much of it as asked for. `xarray.open_dataset(path, engine="jaxreg")` does the same.

    Args:
        path: the folder, `sweep`'s `store`.
        space: the configurations to show; None is all of them.

    Returns:
        A Dataset as `sweep` returns it, of all configurations of all runs on the store; a list of them, along 'config',
        where no product holds just these. Where some are not `finished`, their values are NaN, and integers and bools
        are floats. Outputs whose shape depends on static values are padded with NaN. `attrs` tell of the last call that
        trained anything: `models_run`, `compile_seconds` and `run_seconds` are its own, not sums over all calls.

    Raises:
        ValueError: if there is no store, nothing was run in it yet, or (when reading) a chunk is damaged.

    >>> import tempfile
    >>> import jaxreg as jr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = jr.sweep(lambda lam: {"loss": lam**2}, jr.grid(lam=[1.0, 2.0, 3.0]), store=folder)
    ...     open_store(folder)["loss"].sel(lam=[3.0, 1.0]).values.tolist()
    [9.0, 1.0]
    """
    return xarray.open_dataset(path, engine=SweepBackend, space=space)


class SweepBackend(BackendEntrypoint):
    """xarray's engine 'jaxreg'."""

    description = "Open stores of jaxreg's sweeps"
    open_dataset_parameters = ("filename_or_obj", "drop_variables", "space")

    def guess_can_open(self, filename_or_obj) -> bool:
        """Whether it is a folder that `sweep` wrote."""
        return isinstance(filename_or_obj, (str, os.PathLike)) and (Path(filename_or_obj) / "sweep.json").is_file()

    def open_dataset(self, filename_or_obj, *, drop_variables=None, space=None) -> xarray.Dataset:
        """The Dataset; see `open_store`."""
        root = Path(filename_or_obj)
        facts = load(root) if root.is_dir() else None
        if facts is None:
            raise ValueError(f"`open_store` needs a store of `sweep`, a folder with 'sweep.json'; got {root}.")
        if facts["space"] is None:
            raise ValueError(f"`open_store` needs a store in which a sweep was begun; {root} has none yet.")
        if space is not None:  # what its groups give, whatever others do
            facts["outputs"] = {g.name: facts["outputs"][g.name] for g in space.groups() if g.name in facts["outputs"]}
        space = Space.from_json(facts["space"]) if space is None else space
        halving = "halving" in facts["identity"]["options"]
        rows = _Rows(root, space, sorted(facts["identity"]["arguments"]).index("rung") if halving else None)
        dims = tuple(space.sizes)
        variables = {}
        for name, output in merged(facts["outputs"], whole=bool(rows.finished.all())).items():
            shape = space.shape + output["shape"]
            variables[name] = dims + output["dims"], _lazy(rows, name, shape, output["dtype"])
        variables[DIVERGED] = dims, _lazy(rows, DIVERGED, space.shape, np.dtype(bool))
        variables["finished"] = dims, rows.finished.reshape(space.shape)
        sizes = {dim: size for dims, data in variables.values() for dim, size in zip(dims, data.shape, strict=True)}
        coords = {name: (dim, values) for name, (dim, values) in space.coords().items()}
        coords |= {dim: (dim, v) for dim, v in facts["coords"].items() if len(v) == sizes.get(dim)}
        dropped = {drop_variables} if isinstance(drop_variables, str) else set(drop_variables or ())
        return xarray.Dataset(
            {name: variable for name, variable in variables.items() if name not in dropped},
            {name: coord for name, coord in coords.items() if name not in dropped},
            facts["attrs"],
        )


class _Rows:
    """Where in the chunk files each configuration of a space is."""

    def __init__(self, root: Path, space: Space, rung: int | None = None):
        self.root, self.shape = root, space.shape
        plans = load_plans(root)
        there = {entry.name for entry in os.scandir(root / "chunks")}
        places, highest = {}, {}
        self.tasks = []
        for plan, tasks in enumerate(plans):
            for i, task in enumerate(tasks):
                name = f"{plan:04d}-{i:06d}"
                if f"{name}.nc" in there:
                    for row, cell in enumerate(task["cells"]):
                        if rung is not None:  # of a configuration that went on from rung to rung, the last
                            cell, at = cell[:rung] + cell[rung + 1 :], cell[rung]
                            if at < highest.setdefault(tuple(cell), at):
                                continue
                            highest[tuple(cell)] = at
                        places[tuple(cell)] = len(self.tasks), row
                    self.tasks.append(name)
        found = [places.get(cell, (-1, 0)) for cell in space.cells()]
        self.task, self.row = np.array(found, np.int64).reshape(-1, 2).T
        self.finished = self.task >= 0

    def read(self, name: str, flat: np.ndarray, own: tuple[int, ...], key: tuple, dtype: np.dtype) -> np.ndarray:
        """An output of the configurations `flat`, (flat.size, *own[key]) with `key` for each axis on its own."""
        whole = np.full(own, np.nan if dtype.kind in "fc" else 0, dtype)
        out = np.repeat(_select(whole[None], key), flat.size, axis=0)
        order = np.argsort(self.task[flat], kind="stable")
        for at in np.split(order, np.flatnonzero(np.diff(self.task[flat][order])) + 1) if flat.size else ():
            task = self.task[flat[at[0]]]
            if task < 0:
                continue
            path = chunk_path(self.root, self.tasks[task])
            try:
                values = netcdf.read(path, [name], verify=False)[name][self.row[flat[at]]]
            except KeyError:  # an output of other groups
                continue
            except netcdf.Damaged as error:
                raise ValueError(f"{path} is damaged: {error}. The sweep, run again, replaces it.") from error
            if values.shape[1:] != own:
                part = np.repeat(whole[None], len(at), axis=0)
                fill(part, np.arange(len(at)), values)
                values = part
            out[at] = _select(values, key)
        return out


class _Output(BackendArray):
    """One output, read by configurations."""

    def __init__(self, rows: _Rows, name: str, shape: tuple[int, ...], dtype: np.dtype):
        self._rows, self._name, self.shape, self.dtype = rows, name, shape, dtype

    def __getitem__(self, key):
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple) -> np.ndarray:
        shape = self._rows.shape
        lead, own = key[: len(shape)], key[len(shape) :]
        index = [np.arange(n)[k] for n, k in zip(shape, lead, strict=True)]
        flat = np.ravel_multi_index(np.ix_(*map(np.atleast_1d, index)), shape)
        values = self._rows.read(self._name, flat.reshape(-1), self.shape[len(shape) :], own, self.dtype)
        return values.reshape(sum((i.shape for i in index), ()) + values.shape[1:])


def _lazy(rows, name, shape, dtype) -> indexing.LazilyIndexedArray:
    return indexing.LazilyIndexedArray(_Output(rows, name, shape, dtype))


def _select(values: np.ndarray, key: tuple) -> np.ndarray:
    """Index each axis but the first on its own; from the last, as an integer takes its axis away."""
    for axis in reversed(range(len(key))):
        values = values[(slice(None),) * (axis + 1) + (key[axis],)]
    return values
