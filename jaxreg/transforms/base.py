"""What the links of a chain share: their state, their schedules, their checks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxreg.pytree import checked_number, is_schedule, lift


class OnGradients(optax.GradientTransformationExtraArgs):
    """A link that works on gradients and comes first."""


class OnStep(optax.GradientTransformationExtraArgs):
    """A link that works on the step and comes last, after the learning rate."""


class CountState(NamedTuple):
    """The number of updates made, for schedules."""

    count: jax.Array


def at(value, count: jax.Array):
    """A schedule at `count`; anything else as it is."""
    return value(count) if is_schedule(value) else value


def at_first(nouns, verb: str, require: Callable) -> None:
    """Require of `nouns`, or of a schedule at count 0, what the verb can use."""
    try:
        require(at(nouns, jnp.zeros([], jnp.int32)))
    except Exception as error:
        if is_schedule(nouns):
            error.add_note(
                f"jaxreg: `{verb}` calls a function with the number of updates made, to have its penalties or "
                "constraints. Functions of the parameters, and `jointly`, are for `multipliers_for`."
            )
        raise


def check_rate(rate, verb: str, name: str = "learning_rate") -> None:
    """Refuse what is neither a number nor a schedule, and a literal number below zero or NaN."""
    if not is_schedule(rate):
        checked_number(verb, name, rate)


def check_leaves(method: Callable, nouns, params) -> None:
    """Run `method(noun, leaf)` on shapes only, so that nouns that do not fit the parameters fail at `init`."""
    lift(lambda entry, p: jax.eval_shape(lambda x: method(entry, x), p), nouns, params)


def stateless_link(
    verb: str, nouns, require: Callable, method: Callable, link: Callable, place: type = OnStep
) -> optax.GradientTransformationExtraArgs:
    """A transformation from `link(noun, update, param, count) -> update`, whose only state is a count.

    Args:
        verb: the name of the verb, for errors.
        nouns: one noun, a prefix tree, or a schedule count -> either.
        require: raises unless its argument is what the verb can use; called at once, schedules at count 0.
        method: `method(noun, leaf)`, run on shapes at `init`.
        link: what happens to one update.
        place: `OnStep` or `OnGradients`.
    """
    at_first(nouns, verb, require)

    def init(params):
        count = jnp.zeros([], jnp.int32)
        check_leaves(method, at(nouns, count), params)
        return CountState(count)

    def update(updates, state, params=None, **extra_args):
        del extra_args
        need_params(params)
        current = at(nouns, state.count)
        if is_schedule(nouns):
            require(current)
        updates = lift(lambda entry, u, p: link(entry, jnp.asarray(u), p, state.count), current, updates, params)
        return updates, CountState(optax.safe_increment(state.count))

    return place(init, update)


def need_params(params: Any) -> None:
    """Raise optax's own error if there are no parameters."""
    if params is None:
        optax.add_decayed_weights(0.0).update({}, optax.EmptyState(), None)
