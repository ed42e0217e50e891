"""Least squares with an L1 penalty, for every fold, family and target, from knot to knot."""

import concurrent.futures
import itertools
import os
from typing import NamedTuple

import jax
import numpy as np

from jaxreg.convex.columns import LEAST, padded, put, take
from jaxreg.convex.homotopy import at, extended, homotopy, plain
from jaxreg.convex.lanes import bucket
from jaxreg.penalties import L1, ElasticNet

WIDEST = 512  # columns up to which the tableau is that of all of them
BLOCK = 3  # strengths for which columns are chosen, of more
ROUNDING = 1e-12  # of a bound


def factors(penalties, layout):
    """(λ, s) with strengths λ·s, (R, K) and (R, p, t) or (R, 1, 1), if the penalty is such a lasso; else None."""
    if not isinstance(penalties, (L1, ElasticNet)):
        return None
    if isinstance(penalties, ElasticNet) and not np.all(penalties.l1_ratio == 1):
        return None
    lam = np.asarray(penalties.lam)
    targets = layout.targets or (1,)
    lam = lam[..., None, None] if lam.ndim == 2 else lam.reshape(*lam.shape[:2], -1, *targets)
    if not np.all((lam > 0) & np.isfinite(lam)):
        return None
    top = lam.max((2, 3))
    share = lam[:, 0] / top[:, 0, None, None]
    if not np.allclose(lam, top[:, :, None, None] * share[:, None], rtol=1e-14, atol=0):
        return None
    return top, share


def lasso_paths(model, lams, shares) -> tuple[np.ndarray, np.ndarray]:
    """(w, knots passed) of every λ, (F, R, K, t, p) and (F, R, K); exact up to the rounding of pivots."""
    folds, targets, p = model.linear.shape
    w = np.zeros((folds, *lams.shape, targets, p))
    knots = np.zeros((folds, *lams.shape), int)

    def follow(place):
        fold, family, target = place
        strength = np.broadcast_to(shares[family, :, min(target, shares.shape[2] - 1)], (p,))
        with jax.enable_x64(True):  # of this thread
            w[fold, family, :, target], passed = _follow(model, fold, target, strength, lams[family])
        knots[fold, family] = np.maximum(knots[fold, family], passed)

    places = list(itertools.product(range(folds), range(len(lams)), range(targets)))
    if len(places) == 1 or p > WIDEST:  # a pivot of a large tableau keeps all cores busy, of a small one a single core
        for place in places:
            follow(place)
    else:
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(follow, places))
    return w, knots


def _follow(model, fold, target, strength, lams):
    """(w, knots passed) along one path, (K, p) and (K,)."""
    linear = np.asarray(model.linear[fold, target])
    p, here = len(linear), np.max(np.abs(linear) / strength)
    w, passed = np.zeros((len(lams), p)), np.zeros(len(lams), int)
    if p <= WIDEST:
        columns = np.minimum(np.arange(bucket(p)), p)  # those past the end are zeros
        start = _start(model, fold, target, strength, columns)
        some, passed[:], _ = _knots(start, here, lams)
        w[:] = some[:, :p]
        w[lams >= here * (1 - ROUNDING)] = 0
        return w, passed
    # Of many columns, those that pull most. They are good for a few strengths if none of the others passes its bound
    # there; else those that do come in, with as many as fit, where the few strengths began.
    pull = np.abs(linear) / strength
    start, done, top = _start(model, fold, target, strength, np.sort(np.argsort(-pull)[:LEAST])), 0, here
    while done < len(lams):
        block = lams[done : done + BLOCK]
        some, count, after = _knots(start, here, block)
        some = put(some, start.indices, p)
        pulls = np.abs(linear - np.asarray(model.product_in(fold, some))) / strength
        pulls[:, start.indices[start.indices < p]] = 0
        passes = pulls > block[:, None] * (1 + 1e3 * ROUNDING)
        if passes.any():
            first = int(np.argmax(passes.any(1)))  # those that pass later may do so for want of these
            used, late = np.count_nonzero(start.indices < p), np.count_nonzero(passes[first])
            room = len(padded(np.zeros(used + late + 32), p)) - used
            start = _widened(model, fold, target, strength, start, np.argsort(-pulls[first])[:room])
            continue
        w[done : done + len(block)], here, start = some, block[-1], after
        passed[done : done + len(block)] = count + (passed[done - 1] if done else 0)
        done += len(block)
    w[lams >= top * (1 - ROUNDING)] = 0
    return w, passed


class _Start(NamedTuple):
    """Where a path goes on."""

    indices: np.ndarray  # of the columns, p for none
    gram: jax.Array
    strength: np.ndarray
    tableau: jax.Array
    signs: jax.Array  # strengths with the signs of the active weights


def _start(model, fold, target, strength, indices) -> _Start:
    """On some columns, at zero."""
    gram, linear = model.gram(fold, indices), take(model.linear[fold, target], indices, 0)
    return _Start(indices, gram, np.append(strength, 1)[indices], plain(gram, linear), np.zeros(len(indices)))


def _widened(model, fold, target, strength, start, columns) -> _Start:
    """The same with more columns."""
    p = len(strength)
    first = np.count_nonzero(start.indices < p)
    indices = padded(np.concatenate([start.indices[:first], columns]), p)
    gram, linear = model.gram(fold, indices), take(model.linear[fold, target], indices, 0)
    signs = np.pad(start.signs, (0, len(indices) - len(start.indices)))
    places = padded(np.arange(first, first + len(columns)), len(indices))
    tableau = extended(gram, linear, start.tableau, signs, places)
    return _Start(indices, gram, np.append(strength, 1)[indices], tableau, signs)


def _knots(start: _Start, lam_max, lams):
    """(w, knots passed) at `lams` on the columns of `start`, (K, m) and (K,), and where the path goes on."""
    m = len(start.indices)
    most = 4 * m + 64 if m <= WIDEST else m
    found = homotopy(start.gram, start.tableau, start.strength, start.signs, lam_max, lams[-1], most=most)
    return *at(found, lams), start._replace(tableau=found.tableau, signs=found.signs)
