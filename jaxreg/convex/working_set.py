"""Of many columns, those that matter: rounds of solving on some and looking at all."""

import numpy as np

from jaxreg.convex.columns import bucket, by_feature, put, restricted, wrongs

ALL = 256  # columns up to which they are all taken
ROUNDS = 30


def solve_block(model, penalties, start, tol, max_iter):
    """(w, what `judge` says of it, iterations) for lanes (F, L) on all columns of `model`, from `start`.

    The working set is one for all lanes: what is not zero at the start, and what the certificate finds wrong at zero,
    most wrong first, at most twice as many each round. What it leaves out is judged with the rest.
    """
    layout, p = model.layout, model.width
    if p <= ALL or not by_feature(penalties, layout):
        return _whole(model, penalties, start, tol, max_iter)
    w, iterations = np.asarray(start), np.zeros(start.shape[:2], int)
    judged = model.judge(penalties, w)
    columns = np.zeros(0, int)
    for _ in range(ROUNDS):
        wrong = np.asarray(wrongs(penalties, w, judged.slope, layout)).max((0, 1))
        inside = (w != 0).any((0, 1, 2))
        inside[columns] = True
        wrong[inside] = 0
        fresh = np.flatnonzero(wrong)
        room = len(bucket(np.flatnonzero(inside), p)) - inside.sum()
        most = max(room, inside.sum() // 2, 32)
        columns = np.union1d(np.flatnonzero(inside), fresh[np.argsort(-wrong[fresh])[:most]])
        indices = bucket(columns, p)
        some, *_, steps = model.solve(restricted(penalties, indices), _some(w, indices), indices, tol / 2, max_iter)
        w = put(np.asarray(some), indices, p)
        iterations = iterations + np.asarray(steps)
        judged = model.judge(penalties, w)
        if np.all(np.asarray(judged[0]) <= tol) or not len(fresh):
            break
    return w, judged, iterations


def _whole(model, penalties, start, tol, max_iter):
    w, _, *_, iterations = model.solve(penalties, start, np.arange(model.width), tol, max_iter)
    return np.asarray(w), model.judge(penalties, w), np.broadcast_to(iterations, w.shape[:2])


def _some(w, indices):
    padded = np.concatenate([w, np.zeros(w.shape[:-1] + (1,))], -1)
    return padded[..., indices]
