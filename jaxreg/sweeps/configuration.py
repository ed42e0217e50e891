"""The configuration of JAX in force, which threads and workers do not inherit, and a jaxpr does not show."""

import contextlib

import jax

_PROGRAM = ("enable_x64", "default_matmul_precision", "default_prng_impl", "threefry_partitionable")  # changes results
_OTHERS = ("debug_nans", "debug_infs")


def configuration(names=(*_PROGRAM, *_OTHERS)) -> dict:
    """{name: value} of what is set here, by the names of JAX's context managers."""
    return {name: getattr(jax.config, f"jax_{name}") for name in names}


def told() -> str:
    """A line on what changes results."""
    return ", ".join(f"{name} = {value}" for name, value in configuration(_PROGRAM).items())


@contextlib.contextmanager
def configured(values: dict):
    """JAX with these values, in this thread."""
    with contextlib.ExitStack() as stack:
        for name, value in values.items():
            stack.enter_context(getattr(jax, name)(value))
        yield


def in_configuration(values: dict, function, *arguments):
    """What a function returns with these values."""
    with configured(values):
        return function(*arguments)
