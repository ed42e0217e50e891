"""Regularization in JAX: two nouns, six verbs, one sweep.

Penalties λΩ(θ): `L1`, `SquaredL2`, `ElasticNet`, `Huber`; `L0`, `MCP`, `SCAD`, `LogSum`, `LpHalf`; `GroupL2`,
`SparseGroup`, `GroupLinf`, `GroupMCP`, `StandardDeviation`; `Slope`, `TotalVariation`; `Nuclear`, `SpectralNorm`,
`Orthogonality`; `Towards` an anchor, and sums `a + b`.

Constraints Ω(θ) ≤ k: `L2Ball`, `L1Ball`, `LinfBall`, `NuclearBall`, `SpectralBall`, `Box`, `NonNegative`, `Sphere`,
`NormRange`, `Simplex`, `Sparse`, `RankAtMost`, `Orthonormal`; any penalty by `SublevelSet`; `Equality`.

`by_path` puts them on a tree of parameters; `conventions` translates the strengths of other libraries.

Verbs: `penalized` (in the loss); `add_penalty_gradient`, `multipliers` (on gradients, first in an optax chain);
`decay`, `proximal`, `projected`, `cpr` (on the step, last). `regularize` builds the chain; `kkt_residuals` certifies.
`multipliers_for` takes functions, of the batch too, or several leaves as one: `jointly`; `lagrangian` is its loss.
`proximal_adam`, or any `proxgen`, is a whole optimizer, whose prox is in its own metric; `adamcpr` is Adam with `cpr`.

On trees: `value`, `prox`, `moreau_envelope`, `project`, `violation`, `towards`; `bound_for_strength` and
`strength_for_bound`, from one side of a problem to the other; `activity_penalty` on the outputs of layers.

At scale: `sweep` over a space of configurations: `grid`, `zipped`, `sample` (`uniform`, `log_uniform`, `integers`),
`configurations`, `static` and `conditional` values; a `Trainable` with `early_stopping`, `halving`, `hyperband`.
`open_store` opens what it stored; `plotting` shows it.

Linear models: `convex` solves, certifies and cross-validates them, along paths of strengths too, and differentiates
them in the strengths. `tune` descends in the logs of strengths: theirs, or those that a network is trained with.

Networks: `noise` is dropout and its family, mixup and cutmix; `ensemble` makes bootstrap weights, and one prediction of
many members; `diagnostics` measures norms, zeros, dead units, degrees of freedom, and how linear a network is.

On a terminal and in a notebook, a sweep that takes longer than two seconds says what it does; `JAXREG_PROGRESS=0` in
the environment turns that off.
"""

from jaxreg import conventions as conventions
from jaxreg import convex as convex
from jaxreg import diagnostics as diagnostics
from jaxreg import ensemble as ensemble
from jaxreg import noise as noise
from jaxreg import plotting as plotting
from jaxreg.activity import activity_penalty as activity_penalty
from jaxreg.constraints import Box as Box
from jaxreg.constraints import Constraint as Constraint
from jaxreg.constraints import Equality as Equality
from jaxreg.constraints import L1Ball as L1Ball
from jaxreg.constraints import L2Ball as L2Ball
from jaxreg.constraints import LinfBall as LinfBall
from jaxreg.constraints import NonNegative as NonNegative
from jaxreg.constraints import NormRange as NormRange
from jaxreg.constraints import NuclearBall as NuclearBall
from jaxreg.constraints import Orthonormal as Orthonormal
from jaxreg.constraints import RankAtMost as RankAtMost
from jaxreg.constraints import Simplex as Simplex
from jaxreg.constraints import Sparse as Sparse
from jaxreg.constraints import SpectralBall as SpectralBall
from jaxreg.constraints import Sphere as Sphere
from jaxreg.constraints import SublevelSet as SublevelSet
from jaxreg.duality import bound_for_strength as bound_for_strength
from jaxreg.duality import strength_for_bound as strength_for_bound
from jaxreg.joint import jointly as jointly
from jaxreg.objective import moreau_envelope as moreau_envelope
from jaxreg.objective import penalized as penalized
from jaxreg.objective import project as project
from jaxreg.objective import prox as prox
from jaxreg.objective import towards as towards
from jaxreg.objective import value as value
from jaxreg.objective import violation as violation
from jaxreg.penalties import L0 as L0
from jaxreg.penalties import L1 as L1
from jaxreg.penalties import MCP as MCP
from jaxreg.penalties import SCAD as SCAD
from jaxreg.penalties import ElasticNet as ElasticNet
from jaxreg.penalties import GroupL2 as GroupL2
from jaxreg.penalties import GroupLinf as GroupLinf
from jaxreg.penalties import GroupMCP as GroupMCP
from jaxreg.penalties import Huber as Huber
from jaxreg.penalties import LogSum as LogSum
from jaxreg.penalties import LpHalf as LpHalf
from jaxreg.penalties import Nuclear as Nuclear
from jaxreg.penalties import Orthogonality as Orthogonality
from jaxreg.penalties import Penalty as Penalty
from jaxreg.penalties import Slope as Slope
from jaxreg.penalties import SparseGroup as SparseGroup
from jaxreg.penalties import SpectralNorm as SpectralNorm
from jaxreg.penalties import SquaredL2 as SquaredL2
from jaxreg.penalties import StandardDeviation as StandardDeviation
from jaxreg.penalties import Sum as Sum
from jaxreg.penalties import TotalVariation as TotalVariation
from jaxreg.penalties import Towards as Towards
from jaxreg.select import by_path as by_path
from jaxreg.sweeps import Space as Space
from jaxreg.sweeps import Trainable as Trainable
from jaxreg.sweeps import conditional as conditional
from jaxreg.sweeps import configurations as configurations
from jaxreg.sweeps import early_stopping as early_stopping
from jaxreg.sweeps import grid as grid
from jaxreg.sweeps import halving as halving
from jaxreg.sweeps import hyperband as hyperband
from jaxreg.sweeps import integers as integers
from jaxreg.sweeps import log_uniform as log_uniform
from jaxreg.sweeps import sample as sample
from jaxreg.sweeps import static as static
from jaxreg.sweeps import sweep as sweep
from jaxreg.sweeps import uniform as uniform
from jaxreg.sweeps import zipped as zipped
from jaxreg.transforms import CPRState as CPRState
from jaxreg.transforms import KKTResiduals as KKTResiduals
from jaxreg.transforms import MultipliersState as MultipliersState
from jaxreg.transforms import ProxgenState as ProxgenState
from jaxreg.transforms import adamcpr as adamcpr
from jaxreg.transforms import add_penalty_gradient as add_penalty_gradient
from jaxreg.transforms import cpr as cpr
from jaxreg.transforms import decay as decay
from jaxreg.transforms import inflection_point as inflection_point
from jaxreg.transforms import initial_norm as initial_norm
from jaxreg.transforms import kkt_residuals as kkt_residuals
from jaxreg.transforms import lagrangian as lagrangian
from jaxreg.transforms import multipliers as multipliers
from jaxreg.transforms import multipliers_for as multipliers_for
from jaxreg.transforms import projected as projected
from jaxreg.transforms import proxgen as proxgen
from jaxreg.transforms import proximal as proximal
from jaxreg.transforms import proximal_adam as proximal_adam
from jaxreg.transforms import regularize as regularize
from jaxreg.transforms import warm_start as warm_start
from jaxreg.tune import tune as tune

__version__ = "0.1.0"


def __getattr__(name):
    if name == "open_store":  # needs xarray, which takes time to import
        from jaxreg.sweeps.backend import open_store

        return open_store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), "open_store"])
