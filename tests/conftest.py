"""Float64 everywhere but in doctests, which run as a user's session would."""

import gc
import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_enable_x64", True)
gc.set_threshold(100_000, 50, 1000)  # full collections, over the caches of thousands of programs, take their time


def pytest_configure(config):
    """Say to `table`, before it is imported, whether slow tests are left out."""
    os.environ["JAXREG_QUICK"] = str(int(config.option.markexpr == "not slow"))


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
