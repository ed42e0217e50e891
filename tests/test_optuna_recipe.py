"""The recipe of the README: Optuna proposes a list of configurations, one sweep trains them all."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import optuna
import pytest

import jaxreg as jr


def train(lr, lam, X, y, optimizer="sgd"):
    """Ridge by a few steps; `optimizer` is static."""

    def step(w, _):
        gradient = X.T @ (X @ w - y) / len(y) + lam * w
        return w - lr * (jnp.sign(gradient) if optimizer == "sign" else gradient), None

    w, _ = jax.lax.scan(step, jnp.zeros(3), None, 20)
    return {"loss": jnp.mean((X @ w - y) ** 2)}


@pytest.fixture
def problem():
    X = jax.random.normal(jax.random.key(0), (40, 3))
    return {"X": X, "y": X @ jnp.array([1.0, -2.0, 0.5])}


def test_optuna_drives_sweeps(problem):
    calls, said = [], optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def counted(**arguments):
        calls.append(1)
        return train(**arguments)

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, constant_liar=True))
    for _ in range(3):
        trials = [study.ask() for _ in range(8)]
        rows = [
            {
                "lr": trial.suggest_float("lr", 1e-3, 1.0, log=True),
                "lam": trial.suggest_float("lam", 1e-4, 1.0, log=True),
                "optimizer": trial.suggest_categorical("optimizer", ["sgd", "sign"]),
            }
            for trial in trials
        ]
        runs = jr.sweep(counted, rows, **problem)
        for trial, loss, diverged in zip(trials, runs["loss"].values, runs["diverged"].values, strict=True):
            state = optuna.trial.TrialState.FAIL if diverged else optuna.trial.TrialState.COMPLETE
            study.tell(trial, None if diverged else float(loss), state)

    optuna.logging.set_verbosity(said)
    assert len(study.trials) == 24
    best = study.best_trial
    assert best.value == pytest.approx(float(train(**best.params, **problem)["loss"]), rel=1e-6)
    assert study.best_value < 0.05
    for trial in study.trials[-8:]:  # each loss was told to the trial that asked for it
        assert trial.value == pytest.approx(float(train(**trial.params, **problem)["loss"]), rel=1e-6)
    assert len(calls) <= 6  # at most two sets of static values in each of three batches


def test_the_lines_of_the_readme(problem):
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    (block,) = re.findall(r"^```py\n(study = optuna.*?)^```", readme, re.M | re.S)

    def noisy(lr, lam, seed, data):
        return {"loss": train(lr, lam, **data)["loss"] + 1e-9 * seed}

    names = {"optuna": optuna, "jr": jr, "train": noisy, "data": problem}
    exec(block.replace("range(20)", "range(3)"), names)
    assert len(names["study"].trials) == 24
    assert names["study"].best_value < 0.1
