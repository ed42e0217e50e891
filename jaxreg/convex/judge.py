"""The judge: what is known of given coefficients, in float64; it knows the penalty, the datafit, and no solver."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex.dual import feasible
from jaxreg.convex.lanes import Layout, over_lanes
from jaxreg.convex.programs import program

UNBALANCED = 1e-6  # share of its size that the dual point may have as its mean, where there is an intercept


class Rows(NamedTuple):
    """What lanes of F folds are fitted to."""

    X: jax.Array  # (n, p) float64
    y: jax.Array  # (n,) or (n, t), encoded
    weight: jax.Array  # (F, n), of the training rows; each row sums to 1
    scale: jax.Array | None  # (F, p), of the columns; None for ones

    def outputs(self, layout, w) -> np.ndarray:
        """x·w on the host, for scaled columns w (F, L, t, p): (F, L, n) or (F, L, n, t)."""
        if self.scale is not None:
            w = w / self.scale[:, None, None]
        eta = w @ self.X.T
        return eta.swapaxes(2, 3) if layout.targets else eta[:, :, 0]


class Judging(NamedTuple):
    """What is asked, and of how many lanes at a time: hashable, a program is compiled for each."""

    layout: Layout
    kind: str  # "gap", "optimality" or "fixed_point"
    lanes: int
    critical: bool = False  # whether critical strengths are asked for
    curved: bool = False  # whether curvatures are

    def narrowed(self, width: int) -> "Judging":
        """Of `width` columns."""
        return self._replace(layout=self.layout.narrowed(width))


class Found(NamedTuple):
    """What a program says of each lane, (F, L, ...)."""

    loss: jax.Array  # Σ s f(η)
    cost: jax.Array  # Ω(w)
    excess: jax.Array  # Σ s (f(η) + f*(cθ) − ηcθ), which is 0 where cθ = θ is the slope at η
    rest: jax.Array  # Ω(w) + Ω*(−cv) + ⟨cv, w⟩ where the dual is known, else how far w is from stationary
    critical: jax.Array  # the least strength at which v pulls no weight off 0, if it was asked for
    slope: jax.Array | None = None  # v = Σ s x θ, (t, p)
    mean: jax.Array | None = None  # Σ s θ, (t,)
    size: jax.Array | None = None  # Σ s|θ|, (t,)
    bent: jax.Array | None = None  # Σ s f''(η)|η|, (t,)
    curvatures: jax.Array | None = None  # s f'' of each row, (n, t, t), if they were asked for


class Judged(NamedTuple):
    """What is known of lanes (F, L)."""

    value: np.ndarray  # the certificate
    objective: np.ndarray
    loss: np.ndarray  # the objective without the penalty
    slope: np.ndarray  # of the loss, (F, L, t, p)
    curvatures: np.ndarray | None = None  # s f'' of each row, (F, L, n, t, t)


def _of_penalty(penalty, w, slope, step, judging):
    """(Ω(w), c, Ω(w) + Ω*(−cv) + ⟨cv, w⟩ or the distance, the critical strength) of one lane."""
    coef, pull = judging.layout.coef(w), judging.layout.coef(slope)
    cost, top = penalty.value(coef), penalty.critical(pull) if judging.critical else jnp.zeros(())
    if judging.kind == "gap":
        c, conjugate = feasible(penalty, pull)
        return cost, c, cost + conjugate + c * jnp.sum(slope * w), top
    if judging.kind == "optimality":
        return cost, jnp.ones(()), penalty.optimality(coef, pull), top
    off = jnp.max(jnp.abs(coef - penalty.prox(coef - step * pull, step)), initial=0) / step
    return cost, jnp.ones(()), off, top


@program(static_argnames="judging")
def of_moments(penalties, w, slope, loss, step, judging: Judging) -> Found:
    """Least squares, of which the slope and the loss of each lane are known: f + f* − ηcθ is (1 − c)²·f.

    Args:
        penalties: leaves with leading axes (F, L).
        w: (F, L, t, p).
        slope: of the loss at w, likewise.
        loss: (F, L).
        step: (F,), of the proximal step whose residual is a "fixed_point".
        judging: what is asked.
    """

    def lane(step, penalty, w, slope, loss):
        cost, c, rest, top = _of_penalty(penalty, w, slope, step, judging)
        return Found(loss, cost, jnp.square(1 - c) * loss, rest, top)

    return over_lanes(lane, 1, 4)(step, penalties, w, slope, loss)


@program(static_argnames="judging")
def of_rows(datafit, penalties, eta, shift, w, rows, step, most, judging: Judging) -> Found:
    """Any datafit.

    Args:
        datafit: it.
        penalties: as in `of_moments`.
        eta: the outputs, with the intercept, (F, L, n) or (F, L, n, t).
        shift: what the intercept of the dual point has more, (F, L) or (F, L, t).
        w: as in `of_moments`.
        rows: the data.
        step: as in `of_moments`.
        most: a bound on c; 0 makes `excess` the loss above its least.
        judging: what is asked.
    """

    def lane(weight, scale, step, penalty, eta, shift, w):
        fitted, y = eta + shift, rows.y
        theta, bend = datafit.slope(fitted, y), datafit.bend(fitted, y)
        slope = (theta.T * weight).reshape(-1, len(weight)) @ rows.X
        slope = slope if scale is None else slope / scale
        cost, c, rest, top = _of_penalty(penalty, w, slope, step, judging)
        excess = weight @ datafit.excess(eta, jnp.minimum(c, most) * theta, y)
        means = (jnp.atleast_1d(weight @ x) for x in (theta, jnp.abs(theta), bend * jnp.abs(fitted)))
        curvatures = datafit.hessian(eta, y) * weight[:, None, None] if judging.curved else None
        return Found(weight @ datafit.loss(eta, y), cost, excess, rest, top, slope, *means, curvatures)

    scaled = None if rows.scale is None else 0
    return over_lanes(lane, (0, scaled, 0), 4)(rows.weight, rows.scale, step, penalties, eta, shift, w)


class Null(NamedTuple):
    """Each fold at w = 0 with its fitted intercept."""

    loss: np.ndarray  # (F,)
    spread: np.ndarray  # (F,), the loss above its least; 0 for what is only rounding
    pull: np.ndarray  # (F,), the largest slope, likewise
    cost: np.ndarray | None  # (F, L), Ω(0)
    critical: np.ndarray | None  # (F, L)


@np.errstate(invalid="ignore", over="ignore")
def relative(kind: str, found: Found, null: Null, fit_intercept: bool) -> np.ndarray:
    """The certificate of each lane: in units of what w = 0 loses, or of its slope."""
    if kind == "gap":
        off, unit = np.asarray(found.excess) + found.rest, null.spread[:, None]
        if fit_intercept:  # of a dual point that is not balanced, D is −∞
            rounding = 32 * np.finfo(np.float64).eps * np.asarray(found.bent)
            balanced = np.abs(found.mean) <= UNBALANCED * np.asarray(found.size) + rounding
            off = np.where(balanced.all(-1), off, np.inf)
    else:
        off, unit = np.asarray(found.rest), null.pull[:, None]
        if fit_intercept:
            off = np.maximum(off, np.abs(found.mean).max(-1))
    off = np.where(np.isnan(off), np.inf, off)
    return np.maximum(off / np.where(unit > 0, unit, 1), 0)
