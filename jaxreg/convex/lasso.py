"""Least squares with an L1 penalty, for every fold, family and target, from knot to knot."""

import concurrent.futures
import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex.columns import bucket, put, take
from jaxreg.convex.homotopy import at, homotopy
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
    """(w, knots passed) along one path, (K, p) and (K,).

    Of many columns, a block of strengths takes those that are not zero where it begins, and those whose correlation
    could reach the bound before it ends if it grew no faster than λ falls; then those that did all the same.

    References:
        Tibshirani et al., Strong rules for discarding predictors in lasso-type problems, 2012, section 3.
    """
    linear = np.asarray(model.linear[fold, target])
    p, pull = len(linear), linear
    w, passed = np.zeros((len(lams), p)), np.zeros(len(lams), int)
    here, signs = np.max(np.abs(linear) / strength), np.zeros(p)
    size = len(lams) if p <= WIDEST else BLOCK
    for first in range(0, len(lams), size):
        block = slice(first, first + size)
        end = lams[block][-1]
        kept = (signs != 0) | (np.abs(pull) >= strength * (2 * end - here)) | (p <= WIDEST)
        while True:
            indices = bucket(np.flatnonzero(kept), p)
            path = homotopy(
                model.gram(fold, indices),
                take(model.linear[fold, target], indices, 0),
                jnp.asarray(strength[np.minimum(indices, p - 1)]),
                jnp.asarray(np.append(signs, 0)[indices]),
                here,
                end,
                most=4 * p + 64 if p <= WIDEST else len(indices) + 64,
            )
            some, count = at(path, lams[block])
            w[block] = put(some, indices, p)
            if p <= WIDEST:
                break
            pulls = linear - np.asarray(model.product_in(fold, w[block]))
            missed = (np.abs(pulls) > lams[block, None] * strength * (1 + ROUNDING)).any(0) & ~kept
            if not missed.any():
                pull = pulls[-1]
                break
            kept |= missed
        passed[block] = count + (passed[first - 1] if first else 0)
        here, signs = end, np.sign(w[block][-1])
    return w, passed
