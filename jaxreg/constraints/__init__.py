"""Constraints Ω(x) ≤ k."""

from jaxreg.constraints.balls import L1Ball as L1Ball
from jaxreg.constraints.balls import L2Ball as L2Ball
from jaxreg.constraints.balls import LinfBall as LinfBall
from jaxreg.constraints.base import Constraint as Constraint
from jaxreg.constraints.base import Equality as Equality
from jaxreg.constraints.boxes import Box as Box
from jaxreg.constraints.boxes import NonNegative as NonNegative
from jaxreg.constraints.shells import NormRange as NormRange
from jaxreg.constraints.shells import Sphere as Sphere
from jaxreg.constraints.simplex import Simplex as Simplex
from jaxreg.constraints.sparse import Sparse as Sparse
from jaxreg.constraints.spectral import NuclearBall as NuclearBall
from jaxreg.constraints.spectral import Orthonormal as Orthonormal
from jaxreg.constraints.spectral import RankAtMost as RankAtMost
from jaxreg.constraints.spectral import SpectralBall as SpectralBall
from jaxreg.constraints.sublevel import SublevelSet as SublevelSet
