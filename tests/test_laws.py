"""The laws, over the table of all members."""

import dataclasses
import functools
import inspect
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from table import CONSTRAINTS, PENALTIES, cases, per_weight

import jaxreg as jr
from jaxreg.penalties.grouped import Radial
from jaxreg.penalties.separable import Separable

all_penalties = pytest.mark.parametrize("case", cases(PENALTIES))
proximable = pytest.mark.parametrize("case", cases(PENALTIES, lambda r: r.exact))
certified = pytest.mark.parametrize("case", cases(PENALTIES, lambda r: r.exact and "optimality" not in r.lacks))
scaled_to_zero = pytest.mark.parametrize("case", cases(PENALTIES, lambda r: r.exact and "critical" not in r.lacks))
convex_penalties = pytest.mark.parametrize("case", cases(PENALTIES, lambda r: r.exact and r.convex))
all_constraints = pytest.mark.parametrize("case", cases(CONSTRAINTS))
projectable = pytest.mark.parametrize("case", cases(CONSTRAINTS, lambda r: r.exact))
convex_constraints = pytest.mark.parametrize("case", cases(CONSTRAINTS, lambda r: r.exact and r.convex))


def wide(x):
    return np.asarray(x).astype(np.float64)


def assert_ulps(a, b, case, ulps=4, scale=1e-30):
    """Equal up to `ulps` at the magnitude of the largest entry, or at `scale` where terms of that size cancel."""
    dtypes = (jnp.result_type(a), jnp.promote_types(case.dtype, jnp.float32))
    eps = max(float(jnp.finfo(dtype).eps) for dtype in dtypes)
    a, b = wide(a), wide(b)
    np.testing.assert_allclose(a, b, rtol=0, atol=ulps * eps * max(scale, np.abs(b).max(initial=0)))


@functools.partial(jax.jit, static_argnums=1)
def do(noun, method, *arguments):
    """A method of a noun; laws on the same leaf share the program."""
    return getattr(noun, method)(*arguments)


def subclasses(cls):
    found = {c for s in cls.__subclasses__() for c in {s, *subclasses(s)} if c.__module__.startswith("jaxreg.")}
    named = {c for c in found if getattr(sys.modules[c.__module__], c.__name__, None) is c}  # not the docs' examples
    return {c for c in named if not inspect.isabstract(c)}


def test_every_class_has_a_row():
    for base, rows in ((jr.Penalty, PENALTIES), (jr.Constraint, CONSTRAINTS)):
        assert {type(row.noun((4, 3))) for row in rows} == subclasses(base)


def test_rows_tell_the_truth_about_exactness():
    for row in PENALTIES:
        assert row.noun((4, 3)).proximable == row.exact
        assert hasattr(row.noun((4, 3)), "critical") == (row.exact and "critical" not in row.lacks)
    for row in CONSTRAINTS:
        assert row.noun((4, 3)).projectable == row.exact


def test_structures_tell_classes_and_axes_apart():
    # Equal structures are one entry in jit's cache: the program of the one would run for the other.
    nouns = [row.noun((4, 3)) for row in [*PENALTIES, *CONSTRAINTS]]
    for a in nouns:
        for b in nouns:
            same = repr(jax.tree.structure(a)) == repr(jax.tree.structure(b))
            assert (jax.tree.structure(a) == jax.tree.structure(b)) == same
            if same:
                assert type(a) is type(b)
                assert hash(jax.tree.structure(a)) == hash(jax.tree.structure(b))


def test_gradients_have_the_type_of_the_noun_and_may_be_negative():
    slope = jax.grad(lambda pen: -pen.value(jnp.ones(3)))(jr.SquaredL2(0.1, axis=0))
    assert isinstance(slope, jr.SquaredL2)
    assert jax.tree.map(float, slope).lam == -1.5
    assert slope.axis == (0,)
    with pytest.raises(ValueError, match="`SquaredL2` needs `lam` >= 0"):
        dataclasses.replace(slope, lam=-1.0)


@pytest.mark.parametrize("row", [*PENALTIES, *CONSTRAINTS], ids=str)
def test_is_a_frozen_pytree_without_call(row):
    noun = row.noun((4, 3))
    leaves, structure = jax.tree.flatten(noun)
    assert jax.tree.structure(jax.tree.unflatten(structure, leaves)) == structure
    jax.tree.map(lambda _: object(), noun)  # placeholders pass
    assert not callable(noun)
    with pytest.raises(dataclasses.FrozenInstanceError):
        noun.anything = 1


@pytest.mark.slow
@pytest.mark.parametrize("row", [*PENALTIES, *CONSTRAINTS], ids=str)
def test_derivatives_away_from_kinks(row):
    # Forward and reverse, in the weights and in the numbers of the noun, against finite differences; twice for values.
    shape, rng = (4, 3), np.random.default_rng(70)
    x = jnp.asarray(rng.normal(size=shape) * 1.5)

    def methods(x, number):
        noun = row.make(shape, number)
        if isinstance(noun, jr.Constraint):
            return (noun.violation(x), *([noun.project(x)] if row.exact else []))
        return (noun.value(x), *([noun.prox(x, 0.8)] if row.exact else []))

    number = jnp.asarray(row.strength(shape), float)
    number = number + 0.01 * rng.random(number.shape)  # strengths that tie are a kink of `Slope`
    check_grads(jax.jit(methods), (x, number), order=1, atol=1e-6, rtol=1e-6, eps=1e-6)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(methods(x, number)[0])))
    check_grads(slope, (x,), order=1, modes=("fwd",), atol=1e-6, rtol=1e-6, eps=1e-6)


# ------------------------------------------------------------------ penalties


@all_penalties
def test_measure_and_value(case):
    x = case.draw(0)
    measure = do(case.noun, "measure", x)
    axis = case.noun.axis
    groups = () if axis is None else tuple(n for i, n in enumerate(x.shape) if i not in axis)
    chex.assert_shape(measure, groups)
    assert measure.dtype == jnp.promote_types(case.dtype, jnp.float32)
    value = do(case.noun, "value", x)
    chex.assert_shape(value, ())
    assert_ulps(value, np.sum(wide(measure)), case)
    assert np.all(wide(measure) >= 0)
    if x.size:
        assert wide(do(case.noun, "value", case.origin)) == 0


@proximable
def test_prox_keeps_dtype_and_shape(case):
    x = case.draw(1)
    p = do(case.noun, "prox", x, 0.5)
    assert p.dtype == x.dtype
    assert p.shape == x.shape


@proximable
def test_prox_is_the_minimiser(case):
    x, step, noun = wide(case.draw(2)), 0.8, case.noun
    p = wide(do(noun, "prox", jnp.asarray(x, case.dtype), step))

    def objective(z):
        return 0.5 * jnp.sum(jnp.square(z - x)) + step * do(noun, "value", z)

    best = float(objective(p))
    slack = 8 * case.eps * (best + np.sum(x**2))
    rng = np.random.default_rng(3)
    candidates = [p + scale * rng.normal(size=x.shape) for scale in (1e-3, 1e-2, 0.1, 1) for _ in range(8)]
    candidates += [np.zeros_like(x), x, 0.5 * (p + x)]
    # one entry at a time, for minima far from p
    for i in np.ndindex(x.shape):
        for z in (0.0, x[i], 0.5 * x[i], x[i] - np.sign(x[i]) * step * 0.7):
            candidates.append(np.array(p))
            candidates[-1][i] = z
    polish = jax.jit(lambda z: jax.lax.fori_loop(0, 200, lambda i, z: z - 0.3 / (1 + i) * jax.grad(objective)(z), z))
    candidates.append(polish(candidates[0]))
    assert np.min(jax.jit(jax.vmap(objective))(jnp.stack([jnp.asarray(z) for z in candidates]))) >= best - slack


@certified
def test_prox_solves_the_inclusion(case):
    # 0 ∈ (p − x)/step + ∂value(p)
    x, step = case.draw(4), 0.8
    x = x.astype(jnp.float64)
    p = jax.jit(case.noun.prox)(x, step)
    assert float(jax.jit(case.noun.optimality)(p, (p - x) / step)) <= 1e-13


@convex_penalties
def test_prox_is_firmly_nonexpansive(case):
    x, y = case.draw(5), case.draw(6)
    difference = wide(do(case.noun, "prox", x, 0.8)) - wide(do(case.noun, "prox", y, 0.8))
    distance = wide(x) - wide(y)
    assert np.sum(difference**2) <= np.sum(difference * distance) + 8 * case.eps * np.sum(distance**2)


@convex_penalties
def test_gradient_of_the_moreau_envelope(case):
    x, step, noun = case.draw(7).astype(jnp.float64), 0.8, case.noun

    def envelope(x):
        p = noun.prox(x, step)
        return jnp.sum(jnp.square(x - p)) / (2 * step) + noun.value(p)

    np.testing.assert_allclose(jax.jit(jax.grad(envelope))(x), (x - noun.prox(x, step)) / step, atol=1e-12)


@certified
def test_optimality_is_zero_at_solutions_and_not_elsewhere(case):
    x, noun = case.draw(8), case.noun
    x = jnp.where(x == 0, jnp.asarray(1, x.dtype), x) + case.origin  # off the kinks the gradient is the subdifferential
    g = -jax.jit(jax.grad(noun.value))(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
    assert float(do(noun, "optimality", x, g)) <= 4 * float(jnp.finfo(g.dtype).eps) * (
        1 + float(jnp.max(jnp.abs(g), initial=0))
    )
    if x.size:
        off = float(do(noun, "optimality", x, g + jnp.asarray(0.25, g.dtype)))
        assert off == pytest.approx(0.25, rel=1e-5)


@scaled_to_zero
def test_critical_is_where_zero_starts_to_solve(case):
    g = case.draw(9).astype(jnp.float64)
    noun, zero = case.noun, jnp.zeros(case.shape)
    factor = float(do(noun, "critical", g))
    name = "lams" if hasattr(noun, "lams") else "lam"
    lam = getattr(noun, name)

    def at(factor):
        scaled = factor if jnp.ndim(lam) == 0 else factor * lam
        return float(do(dataclasses.replace(noun, **{name: scaled}), "optimality", zero, g))

    if factor == 0:  # nothing pulls, or no pull moves a weight off 0
        assert at(1e-12) <= 1e-9
    elif np.isinf(factor):
        assert at(1e6) > 0.01
    else:
        assert at(factor * (1 + 1e-12)) <= 1e-12
        assert at(factor * 0.99) > 1e-4
    assert float(do(noun, "critical", zero)) == 0


@all_penalties
def test_penalty_gradients_are_finite_at_kinks(case):
    origin = case.origin
    gradient, jacobian = jax.jit(jax.grad(case.noun.value)), jax.jit(jax.jacobian(lambda x: case.noun.prox(x, 0.8)))
    for x in (origin, origin + _zero_column(case)):
        slope = gradient(x)
        assert np.all(np.isfinite(wide(slope)))
        if x is origin:
            assert not np.any(wide(slope))
        elif isinstance(case.noun, Separable | Radial | jr.SparseGroup):  # a kink's designed slope
            assert not np.any(wide(slope)[wide(x) == 0])
        if case.row.exact:
            assert np.all(np.isfinite(wide(jacobian(x))))


def _zero_column(case):
    if not np.prod(case.shape):
        return case.draw(10)
    return case.draw(10).at[..., 0].set(0)


METHODS = {
    "value": lambda noun, x, g: noun.value(x),
    "measure": lambda noun, x, g: noun.measure(x),
    "prox": lambda noun, x, g: noun.prox(x, 0.8),
    "optimality": lambda noun, x, g: noun.optimality(x, g),
    "critical": lambda noun, x, g: noun.critical(g),
}


@proximable
def test_penalty_jit_is_eager_and_vmap_is_a_loop(case):
    x, g = case.draw(11), case.draw(14)
    factors = jnp.asarray([0.0, 0.5, 1.0, 3.0])

    def scaled(factor):
        return case.row.make(case.shape, factor * case.row.strength(case.shape))

    def everything(factor, x, g):  # one program for all methods: compiling is what takes the time
        return {k: f(scaled(factor), x, g) for k, f in METHODS.items() if k not in case.row.lacks}

    program = jax.jit(everything)
    with jax.numpy_dtype_promotion("strict"):
        eager, jitted = everything(factors[2], x, g), program(factors[2], x, g)
    batch = jax.jit(jax.vmap(everything, (0, None, None)))(factors, x, g)
    for name in eager:
        scale = 1 if name in ("prox", "optimality") else 1e-30  # differences of numbers of order 1
        assert_ulps(jitted[name], eager[name], case, scale=scale)
        for i, factor in enumerate(factors):
            if name == "critical" and case.row.name.endswith("weight") and factor == 0:
                continue  # no factor on 0 is enough: inf = inf
            assert_ulps(batch[name][i], program(factor, x, g)[name], case, scale=scale)


@proximable
def test_derivative_in_lam(case):
    x = case.draw(12).astype(jnp.float64)

    for method in (lambda n, x: n.value(x), lambda n, x: jnp.sum(jnp.sin(n.prox(x, 0.8)))):

        @jax.jit
        def f(factor, method=method):
            return method(case.row.make(case.shape, factor * case.row.strength(case.shape)), x)

        h, slope = 1e-6, jax.jit(jax.grad(f))
        np.testing.assert_allclose(slope(1.0), (f(1 + h) - f(1 - h)) / (2 * h), atol=1e-7, rtol=1e-7)
        # At λ = 0 the derivative is one-sided, and is not lost.
        np.testing.assert_allclose(slope(0.0), (f(1e-9) - f(0.0)) / 1e-9, atol=3e-5)


@all_penalties
def test_zero_strength_ignores_infinite_weights(case):
    x = case.draw(13)
    if not x.size:
        return
    x = x.at[(0,) * x.ndim].set(jnp.inf)

    def results(lam):
        noun = case.row.make(case.shape, lam * jnp.ones_like(case.row.strength(case.shape)))
        prox = noun.prox(x, 0.8) if case.row.exact else x
        return noun.value(x), jax.grad(noun.value)(x), prox

    def derivative(lam):
        return jax.grad(lambda lam: results(lam)[0])(lam)

    literal, traced = jax.jit(lambda: results(0.0))(), jax.jit(lambda lam: (*results(lam), derivative(lam)))(0.0)
    for value, slope, prox, *_ in (literal, traced):
        assert float(value) == 0
        assert not np.any(wide(slope))
        np.testing.assert_array_equal(wide(prox), wide(x))
    assert np.isfinite(traced[3])
    if x.size > 1:
        linear = case.noun.homogeneous
        h = 1.0 if linear else 1e-6  # the others have their value flat by then, or are sums
        others = case.row.make(case.shape, h * jnp.ones_like(case.row.strength(case.shape)))
        tolerance = {"rtol": 8 * float(jnp.finfo(jnp.float32).eps)} if linear else {"rtol": 1e-5, "atol": 1e-4}
        finite = jnp.where(jnp.isinf(x), case.origin if isinstance(others, jr.Towards) else 0, x)
        np.testing.assert_allclose(traced[3], jax.jit(others.value)(finite) / h, **tolerance)


@all_penalties
def test_nan_stays_visible_in_penalties(case):
    x = case.draw(15)
    if not x.size or not np.all(np.asarray(case.row.strength(case.shape))):
        return
    bad = x.at[(-1,) * x.ndim].set(jnp.nan)
    zero = jnp.zeros_like(x)
    assert np.isnan(do(case.noun, "value", bad))
    if case.row.exact:
        assert np.isnan(wide(do(case.noun, "prox", bad, 0.8))[(-1,) * x.ndim])
        if "optimality" not in case.row.lacks:
            assert np.isnan(do(case.noun, "optimality", bad, zero))
            assert np.isnan(do(case.noun, "optimality", zero, bad))
        if "critical" not in case.row.lacks:
            assert not np.isfinite(do(case.noun, "critical", bad))


@proximable
def test_infinite_strength_and_no_step(case):
    x = case.draw(16)
    noun = case.row.make(case.shape, jnp.full_like(case.row.strength(case.shape), jnp.inf))
    limit = case.row.strongest(x) if case.row.strongest else case.origin
    np.testing.assert_allclose(
        wide(do(noun, "prox", x, 0.8)), wide(limit), atol=8 * case.eps if case.row.strongest else 0, rtol=0
    )
    np.testing.assert_array_equal(wide(do(noun, "prox", x, 0.0)), wide(x))
    assert float(do(noun, "value", case.origin)) == 0


@pytest.mark.parametrize("case", cases(PENALTIES, lambda r: r.exact and "optimality" not in r.lacks))
def test_optimality_is_differentiable(case):
    x, g = jnp.zeros(case.shape), case.draw(17).astype(jnp.float64) * 3
    f = jax.jit(lambda g: do(case.noun, "optimality", x, g))
    h, direction = 1e-6, case.draw(18).astype(jnp.float64)
    expected = (f(g + h * direction) - f(g - h * direction)) / (2 * h)
    np.testing.assert_allclose(jnp.sum(jax.jit(jax.grad(f))(g) * direction), expected, atol=1e-6)


# ------------------------------------------------------------------ constraints


@projectable
def test_nan_and_infinity_stay_visible_in_projections(case):
    x = case.draw(19)
    if not x.size:
        return
    for value in (jnp.nan, jnp.inf):
        bad = x.at[(-1,) * x.ndim].set(value)
        entry = wide(do(case.noun, "project", bad))[(-1,) * x.ndim]
        if np.isnan(value):
            assert np.isnan(entry)
            assert np.any(np.isnan(wide(do(case.noun, "violation", bad)))) or case.row.number is per_weight
        elif not any(word in case.row.name for word in ("Box", "Linf", "weight")):
            assert not np.isfinite(entry)


@all_constraints
def test_violation(case):
    x = case.draw(20)
    v = do(case.noun, "violation", x)
    inner = getattr(case.noun, "penalty", getattr(case.noun, "constraint", case.noun))
    axis = getattr(inner, "axis", ())
    groups = () if axis is None else tuple(n for i, n in enumerate(x.shape) if i not in axis)
    chex.assert_shape(v, groups)
    assert v.dtype == jnp.promote_types(case.dtype, jnp.float32)
    pull = jax.jit(jax.grad(lambda x: jnp.sum(case.noun.violation(x))))
    for point in (x, jnp.zeros_like(x), _zero_column(case)):
        slope = pull(point)
        assert np.all(np.isfinite(wide(slope)))


@projectable
def test_projection_is_idempotent_and_lands_inside(case):
    for scale in (0.1, 1.5, 1e3):
        x = case.draw(21, scale)
        p = do(case.noun, "project", x)
        assert p.dtype == x.dtype
        assert p.shape == x.shape
        size = 1 + max(np.abs(wide(p)).sum(), 1)
        off = wide(do(case.noun, "violation", p))
        if not case.row.convex:  # a zero group may have no nearest point, and stays
            off = np.where(np.any(wide(x), getattr(case.noun, "axis", ())), off, 0)
        if x.size:
            assert np.all(off <= 8 * case.eps * size)
        np.testing.assert_allclose(
            wide(do(case.noun, "project", p)),
            wide(p),
            atol=4 * case.eps * max(1, np.abs(wide(p)).max(initial=0)),
            rtol=0,
        )


@projectable
def test_projection_is_bitwise_identity_inside(case):
    for scale in (1e-3, 0.05, 0.3, 1.0):
        x = case.draw(22, scale)
        if scale == 1e-3 and case.row.member:
            x = jnp.asarray(case.row.member(case.shape, case.row.strength(case.shape)), case.dtype)
        elif type(case.noun) is jr.NonNegative:
            x = jnp.abs(x)
        x = x.at[(-1,) * x.ndim].set(-0.0) if x.size and x.shape[0] > 1 else x
        inside = wide(do(case.noun, "violation", x)) <= 0
        axis = getattr(getattr(case.noun, "penalty", case.noun), "axis", ())
        axis = tuple(range(x.ndim)) if axis is None else axis
        inside = np.broadcast_to(np.expand_dims(inside, axis), x.shape)
        bits = np.dtype(f"u{x.dtype.itemsize}")
        np.testing.assert_array_equal(
            np.asarray(do(case.noun, "project", x)).view(bits)[inside], np.asarray(x).view(bits)[inside]
        )
        if scale == 1e-3:  # the test tests something
            assert inside.sum() >= 0.5 * x.size


@projectable
def test_projection_is_nearest(case):
    # No member is nearer; where the set is convex, ⟨x − p, y − p⟩ ≤ 0 for every y in it.
    x = case.draw(23)
    p, x = wide(do(case.noun, "project", x)), wide(x)
    others = jnp.stack([case.draw(30 + seed, scale=0.2 * (1 + seed)).astype(jnp.float64) for seed in range(30)])
    slack = 16 * case.eps * (1 + np.abs(x).sum()) * (1 + np.abs(p).sum())
    for y in wide(jax.jit(jax.vmap(case.noun.project))(others)):
        assert np.sum(np.square(x - p)) <= np.sum(np.square(x - y)) + slack
        assert np.sum((x - p) * (y - p)) <= slack or not case.row.convex


@convex_constraints
def test_projection_is_firmly_nonexpansive(case):
    x, y = case.draw(24), case.draw(25)
    difference = wide(do(case.noun, "project", x)) - wide(do(case.noun, "project", y))
    distance = wide(x) - wide(y)
    assert np.sum(difference**2) <= np.sum(difference * distance) + 8 * case.eps * np.sum(distance**2)


@projectable
def test_projection_gradients_are_finite_everywhere(case):
    def both(x, number):
        noun = case.row.make(case.shape, number)
        return noun.project(x), noun.violation(x)

    slopes = jax.jit(jax.jacobian(both, (0, 1)))
    for factor in (1, 0):
        number = factor * jnp.asarray(case.row.strength(case.shape), float)
        for x in (jnp.zeros(case.shape, case.dtype), _zero_column(case), case.draw(26)):
            for slope in jax.tree.leaves(slopes(x, number)):
                assert np.all(np.isfinite(wide(slope)))


@projectable
def test_constraint_jit_is_eager_and_vmap_is_a_loop(case):
    x = case.draw(27)
    factors = jnp.asarray([0.0, 0.5, 1.0, 3.0, jnp.inf])

    def scaled(factor):
        number = case.row.strength(case.shape)
        return case.row.make(case.shape, factor * jnp.where(number == 0, 1.0, number))

    def both(factor, x):
        return scaled(factor).project(x), scaled(factor).violation(x)

    program = jax.jit(both)
    with jax.numpy_dtype_promotion("strict"):
        eager, jitted = both(factors[2], x), program(factors[2], x)
    for a, b in zip(jitted, eager, strict=True):
        assert_ulps(a, b, case, scale=1)
    batch = jax.jit(jax.vmap(both, (0, None)))(factors, x)
    for i, factor in enumerate(factors):
        for result, expected in zip((batch[0][i], batch[1][i]), program(factor, x), strict=True):
            finite = np.isfinite(wide(expected))
            np.testing.assert_array_equal(wide(result)[~finite], wide(expected)[~finite])
            assert_ulps(wide(result)[finite], wide(expected)[finite], case, scale=1)


@projectable
def test_derivative_in_bound(case):
    x = case.draw(28).astype(jnp.float64)

    for method in (lambda n, x: n.violation(x), lambda n, x: n.project(x)):

        @jax.jit
        def f(factor, method=method):
            return jnp.sum(jnp.sin(method(case.row.make(case.shape, factor * case.row.strength(case.shape)), x)))

        h = 1e-6
        np.testing.assert_allclose(jax.jit(jax.grad(f))(1.0), (f(1 + h) - f(1 - h)) / (2 * h), atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("case", cases(CONSTRAINTS, lambda r: r.exact and "Ball" in r.name))
def test_radius_zero_and_infinity(case):
    x = case.draw(29)
    if not x.size:
        return
    x = x.at[..., -1].set(jnp.inf)
    unbounded = case.row.make(case.shape, jnp.full_like(case.row.strength(case.shape), jnp.inf))
    np.testing.assert_array_equal(wide(do(unbounded, "project", x)), wide(x))
    assert np.all(wide(do(unbounded, "violation", x)) == -np.inf)
    x = case.draw(29)
    point = case.row.make(case.shape, np.zeros_like(case.row.strength(case.shape)))
    assert not np.any(wide(do(point, "project", x)))
