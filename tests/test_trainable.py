"""`Trainable`: training in steps, stopped runs, successive halving within a sweep."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg as jr
from jaxreg.sweeps import running, work
from jaxreg.sweeps.memory import Memory
from jaxreg.sweeps.store import Store

X = np.random.default_rng(0).normal(size=(12, 4))
Y = X @ np.array([1.0, -1.0, 0.0, 2.0])


# One program, in steps


def init(lr, seed, X):
    """A typed key, a narrow dtype, integers and Python's numbers in the state."""
    key = jax.random.key(seed)
    w = 0.1 * jax.random.normal(key, X.shape[1:], X.dtype)
    optimizer = optax.sgd(lr, momentum=0.9).init(w)
    return {"w": w, "key": key, "optimizer": optimizer, "ema": w.astype(jnp.bfloat16), "seen": 0, "scale": 1.0}


def step(state, lam, lr, X, y):
    key, draw = jax.random.split(state["key"])
    seen = jax.random.bernoulli(draw, 0.5, y.shape)

    def loss(w):
        return jnp.mean(seen * (X @ w - y) ** 2) + lam * jnp.sum(w**2)

    updates, optimizer = optax.sgd(lr, momentum=0.9).update(jax.grad(loss)(state["w"]), state["optimizer"])
    w = optax.apply_updates(state["w"], updates)
    ema = (0.9 * state["ema"] + 0.1 * w).astype(jnp.bfloat16)
    fresh = {"w": w, "key": key, "optimizer": optimizer, "ema": ema, "seen": state["seen"] + 6}
    return state | fresh | {"scale": state["scale"] * 0.9}


def report(state, X, y):
    error = jnp.mean((X @ state["w"] - y) ** 2)
    return {
        "error": error,
        "seen": state["seen"],
        "small": error < 0.5,
        "w": state["w"],
        "ema": state["ema"],
        "scale": state["scale"],
    }


SGD = jr.Trainable(init, step, report, steps=12, every=3)
GRID = jr.grid(lam=[0.0, 0.1], lr=[0.03, 0.1], seed=range(2))


def test_it_is_the_same_training_in_steps():
    found = jr.sweep(SGD, GRID, X=X, y=Y)
    whole = jax.jit(SGD.__call__)(lam=0.1, lr=0.03, seed=1, X=X, y=Y)
    for name in whole:
        np.testing.assert_allclose(found[name].sel(lam=0.1, lr=0.03, seed=1), whole[name], rtol=1e-9)
    assert found["error_by_step"].dims == ("lam", "lr", "seed", "step")
    assert found["step"].values.tolist() == [3, 6, 9, 12]
    assert found["steps"].values.tolist() == np.full((2, 2, 2), 12).tolist()
    np.testing.assert_array_equal(found["seen_by_step"], np.broadcast_to([18.0, 36.0, 54.0, 72.0], (2, 2, 2, 4)))
    np.testing.assert_array_equal(found["error_by_step"][..., -1], found["error"])
    assert found["ema"].dtype == np.float32
    assert found["seen"].dtype.kind == "i"
    assert found["small"].dtype == bool
    assert "w_by_step" not in found
    short = jax.jit(jr.Trainable(init, step, report, steps=6).__call__)(lam=0.0, lr=0.1, seed=0, X=X, y=Y)
    np.testing.assert_allclose(found["error_by_step"].sel(lam=0.0, lr=0.1, seed=0)[1], short["error"], rtol=1e-9)


def test_a_state_is_saved_and_put_back_bit_by_bit(tmp_path, monkeypatch):
    expected, saved, restored = jr.sweep(SGD, GRID, X=X, y=Y, chunk=5), [], []
    run = work.run

    def write(self, task, step, leaves, real=Store.write_carry):
        saved[:] = [np.array(leaf) for leaf in leaves]
        real(self, task, step, leaves)

    def restore(program, chunk, step, leaves, real=running.restore):
        real(program, chunk, step, leaves)
        restored[:] = [np.array(leaf) for leaf in running.save(chunk)]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(work, "SAVE_SECONDS", 0.0)
        patch.setattr(work, "run", lambda *arguments: first_of(run(*arguments)))
        patch.setattr(Store, "write_carry", write)
        jr.sweep(SGD, GRID, X=X, y=Y, chunk=5, store=tmp_path / "store")
    monkeypatch.setattr(work, "restore", restore)
    found = jr.sweep(SGD, GRID, X=X, y=Y, chunk=5, store=tmp_path / "store")
    assert {leaf.dtype.name for leaf in saved} >= {"uint16", "uint32", "int64", "float64"}  # bfloat16, the key, ...
    assert [leaf.tobytes() for leaf in saved] == [leaf.tobytes() for leaf in restored]
    for name in expected:
        assert found[name].values.tobytes() == expected[name].values.tobytes()


def first_of(blocks):
    """A block, which is saved; then an end."""
    for i, block in enumerate(blocks):
        if i == 2:
            raise KeyboardInterrupt
        yield block


def test_arguments_that_a_part_does_not_ask_for():
    parts = (lambda: 1.0, lambda x, *, rate=0.5: x * rate, lambda x, **rest: {"x": x, "n": len(rest)})
    found = jr.sweep(jr.Trainable(*parts, steps=2), jr.grid(rate=[0.1, 1.0]), other=3.0)
    np.testing.assert_allclose(found["x"], [0.01, 1.0])
    assert found["n"].values.tolist() == [2, 2]
    assert jr.Trainable(*parts, steps=2)()["x"] == 0.25


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"steps": 0}, ValueError, "0 < `every` <= `steps`, got 0 and 0"),
        ({"steps": 5, "every": 2}, ValueError, "`steps` to be a multiple of `every`, got 5 and 2"),
        ({"steps": 2, "every": 3}, ValueError, "0 < `every` <= `steps`, got 3 and 2"),
        ({"steps": 2.0}, ValueError, "needs integers"),
        ({"steps": 2, "stop": 3}, TypeError, "a function as `stop`, got 3"),
    ],
)
def test_bad_trainables(options, error, told):
    with pytest.raises(error, match=told):
        jr.Trainable(lambda: 0.0, lambda x: x, lambda x: x, **options)


def test_errors_in_its_parts():
    def call(init=lambda a: a, step=lambda x: x, report=lambda x: {"x": x}, stop=None, space=None, **options):
        train = jr.Trainable(init, step, report, steps=2, stop=stop)
        return jr.sweep(train, space or jr.grid(a=[1.0]), **options)

    for arguments, error, told in [
        ({"step": lambda x: x[None]}, TypeError, "carry"),
        ({"report": lambda x: "text"}, TypeError, "return arrays, got 'text'"),
        ({"stop": lambda x: jnp.ones(2)}, TypeError, "`stop` to return one bool, got float64"),
        ({"step": lambda x, b: x}, ValueError, r"missing: \['b'\]"),
        ({"space": jr.grid(c=[1.0]), "init": lambda: 0.0}, ValueError, "each grid axis .* got 'c'"),
        ({"halving": 3}, TypeError, r"`halving\(\.\.\.\)` or `hyperband\(\.\.\.\)` for `halving`, got 3"),
        ({"halving": jr.halving("x", min_steps=1), "init": lambda rung: rung, "space": jr.grid(rung=[1.0])}, ValueError,
         "unlike 'rung'"),
    ]:  # fmt: skip
        with pytest.raises(error, match=told):
            call(**arguments)
    with pytest.raises(TypeError, match="needs a `Trainable` for `halving`"):
        jr.sweep(lambda a: a, jr.grid(a=[1.0]), halving=jr.halving("x", min_steps=1))


# Stopping


CURVES = np.random.default_rng(3).normal(size=(6, 10)).cumsum(1)  # six made-up runs of ten steps


def follow(patience=None, **options):
    """A run whose loss is told in advance, with its parameters the number of the step."""
    early = jr.early_stopping(patience or 99)

    def start():
        return {"t": jnp.zeros((), int), "loss": jnp.inf, "early": early.init(jnp.zeros((), int))}

    def walk(state, run, curves):
        loss, t = curves[run, state["t"]], state["t"] + 1
        return {"t": t, "loss": loss, "early": early.update(state["early"], loss, t)}

    def tell(state):
        kept = state["early"]
        return {"loss": state["loss"], "best": kept.best, "at": kept.best_params}

    stop = None if patience is None else lambda state: state["early"].stopped
    return jr.Trainable(start, walk, tell, stop=stop, **options)


def stopped_by_hand(curve, patience):
    """(steps, the step of the least loss until then)"""
    for t in range(1, len(curve) + 1):
        best = int(np.argmin(curve[:t]))
        if t - 1 - best >= patience:
            return t, best + 1
    return len(curve), int(np.argmin(curve)) + 1


@pytest.mark.parametrize("chunk", [6, 4])
def test_runs_that_stop_early(chunk):
    found = jr.sweep(follow(2, steps=10, every=1), jr.grid(run=range(6)), curves=CURVES, chunk=chunk)
    steps, at = zip(*(stopped_by_hand(curve, 2) for curve in CURVES), strict=True)
    assert len({*steps}) > 2
    assert found["steps"].values.tolist() == list(steps)
    assert found["at"].values.tolist() == list(at)
    assert not found["diverged"].any()
    for run in range(6):
        np.testing.assert_array_equal(found["loss_by_step"][run, : steps[run]], CURVES[run, : steps[run]])
        assert np.isnan(found["loss_by_step"][run, steps[run] :]).all()
        assert found["loss"][run] == CURVES[run, steps[run] - 1]
        assert found["best"][run] == CURVES[run, at[run] - 1]


def test_who_stops_does_not_touch_the_others(monkeypatch):
    sizes, block = [], running._block
    monkeypatch.setattr(running, "_block", lambda *chunk: (sizes.append(len(chunk[1].slots)), block(*chunk))[1])

    def run(low, high):
        """Who has a rate in between stops at once; the bounds are arguments, so that the program is one."""
        descend = lambda w, rate, X, y: w - rate * X.T @ (X @ w - y)
        parts = (lambda X: jnp.ones(4), descend, lambda w, X, y: {"loss": jnp.sum((X @ w - y) ** 2), "w": w})
        stop = lambda w, rate, between: (rate > between[0]) & (rate < between[1])
        train = jr.Trainable(*parts, steps=12, every=3, stop=stop)
        sizes.clear()
        space = jr.grid(rate=np.linspace(0.001, 0.016, 16))
        return jr.sweep(train, space, chunk=16, X=X, y=Y, between=np.array([low, high]))

    calm = run(1, 2)
    assert sizes == [16] * 4
    few = run(0.0015, 0.0125)
    assert sizes == [16] * 4
    assert few["steps"].values.tolist() == [12] + [3] * 11 + [12] * 4
    most = run(0.0015, 0.0145)
    assert sizes == [16, 4, 4, 4]  # compacted as soon as a quarter is left
    assert most["steps"].values.tolist() == [12] + [3] * 13 + [12] * 2
    for name in calm:
        assert few[name].values[[0, *range(12, 16)]].tobytes() == calm[name].values[[0, *range(12, 16)]].tobytes()
        np.testing.assert_allclose(most[name][[0, 14, 15]], calm[name][[0, 14, 15]], rtol=1e-12)
    np.testing.assert_array_equal(few["loss"][1:12], calm["loss_by_step"][1:12, 0])
    everyone = run(0, 1)
    assert sizes == [16]
    assert (everyone["steps"] == 3).all()
    assert np.isnan(everyone["loss_by_step"][:, 1:]).all()
    assert not everyone["diverged"].any()


# Halving


def by_hand(losses, rungs, mode="min"):
    """(steps of each run) where `losses` is (runs, steps), NaN last, the earlier of equals first."""
    alive, steps = np.arange(len(losses)), np.zeros(len(losses), int)
    for end, keep in rungs:
        steps[alive] = end
        values = losses[alive, end - 1] * (1 if mode == "min" else -1)
        alive = np.sort(alive[np.argsort(np.where(np.isfinite(values), values, np.inf), kind="stable")[:keep]])
    return steps


@pytest.fixture
def ran(monkeypatch):
    """(configurations, steps) of each program that is run."""
    seen, real = [], running._block

    def spy(program, chunk):
        seen.append((len(chunk.slots), program.train.every))
        return real(program, chunk)

    monkeypatch.setattr(running, "_block", spy)
    return seen


@pytest.mark.parametrize("mode", ["min", "max"])
def test_halving_keeps_the_best(ran, mode):
    losses = np.random.default_rng(1).normal(size=(9, 9)).cumsum(1)
    space, train = jr.grid(run=range(9)), follow(steps=9, every=1)
    whole = jr.sweep(train, space, curves=losses)
    np.testing.assert_array_equal(whole["loss_by_step"], losses)
    ran.clear()
    rule = jr.halving("loss", factor=3, min_steps=1, mode=mode)
    found, again = (jr.sweep(train, space, chunk=9, curves=losses, halving=rule) for _ in range(2))
    assert found.drop_attrs().identical(again.drop_attrs())
    steps = by_hand(losses, [(1, 3), (3, 1), (9, 1)], mode)
    assert found["steps"].values.tolist() == steps.tolist()
    for run in range(9):
        np.testing.assert_array_equal(found["loss_by_step"][run, : steps[run]], losses[run, : steps[run]])
        assert np.isnan(found["loss_by_step"][run, steps[run] :]).all()
        assert found["loss"][run] == losses[run, steps[run] - 1]
    each = [9] + [3] * 2 + [1] * 6
    assert [size for size, _ in ran] == each * 2


def test_halving_over_seeds_and_with_static_values():
    def start(lam, seed, opt):
        return jnp.asarray(jax.random.uniform(jax.random.key(seed)) + lam)

    def walk(x, lam, opt):
        return x * (0.9 if opt == "a" else 0.8) + lam

    train = jr.Trainable(start, walk, lambda x: {"loss": x}, steps=8, every=2)
    space = jr.grid(lam=[0.3, 0.1, 0.2, 0.4], opt=["a", "b"], seed=range(3))
    whole = jr.sweep(train, space)
    found = jr.sweep(train, space, chunk=5, halving=jr.halving("loss", factor=2, min_steps=2, over="seed"))
    means = whole["loss_by_step"].mean("seed").values.reshape(8, 4)
    steps = by_hand(np.repeat(means, 2, axis=1), [(2, 4), (4, 2), (8, 2)])
    np.testing.assert_array_equal(found["steps"], np.repeat(steps, 3).reshape(4, 2, 3))
    mask = ~np.isnan(found["loss_by_step"].values)
    np.testing.assert_allclose(found["loss_by_step"].values[mask], whole["loss_by_step"].values[mask], rtol=1e-12)
    assert mask.sum() == 3 * (8 + 4 + 2 + 2)


def test_hyperband_within_a_sweep():
    losses = np.random.default_rng(2).normal(size=(17, 9)).cumsum(1)
    rule = jr.hyperband("loss", factor=3, seed=1)
    found = jr.sweep(follow(steps=9, every=1), jr.grid(run=range(17)), curves=losses, halving=rule)
    steps = np.zeros(17, int)
    for bracket in rule.brackets(17, 9, 1):
        steps[bracket.indices] = by_hand(losses[bracket.indices], bracket.rungs)
    assert found["steps"].values.tolist() == steps.tolist()
    assert sorted(steps) == [1] * 6 + [3] * 2 + [3] * 4 + [9] * 5


@pytest.mark.parametrize("mode", ["min", "max"])
def test_who_diverged_does_not_go_on(mode):
    losses = np.ones((8, 4)) + np.arange(8)[:, None]
    losses[[0, 2, 4, 6]] = [[np.nan], [np.inf], [-np.inf], [3.0]]
    train = follow(steps=4, every=1)
    tell = train.report

    def told(state, run):
        return tell(state) | {"other": jnp.where(run == 6, jnp.nan, 0.0)}  # diverged, though its loss is finite

    train = jr.Trainable(train.init, train.step, told, steps=4, every=1)
    rule = jr.halving("loss", factor=2, min_steps=1, mode=mode)
    found = jr.sweep(train, jr.grid(run=range(8)), curves=losses, halving=rule)
    assert found["diverged"].values.tolist() == [True, False] * 4
    best = [1, 3] if mode == "min" else [5, 7]
    assert found["steps"].values.tolist() == [4 if run in best else 2 if run % 2 else 1 for run in range(8)]


def test_runs_that_stopped_stay_in_the_competition():
    losses = np.array([[1.0, 2.0, 3.0, 4.0], [2.0, 1.5, 1.0, 0.5], [4.0] * 4, [5.0] * 4])
    train = follow(1, steps=4, every=1)
    rule = jr.halving("loss", factor=2, min_steps=2)
    found = jr.sweep(train, jr.grid(run=range(4)), curves=losses, halving=rule)
    assert found["steps"].values.tolist() == [2, 4, 2, 2]
    everyone = jr.sweep(train, jr.grid(run=[2, 3]), curves=losses, halving=rule)
    assert everyone["steps"].values.tolist() == [2, 2]


def test_what_a_competition_leaves_behind(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(Memory, "__exit__", lambda self, *_: kept.append(self._carries))
    losses = np.random.default_rng(1).normal(size=(9, 9))
    rule = jr.halving("loss", factor=3, min_steps=1)
    options = {"curves": losses, "halving": rule, "chunk": 9}
    without = jr.sweep(follow(steps=9, every=1), jr.grid(run=range(9)), **options)
    assert kept == [{}]
    found = jr.sweep(follow(steps=9, every=1), jr.grid(run=range(9)), store=tmp_path / "store", **options)
    assert not [*(tmp_path / "store" / "carries").iterdir()]
    for name in without:
        assert without[name].values.tobytes() == found[name].values.tobytes()


def test_progress_over_rungs(capfd):
    losses = np.random.default_rng(1).normal(size=(9, 9))
    seen = []
    jr.sweep(
        follow(steps=9, every=1),
        jr.grid(run=range(9)),
        curves=losses,
        halving=jr.halving("loss", factor=3, min_steps=1),
        chunk=9,
        progress="loss",
        callbacks=[lambda done, total, chunk: seen.append((done, total, chunk["rung"].tolist(), chunk["loss"].size))],
    )
    assert "21/21 steps" in capfd.readouterr().err  # 9 + 3·2 + 1·6
    assert [rungs for _, _, rungs, _ in seen] == [[0] * 9, [1] * 3, [2]]
    assert [size for *_, size in seen] == [9, 3, 1]
