# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # jaxreg in five minutes
#
# Two nouns say *what* to regularize: a **penalty** λΩ(θ) and a **constraint** Ω(θ) ≤ k. Six verbs say *how*. One sweep runs every strength at once.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_diabetes

import jaxreg as jr

X, y = load_diabetes(return_X_y=True)
X = (X - X.mean(0)) / X.std(0)
y = (y - y.mean()) / y.std()
X_train, y_train, X_val, y_val = (jnp.asarray(a, jnp.float32) for a in (X[:300], y[:300], X[300:], y[300:]))

# %% [markdown]
# ## A penalty
#
# A penalty is a frozen pytree that acts on one array. It knows its value, its proximal operator, and what it means to be a minimiser.

# %%
lasso = jr.L1(0.5)
w = jnp.array([2.0, -0.3, 0.0])
print("value", lasso.value(w), " prox", lasso.prox(w, step=1.0), " gradient", jax.grad(lasso.value)(w))

# %% [markdown]
# ## A constraint
#
# The same Ω, bounded instead of weighed. `axis` is the axes inside one group: with `axis=0`, each column has its own ball.

# %%
ball = jr.L2Ball(1.0, axis=0)
W = jnp.array([[3.0, 0.3], [4.0, 0.4]])
print("violation per column", ball.violation(W))
print(ball.project(W))

# %% [markdown]
# ## A chain
#
# The lasso on the diabetes data, by proximal gradient descent. Zeros are exact, and the certificate says how far we are from the solution.


# %%
def loss_fn(w):
    return 0.5 * jnp.mean((X_train @ w - y_train) ** 2)


def fit(penalty, lr=0.2, steps=2000):
    tx = optax.chain(optax.sgd(lr), jr.proximal(penalty, lr))

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(jax.grad(loss_fn)(w), state, w)
        return (optax.apply_updates(w, updates), state), None

    w = jnp.zeros(X.shape[1])
    return jax.lax.scan(step, (w, tx.init(w)), None, steps)[0][0]


penalty = jr.L1(0.05)
w = fit(penalty)
print("weights", np.round(w, 3))
print("distance to the optimality condition", penalty.optimality(w, jax.grad(loss_fn)(w)))
print("smallest λ at which all weights are zero", penalty.critical(jax.grad(loss_fn)(jnp.zeros(10))))

# %% [markdown]
# The constrained twin: bound ‖w‖₁ by what the lasso reached, and let a KKT multiplier find the price. At the solution it *is* the lasso's λ.

# %%
bound = jr.L1Ball(float(jnp.sum(jnp.abs(w))))
tx = optax.chain(jr.multipliers(bound, 0.02, augmentation=0.2), optax.sgd(optax.cosine_decay_schedule(0.05, 20_000)))


def ascend(carry, _):
    v, state = carry
    updates, state = tx.update(jax.grad(loss_fn)(v), state, v)
    return (optax.apply_updates(v, updates), state), state[0].alpha


(v, state), alphas = jax.lax.scan(ascend, (jnp.zeros(10), tx.init(jnp.zeros(10))), None, 20_000)
print(
    f"λ = {penalty.lam}, multiplier α = {alphas[-1]:.4f}, largest difference of weights {jnp.max(jnp.abs(v - w)):.4f}"
)

# %% [markdown]
# ## A sweep
#
# `train` is a pure function of its hyperparameters. `sweep` vectorises it over the grid, compiles it once, and labels the results.


# %%
def train(lam):
    w = fit(jr.L1(lam))
    return {"weights": w, "zeros": jnp.mean(w == 0), "error": jnp.mean((X_val @ w - y_val) ** 2)}


runs = jr.sweep(train, jr.grid(lam=np.geomspace(1e-3, 0.5, 60)))
best = float(runs["error"].idxmin())
print(runs)

# %% [markdown]
# ## A picture

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
left.semilogx(runs["lam"], runs["weights"])
left.set(xlabel="strength λ", ylabel="weight (standardised inputs)", title="lasso path: 60 models, one program")
right.semilogx(runs["lam"], runs["error"], color=jr.plotting.COLOURS[0])
right.set(xlabel="strength λ", ylabel="validation error (variance of y = 1)", title=f"best λ = {best:.3g}")
for ax in (left, right):
    ax.axvline(best, color="0.6", linestyle=":")
