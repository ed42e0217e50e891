"""The risk of ridge regression in closed form, as dimension d and samples n grow with d/n = γ.

x ~ N(0, I_d), y = x·β + σε, ‖β‖ = r; w = (XᵀX/n + λI)⁻¹Xᵀy/n, and the excess risk is ‖w − β‖².

References:
    T. Hastie, A. Montanari, S. Rosset, R. Tibshirani (2022), Surprises in high-dimensional ridgeless least squares
    interpolation, Annals of Statistics 50(2), the isotropic case.
"""

import numpy as np


def risk(gamma, lam, noise: float, norm: float = 1.0) -> np.ndarray:
    """σ²γ(m − λm') + r²λ²m', m the Stieltjes transform of Marchenko and Pastur's law at −λ, m' = −dm/dλ."""
    gamma, lam = np.broadcast_arrays(np.asarray(gamma, float), np.asarray(lam, float))
    shift = 1 - gamma + lam
    root = np.sqrt(shift**2 + 4 * gamma * lam)
    stable = 4 * gamma * lam / np.where(shift > 0, 1, root - shift)  # root + shift where that would cancel
    below = np.where(shift > 0, root + shift, stable)
    m, slope = 2 / below, 2 * (1 + (1 + gamma + lam) / root) / below**2
    return noise**2 * gamma * (m - lam * slope) + norm**2 * lam**2 * slope


def ridgeless(gamma, noise: float, norm: float = 1.0) -> np.ndarray:
    """The limit as λ → 0: σ²γ/(1 − γ) for γ < 1, r²(1 − 1/γ) + σ²/(γ − 1) beyond."""
    gamma = np.asarray(gamma, float)
    with np.errstate(divide="ignore"):
        return np.where(gamma < 1, noise**2 * gamma / (1 - gamma), norm**2 * (1 - 1 / gamma) + noise**2 / (gamma - 1))


def ridgeless_finite(dim: int, n: int, noise: float, norm: float = 1.0) -> float:
    """The limit as λ → 0 for finite d and n, |n − d| > 1: exact, by the mean of an inverse Wishart matrix."""
    bias = norm**2 * max(0, 1 - n / dim)
    return bias + noise**2 * min(n, dim) / (abs(n - dim) - 1)


def optimal_lam(gamma, noise: float, norm: float = 1.0):
    """The λ of least risk, σ²γ/r²."""
    return noise**2 * np.asarray(gamma) / norm**2
