"""Problems with known parameters and multipliers, solved by every method of `multipliers_for`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import known_solutions
from experiments.benchmarks.multipliers_cooper import METHODS, Ours, options_of

SMALL, LARGE = (20, 10, 5), (200, 50, 20)
methods = [name for name in METHODS if name != "PI, as shipped"]


def solve(problem, method, dtype=jnp.float64, steps=None):
    """θ and α after the last step, and their certificate."""
    ours = Ours(problem, options_of(problem, method), dtype)

    @jax.jit
    def run(carry):
        x, (state, _) = jax.lax.scan(ours.step, carry, None, steps or problem.steps)[0]
        return x, state.alpha, ours.residuals(x, state.alpha)

    found = run(ours.carry)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}
    return found


def check(problem, x, alpha, tolerance):
    np.testing.assert_allclose(x, problem.solution, atol=tolerance)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance), alpha, problem.multipliers)


@pytest.mark.parametrize("method", methods)
def test_die_of_largest_entropy(method):
    """A3, by every method; plain simultaneous steps damp it slowly."""
    problem = known_solutions.die()
    x, alpha, residuals = solve(problem, method, steps=20000 if method == "simultaneous" else 6000)
    check(problem, x, alpha, 1e-8)
    assert abs(float(alpha["equality"][0])) == pytest.approx(0.3710489381, abs=1e-8)
    assert -float(problem.loss(x, jnp)) == pytest.approx(1.6135810982, abs=1e-8)
    assert max(residuals) <= 1e-8


@pytest.mark.parametrize(("method", "size"), [(m, SMALL) for m in methods] + [(m, LARGE) for m in ("augmented", "PI")])
def test_least_norm_under_random_rows(method, size):
    problem = known_solutions.least_norm(*size, seed=1)
    x, alpha, residuals = solve(problem, method)
    check(problem, x, alpha, 1e-6)
    slack = problem.multipliers["inequality"] == 0
    assert 0 < slack.sum() < slack.size
    assert (alpha["inequality"][slack] == 0).all()
    assert max(residuals) <= 1e-6


@pytest.mark.parametrize("method", ["augmented", "PI"])
def test_least_norm_in_float32(method):
    problem = known_solutions.least_norm(*SMALL, seed=1)
    x, alpha, residuals = solve(problem, method, jnp.float32)
    check(problem, x, alpha, 1e-4)
    assert max(residuals) <= 1e-4


@pytest.mark.parametrize("problem", [known_solutions.die(), known_solutions.least_norm(*SMALL, 1)], ids=["die", "rows"])
def test_the_known_solutions_are_the_only_ones(problem):
    """Convex problems: zero residuals and independent active rows."""
    ours = Ours(problem, {})
    assert max(ours.residuals(jnp.asarray(problem.solution), problem.multipliers)) <= 1e-12
    active = [m[np.abs(m @ problem.solution - r) < 1e-9] for m, r in problem.rows.values()]
    assert np.linalg.matrix_rank(np.concatenate(active)) == sum(map(len, active))
    assert (problem.multipliers.get("inequality", np.zeros(1)) >= 0).all()
