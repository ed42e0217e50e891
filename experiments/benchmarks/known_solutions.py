"""Convex problems with constraints whose parameters and multipliers are known exactly."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Problem(NamedTuple):
    """min f(θ) s.t. Mθ ≤ r or Mθ = r.

    Attributes:
        name: what it is called.
        loss: `loss(θ, xp)` -> f, for xp = jax.numpy or torch.
        rows: (M, r) of each kind, "equality" and "inequality".
        start: θ_0.
        solution: θ*.
        multipliers: α*, by kind.
        rates: of θ and of α.
        gain: the damping of the methods that have it.
        steps: enough for all of them.
    """

    name: str
    loss: Callable
    rows: dict
    start: np.ndarray
    solution: np.ndarray
    multipliers: dict
    rates: tuple[float, float]
    gain: float
    steps: int

    def violations(self, x):
        """Signed violations by kind."""
        return {kind: m @ x - r for kind, (m, r) in self.rows.items()}


def die():
    """The die of largest entropy among those of mean 4.5."""
    faces = np.arange(1.0, 7.0)
    low, high = -2.0, 2.0
    for _ in range(60):  # the mean falls in the multiplier
        mid = (low + high) / 2
        p = np.exp(-mid * faces) / np.exp(-mid * faces).sum()
        low, high = (mid, high) if p @ faces > 4.5 else (low, mid)
    rows = {"equality": (np.stack([faces, np.ones(6)]), np.array([4.5, 1.0]))}
    multipliers = {"equality": np.array([mid, np.log(np.exp(-mid * faces).sum()) - 1])}
    entropy = lambda p, xp: (p * xp.log(p)).sum()  # noqa: E731
    return Problem("die", entropy, rows, np.full(6, 1 / 6), p, multipliers, (0.01, 0.05), 0.1, 9000)


def least_norm(n, inequalities, equalities, seed):
    """min ‖θ‖² under random rows, built from its solution: half of the inequalities are active, with multipliers."""
    rng = np.random.default_rng(seed)
    a, c = (rng.normal(size=(m, n)) / n**0.5 for m in (inequalities, equalities))
    active = np.arange(inequalities) < inequalities // 2
    alpha = np.where(active, rng.uniform(0.5, 1.5, inequalities), 0.0)
    mu = rng.normal(size=equalities)
    x = -(a.T @ alpha + c.T @ mu) / 2
    rows = {"equality": (c, c @ x), "inequality": (a, a @ x + np.where(active, 0.0, rng.uniform(0.2, 1, len(alpha))))}
    multipliers, name = {"equality": mu, "inequality": alpha}, f"{n}/{inequalities}/{equalities}, seed {seed}"
    steps = 1500 if inequalities + equalities > n / 2 else 400  # rows that are nearly dependent take long
    loss = lambda x, xp: (x * x).sum()  # noqa: E731
    return Problem(name, loss, rows, np.zeros(n), x, multipliers, (0.1, 0.5), 1.0, steps)
