"""What a jaxpr holds that its text does not show, and how large it is."""

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

LAPACK = {"cholesky", "eig", "eigh", "hessenberg", "householder_product", "lu", "qr", "schur", "svd", "tridiagonal"}
LAPACK |= {"geqrf", "geqp3", "triangular_solve"}


def constants(jaxpr: ClosedJaxpr | Jaxpr):
    """The arrays in a program, of which its text shows the shapes alone."""
    if isinstance(jaxpr, ClosedJaxpr):
        yield from jaxpr.consts
        jaxpr = jaxpr.jaxpr
    for atom in [*(atom for equation in jaxpr.eqns for atom in equation.invars), *jaxpr.outvars]:
        if isinstance(atom, Literal) and np.ndim(atom.val) > 0:
            yield atom.val
    for equation in jaxpr.eqns:
        if hasattr(equation.params.get("exported"), "mlir_module_serialized"):
            yield np.frombuffer(equation.params["exported"].mlir_module_serialized, np.uint8)
        for inner in _inner(equation):
            yield from constants(inner)


def operations(jaxpr: Jaxpr) -> int:
    """How many there are, those of inner programs included."""
    inner = [j.jaxpr if isinstance(j, ClosedJaxpr) else j for equation in jaxpr.eqns for j in _inner(equation)]
    return len(jaxpr.eqns) + sum(map(operations, inner))


def factorizes(jaxpr: Jaxpr) -> bool:
    """Whether it holds what a CPU leaves to LAPACK."""
    inner = [j.jaxpr if isinstance(j, ClosedJaxpr) else j for equation in jaxpr.eqns for j in _inner(equation)]
    return any(equation.primitive.name in LAPACK for equation in jaxpr.eqns) or any(map(factorizes, inner))


def _inner(equation):
    for value in equation.params.values():
        for entry in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(entry, (ClosedJaxpr, Jaxpr)):
                yield entry
