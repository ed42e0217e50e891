"""Least squares with an L1 penalty, for every fold, family and target, from knot to knot."""

import concurrent.futures
import itertools
import os

import jax
import numpy as np

from jaxreg.convex.columns import bucket, put, take
from jaxreg.convex.homotopy import at, homotopy, plain, swept
from jaxreg.penalties import L1, ElasticNet

WIDEST = 512  # columns up to which the tableau is that of all of them
BLOCK = 10  # strengths for which columns are chosen, of more
ROUNDING = 1e-9


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
    if len(places) == 1:
        follow(places[0])
    else:  # a pivot keeps one core busy
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(follow, places))
    return w, knots


def _follow(model, fold, target, strength, lams):
    """(w, knots passed) along one path, (K, p) and (K,)."""
    linear = np.asarray(model.linear[fold, target])
    p, here = len(linear), np.max(np.abs(linear) / strength)
    w, passed = np.zeros((len(lams), p)), np.zeros(len(lams), int)
    if p <= WIDEST:
        w[:], passed[:] = _knots(model, fold, target, strength, np.arange(p), np.zeros(p), here, lams)
        return w, passed
    # Of many columns, a block takes those that are not zero where it begins and those that pull most there. It is good
    # for the strengths before the first at which one of the others passes its bound; from there on they are in.
    done, size, signs, pull, late = 0, BLOCK, np.zeros(p), np.abs(linear) / strength, np.zeros(p, bool)
    while done < len(lams):
        indices = _columns(signs != 0, late, pull)
        block = lams[done : done + size]
        some, count = _knots(model, fold, target, strength, indices, signs, here, block)
        some = put(some, indices, p)
        pulls = np.abs(linear - np.asarray(model.product_in(fold, some))) / strength
        outside = np.ones(p, bool)
        outside[indices[indices < p]] = False
        late = (pulls > block[:, None] * (1 + ROUNDING)) & outside
        good = len(block) if not late.any() else int(np.argmax(late.any(1)))
        late = late.any(0)
        if not good:
            late |= ~outside  # nothing that is in goes out, so that this ends
            continue
        w[done : done + good] = some[:good]
        passed[done : done + good] = count[:good] + (passed[done - 1] if done else 0)
        here, signs, pull = block[good - 1], np.sign(some[good - 1]), pulls[good - 1]
        done += good
    return w, passed


def _columns(active, late, pull) -> np.ndarray:
    """The active columns, the late ones, and as many of those that pull most as fill a bucket."""
    inside = active | late
    size = len(bucket(np.zeros(inside.sum() + active.sum() // 4 + 32), len(pull)))
    order = np.argsort(-np.where(inside, np.inf, pull), kind="stable")
    return bucket(np.sort(order[:size]), len(pull))


def _knots(model, fold, target, strength, indices, signs, lam_max, lams):
    """(w, knots passed) at `lams` on some columns, from the solution of these signs at `lam_max`."""
    gram, linear = model.gram(fold, indices), take(model.linear[fold, target], indices, 0)
    strength, signs = strength[np.minimum(indices, len(strength) - 1)], np.append(signs, 0)[indices] * 1.0
    start = swept(gram, linear, signs * strength) if signs.any() else plain(gram, linear)
    most = 4 * len(indices) + 64 if len(indices) <= WIDEST else len(indices)
    return at(homotopy(gram, start, strength, signs, lam_max, lams[-1], most=most), lams)
