"""The laws of constraints, over the table of all members.

Compiling takes the time here. So a few programs compute what all the laws of a case need, and each law judges the
numbers in NumPy.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from table import CONSTRAINTS, assert_ulps, cases, in_lanes, on_one_cell, per_weight, wide

import jaxreg as jr

all_constraints = pytest.mark.parametrize("case", cases(CONSTRAINTS))
projectable = pytest.mark.parametrize("case", cases(CONSTRAINTS, lambda r: r.exact))
convex_constraints = pytest.mark.parametrize("case", cases(CONSTRAINTS, lambda r: r.exact and r.convex))
balls = pytest.mark.parametrize("case", cases(CONSTRAINTS, lambda r: r.exact and "Ball" in r.name))

FACTORS = (0.0, 0.5, 1.0, 3.0, np.inf)
SCALES = (0.1, 1.5, 1e3)
INSIDE = (1e-3, 0.05, 0.3, 1.0)


def everything(case):
    """What all methods say of (bound, x)."""
    row = case.row

    def methods(number, x):
        noun = row.make(case.shape, number)
        violation, pull = jax.vjp(noun.violation, x)
        out = {"violation": violation, "slope": pull(jnp.ones_like(violation))[0]}
        if row.exact:
            p = noun.project(x)
            out |= {"project": p, "after": noun.violation(p), "again": noun.project(p)}
        return out

    return methods


def small(case, scale):
    """A leaf of which much lies inside, with a −0 in it."""
    x = case.draw(22, scale)
    if scale == INSIDE[0] and case.row.member:
        x = np.array(case.row.member(case.shape, case.row.strength(case.shape)), case.dtype)
    elif type(case.noun) is jr.NonNegative:
        x = np.abs(x)
    if x.size and x.shape[0] > 1:
        x[(-1,) * x.ndim] = -0.0
    return x


def lanes(case):
    """name -> the arguments of `everything`, in the dtype of the leaf."""
    draw, own, far = case.draw, np.asarray(case.row.strength(case.shape), float), case.draw(29)
    unbounded = far.copy()
    if far.size:
        unbounded[..., -1] = np.inf
    return {
        "plain": (own, draw(20)),
        "zero": (own, np.zeros(case.shape, case.dtype)),
        "zero column": (own, case.zero_column()),
        "nan": (own, case.spoiled(19, -1, np.nan)),
        "infinite": (own, case.spoiled(19, -1, np.inf)),
        "near": (own, draw(23)),
        "one": (own, draw(24)),
        "other": (own, draw(25)),
        "unbounded": (np.full_like(own, np.inf), unbounded),
        "point": (np.zeros_like(own), far),
        **{f"scale {scale}": (own, draw(21, scale)) for scale in SCALES},
        **{f"inside {scale}": (own, small(case, scale)) for scale in INSIDE},
        **{f"times {factor}": (factor * np.where(own == 0, 1.0, own), draw(27)) for factor in FACTORS},
    }


@functools.cache
def answers(case):
    """name -> what all methods say there, out of one program."""
    return in_lanes(everything(case), lanes(case))


@functools.cache
def exact(case):
    """Other members, and derivatives, out of one program."""
    row, number = case.row, np.asarray(case.row.strength(case.shape), float)
    h = 1e-6

    def members():
        others = [wide(case.draw(30 + seed, scale=0.2 * (1 + seed))) for seed in range(30)]
        return jax.vmap(case.noun.project)(jnp.stack(others))

    def slopes():
        points = [np.zeros(case.shape, case.dtype), case.zero_column(), case.draw(26)]
        points, numbers = jnp.stack(points * 2), jnp.stack([number] * 3 + [0 * number] * 3)
        both = lambda x, number: (row.make(case.shape, number).project(x), row.make(case.shape, number).violation(x))
        return jax.tree.leaves(jax.vmap(jax.jacobian(both, (0, 1)))(points, numbers))

    def in_bound():
        x = jnp.asarray(1.01 * wide(case.draw(28)))  # off the numbers of bfloat16, where kinks may lie
        factors = jnp.array([1.0, 1 + h, 1 - h])
        make = lambda factor: row.make(case.shape, factor * number)
        methods = (lambda n: jnp.sum(jnp.sin(n.violation(x))), lambda n: jnp.sum(jnp.sin(n.project(x))))
        return [jax.vmap(jax.value_and_grad(lambda f, m=m: m(make(f))))(factors) for m in methods]

    found = jax.jit(lambda: {part.__name__: part() for part in (members, slopes, in_bound)})()
    return jax.tree.map(np.asarray, found)


def group_axes(case):
    inner = getattr(case.noun, "penalty", getattr(case.noun, "constraint", case.noun))
    return getattr(inner, "axis", ())


@all_constraints
def test_violation(case):
    axis, found = group_axes(case), answers(case)
    groups = () if axis is None else tuple(n for i, n in enumerate(case.shape) if i not in axis)
    chex.assert_shape(found["plain"]["violation"], groups)
    assert found["plain"]["violation"].dtype == case.arithmetic
    for point in ("plain", "zero", "zero column"):
        assert np.all(np.isfinite(wide(found[point]["slope"])))


@projectable
def test_nan_and_infinity_stay_visible(case):
    if not np.prod(case.shape):
        return
    last = (-1,) * len(case.shape)
    bad = answers(case)["nan"]
    assert np.isnan(wide(bad["project"])[last])
    assert np.any(np.isnan(wide(bad["violation"]))) or case.row.number is per_weight
    if not any(word in case.row.name for word in ("Box", "Linf", "weight")):
        assert not np.isfinite(wide(answers(case)["infinite"]["project"])[last])


@projectable
def test_projection_is_idempotent_and_lands_inside(case):
    for scale in SCALES:
        x, found = case.draw(21, scale), answers(case)[f"scale {scale}"]
        assert found["project"].dtype == x.dtype
        assert found["project"].shape == x.shape
        p, off = wide(found["project"]), wide(found["after"])
        size = 1 + max(np.abs(p).sum(), 1)
        if not case.row.convex:  # a zero group may have no nearest point, and stays
            off = np.where(np.any(wide(x), getattr(case.noun, "axis", ())), off, 0)
        if x.size:
            assert np.all(off <= 8 * case.eps * size)
        tolerance = 4 * case.eps * max(1, np.abs(p).max(initial=0))
        np.testing.assert_allclose(wide(found["again"]), p, atol=tolerance, rtol=0)


@projectable
def test_projection_is_bitwise_identity_inside(case):
    for scale in INSIDE:
        x, found = np.asarray(small(case, scale)), answers(case)[f"inside {scale}"]
        axis = getattr(getattr(case.noun, "penalty", case.noun), "axis", ())
        axis = tuple(range(x.ndim)) if axis is None else axis
        inside = np.broadcast_to(np.expand_dims(wide(found["violation"]) <= 0, axis), x.shape)
        bits = np.dtype(f"u{x.dtype.itemsize}")
        np.testing.assert_array_equal(found["project"].view(bits)[inside], x.view(bits)[inside])
        if scale == INSIDE[0]:  # the test tests something
            assert inside.sum() >= 0.5 * x.size


@projectable
def test_projection_is_nearest(case):
    # No member is nearer; where the set is convex, ⟨x − p, y − p⟩ ≤ 0 for every y in it.
    x, p = wide(case.draw(23)), wide(answers(case)["near"]["project"])
    slack = 16 * case.eps * (1 + np.abs(x).sum()) * (1 + np.abs(p).sum())
    for y in exact(case)["members"]:
        assert np.sum(np.square(x - p)) <= np.sum(np.square(x - y)) + slack
        assert np.sum((x - p) * (y - p)) <= slack or not case.row.convex


@convex_constraints
def test_projection_is_firmly_nonexpansive(case):
    one, other = answers(case)["one"], answers(case)["other"]
    difference = wide(one["project"]) - wide(other["project"])
    distance = wide(case.draw(24)) - wide(case.draw(25))
    assert np.sum(difference**2) <= np.sum(difference * distance) + 8 * case.eps * np.sum(distance**2)


@projectable
def test_gradients_are_finite_everywhere(case):
    assert all(np.all(np.isfinite(wide(slope))) for slope in exact(case)["slopes"])


@projectable
def test_derivative_in_bound(case):
    for (_, after, before), slopes in exact(case)["in_bound"]:
        np.testing.assert_allclose(slopes[0], (after - before) / 2e-6, atol=1e-7, rtol=1e-7)


@balls
def test_radius_zero_and_infinity(case):
    if not np.prod(case.shape):
        return
    found = answers(case)
    np.testing.assert_array_equal(wide(found["unbounded"]["project"]), wide(lanes(case)["unbounded"][1]))
    assert np.all(wide(found["unbounded"]["violation"]) == -np.inf)
    assert not np.any(wide(found["point"]["project"]))


# ------------------------------------------------------------------ transformations


def assert_same_answers(found, expected, case):
    assert found.keys() == expected.keys()
    for name in expected:
        one, two = wide(found[name]), wide(expected[name])
        finite = np.isfinite(two)
        np.testing.assert_array_equal(one[~finite], two[~finite])
        assert_ulps(one[finite], two[finite], case, scale=1)


@projectable
def test_vmap_is_a_loop(case):
    program = jax.jit(everything(case))
    for factor in FACTORS:
        expected = program(*map(jnp.asarray, lanes(case)[f"times {factor}"]))
        assert_same_answers(answers(case)[f"times {factor}"], expected, case)


@pytest.mark.parametrize("case", on_one_cell(CONSTRAINTS))
def test_jit_is_eager(case):
    """On a cell that all rows share: eagerly each operation is a program."""
    arguments = list(map(jnp.asarray, lanes(case)["times 1.0"]))
    with jax.numpy_dtype_promotion("strict"):
        eager = everything(case)(*arguments)
    assert_same_answers(jax.jit(everything(case))(*arguments), eager, case)
