"""One compiled program for every configuration of a grid."""

from jaxreg.sweeps.engine import sweep as sweep
from jaxreg.sweeps.grid import Grid as Grid
from jaxreg.sweeps.grid import grid as grid
