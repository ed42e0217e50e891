"""What every configuration shares."""

import hashlib
import re

import jax
import numpy as np


class Fixed:
    """The fixed arguments: arrays, which are arguments of the compiled program, and the rest, which is part of it.

    Args:
        arguments: {name: pytree}.
    """

    def __init__(self, arguments: dict):
        self.names = list(arguments)
        paths, self._structure = jax.tree_util.tree_flatten_with_path(arguments)
        self._paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
        self._leaves = [leaf for _, leaf in paths]
        self._is_array = [_is_array(leaf) for leaf in self._leaves]

    @property
    def arrays(self) -> list:
        """The arrays."""
        return [leaf for leaf, array in zip(self._leaves, self._is_array, strict=True) if array]

    def with_arrays(self, arrays) -> dict:
        """The arguments, with others (tracers) in the place of the arrays."""
        arrays = iter(arrays)
        merged = [next(arrays) if array else leaf for leaf, array in zip(self._leaves, self._is_array, strict=True)]
        return jax.tree.unflatten(self._structure, merged)

    def describe(self) -> dict[str, str]:
        """{path: what is there}, the same in another process if and only if it is the same."""
        return {path: digest(leaf) for path, leaf in zip(self._paths, self._leaves, strict=True)}


def digest(leaf) -> str:
    """Shape, dtype and hash of an array; the text of anything else, without its address in memory."""
    if isinstance(leaf, (set, frozenset)):  # its order is another one in each process
        return f"{type(leaf).__name__}({', '.join(sorted(map(digest, leaf)))})"
    if not _is_array(leaf):
        return without_addresses(repr(leaf))
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    values = np.asarray(leaf)
    hashed = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
    return f"{values.dtype}{list(values.shape)} {hashed[:16]}"


def without_addresses(text: str) -> str:
    """A text that does not depend on where things lie in memory."""
    return re.sub(r"0x[0-9a-f]+", "0x", text)


def _is_array(leaf) -> bool:
    if isinstance(leaf, jax.Array):
        return True
    return isinstance(leaf, np.ndarray) and leaf.dtype.kind not in "OSUMm"
