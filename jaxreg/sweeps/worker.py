"""What happens in a worker of an executor: programs of its own, one chunk after the other."""

import dataclasses
import multiprocessing
import pickle
import signal
import threading
import uuid
from collections import deque

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxreg.sweeps.configuration import configuration, configured
from jaxreg.sweeps.fixed import Fixed
from jaxreg.sweeps.program import Program, mesh_of
from jaxreg.sweeps.running import Chunk, rounded, run

_programs: dict[tuple[str, str], Program] = {}  # of the sweep that this worker is in
_building = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Job:
    """All that the chunks of a sweep share; `token` tells it from other sweeps."""

    token: str
    train: object
    fingerprints: dict[str, str]
    static: dict[str, dict]
    dtypes: dict[str, dict]
    fixed: dict
    config: dict

    @classmethod
    def here(cls, train, fingerprints, static, dtypes, fixed) -> "Job":
        """A job that runs as it would here."""
        return cls(uuid.uuid4().hex, train, fingerprints, static, dtypes, fixed, configuration())


class Parcel:
    """A job on its way: pickled once for all chunks, and not at all for threads.

    With cloudpickle where that is installed, so that lambdas and functions of a notebook can go, too.
    """

    def __init__(self, job: Job | None, sent: bytes | None = None):
        self._job, self._sent = job, sent

    def __reduce__(self):
        if self._sent is None:
            self._sent = _pickled(self._job)
        return Parcel, (None, self._sent)

    def open(self) -> Job:
        """The job."""
        if self._job is None:
            try:
                self._job = pickle.loads(self._sent)
            except Exception as error:
                error.add_note("`sweep` needs `train`, static values and fixed arguments that a worker can import.")
                raise
        return self._job


def opened(parcel: Parcel) -> Parcel:
    """The parcel, opened: a task of its own where an executor moves what tasks need by itself."""
    parcel.open()
    return parcel


def compute(parcel: Parcel, group: str, chunk: Chunk) -> dict[str, np.ndarray]:
    """The outputs of a chunk."""
    if multiprocessing.parent_process() and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; what to do is for the first to say
    try:
        job = parcel.open()
        with configured(job.config):
            program = _program(job, group)
            chunk = dataclasses.replace(chunk, size=rounded(chunk.size, program.mesh.size))
            deque(run(program, chunk, 1 if program.begin is None else program.train.steps), maxlen=0)
            return chunk.outputs
    except Exception as error:
        raise _portable(error) from error.__cause__


def _program(job: Job, group: str) -> Program:
    with _building:
        program = _programs.get((job.token, group))
        if program is None:
            for key in [key for key in _programs if key[0] != job.token]:
                del _programs[key]
            mesh, held = mesh_of(jax.local_devices()), Fixed(job.fixed)
            shared = jax.device_put(held.arrays, NamedSharding(mesh, PartitionSpec()))
            program = Program(job.train, job.static[group], job.dtypes[group], held, shared, mesh, group)
            if program.fingerprint != job.fingerprints[group]:
                raise ValueError(
                    f"`sweep` needs workers in which `train` is the same program as here; with jax {jax.__version__} "
                    "and the modules and configuration of a worker it is another one. Start the workers again?"
                )
            _programs[job.token, group] = program
    return program


def _pickled(job: Job) -> bytes:
    try:
        from cloudpickle import dumps
    except ImportError:
        from pickle import dumps
    try:
        return dumps(job)
    except Exception as error:
        raise TypeError(
            f"`sweep` needs a `train`, static values and fixed arguments that can be pickled for `executor`: {error}. "
            "Functions at the top level of a module can; lambdas and those of a notebook too, with cloudpickle."
        ) from error


def _portable(error: Exception) -> Exception:
    """The error, or where it would break on its way back, one that tells the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
