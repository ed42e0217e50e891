"""Least squares with an L1 penalty, for every fold, family and target, from knot to knot."""

import concurrent.futures
import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex.homotopy import at, homotopy
from jaxreg.penalties import L1, ElasticNet

WIDEST = 512  # columns up to which the tableau is that of all of them


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
    quadratic = model.whole.quadratic
    folds, targets, p = quadratic.linear.shape
    w = np.zeros((folds, *lams.shape, targets, p))
    knots = np.zeros((folds, *lams.shape), int)

    def follow(place):
        fold, family, target = place
        with jax.enable_x64(True):  # of this thread
            strength = jnp.broadcast_to(jnp.asarray(shares[family, :, min(target, shares.shape[2] - 1)]), (p,))
            linear, along = quadratic.linear[fold, target], lams[family]
            highest = float(jnp.max(jnp.abs(linear) / strength))
            most = 4 * min(p, model.rows) + 64
            arguments = linear, strength, jnp.zeros(p), highest, along[-1]
            found = homotopy(quadratic.gram[fold], *arguments, most=most)
            w[fold, family, :, target], passed = at(found, along)
            knots[fold, family] = np.maximum(knots[fold, family], passed)

    places = list(itertools.product(range(folds), range(len(lams)), range(targets)))
    if len(places) == 1:
        follow(places[0])
    else:  # a pivot keeps one core busy
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(follow, places))
    return w, knots
