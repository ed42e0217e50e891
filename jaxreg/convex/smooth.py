"""Any datafit on the rows of F folds: proximal Newton where Hessians are small, else accelerated proximal gradient."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex.accelerated import minimise
from jaxreg.convex.columns import take
from jaxreg.convex.gram import column_scales
from jaxreg.convex.host_intercepts import fitted
from jaxreg.convex.judge import Found, Judged, Judging, Null, Rows, of_rows, relative
from jaxreg.convex.lanes import bucket, in_parts, over_lanes, pick
from jaxreg.convex.newton import ENTRIES, newton, products
from jaxreg.convex.programs import program
from jaxreg.convex.support import is_concave

EPS = np.finfo(np.float64).eps
SHARPEN = 0.1  # the tolerance of the next round, as a share of this one's
ROUNDS = 8


class Smooth:
    """Any datafit. Its intercept is fitted at every step, which leaves a function of the coefficients alone."""

    def __init__(self, datafit, problem, train, standardize, judging: Judging):
        self.datafit, self.layout, self.dtype = datafit, judging.layout, problem.dtype
        self.fit_intercept = problem.fit_intercept
        X, shares = problem.X.reshape(len(problem.X), -1), train * problem.weight
        shares = shares / shares.sum(1, keepdims=True)
        # Copies of the last row without a weight fill up the rows: data of nearly as many share the programs.
        filled = np.minimum(np.arange(bucket(len(X))), len(X) - 1)
        X, y = X[filled], problem.y[filled]
        shares = np.pad(shares, ((0, 0), (0, len(filled) - shares.shape[1])))
        self.width, self.folds = X.shape[1], len(train)
        scale = None
        if standardize is not None and len(train) > 1:
            scale = column_scales(X, shares, self.fit_intercept, standardize)
        self.scale, self.rows = scale, Rows(X, y, shares, scale)
        self.spread = shares @ np.square(X) if scale is None else shares @ np.square(X) / np.square(scale)  # (F, p)
        self.step = 1 / np.maximum(self.spread.sum(1), np.finfo(np.float64).tiny)
        self.null = self.there = self.last = self._pairs = None  # the last intercepts are near the next ones
        self.judging = self._asking(judging)

    def _asking(self, judging) -> Judging:
        """For curvatures too, where Hessians are small enough for Newton's method."""
        unknowns = max(self.rows.y[0].size, 1) * self.width
        return judging._replace(curved=self.folds * judging.lanes * unknowns**2 <= ENTRIES)

    def narrowed(self, columns) -> "Smooth":
        """The problem of some columns, judged by the same units; of the padding, which are zeros, the scale is 1."""
        if len(columns) == self.width:
            return self
        some, rows = object.__new__(Smooth), self.rows
        some.__dict__ |= self.__dict__
        scale = None if rows.scale is None else np.where((s := take(rows.scale, columns, 1)) > 0, s, 1)
        some.rows, some.spread = rows._replace(X=take(rows.X, columns, 1), scale=scale), take(self.spread, columns, 1)
        some.width, some.there, some._pairs = len(columns), None, None
        some.judging = some._asking(self.judging.narrowed(len(columns)))
        some.layout = some.judging.layout
        return some

    @property
    def pairs(self):
        """The products of each two columns, or None."""
        if self._pairs is None:
            self._pairs = products(self.rows.X)
        return self._pairs

    def solve(self, penalties, start, columns, tol, max_iter):
        """(w, certificate, iterations) on some columns; lanes (F, L)."""
        return self.narrowed(columns)._solve(penalties, start, tol, max_iter)

    def _solve(self, penalties, start, tol, max_iter):
        w, value, steps = start, np.full(start.shape[:2], np.inf), np.zeros(start.shape[:2], int)
        if self.judging.curved and not is_concave(penalties):
            # Half of the steps: where Newton's model does not do, it may take all of them and get nowhere.
            w, value, steps = newton(self, penalties, start, tol, max_iter=(max_iter + 1) // 2)
            max_iter //= 2
        for round_ in range(ROUNDS):
            if np.all(value <= tol) or max_iter <= 0:
                break
            new, more = self._minimised(penalties, w, tol * SHARPEN**round_, value <= tol, max_iter)
            now = self.judge(penalties, new).value
            better, moved = now < value, np.any(new != w)
            w, value = pick(better, new, w), pick(better, now, value)
            steps, max_iter = steps + more, max_iter - int(more.max(initial=0))
            if not moved:
                break
        return w, value, steps

    def _minimised(self, penalties, start, tol, done, max_iter):
        """(w, iterations) by accelerated proximal gradient; lanes that are `done` stay."""
        rows, dtype = self.rows, self.dtype
        null = self.at_zero(penalties)
        tol = np.where(done, np.inf, tol * np.where(null.pull > 0, null.pull, 1)[:, None])
        b = self.intercepts(start).reshape(*start.shape[:3])
        data = jax.tree.map(lambda x: np.asarray(x, dtype), (self.datafit, penalties, rows, start, b))
        # The intercept is one more coefficient, of a constant as large as a column is on average.
        constant = np.sqrt(self.spread.mean(1)) if self.fit_intercept else np.zeros(len(self.spread))
        constant, step = constant.astype(dtype), self.step.astype(dtype)
        w, iterations = _minimise(*data, constant, step, tol, max_iter, self.layout)
        return np.asarray(w, np.float64), np.asarray(iterations)

    def judge(self, penalties, w) -> Judged:
        """What is known of lanes of flat w, with the intercepts that suit them best."""
        with np.errstate(over="ignore", invalid="ignore"):
            null, eta = self.at_zero(penalties), self.rows.outputs(self.layout, w)
            found = self._found(penalties, eta + self._fitted(eta)[:, :, None], w, 1.0)
            objective, fit = found.loss + found.cost, found.loss
            value = relative(self.judging.kind, found, null, self.fit_intercept)
        return Judged(value, objective, fit, found.slope, found.curvatures)

    def judge_with(self, penalties, w, b) -> Found:
        """What is found with any intercepts b, (F, L) or (F, L, t); the dual point has the best ones."""
        eta = self.rows.outputs(self.layout, w) + b[:, :, None]
        return self._found(penalties, eta, w, 1.0, self._fitted(eta) if self.judging.kind == "gap" else None)

    def at_zero(self, penalties) -> Null:
        """What is known of w = 0; with the critical strengths, if they are asked for."""
        if self.null is None:
            lead = *jax.tree.leaves(penalties)[0].shape[:1], self.judging.lanes
            some = jax.tree.map(lambda leaf: np.take(leaf, np.arange(lead[1]) % leaf.shape[1], 1), penalties)
            w = np.zeros((*lead, *(self.layout.targets or (1,)), self.width))
            eta = np.zeros((*lead, *self.rows.y.shape))
            b = self._fitted(eta[:, :1])
            eta = eta + b[:, :, None]
            found = self._found(some, eta, w, 0.0)
            self.null = _null(found, np.abs(b).reshape(len(b), -1), np.abs(self.rows.X).max(initial=0))
        return self.null

    def _found(self, penalties, eta, w, most, shift=None) -> Found:
        shift = np.zeros(eta.shape[:2] + eta.shape[3:]) if shift is None else shift
        if self.there is None:
            self.there = jax.device_put(self.rows)

        def of_some(penalties, eta, shift, w):
            return of_rows(self.datafit, penalties, eta, shift, w, self.there, self.step, most, self.judging)

        return in_parts(of_some, self.judging.lanes, penalties, eta, shift, w)

    def _fitted(self, eta):
        if not self.fit_intercept:
            return np.zeros(eta.shape[:2] + eta.shape[3:])
        start = self.last if self.last is not None and self.last.shape == eta.shape[:2] + eta.shape[3:] else None
        self.last = fitted(self.datafit, eta, self.rows.y, self.rows.weight[:, None], start)
        return self.last

    def intercepts(self, w) -> np.ndarray:
        """b of lanes (F, L), (F, L) or (F, L, t)."""
        return self._fitted(self.rows.outputs(self.layout, w))

    def intercept(self, w):
        """b of scaled columns, (F, ..., t)."""
        return self.intercepts(w.reshape(w.shape[0], -1, *w.shape[-2:])).reshape(w.shape[:-1])


def _null(found: Found, b, largest) -> Null:
    """Of what is found at w = 0; 0 for what is only rounding."""
    spread, rounding = found.excess[:, 0], (found.bent[:, 0] * b).sum(1) * np.square(8 * EPS)
    pull, noise = np.abs(found.slope[:, 0]).max((1, 2)), 8 * EPS * largest * found.size[:, 0].max(1)
    known = spread > rounding
    pull = np.where(known & (pull > noise), pull, 0)
    return Null(found.loss[:, 0], np.where(known, spread, 0), pull, found.cost, found.critical)


@program(static_argnames="layout")
def _minimise(datafit, penalties, rows, start, b, constant, step, tol, max_iter, layout):
    """(w, iterations) of every lane (F, L), of scaled columns."""

    def lane(weight, scale, constant, step, penalty, w, b, tol):
        X = rows.X if scale is None else rows.X / scale
        y = rows.y.reshape(len(X), -1)

        def smooth(z):
            w, b = z[:, :-1], z[:, -1]
            eta = X @ w.T + constant * b
            eta = eta if layout.targets else eta[:, 0]
            slope = weight.reshape(-1, *[1] * (eta.ndim - 1)) * datafit.slope(eta, rows.y)
            slope = slope.reshape(y.shape).T
            gradient = jnp.concatenate([slope @ X, constant * slope.sum(1, keepdims=True)], 1)
            return weight @ datafit.loss(eta, rows.y), gradient

        def prox(z, step):
            w = layout.flat(penalty.prox(layout.coef(z[:, :-1]), step))
            return jnp.concatenate([w, z[:, -1:]], 1)

        z = jnp.concatenate([w, (b / jnp.where(constant > 0, constant, 1))[:, None]], 1)
        cost = (lambda z: penalty.value(layout.coef(z[:, :-1]))) if is_concave(penalty) else None
        z, iterations, _ = minimise(smooth, prox, z, step, tol, max_iter, cost=cost)
        return z[:, :-1], iterations

    scaled = None if rows.scale is None else 0
    return over_lanes(lane, (0, scaled, 0, 0), 4)(rows.weight, rows.scale, constant, step, penalties, start, b, tol)
