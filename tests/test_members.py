"""Every member has a row, is a frozen pytree, and has the derivatives that differences give."""

import dataclasses
import inspect
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from table import CONSTRAINTS, PENALTIES

import jaxreg as jr


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
    slope = jax.jit(jax.grad(lambda pen: -pen.value(np.ones(3))))(jr.SquaredL2(0.1, axis=0))
    assert isinstance(slope, jr.SquaredL2)
    assert jax.tree.map(float, slope).lam == -1.5
    assert slope.axis == (0,)
    with pytest.raises(ValueError, match="`SquaredL2` needs `lam` >= 0"):
        dataclasses.replace(slope, lam=-1.0)


def test_lists_may_hold_traced_numbers():
    value = jax.jit(lambda lam: jr.L1([lam, 1.0]).value(np.ones(2)))
    assert float(value(0.5)) == 1.5


def test_a_simplex_of_any_total_is_the_orthant():
    x = np.array([0.2, -0.3, 7.0])
    violation, p = jax.jit(lambda con, x: (con.violation(x), con.project(x)))(jr.Simplex(np.inf), x)
    assert float(violation) == pytest.approx(0.3)
    np.testing.assert_array_equal(p, [0.2, 0, 7.0])


def test_spectral_penalties_of_infinite_weights_end():
    """LAPACK does not return from some matrices with an infinite entry."""
    x = np.ones((12, 4))
    x[0, 0] = np.inf
    run = jax.jit(lambda pens, x: [(pen.optimality(x, x), pen.critical(x), pen.prox(x, 1.0)) for pen in pens])
    for lam in (0.0, 1.0):
        jax.block_until_ready(run([jr.Nuclear(lam), jr.SpectralNorm(lam)], x))


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
