"""The penalty on how far the weights of a group are apart; every number may be an array, one for each group."""

import math

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, floating, in_groups, masked, per_group, polar, power_of_two, times
from jaxreg.geometry import climb, soft_threshold
from jaxreg.penalties.base import Penalty, largest, smallest_factor
from jaxreg.pytree import noun, static


@noun
class StandardDeviation(Penalty):
    r"""λ times the standard deviation of each group, Σ_g λ_g √(mean (xᵢ − x̄)²): it pulls weights to their mean.

    The population's, divided by n. Its gradient is λ(x − x̄)/(n·std), 0 where the weights are equal; its `prox` keeps
    the mean and block-thresholds the rest: x̄ + c·max(1 − step·λ/(√n‖c‖), 0) with c = x − x̄. A group of one weight, or
    of none, costs nothing.

    Args:
        lam: λ ≥ 0, a number or an array that broadcasts against the groups (a λ per group).
        axis: the axes inside one group (0 for the incoming weights of a unit of an `(in, out)` kernel, 1 for
            `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group.

    Raises:
        ValueError: if a literal `lam` is negative or NaN.

    >>> x = jnp.array([[1.0, 2.0], [3.0, 2.0]])
    >>> StandardDeviation(2.0, axis=0).measure(x).tolist()
    [2.0, 0.0]
    >>> StandardDeviation(1.0, axis=0).prox(x, step=1.0).tolist()
    [[1.5, 2.0], [2.5, 2.0]]

    References:
        Franke et al., Improving deep learning optimization through constrained parameter regularization, 2024, as a
        measure; in the authors' code it is the sample's, divided by n − 1.
    """

    lam: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def measure(self, x) -> jax.Array:
        """λ·std per group."""
        x, axes, lam = in_groups(self, x, self.lam)
        _, c, scale = _centred(masked(x, lam), axes)
        return jnp.squeeze(times(lam, scale * (polar(c, axes)[1] / _root(x, axes))), axes)

    def prox(self, x, step) -> jax.Array:
        """x̄ + c·max(1 − step·λ/(√n‖c‖), 0) per group."""
        z, axes, lam = in_groups(self, x, self.lam)
        t = times(per_group(step, z, axes, self), lam)
        finite = masked(z, t)
        mean, c, scale = _centred(finite, axes)
        direction, size = polar(c, axes)
        radius = t / _root(z, axes) / scale
        equal = size <= radius
        # x less what is lost: x itself, bit for bit, where nothing is.
        kept = finite - scale * (jnp.where(equal, 0, radius) * direction)
        return jnp.where((t == 0) & jnp.isinf(z), z, jnp.where(equal, scale * mean, kept)).astype(jnp.result_type(x))

    def optimality(self, x, g) -> jax.Array:
        """max |g + λ(x − x̄)/(n·std)|; where the weights are equal, a bound on the ∞-norm distance.

        There the subdifferential is {u : Σu = 0, ‖u‖₂ ≤ λ/√n}. The bound is the ∞-norm distance from −g to one of its
        points: 0 at solutions and nowhere else, and never more than five times the distance.
        """
        x, axes, lam = in_groups(self, x, self.lam)
        g, radius = floating(g, self), lam / _root(x, axes)
        direction, size = polar(_centred(x, axes)[1], axes)
        _, c, scale = _centred(g, axes)
        c = scale * c
        # The point of the ball that is nearest to c, less its mean: that takes nothing from it but length.
        point = _centred(soft_threshold(c, climb(c, radius, axes)), axes)
        residual = jnp.where(size == 0, g - point[2] * point[1], g + times(radius, direction))
        return largest(jnp.abs(residual))

    def critical(self, g) -> jax.Array:
        """max √n‖g − ḡ‖₂ (with an array λ, over λ_g): inf unless ḡ = 0 up to rounding, |ḡ| ≤ 4ε‖g‖₂."""
        g, axes, lam = in_groups(self, g, self.lam)
        mean, c, scale = _centred(g, axes)
        still = jnp.abs(mean) <= 4 * jnp.finfo(g.dtype).eps * polar(g / scale, axes)[1]
        return smallest_factor(jnp.where(still, _root(g, axes) * (scale * polar(c, axes)[1]), jnp.inf), lam)


def _root(x, axes) -> float:
    """√n of a group, 1 for an empty one."""
    return math.sqrt(max(math.prod(x.shape[a] for a in axes), 1))


def _centred(x, axes) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The mean, x less its mean, and the power of two in which both are measured, per group, kept at size 1."""
    n = max(math.prod(x.shape[a] for a in axes), 1)
    fixed = jax.lax.stop_gradient(x)
    scale = power_of_two(jnp.max(jnp.abs(fixed), axes, keepdims=True, initial=0))
    # Differences to one of the weights are 0 where all are equal, and exact where the mean is large next to them.
    first = jnp.max(fixed / scale, axes, keepdims=True, initial=-jnp.inf)
    c = x / scale - first
    shift = jnp.sum(c, axes, keepdims=True) / n
    c = c - shift
    rest = jnp.sum(c, axes, keepdims=True) / n  # what rounding left in the mean of many weights
    return jnp.where(jnp.isneginf(first), 0, first) + (shift + rest), c - rest, scale
