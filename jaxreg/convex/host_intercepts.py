"""Intercepts of many lanes by NumPy, with nothing to compile, for the datafits that come with the library."""

import functools

import jax
import numpy as np

from jaxreg.convex.datafits import Datafit, Huber, Logistic, Multinomial, Poisson, Squared
from jaxreg.convex.intercepts import APART, STEPS, bracketed
from jaxreg.convex.programs import program

TINY, EPS = np.finfo(np.float64).tiny, np.finfo(np.float64).eps
ROUNDED = 4  # roundings of each share that are no difference


def fitted(datafit: Datafit, eta, y, weight, start=None) -> np.ndarray:
    """argmin_b Σ wᵢ f(ηᵢ + b, yᵢ) of each lane, to rounding.

    Args:
        datafit: any; one that is not the library's own is compiled.
        eta: the outputs, (..., n) or (..., n, t).
        y: (n,) or (n, t).
        weight: (..., n) of sum 1, with as many axes of lanes.
        start: where to begin, as the result; None knows nothing.
    """
    lead = eta.shape[: eta.ndim - y.ndim]
    weight = np.broadcast_to(weight, lead + weight.shape[-1:]).reshape(-1, weight.shape[-1])
    flat = eta.reshape(-1, *eta.shape[len(lead) :])
    with np.errstate(over="ignore", invalid="ignore"):
        if type(datafit) in _BY_TARGET:
            one = functools.partial(_BY_TARGET[type(datafit)], datafit)
            columns, y_columns = flat.reshape(*flat.shape[:2], -1), y.reshape(len(y), -1)
            starts = [None] * y_columns.shape[1] if start is None else start.reshape(len(flat), -1).T
            lanes = [one(columns[..., t], y_columns[:, t], weight, b) for t, b in enumerate(starts)]
            found = np.stack(lanes, -1)
        elif type(datafit) is Multinomial:
            found = _margins(flat, y, weight, None if start is None else start.reshape(len(flat), -1))
        else:
            found = np.asarray(_compiled(datafit, flat, y, weight))
    return found.reshape(lead + y.shape[1:])


@program
def _compiled(datafit, eta, y, weight):
    return jax.vmap(datafit.intercept, (0, None, 0))(eta, y, weight)


def _mean(weight, x):
    return np.einsum("ln,ln->l", weight, x)


def _squared(datafit, eta, y, weight, start):
    del datafit, start
    return _mean(weight, y - eta)


def _poisson(datafit, eta, y, weight, start):
    del datafit, start
    top = eta.max(1)
    return np.log(np.maximum(weight @ y, TINY)) - top - np.log(_mean(weight, np.exp(eta - top[:, None])))


def _logistic(datafit, eta, y, weight, start):
    del datafit
    sign = 1 - 2 * y
    toward, signed = eta * sign, weight * sign

    def function(b, lanes):
        size = 1 / (1 + np.exp(-toward[lanes] - b[:, None] * sign))
        w, bent = weight[lanes], _mean(weight[lanes], size)
        return _mean(signed[lanes], size), bent - np.einsum("ln,ln,ln->l", w, size, size), bent

    odds = np.log(np.maximum(weight @ y, TINY)) - np.log(np.maximum(weight @ (1 - y), TINY))
    return _root(function, odds - eta.max(1), odds - eta.min(1), odds - _mean(weight, eta) if start is None else start)


def _huber(datafit, eta, y, weight, start):
    delta = np.asarray(datafit.delta, np.float64)
    rest = eta - y

    def function(b, lanes):
        r = rest[lanes] + b[:, None]
        near, w = np.clip(r, -delta, delta), weight[lanes]
        return _mean(w, near), _mean(w, (r == near).astype(float)), _mean(w, np.abs(near))

    return _root(function, -rest.max(1), -rest.min(1), -_mean(weight, rest) if start is None else start)


_BY_TARGET = {Squared: _squared, Poisson: _poisson, Logistic: _logistic, Huber: _huber}


def _root(function, low, high, start):
    """As `increasing_root`, for lanes: those that are found wait for no other."""
    b = np.clip(start, low, high)
    low, high, last = low.copy(), high.copy(), 2 * (high - low)
    lanes = np.arange(len(b))
    for _ in range(STEPS):
        some = functools.partial(function, lanes=lanes)
        state = bracketed(np, some, EPS, b[lanes], low[lanes], high[lanes], last[lanes])
        new, low[lanes], high[lanes], last[lanes] = state
        moved = new != b[lanes]
        b[lanes] = new
        lanes = lanes[moved & ~np.isnan(new)]
        if not lanes.size:
            break
    return b


def _softmax(eta):
    e = np.exp(eta - eta.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _margins(eta, y, weight, start=None):
    """As `matching_margins`, for lanes."""
    lanes, _, k = eta.shape
    share = np.maximum(weight @ y, TINY)
    spread = (eta.max(2) - eta.min(2)).max(1)
    tau = np.exp2(np.ceil(np.log2(np.maximum(np.nan_to_num(spread, posinf=1.0, nan=1.0) / APART, 1))))

    def margins(rows, b):
        p = _softmax((eta[rows] + b[:, None]) / tau[rows, None, None])
        return (weight[rows, None] @ p)[:, 0], p

    rows = np.arange(lanes)
    b = tau[:, None] * (np.log(share) - np.log(np.maximum(margins(rows, np.zeros((lanes, k)))[0], TINY)))
    b = b if start is None else np.where((tau == 1)[:, None], start, b)
    damping, (m, p) = np.ones(lanes), margins(rows, b)
    for _ in range(STEPS):
        here, t, goal, damp = b[rows], tau[rows], share[rows], damping[rows]
        off = np.abs(m - goal).sum(1)
        hessian = -np.matmul(p.swapaxes(1, 2) * weight[rows, None], p) + np.ones((k, k)) / k
        hessian[:, np.arange(k), np.arange(k)] += m
        newton = here - (damp * t)[:, None] * _solved(hessian, m - goal)
        m, p = margins(rows, newton)
        near = (off_newton := np.abs(m - goal).sum(1)) <= (1 - damp / 2) * off
        new, now = np.where(near[:, None], newton, here), np.where(near, off_newton, off)
        enough = np.where(t == 1, ROUNDED * k * EPS, 0.01)
        if not (near | (now <= enough)).all():
            plain = here + t[:, None] * (np.log(goal) - np.log(np.maximum(margins(rows, here)[0], TINY)))
            off_plain = np.abs(margins(rows, plain)[0] - goal).sum(1)
            new = np.where((~near & (off_plain < off))[:, None], plain, new)
        b[rows], damp = new, np.where(near, np.minimum(2 * damp, 1), damp / 2)
        done = (now <= enough) | (damp <= EPS)
        tau[rows], damping[rows] = np.where(done, np.maximum(t / 2, 1), t), np.where(done, 1, damp)
        left = ~(done & (t == 1))
        rows = rows[left]
        if not rows.size:
            break
        m, p = (m[left], p[left]) if (near & ~done).all() else margins(rows, b[rows])
    return b - b.mean(1, keepdims=True)


def _solved(matrix, right):
    """NaN where there is no solution."""
    try:
        return np.linalg.solve(matrix, right[..., None])[..., 0]
    except np.linalg.LinAlgError:
        return np.full_like(right, np.nan)
