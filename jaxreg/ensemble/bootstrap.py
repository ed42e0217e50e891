"""Bootstrap samples as weights of the examples."""

import operator

import jax
import jax.numpy as jnp


def bootstrap_weights(key, n: int, members: int | None = None) -> jax.Array:
    r"""How often each of n examples is among n drawn with replacement: multinomial counts, which sum to n.

    A weighted loss Σwᵢℓᵢ/Σwᵢ is then the loss of a bootstrap sample, without a copy of the data. Each wᵢ has mean 1 and
    variance 1 − 1/n; a share (1 − 1/n)ⁿ ≈ .368 of the examples has w = 0: they are out of bag, to test the member on.

    Args:
        key: a key of `jax.random`.
        n: the number of examples, an int ≥ 1.
        members: how many samples, an int ≥ 1; None for one, without a leading axis.

    Returns:
        float32 of shape (members, n) or (n,).

    Raises:
        TypeError: if `n` or `members` is no int.
        ValueError: if one of them is below 1.

    >>> weights = bootstrap_weights(jax.random.key(0), 100, members=5)
    >>> weights.sum(1).tolist()
    [100.0, 100.0, 100.0, 100.0, 100.0]

    References:
        Breiman, Bagging predictors, 1996; Efron, Bootstrap methods: another look at the jackknife, 1979.
    """
    n, lead = _sizes("bootstrap_weights", n, members)
    drawn = jax.random.randint(key, (*lead, n), 0, n)
    each = jnp.vectorize(lambda drawn: jnp.zeros(n, jnp.float32).at[drawn].add(1), signature="(n)->(n)")
    return each(drawn)


def bayesian_bootstrap_weights(key, n: int, members: int | None = None) -> jax.Array:
    r"""n times Dirichlet(1, …, 1): the smooth bootstrap, in which no example is left out; sums to n up to rounding.

    Args:
        key: a key of `jax.random`.
        n: the number of examples, an int ≥ 1.
        members: how many samples, an int ≥ 1; None for one, without a leading axis.

    Returns:
        float32 of shape (members, n) or (n,); each weight has mean 1 and variance (n − 1)/(n + 1).

    Raises:
        TypeError: if `n` or `members` is no int.
        ValueError: if one of them is below 1.

    >>> weights = bayesian_bootstrap_weights(jax.random.key(0), 100, members=5)
    >>> weights.shape, bool(jnp.all(weights > 0))
    ((5, 100), True)

    References:
        Rubin, The Bayesian bootstrap, 1981.
    """
    n, lead = _sizes("bayesian_bootstrap_weights", n, members)
    spaces = jnp.maximum(jax.random.exponential(key, (*lead, n), jnp.float32), 2.0**-32)  # 0 in one of 2²⁵ draws
    return n * (spaces / jnp.sum(spaces, -1, keepdims=True))


def _sizes(api, n, members) -> tuple[int, tuple[int, ...]]:
    sizes = {"n": n} | ({} if members is None else {"members": members})
    for name, size in sizes.items():
        if isinstance(size, (bool, float, jax.Array)):  # a shape: traced it cannot be
            raise TypeError(f"`{api}` needs an int as `{name}`, got {size!r}.")
        try:
            sizes[name] = operator.index(size)
        except TypeError:
            raise TypeError(f"`{api}` needs an int as `{name}`, got {size!r}.") from None
        if sizes[name] < 1:
            raise ValueError(f"`{api}` needs `{name}` >= 1, got {size}.")
    return sizes["n"], () if members is None else (sizes["members"],)
