"""Files that are there whole or not at all, and a lock that ends with its process."""

import contextlib
import itertools
import json
import logging
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a Unix
    fcntl = None

log = logging.getLogger("jaxreg.sweeps")
_count = itertools.count()


def write_file(path: Path, write: Callable, process: int = 0) -> None:
    """Write by `write(file)` to a temporary file, flush it to the disk, then rename: never half a file at `path`."""
    temporary = path.with_name(f"{path.name}.{process}-{os.getpid()}-{next(_count)}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_json(path: Path, value, process: int = 0) -> None:
    """Write JSON, with the folder's entry flushed as well: what is written later may rely on it."""
    write_file(path, lambda file: file.write(to_json(value).encode()), process)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_json(path: Path):
    """What `write_json` wrote."""
    return from_json(path.read_text())


def to_json(value) -> str:
    """JSON, which has no complex numbers of its own."""
    return json.dumps(value, default=lambda z: {"complex": [z.real, z.imag]})


def from_json(text: str):
    """What `to_json` was given."""
    return json.loads(text, object_hook=lambda d: complex(*d["complex"]) if [*d] == ["complex"] else d)


def set_aside(path: Path, why: object) -> None:
    """Rename a damaged file, so that its place is free, and say so."""
    aside = path.with_name(f"{path.name}.damaged")
    log.warning("%s is damaged (%s); it is kept as %s and computed again.", path, why, aside.name)
    with contextlib.suppress(FileNotFoundError):  # another process of the run was faster
        path.replace(aside)


def remove_leftovers(root: Path, process: int) -> None:
    """Temporary files of killed runs: our own, as we hold the lock, and those of processes that hold theirs no more."""
    leftovers: dict[str, list[Path]] = {}
    for path in root.rglob("*.tmp"):
        if found := re.search(r"\.(\d+)-\d+-\d+\.tmp$", path.name):
            leftovers.setdefault(found[1], []).append(path)
    for owner, paths in leftovers.items():
        try:
            lock = contextlib.nullcontext() if owner == str(process) else Lock(root / f"lock-{owner}", wait=0)
        except Locked:
            continue
        with lock:
            for path in paths:
                path.unlink(missing_ok=True)


class Locked(ValueError):
    """Another process holds the lock."""


class Lock:
    """`flock` of a file: held until released or the process ends, however it ends.

    `wait`: seconds; a process that was just killed may need a moment to be gone.
    """

    def __init__(self, path: Path, wait: float = 1.0):
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 (open as long as it is locked)
        try:
            if fcntl is None:
                log.warning("No file locks on this system: run one sweep at a time on %s.", path.parent)
            else:
                self._acquire(path, time.monotonic() + wait)
            with contextlib.suppress(OSError):  # a full disk: the name of the holder is a courtesy
                self._file.truncate(0)
                self._file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        except BaseException:
            self._file.close()
            raise

    def _acquire(self, path: Path, deadline: float) -> None:
        while True:
            try:
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Locked(
                        f"`sweep` needs a store of its own; {path.parent} is in use by {_holder(path)}."
                    ) from None
                time.sleep(0.02)
            except OSError as error:  # some network file systems have no locks
                return log.warning("%s cannot be locked (%s): run one sweep at a time.", path.parent, error.strerror)

    def release(self) -> None:
        """Free it; a second time does nothing."""
        if not self._file.closed:
            if fcntl is not None:
                with contextlib.suppress(OSError):
                    fcntl.flock(self._file, fcntl.LOCK_UN)  # also where a forked child has the file open still
            self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
    except (OSError, ValueError):
        return "another process"
    if holder["host"] != socket.gethostname():
        return f"process {holder['pid']} on {holder['host']}"
    return "another sweep of this process" if holder["pid"] == os.getpid() else f"process {holder['pid']}"
