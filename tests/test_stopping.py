"""Early stopping: Keras' rule, by hand and by Keras; pure under jit, scan and vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreg.sweeps.stopping import early_stopping


def by_hand(metrics, patience, min_delta):
    """Keras' `on_epoch_end` with `restore_best_weights`, but that NaN never improves; the parameters are the epoch."""
    best, best_epoch, wait, stopped, seen = None, 0, 0, False, 0
    for epoch, current in enumerate(metrics):
        seen += 1
        wait += 1
        if not np.isnan(current) and (best is None or current + min_delta < best):
            best, best_epoch, wait = current, epoch, 0
        elif wait >= patience and epoch > 0:
            stopped = True
            break
    return [np.nan if best is None else best, best_epoch, best_epoch, wait, stopped, seen]


def curves(number, length, seed=0):
    rng = np.random.default_rng(seed)
    values = np.cumsum(rng.integers(-2, 3, size=(number, length)), 1).astype(float)
    values[rng.random(values.shape) < 0.05] = np.nan
    values[rng.random(values.shape) < 0.02] = np.inf
    values[:3, :2] = np.nan
    values[3, 0] = np.inf
    return values


def run(metrics, patience, min_delta):
    stopping = early_stopping(patience, min_delta)

    def step(state, x):
        state = stopping.update(state, x[0], {"epoch": x[1]})
        return state, state

    start = stopping.init({"epoch": jnp.zeros((), jnp.int32)})
    return jax.lax.scan(step, start, (metrics, jnp.arange(len(metrics), dtype=jnp.int32)))


def test_scan_of_lanes_is_the_loop():
    metrics = curves(300, 25)
    rng = np.random.default_rng(1)
    patience, min_delta = rng.integers(0, 6, 300), rng.choice([0.0, 0.5, 1.0], 300)
    last, every = jax.jit(jax.vmap(run))(metrics, patience, min_delta)
    got = np.array([np.asarray(leaf, float) for leaf in jax.tree.leaves(last)])
    expected = np.array([by_hand(*row) for row in zip(metrics, patience, min_delta, strict=True)], float)
    np.testing.assert_array_equal(got, expected.T)
    assert 0.3 < np.mean(last.stopped) < 1
    for leaf in jax.tree.leaves(every):  # once stopped, nothing changes
        after = np.asarray(every.stopped[:, :-1])
        np.testing.assert_array_equal(np.asarray(leaf[:, 1:])[after], np.asarray(leaf[:, :-1])[after])


def test_keras_does_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    keras = pytest.importorskip("keras")

    class Model:
        stop_training, weights = False, None
        get_weights = lambda self: self.weights
        set_weights = lambda self, weights: setattr(self, "weights", weights)

    metrics = np.nan_to_num(curves(40, 25, seed=2), nan=3.0)
    for lane, values in enumerate(metrics):
        patience, min_delta = lane % 5, [0.0, 1.0][lane % 2]
        callback = keras.callbacks.EarlyStopping("loss", min_delta, patience, mode="min", restore_best_weights=True)
        model = Model()
        callback.set_model(model)
        callback.on_train_begin()
        for epoch, value in enumerate(values):
            model.weights = epoch
            callback.on_epoch_end(epoch, {"loss": value})
            if model.stop_training:
                break
        callback.on_train_end()
        best, params, _, _, stopped, count = by_hand(values, patience, min_delta)
        assert (callback.best, model.weights, model.stop_training, epoch + 1) == (best, params, stopped, count)


@pytest.mark.parametrize("x64", [True, False])
def test_dtypes_are_a_carry(x64):
    with jax.enable_x64(x64):
        stopping = early_stopping(3, 0.1)
        params = {"w": jnp.ones(3, jnp.bfloat16), "key": jax.random.key(0), "n": jnp.arange(2)}
        state = stopping.init(params)
        assert state.best.dtype == (jnp.float64 if x64 else jnp.float32)
        structure = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
        for metric in (jnp.bfloat16(2.0), 1, np.float32(0.5)):
            new = jax.eval_shape(stopping.update, state, metric, params)
            assert structure(new) == structure(state)


def test_a_stopping_is_a_pytree():
    step = jax.jit(lambda stopping, state: stopping.update(state, 2.0, jnp.zeros(2)))
    stopping = early_stopping(jnp.asarray(1))
    state = step(stopping, step(stopping, stopping.init(jnp.ones(2))))
    assert (bool(state.stopped), float(state.best), int(state.wait)) == (True, 2.0, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: early_stopping(-1), "`patience` ≥ 0, got -1"),
        (lambda: early_stopping(1, np.nan), "`min_delta` ≥ 0, got nan"),
        (lambda: run(np.zeros((3, 2)), 1, 0.0), r"scalar metric, got shape \(2,\)"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
