r"""What regularization did: norms, zeros, penalties, dead units, degrees of freedom, and how linear a network is.

Functions of parameters answer by path, as `by_path` writes it: a dict of arrays, which `jr.sweep` takes as it is ('.'
for '/' in its names). Functions of one layer take and give arrays. All of them run under `jit` and `vmap`.

>>> import jax.numpy as jnp, jaxreg as jr
>>> params = {"hidden": {"kernel": jnp.array([[3.0, 0.0], [4.0, 0.0]])}, "head": {"kernel": jnp.array([[1.0], [5.0]])}}
>>> {path: norm.round(1).tolist() for path, norm in norms(params, "hidden/*", axis=0).items()}
{'hidden/kernel': [5.0, 0.0]}
>>> dead_units(params["hidden"]["kernel"], params["head"]["kernel"]).tolist()
[False, True]
"""

from jaxreg.diagnostics.degrees import lasso_degrees_of_freedom as lasso_degrees_of_freedom
from jaxreg.diagnostics.degrees import ridge_degrees_of_freedom as ridge_degrees_of_freedom
from jaxreg.diagnostics.linearity import linear_r2 as linear_r2
from jaxreg.diagnostics.linearity import linear_share as linear_share
from jaxreg.diagnostics.parameters import Zeros as Zeros
from jaxreg.diagnostics.parameters import angles as angles
from jaxreg.diagnostics.parameters import norms as norms
from jaxreg.diagnostics.parameters import penalties as penalties
from jaxreg.diagnostics.parameters import zeros as zeros
from jaxreg.diagnostics.units import dead_units as dead_units
from jaxreg.diagnostics.units import silent_units as silent_units
from jaxreg.diagnostics.units import unit_strengths as unit_strengths
