"""Pictures of sweeps and runs: plain arrays and labelled results in, matplotlib axes out; alone imports matplotlib."""

from jaxreg.plotting.axes import COLOURS as COLOURS
from jaxreg.plotting.axes import plain_log_ticks as plain_log_ticks
from jaxreg.plotting.axes import strength_axis as strength_axis
from jaxreg.plotting.overview import overview as overview
from jaxreg.plotting.overview import save_overview as save_overview
from jaxreg.plotting.parallel import parallel_coordinates as parallel_coordinates
from jaxreg.plotting.paths import coefficient_path as coefficient_path
from jaxreg.plotting.paths import cross_validation as cross_validation
from jaxreg.plotting.results import heatmap as heatmap
from jaxreg.plotting.results import validation_curve as validation_curve
from jaxreg.plotting.traces import multipliers as multipliers
