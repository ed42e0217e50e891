"""The engine: trace once, compile once, run a chunk of configurations at a time."""

import inspect
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.sweeps.grid import Grid

if TYPE_CHECKING:
    import xarray


def sweep(
    train: Callable, grid: Grid, *, chunk: int | None = None, progress: bool = False, **fixed
) -> "xarray.Dataset":
    r"""Run `train` for every configuration of a grid, as one vectorised program.

    `train` is traced once, whatever the number of configurations, and `vmap`ped over a chunk of them at a time.

    Args:
        train: a pure function; the grid's axes and `fixed` are its arguments, by name. It returns an array, or a
            (nested) dict of arrays; the same shapes for every configuration.
        grid: the configurations, `jr.grid(lam=..., lr=..., seed=...)`. Each value arrives as a traced scalar.
        chunk: how many configurations run at once (memory grows with it); None runs all at once. Another chunk may
            change results by rounding, the same one does not.
        progress: show a progress bar (tqdm's where it is installed, else plain lines), a tick per chunk.
        **fixed: further arguments of `train`. Arrays in them are arguments of the program, not constants in it;
            anything else is passed as it is.

    Returns:
        An `xarray.Dataset`. Its dims are the grid's axes, followed by `<name>_dim_0`, ... for outputs with axes of
        their own; names in nested outputs are joined by '.', a bare array is called 'value'. `diverged` is True where a
        configuration has a non-finite output; its neighbours are not affected. `attrs` say how long compiling and
        running took, in seconds.

    Raises:
        ValueError: if the axes and `fixed` do not fit the arguments of `train`, `chunk` < 1, or an output's name is
            taken.
        TypeError: if `grid` is no grid, or an output is no array.

    >>> import jaxreg as jr
    >>> runs = sweep(lambda lam, seed: {"loss": lam * seed}, jr.grid(lam=[0.5, 2.0], seed=range(3)))
    >>> runs["loss"].sel(lam=2.0).values.tolist()
    [0.0, 2.0, 4.0]
    """
    _check(train, grid, chunk, fixed)
    size = grid.size
    chunk = min(int(chunk or size), size)

    leaves, structure = jax.tree.flatten(fixed)
    is_array = [isinstance(leaf, (jax.Array, np.ndarray)) and leaf.dtype.kind not in "OSUMm" for leaf in leaves]
    arrays = jax.device_put([leaf for leaf, array in zip(leaves, is_array, strict=True) if array])

    def run_chunk(configurations, arrays):
        arrays = iter(arrays)
        merged = [next(arrays) if array else leaf for leaf, array in zip(leaves, is_array, strict=True)]
        rest = jax.tree.unflatten(structure, merged)
        return jax.vmap(lambda configuration: _arrays(train(**configuration, **rest)))(configurations)

    start = time.perf_counter()
    lowered = jax.jit(run_chunk).lower(_inputs(grid, 0, chunk), arrays)
    names = _output_names(lowered.out_info, grid)
    compiled = lowered.compile()
    compiled_at = time.perf_counter()

    outputs = [np.empty((size, *out.shape[1:]), _stored(out.dtype)) for out in jax.tree.leaves(lowered.out_info)]
    with _Bar(size, progress) as bar:
        for first in range(0, size, chunk):
            count = min(chunk, size - first)
            results = jax.tree.leaves(compiled(_inputs(grid, first, chunk), arrays))
            for output, result in zip(outputs, results, strict=True):
                output[first : first + count] = np.asarray(result)[:count]
            bar.update(count)
    finished = time.perf_counter()

    seconds = {"compile_seconds": compiled_at - start, "run_seconds": finished - compiled_at}
    return _dataset(grid, dict(zip(names, outputs, strict=True)), {"chunk": chunk, **seconds})


def _check(train, grid, chunk, fixed) -> None:
    if not isinstance(grid, Grid):
        raise TypeError(f"`sweep` needs a grid made by `grid(...)`, got {grid!r}.")
    whole = isinstance(chunk, (int, np.integer)) and not isinstance(chunk, bool)
    if chunk is not None and not (whole and chunk >= 1):
        raise ValueError(f"`sweep` needs `chunk` >= 1 or None, got {chunk!r}.")
    if "diverged" in grid.axes:
        raise ValueError("`sweep` needs axes named unlike its own variable 'diverged'.")
    for name, values in grid.axes.items():
        if np.issubdtype(values.dtype, np.integer) and not np.array_equal(values, values.astype(_device_dtype(values))):
            raise ValueError(
                f"`sweep` needs integers that fit {_device_dtype(values)} for {name!r}, got {values}; or enable x64."
            )
    clash = sorted(grid.axes.keys() & fixed.keys())
    if clash:
        raise ValueError(f"`sweep` needs each argument of `train` once, got {clash} both as axis and as fixed.")
    given = [*grid.axes, *fixed]
    parameters = inspect.signature(train).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [p.name for p in named]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in given:
            if name not in names:
                kind = "grid axis" if name in grid.axes else "fixed argument"
                raise ValueError(f"`sweep` needs each {kind} to be an argument of `train`, {names}; got {name!r}.")
    missing = [p.name for p in named if p.default is p.empty and p.name not in given]
    if missing:
        raise ValueError(f"`sweep` needs an axis or a fixed argument for each argument of `train`; missing: {missing}.")


def _device_dtype(values: np.ndarray) -> np.dtype:
    return jax.dtypes.canonicalize_dtype(values.dtype)


def _arrays(outputs):
    for leaf in jax.tree.leaves(outputs):
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float, complex)):
            raise TypeError(f"`sweep` needs `train` to return arrays, got {leaf!r}.")
    return outputs


def _inputs(grid: Grid, first: int, chunk: int) -> dict[str, jax.Array]:
    # Past the end the last configuration runs again: every chunk has the shape that was compiled.
    return {name: jnp.asarray(values) for name, values in grid.rows(first, first + chunk).items()}


def _output_names(outputs, grid: Grid) -> list[str]:
    paths, _ = jax.tree_util.tree_flatten_with_path(outputs)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") or "value" for path, _ in paths]
    for name, (_, out) in zip(names, paths, strict=True):
        if jnp.issubdtype(out.dtype, jax.dtypes.extended):
            raise TypeError(f"`sweep` needs `train` to return numbers, got {out.dtype} as {name!r}.")
        if name in grid.axes or name == "diverged" or "/" in name:
            taken = [*grid.axes, "diverged"]
            raise ValueError(f"`sweep` needs outputs named unlike {taken} and without '/', got {name!r}.")
    own = [dim for name, (_, out) in zip(names, paths, strict=True) for dim in _own_dims(name, len(out.shape) - 1)]
    if len({*names, *own}) < len(names) + len(own):
        raise ValueError(f"`sweep` needs outputs and dims with distinct names, got {names + own}.")
    return names


def _own_dims(name: str, number: int) -> list[str]:
    return [f"{name}_dim_{i}" for i in range(number)]


def _stored(dtype) -> np.dtype:
    """NumPy's dtype for an output: those it does not know, such as bfloat16, become float32."""
    return np.dtype(dtype) if np.dtype(dtype).kind in "biufc" else np.dtype(np.float32)


def _dataset(grid: Grid, outputs: dict[str, np.ndarray], attrs: dict) -> "xarray.Dataset":
    import xarray

    diverged = np.zeros(grid.size, bool)
    variables = {}
    for name, output in outputs.items():
        diverged |= ~np.isfinite(output.reshape(grid.size, -1)).all(1)
        dims = [*grid.axes, *_own_dims(name, output.ndim - 1)]
        variables[name] = (dims, output.reshape(grid.shape + output.shape[1:]))
    variables["diverged"] = ([*grid.axes], diverged.reshape(grid.shape))
    return xarray.Dataset(variables, coords=grid.axes, attrs=attrs)


class _Bar:
    """Progress over the configurations: tqdm's bar, or a plain line per chunk without tqdm."""

    def __init__(self, total: int, show: bool):
        self._total, self._done, self._start, self._show, self._bar = total, 0, time.perf_counter(), show, None
        if show:
            try:
                from tqdm.auto import tqdm

                self._bar = tqdm(total=total, unit="model", desc="sweep")
            except ImportError:
                pass

    def update(self, count: int) -> None:
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._show:
            rate = self._done / (time.perf_counter() - self._start)
            left = (self._total - self._done) / rate
            print(f"sweep: {self._done}/{self._total} models, {rate:.1f} models/s, {left:.0f} s left", file=sys.stderr)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()
