"""The laws of penalties, over the table of all members.

Compiling takes the time here. So a few programs compute what all the laws of a case need, and each law judges the
numbers in NumPy.
"""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from table import PENALTIES, assert_ulps, cases, in_lanes, on_one_cell, wide

import jaxreg as jr
from jaxreg.penalties.grouped import Radial
from jaxreg.penalties.separable import Separable

all_penalties = pytest.mark.parametrize("case", cases(PENALTIES))
proximable = pytest.mark.parametrize("case", cases(PENALTIES, lambda r: r.exact))
certified = pytest.mark.parametrize("case", cases(PENALTIES, lambda r: r.exact and "optimality" not in r.lacks))
scaled_to_zero = pytest.mark.parametrize("case", cases(PENALTIES, lambda r: r.exact and "critical" not in r.lacks))
convex_penalties = pytest.mark.parametrize("case", cases(PENALTIES, lambda r: r.exact and r.convex))

STEP, H = 0.8, 1e-6
FACTORS = (0.0, 0.5, 1.0, 3.0)


def everything(case, solutions=True):
    """What all methods say of (strength, x, g, step); `optimality` at g, and where x is a solution, and off it."""
    row, arithmetic = case.row, case.arithmetic

    def methods(number, x, g, step):
        noun = row.make(case.shape, number)
        slope = jax.grad(noun.value)(x.astype(arithmetic))
        out = {"measure": noun.measure(x), "value": noun.value(x), "slope": slope}
        if row.exact:
            out["prox"] = noun.prox(x, step)
            if "optimality" not in row.lacks:
                pulls = jnp.stack([g.astype(slope.dtype), -slope, 0.25 - slope]) if solutions else g
                at = lambda g: noun.optimality(x, g)
                out["optimality"] = jax.vmap(at)(pulls) if solutions else at(g)
            if "critical" not in row.lacks:
                out["critical"] = noun.critical(g)
        return out

    return methods


def filled(case, number):
    """A strength of the row's shape that is `number` everywhere."""
    return np.full_like(np.asarray(case.row.strength(case.shape), float), number)


def lanes(case):
    """name -> the arguments of `everything`, in the dtype of the leaf."""
    draw, own = case.draw, np.asarray(case.row.strength(case.shape), float)
    g, zero, bad = draw(14), np.zeros(case.shape, case.dtype), case.spoiled(15, -1, np.nan)
    off_kinks = draw(8)
    off_kinks[off_kinks == 0] = 1
    off_kinks += case.origin
    return {
        "plain": (own, draw(0), g, STEP),
        "origin": (own, case.origin, zero, STEP),
        "kinks": (own, case.origin + case.zero_column(), g, STEP),
        "half a step": (own, draw(1), g, 0.5),
        "a step": (own, draw(2), g, STEP),
        "one": (own, draw(5), g, STEP),
        "other": (own, draw(6), g, STEP),
        "off kinks": (own, off_kinks, g, STEP),
        "no strength": (filled(case, 0), case.spoiled(13, 0, np.inf), g, STEP),
        "nan": (own, bad, bad, STEP),
        "nan pulls": (own, zero, bad, STEP),
        "infinite": (filled(case, np.inf), draw(16), g, STEP),
        "infinite origin": (filled(case, np.inf), case.origin, g, STEP),
        "no step": (filled(case, np.inf), draw(16), g, 0.0),
        **{f"times {factor}": (factor * own, draw(11), g, STEP) for factor in FACTORS},
    }


@functools.cache
def answers(case):
    """name -> what all methods say there, out of one program."""
    return in_lanes(everything(case), lanes(case))


@functools.cache
def exact(case):
    """Minima, identities and derivatives, computed in float64 out of one program.

    What is computed at several points is computed in lanes: each further call of a method would be compiled as well.
    """
    row, noun, number = case.row, case.noun, np.asarray(case.row.strength(case.shape), float)
    draw = lambda seed: jnp.asarray(wide(case.draw(seed)))
    make = lambda factor: row.make(case.shape, factor * number)
    zero = np.zeros(case.shape)
    certified = row.exact and "optimality" not in row.lacks

    def minimum(p):
        x, rng = draw(2), np.random.default_rng(3)

        def objective(z):
            return 0.5 * jnp.sum(jnp.square(z - x)) + STEP * noun.value(z)

        others = [p + scale * rng.normal(size=x.shape) for scale in (1e-3, 1e-2, 0.1, 1) for _ in range(8)]
        descend = lambda i, z: z - 0.3 / (1 + i) * jax.grad(objective)(z)
        others += [zero, x, 0.5 * (p + x), jax.lax.fori_loop(0, 200, descend, others[0])]
        # one entry at a time, for minima far from p
        entry = jnp.eye(x.size, dtype=bool).reshape(x.size, *x.shape)
        for z in (0.0, x, 0.5 * x, x - jnp.sign(x) * STEP * 0.7):
            others += [*jnp.where(entry, z, p)]
        values = jax.vmap(objective)(jnp.stack([p, *others]))
        return values[0], jnp.sum(x**2), values[1:]

    def steps():
        """Of each lane: p = prox(x), values at x and p, and derivatives in x and in the strength."""
        lanes = [(1.0, draw(4)), (1.0, draw(7)), *((factor, draw(12)) for factor in (1.0, 1 + H, 1 - H, 0.0, 1e-9))]
        factors, points = (jnp.stack(column) for column in zip(*lanes, strict=True))

        def lane(factor, x):
            p, pull = jax.vjp(lambda factor, x: make(factor).prox(x, STEP), factor, x)
            value = jax.value_and_grad(lambda factor, x: make(factor).value(x), (0, 1))
            values, (in_lam, slopes) = jax.vmap(value, (None, 0))(factor, jnp.stack([x, p]))
            envelope = (x - p) / STEP + pull(slopes[1] - (x - p) / STEP)[1]
            return {
                "prox": p,
                "envelope": envelope,
                "residual": (x - p) / STEP,
                "in lam": jnp.stack([in_lam[0], pull(jnp.cos(p))[0]]),
                "values": jnp.stack([values[0], jnp.sum(jnp.sin(p))]),
            }

        return jax.vmap(lane)(factors, points)

    def solutions(stepped):
        """`optimality` of the prox; its derivative at 0; and at 0 about the critical strength."""
        g, way, name = 3 * draw(17), draw(18), "lams" if hasattr(noun, "lams") else "lam"
        own, build, found = jnp.ones(()), make, {}
        lanes = [(own, stepped["prox"][0], -stepped["residual"][0])]
        lanes += [(own, zero, pull) for pull in (g, g + H * way, g - H * way)]
        if "critical" not in row.lacks:
            leaf = jnp.asarray(getattr(noun, name), float)
            build = lambda leaf: dataclasses.replace(noun, **{name: leaf})
            factor, found["of nothing"] = jax.vmap(noun.critical)(jnp.stack([draw(9), zero]))
            unit = jnp.ones(()) if leaf.ndim == 0 else leaf
            lanes = [(leaf, *points) for _, *points in lanes]
            lanes += [(tried * unit, zero, draw(9)) for tried in (factor * (1 + 1e-12), factor * 0.99, 1e-12, 1e6)]
            found["factor"] = factor
        at = jax.value_and_grad(lambda g, leaf, x: build(leaf).optimality(x, g))
        leaves, points, pulls = (jnp.stack(column) for column in zip(*lanes, strict=True))
        values, slopes = jax.vmap(at)(pulls, leaves, points)
        return found | {"values": values, "along": jnp.sum(slopes[1] * way)}

    def kinks():
        points = jnp.stack([case.origin, case.origin + case.zero_column()])
        dense = np.asarray(np.random.default_rng(0).uniform(0.5, 1, case.shape), case.dtype)
        return jax.vmap(lambda x: jax.vjp(lambda x: noun.prox(x, STEP), x)[1](dense)[0])(points)

    def at_zero_strength():
        x, ones = case.spoiled(13, 0, np.inf), np.ones_like(number)
        finite = np.where(np.isinf(x), case.origin if isinstance(noun, jr.Towards) else 0, x)
        # those that are not linear in λ have their value flat by then, or are sums
        rise = 1.0 if noun.homogeneous else H
        at = jax.vmap(jax.value_and_grad(lambda lam, x: row.make(case.shape, lam * ones).value(x)))
        values, slopes = at(jnp.array([0.0, rise]), jnp.stack([x, finite]))
        return slopes[0], values[1] / rise

    @jax.jit
    def program(p):
        found = {"at zero strength": at_zero_strength()}
        if row.exact:
            found |= {"minimum": minimum(p), "steps": steps(), "kinks": kinks()}
        return found | ({"solutions": solutions(found["steps"])} if certified else {})

    p = answers(case)["a step"]["prox"].astype(np.float64) if row.exact else None
    return jax.tree.map(np.asarray, program(p))


# ------------------------------------------------------------------ values


@all_penalties
def test_measure_and_value(case):
    found = answers(case)["plain"]
    axis = case.noun.axis
    groups = () if axis is None else tuple(n for i, n in enumerate(case.shape) if i not in axis)
    chex.assert_shape(found["measure"], groups)
    assert found["measure"].dtype == case.arithmetic
    chex.assert_shape(found["value"], ())
    assert_ulps(found["value"], np.sum(wide(found["measure"])), case)
    assert np.all(wide(found["measure"]) >= 0)
    if np.prod(case.shape):
        assert wide(answers(case)["origin"]["value"]) == 0


@all_penalties
def test_gradients_are_finite_at_kinks(case):
    origin, kinks = answers(case)["origin"], answers(case)["kinks"]
    assert not np.any(wide(origin["slope"]))
    assert np.all(np.isfinite(wide(kinks["slope"])))
    if isinstance(case.noun, Separable | Radial | jr.SparseGroup):  # a kink's designed slope
        assert not np.any(wide(kinks["slope"])[wide(case.origin + case.zero_column()) == 0])
    if case.row.exact:
        assert np.all(np.isfinite(wide(exact(case)["kinks"])))
    x = case.origin
    assert jax.eval_shape(jax.grad(case.noun.value), x).dtype == x.dtype


@all_penalties
def test_zero_strength_ignores_infinite_weights(case):
    if not np.prod(case.shape):
        return
    x, found = lanes(case)["no strength"][1], answers(case)["no strength"]
    assert float(found["value"]) == 0
    assert not np.any(wide(found["slope"]))
    if case.row.exact:
        np.testing.assert_array_equal(wide(found["prox"]), wide(x))
    slope, expected = exact(case)["at zero strength"]
    assert np.isfinite(slope)
    if x.size > 1:
        exactly = {"rtol": 8 * float(jnp.finfo(jnp.float32).eps)}
        np.testing.assert_allclose(
            slope, expected, **exactly if case.noun.homogeneous else {"rtol": 1e-5, "atol": 1e-4}
        )


@all_penalties
def test_nan_stays_visible(case):
    if not np.prod(case.shape) or not np.all(np.asarray(case.row.strength(case.shape))):
        return
    found, pulled = answers(case)["nan"], answers(case)["nan pulls"]
    assert np.isnan(found["value"])
    if case.row.exact:
        assert np.isnan(wide(found["prox"])[(-1,) * len(case.shape)])
        if "optimality" not in case.row.lacks:
            assert np.isnan(found["optimality"][0])
            assert np.isnan(pulled["optimality"][0])
        if "critical" not in case.row.lacks:
            assert not np.isfinite(found["critical"])


# ------------------------------------------------------------------ the prox


@proximable
def test_prox_keeps_dtype_and_shape(case):
    found = answers(case)["half a step"]
    assert found["prox"].dtype == case.dtype
    assert found["prox"].shape == case.shape


@proximable
def test_prox_is_the_minimiser(case):
    best, size, others = exact(case)["minimum"]
    assert np.min(others) >= best - 8 * case.eps * (best + size)


@certified
def test_prox_solves_the_inclusion(case):
    # 0 ∈ (p − x)/step + ∂value(p)
    assert exact(case)["solutions"]["values"][0] <= 1e-13


@convex_penalties
def test_prox_is_firmly_nonexpansive(case):
    one, other = answers(case)["one"], answers(case)["other"]
    difference = wide(one["prox"]) - wide(other["prox"])
    distance = wide(case.draw(5)) - wide(case.draw(6))
    assert np.sum(difference**2) <= np.sum(difference * distance) + 8 * case.eps * np.sum(distance**2)


@convex_penalties
def test_gradient_of_the_moreau_envelope(case):
    found = exact(case)["steps"]
    np.testing.assert_allclose(found["envelope"][1], found["residual"][1], atol=1e-12)


@proximable
def test_infinite_strength_and_no_step(case):
    x, found = case.draw(16), answers(case)
    limit = case.row.strongest(x) if case.row.strongest else case.origin
    tolerance = 8 * case.eps if case.row.strongest else 0
    np.testing.assert_allclose(wide(found["infinite"]["prox"]), wide(limit), atol=tolerance, rtol=0)
    np.testing.assert_array_equal(wide(found["no step"]["prox"]), wide(x))
    assert float(found["infinite origin"]["value"]) == 0


# ------------------------------------------------------------------ solutions


@certified
def test_optimality_is_zero_at_solutions_and_not_elsewhere(case):
    found = answers(case)["off kinks"]  # there the gradient is the subdifferential
    _, at, off = found["optimality"]
    eps = float(jnp.finfo(found["slope"].dtype).eps)
    assert float(at) <= 4 * eps * (1 + np.max(np.abs(found["slope"]), initial=0))
    if np.prod(case.shape):
        assert float(off) == pytest.approx(0.25, rel=1e-5)


@scaled_to_zero
def test_critical_is_where_zero_starts_to_solve(case):
    found = exact(case)["solutions"]
    factor, (at, below, tiny, huge) = found["factor"], found["values"][4:]
    if factor == 0:  # nothing pulls, or no pull moves a weight off 0
        assert tiny <= 1e-9
    elif np.isinf(factor):
        assert huge > 0.01
    else:
        assert at <= 1e-12
        assert below > 1e-4
    assert found["of nothing"] == 0


# ------------------------------------------------------------------ transformations


@certified
def test_optimality_is_differentiable(case):
    found = exact(case)["solutions"]
    _, after, before = found["values"][1:4]
    np.testing.assert_allclose(found["along"], (after - before) / (2 * H), atol=1e-6)


@proximable
def test_derivative_in_lam(case):
    found = exact(case)["steps"]
    for i in range(2):  # of the value, and of the prox
        (_, after, before, none, little), slopes = found["values"][2:, i], found["in lam"][2:, i]
        np.testing.assert_allclose(slopes[0], (after - before) / (2 * H), atol=1e-7, rtol=1e-7)
        # At λ = 0 the derivative is one-sided, and is not lost.
        np.testing.assert_allclose(slopes[3], (little - none) / 1e-9, atol=3e-5)


def assert_same_answers(found, expected, case):
    assert found.keys() == expected.keys()
    for name in expected:
        # differences of numbers of order 1
        assert_ulps(found[name], expected[name], case, scale=1 if name in ("prox", "optimality", "slope") else 1e-30)


@proximable
def test_vmap_is_a_loop(case):
    program = jax.jit(everything(case))
    for factor in FACTORS:
        expected = program(*lanes(case)[f"times {factor}"])
        found = answers(case)[f"times {factor}"]
        if case.row.name.endswith("weight") and factor == 0:
            assert expected.pop("critical", np.inf) == found.get("critical", np.inf)  # no factor on 0 is enough
            found = {k: v for k, v in found.items() if k != "critical"}
        assert_same_answers(found, expected, case)


@pytest.mark.parametrize("case", on_one_cell(PENALTIES))
def test_jit_is_eager(case):
    """On a cell that all rows share: eagerly each operation is a program. A literal strength is one more way."""
    number, *points = map(jnp.asarray, lanes(case)["times 1.0"])
    methods = everything(case, solutions=False)
    both = jax.jit(lambda *points: (methods(*points), methods(case.row.strength(case.shape), *points[1:])))
    with jax.numpy_dtype_promotion("strict"):
        eager = methods(number, *points)
        for jitted in both(number, *points):
            assert_same_answers(jitted, eager, case)
