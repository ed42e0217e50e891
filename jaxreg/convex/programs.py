"""Calls of one compiled program each: nothing is compiled for their arguments, and the whole in less time."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

# LLVM's first level and XLA's older emitters, the only ones of JAX 0.12, compile in half the time. On large arrays the
# programs are up to a sixth slower.
OPTIONS = {"xla_backend_optimization_level": 1}
OPTIONS |= {"xla_cpu_use_fusion_emitters": False} if jax.__version_info__ < (0, 11) else {}


def program(function: Callable | None = None, *, small: int = 2**20, **options) -> Callable:
    """`jax.jit`, as a decorator too, which compiles in less time where it is no part of another program.

    That is for arguments of up to `small` bytes, of which compiling is what takes time.
    """
    if function is None:
        return functools.partial(program, small=small, **options)
    part, whole = jax.jit(function, **options), jax.jit(function, compiler_options=OPTIONS, **options)

    @functools.wraps(function)
    def call(*args, **named):
        leaves = jax.tree.leaves(args)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return part(*args, **named)
        chosen = whole if sum(getattr(leaf, "nbytes", 0) for leaf in leaves) <= small else part
        with jax.core.eval_context():
            return chosen(*args, **named)

    return call


def host_array(x, dtype=None):
    """An array for a program, of JAX if `x` is, else of NumPy, in `dtype`: nothing is compiled for it."""
    if isinstance(x, jax.Array):
        return x
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(x)):
        return jnp.asarray(x, dtype)
    return np.asarray(x, dtype)
