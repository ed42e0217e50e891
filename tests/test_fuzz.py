"""Every member against hostile numbers: zeros, ties, subnormal, huge and infinite weights, tiny and huge strengths.

Cases come in batches of 64 lanes of one shape, under vmap. `JAXREG_FUZZ=160` gives 10 240 cases for each member.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from table import CONSTRAINTS, PENALTIES, first_of_each_class

import jaxreg as jr

LANES, EPS = 64, float(jnp.finfo(jnp.float32).eps)
SHAPES = [(3,), (4, 3), (1,), (1, 1), (2, 5), (7,), (5, 1), (1, 6), (3, 2, 2), (2, 2, 1, 3), (16, 2), (0, 2)]
EXAMPLES = int(os.environ.get("JAXREG_FUZZ", "4"))
FEW = SHAPES[1:2] if EXAMPLES < 20 else SHAPES  # a shape is a compilation
NUMBERS = [0.0, 1e-42, 1e-30, 1e-3, 1.0, 1.0, 7.0, 1e3, 1e30]


def some(rows):
    """All rows; in a quick run every other."""
    return [r if i % 2 == 0 or EXAMPLES >= 20 else pytest.param(r, marks=pytest.mark.slow) for i, r in enumerate(rows)]


hostile = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
batches = st.tuples(
    st.sampled_from(FEW), st.integers(0, 2**32 - 1), st.sampled_from([1e-41, 1e-25, 1e-4, 1.0, 1.0, 1e4, 1e18, 1e37])
)


def draw(shape, seed, scale):
    """Lanes of weights and, for each lane, a factor on the strength and a step."""
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore", under="ignore"):
        x = (scale * rng.normal(size=(LANES, *shape))).astype(np.float32)
        kind = rng.integers(0, 8, LANES)[(slice(None),) + (None,) * len(shape)]
        pick = rng.random(x.shape)
        x = np.where((kind == 0) | (pick < 0.1), 0, x)
        x = np.where(kind == 1, np.float32(scale), x)  # ties
        x = np.where(kind == 2, np.sign(x) * np.float32(scale), x)
        x = np.where((kind == 3) & (pick < 0.5), np.float32(1e-42), x)
        x = np.where((kind == 4) & (pick > 0.7), np.float32(3e38), x)
        x = np.where((kind == 5) & (pick > 0.5), x * np.float32(1e-6), x)
    return jnp.asarray(x, jnp.float32), rng.choice(NUMBERS, LANES), rng.choice([0.0, 1e-6, 1.0, 1e6], LANES)


def flushed(x):
    """XLA on a CPU takes subnormal numbers for 0: no claim is made on them but that they do no harm."""
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, 0, x)


def lane_max(x):
    return np.abs(x).reshape(len(x), -1).max(1, initial=0)


def representable(row, x):
    """Where float32 holds what is computed: singular values may be larger than any weight."""
    return ("spectral" not in type(row.noun((4, 3))).__module__) | (total(np.abs(x)) < 1e38)


def total(x):
    return x.reshape(len(x), -1).sum(1)


@functools.cache
def penalty_program(row, shape):
    def run(x, factor, step):
        strength = factor * jnp.asarray(row.strength(shape))
        noun, exact = row.make(shape, strength.astype(jnp.float32)), row.make(shape, strength)
        value, slope = jax.value_and_grad(noun.value)(x)
        out = {"value": value, "slope": slope}
        if not row.exact:
            return out
        p = noun.prox(x, step.astype(jnp.float32))
        wide, near = x.astype(jnp.float64), p.astype(jnp.float64)

        def cost(z):
            return 0.5 * jnp.sum(jnp.square(z - wide)) + step * exact.value(z)

        home = jnp.asarray(row.origin(shape))
        points = jnp.stack([near, home, wide, 0.5 * (wide + near), near * (1 + 1e-3), near * (1 - 1e-3)])
        zeros = jnp.where(np.eye(wide.size, dtype=bool), home.ravel(), near.ravel()).reshape(wide.size, *shape)
        costs = jax.vmap(cost)(jnp.concatenate([points, zeros]))
        return {**out, "prox": p, "cost": costs[0], "others": costs[1:]}

    return jax.jit(jax.vmap(run))


@pytest.mark.parametrize("row", some(first_of_each_class(PENALTIES)), ids=str)
def test_penalties_survive(row):
    @hostile
    @given(batches)
    def check(batch):
        shape, seed, scale = batch
        x, factor, step = draw(shape, seed, scale)
        out = {k: np.asarray(v).astype(np.float64) for k, v in penalty_program(row, shape)(x, factor, step).items()}
        wide = np.asarray(x).astype(np.float64)
        fits = representable(row, wide)
        assert np.all(out["value"][fits] >= 0)  # not NaN
        tame = (lane_max(wide) < 1e15) & (factor < 1e15)
        assert np.all(np.isfinite(out["slope"][tame]))
        if not row.exact:
            return
        p = out["prox"]
        assert np.all(np.isfinite(p[fits]))
        still = fits & ((factor == 0) | (step == 0))
        np.testing.assert_array_equal(flushed(p[still]), flushed(wide[still]))
        size = lane_max(wide) + lane_max(np.broadcast_to(row.origin(shape), wide.shape))
        n = max(int(np.prod(shape)), 1)
        home = row.origin(shape)
        nearer = (
            np.sqrt(total(np.square(p - home))) <= np.sqrt(total(np.square(wide - home))) + 8 * n * EPS * size + 1e-37
        )
        assert np.all(nearer[fits])
        # float32 rounds p by EPS·size: each of the two terms of the cost may rise by as much as that makes of it
        weight = factor * step
        tame = (size < 1e15) & ((weight == 0) | (weight > 1e-30))  # less is subnormal in places
        slack = 32 * n * EPS * (size**2 + out["cost"]) + 1e-75
        others = out["others"].min(1)
        assert np.all((out["cost"] <= others + slack)[tame]), (out["cost"] - others - slack)[tame].max()

    check()


@functools.cache
def constraint_program(row, shape):
    rank = "RankAtMost" in row.name  # rounded to float32, a matrix has full rank in float64

    def run(x, factor):
        bound = (factor * jnp.asarray(row.strength(shape))).astype(jnp.float32)
        noun = row.make(shape, bound)
        v, pull = jax.vjp(noun.violation, x)
        out = {"violation": v, "slope": pull(jnp.ones_like(v))[0]}
        if not row.exact:
            return out
        p = noun.project(x)
        exact = row.make(shape, bound.astype(jnp.float64))
        after = (noun if rank else exact).violation(p if rank else p.astype(jnp.float64))
        other = jax.vmap(lambda s: exact.project(s * jnp.roll(x, 1, 0).astype(jnp.float64)))(
            jnp.asarray([0.0, 0.5, 1.0])
        )
        return {**out, "project": p, "after": after, "other": other, "other_after": jax.vmap(exact.violation)(other)}

    return jax.jit(jax.vmap(run))


@pytest.mark.parametrize("row", some(first_of_each_class(CONSTRAINTS)), ids=str)
def test_constraints_survive(row):
    @hostile
    @given(batches)
    def check(batch):
        shape, seed, scale = batch
        x, factor, _ = draw(shape, seed, scale)
        out = {k: np.asarray(v).astype(np.float64) for k, v in constraint_program(row, shape)(x, factor).items()}
        wide = np.asarray(x).astype(np.float64)
        assert not np.any(np.isnan(out["violation"][representable(row, wide)]))
        tame = lane_max(wide) < 1e15
        assert np.all(np.isfinite(out["slope"][tame]))
        if not row.exact:
            return
        p = out["project"]
        assert np.all(np.isfinite(p[representable(row, wide)]))
        inside = np.all(out["violation"].reshape(LANES, -1) <= 0, 1)
        np.testing.assert_array_equal(flushed(p[inside]), flushed(wide[inside]))
        n = max(int(np.prod(shape)), 1)
        bound = factor * np.max(np.asarray(row.strength(shape)), initial=0)
        size = lane_max(p) + bound
        lands = out["after"].reshape(LANES, -1).max(1, initial=-np.inf) <= 32 * n * EPS * size + 1e-37
        # An empty group, or a zero group where the set is not convex, may have nowhere to go.
        stays = (np.any(flushed(wide) == 0, tuple(range(1, wide.ndim))) & (not row.convex)) | (not wide.size)
        assert np.all((lands | stays)[tame & (bound < 1e15)])
        gap = total((p - wide) ** 2)[:, None] - ((out["other"] - wide[:, None]) ** 2).reshape(LANES, 3, -1).sum(-1)
        member = out["other_after"].reshape(LANES, 3, -1).max(-1, initial=-np.inf) <= 1e-9 * size[:, None]
        slack = 32 * n * EPS * (lane_max(wide) + size)[:, None] ** 2 + 1e-75
        assert np.all(((gap <= slack) | ~member)[tame & lands & (bound < 1e15)])

    check()


@jax.jit
def nearest(nouns, x):
    return [noun.prox(x, 0.5) if isinstance(noun, jr.Penalty) else noun.project(x) for noun in nouns]


ROWS = [*PENALTIES, *CONSTRAINTS]


@pytest.mark.parametrize("rows", some([ROWS[i::8] for i in range(8)]), ids=lambda rows: f"{rows[0]} and others")
def test_infinite_weights_end_and_stay(rows):
    shape, rows = (4, 3), [row for row in rows if row.exact]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for bad in (np.inf, -np.inf, np.nan):
        x[1, 1] = bad
        for row, result in zip(rows, nearest([row.noun(shape) for row in rows], x), strict=True):
            assert np.asarray(result).shape == shape, row
