"""Squared loss on F folds: with a Gram matrix of all columns where it is small, of some columns where it is not."""

import jax
import numpy as np

from jaxreg.convex.columns import take
from jaxreg.convex.gram import column_scales, moments
from jaxreg.convex.judge import Found, Judged, Judging, Null, of_moments, relative
from jaxreg.convex.lanes import in_parts
from jaxreg.convex.quadratic import Quadratic, descend, loss

GRAM = 2**23  # entries of the Gram matrices of all folds that are kept


class LeastSquares:
    """½Σ s (y − x·w − b)², the intercept b taken out by centring."""

    def __init__(self, datafit, problem, train, standardize, judging: Judging):
        del datafit
        self.layout, self.judging, self.dtype = judging.layout, judging, problem.dtype
        n = len(problem.weight)
        self.X = problem.X.reshape(n, -1)
        y = problem.y.reshape(n, -1)
        self.offset = problem.weight @ y if problem.fit_intercept else np.zeros(y.shape[1])
        self.y = y - self.offset
        self.weight, self.train = problem.weight, train
        self.options = problem.fit_intercept, standardize if len(train) > 1 else None
        self.width, self.folds = self.X.shape[1], len(train)
        self.whole = None
        if len(train) * self.width**2 <= GRAM:
            self.whole = moments(self.X, self.y, self.weight, train, *self.options)
            vectors = self.whole.center, self.whole.scale, self.whole.y_center, *self.whole.quadratic[1:]
            trace = np.trace(self.whole.quadratic.gram, axis1=1, axis2=2)
        else:
            shares = train * self.weight
            self.shares = shares / shares.sum(1, keepdims=True)
            *vectors, trace = _vectors(self.X, self.y, self.shares, *self.options)
        self.center, self.scale, self.y_center, self.linear, self.energy = vectors
        self.step = 1 / np.maximum(trace, np.finfo(np.float64).tiny)
        pull = np.abs(self.linear).max((1, 2))
        self.null = Null(self.energy / 2, np.where(self.energy > 0, self.energy, 0) / 2, pull, None, None)

    def some(self, columns) -> Quadratic:
        """The problem of some columns; padding is columns of zeros."""
        if self.whole is not None:
            gram = take(take(self.whole.quadratic.gram, columns, 1), columns, 2)
        else:
            gram = moments(take(self.X, columns, 1), self.y, self.weight, self.train, *self.options).quadratic.gram
        return Quadratic(gram, take(self.linear, columns, 2), self.energy)

    def gram(self, fold, columns):
        """The Gram matrix of some columns in one fold."""
        if self.whole is not None:
            return take(take(self.whole.quadratic.gram[fold], columns, 0), columns, 1)
        return moments(
            take(self.X, columns, 1), self.y, self.weight, self.train[fold : fold + 1], *self.options
        ).quadratic.gram[0]

    def product_in(self, fold, w):
        """Gw for lanes (L, p) of one fold."""
        if self.whole is not None:
            return w @ self.whole.quadratic.gram[fold]
        return self._product(slice(fold, fold + 1), w[None, :, None])[0, :, 0]

    def solve(self, penalties, start, columns, tol, max_iter):
        """(w, certificate, iterations) on some columns; lanes (F, L)."""
        quadratic = self.some(columns)

        def look(w, product):
            return self._judged(quadratic, penalties, w, product).value

        layout = self.layout.narrowed(len(columns))
        return descend(quadratic, penalties, start, tol, layout=layout, max_iter=max_iter, dtype=self.dtype, look=look)

    def judge(self, penalties, w) -> Judged:
        """What is known of lanes of flat w on all columns."""
        if self.whole is not None:
            return self._judged(self.whole.quadratic, penalties, w, self.whole.quadratic.product(w))
        return self._judged(Quadratic(None, self.linear, self.energy), penalties, w, self._product(slice(None), w))

    def at_zero(self, penalties) -> Null:
        """What is known of w = 0; with the critical strengths, if they are asked for."""
        shape = *jax.tree.leaves(penalties)[0].shape[:2], *self.linear.shape[1:]
        found = self._found(
            penalties, np.zeros(shape), np.broadcast_to(-self.linear[:, None], shape), np.zeros(shape[:2])
        )
        return self.null._replace(cost=found.cost, critical=found.critical)

    def _found(self, penalties, w, slope, fit) -> Found:
        options = self.judging.narrowed(w.shape[-1])
        return in_parts(lambda *lanes: of_moments(*lanes, self.step, options), options.lanes, penalties, w, slope, fit)

    def _judged(self, quadratic, penalties, w, product) -> Judged:
        with np.errstate(over="ignore", invalid="ignore"):
            fit = np.maximum(loss(quadratic, w, product), 0)
            slope = product - quadratic.linear[:, None]
            found = self._found(penalties, w, slope, fit)
            return Judged(relative(self.judging.kind, found, self.null, False), fit + found.cost, fit, slope)

    def intercept(self, w):
        """b of scaled columns, (F, ..., t)."""
        lead = (slice(None), *[None] * (w.ndim - 3))
        return self.offset + self.y_center[lead] - np.einsum("f...tp,fp->f...t", w, self.center / self.scale)

    def _product(self, folds, w):
        """Gw for lanes (F, L, t, p), by the data."""
        scale, center, shares = (x[folds, None, None] for x in (self.scale, self.center, self.shares))
        w = w / scale
        eta = shares * (w @ self.X.T - (w * center).sum(-1, keepdims=True))
        return (eta @ self.X - eta.sum(-1, keepdims=True) * center) / scale


def _vectors(X, y, shares, fit_intercept, standardize):
    """Centres, scales, linear part, energy and trace of each fold: what of `moments` is no matrix."""
    center, y_center = shares @ X, shares @ y
    if not fit_intercept:
        center, y_center = np.zeros_like(center), np.zeros_like(y_center)
    linear = np.stack([(share[:, None] * y).T @ X for share in shares]) - y_center[:, :, None] * center[:, None, :]
    energy = shares @ np.square(y).sum(1) - np.square(y_center).sum(-1)
    scale = column_scales(X, shares, fit_intercept, standardize)
    trace = ((shares @ np.square(X) - np.square(center)) / np.square(scale)).sum(1)
    return center, scale, y_center, linear / scale[:, None], energy, trace
