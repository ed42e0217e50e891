"""Spectral penalties and constraints: closed forms, finite differences, Keras, and rank-deficient matrices."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import jaxreg as jr

RNG = np.random.default_rng(0)
SHAPES = {"square": (3, 3), "tall": (5, 3), "wide": (2, 4)}


def with_values(s, m, n, seed=0):
    """An (m, n) matrix with the singular values s."""
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.normal(size=(k, k)))[0][:, : len(s)] for k in (m, n))
    return jnp.asarray(u * s @ v.T)


SPREAD = {2: [2.0, 0.6], 3: [2.0, 1.1, 0.4]}


def degenerate(m, n):
    """name -> an (m, n) matrix whose singular values tie or vanish."""
    return {
        "zero": jnp.zeros((m, n)),
        "rank 1": jnp.outer(jnp.arange(1.0, m + 1), np.resize([1.0, -1, 2], n)),
        "identity": jnp.eye(m, n),
        "ties": with_values([2.0, 2.0, 0.0][: min(m, n)], m, n),
        "zero column": with_values([2.0, 1.0], m, n).at[:, 1].set(0),
    }


MAPS = {
    "Nuclear.value": lambda x: jr.Nuclear(0.7).value(x),
    "SpectralNorm.value": lambda x: jr.SpectralNorm(0.7).value(x),
    "Orthogonality.value": lambda x: jr.Orthogonality(0.7, axis=0).value(x),
    "Orthogonality.cosine": lambda x: jr.Orthogonality(0.7, axis=0, cosine=True).value(x),
    "Nuclear.prox": lambda x: jr.Nuclear(0.7).prox(x, 0.8),
    "SpectralNorm.prox": lambda x: jr.SpectralNorm(0.7).prox(x, 0.8),
    "SpectralNorm.prox of two": lambda x: jr.SpectralNorm(1.6).prox(x, 1.0),
    "SpectralBall": lambda x: jr.SpectralBall(0.9).project(x),
    "NuclearBall": lambda x: jr.NuclearBall(1.2).project(x),
    "RankAtMost": lambda x: jr.RankAtMost(1).project(x),
    "Orthonormal": lambda x: jr.Orthonormal().project(x),
    "SpectralBall.violation": lambda x: jr.SpectralBall(0.9).violation(x),
    "NuclearBall.violation": lambda x: jr.NuclearBall(0.9).violation(x),
    "Orthonormal.violation": lambda x: jr.Orthonormal().violation(x),
}


H = 1e-5


@functools.cache
def derivatives(name):
    """A direction; value, derivative in both modes and second derivative at a point, after and before it, and where
    singular values tie or vanish. One program for each map, of a shape of its own: compiling is what takes the time.
    """
    f, (m, n) = MAPS[name], list(SHAPES.values())[list(MAPS).index(name) % 3]
    x, way = with_values(SPREAD[min(m, n)], m, n), np.random.default_rng(1).normal(size=(m, n))
    points = jnp.stack([x, x + H * way, x - H * way, *degenerate(m, n).values()])
    every = jax.vmap(lambda x: (f(x), jax.jacfwd(f)(x), jax.jacrev(f)(x), jax.jacfwd(jax.jacrev(f))(x)))
    return way, *map(np.asarray, jax.jit(every)(points))


@pytest.mark.parametrize("name", MAPS)
def test_first_and_second_derivatives(name):
    way, value, forward, reverse, second = derivatives(name)
    np.testing.assert_allclose(forward[0], reverse[0], atol=1e-13)
    for below, above in ((value, reverse), (forward, second)):
        along = np.sum(above[0] * way, (-2, -1))
        np.testing.assert_allclose(along, (below[1] - below[2]) / (2 * H), atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("name", MAPS)
def test_derivatives_are_finite_at_degenerate_matrices(name):
    _, _, _, first, second = derivatives(name)
    assert np.all(np.isfinite(first[3:]))
    if "value" in name or "violation" in name:
        assert np.all(np.isfinite(second[3:]))


@pytest.mark.parametrize("name", ["Nuclear.value", "Nuclear.prox"])
@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_second_derivatives_in_one_mode(name, mode):
    x = with_values([2.0, 0.4], 3, 2)
    check_grads(jax.jit(MAPS[name]), (x,), order=2, modes=[mode], atol=1e-5, rtol=1e-5, eps=1e-5)


def test_derivatives_in_the_strength():
    x = with_values([2.0, 1.1, 0.4], 4, 3)
    for f in (
        lambda k: jr.Nuclear(k).prox(x, 0.8),
        lambda k: jr.SpectralNorm(k).prox(x, 0.8),
        lambda k: jr.SpectralBall(k).project(x),
        lambda k: jr.NuclearBall(k).project(x),
    ):
        check_grads(jax.jit(f), (0.8,), order=1, modes=["fwd", "rev"], atol=1e-5, rtol=1e-5, eps=1e-5)


@pytest.mark.parametrize("pen", [jr.Nuclear(0.3), jr.SpectralNorm(0.3)], ids=["Nuclear", "SpectralNorm"])
def test_prox_has_the_right_derivative_at_ties_and_low_rank(pen):
    # Away from its own kinks the prox is smooth where the singular vectors are not.
    direction, probe = RNG.normal(size=(2, 4, 3))
    h, points = 1e-6, degenerate(4, 3)

    @jax.jit
    @jax.vmap
    def along(x):
        f = lambda t: pen.prox(x + t * direction, 1.0)
        slope = jax.jvp(f, (0.0,), (1.0,))[1]
        pull = jax.vjp(lambda x: pen.prox(x, 1.0), x)[1](probe)[0]
        return slope, (f(h) - f(-h)) / (2 * h), pull

    found = map(np.asarray, along(jnp.stack(list(points.values()))))
    for x, slope, expected, pull in zip(points.values(), *found, strict=True):
        ties = isinstance(pen, jr.SpectralNorm) and np.ptp(np.linalg.svd(x)[1][:2]) < 1e-6 and np.any(x)
        if not ties:
            np.testing.assert_allclose(slope, expected, atol=1e-7)
        np.testing.assert_allclose(np.sum(pull * direction), np.sum(probe * slope), atol=1e-12)


def test_shrinking_and_clipping_are_exact_at_equal_singular_values():
    x, dx = 2 * jnp.eye(3), jnp.asarray(RNG.normal(size=(3, 3)))
    even, odd = (dx + dx.T) / 2, (dx - dx.T) / 2
    _, shrunk = jax.jvp(lambda x: jr.Nuclear(0.5).prox(x, 1.0), (x,), (dx,))
    np.testing.assert_allclose(shrunk, even + 0.75 * odd, atol=1e-15)
    _, clipped = jax.jvp(jr.SpectralBall(1.0).project, (x,), (dx,))
    np.testing.assert_allclose(clipped, 0.5 * odd, atol=1e-15)


def test_gradients_of_the_norms():
    u, s, vt = np.linalg.svd(x := with_values([2.0, 1.1, 0.4], 5, 3), full_matrices=False)
    np.testing.assert_allclose(jax.jit(jax.grad(jr.Nuclear(0.7).value))(x), 0.7 * u @ vt, atol=1e-14)
    np.testing.assert_allclose(
        jax.jit(jax.grad(jr.SpectralNorm(0.7).value))(x), 0.7 * np.outer(u[:, 0], vt[0]), atol=1e-14
    )
    assert jr.Nuclear(0.7).value(x) == pytest.approx(0.7 * s.sum())
    assert jr.SpectralNorm(0.7).value(x) == pytest.approx(0.7 * s[0])
    low = with_values([2.0, 1.0], 5, 3)
    u, _, vt = np.linalg.svd(low, full_matrices=False)
    np.testing.assert_allclose(jax.jit(jax.grad(jr.Nuclear(1.0).value))(low), u[:, :2] @ vt[:2], atol=1e-14)
    np.testing.assert_allclose(jax.jit(jax.grad(jr.SpectralNorm(1.0).value))(jnp.eye(3)), np.eye(3) / 3, atol=1e-15)
    for pen in (jr.Nuclear(1.0), jr.SpectralNorm(1.0)):
        assert not np.any(jax.jit(jax.grad(pen.value))(jnp.zeros((3, 2))))


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5,), ()])
def test_closed_forms(shape):
    x = jnp.asarray(RNG.normal(size=shape))
    u, s, vt = np.linalg.svd(np.atleast_2d(x), full_matrices=False)
    build = lambda f: (u * f @ vt).reshape(shape)
    t = 0.8 * s.mean()
    nouns = [
        jr.Nuclear(t),
        jr.SpectralNorm(t),
        jr.SpectralBall(t),
        jr.NuclearBall(t),
        jr.RankAtMost(2),
        jr.Orthonormal(),
    ]
    nearest = lambda x: [noun.prox(x, 1.0) if isinstance(noun, jr.Penalty) else noun.project(x) for noun in nouns]
    soft, lowered, clipped, ball, truncated, polar = jax.jit(nearest)(x)
    np.testing.assert_allclose(soft, build(np.maximum(s - t, 0)), atol=1e-14)
    np.testing.assert_allclose(clipped, build(np.minimum(s, t)), atol=1e-14)
    np.testing.assert_allclose(truncated, build(np.where(np.arange(s.size) < 2, s, 0)), atol=1e-14)
    np.testing.assert_allclose(polar, build(np.ones_like(s)), atol=1e-14)
    # Moreau: what the prox of the one norm leaves is the projection on the ball of the other.
    np.testing.assert_allclose(x - lowered, ball, atol=1e-14)
    np.testing.assert_allclose(x - soft, clipped, atol=1e-14)


@pytest.mark.slow
def test_a_stack_is_a_loop():
    x = jnp.asarray(RNG.normal(size=(2, 3, 4, 5)))
    numbers = np.linspace(0.5, 2, 6).reshape(2, 3)
    loop = lambda f: np.array([[f(x[i, j], numbers[i, j]) for j in range(3)] for i in range(2)])
    for cls in (jr.Nuclear, jr.SpectralNorm):
        np.testing.assert_allclose(cls(numbers, axis=(-2, -1)).measure(x), loop(lambda x, k: cls(k).measure(x)))
        together = cls(numbers, axis=(-2, -1)).prox(x, 0.5)
        np.testing.assert_allclose(together, loop(lambda x, k: cls(k).prox(x, 0.5)), atol=1e-14)
    for cls in (jr.SpectralBall, jr.NuclearBall, jr.RankAtMost):
        con = cls(numbers, axis=(-2, -1))
        np.testing.assert_allclose(con.project(x), loop(lambda x, k: cls(k).project(x)), atol=1e-14)
        np.testing.assert_allclose(con.violation(x), loop(lambda x, k: cls(k).violation(x)), atol=1e-13)
    pen = jr.Orthogonality(0.3, axis=-2)
    np.testing.assert_allclose(pen.measure(x), loop(lambda x, k: jr.Orthogonality(0.3, axis=0).measure(x)))
    np.testing.assert_allclose(  # the axes inside a group need not be the last
        jr.Nuclear(numbers, axis=(0, 1)).prox(x.transpose(2, 3, 0, 1), 0.5).transpose(2, 3, 0, 1),
        jr.Nuclear(numbers, axis=(-2, -1)).prox(x, 0.5),
        atol=1e-14,
    )


def test_a_convolution_is_a_matrix_with_its_outputs_as_columns():
    x = jnp.asarray(RNG.normal(size=(3, 2, 2, 4)))
    flat = x.reshape(12, 4)
    np.testing.assert_array_equal(jr.Nuclear(0.5).prox(x, 1.0), jr.Nuclear(0.5).prox(flat, 1.0).reshape(x.shape))
    np.testing.assert_allclose(jr.Orthonormal().violation(x), jr.Orthonormal().violation(flat))
    np.testing.assert_allclose(
        jr.Orthogonality(0.5, axis=(0, 1, 2)).measure(x), jr.Orthogonality(0.5, axis=0).measure(flat)
    )


def test_prox_without_strength_is_the_identity_and_with_enough_is_zero():
    x = jnp.asarray(RNG.normal(size=(7, 5)), jnp.float32)
    values = np.linalg.svd(x)[1]
    for cls, enough in ((jr.Nuclear, values[0]), (jr.SpectralNorm, values.sum())):
        np.testing.assert_array_equal(cls(0.0).prox(x, 1.0), x)
        assert not np.any(cls(enough * (1 + 1e-6)).prox(x, 1.0))
    low = jr.Nuclear(values[2]).prox(x, 1.0)
    assert jr.RankAtMost(2).violation(low) <= 0
    # On the kept part one step changes what it changes, and does not rebuild the rest from its singular vectors.
    sparse = jnp.zeros((4, 4)).at[0, 0].set(1e3).at[1, 1].set(1e-9)
    assert float(jr.Nuclear(1e-12).prox(sparse, 1.0)[1, 1]) == pytest.approx(1e-9 - 1e-12, rel=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_optimality_certifies_and_refuses(rank):
    x = with_values([3.0, 3.0, 1.0][:rank], 6, 4)
    u, _, vt = np.linalg.svd(x, full_matrices=False)
    u1, v1, u0, v0 = u[:, :rank], vt[:rank].T, u[:, rank:], vt[rank:].T
    w = np.linalg.qr(RNG.normal(size=(4 - rank, 4 - rank)))[0]
    for size in (0.0, 0.9, 1.0):
        g = -0.7 * (u1 @ v1.T + size * u0 @ w @ v0.T)
        assert jr.Nuclear(0.7).optimality(x, g) <= 1e-14
    assert jr.Nuclear(0.7).optimality(x, -0.7 * (u1 @ v1.T + 1.5 * u0 @ w @ v0.T)) > 0.01
    assert jr.Nuclear(0.7).optimality(x, -0.8 * u1 @ v1.T) > 0.01
    ties = min(rank, 2)
    m = np.diag([0.3, 0.7]) if ties == 2 else np.eye(1)
    turn = np.linalg.qr(RNG.normal(size=(ties, ties)))[0]
    g = -0.7 * u[:, :ties] @ turn @ m @ turn.T @ vt[:ties]
    assert jr.SpectralNorm(0.7).optimality(x, g) <= 1e-14
    assert jr.SpectralNorm(0.7).optimality(x, 1.1 * g) > 0.01
    assert jr.SpectralNorm(0.7).optimality(x, -g) > 0.01


def test_truncation_is_the_nearest_of_its_rank():
    x = jnp.asarray(RNG.normal(size=(6, 4)))
    best = np.sum((x - jr.RankAtMost(2).project(x)) ** 2)
    assert best == pytest.approx(np.sum(np.linalg.svd(x)[1][2:] ** 2))
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    for _ in range(50):
        left = u[:, :2] * s[:2] + 0.1 * RNG.normal(size=(6, 2))
        right = vt[:2] + 0.1 * RNG.normal(size=(2, 4))
        assert np.sum((x - left @ right) ** 2) >= best
    np.testing.assert_array_equal(jr.RankAtMost(4).project(x), x)
    assert not np.any(jr.RankAtMost(0).project(x))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
@pytest.mark.parametrize("shape", [(40, 30), (20, 90), (3, 2)])
def test_truncations_have_their_rank(dtype, shape):
    @jax.jit
    def truncated(rank, x):
        p = jr.RankAtMost(rank).project(x)
        return p, jr.RankAtMost(rank).violation(p), jr.RankAtMost(rank).project(p)

    for seed in range(5):
        x = jnp.asarray(np.random.default_rng(seed).normal(size=shape) * 10.0**seed, dtype)
        for rank in (1, 2, 10):
            p, violation, again = truncated(rank, x)
            assert violation == min(rank, *shape) - rank
            np.testing.assert_array_equal(again, p)


def test_polar_factor_solves_procrustes():
    @jax.jit
    def polar(x):
        p = jr.Orthonormal().project(x)
        return p, jr.Orthonormal().violation(p)

    for shape in SHAPES.values():
        x = jnp.asarray(RNG.normal(size=shape))
        p, violation = polar(x)
        assert violation <= 1e-14
        best = np.sum((x - p) ** 2)
        for _ in range(50):
            q, _ = polar(p + 0.3 * RNG.normal(size=shape))
            assert np.sum((x - q) ** 2) >= best - 1e-12
        for x in degenerate(*shape).values():
            assert polar(x)[1] <= 1e-14


@pytest.mark.parametrize(("mode", "axis"), [("columns", 0), pytest.param("rows", 1, marks=pytest.mark.slow)])
def test_cosine_form_equals_keras(mode, axis, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    pen, theirs = jr.Orthogonality(0.3, axis=axis, cosine=True), keras.regularizers.OrthogonalRegularizer(0.3, mode)
    x = jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)
    zero_unit = x.at[1].set(0).at[:, 2].set(0)
    for w in (x, zero_unit):
        np.testing.assert_allclose(pen.value(w), theirs(w), rtol=1e-6)
        slope = jax.jit(jax.grad(pen.value))(w)
        assert np.all(np.isfinite(slope))
        assert not np.any(np.where(np.any(w != 0, axis, keepdims=True), 0, slope))
    np.testing.assert_allclose(jax.jit(jax.grad(pen.value))(x), jax.jit(jax.grad(theirs))(x), atol=1e-6)
    single = x[:, :1] if axis == 0 else x[:1]
    assert pen.value(single) == 0
    assert not np.any(jax.jit(jax.grad(pen.value))(single))


def test_orthogonality_is_the_frobenius_distance():
    x = RNG.normal(size=(5, 3))
    expected = np.linalg.norm(x.T @ x - np.eye(3)) ** 2
    assert jr.Orthogonality(0.5, axis=0).value(jnp.asarray(x)) == pytest.approx(0.5 * expected)
    assert jr.Orthonormal().violation(jnp.asarray(x)) ** 2 == pytest.approx(expected)
    expected = np.linalg.norm(x @ x.T - np.eye(5)) ** 2
    assert jr.Orthogonality(0.5, axis=1).value(jnp.asarray(x)) == pytest.approx(0.5 * expected)


def test_one_bad_matrix_leaves_the_stack_alone():
    x = jnp.asarray(RNG.normal(size=(3, 4, 2))).at[1, 0, 0].set(jnp.nan)
    for f in (jr.Nuclear(0.5, (1, 2)).measure, jr.SpectralBall(0.5, (1, 2)).violation):
        np.testing.assert_array_equal(np.isnan(jax.jit(f)(x)), [False, True, False])
    for f in (lambda x: jr.SpectralNorm(0.5, (1, 2)).prox(x, 1.0), jr.Orthonormal((1, 2)).project):
        bad = np.isnan(jax.jit(f)(x))
        assert bad.all((1, 2)).tolist() == bad.any((1, 2)).tolist() == [False, True, False]
