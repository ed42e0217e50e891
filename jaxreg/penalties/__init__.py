"""Penalties λΩ(x)."""

from jaxreg.penalties.base import Penalty as Penalty
from jaxreg.penalties.composition import Sum as Sum
from jaxreg.penalties.composition import Towards as Towards
from jaxreg.penalties.concave import L0 as L0
from jaxreg.penalties.concave import MCP as MCP
from jaxreg.penalties.concave import SCAD as SCAD
from jaxreg.penalties.concave import LogSum as LogSum
from jaxreg.penalties.concave import LpHalf as LpHalf
from jaxreg.penalties.grouped import GroupL2 as GroupL2
from jaxreg.penalties.grouped import GroupLinf as GroupLinf
from jaxreg.penalties.grouped import GroupMCP as GroupMCP
from jaxreg.penalties.grouped import Radial as Radial
from jaxreg.penalties.grouped import SparseGroup as SparseGroup
from jaxreg.penalties.ordered import Slope as Slope
from jaxreg.penalties.ordered import TotalVariation as TotalVariation
from jaxreg.penalties.separable import L1 as L1
from jaxreg.penalties.separable import ElasticNet as ElasticNet
from jaxreg.penalties.separable import Huber as Huber
from jaxreg.penalties.separable import Separable as Separable
from jaxreg.penalties.separable import SquaredL2 as SquaredL2
from jaxreg.penalties.spectral import Nuclear as Nuclear
from jaxreg.penalties.spectral import Orthogonality as Orthogonality
from jaxreg.penalties.spectral import SpectralNorm as SpectralNorm
from jaxreg.penalties.spread import StandardDeviation as StandardDeviation
from jaxreg.pytree import noun as noun
from jaxreg.pytree import static as static
