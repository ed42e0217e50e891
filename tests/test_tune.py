"""Descent in the logarithms of strengths: to published minima, over kinks, for convex fits and for a network."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_convex_fit import prostate_error

import jaxreg as jr


def test_published_searches(data_dir):
    error = prostate_error(data_dir)

    @jax.jit
    @jax.vmap
    def search(start, ratio):  # of 1 is the lasso, of 0 ridge, whose published strengths are of the residual sum
        return jr.tune(lambda lam: error(jr.ElasticNet(lam, ratio)), start, steps=25)

    found = search(jnp.array([0.1, 0.05, 1 / 67]), jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(found.best[:2], [0.110059, 0.045896], atol=1e-6)  # the second is a kink
    np.testing.assert_allclose(found.best[2] * 67, 13.331, atol=1e-3)
    np.testing.assert_allclose(found.value, [0.452468, 0.455598, 0.485802], atol=1e-6)


def test_kinks_smooth_valleys_and_cliffs():
    def kink(x):
        u = jnp.log(x)
        return jnp.abs(u[0] - 1) + 0.1 * jnp.square(u[0]) + 3 * jnp.abs(u[1] - u[0] ** 2)

    def valley(x):  # Rosenbrock's
        u = jnp.log(x)
        return jnp.square(1 - u[0]) + 100 * jnp.square(u[1] - u[0] ** 2)

    def cliff(x):  # NaN beyond 3
        return jnp.where(x[0] > 3, jnp.nan, jnp.sum(jnp.square(x - 2.9)))

    def search(objective, steps):
        return jax.jit(lambda start: jr.tune(objective, start, steps=steps))(jnp.array([0.5, 2.0])).best

    np.testing.assert_allclose(jnp.log(search(kink, 120)), [1, 1], atol=1e-4)
    np.testing.assert_allclose(jnp.log(search(valley, 120)), [1, 1], atol=1e-6)
    np.testing.assert_allclose(search(cliff, 60), [2.9, 2.9], atol=1e-6)


def test_history_and_best():
    found = jr.tune(lambda s: jnp.square(s["a"] - 3.0) + jnp.square(s["b"]).sum(), {"a": 1.0, "b": np.ones(2)}, steps=9)
    assert found.values.shape == found.points["a"].shape == (9,)
    assert found.points["b"].shape == found.gradients["b"].shape == (9, 2)
    assert found.points["a"][0] == 1
    assert found.gradients["a"][0] == pytest.approx(2 * (1 - 3) * 1)  # d/d log a = a·d/da
    assert found.value == found.values.min()
    assert jax.tree.map(lambda x: x[found.values.argmin()], found.points)["a"] == found.best["a"]


def test_only_the_strengths_of_penalties_move():
    start = [jr.ElasticNet(0.1, 0.5), jr.MCP(jnp.array([0.1, 0.2]), 3.0) + jr.SquaredL2(2.0)]

    def objective(penalties):
        net, rest = penalties
        mcp, ridge = rest.terms
        numbers = [net.lam, net.l1_ratio, *mcp.lam, mcp.gamma, ridge.lam]
        return sum(jnp.square(x - 1) for x in numbers)

    found = jr.tune(objective, start, steps=40)
    net, rest = found.best
    np.testing.assert_allclose([net.lam, *rest.terms[0].lam, rest.terms[1].lam], 1, atol=1e-4)
    assert (net.l1_ratio, rest.terms[0].gamma) == (0.5, 3.0)
    assert jnp.all(found.gradients[0].l1_ratio == 0)


def test_an_optax_optimizer_can_search():
    found = jr.tune(lambda lam: jnp.square(lam - 3), 1.0, steps=200, optimizer=optax.adam(0.1))
    assert found.best == pytest.approx(3, abs=1e-4)


def test_what_is_flat_stays():
    found = jr.tune(lambda lam: 0 * lam + 2, 0.5, steps=5)
    assert jnp.all(found.points == 0.5)
    assert found.value == 2


@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        (0.0, ValueError, "> 0"),
        ({"a": -1.0}, ValueError, "> 0"),
        (jr.L1(0.0), ValueError, "> 0"),
        ({}, ValueError, "a strength"),
        ("1", TypeError, "number"),
    ],
)
def test_starts_that_are_refused(start, error, message):
    with pytest.raises(error, match=message):
        jr.tune(lambda s: 0.0, start)


def test_a_network_through_its_training():
    """The strength of one hidden layer, against the grid: the same training, in the same words."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    X, y = jnp.asarray(X / 16, jnp.float32), jnp.asarray(y)
    keys = jax.random.split(jax.random.key(0))
    start = {
        "hidden": jax.random.normal(keys[0], (64, 8), jnp.float32) / 8,
        "out": jax.random.normal(keys[1], (8, 10), jnp.float32) / 3,
    }

    def loss(params, rows):
        logits = jnp.tanh(X[rows] @ params["hidden"]) @ params["out"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

    def held_out_loss(penalty):
        objective = jr.penalized(lambda params: loss(params, slice(0, 60)), penalty)
        optimizer = optax.sgd(0.5, momentum=0.9)

        def step(carry, _):
            params, state = carry
            updates, state = optimizer.update(jax.grad(lambda p: objective(p)[0])(params), state)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=100)
        return loss(params, slice(60, 400))

    grid = np.logspace(-5, -1, 17, dtype=np.float32)
    runs = jr.sweep(lambda lam: {"loss": held_out_loss(jr.SquaredL2(lam))}, jr.grid(lam=grid))["loss"].values
    tune = jax.jit(lambda start: jr.tune(held_out_loss, start, steps=15))
    found = tune(jr.SquaredL2(jnp.float32(1e-4)))
    best = float(grid[runs.argmin()])
    assert grid[0] < best < grid[-1]
    assert best / 10**0.25 < found.best.lam < best * 10**0.25
    assert found.value <= runs.min()
    assert found.values[0] > 1.02 * found.value
