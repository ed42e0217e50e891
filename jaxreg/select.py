"""Choosing parameters by path."""

import warnings
from collections.abc import Mapping
from fnmatch import fnmatchcase

import jax
import numpy as np

from jaxreg.pytree import Noun, _list, entries, flatten


def by_path(params, rules: Mapping[str, Noun | None]):
    r"""A tree of penalties or constraints, chosen by the paths of the parameters.

    A pattern is an `fnmatch` glob on the '/'-joined path; `*` crosses '/', and a leading `*/` also matches nothing, so
    `"*/kernel"` finds every kernel, at the top too. The first match wins; leaves without a match are left alone (None).

    Args:
        params: the parameters, a pytree of any framework; only their paths are used.
        rules: pattern -> penalty, constraint or None, in order of precedence.

    Returns:
        A tree with the structure of `params` and one penalty, constraint or None for each parameter.

    Raises:
        ValueError: if a pattern wins no leaf; the message lists the paths that exist.
        TypeError: if `rules` is no mapping, or one of its values is neither a penalty, a constraint nor None.

    Warns:
        UserWarning: if one array stands at two paths: tied weights would be counted twice. Tie them in the framework.

    >>> import jaxreg as jr
    >>> params = {"head": {"kernel": 1.0, "bias": 0.0}, "kernel": 2.0}
    >>> by_path(params, {"head/*": None, "*/kernel": jr.L1(0.1)})
    {'head': {'bias': None, 'kernel': None}, 'kernel': L1(lam=0.1, axis=None)}
    """
    if not isinstance(rules, Mapping):
        raise TypeError(f"`by_path` needs a mapping from patterns to penalties or constraints, got {rules!r}.")
    for pattern, entry in rules.items():
        if not (entry is None or isinstance(entry, Noun)):
            raise TypeError(f"`by_path` needs penalties, constraints or None, got {entry!r} for {pattern!r}.")
    leaves, _ = flatten(params)
    _warn_if_tied(leaves)
    chosen = [rules.get(pattern) for pattern in choose(leaves, rules, "by_path")]
    return entries(chosen, params)


def choose(leaves, rules: Mapping[str, Noun | None], api: str) -> list[str | None]:
    """The pattern that wins each leaf, the first that matches; None where none does."""
    winners = [next((p for p in rules if _matches("/".join(path), p)), None) for path, _ in leaves]
    for pattern in rules:
        if pattern not in winners:
            raise ValueError(
                f"`{api}` needs every pattern to win a parameter: {pattern!r} matches none, or only what an earlier "
                f"pattern took. These exist: {_list(path for path, _ in leaves)}."
            )
    return winners


def _matches(path: str, pattern: str) -> bool:
    return fnmatchcase(path, pattern) or (pattern.startswith("*/") and fnmatchcase(path, pattern[2:]))


def _warn_if_tied(leaves) -> None:
    seen = {}
    for path, leaf in leaves:
        if isinstance(leaf, np.ndarray | jax.Array) and not isinstance(leaf, jax.core.Tracer):
            first = seen.setdefault(id(leaf), path)
            if first is not path:
                warnings.warn(
                    f"one array stands at two paths, {_list([first, path])}: it is counted twice. "
                    "Tie weights in the framework, as one leaf.",
                    stacklevel=3,
                )
