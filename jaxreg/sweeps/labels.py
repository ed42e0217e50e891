"""Labels: what a static value is called in coordinates, group names and stores."""

import itertools
import re

import numpy as np


def label_of(value) -> str | int | float | bool:
    """A string or number as it is; the name of a function or class; else the repr, without memory addresses."""
    if isinstance(value, str):
        return str(value)
    if getattr(value, "shape", None) == () and np.dtype(value.dtype).kind in "biuf":
        value = value.item()
    if isinstance(value, (bool, int, float)):
        return value
    name = getattr(value, "__name__", None)
    text = name if isinstance(name, str) else re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
    return " ".join(text.split())


def same(a, b) -> bool:
    """Whether two static values are one: the same object, or equal ones of one type."""
    if a is b:
        return True
    try:
        equal = type(a) is type(b) and a == b
    except Exception:  # objects that hold arrays may refuse to compare
        return False
    return isinstance(equal, (bool, np.bool_)) and bool(equal)


def distinct(label, value, known: dict):
    """`label`, or 'label #2', ...: the first that no other value has. It is added to `known`, label -> value."""
    if known.get(label, known) is value:
        return label
    for candidate in itertools.chain([label], (f"{label} #{i}" for i in itertools.count(2))):
        # 1, 1.0 and True are equal, and 1 and "1" read alike: both tell values apart badly.
        keys = (candidate, str(candidate))
        if all(key not in known or same(known[key], value) for key in keys):
            known.update(dict.fromkeys(keys, value))
            return candidate
