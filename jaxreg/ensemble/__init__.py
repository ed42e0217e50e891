r"""Ensembles: members are one more vmapped axis, their data are weights, and their predictions one distribution.

Bagging trains each member on a bootstrap sample of the data; the sample is a weight for each example, not a copy:

>>> import jax, jax.numpy as jnp
>>> x, y = jnp.linspace(-1.0, 1.0, 20), jnp.linspace(-1.0, 1.0, 20) ** 3
>>> def train(weights):
...     loss = lambda w: jnp.sum(weights * (w * x - y) ** 2) / jnp.sum(weights)
...     return jax.lax.fori_loop(0, 50, lambda _, w: w - 0.5 * jax.grad(loss)(w), 0.0)
>>> slopes = jax.vmap(train)(bootstrap_weights(jax.random.key(0), 20, members=5))
>>> slopes.shape, moments(slopes[:, None] * x).mean.shape
((5,), (20,))

The members of a deep ensemble differ in their keys alone: `jax.vmap(train)(jax.random.split(key, members))`.
"""

from jaxreg.ensemble.bootstrap import bayesian_bootstrap_weights as bayesian_bootstrap_weights
from jaxreg.ensemble.bootstrap import bootstrap_weights as bootstrap_weights
from jaxreg.ensemble.calibration import Reliability as Reliability
from jaxreg.ensemble.calibration import brier_score as brier_score
from jaxreg.ensemble.calibration import calibration_error as calibration_error
from jaxreg.ensemble.calibration import reliability as reliability
from jaxreg.ensemble.prediction import Moments as Moments
from jaxreg.ensemble.prediction import gaussian_mixture_nll as gaussian_mixture_nll
from jaxreg.ensemble.prediction import gaussian_nll as gaussian_nll
from jaxreg.ensemble.prediction import mixture_logits as mixture_logits
from jaxreg.ensemble.prediction import mixture_nll as mixture_nll
from jaxreg.ensemble.prediction import moments as moments
