"""The derivative of a validation loss in every strength at once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxreg.convex.fit import prepared, solved
from jaxreg.convex.implicit import pulled_back
from jaxreg.convex.programs import host_array, program


def hypergradient(
    validation_loss: Callable,
    datafit,
    penalty,
    X,
    y,
    *,
    sample_weight=None,
    fit_intercept: bool = True,
    tol: float | None = None,
    max_iter: int = 10_000,
):
    r"""L(W*, b*) and its gradient in the numbers of the penalty, (W*, b*) the solution with that penalty.

    By implicit differentiation on the support: one linear system of its size, however many strengths there are.

    Args:
        validation_loss: (coef, intercept) -> scalar, differentiable.
        datafit: as for `fit`, whose gradient this is; so are all the others.
        penalty: the penalty; an array `lam` has a derivative in each of its entries.
        X: examples, (n, *features).
        y: targets as numbers, (n,) or (n, targets).
        sample_weight: (n,), of any sum; None is equal weights.
        fit_intercept: whether b is free.
        tol: on the optimality of W over that of W = 0.
        max_iter: iterations at most.

    Returns:
        The loss, and a penalty whose numbers are its derivatives in those of `penalty`.

    Raises:
        TypeError: if the penalty is not smooth in the weights that are not zero.
        ValueError: if shapes disagree.

    >>> import jaxreg as jr
    >>> X, y = jnp.array([[1.0], [-1.0]]), jnp.array([2.0, -2.0])
    >>> loss, slope = hypergradient(lambda w, b: w[0] ** 2, jr.convex.Squared(), jr.L1(0.5), X, y)
    >>> round(loss.item(), 3), round(slope.lam.item(), 3)
    (2.25, -3.0)

    References:
        Bertrand et al., Implicit differentiation for fast hyperparameter selection in non-smooth convex learning, 2022;
        Pedregosa, Hyperparameter optimization with approximate gradient, 2016.
    """
    dtype = jnp.result_type(float)
    penalty = jax.tree.map(lambda number: jnp.asarray(host_array(number, dtype), dtype), penalty)
    data = prepared("hypergradient", datafit, penalty, X, y, sample_weight)
    W, b = solved(data, fit_intercept, tol, max_iter)
    value, slopes = jax.value_and_grad(validation_loss, (0, 1))(W, b)
    return value, _pulled_back(data, W, b, slopes, fit_intercept)


_pulled_back = program(pulled_back, static_argnums=4)
