"""The engine: trace once a group, choose chunks, compute those that are not finished yet, put the results together."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import jax
from jax.sharding import NamedSharding, PartitionSpec

from jaxreg.sweeps import arguments
from jaxreg.sweeps.competition import compete, extent
from jaxreg.sweeps.farm import Farm
from jaxreg.sweeps.fixed import Fixed
from jaxreg.sweeps.grids import as_space
from jaxreg.sweeps.memory import Memory
from jaxreg.sweeps.plan import Plan
from jaxreg.sweeps.processes import agreed, check_same, exchange, share, share_plans, together
from jaxreg.sweeps.program import Program, mesh_of
from jaxreg.sweeps.progress import Bar, Progress, tell
from jaxreg.sweeps.results import collect
from jaxreg.sweeps.running import specification
from jaxreg.sweeps.trainable import Trainable
from jaxreg.sweeps.work import Work

if TYPE_CHECKING:
    import xarray

log = logging.getLogger("jaxreg.sweeps")
FARMED = 32  # configurations in a chunk for workers, of which nothing is known here


def sweep(
    train: Callable | Trainable,
    space,
    *,
    chunk: int | None = None,
    store: str | os.PathLike | None = None,
    devices: Sequence[jax.Device] | None = None,
    executor=None,
    halving=None,
    memory: int | None = None,
    progress: bool | str | None = None,
    callbacks: Sequence[Callable] = (),
    **fixed,
) -> "xarray.Dataset":
    r"""Run `train` for every configuration of a space, as one vectorised program for each set of static values.

    Numbers of the space are batched; strings, functions, objects and what is in `static(...)` are compiled in: `train`
    is traced once and compiled once for each combination of those, the largest program first.

    The same program in chunks of the same size, on the same devices of the same machine, gives the same bits: whether
    the sweep runs through or is killed and goes on, and whatever the other configurations of a chunk do. Another size
    of the chunk may change the last bit of a result, as it may change the order in which XLA adds numbers up; so may
    other devices, another processor, or another version of JAX. Where `chunk` is None, another number of
    configurations may lead to another size.

    Args:
        train: a pure function, or a `Trainable`; the axes and `fixed` are its arguments, by name. It returns an array,
            or a (nested) dict of arrays; the same shapes for all numbers, others perhaps for other static values.
        space: the configurations: `grid(lam=..., lr=..., seed=range(3))`, `zipped`, `sample`, products and unions of
            them, or a list of dicts. Each number arrives as a traced scalar.
        chunk: how many configurations run at once; a multiple of the number of devices is taken. None chooses by the
            memory that the compiled program needs and by short trials (see `memory`; logged in "jaxreg.sweeps" and
            kept for the program).
        store: a folder. Every finished chunk is written there at once, and a run that was killed goes on from there to
            the same bits; a space with more values is extended. What was made by another `train` or other fixed
            arguments is refused. The result is read lazily from it, so it may be larger than memory.
        devices: where to run; None is every device of this process, which is all that one machine needs. For several
            machines, call `sweep` in each process of `jax.distributed`: each runs its share of the chunks, with a
            folder of its own or a common one, and all return all results. If one dies, start all again on the stores.
        executor: for a cluster with a scheduler of its own, machines that come and go, or a `train` that holds up its
            process: an executor of the form of `concurrent.futures` (process pools by spawn, loky, Dask's), Dask's
            client, or a function that makes one, which is called again when its workers die. A chunk is a task, of 32
            configurations if `chunk` is None, on all devices that the worker sees; `train` is pickled.
        halving: `halving(...)` or `hyperband(...)`: a `Trainable` trains on with the best alone.
        memory: bytes that a chunk may take; None is half of the free memory, or .8 of that of the accelerators.
        progress: True shows a bar, or lines in a log; the name of an output shows its least value so far as well. None
            shows a bar on a terminal and in a notebook once the sweep takes longer than two seconds, and what it is
            doing until then, unless `JAXREG_PROGRESS=0` is in the environment. False shows nothing.
        callbacks: functions of (done, total, chunk), called after each chunk of this process; `chunk` has the arguments
            and outputs of its configurations, name -> array.
        **fixed: further arguments of `train`. Arrays in them are arguments of the program, not constants in it;
            anything else is passed as it is.

    Returns:
        An `xarray.Dataset`. Its dims are those of the space, followed by `<name>_dim_0`, ... for outputs with axes of
        their own; names in nested outputs are joined by '.', written for '/' too; a bare array is called 'value'.
        `diverged` is True where a configuration has a non-finite output; its neighbours are not affected. Ctrl-C ends
        the sweep after the chunk that runs: `finished` is then False, and outputs NaN, for the rest. `attrs` say how
        long compiling and running took, in seconds. `runs.best(metric)` and `runs.summary()` tell what came out.

    Raises:
        ValueError: if the axes and `fixed` do not fit the arguments of `train`, `chunk` < 1, an output's name is taken,
            or the store was made by another sweep.
        TypeError: if `space` is no space, or an output is no array.

    >>> import jaxreg as jr
    >>> runs = sweep(lambda lam, seed: {"loss": lam * seed}, jr.grid(lam=[0.5, 2.0], seed=range(3)))
    >>> runs["loss"].sel(lam=2.0).values.tolist()
    [0.0, 2.0, 4.0]
    """
    space = as_space(space)
    arguments.check_options(
        train,
        space,
        chunk=(chunk, None),
        store=(store, None),
        devices=(devices, None),
        executor=(executor, None),
        halving=(halving, None),
        memory=(memory, None),
        progress=(progress, None),
        callbacks=(callbacks, ()),
    )
    groups = space.groups()
    arguments.check_arguments(train, space, groups, fixed)
    if halving is not None:
        arguments.check_halving(halving, train, space)
    arguments.check_places(devices, executor, halving)

    with Progress("sweep", shown=progress is None and jax.process_index() == 0) as report:
        options = chunk, store, devices, executor, halving, memory, progress, callbacks
        return _run(train, space, groups, fixed, report, *options)


def _run(
    train, space, groups, fixed, report, chunk, store, devices, executor, halving, memory, progress, callbacks
) -> "xarray.Dataset":
    began = time.perf_counter()
    report("tracing")
    mesh = mesh_of(jax.local_devices() if devices is None else devices)
    held = Fixed(fixed)
    shared = jax.device_put(held.arrays, NamedSharding(mesh, PartitionSpec()))
    programs, dtypes = {}, {}
    for group in groups:
        numbers = space.numbers(group.numbers, group.rows)
        dtypes[group.name] = {name: arguments.check_numbers(name, values) for name, values in numbers.items()}
        programs[group.name] = Program(train, group.static, dtypes[group.name], held, shared, mesh, group.name)
    outputs = {name: specification(program) for name, program in programs.items()}
    arguments.check_outputs(space, outputs)
    if unused := sorted(set.intersection(*(program.unused for program in programs.values()))):
        log.warning("No output of `train` depends on %s: its values give equal results.", ", ".join(unused))
    for option, metric in (("progress", progress), ("halving", getattr(halving, "metric", None))):
        if isinstance(metric, str):
            arguments.check_metric(option, metric, outputs)
    farm = None
    if executor is not None:
        farm = Farm(executor, train, programs, {group.name: group.static for group in groups}, dtypes, fixed)

    process, processes = jax.process_index(), jax.process_count()
    names = sorted([*space.arguments, *(["rung"] if halving is not None else [])])
    steps, every = (train.steps, train.every) if isinstance(train, Trainable) else (1, 1)
    if processes > 1:
        texts = [program.text for program in programs.values()]
        told = {"the space": space.cells(), "`train`": texts, "fixed arguments": held.describe(), "`chunk`": chunk}
        check_same(told | {"`store`, given or not": store is None})
    with together(lambda: _records(store, space, names, held, programs, halving, process)) as records:
        share_plans(records)
        plan = Plan(space, groups, programs, records, chunk or (FARMED if farm else None), memory, agreed)
        work = Work(programs, dtypes, records, names, farm=farm)
        work.metric, work.callbacks = progress if isinstance(progress, str) else None, callbacks
        missing = len({cell for cell in plan.cells if cell not in records.cells})
        report(f"running {missing} configurations")
        if progress and process == 0 and missing:
            tell(f"{missing} configurations, {len(programs)} program{'s' * (len(programs) > 1)} to compile")
        coords = {"step": list(range(every, steps + 1, every))} if isinstance(train, Trainable) else {}
        records.describe(space, outputs, {}, coords)
        everyones = together(lambda: plan.tasks(plan.cells)) if halving is None else []
        tasks = share(everyones, records)
        work.total = sum(len(records.tasks[task]) for task in tasks) if halving is None else len({*plan.cells})
        work.done = sum(len(records.tasks[task]) for task in tasks if records.finished(task))
        before = work.done
        expected = work.total * steps if halving is None else extent(plan, halving, steps, every)
        waited = sum(program.waited for program in programs.values())
        prepared = time.perf_counter()
        if plan.chunks:
            records.describe(space, {}, {"chunk": _told(plan.chunks)})
        unit = "step" if isinstance(train, Trainable) else "model"
        with Bar(expected, progress if process == 0 else False, unit, work.done * steps, report) as work.bar:
            if halving is None:
                together(lambda: work.run(tasks, end=steps))
            else:
                compete(work, plan, halving, steps, every)
        compiling = prepared - began + sum(program.waited for program in programs.values()) - waited
        running = time.perf_counter() - began - compiling
        attrs = {"chunk": _told(plan.chunks)} if plan.chunks else {}
        attrs |= {"models_run": sum(exchange(work.done - before)), "compile_seconds": compiling, "run_seconds": running}
        # where all was done before, the times that were told then hold
        records.describe(space, {}, attrs if work.done > before else {"chunk": attrs["chunk"]})
        if work.interrupted:
            log.warning("Stopped: %d of %d configurations are done.", work.done, work.total)
        if store is not None and (processes == 1 or all(exchange(all(map(records.finished, everyones))))):
            from jaxreg.sweeps.backend import open_store

            return open_store(store, space=space)
        found, finished = collect(records, plan.cells, names, outputs)
    from jaxreg.sweeps import runs

    diverged, dims = found.pop("diverged"), {k: out["dims"] for group in outputs.values() for k, out in group.items()}
    return runs.dataset(space, found, attrs, finished=finished, diverged=diverged, dims=dims, coords=coords)


def _told(sizes: dict[str, int]) -> int | str:
    return next(iter(sizes.values())) if len(sizes) == 1 else json.dumps(sizes)


def _records(store, space, names, fixed, programs, halving, process):
    if store is None:
        return Memory()
    from jaxreg.sweeps.store import Store

    options = {"static": ", ".join(sorted({name for group in space.groups() for name in group.static}))}
    if halving is not None:  # who goes on depends on all of the configurations, and on their order
        options["halving"] = repr(halving)
        options["configurations"] = _hash(map(repr, space.cells()))
    train = {name: program.text for name, program in programs.items()}
    identity = {"arguments": names, "fixed": fixed.describe(), "train": train, "options": options}
    return Store(store, identity, process=process)


def _hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
