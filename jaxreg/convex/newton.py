"""Proximal Newton: the datafit's own quadratic at the iterate, solved as least squares are, and a line search."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex.quadratic import Quadratic, cast, descend

ENTRIES = 2**24  # of the Hessians of all lanes, up to which they are made
LENGTHS = 0.5 ** np.arange(12.0)  # of the step, all tried at once
OUTER = 60
FLAT = 0.01  # of the greatest curvature, where there is none


def newton(model, rows, penalties, start, tol, *, layout, judge, max_iter):
    """(w, certificate, iterations) of every lane (F, L), iterations those of the inner solver.

    Args:
        model: of the datafit: `Smooth`.
        rows: what it is fitted to.
        penalties: leaves with leading axes (F, L).
        start: (F, L, t, p).
        tol: on the certificate.
        layout: of the coefficients.
        judge: (penalties, w) -> (certificate, objective, loss, slope).
        max_iter: of the inner solver.

    References:
        Lee, Sun and Saunders, Proximal Newton-type methods for minimizing composite functions, 2014, algorithm 1.
    """
    folds, lanes = start.shape[:2]
    wide = (folds * lanes, 1, 1, int(np.prod(start.shape[2:])))
    single = jax.tree.map(lambda leaf: leaf.reshape(wide[0], 1, *leaf.shape[2:]), penalties)
    kind = "fixed_point" if model.kind == "fixed_point" else "optimality"
    options = {"layout": layout, "fit_intercept": model.fit_intercept}
    w, iterations, patience = jnp.asarray(start, jnp.float64), 0, 0
    value, _, _, slope = (np.array(x) for x in judge(penalties, w))
    best, now = np.array(w), value.copy()
    for _ in range(OUTER):
        if np.all(value <= tol) or iterations >= max_iter or patience > 2:
            break
        quadratic = _quadratics(model.datafit, cast(rows, model.dtype), w.astype(model.dtype), **options)
        # What is left of the slope shows in the gap next to the slope itself, which is about the strength.
        size = np.abs(quadratic.linear).max((1, 2)).reshape(value.shape)
        inner = 0.03 * np.minimum(now, 1) * np.abs(slope).max((2, 3)) / np.where(size > 0, size, 1)
        target, _, steps = descend(
            cast(quadratic, np.float64),
            single,
            w.reshape(wide),
            np.where(value > tol, np.clip(inner, 1e-13, 1e-2), np.inf).reshape(-1, 1),
            layout=layout,
            kind=kind,
            max_iter=max_iter - iterations,
            dtype=model.dtype,
        )
        iterations += steps
        w, moved = _searched(model.datafit, rows, penalties, w, jnp.asarray(target).reshape(w.shape), **options)
        now, _, _, slope = (np.asarray(x) for x in judge(penalties, w))
        better = now < value
        best[better], value[better] = np.asarray(w)[better], now[better]
        patience = 0 if np.any(better) else patience + 1
        if not np.any(moved):
            break
    return best, value, np.full(value.shape, iterations)


@functools.partial(jax.jit, static_argnames=("layout", "fit_intercept"))
def _quadratics(datafit, rows, w, *, layout, fit_intercept) -> Quadratic:
    """The quadratic of each lane at w, one fold for each, the coefficients of all targets in one row.

    The intercept is minimised out: of the Hessian in (W, b) what is left is its Schur complement.
    """
    n, p = rows.X.shape

    def lane(weight, scale, w):
        X = rows.X if scale is None else rows.X / scale
        eta = rows.outputs(layout, w, scale)
        eta = eta + datafit.intercept(eta, rows.y, weight) if fit_intercept else eta
        slope = (weight * datafit.slope(eta, rows.y).T).reshape(-1, n) @ X
        t = len(slope)
        D = curvatures(datafit, eta, rows.y) * weight[:, None, None]
        hessian = jnp.einsum("nab,nj,nk->ajbk", D, X, X).reshape(t * p, t * p)
        if fit_intercept:
            across = jnp.einsum("nab,nj->ajb", D, X).reshape(t * p, t)
            hessian = hessian - across @ jnp.linalg.pinv(D.sum(0), hermitian=True) @ across.T
        flat = w.reshape(-1)
        return hessian, (hessian @ flat - slope.reshape(-1))[None]

    scaled = None if rows.scale is None else 0
    gram, linear = jax.vmap(jax.vmap(lane, (None, None, 0)), (0, scaled, 0))(rows.weight, rows.scale, w)
    gram, linear = (x.reshape(-1, *x.shape[2:]) for x in (gram, linear))
    return Quadratic(gram, linear, jnp.zeros(len(gram), gram.dtype))


def curvatures(datafit, eta, y):
    """∂²f/∂η² of each example, (n, t, t); a little where it is 0, as beyond the elbows of Huber's loss."""
    if eta.ndim == 1:
        bend = datafit.bend(eta, y)
        return jnp.where(bend > 0, bend, FLAT * (datafit.curvature or 0))[:, None, None]
    return jax.vmap(jax.jacfwd(lambda eta, y: datafit.slope(eta[None], y[None])[0]))(eta, y)


@functools.partial(jax.jit, static_argnames=("layout", "fit_intercept"))
def _searched(datafit, rows, penalties, w, target, *, layout, fit_intercept):
    """(w, whether it moved): each lane at the best of some lengths of its step, where that lowers the objective."""

    def lane(weight, scale, penalty, w, target):
        def outputs(z):
            eta = rows.outputs(layout, z, scale)
            return eta + datafit.intercept(eta, rows.y, weight) if fit_intercept else eta

        near, far = outputs(w), outputs(target)

        def objective(length):
            # The target itself at 1, zeros and all; between the two, an intercept that is nearly the best.
            z = (1 - length) * w + length * target
            return weight @ datafit.loss((1 - length) * near + length * far, rows.y) + penalty.value(layout.coef(z))

        lengths = jnp.asarray(LENGTHS)
        costs = jax.vmap(objective)(lengths)
        costs = jnp.where(jnp.isnan(costs), jnp.inf, costs)
        length = lengths[jnp.argmin(costs)]
        moved = jnp.min(costs) < objective(0.0)
        return jnp.where(moved, (1 - length) * w + length * target, w), moved

    scaled = None if rows.scale is None else 0
    return jax.vmap(jax.vmap(lane, (None, None, 0, 0, 0)), (0, scaled, 0, 0, 0))(
        rows.weight, rows.scale, penalties, w, target
    )
