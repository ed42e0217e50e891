"""Every penalty and constraint, one row each or more. A new class needs a row here; the laws do the rest."""

from collections.abc import Callable
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg as jr

SHAPES = {"matrix": (4, 3), "vector": (5,), "conv": (3, 2, 2, 4), "single": (1,), "empty": (0, 3)}
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
    """

    name: str
    make: Callable
    number: object = 0.7
    convex: bool = True
    exact: bool = True

    def strength(self, shape):
        return self.number(shape) if callable(self.number) else self.number

    def noun(self, shape):
        return self.make(shape, self.strength(shape))


def unit(shape):
    """The axes of one hidden unit's incoming weights: all but the last."""
    return tuple(range(len(shape) - 1)) or (0,)


def per_unit(shape):
    """A number per unit, ascending from 0.2."""
    return np.linspace(0.2, 1.1, shape[-1]) if len(shape) > 1 else 0.6


def per_weight(shape):
    """A number per weight, zeros included."""
    return np.resize([0.3, 0.0, 0.9, 0.6, 1.2], shape)


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
]

CONSTRAINTS = [
    Row("L2Ball", lambda s, k: jr.L2Ball(k)),
    Row("L2Ball per unit", lambda s, k: jr.L2Ball(k, axis=unit(s))),
    Row("L2Ball array", lambda s, k: jr.L2Ball(k, axis=unit(s)), per_unit),
    Row("L1Ball", lambda s, k: jr.L1Ball(k)),
    Row("L1Ball per unit", lambda s, k: jr.L1Ball(k, axis=unit(s))),
    Row("L1Ball array", lambda s, k: jr.L1Ball(k, axis=unit(s)), per_unit),
    Row("Box", lambda s, k: jr.Box(-0.2, k)),
    Row("Box array", lambda s, k: jr.Box(-k, k), per_weight),
    Row("NonNegative", lambda s, k: jr.NonNegative()),
    Row("SublevelSet SquaredL2", lambda s, k: jr.SublevelSet(jr.SquaredL2(1.5, axis=unit(s)), k)),
    Row("SublevelSet GroupL2", lambda s, k: jr.SublevelSet(jr.GroupL2(1.5, axis=unit(s)), k), per_unit),
    Row("SublevelSet L1", lambda s, k: jr.SublevelSet(jr.L1(1.5), k)),
    Row("SublevelSet L1 per weight", lambda s, k: jr.SublevelSet(jr.L1(per_weight(s), axis=unit(s)), k), per_unit),
    Row("SublevelSet ElasticNet", lambda s, k: jr.SublevelSet(jr.ElasticNet(1.5, 0.3, axis=unit(s)), k), exact=False),
    Row("Equality", lambda s, k: jr.Equality(jr.L2Ball(k, axis=unit(s))), convex=False, exact=False),
]


@dataclass(frozen=True)
class Case:
    """A row on one shape and dtype."""

    row: Row
    shape: tuple[int, ...]
    dtype: object

    @property
    def noun(self):
        return self.row.noun(self.shape)

    @property
    def eps(self) -> float:
        return float(jnp.finfo(self.dtype).eps)

    def draw(self, seed: int, scale: float = 1.5):
        """A random leaf of this shape and dtype, with a few exact zeros."""
        rng = np.random.default_rng(seed)
        x = scale * rng.normal(size=self.shape) * (rng.random(self.shape) > 0.1)
        return jnp.asarray(x, self.dtype)


def cases(rows, keep=lambda row: True):
    """All cases; in a quick run each row on the float32 matrix and on one more cell, another one for each row."""
    cells = [(s, d) for s in SHAPES for d in DTYPES]
    chosen = []
    for i, row in enumerate(rows):
        if not keep(row):
            continue
        quick = {cells[0], cells[1 + (3 * i) % (len(cells) - 1)]}
        for shape, dtype in cells:
            marks = [] if (shape, dtype) in quick else [pytest.mark.slow]
            case = Case(row, SHAPES[shape], DTYPES[dtype])
            chosen.append(pytest.param(case, id=f"{row.name}-{shape}-{dtype}".replace(" ", "_"), marks=marks))
    return chosen
