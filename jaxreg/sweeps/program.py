"""`train` with one set of static values: traced once for one configuration, compiled for chunks of any size."""

import concurrent.futures
import contextlib
import hashlib
import logging
import os
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun
from jax.sharding import NamedSharding, PartitionSpec

from jaxreg.sweeps.configuration import configuration, in_configuration, told
from jaxreg.sweeps.fixed import Fixed, digest, without_addresses
from jaxreg.sweeps.jaxprs import constants, operations
from jaxreg.sweeps.trainable import Named, Trainable, strong

AXIS = "configurations"
_EXECUTABLES: dict = {}  # of the last programs, so that the batches of a search compile once
_KEPT = 32
# Programs with these are not kept: their text does not show all of them.
_HIDING = "callback", "pallas", "custom_vmap", "ffi_call", "custom_partitioning", "compute_on"
_sharing = threading.Lock()
log = logging.getLogger("jaxreg.sweeps")


def mesh_of(devices) -> jax.sharding.Mesh:
    """All devices in a row."""
    return jax.sharding.Mesh(np.array(devices), (AXIS,))


class Part:
    """A function of (one configuration's arrays, shared arrays), vectorised over configurations and sharded.

    Args:
        function: (lane, shared) -> pytree of arrays.
        lane: pytree of `ShapeDtypeStruct`, for one configuration.
        shared: pytree of arrays or `ShapeDtypeStruct`.
        mesh: the devices.
        name: how messages call the group.
        donate: whether the memory of the lanes' first entry can be used for the results.
    """

    def __init__(self, function, lane, shared, mesh, name="", donate=False):
        # Traced for a single configuration: shapes, the text of the program and its vectorised form all come from this.
        traced = jax.jit(function).trace(lane, shared)
        self.out = traced.out_info
        self.jaxpr = traced.jaxpr
        self._lane, self._shared, self._mesh, self._name, self._donate = lane, shared, mesh, name, donate
        self._lowered, self._executables, self._compiling = {}, {}, threading.Lock()
        self.waited = 0.0
        held = "".join(f"\n{digest(constant)}" for constant in constants(self.jaxpr))
        self.text = f"{told()}\n{without_addresses(self.jaxpr.pretty_print(use_color=False))}{held}"
        if "impl=rbg" in self.text or "impl=unsafe_rbg" in self.text:
            log.warning("rbg keys draw by chunk, not by configuration: results depend on the chunk. threefry's do not.")
        self.fingerprint = hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @property
    def unused(self) -> set[str]:
        """The numbers of a configuration that the program does not read."""
        read = {id(v) for equation in self.jaxpr.eqns for v in equation.invars} | {*map(id, self.jaxpr.jaxpr.outvars)}
        names = jax.tree.unflatten(jax.tree.structure((self._lane, self._shared)), self.jaxpr.jaxpr.invars)[0][1]
        return {name for name, variable in names.items() if id(variable) not in read}

    def lower(self, size: int) -> None:
        """Prepare the program for `size` configurations, so that another thread can compile it."""
        if size not in self._executables and self._known(size) is None and size not in self._lowered:
            one, structure = jaxpr_as_fun(self.jaxpr), jax.tree.structure(self.out)

            def chunk(first, rest, shared):
                def run(first, rest):
                    return jax.tree.unflatten(structure, one(*jax.tree.leaves(((first, rest), shared))))

                return jax.vmap(run, axis_size=size // self._mesh.size)(first, rest)  # where nothing is batched, too

            if self._mesh.size > 1:  # each device goes its own way: a loop ends when its own configurations are done
                lanes, everywhere = PartitionSpec(AXIS), PartitionSpec()
                specs = {"in_specs": (lanes, lanes, everywhere), "out_specs": lanes}
                chunk = jax.shard_map(chunk, mesh=self._mesh, check_vma=False, **specs)
            jitted = jax.jit(chunk, donate_argnums=(0,) if self._donate else ())
            try:
                self._lowered[size] = jitted.lower(*self._avals(size))
            except Exception as error:
                _explain(error, self._name, self._lane[1])
                raise

    def compiled(self, size: int):
        """The executable for `size` configurations at once; the time that the caller waits for it is kept."""
        start = time.perf_counter()
        self.compile(size)
        self.waited += time.perf_counter() - start
        return self._executables[size]

    def compile(self, size: int) -> None:
        """Compile for `size` configurations, where it is not done; other threads may, ahead of time."""
        with self._compiling:
            if size not in self._executables:
                executable = self._known(size)
                if executable is None:
                    self.lower(size)
                    executable = self._lowered.pop(size).compile()
                self._executables[size] = executable
                if not any(word in self.text for word in _HIDING):
                    with _sharing:
                        _EXECUTABLES[self._key(size)] = executable
                        while len(_EXECUTABLES) > _KEPT:
                            del _EXECUTABLES[next(iter(_EXECUTABLES))]

    def _known(self, size: int):
        with _sharing:
            return _EXECUTABLES.get(self._key(size))

    def _key(self, size: int) -> tuple:
        structures = jax.tree.structure(self._lane), jax.tree.structure(self.out)  # the names, which the text lacks
        return self.text, size, tuple(self._mesh.devices.flat), self._donate, *structures

    def _avals(self, size):
        lanes, everywhere = (NamedSharding(self._mesh, PartitionSpec(*axis)) for axis in ((AXIS,), ()))

        def many(leaf):
            return jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype, sharding=lanes)

        def shared(leaf):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere)

        return (*jax.tree.map(many, self._lane), jax.tree.map(shared, self._shared))


class Program:
    """What runs the configurations of one group.

    Args:
        train: a function or a `Trainable`.
        static: {argument: value}, the same for all configurations of the group.
        dtypes: {argument: dtype} of the numbers.
        fixed: the arguments of all configurations.
        shared: the arrays of `fixed` on the devices.
        mesh: the devices.
        name: how messages call the group.
    """

    def __init__(self, train, static: dict, dtypes: dict, fixed: Fixed, shared: list, mesh, name: str = ""):
        self.train, self.name, self.mesh, self.shared = train, name, mesh, shared
        numbers = {k: jax.ShapeDtypeStruct((), dtype) for k, dtype in dtypes.items()}
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in shared]

        def call(function, *state, numbers, shared):
            return function(*state, **numbers, **static, **fixed.with_arrays(shared))

        try:
            if isinstance(train, Trainable):
                init, step, report, *stop = train.parts

                def begin(lane, shared):
                    return strong(call(init, numbers=lane[1], shared=shared))

                def advance(lane, shared):
                    state, numbers = lane
                    arguments = {"numbers": numbers, "shared": shared}
                    state, _ = jax.lax.scan(lambda s, _: (call(step, s, **arguments), None), state, None, train.every)
                    end = [_flag(call(s, state, **arguments)) for s in stop]
                    return state, arrays(call(report, state, **arguments)), end

                self.begin = Part(begin, ((), numbers), shapes, mesh, name)
                state = self.begin.out
                self.main = Part(advance, (state, numbers), shapes, mesh, name, donate=True)
                results = self.main.out[1]
            else:
                function = Named(train)
                self.begin = None
                self.main = Part(
                    lambda lane, shared: arrays(call(function, numbers=lane[1], shared=shared)),
                    ((), numbers), shapes, mesh, name,
                )  # fmt: skip
                results = self.main.out
        except Exception as error:
            _explain(error, name, numbers)
            raise
        paths, _ = jax.tree_util.tree_flatten_with_path(results)
        keys = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
        self.names = [key.replace("/", ".") or "value" for key in keys]  # files have no '/' in a name
        if not self.names:
            raise ValueError("`sweep` needs `train` to return an array or a dict of arrays, got none of them.")
        if len({*self.names}) < len(self.names):
            raise ValueError(f"`sweep` needs outputs with distinct names, got {self.names}.")
        self._signature = f"takes {', '.join(f'{k}: {v}' for k, v in dtypes.items())}\nreturns {', '.join(self.names)}"
        self.results = {name: out for name, (_, out) in zip(self.names, paths, strict=True)}

    @property
    def unused(self) -> set[str]:
        """The numbers on which nothing depends."""
        return set.intersection(*(part.unused for part in self.parts))

    @property
    def text(self) -> str:
        """The program, the same in another process if and only if it is the same."""
        if self.begin is None:
            return f"{self._signature}\n{self.main.text}"
        return f"{self._signature}\nsteps = {self.train.steps}\n{self.begin.text}\n{self.main.text}"

    @property
    def fingerprint(self) -> str:
        """A short hash of `text`."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @property
    def waited(self) -> float:
        """Seconds spent on waiting for the compiler."""
        return sum(part.waited for part in self.parts)

    @property
    def parts(self) -> list[Part]:
        """What is compiled of it."""
        return [part for part in (self.begin, self.main) if part is not None]

    @property
    def cost(self) -> int:
        """How large the program is to compile: its number of operations."""
        return sum(operations(part.jaxpr.jaxpr) for part in self.parts)

    def lanes(self, numbers: dict[str, np.ndarray], size: int) -> dict[str, jax.Array]:
        """The numbers of some configurations on the devices; the last one fills up what is missing to `size`."""
        count = len(next(iter(numbers.values()))) if numbers else size
        rows = np.minimum(np.arange(size), count - 1)
        return {k: self.put(np.asarray(values)[rows]) for k, values in numbers.items()}

    def put(self, array) -> jax.Array:
        """Configurations along the first axis, spread over the devices."""
        dtype = jax.dtypes.canonicalize_dtype(array.dtype)
        return jax.device_put(np.asarray(array, dtype), NamedSharding(self.mesh, PartitionSpec(AXIS)))

    def outputs(self, results) -> dict[str, jax.Array]:
        """{name: array} of a tree of results."""
        return dict(zip(self.names, jax.tree.leaves(results), strict=True))


@contextlib.contextmanager
def ahead(programs: list[tuple[Program, int]]):
    """Compile programs for chunks of a size in threads, the first one first, while the caller goes on.

    They are lowered here, where the configuration of JAX is that of the caller. What has not begun at the end is left.
    A single one is left to the caller. xarray, in which a sweep ends, is imported beside the compiler, which needs no
    Python.
    """
    parts = [(part, size) for program, size in dict.fromkeys(programs) for part in program.parts]
    pool, here = concurrent.futures.ThreadPoolExecutor(os.cpu_count()), configuration()
    try:
        for part, size in parts:
            start = time.perf_counter()
            part.lower(size)
            part.waited += time.perf_counter() - start
            if len(parts) > 1:
                pool.submit(in_configuration, here, part.compile, size)
        if parts:
            import_ahead()
        yield
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def import_ahead() -> None:
    """Import xarray, in which results end, in a thread: beside the compiler, which needs no Python."""

    def imported():
        import xarray

        xarray.Variable((), 0)  # the first one imports dask, where that is installed

    if "xarray" not in sys.modules:
        threading.Thread(target=imported, daemon=True).start()


def _flag(value) -> jax.Array:
    if jnp.result_type(value).kind != "b" or jnp.shape(value) != ():
        raise TypeError(
            f"`Trainable` needs `stop` to return one bool, got {jnp.result_type(value)} of shape {jnp.shape(value)}."
        )
    return jnp.asarray(value)


def arrays(outputs):
    """The outputs, where all of them are numbers."""
    for leaf in jax.tree.leaves(outputs):
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float, complex)):
            raise TypeError(f"`sweep` needs `train` to return arrays, got {leaf!r}.")
        if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.extended):
            raise TypeError(f"`sweep` needs `train` to return numbers, got {jnp.result_type(leaf)}.")
    return outputs


def _explain(error: Exception, name: str, numbers: dict) -> None:
    """Say which configurations an error is about, and why a shape cannot depend on a number."""
    where = f" with {name}" if name else ""
    batched = ", ".join(f"{key}: {aval.dtype}" for key, aval in sorted(numbers.items()))
    error.add_note(f"`sweep` was tracing `train`{where}; batched there: {batched or 'nothing'}.")
    concrete = (jax.errors.ConcretizationTypeError, jax.errors.TracerIntegerConversionError)
    text = str(error)
    if "scan body function carry" in text:
        error.add_note(
            "`step` of a `Trainable` has to return a state of the same structure, shapes and dtypes as `init` makes."
        )
    elif isinstance(error, (*concrete, jax.errors.NonConcreteBooleanIndexError)) or "Tracer" in text or "concr" in text:
        error.add_note(
            "The numbers of an axis arrive as tracers, as all of its configurations run at once, in the same shapes. "
            "Where a shape, a loop or a branch in Python depends on one, make it static: `width=jr.static([64, 128])`."
        )
