"""Norm and angle per step of scale-invariant weights, where steps lengthen them as much as decay shortens them.

η is the learning rate, λ the decay, C the fan-in, a SGD's momentum, β₁ AdamW's; |g| = |g̃|/‖w‖ across w, L = E|g̃|². For
small ηλ, as published:

    SGD            ‖w‖⁴ = ηL/(λ(2 − ηλ))      angle per step √(2ηλ)
    momentum a     ‖w‖⁴ = ηL/(2λ(1 − a))      √(2ηλ/(1 + a))
    AdamW          ‖w‖² = ηC/(2λ)             √(2ηλ(1 − β₁)/(1 + β₁))

For any ηλ, `balance` solves for the fixed point of E‖w‖², E w·m and E‖m‖², m the momentum, with E w·g = E m·g = 0, for
AdamW with E|g/√v|² = C. The two differ by a share of about ηλ in SGD, but AdamW's norm is lower than published by a
share of ηλβ₁/(1 − β₁²), 1 % at ηλ = .002.

References:
    van Laarhoven (2017), L2 regularization versus batch and weight normalization; Wan et al. (2020), Spherical motion
    dynamics; Kosson, Messmer and Jaggi (2023), Rotational equilibrium, table 1.
"""

import jax.numpy as jnp


def printed(rule, lr, lam, strength, fan_in, momentum, b1):
    """Norm and angle by the published formulas."""
    if rule == "AdamW":
        return jnp.sqrt(lr * fan_in / (2 * lam)), jnp.sqrt(2 * lr * lam * (1 - b1) / (1 + b1))
    if rule == "SGD":
        return (lr * strength / (lam * (2 - lr * lam))) ** 0.25, jnp.sqrt(2 * lr * lam)
    return (lr * strength / (2 * lam * (1 - momentum))) ** 0.25, jnp.sqrt(2 * lr * lam / (1 + momentum))


def balance(rule, lr, lam, strength, fan_in, momentum, b1):
    """Norm and angle θ at the fixed point of the second moments, for any ηλ, by 2 sin²(θ/2) = 1 − cos θ."""
    if rule == "AdamW":
        loss = lr * lam
        kept = (1 - loss) * b1
        square = lr**2 * fan_in * (1 - b1) / (1 + b1) * (1 + kept) / ((1 - kept) * loss * (2 - loss))
        norm, turn = jnp.sqrt(square), loss * (1 - b1) / (1 + kept)
    else:
        a = momentum if rule == "momentum" else 0.0
        turn = lr * lam / (1 + a)
        norm = (lr * strength / (lam * (1 - a) * (2 - turn))) ** 0.25
    return norm, 2 * jnp.arcsin(jnp.sqrt(turn / 2))
