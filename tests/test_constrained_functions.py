"""Problems with known parameters and multipliers, solved by every method of `multipliers_for`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import known_solutions
from experiments.benchmarks.multipliers_cooper import METHODS, Ours, options_of

SMALL, LARGE = (20, 10, 5), (200, 50, 20)
methods = [name for name in METHODS if name != "PI, as shipped"]


def solve(problem, methods, dtype=jnp.float64, steps=None):
    """θ and α after the last step, and their certificate, by each method with its number of steps."""

    def run(method, steps):
        ours = Ours(problem, options_of(problem, method), dtype)
        x, (state, _) = jax.lax.scan(ours.step, ours.carry, None, steps)[0]
        return x, state.alpha, ours.residuals(x, state.alpha)

    steps = steps or dict.fromkeys(methods, problem.steps)
    found = jax.jit(lambda: {method: run(method, steps[method]) for method in methods})()
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}
    return jax.tree.map(np.asarray, found)


def check(problem, found, tolerance):
    assert found
    for method, (x, alpha, residuals) in found.items():
        np.testing.assert_allclose(x, problem.solution, atol=tolerance, err_msg=method)
        for kind, exact in problem.multipliers.items():
            np.testing.assert_allclose(alpha[kind], exact, atol=tolerance, err_msg=method)
        assert max(residuals) <= tolerance, method


def test_die_of_largest_entropy():
    """A3, by every method; plain simultaneous steps damp it slowly."""
    problem = known_solutions.die()
    found = solve(problem, methods, steps=dict.fromkeys(methods, 6000) | {"simultaneous": 20000})
    check(problem, found, 1e-8)
    for method, (x, alpha, _) in found.items():
        assert abs(alpha["equality"][0]) == pytest.approx(0.3710489381, abs=1e-8), method
        assert -problem.loss(x, np) == pytest.approx(1.6135810982, abs=1e-8), method


@pytest.mark.parametrize(("size", "methods"), [(SMALL, methods), (LARGE, ["augmented", "PI"])], ids=["small", "large"])
def test_least_norm_under_random_rows(size, methods):
    problem = known_solutions.least_norm(*size, seed=1)
    found = solve(problem, methods)
    check(problem, found, 1e-6)
    slack = problem.multipliers["inequality"] == 0
    assert 0 < slack.sum() < slack.size
    for method, (_, alpha, _) in found.items():
        assert (alpha["inequality"][slack] == 0).all(), method


def test_least_norm_in_float32():
    problem = known_solutions.least_norm(*SMALL, seed=1)
    check(problem, solve(problem, ["augmented", "PI"], jnp.float32), 1e-4)


@pytest.mark.parametrize("problem", [known_solutions.die(), known_solutions.least_norm(*SMALL, 1)], ids=["die", "rows"])
def test_the_known_solutions_are_the_only_ones(problem):
    """Convex problems: zero residuals and independent active rows."""
    residuals = jax.jit(lambda x: Ours(problem, {}).residuals(x, problem.multipliers))(problem.solution)
    assert max(map(float, residuals)) <= 1e-12
    active = [m[np.abs(m @ problem.solution - r) < 1e-9] for m, r in problem.rows.values()]
    assert np.linalg.matrix_rank(np.concatenate(active)) == sum(map(len, active))
    assert (problem.multipliers.get("inequality", np.zeros(1)) >= 0).all()
