"""Every penalty and constraint, one row each or more. A new class needs a row here; the laws do the rest."""

import contextlib
import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr

SHAPES = {"matrix": (4, 3), "vector": (5,), "conv": (3, 2, 2, 4), "single": (1,), "empty": (0, 3), "none": (3, 0)}
DTYPES = {"f32": jnp.float32, "f64": jnp.float64, "bf16": jnp.bfloat16}


@dataclass(frozen=True)
class Row:
    """One member of the library.

    Attributes:
        name: what the row is called.
        make: (shape of the leaf, strength or bound) -> the noun.
        number: the strength or bound the laws use; an array over groups or weights as a function of the shape.
        convex: whether the laws of convexity hold.
        exact: whether it has a prox (penalty) or a projection (constraint).
        origin: shape -> the point where a penalty is 0.
        strongest: leaf -> its prox at λ = ∞; the origin if None.
        member: (shape, bound) -> a point of the set, for sets to which small weights do not belong.
        lacks: which of `optimality` and `critical` it has no exact answer for, though it has a prox.
    """

    name: str
    make: Callable
    number: object = 0.7
    convex: bool = True
    exact: bool = True
    origin: Callable = np.zeros
    strongest: Callable | None = None
    member: Callable | None = None
    lacks: tuple[str, ...] = ()

    def __str__(self):
        return self.name.replace(" ", "_")

    def strength(self, shape):
        return self.number(shape) if callable(self.number) else self.number

    def noun(self, shape):
        return self.make(shape, self.strength(shape))


def unit(shape):
    """The axes of one hidden unit's incoming weights: all but the last."""
    return tuple(range(len(shape) - 1)) or (0,)


def per_unit(shape):
    """A number per unit, ascending from about 0.2, exact in bfloat16."""
    return np.round(16 * np.linspace(0.2, 1.1, shape[-1])) / 16 if len(shape) > 1 else 0.625


def matrix(shape):
    """The axes of one matrix of a stack: the last two."""
    return tuple(range(len(shape)))[-2:]


def per_matrix(shape):
    """A number per matrix of a stack, ascending from 0.2."""
    return np.linspace(0.2, 1.1, math.prod(shape[:-2])).reshape(shape[:-2]) if len(shape) > 2 else 0.6


def home(shape):
    """Anchors, exact in bfloat16."""
    return np.resize([0.5, -1.0, 0.25, 0.0, 0.75], shape)


def corner(shape, k):
    """k in the first weight of each unit, 0 in the others."""
    x = np.zeros(shape)
    if x.size:
        x[(0,) * max(len(shape) - 1, 1)] = k
    return x


def level(axis):
    """The mean along `axis`, in its place."""
    return lambda x: np.broadcast_to(np.asarray(x, float).mean(axis, keepdims=True), x.shape) if x.size else x


def unit_mean(x):
    """The mean of each unit, in its place."""
    return level(unit(x.shape))(x)


def corners(shape, k=1.0):
    """Units that are orthonormal, where there are no more of them than weights in each."""
    return (
        np.resize(np.eye(*np.zeros(shape).reshape(-1, shape[-1]).shape), shape) if len(shape) > 1 else corner(shape, 1)
    )


def decades(shape):
    """A number per weight, over six decades."""
    return np.resize(np.logspace(-4, 2, 7)[[3, 6, 0, 4, 2, 5, 1]], shape)


def per_weight(shape):
    """A number per weight, zeros included."""
    return np.resize([0.3, 0.0, 0.9, 0.6, 1.2], shape)


def per_chain(shape):
    """A number per chain along the first axis."""
    return 0.2 + 0.1 * np.arange(math.prod(shape[1:])).reshape(shape[1:])


def descending(shape, axes):
    """A number per rank in a group, from 1.0 down, equal ones and zeros included."""
    n = math.prod(shape[a] for a in axes)
    return np.maximum(1 - (np.arange(n) // 2) / max(n // 2 - 1, 2), 0)


SCALE = ("critical",)

PENALTIES = [
    Row("L1", lambda s, k: jr.L1(k)),
    Row("L1 per unit", lambda s, k: jr.L1(k, axis=unit(s))),
    Row("L1 per weight", lambda s, k: jr.L1(k, axis=unit(s)), per_weight),
    Row("SquaredL2", lambda s, k: jr.SquaredL2(k)),
    Row("SquaredL2 per unit", lambda s, k: jr.SquaredL2(k, axis=unit(s))),
    Row("SquaredL2 per weight", lambda s, k: jr.SquaredL2(k), per_weight),
    Row("ElasticNet", lambda s, k: jr.ElasticNet(k, 0.4)),
    Row("ElasticNet ridge", lambda s, k: jr.ElasticNet(k, 0.0, axis=unit(s))),
    Row("ElasticNet lasso", lambda s, k: jr.ElasticNet(k, 1.0)),
    Row("ElasticNet per weight", lambda s, k: jr.ElasticNet(k, 0.4), per_weight),
    Row("GroupL2", lambda s, k: jr.GroupL2(k)),
    Row("GroupL2 per unit", lambda s, k: jr.GroupL2(k, axis=unit(s))),
    Row("GroupL2 array", lambda s, k: jr.GroupL2(k, axis=unit(s)), per_unit),
    Row("GroupL2 strong", lambda s, k: jr.GroupL2(k, axis=unit(s)), 5.0),
    Row("Huber", lambda s, k: jr.Huber(k, 0.8)),
    Row("Huber per weight", lambda s, k: jr.Huber(k, 0.8, axis=unit(s)), per_weight),
    # concave
    Row("L0", lambda s, k: jr.L0(k), 0.3, convex=False),
    Row("MCP", lambda s, k: jr.MCP(k, 2.5, axis=unit(s)), convex=False),
    Row("MCP hard", lambda s, k: jr.MCP(k, 0.6), convex=False),
    Row("MCP per weight", lambda s, k: jr.MCP(k, 2.5), per_weight, convex=False),
    Row("SCAD", lambda s, k: jr.SCAD(k, 3.1), 0.5, convex=False),
    Row("SCAD two pieces", lambda s, k: jr.SCAD(k, 1.5, axis=unit(s)), 0.5, convex=False),
    Row("LogSum", lambda s, k: jr.LogSum(k, 0.5), convex=False),
    Row("LogSum mild", lambda s, k: jr.LogSum(k, 2.0, axis=unit(s)), convex=False),
    Row("LpHalf", lambda s, k: jr.LpHalf(k), 0.4, convex=False),
    # grouped
    Row("SparseGroup", lambda s, k: jr.SparseGroup(k, 0.4, axis=unit(s))),
    Row("SparseGroup array", lambda s, k: jr.SparseGroup(k, 0.7, axis=unit(s)), per_unit),
    Row("SparseGroup lasso", lambda s, k: jr.SparseGroup(k, 1.0)),
    Row("SparseGroup group", lambda s, k: jr.SparseGroup(k, 0.0, axis=unit(s))),
    Row("GroupLinf", lambda s, k: jr.GroupLinf(k)),
    Row("GroupLinf array", lambda s, k: jr.GroupLinf(k, axis=unit(s)), per_unit),
    Row("GroupMCP", lambda s, k: jr.GroupMCP(k, 2.5, axis=unit(s)), convex=False),
    Row("GroupMCP array", lambda s, k: jr.GroupMCP(k, 0.7, axis=unit(s)), per_unit, convex=False),
    # ordered
    Row("Slope", lambda s, k: jr.Slope(k)),
    Row("Slope array", lambda s, k: jr.Slope(k), lambda s: descending(s, range(len(s)))),
    Row("Slope per unit", lambda s, k: jr.Slope(k, axis=unit(s)), lambda s: descending(s, unit(s))),
    Row("TotalVariation", lambda s, k: jr.TotalVariation(k, axis=0), strongest=level(0)),
    Row("TotalVariation last", lambda s, k: jr.TotalVariation(k, axis=len(s) - 1), 0.3, strongest=level(-1)),
    Row("TotalVariation array", lambda s, k: jr.TotalVariation(k, axis=0), per_chain, strongest=level(0)),
    # spread
    Row("StandardDeviation", lambda s, k: jr.StandardDeviation(k), strongest=level(None)),
    Row("StandardDeviation array", lambda s, k: jr.StandardDeviation(k, axis=unit(s)), per_unit, strongest=unit_mean),
    # spectral
    Row("Nuclear", lambda s, k: jr.Nuclear(k)),
    Row("Nuclear stack", lambda s, k: jr.Nuclear(k, axis=matrix(s)), per_matrix),
    Row("SpectralNorm", lambda s, k: jr.SpectralNorm(k)),
    Row("SpectralNorm stack", lambda s, k: jr.SpectralNorm(k, axis=matrix(s)), per_matrix),
    Row(
        "Orthogonality",
        lambda s, k: jr.Orthogonality(k, axis=unit(s)),
        per_unit,
        convex=False,
        exact=False,
        origin=corners,
    ),
    Row("Orthogonality cosine", lambda s, k: jr.Orthogonality(k, unit(s), cosine=True), convex=False, exact=False),
    # composition
    Row("Towards L1", lambda s, k: jr.Towards(jr.L1(k, axis=unit(s)), home(s)), origin=home, lacks=SCALE),
    Row(
        "Towards SquaredL2",
        lambda s, k: jr.Towards(jr.SquaredL2(k), home(s)),
        per_weight,
        origin=home,
        lacks=("critical",),
    ),
    Row(
        "Towards GroupL2",
        lambda s, k: jr.Towards(jr.GroupL2(k, axis=unit(s)), home(s)),
        origin=home,
        lacks=("critical",),
    ),
    Row("Sum L1 SquaredL2", lambda s, k: jr.L1(k) + jr.SquaredL2(0.5 * k), per_weight, lacks=("critical",)),
    Row("Sum L1 GroupL2", lambda s, k: jr.GroupL2(k, axis=unit(s)) + jr.L1(0.3 * k, axis=unit(s)), lacks=("critical",)),
    Row("Sum GroupL2 SquaredL2", lambda s, k: jr.GroupL2(k, axis=unit(s)) + jr.SquaredL2(k), lacks=("critical",)),
    Row("Sum MCP SquaredL2", lambda s, k: jr.SquaredL2(k) + jr.MCP(k, 2.0), convex=False, lacks=("critical",)),
    Row("Sum fused lasso", lambda s, k: jr.L1(0.4 * k, axis=0) + jr.TotalVariation(k, axis=0), lacks=("critical",)),
    Row(
        "Sum L1 GroupLinf",
        lambda s, k: jr.L1(0.3 * k) + jr.GroupLinf(k, axis=unit(s)) + jr.SquaredL2(k),
        lacks=("optimality", "critical"),
    ),
    Row("Sum L1 Nuclear", lambda s, k: jr.L1(k) + jr.Nuclear(k), exact=False),
]

CONSTRAINTS = [
    Row("L2Ball", lambda s, k: jr.L2Ball(k)),
    Row("L2Ball per unit", lambda s, k: jr.L2Ball(k, axis=unit(s))),
    Row("L2Ball array", lambda s, k: jr.L2Ball(k, axis=unit(s)), per_unit),
    Row("L1Ball", lambda s, k: jr.L1Ball(k)),
    Row("L1Ball per unit", lambda s, k: jr.L1Ball(k, axis=unit(s))),
    Row("L1Ball array", lambda s, k: jr.L1Ball(k, axis=unit(s)), per_unit),
    Row("LinfBall", lambda s, k: jr.LinfBall(k)),
    Row("LinfBall array", lambda s, k: jr.LinfBall(k, axis=unit(s)), per_unit),
    Row("Box", lambda s, k: jr.Box(-0.2, k)),
    Row("Box array", lambda s, k: jr.Box(-k, k), per_weight),
    Row("NonNegative", lambda s, k: jr.NonNegative()),
    Row("SublevelSet SquaredL2", lambda s, k: jr.SublevelSet(jr.SquaredL2(1.5, axis=unit(s)), k)),
    Row("SublevelSet GroupL2", lambda s, k: jr.SublevelSet(jr.GroupL2(1.5, axis=unit(s)), k), per_unit),
    Row("SublevelSet L1", lambda s, k: jr.SublevelSet(jr.L1(1.5), k)),
    Row("SublevelSet L1 per weight", lambda s, k: jr.SublevelSet(jr.L1(per_weight(s), axis=unit(s)), k), per_unit),
    Row("SublevelSet ElasticNet", lambda s, k: jr.SublevelSet(jr.ElasticNet(1.5, 0.3, axis=unit(s)), k), exact=False),
    Row("Equality", lambda s, k: jr.Equality(jr.L2Ball(k, axis=unit(s))), convex=False, exact=False),
    Row("SublevelSet L1 wide", lambda s, k: jr.SublevelSet(jr.L1(decades(s)), k)),
    Row("SublevelSet GroupLinf", lambda s, k: jr.SublevelSet(jr.GroupLinf(1.5, axis=unit(s)), k), per_unit),
    Row("SublevelSet L0", lambda s, k: jr.SublevelSet(jr.L0(0.5, axis=unit(s)), k), 0.8, convex=False, member=corner),
    Row("SublevelSet Nuclear", lambda s, k: jr.SublevelSet(jr.Nuclear(1.5), k)),
    Row("SublevelSet SpectralNorm", lambda s, k: jr.SublevelSet(jr.SpectralNorm(1.5, axis=matrix(s)), k), per_matrix),
    # shells, simplex, sparse
    Row("Sphere", lambda s, k: jr.Sphere(k, axis=unit(s)), 0.75, convex=False, member=corner),
    Row("Sphere array", lambda s, k: jr.Sphere(k, axis=unit(s)), per_unit, convex=False, member=corner),
    Row("NormRange", lambda s, k: jr.NormRange(0.4 * k, k, axis=unit(s)), 0.75, convex=False, member=corner),
    Row("Simplex", lambda s, k: jr.Simplex(k, axis=unit(s)), 0.75, member=corner),
    Row("Simplex array", lambda s, k: jr.Simplex(k, axis=unit(s)), per_unit, member=corner),
    Row("Sparse", lambda s, k: jr.Sparse(k, axis=unit(s)), 2.5, convex=False, member=corner),
    # spectral
    Row("SpectralBall", lambda s, k: jr.SpectralBall(k)),
    Row("SpectralBall stack", lambda s, k: jr.SpectralBall(k, axis=matrix(s)), per_matrix),
    Row("NuclearBall", lambda s, k: jr.NuclearBall(k)),
    Row("NuclearBall stack", lambda s, k: jr.NuclearBall(k, axis=matrix(s)), per_matrix),
    Row("RankAtMost", lambda s, k: jr.RankAtMost(k), 1.5, convex=False, member=corner),
    Row("RankAtMost stack", lambda s, k: jr.RankAtMost(k, axis=matrix(s)), per_matrix, convex=False, member=corners),
    Row("Orthonormal", lambda s, k: jr.Orthonormal(axis=matrix(s)), convex=False, member=corners),
]


QUICK = os.environ.get("JAXREG_QUICK") == "1"  # set by conftest where slow tests are not asked for


@dataclass(frozen=True)
class Case:
    """A row on one shape and dtype; its leaves are arrays of NumPy, where each operation of JAX were a program."""

    row: Row
    shape: tuple[int, ...]
    dtype: object

    @property
    def noun(self):
        return self.row.noun(self.shape)

    @property
    def origin(self):
        return np.asarray(self.row.origin(self.shape), self.dtype)

    @property
    def arithmetic(self):
        """The dtype in which arithmetic runs: float32 at least."""
        return jnp.promote_types(self.dtype, jnp.float32)

    @property
    def eps(self) -> float:
        return float(jnp.finfo(self.dtype).eps)

    def draw(self, seed: int, scale: float = 1.5):
        """A random leaf of this shape and dtype, with a few exact zeros."""
        rng = np.random.default_rng(seed)
        x = scale * rng.normal(size=self.shape) * (rng.random(self.shape) > 0.1)
        return x.astype(self.dtype)

    def zero_column(self):
        """A random leaf whose first unit is 0: a point with kinks."""
        x = self.draw(10)
        if x.size:
            x[..., 0] = 0
        return x

    def spoiled(self, seed: int, place: int, value: float):
        """A random leaf of which one entry is `value`."""
        x = self.draw(seed)
        if x.size:
            x[(place,) * x.ndim] = value
        return x


@contextlib.contextmanager
def optimized():
    """As users compile, for what must hold to the bit; a quick run leaves most optimizations out."""
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", QUICK)


def wide(x):
    """In float64, where NumPy judges."""
    return np.asarray(x).astype(np.float64)


def assert_ulps(a, b, case, ulps=4, scale=1e-30):
    """Equal up to `ulps` at the magnitude of the largest entry, or at `scale` where terms of that size cancel."""
    dtypes = (jnp.result_type(a), case.arithmetic)
    eps = max(float(jnp.finfo(dtype).eps) for dtype in dtypes)
    a, b = wide(a), wide(b)
    np.testing.assert_allclose(a, b, rtol=0, atol=ulps * eps * max(scale, np.abs(b).max(initial=0)))


# One function for all files: a worker compiles each once for a class, a shape and a dtype.
nearest, value = jax.jit(lambda pen, x, step: pen.prox(x, step)), jax.jit(lambda pen, x: pen.value(x))
distance = jax.jit(lambda pen, x, g: pen.optimality(x, g))
project, violation = jax.jit(jr.project), jax.jit(lambda con, x: con.violation(x))


def follow(tx, params, inputs, gradient=lambda params, given: given):
    """Parameters and states after each step, stacked; `inputs` are stacked updates, or what `gradient` is given."""

    def step(carry, given):
        params, state = carry
        updates, state = tx.update(gradient(params, given), state, params)
        return ((optax.apply_updates(params, updates), state),) * 2

    return jax.lax.scan(step, (params, tx.init(params)), inputs)[1]


def in_lanes(methods, lanes):
    """name -> what the methods say of its arguments, all of them out of one program."""
    names, arguments = zip(*lanes.items(), strict=True)
    with optimized():  # some laws hold to the bit
        batch = jax.jit(jax.vmap(methods))(*map(np.stack, zip(*arguments, strict=True)))
    batch = jax.tree.map(np.asarray, batch)
    return {name: {k: v[i] for k, v in batch.items()} for i, name in enumerate(names)}


def cases(rows, keep=lambda row: True):
    """All cases; in a quick run the first row of each class, on a cell of its own."""
    cells = [(s, d) for s in SHAPES for d in DTYPES]
    large, tiny = cells[:9], cells[9:]
    chosen = []
    first = first_of_each_class(rows)
    for i, row in enumerate(rows):
        quick = {large[7 * i % 9]} if row in first else set()
        if i % 10 == 0:
            quick.add(tiny[i // 10 % 9])
        for cell in cells if keep(row) else ():
            if cell not in quick and QUICK:  # not even made: to collect them takes longer than many tests
                continue
            marks = [] if cell in quick else [pytest.mark.slow]
            shape, dtype = cell
            case = Case(row, SHAPES[shape], DTYPES[dtype])
            chosen.append(pytest.param(case, id=f"{row}-{shape}-{dtype}", marks=marks))
    return chosen


def first_of_each_class(rows):
    """One row for every class."""
    first = {}
    for row in rows:
        first.setdefault(type(row.noun(SHAPES["matrix"])), row)
    return list(first.values())


def on_one_cell(rows):
    """Each row on a cell that all share, the first of each class in a quick run: for laws of eager operations."""
    first = first_of_each_class(rows)
    chosen = []
    for row in rows:
        case, marks = Case(row, SHAPES["matrix"], DTYPES["f32"]), [] if row in first else [pytest.mark.slow]
        chosen.append(pytest.param(case, marks=marks, id=str(row)))
    return chosen
