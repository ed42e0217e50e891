"""The verbs that are links of an optax chain."""

from jaxreg.transforms.bounds import inflection_point as inflection_point
from jaxreg.transforms.bounds import initial_norm as initial_norm
from jaxreg.transforms.bounds import warm_start as warm_start
from jaxreg.transforms.certificate import KKTResiduals as KKTResiduals
from jaxreg.transforms.certificate import kkt_residuals as kkt_residuals
from jaxreg.transforms.cpr import CPRState as CPRState
from jaxreg.transforms.cpr import adamcpr as adamcpr
from jaxreg.transforms.cpr import cpr as cpr
from jaxreg.transforms.decay import decay as decay
from jaxreg.transforms.gradient import add_penalty_gradient as add_penalty_gradient
from jaxreg.transforms.multipliers import MultipliersState as MultipliersState
from jaxreg.transforms.multipliers import multipliers as multipliers
from jaxreg.transforms.multipliers_for import lagrangian as lagrangian
from jaxreg.transforms.multipliers_for import multipliers_for as multipliers_for
from jaxreg.transforms.projected import projected as projected
from jaxreg.transforms.proxgen import ProxgenState as ProxgenState
from jaxreg.transforms.proxgen import proxgen as proxgen
from jaxreg.transforms.proxgen import proximal_adam as proximal_adam
from jaxreg.transforms.proximal import proximal as proximal
from jaxreg.transforms.regularize import regularize as regularize
