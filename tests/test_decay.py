"""Decoupled decay in every form: each against its formula, written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr

RNG = np.random.default_rng(0)
W = {"w": jnp.asarray(RNG.normal(size=(4, 3))), "b": jnp.asarray(RNG.normal(size=3))}
GRADS = [jax.tree.map(lambda p: jnp.asarray(RNG.normal(size=p.shape)), W) for _ in range(6)]
LAM, PEAK = 0.3, 0.2
SCHEDULE = lambda t: jnp.array([0.0, 0.1, PEAK, 0.15, 0.1, 0.02])[t]  # optax's own are float32


def run(link, optimizer=None):
    """Parameters after each step of Adam and `link`."""
    tx = optax.chain(optimizer or optax.adam(SCHEDULE), link)
    params, state, path = W, tx.init(W), []
    for g in GRADS:
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path


def by_hand(rate, keep=lambda u, s: 1.0, slope=lambda p: LAM * p):
    """θ ← θ + u − rate(t)·keep·slope(θ), u Adam's own step."""
    adam = optax.adam(SCHEDULE)
    params, state, path = W, adam.init(W), []
    for t, g in enumerate(GRADS):
        updates, state = adam.update(g, state, params)
        params = jax.tree.map(lambda p, u: p + u - rate(t) * keep(u, slope(p)) * slope(p), params, updates)
        path.append(params)
    return path


def agree(a, b):
    for x, y in zip(a, b, strict=True):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12), x, y)


RIDGE = jr.SquaredL2(LAM)
FORMS = {
    "times the learning rate": (jr.decay(RIDGE, SCHEDULE), by_hand(SCHEDULE)),
    "its own schedule": (jr.decay(RIDGE, lambda t: 0.1 / (1 + t)), by_hand(lambda t: 0.1 / (1 + t))),
    "no schedule": (jr.decay(RIDGE, 1.0), by_hand(lambda t: 1.0)),
    "corrected": (jr.decay(RIDGE, SCHEDULE, peak=PEAK), by_hand(lambda t: SCHEDULE(t) ** 2 / PEAK)),
    "cautious": (
        jr.decay(RIDGE, SCHEDULE, cautious=True),
        by_hand(SCHEDULE, keep=lambda u, s: jnp.where(-u * s >= 0, 1.0, 0.0)),
    ),
    "both": (
        jr.decay(RIDGE, SCHEDULE, peak=PEAK, cautious=True),
        by_hand(lambda t: SCHEDULE(t) ** 2 / PEAK, keep=lambda u, s: jnp.where(-u * s >= 0, 1.0, 0.0)),
    ),
    "towards an anchor": (
        jr.decay(jr.towards(RIDGE, jax.tree.map(jnp.ones_like, W)), SCHEDULE),
        by_hand(SCHEDULE, slope=lambda p: LAM * (p - 1)),
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_form(name):
    agree(run(FORMS[name][0]), FORMS[name][1])


def test_optax_adamw_is_the_first_form():
    agree(run(jr.decay(RIDGE, SCHEDULE)), run(optax.identity(), optax.adamw(SCHEDULE, weight_decay=LAM)))


def test_cautious_keeps_decay_where_nothing_moves():
    link = jr.decay(RIDGE, 0.5, cautious=True)
    p, u = jnp.array([2.0, 2.0, -2.0, 0.0]), jnp.array([0.0, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(link.update(u, link.init(p), p)[0], [-0.3, 1.0, 1.3, 1.0])


def test_cautious_looks_at_signs_that_are_too_small_to_multiply():
    link = jr.decay(jr.SquaredL2(1.0), 1.0, cautious=True)
    p = jnp.full(2, 1e-30, jnp.float32)
    u, _ = link.update(jnp.array([1e-30, -1e-30], jnp.float32), link.init(p), p)
    np.testing.assert_allclose(u, [1e-30, -2e-30], rtol=1e-6)


def test_elastic_weight_consolidation():
    fisher, anchor = jax.tree.map(jnp.square, W), jax.tree.map(lambda p: 0 * p + 0.5, W)
    pens = jr.towards(jax.tree.map(jr.SquaredL2, fisher), anchor)
    expected = sum(0.5 * jnp.sum(fisher[k] * (W[k] - 0.5) ** 2) for k in W)
    np.testing.assert_allclose(jr.value(pens, W), expected, rtol=1e-12)


def test_towards_leaves_alone_what_has_no_penalty():
    pens = jr.towards(jr.by_path(W, {"w": jr.L1(1.0)}), W)
    assert pens["b"] is None
    assert float(jr.value(pens, W)) == 0


def test_regularize_takes_a_ready_link():
    link = jr.decay(RIDGE, SCHEDULE, cautious=True)
    agree(run(optax.identity(), jr.regularize(optax.adam(SCHEDULE), SCHEDULE, decay=link)), run(link))


@pytest.mark.parametrize("peak", [0.0, -1.0, float("nan")])
def test_bad_peak(peak):
    with pytest.raises(ValueError, match="`decay` needs `peak` > 0, got"):
        jr.decay(RIDGE, 0.1, peak=peak)


def test_traced_options():
    def last(peak):
        return run(jr.decay(RIDGE, SCHEDULE, peak=peak))[-1]["w"]

    batch = jax.jit(jax.vmap(last))(jnp.array([0.2, 0.5]))
    np.testing.assert_allclose(batch[1], last(0.5), atol=1e-12)
