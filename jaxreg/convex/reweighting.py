"""Penalties that are not convex, by a sequence of weighted ones that are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.arrays import in_groups, norm, per_entry, times
from jaxreg.convex.certificate import certificate
from jaxreg.convex.problem import prepare
from jaxreg.convex.programs import program
from jaxreg.convex.solve import Solution, solve
from jaxreg.penalties import L1, MCP, SCAD, GroupL2, GroupMCP, LogSum, Radial

CONCAVE = (MCP, SCAD, LogSum, GroupMCP)


def reweighted(datafit, penalty, X, y, *, rounds: int = 50, tol: float = 1e-6, standardize=None, **options) -> Solution:
    r"""A local minimum for a concave penalty, each round a lasso whose λ are the slopes of the last one's weights.

        λⱼ ← φ'(|Wⱼ|),    W ← argmin loss + Σ λⱼ|Wⱼ|,

    and the group lasso in the same way for a concave function of norms. The tangent of a concave φ lies above it, so
    no round raises the objective. The first round is the lasso with φ'(0), and the certificate of the last is
    stationarity for `penalty` itself: a local statement, as for `solve`, which takes these penalties by their own prox
    and may end in another minimum. Neither is better in general; compare `objective`.

    Args:
        datafit: `Squared()`, `Logistic()`, `Multinomial()`, `Huber()` or `Poisson()`.
        penalty: concave in |W| with a finite slope at 0: `MCP`, `SCAD`, `LogSum`, `GroupMCP`.
        X: (n, *features).
        y: (n,) or (n, targets), or labels.
        rounds: at most.
        tol: on the certificate, which is relative.
        standardize: as for `solve`.
        options: the others of `solve`.

    Returns:
        A `Solution` whose certificate is for `penalty`; its iterations are those of all rounds.

    Raises:
        TypeError: if the penalty is not of those.

    >>> import jaxreg as jr
    >>> X, y = np.eye(2), np.array([3.0, 0.4])
    >>> solution = reweighted(jr.convex.Squared(), jr.MCP(0.5, 3.0), X, y, fit_intercept=False)
    >>> solution.coef.round(6).tolist(), solution.converged
    ([3.0, 0.0], True)

    References:
        Zou and Li, One-step sparse estimates in nonconcave penalized likelihood models, 2008;
        Candes, Wakin and Boyd, Enhancing sparsity by reweighted l1 minimization, 2008.
    """
    if not isinstance(penalty, CONCAVE):
        raise TypeError(
            "`reweighted` needs a concave penalty with a finite slope at 0 (`MCP`, `SCAD`, `LogSum`, `GroupMCP`), got "
            f"{penalty!r}. `solve` takes any penalty with a prox."
        )
    problem = prepare(
        "reweighted", datafit, X, y, options.get("sample_weight"), options.get("fit_intercept", True), standardize
    )
    options |= {"tol": tol / 10, "standardize": standardize}  # of the rounds: the last is judged by another yardstick
    convex = GroupL2 if isinstance(penalty, Radial) else L1
    W, start, iterations = np.zeros(problem.shape), options.pop("start", None), 0
    if start is not None:
        W = problem.redo(np.asarray(start, np.float64), np.zeros(problem.y.shape[1:]))[0]
    for _ in range(rounds):
        solution = solve(datafit, convex(_slopes(penalty, W), axis=penalty.axis), X, y, start=start, **options)
        start, iterations = solution.coef, iterations + solution.iterations
        W, b = problem.redo(solution.coef, solution.intercept)
        known = certificate(datafit, penalty, problem, W, b)
        if known.value <= tol:
            break
    converged = bool(known.value <= tol)
    return dataclasses.replace(
        solution,
        certificate=known.value,
        kind=known.kind,
        objective=known.objective,
        iterations=iterations,
        converged=converged,
        stalled=not converged and not solution.converged and solution.stalled,
    )


def _slopes(penalty, W) -> np.ndarray:
    """φ'(|Wⱼ|), or φ'(‖W_g‖) of each group."""
    with jax.enable_x64(True):
        return np.asarray(_compiled_slopes(jax.tree.map(np.asarray, penalty), W))


@program
def _compiled_slopes(penalty, x):
    profile, squeezed = penalty, ()
    if isinstance(penalty, Radial):
        x, squeezed, lam = in_groups(penalty, x, penalty.lam)
        profile, x = penalty.profile(x, squeezed, lam), norm(x, squeezed)
    lam = per_entry(profile.lam, x, profile)
    at_zero = times(lam, jnp.asarray(profile.kink(x), x.dtype))
    return jnp.squeeze(jnp.where(x == 0, at_zero, jnp.abs(jax.grad(profile.value)(x))), squeezed)
