"""One compiled program for every configuration of a space, on every device, with nothing lost."""

from jaxreg.sweeps.axes import conditional as conditional
from jaxreg.sweeps.axes import static as static
from jaxreg.sweeps.engine import sweep as sweep
from jaxreg.sweeps.grids import configurations as configurations
from jaxreg.sweeps.grids import grid as grid
from jaxreg.sweeps.grids import zipped as zipped
from jaxreg.sweeps.halving import halving as halving
from jaxreg.sweeps.halving import hyperband as hyperband
from jaxreg.sweeps.samples import integers as integers
from jaxreg.sweeps.samples import log_uniform as log_uniform
from jaxreg.sweeps.samples import sample as sample
from jaxreg.sweeps.samples import uniform as uniform
from jaxreg.sweeps.spaces import Space as Space
from jaxreg.sweeps.stopping import early_stopping as early_stopping
from jaxreg.sweeps.trainable import Trainable as Trainable

_LATER = {"open_store": "backend", "best": "runs", "summary": "runs"}  # they need xarray, which takes time to import


def __getattr__(name):
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
