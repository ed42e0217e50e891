"""The penalized objective."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg as jr


def loss_fn(params, x):
    return jnp.sum(params["w"] * x)


PARAMS = {"w": jnp.array([1.0, 2.0]), "b": jnp.array(5.0)}
PENS = {"w": jr.SquaredL2(4.0), "b": None}


def test_textbook_form():
    m, x = 10, jnp.array([3.0, 4.0])
    total, parts = jr.penalized(loss_fn, PENS, num_examples=m)(PARAMS, x)
    assert float(total) == 11 + 4 / (2 * m) * 5
    assert {k: float(v) for k, v in parts.items()} == {"loss": 11.0, "penalty": 1.0}
    slope = jax.jit(jax.grad(lambda p: jr.penalized(loss_fn, PENS, num_examples=m)(p, x)[0]))(PARAMS)
    np.testing.assert_allclose(slope["w"], x + 4 / m * PARAMS["w"])


def test_aux_and_keywords_pass_through():
    fn = jr.penalized(lambda p, *, x: (loss_fn(p, x), "aux"), PENS, has_aux=True)
    total, parts = fn(PARAMS, x=jnp.ones(2))
    assert parts["aux"] == "aux"
    assert float(total) == 13


def test_value_and_grad_under_jit_and_vmap_over_lam():
    x = jnp.array([3.0, 4.0])

    def total(lam):
        pens = {"w": jr.L1(lam), "b": None}
        return jax.jit(jax.value_and_grad(jr.penalized(loss_fn, pens), has_aux=True))(PARAMS, x)

    (values, parts), slopes = jax.jit(jax.vmap(total))(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(values, [11, 14])
    np.testing.assert_allclose(parts["penalty"], [0, 3])
    np.testing.assert_allclose(slopes["w"], [[3, 4], [4, 5]])


def test_dtypes():
    params = {"w": jnp.ones(2, jnp.bfloat16), "b": jnp.zeros((), jnp.float32)}
    total, parts = jr.penalized(lambda p: jnp.sum(p["w"]), PENS)(params)
    assert parts["loss"].dtype == jnp.bfloat16
    assert parts["penalty"].dtype == total.dtype == jnp.float32
    chex.assert_shape(total, ())


def test_norms_accumulate_in_float32():
    ones = jnp.ones(2**20, jnp.bfloat16)
    assert float(jr.value(jr.SquaredL2(2.0), ones)) == 2**20
    assert float(jr.value(jr.GroupL2(1.0), ones)) == 2**10


@pytest.mark.parametrize("num_examples", [0, -1, float("nan")])
def test_num_examples_must_be_positive(num_examples):
    with pytest.raises(ValueError, match="`penalized` needs `num_examples` > 0"):
        jr.penalized(loss_fn, PENS, num_examples=num_examples)


def test_refusals_name_what_to_use():
    with pytest.raises(TypeError, match=r"`penalized` needs penalties .*got L2Ball.*`projected` or `multipliers`"):
        jr.penalized(loss_fn, jr.L2Ball(1.0))
    with pytest.raises(TypeError, match=r"`project` needs constraints .*got L1.*`decay` or `proximal`"):
        jr.project(jr.L1(1.0), PARAMS)
    with pytest.raises(TypeError, match=r"`value` needs penalties .*got 0\.1.*`by_path`"):
        jr.value({"w": 0.1, "b": None}, PARAMS)
    with pytest.raises(TypeError, match=r"SublevelSet\(ElasticNet\)` has none. Use `multipliers`"):
        jr.project(jr.SublevelSet(jr.ElasticNet(1.0, 0.5), 1.0), PARAMS)
