"""The networks that the benchmarks of sweeps train: 64-64-10 with ReLU on scikit-learn's digits, by AdamW."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

STEPS, BATCH, UNITS, CLASSES = 200, 64, 64, 10


def configurations(count):
    """`count` learning rates, strengths and seeds."""
    rng = np.random.default_rng(0)
    lr, lam = np.geomspace(1e-4, 1e-2, count), rng.permutation(np.geomspace(1e-4, 1e-1, count))
    return {"lr": lr.astype(np.float32), "lam": lam.astype(np.float32), "seed": np.arange(count, dtype=np.int32)}


def weights(seed):
    """Weights by He et al., biases 0."""
    first, last = jax.random.split(jax.random.key(seed))
    w1 = jax.random.normal(first, (64, UNITS)) * (2 / 64) ** 0.5
    w2 = jax.random.normal(last, (UNITS, CLASSES)) * (2 / UNITS) ** 0.5
    return {"w1": w1, "b1": jnp.zeros(UNITS), "w2": w2, "b2": jnp.zeros(CLASSES)}


def batches(seed, x):
    """The rows of every batch."""
    return jax.random.randint(jax.random.fold_in(jax.random.key(seed), 1), (STEPS, BATCH), 0, len(x))


def start(params, lr, lam):
    """AdamW, and what a step carries."""
    tx = optax.adamw(lr, weight_decay=lam)
    return tx, (params, tx.init(params))


def step(tx, carry, rows, x, y):
    """One step: what it carries, and its loss."""
    params, state = carry

    def loss(params):
        hidden = jax.nn.relu(x[rows] @ params["w1"] + params["b1"])
        logits = hidden @ params["w2"] + params["b2"]
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

    value, grads = jax.value_and_grad(loss)(params)
    updates, state = tx.update(grads, state, params)
    return (optax.apply_updates(params, updates), state), value


def losses(params, rows, lr, lam, x, y):
    """The loss of every step, one scan."""
    tx, carry = start(params, lr, lam)
    return jax.lax.scan(lambda carry, batch: step(tx, carry, batch, x, y), carry, rows)[1]


def train(lr, lam, seed, x, y):
    """What is swept: batches of its own for every seed."""
    return {"loss": losses(weights(seed), batches(seed, x), lr, lam, x, y)[-1]}


def train_on_shared(lr, lam, seed, x, y):
    """The same batches for all models."""
    return {"loss": losses(weights(seed), batches(0, x), lr, lam, x, y)[-1]}


def products(seed, sixth=False):
    """The products of the training steps of one model, and nothing else."""
    x = jnp.sin(jnp.arange(64.0 * BATCH).reshape(BATCH, 64) + seed)
    w1, w2 = x[:64, :UNITS], x[:UNITS, :CLASSES]

    def body(carry, _):
        # behind the barrier nothing is the same in every step, so nothing is computed once for all
        x, w1, w2, *_ = jax.lax.optimization_barrier(carry)
        hidden = x @ w1
        logits = hidden @ w2
        g = logits @ w2.T
        return (x, w1, w2, x.T @ g, hidden.T @ logits, *([g @ w1.T] if sixth else [])), None

    begin = (x, w1, w2, w1, w2, *([x] if sixth else []))
    return jax.lax.scan(body, begin, None, STEPS)[0][3:]


def operations(sixth=False):
    """The floating-point operations of `products` in one step."""
    return 2 * BATCH * (UNITS * CLASSES * 3 + 64 * UNITS * (3 if sixth else 2))
