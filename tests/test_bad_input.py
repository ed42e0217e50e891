"""Static facts are refused when the object is built; nothing is checked on tracers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg as jr

NAN = float("nan")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: jr.L1(-0.1), "`L1` needs `lam` >= 0, got -0.1"),
        (lambda: jr.SquaredL2(NAN), "`SquaredL2` needs `lam` >= 0, got nan"),
        (lambda: jr.GroupL2(-1), "`GroupL2` needs `lam` >= 0, got -1"),
        (lambda: jr.ElasticNet(-1.0, 0.5), "`ElasticNet` needs `lam` >= 0"),
        (lambda: jr.ElasticNet(1.0, 1.5), r"`ElasticNet` needs `l1_ratio` in \[0, 1\], got 1.5"),
        (lambda: jr.ElasticNet(1.0, NAN), "`ElasticNet` needs `l1_ratio` >= 0, got nan"),
        (lambda: jr.L2Ball(-1.0), "`L2Ball` needs `radius` >= 0, got -1.0"),
        (lambda: jr.L1Ball(NAN), "`L1Ball` needs `radius` >= 0, got nan"),
        (lambda: jr.SublevelSet(jr.L1(1.0), -1.0), "`SublevelSet` needs `bound` >= 0, got -1.0"),
        (lambda: jr.Box(1.0, -1.0), "`Box` needs `lower` <= `upper`, got lower=1.0, upper=-1.0"),
        (lambda: jr.Box(NAN, 1.0), "`Box` needs `lower` <= `upper`, got lower=nan"),
        (lambda: jr.L2Ball(1.0, axis=(0, 0)), r"`L2Ball` needs distinct axes, got axis=\(0, 0\)"),
    ],
)
def test_values(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: jr.L1("0.1"), "`L1` needs a number or an array as `lam`, got '0.1'"),
        (lambda: jr.L2Ball(1.0, axis=0.5), "`L2Ball` needs an int, a tuple of ints or None as `axis`, got 0.5"),
        (lambda: jr.SublevelSet(jr.L2Ball(1.0), 1.0), "`SublevelSet` needs a penalty, got L2Ball"),
        (lambda: jr.Equality(jr.L1(1.0)), "`Equality` needs a constraint, got L1"),
    ],
)
def test_types(build, message):
    with pytest.raises(TypeError, match=message):
        build()


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda x: jr.GroupL2(1.0, axis=2).measure(x), r"`GroupL2\(axis=\(2,\)\)` needs .* axis 2, got shape \(4, 3\)"),
        (lambda x: jr.L2Ball(1.0, axis=-3).project(x), r"axis -3, got shape \(4, 3\)"),
        (lambda x: jr.L2Ball(1.0, axis=(0, -2)).project(x), r"names one axis of a leaf of shape \(4, 3\) twice"),
        (
            lambda x: jr.GroupL2(np.ones(4), axis=0).value(x),
            r"`GroupL2` needs .* groups .* shape \(3,\); got shape \(4,\)",
        ),
        (lambda x: jr.L2Ball(np.ones(3)).violation(x), r"`L2Ball` needs .* groups .* shape \(\); got shape \(3,\)"),
        (lambda x: jr.L1(np.ones(4)).value(x), r"`L1` needs .* entries .* shape \(4, 3\); got shape \(4,\)"),
        (
            lambda x: jr.SublevelSet(jr.SquaredL2(np.ones((4, 3)), axis=0), 1.0).project(x),
            r"needs one λ per group.*`lam` of shape \(4, 3\).*`multipliers`",
        ),
    ],
)
def test_shapes(use, message):
    with pytest.raises(ValueError, match=message):
        use(jnp.ones((4, 3)))


@pytest.mark.parametrize("method", ["measure", "value"])
def test_integers_are_refused(method):
    with pytest.raises(TypeError, match="`L1` needs floating-point parameters, got int64 of shape"):
        getattr(jr.L1(1.0), method)(jnp.arange(3))


def test_tracers_and_arrays_are_not_checked():
    assert jax.jit(lambda lam: jr.L1(lam).value(jnp.ones(2)))(-1.0) == -2
    assert jr.L1(jnp.asarray(-1.0)).value(jnp.ones(2)) == -2


def test_one_strength_per_column_by_sublevel_set():
    x = jnp.ones((4, 3))
    ball = jr.SublevelSet(jr.SquaredL2(np.array([[1.0, 2.0, 0.0]]), axis=0), 1.0)
    np.testing.assert_allclose(np.sum(ball.project(x) ** 2, 0), [2, 1, 4])
