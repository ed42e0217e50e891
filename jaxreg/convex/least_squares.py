"""Squared loss on F folds: with a Gram matrix of all columns where it is small, of some columns where it is not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex.columns import take
from jaxreg.convex.gram import column_scales, moments
from jaxreg.convex.lanes import Layout
from jaxreg.convex.quadratic import Quadratic, certified, descend, judged

GRAM = 2**23  # entries of the Gram matrices of all folds that are kept


class LeastSquares:
    """½Σ s (y − x·w − b)², the intercept b taken out by centring."""

    def __init__(self, datafit, problem, train, standardize, layout: Layout, kind: str):
        del datafit
        self.layout, self.kind, self.dtype = layout, kind, problem.dtype
        n = len(problem.weight)
        self.X = problem.X.reshape(n, -1)
        y = problem.y.reshape(n, -1)
        self.offset = problem.weight @ y if problem.fit_intercept else np.zeros(y.shape[1])
        self.y = y - self.offset
        self.weight, self.train = problem.weight, train
        self.options = problem.fit_intercept, standardize if len(train) > 1 else None
        self.width = self.X.shape[1]
        self.whole = None
        if len(train) * self.width**2 <= GRAM:
            self.whole = moments(self.X, self.y, self.weight, train, *self.options)
            vectors = self.whole.center, self.whole.scale, self.whole.y_center, *self.whole.quadratic[1:]
        else:
            shares = train * self.weight
            self.shares = shares / shares.sum(1, keepdims=True)
            self.X = jnp.asarray(self.X)
            vectors = _vectors(self.X, self.y, self.shares, *self.options)
        self.center, self.scale, self.y_center, self.linear, self.energy = map(np.asarray, vectors)

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
        one = slice(fold, fold + 1)
        return _product(self.X, self.shares[one], self.center[one], self.scale[one], w[None, :, None])[0, :, 0]

    def solve(self, penalties, start, columns, tol, max_iter):
        """(w, certificate, iterations) on some columns; lanes (F, L)."""
        quadratic = self.some(columns)
        return descend(
            quadratic,
            penalties,
            start,
            tol,
            layout=self.layout.narrowed(len(columns)),
            kind=self.kind,
            max_iter=max_iter,
            dtype=self.dtype,
        )

    def judge(self, penalties, w):
        """(certificate, objective, loss, slope of the loss) on all columns, for lanes of flat w."""
        options = {"layout": self.layout, "kind": self.kind}
        if self.whole is not None:
            return judged(self.whole.quadratic, penalties, w, **options)
        product = _product(self.X, self.shares, self.center, self.scale, w)
        return certified(Quadratic(None, self.linear, self.energy), penalties, w, product, **options)

    def intercept(self, w):
        """b of scaled columns, (F, ..., t)."""
        lead = (slice(None), *[None] * (w.ndim - 3))
        return self.offset + self.y_center[lead] - np.einsum("f...tp,fp->f...t", w, self.center / self.scale)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _vectors(X, y, shares, fit_intercept, standardize):
    """Centres, scales, linear part and energy of each fold: what of `moments` is no matrix."""
    center, y_center = shares @ X, shares @ y
    if not fit_intercept:
        center, y_center = jnp.zeros_like(center), jnp.zeros_like(y_center)
    linear = jnp.einsum("fn,nt,np->ftp", shares, y, X) - y_center[:, :, None] * center[:, None, :]
    energy = jnp.einsum("fn,nt->f", shares, jnp.square(y)) - jnp.sum(jnp.square(y_center), -1)
    scale = column_scales(X, shares, fit_intercept, standardize)
    return center, scale, y_center, linear / scale[:, None], energy


@jax.jit
def _product(X, shares, center, scale, w):
    """Gw for lanes (F, L, t, p), by the data."""

    def fold(shares, center, scale, w):
        w = w / scale
        eta = w @ X.T
        eta = eta - (w @ center)[..., None]
        return ((eta * shares) @ X - jnp.sum(eta * shares, -1, keepdims=True) * center) / scale

    return jax.vmap(fold)(shares, center, scale, w)
