"""Decoupled decay in every form: each against its formula, written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from table import follow

import jaxreg as jr

RNG = np.random.default_rng(0)
W = {"w": RNG.normal(size=(4, 3)), "b": RNG.normal(size=3)}
GRADS = jax.tree.map(lambda p: RNG.normal(size=(6, *p.shape)), W)
LAM, PEAK = 0.3, 0.2
RATES = np.array([0.0, 0.1, PEAK, 0.15, 0.1, 0.02])
SCHEDULE = lambda t: jnp.asarray(RATES)[t]  # optax's own are float32


def run(link, optimizer=None):
    """Parameters after each step of Adam and `link`."""
    return follow(optax.chain(optimizer or optax.adam(SCHEDULE), link), W, GRADS)[0]


def by_hand(adam, rates, keep=lambda u, s: 1.0, slope=lambda p: LAM * p):
    """θ ← θ + u − rate(t)·keep·slope(θ), u Adam's own step."""
    path = {name: [p] for name, p in W.items()}
    for name, params in path.items():
        u = np.diff(adam[name], axis=0, prepend=W[name][None])
        for t, rate in enumerate(rates):
            p = params[-1]
            params.append(p + u[t] - rate * keep(u[t], slope(p)) * slope(p))
    return {name: params[1:] for name, params in path.items()}


def agree(a, b, what=""):
    for name in W:
        np.testing.assert_allclose(a[name], b[name], atol=1e-12, err_msg=f"{what} {name}")


RIDGE = jr.SquaredL2(LAM)
TOWARDS = lambda u, s: np.where(-u * s >= 0, 1.0, 0.0)
FORMS = {
    "times the learning rate": (jr.decay(RIDGE, SCHEDULE), dict(rates=RATES)),
    "its own schedule": (jr.decay(RIDGE, lambda t: 0.1 / (1 + t)), dict(rates=0.1 / np.arange(1, 7))),
    "no schedule": (jr.decay(RIDGE, 1.0), dict(rates=np.ones(6))),
    "corrected": (jr.decay(RIDGE, SCHEDULE, peak=PEAK), dict(rates=RATES**2 / PEAK)),
    "cautious": (jr.decay(RIDGE, SCHEDULE, cautious=True), dict(rates=RATES, keep=TOWARDS)),
    "both": (jr.decay(RIDGE, SCHEDULE, peak=PEAK, cautious=True), dict(rates=RATES**2 / PEAK, keep=TOWARDS)),
    "towards an anchor": (
        jr.decay(jr.towards(RIDGE, jax.tree.map(np.ones_like, W)), SCHEDULE),
        dict(rates=RATES, slope=lambda p: LAM * (p - 1)),
    ),
}


def test_every_form():
    adam, paths = jax.jit(lambda: (run(optax.identity()), {name: run(link) for name, (link, _) in FORMS.items()}))()
    adam = jax.tree.map(np.asarray, adam)
    for name, (_, law) in FORMS.items():
        agree(paths[name], by_hand(adam, **law), name)


def test_optax_adamw_is_the_first_form():
    adamw = optax.adamw(SCHEDULE, weight_decay=LAM)
    agree(*jax.jit(lambda: (run(jr.decay(RIDGE, SCHEDULE)), run(optax.identity(), adamw)))())


def test_regularize_takes_a_ready_link():
    link = jr.decay(RIDGE, SCHEDULE, cautious=True)
    regularized = jr.regularize(optax.adam(SCHEDULE), SCHEDULE, decay=link)
    agree(*jax.jit(lambda: (run(optax.identity(), regularized), run(link)))())


def test_cautious_keeps_decay_where_nothing_moves():
    link = jr.decay(RIDGE, 0.5, cautious=True)
    p, u = np.array([2.0, 2.0, -2.0, 0.0]), np.array([0.0, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(link.update(u, link.init(p), p)[0], [-0.3, 1.0, 1.3, 1.0])


def test_cautious_looks_at_signs_that_are_too_small_to_multiply():
    link = jr.decay(jr.SquaredL2(1.0), 1.0, cautious=True)
    p = np.full(2, 1e-30, np.float32)
    u, _ = jax.jit(lambda u: link.update(u, link.init(p), p))(np.array([1e-30, -1e-30], np.float32))
    np.testing.assert_allclose(u, [1e-30, -2e-30], rtol=1e-6)


def test_elastic_weight_consolidation():
    fisher, anchor = jax.tree.map(np.square, W), jax.tree.map(lambda p: 0 * p + 0.5, W)
    found = jax.jit(lambda: jr.value(jr.towards(jax.tree.map(jr.SquaredL2, fisher), anchor), W))()
    expected = sum(0.5 * np.sum(fisher[k] * (W[k] - 0.5) ** 2) for k in W)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_towards_leaves_alone_what_has_no_penalty():
    pens = jr.towards(jr.by_path(W, {"w": jr.L1(1.0)}), W)
    assert pens["b"] is None
    assert float(jr.value(pens, W)) == 0


@pytest.mark.parametrize("peak", [0.0, -1.0, float("nan")])
def test_bad_peak(peak):
    with pytest.raises(ValueError, match="`decay` needs `peak` > 0, got"):
        jr.decay(RIDGE, 0.1, peak=peak)


def test_traced_options():
    last = lambda peak: run(jr.decay(RIDGE, SCHEDULE, peak=peak))["w"][-1]
    batch, literal = jax.jit(lambda peaks: (jax.vmap(last)(peaks), last(0.5)))(np.array([0.2, 0.5]))
    np.testing.assert_allclose(np.asarray(batch)[1], literal, atol=1e-12)
