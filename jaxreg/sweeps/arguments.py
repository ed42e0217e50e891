"""What is asked of `sweep`, checked before anything runs."""

import os

import jax
import numpy as np

from jaxreg.sweeps.halving import Promotion
from jaxreg.sweeps.outputs import merged
from jaxreg.sweeps.spaces import Group, Space
from jaxreg.sweeps.trainable import Named, Trainable

OWN = ("diverged", "finished")  # the variables that `sweep` adds


def check_options(train, space: Space, **options) -> None:
    """What the options can be; and where `train` has an argument of the same name, that it is not meant.

    Args:
        train: the function or `Trainable`.
        space: the configurations.
        **options: name -> (value, its default).
    """
    names = {name for part in _parts(train) for name in part.names} - {*space.arguments}
    clash = sorted(name for name, (value, default) in options.items() if name in names and value is not default)
    if clash:
        raise ValueError(
            f"`sweep` needs arguments of `train` named unlike its own options, got {clash}, which went to `sweep`; "
            "rename the arguments, or give their values by `functools.partial(train, ...)`."
        )
    chunk, memory, store = (options[name][0] for name in ("chunk", "memory", "store"))
    for name, value in (("chunk", chunk), ("memory", memory)):
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if value is not None and not (whole and value >= 1):
            raise ValueError(f"`sweep` needs `{name}` to be an integer >= 1 or None, got {value!r}.")
    if store is not None and not isinstance(store, (str, os.PathLike)):
        raise TypeError(f"`sweep` needs a path as `store`, got {store!r}.")
    callbacks = options["callbacks"][0]
    if not (isinstance(callbacks, (list, tuple)) and all(map(callable, callbacks))):
        raise TypeError(f"`sweep` needs a list of functions as `callbacks`, got {callbacks!r}.")


def _parts(train) -> list[Named]:
    return train.parts if isinstance(train, Trainable) else [Named(train)]


def check_arguments(train, space: Space, groups: list[Group], fixed: dict) -> None:
    """Each argument of `train` comes once, from the space or from what is fixed, in every group."""
    taken = sorted({*space.arguments, *space.sizes} & {*OWN})
    if taken:
        raise ValueError(f"`sweep` needs axes named unlike its own variables, got {taken}.")
    clash = sorted({*space.arguments} & fixed.keys())
    if clash:
        raise ValueError(f"`sweep` needs each argument of `train` once, got {clash} both as axis and as fixed.")
    parts = _parts(train)
    names = [*dict.fromkeys(name for part in parts for name in part.names)]
    if not any(part.any for part in parts):
        for name in [*space.arguments, *fixed]:
            if name not in names:
                kind = "fixed argument" if name in fixed else "grid axis"
                raise ValueError(f"`sweep` needs each {kind} to be an argument of `train`, {names}; got {name!r}.")
    required = dict.fromkeys(name for part in parts for name in part.required)
    for group in groups:
        missing = [name for name in required if name not in {*group.numbers, *group.static, *fixed}]
        if missing:
            where = f" (with {group.name})" if group.name else ""
            raise ValueError(
                f"`sweep` needs an axis or a fixed argument for each argument of `train`; missing: {missing}{where}."
            )


def check_numbers(name: str, values: np.ndarray) -> np.dtype:
    """The dtype in which numbers of an axis reach the devices; integers keep their value."""
    dtype = jax.dtypes.canonicalize_dtype(values.dtype)
    if np.issubdtype(values.dtype, np.integer) and not np.array_equal(values, values.astype(dtype)):
        raise ValueError(f"`sweep` needs integers that fit {dtype} for {name!r}, got {values}; or enable x64.")
    return dtype


def check_outputs(space: Space, groups: dict[str, dict]) -> None:
    """Outputs have names of their own, and as many axes in each group."""
    taken = [*dict.fromkeys([*space.arguments, *space.sizes, *OWN])]
    for outputs in groups.values():
        for name in outputs:
            if name in taken:
                raise ValueError(f"`sweep` needs outputs named unlike {taken}, got {name!r}.")
        dims = {dim: None for output in outputs.values() for dim in output["dims"]}
        clash = sorted(dims.keys() & {*taken})
        if clash:
            raise ValueError(f"`sweep` needs axes named unlike the dims of outputs, {[*dims]}; got {clash}.")
        names = [*outputs, *dims]
        if len({*names}) < len(names):
            raise ValueError(f"`sweep` needs outputs and dims with distinct names, got {names}.")
    merged(groups)


def check_halving(halving, train, space: Space) -> None:
    """Something that can be run in part, by rungs that fit it."""
    if not isinstance(train, Trainable):
        raise TypeError(f"`sweep` needs a `Trainable` for `halving`, got {train!r}.")
    if not isinstance(halving, Promotion):
        raise TypeError(f"`sweep` needs `halving(...)` or `hyperband(...)` for `halving`, got {halving!r}.")
    if halving.over is not None and halving.over not in space.arguments:
        raise ValueError(f"`sweep` needs `over` to be one of {[*space.arguments]}, got {halving.over!r}.")
    if "rung" in {*space.arguments, *space.sizes}:
        raise ValueError("`sweep` needs axes named unlike 'rung', which is its own with `halving`.")
    halving.brackets(space.size, train.steps, train.every)


def check_places(devices, executor, halving) -> None:
    """Where a sweep can run."""
    if devices is not None:
        if not isinstance(devices, (list, tuple)) or not all(isinstance(device, jax.Device) for device in devices):
            raise TypeError(f"`sweep` needs a list of devices as `devices`, such as `jax.devices()`; got {devices!r}.")
        here = jax.local_devices() if len(devices) == 0 else jax.local_devices(backend=devices[0].platform)
        if len(devices) == 0 or len({*devices}) < len(devices) or not {*devices} <= {*here}:
            raise ValueError(f"`sweep` needs distinct `devices` of one kind of this process, {here}; got {devices}.")
    for name, option in (("executor", executor), ("halving", halving)):
        if option is not None and jax.process_count() > 1:
            raise ValueError(f"`sweep` needs a single process for `{name}`, got {jax.process_count()}.")
    for name, option in (("halving", halving), ("devices", devices)):
        if executor is not None and option is not None:
            raise ValueError(
                f"`sweep` needs no `{name}` with an `executor`, whose workers train to the end where they are."
            )


def check_metric(name: str, metric: str, groups: dict[str, dict]) -> None:
    """A metric is a real number that every group has."""
    for outputs in groups.values():
        if metric not in outputs or outputs[metric]["shape"] or np.dtype(outputs[metric]["dtype"]).kind == "c":
            numbers = [name for name, output in outputs.items() if not output["shape"]]
            raise ValueError(
                f"`sweep` needs `{name}` to name a number that `train` returns, {numbers}; got {metric!r}."
            )
