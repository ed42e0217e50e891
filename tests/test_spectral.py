"""Spectral penalties and constraints: closed forms, finite differences, Keras, and rank-deficient matrices."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg as jr

RNG = np.random.default_rng(0)
SHAPES = {"square": (3, 3), "tall": (5, 3), "wide": (2, 4)}


def with_values(s, m, n, seed=0):
    """An (m, n) matrix with the singular values s."""
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.normal(size=(k, k)))[0][:, : len(s)] for k in (m, n))
    return u * s @ v.T


SPREAD = {2: [2.0, 0.6], 3: [2.0, 1.1, 0.4]}


def degenerate(m, n):
    """name -> an (m, n) matrix whose singular values tie or vanish."""
    return {
        "zero": np.zeros((m, n)),
        "rank 1": np.outer(np.arange(1.0, m + 1), np.resize([1.0, -1, 2], n)),
        "identity": np.eye(m, n),
        "ties": with_values([2.0, 2.0, 0.0][: min(m, n)], m, n),
        "zero column": with_values([2.0, 1.0], m, n) * (np.arange(n) != 1),
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


def slope_and_value(f):
    """x -> derivative and value of f, traced once."""
    return jax.jacrev(lambda x: (f(x),) * 2, has_aux=True)


@pytest.mark.parametrize("name", MAPS)
def test_derivatives_are_right_and_finite_at_degenerate_matrices(name):
    # One program for each map, of a shape of its own: compiling is what takes the time.
    f, (m, n) = MAPS[name], list(SHAPES.values())[list(MAPS).index(name) % 3]
    x, way = with_values(SPREAD[min(m, n)], m, n), RNG.normal(size=(m, n))
    points = np.stack([x, x + H * way, x - H * way, *degenerate(m, n).values()])

    def first(x):
        slope, value = slope_and_value(f)(x)
        return slope, (value, slope)

    every = jax.jit(jax.vmap(lambda x: (jax.jacfwd(f)(x), jax.jacfwd(first, has_aux=True)(x))))
    forward, (second, (value, reverse)) = jax.tree.map(np.asarray, every(points))
    np.testing.assert_allclose(forward[0], reverse[0], atol=1e-13)
    for below, above in ((value, reverse), (forward, second)):
        along = np.sum(above[0] * way, (-2, -1))
        np.testing.assert_allclose(along, (below[1] - below[2]) / (2 * H), atol=1e-7, rtol=1e-7)
    assert np.all(np.isfinite(reverse[3:]))
    if "value" in name or "violation" in name:
        assert np.all(np.isfinite(second[3:]))


@pytest.mark.parametrize("name", ["Nuclear.value", "Nuclear.prox"])
def test_second_derivatives_in_one_mode(name):
    f, x, way = MAPS[name], with_values([2.0, 0.4], 3, 2), RNG.normal(size=(3, 2))
    seconds = lambda x: [mode(mode(f))(x) for mode in (jax.jacfwd, jax.jacrev)]
    every = jax.jit(lambda x, sides: (seconds(x), jax.vmap(jax.jacrev(f))(sides)))
    both, sides = jax.tree.map(np.asarray, every(x, np.stack([x + H * way, x - H * way])))
    for second, mode in zip(both, ("forward", "reverse"), strict=True):
        along = np.sum(second * way, (-2, -1))
        np.testing.assert_allclose(along, (sides[0] - sides[1]) / (2 * H), atol=1e-8, err_msg=mode)


def test_derivatives_in_the_strength():
    x, k = with_values([2.0, 1.1, 0.4], 4, 3), 0.8

    def maps(k):
        proxes = [pen.prox(x, 0.8) for pen in (jr.Nuclear(k), jr.SpectralNorm(k))]
        return jnp.stack([*proxes, *(ball.project(x) for ball in (jr.SpectralBall(k), jr.NuclearBall(k)))])

    every = jax.jit(jax.vmap(lambda k: (jax.jacfwd(maps)(k), *slope_and_value(maps)(k))))
    forward, slope, value = map(np.asarray, every(np.array([k, k + H, k - H])))
    np.testing.assert_allclose(forward[0], slope[0], atol=1e-13)
    np.testing.assert_allclose(forward[0], (value[1] - value[2]) / (2 * H), atol=1e-8)


@pytest.mark.parametrize("pen", [jr.Nuclear(0.3), jr.SpectralNorm(0.3)], ids=["Nuclear", "SpectralNorm"])
def test_prox_has_the_right_derivative_at_ties_and_low_rank(pen):
    # Away from its own kinks the prox is smooth where the singular vectors are not.
    direction, probe = RNG.normal(size=(2, 4, 3))
    h, points = 1e-6, np.stack(list(degenerate(4, 3).values()))
    prox = lambda x: pen.prox(x, 1.0)

    @jax.jit
    @jax.vmap
    def along(x):
        above, below = jax.vmap(prox)(x + h * np.stack([direction, -direction]))
        return jax.jvp(prox, (x,), (direction,))[1], (above - below) / (2 * h), jax.vjp(prox, x)[1](probe)[0]

    for x, slope, expected, pull in zip(points, *map(np.asarray, along(points)), strict=True):
        ties = isinstance(pen, jr.SpectralNorm) and np.ptp(np.linalg.svd(x)[1][:2]) < 1e-6 and np.any(x)
        if not ties:
            np.testing.assert_allclose(slope, expected, atol=1e-7)
        np.testing.assert_allclose(np.sum(pull * direction), np.sum(probe * slope), atol=1e-12)


def test_shrinking_and_clipping_are_exact_at_equal_singular_values():
    x, dx = 2 * np.eye(3), RNG.normal(size=(3, 3))
    even, odd = (dx + dx.T) / 2, (dx - dx.T) / 2
    maps = lambda x: (jr.Nuclear(0.5).prox(x, 1.0), jr.SpectralBall(1.0).project(x))
    shrunk, clipped = jax.jit(lambda x, dx: jax.jvp(maps, (x,), (dx,))[1])(x, dx)
    np.testing.assert_allclose(shrunk, even + 0.75 * odd, atol=1e-15)
    np.testing.assert_allclose(clipped, 0.5 * odd, atol=1e-15)


def test_gradients_of_the_norms():
    u, s, vt = np.linalg.svd(x := with_values([2.0, 1.1, 0.4], 5, 3), full_matrices=False)
    low = with_values([2.0, 1.0], 5, 3)
    norms = lambda x: (jr.Nuclear(0.7).value(x), jr.SpectralNorm(0.7).value(x))
    slopes = jax.jit(jax.vmap(lambda x: (norms(x), jax.jacrev(norms)(x))))
    values, (nuclear, spectral) = slopes(np.stack([x, low, np.eye(5, 3), np.zeros((5, 3))]))
    np.testing.assert_allclose(np.asarray(values)[:, 0], [0.7 * s.sum(), 0.7 * s[0]], rtol=1e-6)
    expected = [0.7 * u @ vt, 0.7 * np.outer(u[:, 0], vt[0])]
    u, _, vt = np.linalg.svd(low, full_matrices=False)
    nuclear, spectral = np.asarray(nuclear), np.asarray(spectral)
    np.testing.assert_allclose([nuclear[0], spectral[0]], expected, atol=1e-14)
    np.testing.assert_allclose(nuclear[1], 0.7 * u[:, :2] @ vt[:2], atol=1e-14)
    np.testing.assert_allclose(spectral[2], 0.7 * np.eye(5, 3) / 3, atol=1e-15)
    assert not np.any([nuclear[3], spectral[3]])


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5,), ()])
def test_closed_forms(shape):
    x = RNG.normal(size=shape)
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
    soft, lowered, clipped, ball, cut, polar = map(np.asarray, jax.jit(nearest)(x))
    np.testing.assert_allclose(soft, build(np.maximum(s - t, 0)), atol=1e-14)
    np.testing.assert_allclose(clipped, build(np.minimum(s, t)), atol=1e-14)
    np.testing.assert_allclose(cut, build(np.where(np.arange(s.size) < 2, s, 0)), atol=1e-14)
    np.testing.assert_allclose(polar, build(np.ones_like(s)), atol=1e-14)
    # Moreau: what the prox of the one norm leaves is the projection on the ball of the other.
    np.testing.assert_allclose(x - lowered, ball, atol=1e-14)
    np.testing.assert_allclose(x - soft, clipped, atol=1e-14)


@pytest.mark.slow
def test_a_stack_is_a_loop():
    x, numbers = RNG.normal(size=(2, 3, 4, 5)), np.linspace(0.5, 2, 6).reshape(2, 3)

    @functools.partial(jax.jit, static_argnums=2)
    def answers(x, numbers, axis):
        found = {"Orthogonality": jr.Orthogonality(0.3, axis=-2).measure(x)}
        for cls in (jr.Nuclear, jr.SpectralNorm):
            pen = cls(numbers, axis=axis)
            found[cls.__name__] = pen.measure(x), pen.prox(x, 0.5)
        for cls in (jr.SpectralBall, jr.NuclearBall, jr.RankAtMost):
            con = cls(numbers, axis=axis)
            found[cls.__name__] = con.violation(x), con.project(x)
        return found

    together = answers(x, numbers, (-2, -1))
    loop = [answers(x[i, j], numbers[i, j], None) for i in range(2) for j in range(3)]
    for (path, a), *ones in zip(jax.tree.leaves_with_path(together), *map(jax.tree.leaves, loop), strict=True):
        np.testing.assert_allclose(a, np.reshape(ones, a.shape), atol=1e-13, err_msg=str(path))
    # The axes inside a group need not be the last.
    moved = jax.jit(lambda x: jr.Nuclear(numbers, (0, 1)).prox(x, 0.5))(x.transpose(2, 3, 0, 1))
    np.testing.assert_allclose(np.transpose(moved, (2, 3, 0, 1)), together["Nuclear"][1], atol=1e-14)


def test_a_convolution_is_a_matrix_with_its_outputs_as_columns():
    x = RNG.normal(size=(3, 2, 2, 4))

    @jax.jit
    def maps(x):
        inside = tuple(range(x.ndim - 1))
        return jr.Nuclear(0.5).prox(x, 1.0), jr.Orthonormal().violation(x), jr.Orthogonality(0.5, inside).measure(x)

    prox, *rest = maps(x)
    flat_prox, *flat_rest = maps(x.reshape(12, 4))
    np.testing.assert_array_equal(prox, np.reshape(flat_prox, x.shape))
    for a, b in zip(rest, flat_rest, strict=True):
        np.testing.assert_allclose(a, b)


def test_prox_without_strength_is_the_identity_and_with_enough_is_zero():
    x = RNG.normal(size=(7, 5)).astype(np.float32)
    values = np.linalg.svd(x)[1]

    @jax.jit
    @jax.vmap
    def proxes(lam):
        shrunk = jr.Nuclear(lam).prox(x, 1.0)
        return shrunk, jr.SpectralNorm(lam).prox(x, 1.0), jr.RankAtMost(2).violation(shrunk)

    strengths = np.array([0, *np.array([values[0], values.sum()]) * (1 + 1e-6), values[2]], np.float32)
    nuclear, spectral, violation = map(np.asarray, proxes(strengths))
    np.testing.assert_array_equal([nuclear[0], spectral[0]], [x, x])
    assert not np.any([nuclear[1], spectral[2]])
    assert violation[3] <= 0
    # On the kept part one step changes what it changes, and does not rebuild the rest from its singular vectors.
    sparse = np.diag([1e3, 1e-9, 0, 0])
    shrunk = jax.jit(lambda x: jr.Nuclear(1e-12).prox(x, 1.0))(sparse)
    assert np.asarray(shrunk)[1, 1] == pytest.approx(1e-9 - 1e-12, rel=1e-12)


certified = jax.jit(jax.vmap(lambda pen, x, g: pen.optimality(x, g), (None, None, 0)))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_optimality_certifies_and_refuses(rank):
    x = with_values([3.0, 3.0, 1.0][:rank], 6, 4)
    u, _, vt = np.linalg.svd(x, full_matrices=False)
    u1, v1, u0, v0 = u[:, :rank], vt[:rank].T, u[:, rank:], vt[rank:].T
    w = np.linalg.qr(RNG.normal(size=(4 - rank, 4 - rank)))[0]
    gradients = [-0.7 * (u1 @ v1.T + size * u0 @ w @ v0.T) for size in (0.0, 0.9, 1.0, 1.5)]
    *inside, outside, larger = np.asarray(certified(jr.Nuclear(0.7), x, np.stack([*gradients, -0.8 * u1 @ v1.T])))
    assert np.all(np.array(inside) <= 1e-14)
    assert min(outside, larger) > 0.01
    ties = min(rank, 2)
    m = np.diag([0.3, 0.7]) if ties == 2 else np.eye(1)
    turn = np.linalg.qr(RNG.normal(size=(ties, ties)))[0]
    g = -0.7 * u[:, :ties] @ turn @ m @ turn.T @ vt[:ties]
    inside, larger, opposite = np.asarray(certified(jr.SpectralNorm(0.7), x, np.stack([g, 1.1 * g, -g])))
    assert inside <= 1e-14
    assert min(larger, opposite) > 0.01


@jax.jit
def truncated(rank, x):
    return jr.RankAtMost(rank).project(x), jr.RankAtMost(rank).violation(x)


def test_truncation_is_the_nearest_of_its_rank():
    x = RNG.normal(size=(6, 4))
    cut = {rank: np.asarray(truncated(rank, x)[0]) for rank in (0, 2, 4)}
    best = np.sum((x - cut[2]) ** 2)
    assert best == pytest.approx(np.sum(np.linalg.svd(x)[1][2:] ** 2))
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    for _ in range(50):
        left = u[:, :2] * s[:2] + 0.1 * RNG.normal(size=(6, 2))
        right = vt[:2] + 0.1 * RNG.normal(size=(2, 4))
        assert np.sum((x - left @ right) ** 2) >= best
    np.testing.assert_array_equal(cut[4], x)
    assert not np.any(cut[0])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
@pytest.mark.parametrize("shape", [(40, 30), (20, 90), (3, 2)])
def test_truncations_have_their_rank(dtype, shape):
    for seed in range(5):
        x = (np.random.default_rng(seed).normal(size=shape) * 10.0**seed).astype(dtype)
        for rank in (1, 2, 10):
            p, _ = truncated(rank, x)
            again, violation = truncated(rank, p)
            assert float(violation) == min(rank, *shape) - rank
            np.testing.assert_array_equal(again, p)


def test_polar_factor_solves_procrustes():
    @jax.jit
    @jax.vmap
    def polar(x):
        p = jr.Orthonormal().project(x)
        return p, jr.Orthonormal().violation(p)

    for shape in SHAPES.values():
        x = RNG.normal(size=shape)
        u, _, vt = np.linalg.svd(x, full_matrices=False)
        around = u @ vt + 0.3 * RNG.normal(size=(50, *shape))
        (p, *others), violation = map(np.asarray, polar(np.stack([x, *degenerate(*shape).values(), *around])))
        assert np.all(violation[:-50] <= 1e-14)
        best = np.sum((x - p) ** 2)
        assert np.all(np.sum((x - others) ** 2, (1, 2)) >= best - 1e-12)


@pytest.mark.parametrize(("mode", "axis"), [("columns", 0), pytest.param("rows", 1, marks=pytest.mark.slow)])
def test_cosine_form_equals_keras(mode, axis, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras")
    pen, theirs = jr.Orthogonality(0.3, axis=axis, cosine=True), keras.regularizers.OrthogonalRegularizer(0.3, mode)
    x = RNG.normal(size=(5, 4)).astype(np.float32)
    zero_unit = x.copy()
    zero_unit[1] = zero_unit[:, 2] = 0
    single = x[:, :1] if axis == 0 else x[:1]
    both = jax.jit(lambda *ws: [[jax.value_and_grad(f)(w) for f in (pen.value, theirs)] for w in ws])
    answers = both(x, zero_unit, single)
    for w, ((value, slope), (expected, _)) in zip((x, zero_unit), answers, strict=False):
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        assert np.all(np.isfinite(slope))
        assert not np.any(np.where(np.any(w != 0, axis, keepdims=True), 0, slope))
    (_, slope), (_, expected) = answers[0]
    np.testing.assert_allclose(slope, expected, atol=1e-6)
    value, slope = answers[2][0]
    assert float(value) == 0
    assert not np.any(slope)


def test_orthogonality_is_the_frobenius_distance():
    x = RNG.normal(size=(5, 3))
    nouns = jax.jit(
        lambda x: [jr.Orthogonality(0.5, axis).value(x) for axis in (0, 1)] + [jr.Orthonormal().violation(x)]
    )
    columns, rows, violation = map(float, nouns(x))
    expected = np.linalg.norm(x.T @ x - np.eye(3)) ** 2
    assert columns == pytest.approx(0.5 * expected)
    assert violation**2 == pytest.approx(expected)
    assert rows == pytest.approx(0.5 * np.linalg.norm(x @ x.T - np.eye(5)) ** 2)


def test_one_bad_matrix_leaves_the_stack_alone():
    x = RNG.normal(size=(3, 4, 2))
    x[1, 0, 0] = np.nan

    @jax.jit
    def maps(x):
        numbers = jr.Nuclear(0.5, (1, 2)).measure(x), jr.SpectralBall(0.5, (1, 2)).violation(x)
        return numbers, (jr.SpectralNorm(0.5, (1, 2)).prox(x, 1.0), jr.Orthonormal((1, 2)).project(x))

    numbers, moved = maps(x)
    for number in numbers:
        np.testing.assert_array_equal(np.isnan(number), [False, True, False])
    for bad in map(np.isnan, moved):
        assert bad.all((1, 2)).tolist() == bad.any((1, 2)).tolist() == [False, True, False]
