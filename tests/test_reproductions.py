"""Problems with exact answers: constraints and multipliers (A1–A6, A8), decoupled decay (C4)."""

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
    d, c = (v.astype(dtype).reshape(2, *[1] * (len(shape) - 1)) for v in (D, C))
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
    ks = np.array([0.5, 1, 25 / 18, 4, 9.125, 12], dtype)
    run = jax.jit(jax.vmap(lambda k: solve(jr.SublevelSet(jr.SquaredL2(1.0), k), (2,), dtype, **options)))
    w, alpha, residuals = jax.tree.map(np.asarray, run(ks))
    np.testing.assert_allclose(w[2], [1, 4 / 3], atol=tolerance)
    np.testing.assert_allclose(alpha, [4.589712539, 2.666759307, 2, 0.5943370, 0, 0], atol=max(1e-6, 10 * tolerance))
    for residual in residuals:
        assert residual.dtype == dtype
        assert np.max(residual) <= tolerance


@dtypes
def test_a2_one_multiplier_per_column(dtype, tolerance):
    def run(ks):
        columns = solve(jr.SublevelSet(jr.SquaredL2(1.0, axis=0), ks), (2, 4), dtype, steps=20_000)
        return columns, solve(jr.SublevelSet(jr.SquaredL2(1.0), jnp.sum(ks)), (2, 4), dtype)[:2]

    ks = np.array([9.125, 4.444444, 25 / 18, 0.1579524372], dtype)
    (w, alpha, residuals), (whole, one) = jax.jit(run)(ks)
    np.testing.assert_allclose(alpha, [0, 0.5, 2, 10], atol=max(1e-6, 50 * tolerance))
    assert max(float(r) for r in residuals) <= tolerance
    assert one.shape == ()
    assert np.max(np.abs(np.asarray(whole) - np.asarray(w))) > 0.1  # one multiplier for all is another problem


def rolled(link, grad, w, rate, steps):
    """All w and α of simultaneous gradient descent and ascent."""
    tx = optax.chain(link, optax.sgd(rate))

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(grad(w), state, w)
        w = optax.apply_updates(w, updates)
        return (w, state), (w, state[0].alpha)

    return jax.lax.scan(step, (w, tx.init(w)), None, steps)[1]


@dtypes
def test_a3_maximum_entropy_die(dtype, tolerance):
    faces = np.arange(1, 7, dtype=dtype)
    fn = lambda p: {"mean": p @ faces - 4.5, "sum": jnp.sum(p) - 1}
    link = jr.multipliers_for(fn, 0.5, equality=True, augmentation=1.0)
    grad = lambda p: jnp.log(p) + 1

    @jax.jit
    def run(p):
        p, alpha = jax.tree.map(lambda a: a[-1], rolled(link, grad, p, 0.01, 8000))
        return p, alpha["mean"], -p @ jnp.log(p), jr.kkt_residuals(fn, p, grad(p), alpha, equality=True)

    p, mean, entropy, residuals = run(np.full(6, 1 / 6, dtype))
    expected = [0.0543531678, 0.0787715456, 0.1141599772, 0.1654468031, 0.2397744404, 0.3474940658]
    np.testing.assert_allclose(p, expected, atol=max(1e-9, tolerance))
    assert float(entropy) == pytest.approx(1.6135810982, abs=max(1e-9, 10 * tolerance))
    assert abs(float(mean)) == pytest.approx(0.3710489381, abs=max(1e-9, 10 * tolerance))
    assert max(float(r) for r in residuals) <= tolerance


@dtypes
def test_a4_the_plain_lagrangian_diverges_where_the_augmented_converges(dtype, tolerance):
    # f = −x²/2, x = 1; η = .05
    def link(c):
        return jr.multipliers_for(lambda x: x - 1, 0.05, equality=True, augmentation=c)

    def jacobian(c):
        tx = optax.chain(link(c), optax.sgd(0.05))

        def step(z):
            x, alpha = z
            state = tx.init(x)
            u, state = tx.update(-x, (state[0]._replace(alpha=alpha), *state[1:]), x)
            return jnp.stack([x + u, state[0].alpha])

        return jax.jacobian(step)(jnp.ones(2, dtype))

    roll = lambda c: rolled(link(c), lambda x: -x, jnp.asarray(0.5, dtype), 0.05, 600)
    run = jax.jit(lambda cs, ends: (jax.vmap(jacobian)(cs), jax.vmap(roll)(ends)))
    jacobians, (xs, alphas) = jax.tree.map(np.asarray, run(*(np.array(c, dtype) for c in ([0, 1.04, 1.06, 3], [0, 3]))))
    plain, below, above, damped = np.abs(np.linalg.eigvals(jacobians.astype(float))).max(1)
    assert plain == pytest.approx(1.0259, abs=1e-4)
    assert damped == pytest.approx(0.95, abs=1e-4)
    assert below > 1 > above  # the border is c = 1 + η
    assert np.max(np.abs(xs[0, -130:])) > 1000
    np.testing.assert_allclose([xs[1, -1], alphas[1, -1]], 1, atol=max(1e-8, tolerance))
    assert abs(float(-xs[1, -1] + alphas[1, -1])) <= tolerance


@dtypes
def test_a5_the_plain_lagrangian_cycles_where_the_augmented_finds_the_principal_component(dtype, tolerance):
    a = np.array([3, 2, 1], dtype)
    con, w = jr.SublevelSet(jr.SquaredL2(1.0), 0.5), np.array([0.3, 0.5, 0.4], dtype)

    def run(c):
        ws, alphas = rolled(jr.multipliers(con, 0.05, augmentation=c), lambda w: -a * w, jnp.asarray(w), 0.05, 4000)
        return ws[-1], alphas, jr.kkt_residuals(con, ws[-1], -a * ws[-1], alphas[-1])

    ws, alphas, residuals = jax.tree.map(np.asarray, jax.jit(jax.vmap(run))(np.array([0, 0.5, 2], dtype)))
    assert 6 < np.max(alphas[0, -500:]) < 7
    assert np.min(alphas[0, -500:]) < 1
    np.testing.assert_allclose(alphas[1:, -1], 3, atol=max(1e-12, tolerance))
    np.testing.assert_allclose(np.abs(ws[1:]), [[1, 0, 0]] * 2, atol=max(1e-12, tolerance))
    assert max(np.max(r[1:]) for r in residuals) <= tolerance


@dtypes
@pytest.mark.parametrize(
    ("options", "steps"),
    [({}, 1236), ({"augmentation": 0.5}, 544), ({"proportional": 1.5}, 336)],
    ids=["plain", "augmented", "PI"],
)
def test_a6_pi_control_damps(dtype, tolerance, options, steps):
    b, con = np.array([0.3, 0.4], dtype), jr.SublevelSet(jr.SquaredL2(1.0), 0.5)

    @jax.jit
    def run(w):
        ws, alphas = rolled(jr.multipliers(con, 0.02, **options), lambda w: -b, w, 0.02, 6000)
        return ws[-1], alphas, jr.kkt_residuals(con, ws[-1], -b, alphas[-1])

    w, alphas, residuals = run(np.array([0.6, -0.8], dtype))
    last = 1 + np.flatnonzero(np.abs(np.asarray(alphas) - 0.5) > 1e-3).max()
    assert last == pytest.approx(steps, rel=0.05)
    np.testing.assert_allclose(w, [0.6, 0.8], atol=10 * tolerance)
    assert max(float(r) for r in residuals) <= tolerance


@dtypes
def test_a8_penalty_is_projection_is_multiplier(dtype, tolerance):
    strengths = np.logspace(-1.5, 1, 50)
    ridge = C[:, None] / (D[:, None] + strengths)
    bounds = (0.5 * np.sum(ridge**2, 0)).astype(dtype)
    tight = 1e-6 if dtype == jnp.float64 else tolerance

    def multiplied(k):  # the augmentation damps the slow oscillation of small multipliers
        return solve(jr.SublevelSet(jr.SquaredL2(1.0), k), (2,), dtype, steps=20_000, augmentation=1.0)

    def projected_gradient(k):
        tx = optax.chain(optax.sgd(0.2), jr.projected(jr.SublevelSet(jr.SquaredL2(1.0), k)))
        w = jnp.zeros(2, dtype)
        state = tx.init(w)

        def step(carry, _):
            w, state = carry
            updates, state = tx.update(D.astype(dtype) * w - C.astype(dtype), state, w)
            return (optax.apply_updates(w, updates), state), None

        return jax.lax.scan(step, (w, state), None, 2000)[0][0]

    run = jax.jit(jax.vmap(lambda k: (multiplied(k), projected_gradient(k))))
    (kkt, alpha, residuals), w = jax.tree.map(np.asarray, run(bounds))
    np.testing.assert_allclose(kkt, ridge.T, atol=tight)
    np.testing.assert_allclose(w, ridge.T, atol=tight)
    np.testing.assert_allclose(alpha, strengths, rtol=tight, atol=tight)
    assert np.all(np.diff(alpha) > 0)
    assert np.all(np.diff(bounds) < 0)  # α*(k) decreases
    assert max(np.max(r) for r in residuals) <= tolerance


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

    def coupled(lam, optimizer):
        return train(optax.chain(jr.add_penalty_gradient(jr.SquaredL2(lam)), optimizer))

    @jax.jit
    def run(lams):
        decay, sgd, adam = jr.decay(jr.SquaredL2(lam), 1.0), optax.sgd(lr), optax.adam(lr)
        decayed = [train(optax.chain(optimizer, decay)) for optimizer in (sgd, adam)]
        return decayed, coupled(lam / lr, sgd), jax.vmap(lambda lam: coupled(lam, adam))(lams)

    (sgd, adam), coupled_sgd, coupled_adam = jax.tree.map(np.asarray, run(np.r_[0, np.logspace(-4, 4, 400)]))
    # Proposition 1: θ ← (1 − λ)θ − η∇J is L2 with λ' = λ/η.
    np.testing.assert_allclose(sgd, coupled_sgd, atol=1e-12)
    # Proposition 2: for Adam no λ' does.
    assert np.min(np.max(np.abs(coupled_adam - adam), (1, 2))) > 1e-3
