"""Penalties on each weight that grow slower than |x|: large weights are spared, and nothing is convex.

The prox is the global minimiser; `optimality` certifies a stationary point, a local minimum at best.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, magnitude, per_entry, safe_sqrt, times
from jaxreg.geometry import soft_threshold
from jaxreg.penalties.separable import Separable
from jaxreg.pytree import check_above, check_fields, noun, static


@noun
class L0(Separable):
    r"""The number of non-zero weights, λ‖x‖₀.

    Its `prox` is the hard threshold: weights with |x| ≤ √(2·step·λ) become 0, the others stay. Its gradient says
    nothing, so the verbs that need one refuse it. Every 0 is stationary: `critical` is 0.

    Args:
        lam: λ ≥ 0, a number or an array that broadcasts against the weights (a λ per weight).
        axis: the axes inside one group of `measure` (0 for the incoming weights of a unit of an `(in, out)` kernel,
            1 for `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group. Changes no other method.

    Raises:
        ValueError: if a literal `lam` is negative or NaN.

    >>> L0(0.5).value(jnp.array([3.0, 0.0, -1.0])).item()
    1.0
    >>> L0(0.5).prox(jnp.array([3.0, 0.5, -1.5]), step=1.0).tolist()
    [3.0, 0.0, -1.5]

    References:
        Blumensath and Davies, Iterative thresholding for sparse approximations, 2008, eq. 2.2.
    """

    differentiable: ClassVar[bool] = False

    lam: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def cost(self, x, lam):
        """λ where x ≠ 0."""
        return times(lam, jnp.where(jnp.isnan(x), x, jnp.where(x == 0, 0, jnp.ones_like(x))))

    def shrink(self, x, step, lam):
        """The hard threshold at √(2·step·λ)."""
        return jnp.where(jnp.abs(x) <= jnp.sqrt(2 * times(step, lam)), 0, x)

    def kink(self, x):
        """∞."""
        return jnp.inf


@noun
class MCP(Separable):
    r"""Minimax concave penalty, Σ ∫₀^|x| (λ − t/γ)₊ dt: the lasso's slope λ at 0, none beyond γλ.

    Its `prox` is the firm threshold: 0 up to step·λ, x from γλ on, linear between; where γ ≤ step the hard threshold
    at λ√(γ·step).

    Args:
        lam: λ ≥ 0, the slope at 0, a number or an array that broadcasts against the weights (a λ per weight).
        gamma: γ > 0; ∞ is the lasso. A number or an array, as `lam`.
        axis: the axes inside one group of `measure` (0 for the incoming weights of a unit of an `(in, out)` kernel,
            1 for `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group. Changes no other method.

    Raises:
        ValueError: if a literal `lam` is negative or NaN, or a literal `gamma` is not positive.

    >>> MCP(1.0, 2.0).value(jnp.array([1.0, -9.0])).item()
    1.75
    >>> MCP(1.0, 2.0).prox(jnp.array([0.5, 1.5, 4.0]), step=1.0).tolist()
    [0.0, 1.0, 4.0]

    References:
        Zhang, Nearly unbiased variable selection under minimax concave penalty, 2010, eq. 2.1.
    """

    homogeneous: ClassVar[bool] = False

    lam: jax.typing.ArrayLike
    gamma: jax.typing.ArrayLike = 3.0
    axis: Axis = static(default=None)

    def __post_init__(self):
        check_fields(self)
        check_above(self, "gamma", 0)

    def cost(self, x, lam):
        """λ|x| − x²/(2γ) up to γλ, constant beyond."""
        gamma = per_entry(self.gamma, x, self)
        inner = jnp.minimum(magnitude(x), times(gamma, lam))
        return times(inner, lam - times(inner, 0.5 / gamma))

    def shrink(self, x, step, lam):
        """The firm threshold, or the hard one where γ ≤ step."""
        gamma, t = per_entry(self.gamma, x, self), times(step, lam)
        edge, size, firm = times(gamma, lam), jnp.abs(x), gamma > step
        scaled = soft_threshold(x, t) / jnp.where(firm, 1 - step / gamma, 1)
        # √edge·√t, since edge·t may overflow
        hard = jnp.where(size <= jnp.sqrt(edge) * jnp.sqrt(t), 0, x)
        return jnp.where(firm, jnp.where(size > edge, x, scaled), hard)

    def kink(self, x):
        """1."""
        return 1.0


@noun
class SCAD(Separable):
    r"""Smoothly clipped absolute deviation: slope λ up to |x| = λ, falling linearly to none at γλ.

    Σ ∫₀^|x| min(λ, (γλ − t)₊/(γ − 1)) dt. Its `prox` is the soft threshold for small weights, x for large ones.

    Args:
        lam: λ ≥ 0, the slope at 0, a number or an array that broadcasts against the weights (a λ per weight).
        gamma: γ > 1; ∞ is the lasso. A number or an array, as `lam`.
        axis: the axes inside one group of `measure` (0 for the incoming weights of a unit of an `(in, out)` kernel,
            1 for `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group. Changes no other method.

    Raises:
        ValueError: if a literal `lam` is negative or NaN, or a literal `gamma` is not above 1.

    >>> SCAD(1.0, 3.0).value(jnp.array([0.5, -9.0])).item()
    2.5
    >>> SCAD(1.0, 3.0).prox(jnp.array([1.5, 2.5, 4.0]), step=1.0).tolist()
    [0.5, 2.0, 4.0]

    References:
        Fan and Li, Variable selection via nonconcave penalized likelihood, 2001, eq. 2.7.
    """

    homogeneous: ClassVar[bool] = False

    lam: jax.typing.ArrayLike
    gamma: jax.typing.ArrayLike = 3.7
    axis: Axis = static(default=None)

    def __post_init__(self):
        check_fields(self)
        check_above(self, "gamma", 1)

    def cost(self, x, lam):
        """λ|x| up to λ, a parabola up to γλ, constant beyond."""
        gamma, size = per_entry(self.gamma, x, self), magnitude(x)
        past = jnp.maximum(jnp.minimum(size, times(gamma, lam)) - lam, 0)
        return times(lam, jnp.minimum(size, lam)) + times(past, lam - times(past, 0.5 / (gamma - 1)))

    def shrink(self, x, step, lam):
        """Soft threshold, then linear, then x; where γ − 1 ≤ step, soft threshold or x, whichever costs less."""
        gamma, t, size = per_entry(self.gamma, x, self), times(step, lam), jnp.abs(x)
        soft, edge, three = soft_threshold(x, t), times(gamma, lam), gamma - 1 > step
        rest = jnp.where(three, gamma - 1 - step, 1)
        middle = x + x * (step / rest) - jnp.sign(x) * times(t, 1 + (1 + step) / rest)
        regular = jnp.where(size > edge, x, jnp.where(size <= lam + t, soft, middle))
        # Where soft threshold and x cost the same; the second form where the soft threshold is 0 there.
        tie = jnp.where(step <= gamma + 1, (times(gamma + 1, lam) + t) / 2, jnp.sqrt(times(gamma + 1, lam) * t))
        return jnp.where(three, regular, jnp.where(size <= tie, soft, x))

    def kink(self, x):
        """1."""
        return 1.0


@noun
class LogSum(Separable):
    r"""λΣ log(1 + |xᵢ|/ε): the reweighted lasso's own objective.

    Its `prox` is 0, or the larger root of z + step·λ/(z + ε) = |x|, whichever costs less.

    Args:
        lam: λ ≥ 0, a number or an array that broadcasts against the weights (a λ per weight).
        eps: ε > 0, in the units of the weights: towards 0 the penalty counts weights. A number or an array, as `lam`.
        axis: the axes inside one group of `measure` (0 for the incoming weights of a unit of an `(in, out)` kernel,
            1 for `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group. Changes no other method.

    Raises:
        ValueError: if a literal `lam` is negative or NaN, or a literal `eps` is not positive.

    >>> LogSum(2.0, 1.0).value(jnp.array([0.0, 0.0])).item()
    0.0
    >>> LogSum(2.0, 1.0).prox(jnp.array([1.0, 2.0]), step=1.0).tolist()
    [0.0, 1.0]

    References:
        Candes, Wakin and Boyd, Enhancing sparsity by reweighted l1 minimization, 2008, eq. 7.
    """

    lam: jax.typing.ArrayLike
    eps: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def __post_init__(self):
        check_fields(self)
        check_above(self, "eps", 0)

    def cost(self, x, lam):
        """λ log(1 + |x|/ε)."""
        return times(lam, jnp.log1p(magnitude(x) / per_entry(self.eps, x, self)))

    def shrink(self, x, step, lam):
        """0 or the larger stationary point."""
        eps, t, size = per_entry(self.eps, x, self), times(step, lam), jnp.abs(x)
        root = safe_sqrt(jnp.maximum(jnp.square(size + eps) - 4 * t, 0))
        z = size - 2 * t / (size + eps + root)
        real = (jnp.square(size + eps) >= 4 * t) & (z > 0)
        safe = jnp.where(real, z, 1)
        # t·log(1 + z/ε) + ½(z − |x|)² < ½x², divided by z
        kept = real & (t * (jnp.log1p(safe / eps) / safe) < size - safe / 2) | jnp.isposinf(size) | (t == 0)
        return jnp.where(jnp.isnan(x), x, jnp.where(kept, jnp.sign(x) * jnp.where(real, z, size), 0))

    def kink(self, x):
        """1/ε."""
        return 1 / per_entry(self.eps, x, self)


@noun
class LpHalf(Separable):
    r"""λΣ |xᵢ|^½, the ℓp penalty with p = ½.

    Its `prox` is 0 up to (3/2)(step·λ)^⅔, and (2/3)x(1 + cos((2/3)arccos(−a))) with a = (3√3/4)·step·λ·|x|^(−3/2)
    beyond. Every 0 is stationary: `critical` is 0.

    Args:
        lam: λ ≥ 0, a number or an array that broadcasts against the weights (a λ per weight).
        axis: the axes inside one group of `measure` (0 for the incoming weights of a unit of an `(in, out)` kernel,
            1 for `(out, in)`, (0, 1, 2) for HWIO convolutions); None is one group. Changes no other method.

    Raises:
        ValueError: if a literal `lam` is negative or NaN.

    >>> LpHalf(2.0).value(jnp.array([4.0, -9.0])).item()
    10.0
    >>> LpHalf(1.0).prox(jnp.array([1.4]), step=1.0).tolist()
    [0.0]

    References:
        Xu, Chang, Xu and Zhang, L1/2 regularization: a thresholding representation theory, 2012, theorem 1.
    """

    lam: jax.typing.ArrayLike
    axis: Axis = static(default=None)

    def cost(self, x, lam):
        """λ√|x|."""
        return times(lam, safe_sqrt(jnp.abs(x)))

    def shrink(self, x, step, lam):
        """0, or x less its share (2/3)sin²(β/2) + sin(β)/√3 with β = (2/3)arcsin(a)."""
        t, size = times(step, lam), jnp.abs(x)
        kept = (size > 1.5 * jnp.cbrt(t) ** 2) & jnp.isfinite(size)
        safe = jnp.where(kept, size, 1)
        a = jnp.where(kept, 0.75 * 3**0.5 * t / safe / jnp.sqrt(safe), 0)
        beta = jnp.arcsin(a) * (2 / 3)
        share = jnp.square(jnp.sin(beta / 2)) * (2 / 3) + jnp.sin(beta) / 3**0.5
        return jnp.where(kept, x - x * share, jnp.where(jnp.isfinite(size), 0, x))

    def kink(self, x):
        """∞."""
        return jnp.inf
