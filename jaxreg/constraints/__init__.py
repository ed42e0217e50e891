"""Constraints Ω(x) ≤ k."""

from jaxreg.constraints.balls import L1Ball as L1Ball
from jaxreg.constraints.balls import L2Ball as L2Ball
from jaxreg.constraints.base import Constraint as Constraint
from jaxreg.constraints.base import Equality as Equality
from jaxreg.constraints.boxes import Box as Box
from jaxreg.constraints.boxes import NonNegative as NonNegative
from jaxreg.constraints.sublevel import SublevelSet as SublevelSet
