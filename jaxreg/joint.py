"""Several leaves as one: a norm over a whole network, or over all kernels."""

from collections.abc import Mapping

import jax.numpy as jnp

from jaxreg.arrays import is_floating, widest
from jaxreg.constraints import Equality
from jaxreg.pytree import flatten, title
from jaxreg.requirements import require_constraints
from jaxreg.select import choose


class jointly:
    r"""Constraints on sets of leaves, each set as one long vector: one violation, hence one multiplier, for each.

    A function of the parameters, for `multipliers_for` and `kkt_residuals`:

        optax.chain(jr.multipliers_for(jr.jointly(jr.L2Ball(10.0)), 1e-2), optax.adam(lr))         # the global norm

    The projections onto such sets are optax's: `optax.projections.projection_l2_ball` and its siblings.

    Args:
        cons: a constraint on all parameters together; or a mapping from patterns, as those of `by_path`, to
            constraints, each on all leaves that its pattern wins together, or None.

    Returns:
        `fn(params)` -> the violation, or {pattern: violation}. Its attribute `equality` says in the same structure
        which violations have to be 0.

    Raises:
        TypeError: if there is anything but constraints with a gradient.
        ValueError: if a constraint has an `axis`; when called, if a pattern wins no leaf.

    >>> import jaxreg as jr
    >>> params = {"a": {"kernel": jnp.array([[3.0]])}, "b": {"kernel": jnp.array([4.0]), "bias": jnp.array([9.0])}}
    >>> jointly({"*/kernel": jr.L2Ball(1.0)})(params)["*/kernel"].item()
    4.0
    """

    def __init__(self, cons):
        self._rules = dict(cons) if isinstance(cons, Mapping) else {"*": cons}
        self._single = not isinstance(cons, Mapping)
        require_constraints(self._rules, "jointly", differentiable=True)
        if self._single and cons is None:
            raise TypeError("`jointly` needs a constraint, or a mapping from patterns to constraints, got None.")
        for con in filter(None, self._rules.values()):
            if getattr(con, "axis", None) is not None:
                raise ValueError(
                    "`jointly` needs constraints without `axis`, on all weights as one group; got "
                    f"axis={con.axis} of `{title(con)}`."
                )
        kinds = {pattern: isinstance(con, Equality) for pattern, con in self._rules.items() if con is not None}
        self.equality = kinds["*"] if self._single else kinds

    def __call__(self, params):
        """The violations."""
        leaves, _ = flatten(params)
        sets = {pattern: [] for pattern in self._rules}
        for pattern, (_, leaf) in zip(choose(leaves, self._rules, "jointly"), leaves, strict=True):
            if pattern is not None and is_floating(leaf):
                sets[pattern].append(leaf)
        violations = {}
        for pattern, con in self._rules.items():
            if con is not None:
                dtype = widest(jnp.result_type(leaf) for leaf in sets[pattern])
                vectors = [jnp.ravel(leaf).astype(dtype) for leaf in sets[pattern]]
                violations[pattern] = con.violation(jnp.concatenate([jnp.zeros(0, dtype), *vectors]))
        return violations["*"] if self._single else violations
