"""Problems with exact answers: constrained ridge (A1, A2, A8) and decoupled decay (C4)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr

D, C = np.array([4.0, 1.0]), np.array([6.0, 4.0])
dtypes = pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float64, 1e-8), (jnp.float32, 1e-4)], ids=["f64", "f32"])


def solve(con, shape, dtype, steps=6000, **options):
    """Gradient descent on θ, ascent on α, for ½wᵀDw − cᵀw in every column."""
    d, c = (jnp.asarray(v, dtype).reshape(2, *[1] * (len(shape) - 1)) for v in (D, C))
    loss = lambda w: jnp.sum(0.5 * d * w**2 - c * w)
    tx = optax.chain(jr.multipliers(con, 0.1, **options), optax.sgd(0.05))

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(jax.grad(loss)(w), state, w)
        return (optax.apply_updates(w, updates), state), None

    w = jnp.zeros(shape, dtype)
    (w, state), _ = jax.lax.scan(step, (w, tx.init(w)), None, steps)
    alpha = state[0].alpha
    return w, alpha, jr.kkt_residuals(con, w, jax.grad(loss)(w), alpha)


@dtypes
@pytest.mark.parametrize("options", [{}, {"augmentation": 1.0}, {"proportional": 1.0}, {"alternating": True}], ids=str)
def test_a1_ridge_is_kkt(dtype, tolerance, options):
    ks = jnp.asarray([0.5, 1, 25 / 18, 4, 9.125, 12], dtype)
    w, alpha, residuals = jax.vmap(lambda k: solve(jr.SublevelSet(jr.SquaredL2(1.0), k), (2,), dtype, **options))(ks)
    np.testing.assert_allclose(w[2], [1, 4 / 3], atol=tolerance)
    np.testing.assert_allclose(alpha, [4.589712539, 2.666759307, 2, 0.5943370, 0, 0], atol=max(1e-6, 10 * tolerance))
    for residual in residuals:
        assert residual.dtype == dtype
        assert float(jnp.max(residual)) <= tolerance


@dtypes
def test_a2_one_multiplier_per_column(dtype, tolerance):
    ks = jnp.asarray([9.125, 4.444444, 25 / 18, 0.1579524372], dtype)
    w, alpha, residuals = solve(jr.SublevelSet(jr.SquaredL2(1.0, axis=0), ks), (2, 4), dtype, steps=20_000)
    np.testing.assert_allclose(alpha, [0, 0.5, 2, 10], atol=max(1e-6, 50 * tolerance))
    assert max(float(r) for r in residuals) <= tolerance
    whole = solve(jr.SublevelSet(jr.SquaredL2(1.0), jnp.sum(ks)), (2, 4), dtype)
    assert whole[1].shape == ()
    assert np.max(np.abs(np.asarray(whole[0]) - np.asarray(w))) > 0.1  # one multiplier for all is another problem


def test_a8_penalty_is_projection_is_multiplier():
    strengths = jnp.logspace(-1.5, 1, 50)
    ridge = C[:, None] / (D[:, None] + strengths)
    bounds = 0.5 * np.sum(ridge**2, 0)

    # The augmentation damps the slow oscillation of small multipliers.
    kkt, alpha, residuals = jax.vmap(
        lambda k: solve(jr.SublevelSet(jr.SquaredL2(1.0), k), (2,), jnp.float64, steps=20_000, augmentation=1.0)
    )(bounds)

    def projected_gradient(k):
        tx = optax.chain(optax.sgd(0.2), jr.projected(jr.SublevelSet(jr.SquaredL2(1.0), k)))
        w = jnp.zeros(2)
        state = tx.init(w)

        def step(carry, _):
            w, state = carry
            updates, state = tx.update(D * w - C, state, w)
            return (optax.apply_updates(w, updates), state), None

        return jax.lax.scan(step, (w, state), None, 2000)[0][0]

    np.testing.assert_allclose(kkt, ridge.T, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(projected_gradient)(bounds), ridge.T, atol=1e-6)
    np.testing.assert_allclose(alpha, strengths, atol=1e-6)
    assert np.all(np.diff(alpha) > 0)
    assert np.all(np.diff(bounds) < 0)  # α*(k) decreases
    assert max(float(jnp.max(r)) for r in residuals) <= 1e-8


def test_c4_sgd_l2_is_decay_and_adam_is_not():
    lam, lr = 0.2, 0.05

    def train(tx):
        def step(carry, t):
            w, state = carry
            grads = jnp.array([1.0, 0.01, 3.0]) * jnp.cos(w + t)
            updates, state = tx.update(grads, state, w)
            w = optax.apply_updates(w, updates)
            return (w, state), w

        w = jnp.array([1.0, -2.0, 3.0])
        return jax.lax.scan(step, (w, tx.init(w)), jnp.arange(100.0))[1]

    # Proposition 1: θ ← (1 − λ)θ − η∇J is L2 with λ' = λ/η.
    decayed = train(optax.chain(optax.sgd(lr), jr.decay(jr.SquaredL2(lam), 1.0)))
    coupled = train(optax.chain(jr.add_penalty_gradient(jr.SquaredL2(lam / lr)), optax.sgd(lr)))
    np.testing.assert_allclose(decayed, coupled, atol=1e-12)
    # Proposition 2: for Adam no λ' does.
    decayed = train(optax.chain(optax.adam(lr), jr.decay(jr.SquaredL2(lam), 1.0)))
    coupled = jax.vmap(lambda s: train(optax.chain(jr.add_penalty_gradient(jr.SquaredL2(s)), optax.adam(lr))))(
        jnp.concatenate([jnp.zeros(1), jnp.logspace(-4, 4, 400)])
    )
    assert np.min(np.max(np.abs(coupled - decayed), (1, 2))) > 1e-3


# ------------------------------------------------------------------ multipliers, by hand


def roll(steps, **options):
    """v_t of L2Ball(1) along |w_t|, with gradients that the test chooses; returns the pushes and the alphas."""
    con = jr.Equality(jr.L2Ball(1.0)) if options.pop("equality", False) else jr.L2Ball(1.0)
    tx = jr.multipliers(con, 0.5, **options)
    state, pushes, alphas = tx.init(jnp.zeros(2)), [], []
    for size in steps:
        w = jnp.array([0.0, size])
        u, state = tx.update(jnp.zeros(2), state, w)
        pushes.append(float(u[1]))
        alphas.append(float(state.alpha))
    return pushes, alphas


@pytest.mark.parametrize(
    ("options", "pushes", "alphas"),
    [
        # v = 1, 2, −0.5, −0.9; η = ½; ∇v is (0, 1)
        ({}, [0, 0.5, 1.5, 1.25], [0.5, 1.5, 1.25, 0.8]),
        ({"alternating": True}, [0.5, 1.5, 1.25, 0.8], [0.5, 1.5, 1.25, 0.8]),
        ({"augmentation": 0.2}, [0.2, 0.9, 1.4, 1.07], [0.5, 1.5, 1.25, 0.8]),
        ({"proportional": 0.1}, [0, 0.5, 1.6, 1.1], [0.5, 1.6, 1.1, 0.61]),
        ({"proportional": 0.1, "augmentation": 0.2, "alternating": True}, [0.7, 2.0, 1.0, 0.43], [0.5, 1.6, 1.1, 0.61]),
        ({"proportional": 1.0}, [0, 0.5, 2.5, 0], [0.5, 2.5, 0, 0]),
        ({"proportional": 1.0, "equality": True}, [0, 0.5, 2.5, -0.25], [0.5, 2.5, -0.25, -1.1]),
        ({"augmentation": 2.0, "equality": True}, [2, 4.5, 0.5, -0.55], [0.5, 1.5, 1.25, 0.8]),
    ],
    ids=str,
)
def test_multipliers_by_hand(options, pushes, alphas):
    got = roll([2.0, 3.0, 0.5, 0.1], **options)
    np.testing.assert_allclose(got[0], pushes, atol=1e-12)
    np.testing.assert_allclose(got[1], alphas, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{}, {"augmentation": 0.0, "proportional": 0.0}, {"augmentation": 0.5, "proportional": 0.5}]
)
@pytest.mark.parametrize("traced", [False, True])
def test_an_infinite_bound_has_multiplier_zero_and_no_nan(options, traced):
    def run(options):
        tx = jr.multipliers(jr.L2Ball(jnp.asarray([jnp.inf, 1.0]), axis=0), 0.5, **options)
        w = jnp.ones((2, 2))
        state = tx.init(w)
        for _ in range(3):
            u, state = tx.update(jnp.zeros((2, 2)), state, w)
        return u, state.alpha, jr.kkt_residuals(jr.L2Ball(jnp.asarray([jnp.inf, 1.0]), axis=0), w, u, state.alpha)

    u, alpha, residuals = jax.jit(run)(options) if traced else run(options)
    assert np.all(np.isfinite(u))
    assert float(alpha[0]) == 0
    assert float(alpha[1]) > 0
    assert np.all(np.isfinite(np.asarray(residuals)))


def test_kkt_residuals_by_hand():
    cons = {"w": jr.L2Ball(1.0), "e": jr.Equality(jr.L2Ball(1.0)), "b": None}
    params = {"w": jnp.array([3.0, 4.0]), "e": jnp.array([0.5]), "b": jnp.array([1.0])}
    grads = {"w": jnp.array([-1.2, -1.6]), "e": jnp.array([0.25]), "b": jnp.array([-0.125])}
    alpha = {"w": jnp.array(2.0), "e": jnp.array(-0.25), "b": None}
    residuals = jr.kkt_residuals(cons, params, grads, alpha)
    assert [float(r) for r in residuals] == pytest.approx([0.125, 4.0, 8.0])
    params["w"] = jnp.array([0.3, 0.4])
    assert float(jr.kkt_residuals(cons, params, grads, alpha).feasibility) == 0.5  # an equality misses from below too
