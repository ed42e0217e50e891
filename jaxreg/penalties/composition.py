"""Penalties made of penalties."""

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxreg.arrays import Axis, floating, group_axes, per_entry, per_group, times
from jaxreg.penalties.base import Penalty, largest
from jaxreg.penalties.grouped import GroupL2, GroupLinf, SparseGroup, sparse_group_distance
from jaxreg.penalties.ordered import TotalVariation
from jaxreg.penalties.separable import L1, ElasticNet, Separable, SquaredL2
from jaxreg.pytree import as_number, noun, title


@noun
class Towards(Penalty):
    r"""λΩ(x − a): a penalty on the distance to an anchor, pretrained weights say.

    With `SquaredL2(lam)` it is L2-SP; with an array `lam`, elastic weight consolidation. `towards` makes a tree of
    them. It has what `penalty` has, but no `critical`.

    Args:
        penalty: the penalty λΩ.
        anchor: a, a number or an array that broadcasts against the weights.

    Raises:
        TypeError: if `penalty` is not a penalty.

    >>> Towards(SquaredL2(2.0), 1.0).value(jnp.array([1.0, 3.0])).item()
    4.0
    >>> Towards(L1(1.0), jnp.array([1.0, 1.0])).prox(jnp.array([1.5, 3.0]), step=1.0).tolist()
    [1.0, 2.0]

    References:
        Li, Grandvalet and Davoine, Explicit inductive bias for transfer learning, 2018, eq. 3;
        Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks, 2017, eq. 3.
    """

    penalty: Penalty
    anchor: jax.typing.ArrayLike

    def __post_init__(self):
        _require_penalty("Towards", self.penalty)
        object.__setattr__(self, "anchor", as_number("Towards", "anchor", self.anchor, hint="use `towards`."))

    @property
    def axis(self) -> Axis:
        """The axes inside one group of `penalty`."""
        return self.penalty.axis

    @property
    def differentiable(self) -> bool:
        """Whether the gradient of `penalty` says something."""
        return self.penalty.differentiable

    @property
    def proximable(self) -> bool:
        """Whether `penalty` has a prox."""
        return self.penalty.proximable

    @property
    def separable(self) -> bool:
        """Whether `penalty` is a sum over weights."""
        return self.penalty.separable

    def _offset(self, x):
        anchor, x = _cast(self.anchor, x), floating(x, self)
        anchor = per_entry(anchor, x, self)
        return x, anchor, x - anchor

    def measure(self, x) -> jax.Array:
        """λΩ(x − a) per group."""
        return self.penalty.measure(self._offset(x)[2])

    def prox(self, x, step) -> jax.Array:
        """a + prox_{step·λΩ}(x − a)."""
        z, anchor, offset = self._offset(x)
        p = self.penalty.prox(offset, step)
        # x less what is lost: x itself, bit for bit, where nothing is, and a itself where all is.
        lost = jnp.where(jnp.isinf(offset), 0, offset - p)
        return jnp.where(p == 0, anchor + p, jnp.where(jnp.isinf(offset), p, z - lost)).astype(jnp.result_type(x))

    def optimality(self, x, g) -> jax.Array:
        """That of `penalty` at x − a."""
        return self.penalty.optimality(self._offset(x)[2], g)


@noun
class Sum(Penalty):
    r"""Σ_i λ_iΩ_i(x), also written `a + b`.

    `value` always exists; `prox` by an exact rule, where there is one, in any order of the terms:

    - (c/2)‖x − a‖² + F, any number of quadratics and any F with a prox (an array c needs a separable F):
      prox_F of (x + step·c·a)/(1 + step·c) with the step step/(1 + step·c);
    - `L1` + `GroupL2`, `GroupLinf` or `SparseGroup`: the soft threshold, then the group's prox;
    - `L1` with one λ + `TotalVariation`, the fused lasso: the prox of the total variation, then the soft threshold;
    - any number of `L1`, and `ElasticNet` as `L1` + a quadratic, in these.

    `optimality` exists where the prox does, but for `L1` + `GroupLinf` and `L1` + `SparseGroup`; `critical` does not.
    Groups are kept in `measure` if all terms have the same `axis`; else it is the value.

    Args:
        terms: the penalties.

    Raises:
        TypeError: if a term is not a penalty; from `prox` and `optimality`, where no exact rule is known.

    >>> (L1(1.0) + SquaredL2(1.0)).prox(jnp.array([3.0, -0.5]), step=1.0).tolist()
    [1.0, 0.0]
    >>> import jaxreg as jr
    >>> (L1(1.0) + jr.Nuclear(1.0)).proximable
    False

    References:
        Yu, On decomposing the proximal map, 2013, theorem 4 and corollary 4;
        Friedman, Hastie, Höfling and Tibshirani, Pathwise coordinate optimization, 2007, proposition 1.
    """

    homogeneous: ClassVar[bool] = False

    terms: tuple[Penalty, ...]

    def __post_init__(self):
        if not isinstance(self.terms, (tuple, list)) or not self.terms:
            raise TypeError(f"`Sum` needs a tuple of penalties, got {self.terms!r}.")
        object.__setattr__(self, "terms", tuple(self.terms))
        for term in self.terms:
            _require_penalty("Sum", term)

    @property
    def axis(self) -> Axis:
        """The axes inside one group, if the terms agree; else None."""
        axes = {term.axis for term in self.terms}
        return axes.pop() if len(axes) == 1 else None

    @property
    def differentiable(self) -> bool:
        """Whether the gradients of all terms say something."""
        return all(term.differentiable for term in self.terms)

    @property
    def proximable(self) -> bool:
        """Whether an exact rule for the prox is known."""
        return self._rule(jnp.float32)[1] is not None

    @property
    def separable(self) -> bool:
        """Whether all terms are sums over weights."""
        return all(term.separable for term in self.terms)

    def measure(self, x) -> jax.Array:
        """Σ_i λ_iΩ_i per group if all terms have the same groups, else the value."""
        x = floating(x, self)
        one = len({frozenset(group_axes(term.axis, x, self)) for term in self.terms}) == 1
        return sum((term.measure(x) if one else term.value(x) for term in self.terms), jnp.zeros((), x.dtype))

    def prox(self, x, step) -> jax.Array:
        """argmin_z ½‖z − x‖² + step·Σ_i λ_iΩ_i(z), by the rule that applies."""
        z, quadratics, stages = self._resolved("prox", x)
        step = jnp.asarray(step, z.dtype)
        # z and the anchors, each with its weight: 1 and step·c, of which the infinite ones outweigh the others.
        weights = [jnp.ones((), z.dtype), *(times(step, lam) for lam, _ in quadratics)]
        infinite = functools.reduce(jnp.logical_or, map(jnp.isinf, weights))
        weights = [jnp.where(infinite, jnp.isinf(w).astype(z.dtype), w) for w in weights]
        total = sum(weights[1:], weights[0])
        points = [z, *(anchor for _, anchor in quadratics)]
        z = functools.reduce(jnp.add, (times(w / total, p) for w, p in zip(weights, points, strict=True)))
        step = jnp.where(infinite, 0, step / total)
        for stage in stages:
            z = stage.prox(z, step)
        return z.astype(jnp.result_type(x))

    def optimality(self, x, g) -> jax.Array:
        """The ∞-norm distance of −g to the subdifferential."""
        g = floating(g, self)
        x, quadratics, stages = self._resolved("optimality", x)
        for lam, anchor in quadratics:
            g = g + times(lam, x - anchor)
        kinds = [type(stage) for stage in stages]
        if not stages:
            return largest(jnp.abs(g))
        if len(stages) == 1:
            return stages[0].optimality(x, g)
        if kinds == [L1, GroupL2]:
            axes = group_axes(stages[1].axis, x, self)
            return sparse_group_distance(
                x, g, per_entry(stages[0].lam, x, self), per_group(stages[1].lam, x, axes, self), axes
            )
        if kinds == [TotalVariation, L1]:
            return stages[0].distance(x, g, sparse=stages[1].lam)
        raise TypeError(f"`optimality` of `{title(self)}` is not known in closed form.")

    def _rule(self, dtype):
        """[(λ, anchor)] of the quadratics, and the proxes of the rest to apply in turn; None if no rule is known."""
        quadratics, strengths, rest = [], [], []
        todo = list(self.terms)
        while todo:
            term = todo.pop(0)
            match term:
                case Sum():
                    todo = [*term.terms, *todo]
                case SquaredL2():
                    quadratics.append((term.lam, 0.0))
                case Towards(penalty=SquaredL2()):
                    quadratics.append((term.penalty.lam, term.anchor))
                case L1():
                    strengths.append(jnp.asarray(term.lam, dtype))
                case ElasticNet():
                    lam, ratio = jnp.asarray(term.lam, dtype), jnp.asarray(term.l1_ratio, dtype)
                    strengths.append(times(lam, ratio))
                    quadratics.append((times(lam, 1 - ratio), 0.0))
                case _:
                    rest.append(term)
        one = [L1(sum(strengths[1:], strengths[0]))] if strengths else []
        scalar = all(jnp.ndim(lam) == 0 for lam in strengths)
        match one, rest:
            case (_, []) | ([], [_]) | ([_], [GroupL2() | GroupLinf() | SparseGroup()]):
                stages = [*one, *rest]
            case [_], [TotalVariation()] if scalar:
                stages = [*rest, *one]
            case _:
                stages = None
        plain = all(jnp.ndim(lam) == 0 for lam, _ in quadratics)
        if stages is not None and not (
            all(stage.proximable for stage in stages) and (plain or all(isinstance(s, Separable) for s in stages))
        ):
            stages = None
        return quadratics, stages

    def _resolved(self, method, x):
        """x in which arithmetic runs, λ and anchor of each quadratic for it, and the other proxes to apply in turn."""
        z = floating(x, self)
        quadratics, stages = self._rule(z.dtype)
        if stages is None:
            raise TypeError(
                f"`{method}` of `{title(self)}` is not known in closed form: `Sum` needs quadratics and one penalty "
                "with a prox, or `L1` and a group penalty, or `L1` with one λ and `TotalVariation`. Use `penalized`, "
                "`add_penalty_gradient` or `decay`, which need only its gradient."
            )
        return z, [(per_entry(c, z, self), per_entry(_cast(a, x), z, self)) for c, a in quadratics], stages


def _cast(anchor, x):
    """The anchor in the dtype of the weights, so that they can be at it."""
    return jnp.asarray(anchor, jnp.result_type(x))


def _require_penalty(api: str, pen) -> None:
    if not isinstance(pen, Penalty):
        raise TypeError(f"`{api}` needs a penalty, got {pen!r}.")
