"""Training taken apart, so that the host can look in between, stop it and go on."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax


class Named:
    """A function that takes, of the arguments it is given by name, those it asks for.

    Args:
        function: any function.
        states: how many of its first arguments are given by position.
    """

    def __init__(self, function: Callable, states: int = 0):
        given = list(inspect.signature(function).parameters.values())[states:]
        self.function = function
        self.names = [p.name for p in given if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self.required = [p.name for p in given if p.name in self.names and p.default is p.empty]
        self.any = any(p.kind is p.VAR_KEYWORD for p in given)

    def __call__(self, *states, **arguments):
        """What the function returns."""
        return self.function(*states, **{k: v for k, v in arguments.items() if self.any or k in self.names})


@dataclasses.dataclass(frozen=True)
class Trainable:
    r"""A training loop whose steps the host can count: θ₀ = init(…), θ_{t+1} = step(θ_t, …), results = report(θ_t, …).

    `sweep` scans `every` steps in one program and comes back to the host with a report: so there is progress within a
    run, a run can be stopped early or resumed in the middle, and `halving` gives its later steps to the best alone.
    Each function takes, by name, those of the axes and fixed arguments that it asks for.

    Args:
        init: (**arguments) -> state, any pytree of arrays: parameters, the optimizer's state, a key.
        step: (state, **arguments) -> state, one training step; the shapes and dtypes stay.
        report: (state, **arguments) -> an array or a dict of arrays. Scalars are also kept for every report.
        steps: how many steps a whole run has.
        every: steps between reports; divides `steps`. None is all of them.
        stop: (state, **arguments) -> bool, whether a run ends at this report, with what it reports there; None: never.
            `early_stopping` in the state gives one.

    Raises:
        ValueError: if `steps` is not a positive multiple of `every`.
        TypeError: if a part is no function.

    >>> import jaxreg as jr
    >>> halve = jr.Trainable(lambda x: x, lambda x: x / 2, lambda x: {"x": x}, steps=3)
    >>> float(halve(x=8.0)["x"])
    1.0
    """

    init: Callable[..., Any]
    step: Callable[..., Any]
    report: Callable[..., Any]
    _: dataclasses.KW_ONLY
    steps: int
    every: int | None = None
    stop: Callable[..., Any] | None = None

    def __post_init__(self):
        for name in ("init", "step", "report", "stop"):
            function = getattr(self, name)
            if not (callable(function) or (name == "stop" and function is None)):
                raise TypeError(f"`Trainable` needs a function as `{name}`, got {function!r}.")
        every = self.steps if self.every is None else self.every
        if not (isinstance(self.steps, int) and isinstance(every, int) and 0 < every <= self.steps):
            raise ValueError(f"`Trainable` needs integers 0 < `every` <= `steps`, got {every!r} and {self.steps!r}.")
        if self.steps % every:
            raise ValueError(f"`Trainable` needs `steps` to be a multiple of `every`, got {self.steps} and {every}.")
        object.__setattr__(self, "every", every)

    @property
    def parts(self) -> list[Named]:
        """The functions, each with the arguments it asks for."""
        rest = [self.step, self.report] + ([self.stop] if self.stop else [])
        return [Named(self.init)] + [Named(function, states=1) for function in rest]

    def __call__(self, **arguments):
        """The report after all steps, nothing stopped: training as a plain function."""
        init, step, report, *_ = self.parts
        state = strong(init(**arguments))
        state, _ = jax.lax.scan(lambda s, _: (step(s, **arguments), None), state, None, self.steps)
        return report(state, **arguments)


def strong(tree):
    """The same numbers with dtypes of their own: Python's numbers take any, which a scan would refuse later."""

    def leaf(x):
        x = jax.numpy.asarray(x)
        return x if jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended) else jax.lax.convert_element_type(x, x.dtype)

    return jax.tree.map(leaf, tree)
