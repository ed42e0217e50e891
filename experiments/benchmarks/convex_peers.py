"""The contenders of the convex benchmarks from other libraries; needs those and NumPy, not JAX.

`python convex_peers.py` answers every line of JSON on its input by one on its output, so that its contenders take turns
with those of another process. {"contender", "problem", "tol", "l1_ratio"} solves the path of the file `problem`, a
`.npz` of X, y and lams, to the contender's own tolerance, and is answered by the seconds that took, X being in memory,
Fortran-contiguous, and y centred; with "keep", a file, the coefficients (strengths, features) are left there.
"contender": "ElasticNetCV" takes "l1_ratios" and "jobs", and the folds from the file; it is answered by what it chose
as well, and keeps the errors (ratios, strengths, folds). "contender": "folds" leaves the coefficients of all paths of
that, (folds, ratios, strengths, features); "targets" those of many targets, (targets, strengths, features).
"""

import importlib.metadata
import importlib.util
import json
import os
import sys
import time
import warnings

import numpy as np

UNLIMITED = 1_000_000
LIBRARIES = "scikit-learn", "celer", "skglm", "adelie"


def sklearn(X, y, lams, tol, l1_ratio, gram):
    """Cyclic coordinate descent; the Gram matrix is part of what is timed; "unchecked" also skips checks of X."""
    from sklearn.linear_model import enet_path

    options = {"precompute": gram, "tol": tol, "max_iter": UNLIMITED, "copy_X": False}
    if gram == "unchecked":
        options |= {"precompute": X.T @ X, "Xy": X.T @ y, "check_input": False}
    return enet_path(X, y, l1_ratio=l1_ratio, alphas=lams, **options)[1].T


def celer(X, y, lams, tol, l1_ratio, prune):
    """Working sets and dual extrapolation."""
    from celer import celer_path

    return celer_path(X, y, "lasso", alphas=lams, l1_ratio=l1_ratio, tol=tol, max_iter=200, prune=prune)[1].T


def skglm(X, y, lams, tol, l1_ratio, start):
    """Working sets and Anderson acceleration; `start` features in the first working set."""
    from skglm.datafits import Quadratic
    from skglm.penalties import L1_plus_L2
    from skglm.solvers import AndersonCD

    solver = AndersonCD(tol=tol, max_iter=200, fit_intercept=False, p0=start)
    return solver.path(X, y, Quadratic(), L1_plus_L2(1.0, l1_ratio), alphas=lams)[1].T


def adelie(X, y, lams, tol, l1_ratio, threads):
    """Screening by a pivot rule and coordinate descent on residuals."""
    import adelie as ad

    options = {"alpha": l1_ratio, "lmda_path": lams, "tol": tol, "early_exit": False, "intercept": False}
    return ad.grpnet(X, ad.glm.gaussian(y), n_threads=threads, progress_bar=False, **options).betas.toarray()


def adelie_by_covariance(X, y, lams, tol, l1_ratio, threads):
    """The same on the Gram matrix, which is part of what is timed."""
    import adelie as ad

    options = {"alpha": l1_ratio, "lmda_path": lams, "tol": tol, "early_exit": False, "rdev_tol": 0.0}
    A = np.asfortranarray(X.T @ X / len(y))
    return ad.gaussian_cov(A, X.T @ y / len(y), n_threads=threads, progress_bar=False, **options).betas.toarray()


PATHS = {
    "scikit-learn": (sklearn, False),
    "scikit-learn, Gram matrix": (sklearn, True),
    "scikit-learn, Gram matrix, unchecked": (sklearn, "unchecked"),
    "celer": (celer, False),
    "celer, pruning": (celer, True),
    "skglm": (skglm, 10),
    "skglm, from 100": (skglm, 100),
    "adelie": (adelie, 1),
    "adelie, Gram matrix": (adelie_by_covariance, 1),
}


def targets(X, Y, lams, tol):
    """scikit-learn on each column of Y, X and its Gram matrix shared."""
    from sklearn.linear_model import lasso_path

    options = {"tol": tol, "max_iter": UNLIMITED, "copy_X": False, "check_input": False}
    gram, products = X.T @ X, X.T @ Y
    found = [
        lasso_path(X, y, alphas=lams, precompute=gram, Xy=Xy, **options)[1].T
        for y, Xy in zip(Y.T.copy(), products.T.copy(), strict=True)
    ]
    return np.stack(found)


def cross_validated(X, y, splits, l1_ratios, tol, jobs):
    """scikit-learn's cross-validation, and its refit."""
    from sklearn.linear_model import ElasticNetCV

    options = {"tol": tol, "max_iter": UNLIMITED, "n_jobs": jobs, "copy_X": False}
    return ElasticNetCV(l1_ratio=l1_ratios, alphas=100, eps=1e-3, cv=splits, **options).fit(X, y)


def folds(X, y, splits, l1_ratios, tol):
    """The coefficients behind `cross_validated`, by the same calls on the same parts."""
    found = []
    for train, _ in splits:
        part, target = X[train], y[train]
        part, target = np.asfortranarray(part - part.mean(0)), target - target.mean()
        for l1_ratio in l1_ratios:
            lams = np.abs(X.T @ (y - y.mean())).max() / (len(y) * l1_ratio) * np.logspace(0, -3, 100)
            found.append(sklearn(part, target, lams, tol, l1_ratio, "auto"))
    return np.reshape(found, (len(splits), len(l1_ratios), *found[0].shape))


FILES = {}


def read(problem):
    """The arrays of a file, as contenders like them: {name: array}."""
    if problem not in FILES:
        with np.load(problem) as file:
            arrays = dict(file)
        arrays["X"] = np.asfortranarray(arrays["X"])
        arrays["centred"] = arrays["y"] - arrays["y"].mean(0)
        if "fold" in arrays:
            fold = arrays["fold"]
            arrays["splits"] = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(fold.max() + 1)]
        FILES[problem] = arrays
    return FILES[problem]


def answer(contender, problem, tol, l1_ratio=1.0, l1_ratios=None, jobs=None, keep=None):
    """The answer to one line."""
    a, reply = read(problem), {}
    begin = time.perf_counter()
    if contender == "ElasticNetCV":
        model = cross_validated(a["X"], a["y"], a["splits"], l1_ratios, tol, jobs)
        reply = {"seconds": time.perf_counter() - begin, "lam": float(model.alpha_), "l1_ratio": float(model.l1_ratio_)}
        if keep:  # (ratios, strengths, folds)
            np.save(keep, model.mse_path_)
        return reply
    if contender == "folds":
        coefs = folds(a["X"], a["y"], a["splits"], l1_ratios, tol)
    elif contender == "targets":
        coefs = targets(a["X"], a["centred"], a["lams"], tol)
    else:
        path, variant = PATHS[contender]
        coefs = path(a["X"], a["centred"], a["lams"], tol, l1_ratio, variant)
    reply["seconds"] = time.perf_counter() - begin
    if keep:
        np.save(keep, coefs)
    return reply


def compile_all():
    """Let those that compile do so, on a small problem; {contender: why it cannot run}."""
    rng, missing = np.random.default_rng(0), {}
    X, y = np.asfortranarray(rng.normal(size=(30, 5))), rng.normal(size=30)
    for name, (path, variant) in PATHS.items():
        try:
            path(X, y, np.array([0.1, 0.01]), 1e-6, 1.0, variant)
        except ImportError as error:
            missing[name] = str(error)
    return missing


def main():
    """Read requests, write answers."""
    warnings.simplefilter("ignore")  # of convergence: the judge tells
    replies, sys.stdout = sys.stdout, sys.stderr  # libraries print
    modules = {name: importlib.util.find_spec(name.replace("scikit-learn", "sklearn")) for name in LIBRARIES}
    about = {name: importlib.metadata.version(name) for name, found in modules.items() if found}
    about |= {"numpy": np.__version__, "threads": os.environ.get("OMP_NUM_THREADS"), "missing": compile_all()}
    print(json.dumps(about), file=replies, flush=True)
    for line in sys.stdin:
        try:
            reply = answer(**json.loads(line))
        except Exception as error:  # a solver that breaks down has not reached the tolerance
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
