"""What a verb can ask of its nouns, and what it says when it is not met."""

from jaxreg.constraints import Constraint
from jaxreg.penalties import Penalty
from jaxreg.pytree import Noun, nouns_of, title


def require_penalties(
    pens, verb: str, *, proximable: bool = False, differentiable: bool = False, separable: bool = False
) -> None:
    """Raise TypeError, naming the verb to use, unless `pens` holds penalties that can do what `verb` needs."""
    _require(pens, Penalty, verb, "penalties", "For a constraint use `projected` or `multipliers`.")
    for pen in nouns_of(pens):
        name = title(pen)
        if proximable and not pen.proximable:
            raise TypeError(
                f"`{verb}` needs penalties with an exact `prox`; `{name}` has none. Use `penalized`, "
                "`add_penalty_gradient` or `decay`, which need only its gradient."
            )
        if separable and not pen.separable:
            raise TypeError(
                f"`{verb}` needs penalties on each weight by itself (`separable`); `{name}` couples weights, and in a "
                "metric its prox has no closed form. Use `proximal` after plain SGD, or bound it: `multipliers` with "
                "`SublevelSet`."
            )
        if differentiable and not pen.differentiable:
            raise TypeError(
                f"`{verb}` needs penalties with a gradient; that of `{name}` says nothing. Use `proximal`, which "
                "needs only its `prox`."
            )


def require_constraints(cons, verb: str, *, projectable: bool = False, differentiable: bool = False) -> None:
    """Raise TypeError, naming the verb to use, unless `cons` holds constraints that can do what `verb` needs."""
    _require(
        cons, Constraint, verb, "constraints", "For a penalty use `decay` or `proximal`, or bound it: `SublevelSet`."
    )
    for con in nouns_of(cons):
        if projectable and not con.projectable:
            raise TypeError(
                f"`{verb}` needs constraints with a closed-form projection; `{title(con)}` has none. Use "
                "`multipliers`, which needs only its `violation`."
            )
        if differentiable and not con.differentiable:
            raise TypeError(
                f"`{verb}` needs constraints whose violation has a gradient; that of `{title(con)}` says nothing. Use "
                "`projected`, which needs only its `project`."
            )


def _require(nouns, kind: type[Noun], verb: str, plural: str, advice: str) -> None:
    for entry in nouns_of(nouns):
        if not isinstance(entry, kind):
            hint = advice if isinstance(entry, Noun) else "See `by_path` for trees of them."
            raise TypeError(f"`{verb}` needs {plural} (or None for 'leave alone'), got {entry!r}. {hint}")
