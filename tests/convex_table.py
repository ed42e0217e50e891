"""Every datafit, one row each: what its laws and its certificates are tested on."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxreg import convex


@dataclass(frozen=True)
class Row:
    """One datafit.

    Attributes:
        name: what the row is called.
        datafit: it.
        draw: (rng, outputs of shape (n, 3)) -> y with something of them in it.
        best: encoded y -> the outputs of least loss, or near them where they are infinite.
        outside: u out of the domain of the conjugate, whatever y is; None where there is none.
    """

    name: str
    datafit: convex.Datafit
    draw: Callable
    best: Callable
    outside: float | None = None

    def __str__(self):
        return self.name.replace(" ", "_")

    def data(self, n=20, p=4, seed=0):
        """X, y as a user gives it, and y encoded."""
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(n, p)) @ (np.eye(p) + 0.5) + 1
        y = self.draw(rng, X @ rng.normal(size=(p, 3)) / 3)
        return X, y, self.datafit.encode(y)[0]


def saturated_logits(y):
    return 1e3 * (2 * y - 1)


def noisy(rng, z):
    return z + rng.standard_t(2, size=z.shape)


def labels(rng, z):
    """Three labels, each present."""
    y = np.argmax(z + rng.gumbel(size=z.shape), 1)
    y[:3] = 0, 1, 2
    return np.array(["ant", "bee", "cat"])[y]


def two(rng, z):
    y = z[:, 0] + rng.logistic(size=len(z)) > 0
    y[:2] = False, True
    return y


def log_or_far(y):
    return np.where(y > 0, np.log(np.maximum(y, 1)), -1e3)


DATAFITS = [
    Row("squared", convex.Squared(), lambda rng, z: noisy(rng, z)[:, 0], lambda y: y),
    Row("squared, three targets", convex.Squared(), noisy, lambda y: y),
    Row("logistic", convex.Logistic(), two, saturated_logits, 1.5),
    Row("multinomial", convex.Multinomial(), labels, saturated_logits, 0.7),
    Row("huber", convex.Huber(0.7), lambda rng, z: noisy(rng, z)[:, 0], lambda y: y, 0.8),
    Row("huber, three targets", convex.Huber(), noisy, lambda y: y, -1.4),
    Row("poisson", convex.Poisson(), lambda rng, z: rng.poisson(np.exp(z[:, 0])), log_or_far, -100.0),
    Row("poisson, three targets", convex.Poisson(), lambda rng, z: rng.poisson(np.exp(z)) + 0.5, np.log, -100.0),
]
