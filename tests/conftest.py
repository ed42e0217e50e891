"""Float64 everywhere but in doctests, which run as a user's session would; programs compile quickly and are kept."""

import functools
import gc
import os
import sys
import tempfile
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
TOGETHER = {
    "test_first_calls.py",
    "test_layout.py",
    "test_sweep_devices.py",
    "test_sweep_executors.py",
    "test_sweep_kills.py",
}
KEPT = 2**30  # bytes of compiled programs that are kept
QUICKLY = "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"  # versions without the option ignore it

jax.config.update("jax_enable_x64", True)
gc.set_threshold(100_000, 50, 1000)  # full collections, over the caches of thousands of programs, take their time


def pytest_configure(config):
    """Say to `table`, before it is imported, whether slow tests are left out; settings are for child processes too."""
    chosen = config.option.markexpr
    quick = "not slow" in chosen and " or " not in chosen
    os.environ["JAXREG_QUICK"] = str(int(quick))
    folder = ROOT / ".jax_cache" if os.access(ROOT, os.W_OK) else Path(tempfile.gettempdir(), "jaxreg_cache")
    folder = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    settings = {"jax_compilation_cache_dir": folder}
    settings |= {"jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": -1}
    if quick:  # most of the time is spent on compiling: a third of it is enough for programs that run once
        settings |= {"jax_disable_most_optimizations": True, "jax_traceback_in_locations_limit": 0}
        if QUICKLY not in os.environ.get("XLA_FLAGS", ""):
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICKLY}"
        share_context()
    for name, value in settings.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)
    if not hasattr(config, "workerinput"):
        forget_programs(Path(folder))


def share_context():
    """Lower all programs in one MLIR context: JAX 0.10 takes longer to make a new one than to trace a small program."""
    mlir = sys.modules.get("jax._src.interpreters.mlir")
    if hasattr(mlir, "make_ir_context"):  # it is JAX's own, and may go
        mlir.make_ir_context = functools.cache(mlir.make_ir_context)


def forget_programs(folder: Path):
    """Delete the oldest programs, of other versions or of tests that have changed, where there are too many."""
    files = sorted(((path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob("*-cache")), reverse=True)
    total = 0
    for _, size, path in files:
        total += size
        if total > KEPT:
            path.unlink(missing_ok=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests of one case share programs, and some files share fixtures that take long: they go to one worker."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path, _, name = nodeid.partition("::")
            if Path(path).name in TOGETHER:
                return path
            return path + name[name.find("[") :] if path.endswith("_laws.py") and "[" in name else nodeid

    return Scheduling(config, log)


def pytest_runtest_setup(item):
    """A test draws its own numbers from its module's `RNG`, whichever tests ran before it in its worker."""
    module = getattr(item, "module", None)
    if hasattr(module, "RNG"):
        module.RNG = np.random.default_rng([1, zlib.crc32(item.name.encode())])


@pytest.fixture
def optimized():
    """As users compile, for what must hold to the bit."""
    from table import optimized

    with optimized():
        yield


@pytest.fixture
def data_dir() -> Path:
    """The folder of real data; tests that need it skip without `JAXREG_DATA`, and fail if it is wrong."""
    folder = os.environ.get("JAXREG_DATA")
    if not folder:
        pytest.skip("JAXREG_DATA is not set")
    return Path(folder)


@pytest.fixture
def key():
    return jax.random.key(0)
