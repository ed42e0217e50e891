"""Penalties λΩ(x)."""

from jaxreg.penalties.base import Penalty as Penalty
from jaxreg.penalties.grouped import GroupL2 as GroupL2
from jaxreg.penalties.separable import L1 as L1
from jaxreg.penalties.separable import ElasticNet as ElasticNet
from jaxreg.penalties.separable import SquaredL2 as SquaredL2
