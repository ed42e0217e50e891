"""Datafits without a Gram matrix, on F folds: every lane by accelerated proximal gradient on the data."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex.accelerated import minimise
from jaxreg.convex.certificate import KINDS, gap
from jaxreg.convex.columns import take
from jaxreg.convex.gram import column_scales
from jaxreg.convex.lanes import Layout
from jaxreg.convex.newton import ENTRIES, newton
from jaxreg.convex.support import is_concave

FITTED = KINDS | {"gap": functools.partial(gap, refit=False)}  # certificates where b is the best one


class Rows(NamedTuple):
    """What lanes of F folds are fitted to."""

    X: jax.Array  # (n, p) float64
    y: jax.Array  # (n,) or (n, t), encoded
    weight: jax.Array  # (F, n), of the training rows; each row sums to 1
    scale: jax.Array | None  # (F, p), of the columns; None for ones

    def outputs(self, layout, w, scale):
        """x·w of one lane, for scaled columns; (n,) or (n, t)."""
        eta = self.X @ (w if scale is None else w / scale.astype(w.dtype)).T
        return eta if layout.targets else eta[:, 0]


class Smooth:
    """Any datafit. Its intercept is fitted at every step, which leaves a function of the coefficients alone."""

    def __init__(self, datafit, problem, train, standardize, layout: Layout, kind: str):
        self.datafit, self.layout, self.kind, self.dtype = datafit, layout, kind, problem.dtype
        self.fit_intercept = problem.fit_intercept
        n = len(problem.weight)
        X, shares = jnp.asarray(problem.X.reshape(n, -1)), train * problem.weight
        self.width = X.shape[1]
        shares = jnp.asarray(shares / shares.sum(1, keepdims=True))
        self.scale = None
        if standardize is not None and len(train) > 1:
            self.scale = column_scales(X, shares, self.fit_intercept, standardize)
        self.rows = Rows(X, jnp.asarray(problem.y), shares, self.scale)

    def solve(self, penalties, start, columns, tol, max_iter):
        """(w, certificate, iterations) on some columns; lanes (F, L)."""
        scale = None if self.scale is None else jnp.where((s := take(self.scale, columns, 1)) > 0, s, 1)
        rows = self.rows._replace(X=take(self.rows.X, columns, 1), scale=scale)
        layout = self.layout.narrowed(len(columns))
        unknowns, steps, before = start.shape[2] * len(columns), 0, np.full(start.shape[:2], np.inf)
        if start.shape[0] * start.shape[1] * unknowns**2 <= ENTRIES and not is_concave(penalties):
            options = {"layout": layout, "kind": self.kind, "fit_intercept": self.fit_intercept}
            judge = functools.partial(_judge, self.datafit, rows, **options)
            # Half of the steps: where Newton's model does not do, it may take all of them and get nowhere.
            half, max_iter = (max_iter + 1) // 2, max_iter // 2
            start, before, steps = newton(self, rows, penalties, start, tol, layout=layout, judge=judge, max_iter=half)
            if np.all(before <= tol) or max_iter == 0:
                return start, before, steps
        w, value, more = _minimise(
            self.datafit,
            rows,
            penalties,
            jnp.asarray(start),
            tol,
            layout=layout,
            kind=self.kind,
            max_iter=max_iter,
            dtype=self.dtype,
            fit_intercept=self.fit_intercept,
        )
        better = np.asarray(value) < before
        w = np.where(better[..., None, None], w, start)
        return w, np.where(better, value, before), steps + np.asarray(more)

    def judge(self, penalties, w):
        """(certificate, objective, loss, slope of the loss) on all columns, for lanes of flat w."""
        options = {"layout": self.layout, "kind": self.kind, "fit_intercept": self.fit_intercept}
        return _judge(self.datafit, self.rows, penalties, w, **options)

    def intercept(self, w):
        """b of scaled columns, (F, ..., t)."""
        if not self.fit_intercept:
            return np.zeros((*w.shape[:-1],))
        lanes = w.reshape(w.shape[0], -1, *w.shape[-2:])
        b = _intercepts(self.datafit, self.rows, lanes, layout=self.layout)
        return np.asarray(b).reshape(w.shape[:-1])


def _lane(datafit, rows, layout, fit_intercept, weight, scale, w):
    """(η, b, slope of the loss in w) of one lane."""
    eta = rows.outputs(layout, w, scale)
    b = datafit.intercept(eta, rows.y, weight) if fit_intercept else jnp.zeros(eta.shape[1:], eta.dtype)
    slope = weight.reshape(-1, *[1] * (eta.ndim - 1)) * datafit.slope(eta + b, rows.y)
    slope = slope.reshape(len(weight), -1).T @ rows.X
    return eta + b, b, slope if scale is None else slope / scale


@functools.partial(jax.jit, static_argnames="layout")
def _intercepts(datafit, rows, w, *, layout):
    def lane(weight, scale, w):
        return jnp.atleast_1d(_lane(datafit, rows, layout, True, weight, scale, w)[1])

    return _over_lanes(lane, rows, 1)(rows.weight, rows.scale, w)


@functools.partial(jax.jit, static_argnames=("layout", "kind", "fit_intercept"))
def _judge(datafit, rows, penalties, w, *, layout, kind, fit_intercept):
    def lane(weight, scale, penalty, w):
        X = rows.X if scale is None else rows.X / scale
        eta, b, slope = _lane(datafit, rows, layout, fit_intercept, weight, scale, w)
        arguments = datafit, penalty, X.reshape(len(X), *layout.features), rows.y, weight, fit_intercept
        value, objective, *_ = FITTED[kind](*arguments, layout.coef(w), b)
        return jnp.maximum(value, 0), objective, weight @ datafit.loss(eta, rows.y), slope

    return _over_lanes(lane, rows, 2)(rows.weight, rows.scale, penalties, w)


@functools.partial(jax.jit, static_argnames=("layout", "kind", "max_iter", "dtype", "fit_intercept"))
def _minimise(datafit, rows, penalties, start, tol, *, layout, kind, max_iter, dtype, fit_intercept):
    """(w, certificate, iterations) of every lane (F, L), of scaled columns."""
    thin = jax.tree.map(lambda x: x.astype(dtype), rows)
    thin_datafit = jax.tree.map(lambda x: jnp.asarray(x, dtype), datafit)

    def lane(weight, scale, penalty, w0):
        exact = rows.X if scale is None else rows.X / scale
        exact = exact.reshape(len(exact), *layout.features)
        s = weight.astype(dtype)
        narrow = jax.tree.map(lambda x: x.astype(dtype), penalty)

        def smooth(w):
            eta, _, slope = _lane(
                thin_datafit, thin, layout, fit_intercept, s, None if scale is None else scale.astype(dtype), w
            )
            return s @ thin_datafit.loss(eta, thin.y), slope

        def prox(w, step):
            return layout.flat(narrow.prox(layout.coef(w), step))

        def residual(w, _):
            w = w.astype(jnp.float64)
            b = _lane(datafit, rows, layout, fit_intercept, weight, scale, w)[1]
            arguments = datafit, penalty, exact, rows.y, weight, fit_intercept
            return FITTED[kind](*arguments, layout.coef(w), b)[0]

        # Σ s‖x‖² bounds the curvature, up to the datafit's own, which backtracking finds.
        spread = s @ jnp.square(thin.X if scale is None else thin.X / scale.astype(dtype)).sum(1)
        step = 1 / jnp.maximum(spread, jnp.finfo(dtype).tiny)
        cost = (lambda w: narrow.value(layout.coef(w))) if is_concave(penalty) else None
        w, iterations, value = minimise(smooth, prox, w0, step, tol, max_iter, residual=residual, cost=cost)
        return w.astype(jnp.float64), value, iterations

    return _over_lanes(lane, rows, 2)(rows.weight, rows.scale, penalties, start.astype(dtype))


def _over_lanes(lane, rows, batched: int):
    """`lane(weight, scale, ...)` over folds, and over the lanes of the last `batched` arguments."""
    scaled = None if rows.scale is None else 0
    inner = jax.vmap(lane, (None, None, *[0] * batched))
    return jax.vmap(inner, (0, scaled, *[0] * batched))
