"""Effective degrees of freedom of linear fits; the `df` of `jr.convex.path`, under `jit` and `vmap`."""

import jax
import jax.numpy as jnp

from jaxreg.convex.ridge import closed_form
from jaxreg.diagnostics.groups import real


def ridge_degrees_of_freedom(X, lams, weight=None, *, fit_intercept: bool = True) -> jax.Array:
    r"""df(λ) = Σ d²/(d² + nλ), d the singular values of X − x̄: the trace of what maps y to the fit.

    The fit is argmin ‖y − Xw − b‖²/(2n) + (λ/2)‖w‖², as in `jr.convex.ridge`; b is not counted.

    Args:
        X: (n, *features): inputs, or a hidden layer's activations for a ridge fit on top.
        lams: λ ≥ 0, a number or (K,); traced too.
        weight: of the examples, (n,), scaled to sum 1 in place of 1/n; None for 1/n.
        fit_intercept: whether X is centred.

    Returns:
        The shape of `lams`, float32 at least: 0 at λ = ∞, the rank of X − x̄ at λ = 0, where singular values below
        rounding of the largest are none: scale columns whose units differ widely.

    Raises:
        ValueError: if X has no examples or no features, or `weight` is not one for each example.

    >>> X = jnp.array([[0.0], [1.0], [2.0]])
    >>> [round(df, 3) for df in ridge_degrees_of_freedom(X, jnp.array([0.0, 2 / 3])).tolist()]
    [1.0, 0.5]

    References:
        Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 2nd ed., eq. 3.50.
    """
    X = _design("ridge_degrees_of_freedom", X)
    lams = jnp.asarray(lams, X.dtype)
    weight = None if weight is None else jnp.asarray(weight, X.dtype)
    if weight is not None and weight.shape != X.shape[:1]:
        raise ValueError(f"`ridge_degrees_of_freedom` needs `weight` of shape {X.shape[:1]}, got {weight.shape}.")
    with jax.default_matmul_precision("highest"):
        df = closed_form(jnp, X, jnp.zeros(len(X), X.dtype), lams.reshape(-1), weight, fit_intercept, None).df
    return df.reshape(lams.shape)


def lasso_degrees_of_freedom(X, coef, *, fit_intercept: bool = True) -> jax.Array:
    r"""df = rank(X_A − x̄_A), A = {j : w_j ≠ 0}: without bias for a lasso fit, whatever the rank of X.

    It is the number of weights that are not 0 where their columns are independent. The intercept is not counted.

    Args:
        X: (n, *features): what it was fitted to.
        coef: the weights, (*features), or (*features, targets) for the sum over targets. A path: `vmap` over it.
        fit_intercept: whether X is centred.

    Returns:
        An integer.

    Raises:
        ValueError: if X has no examples or no features, or `coef` has not its features.

    >>> X = jnp.array([[0.0, 0.0, 1.0], [1.0, 2.0, 0.0], [2.0, 4.0, 0.0]])
    >>> lasso_degrees_of_freedom(X, jnp.array([0.5, 0.25, 0.0])).item()  # the second column is twice the first
    1

    References:
        Tibshirani and Taylor, Degrees of freedom in lasso problems, 2012, theorem 2; Zou, Hastie and Tibshirani, On the
        "degrees of freedom" of the lasso, 2007, theorem 1.
    """
    X, coef = _design("lasso_degrees_of_freedom", X), jnp.asarray(coef)
    features = X.shape[1:]
    if coef.shape[: len(features)] != features or coef.ndim > len(features) + 1:
        raise ValueError(
            f"`lasso_degrees_of_freedom` needs `coef` of shape {features}, or with targets behind, got {coef.shape}."
        )
    X, eps = X.reshape(len(X), -1), jnp.finfo(X.dtype).eps
    noise = 8 * eps * jnp.max(jnp.abs(X), 0)
    X = X - jnp.mean(X, 0) if fit_intercept else X
    scale = jnp.max(jnp.abs(X), 0)
    X = jnp.where(scale > noise, X / jnp.where(scale > noise, scale, 1), 0)  # a rank does not depend on units
    active = coef.reshape(X.shape[1], -1).T != 0

    def rank(active):
        d = jnp.linalg.svd(jnp.where(active, X, 0), compute_uv=False)
        return jnp.count_nonzero(d > d[0] * max(X.shape) * eps)

    return jnp.sum(jax.vmap(rank)(active))


def _design(api, X) -> jax.Array:
    X = real(api, X)
    if X.ndim < 2 or not X.size:
        raise ValueError(f"`{api}` needs X of shape (n, *features), with examples and features; got {X.shape}.")
    return X
