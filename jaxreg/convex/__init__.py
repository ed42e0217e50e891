"""Convex problems, solved and certified: datafits, `solve`, `path`, `cross_validate`, `fit` and hypergradients."""

from jaxreg.convex.certificate import Certificate as Certificate
from jaxreg.convex.certificate import certify as certify
from jaxreg.convex.cross_validate import cross_validate as cross_validate
from jaxreg.convex.datafits import Datafit as Datafit
from jaxreg.convex.datafits import Huber as Huber
from jaxreg.convex.datafits import Logistic as Logistic
from jaxreg.convex.datafits import Multinomial as Multinomial
from jaxreg.convex.datafits import Poisson as Poisson
from jaxreg.convex.datafits import Squared as Squared
from jaxreg.convex.fit import fit as fit
from jaxreg.convex.hypergradient import hypergradient as hypergradient
from jaxreg.convex.path import path as path
from jaxreg.convex.reweighting import reweighted as reweighted
from jaxreg.convex.ridge import RidgePath as RidgePath
from jaxreg.convex.ridge import ridge as ridge
from jaxreg.convex.ridge import ridge_svd as ridge_svd
from jaxreg.convex.solve import Solution as Solution
from jaxreg.convex.solve import solve as solve
