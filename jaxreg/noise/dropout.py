"""Noise that takes away: entries, channels, weights or whole branches."""

import jax
import jax.numpy as jnp

from jaxreg.arrays import is_floating, safe_sqrt, widest
from jaxreg.noise.arguments import axes_of, floating, number, valid
from jaxreg.pytree import flatten, pairs

SELU_FLOOR = -1.0507009873554805 * 1.6732632423543772  # what SELU tends to on the left: −λα


def dropout(key, x, rate, *, broadcast_dims=()) -> jax.Array:
    r"""x∘m/(1 − rate), the entries of m being 1 with probability 1 − rate, else 0.

    Mean x, variance x²·rate/(1 − rate). On a linear model it is a ridge penalty on columns scaled to one norm.

    The mask is that of `flax.linen.Dropout` from the same key (without x64, in which Flax draws other numbers). In a
    Flax module use theirs, which knows training from evaluation; it needs its rate when it is traced. Here the rate
    may be traced, so it can be swept or learned; a traced one outside [0, 1] gives NaN.

    Args:
        key: a key of `jax.random`.
        x: an array of a floating dtype.
        rate: the share to drop, in [0, 1]. 0 returns x bit for bit; 1 returns zeros.
        broadcast_dims: axes along which all entries share one fate: (1, 2) of NHWC images drops whole channels
            (spatial dropout), 1 of (batch, time, features) the same features at all times.

    Returns:
        An array of the shape and dtype of `x`; masks are drawn in float32, whatever the dtype.

    Raises:
        ValueError: if a literal rate is outside [0, 1], or is not one number, or x lacks an axis.
        TypeError: if x is not of a floating dtype, or the rate is no number.

    In a module: `jr.noise.dropout(self.make_rng("dropout"), h, rate)` in linen, `self.rngs.dropout()` in nnx.

    >>> dropout(jax.random.key(0), jnp.ones(6), 0.5).tolist()
    [0.0, 0.0, 2.0, 2.0, 0.0, 2.0]
    >>> rates = jnp.array([0.0, 0.5, 1.0])
    >>> jax.vmap(lambda rate: dropout(jax.random.key(0), jnp.ones(6), rate))(rates).sum(1).tolist()
    [6.0, 6.0, 0.0]

    References:
        Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, 2014, section 4 and 9.1.
        Tompson et al., Efficient object localization using convolutional networks, 2015, section 3.2 (channels).
    """
    return _dropout(key, x, rate, broadcast_dims, "dropout")


def _dropout(key, x, rate, broadcast_dims, api):
    x, rate = floating(x, api), number(rate, api, "rate", 0, 1)
    kept = _kept(key, x, rate, axes_of(broadcast_dims, x, api, "broadcast_dims"))
    work = widest([x.dtype])
    keep = 1 - rate.astype(work)
    # A product, not a quotient, which XLA would round otherwise for a rate that it knows.
    dropped = valid(jnp.zeros_like(keep), ~jnp.isnan(keep))
    return jnp.where(kept, x * (1 / jnp.where(keep > 0, keep, 1)), dropped).astype(x.dtype)


def _kept(key, x, rate, shared):
    """The mask. In float32 for all rates and arrays, so that x64 and tracing change no draw."""
    shape = tuple(1 if axis in shared else n for axis, n in enumerate(x.shape))
    return jax.random.uniform(key, shape, jnp.float32) < 1 - rate.astype(jnp.float32)


def alpha_dropout(key, x, rate, *, broadcast_dims=()) -> jax.Array:
    r"""Dropout for SELU networks: a·(x∘m + α′(1 − m)) + b, α′ = −λα ≈ −1.7581 being the least value of SELU.

    With q = 1 − rate, a = (q + α′²q(1 − q))^(−½) and b = −a(1 − q)α′ keep mean 0 and variance 1 where x has them.
    Given x, the mean is a(qx + (1 − q)α′) + b and the variance a²q(1 − q)(x − α′)². Put it after `jax.nn.selu`.

    Flax and JAX have none. Keras' `AlphaDropout` and `torch.nn.AlphaDropout` are equal to it in law.

    Args:
        key: a key of `jax.random`.
        x: an array of a floating dtype.
        rate: the share to set to α′, in [0, 1]. 0 returns x bit for bit; 1 returns zeros, the limit of aα′ + b.
        broadcast_dims: axes along which all entries share one fate, as for `dropout`.

    Returns:
        An array of the shape and dtype of `x`.

    Raises:
        ValueError: if a literal rate is outside [0, 1], or is not one number, or x lacks an axis.
        TypeError: if x is not of a floating dtype, or the rate is no number.

    >>> x = jax.nn.selu(jax.random.normal(jax.random.key(0), (1000, 100)))
    >>> dropped = alpha_dropout(jax.random.key(1), x, 0.3)
    >>> print(f"{abs(dropped.mean()):.1f} {dropped.var():.1f}")
    0.0 1.0

    References:
        Klambauer et al., Self-normalizing neural networks, 2017, section "New dropout technique".
    """
    x, rate = floating(x, "alpha_dropout"), number(rate, "alpha_dropout", "rate", 0, 1)
    kept = _kept(key, x, rate, axes_of(broadcast_dims, x, "alpha_dropout", "broadcast_dims"))
    rate = rate.astype(widest([x.dtype]))
    q, spread = 1 - rate, 1 + SELU_FLOOR**2 * rate
    a = jax.lax.rsqrt(jnp.where(q > 0, q, 1) * spread)
    off = SELU_FLOOR * safe_sqrt(q / spread)  # aα′ + b, which is ∞ − ∞ at rate 1
    return jnp.where(rate == 0, x, jnp.where(kept, a * (x - SELU_FLOOR * rate), off)).astype(x.dtype)


def drop_connect(key, w, rate):
    r"""w∘m/(1 − rate): dropout of weights, on a kernel or on a whole tree of parameters.

    Mean w, variance w²·rate/(1 − rate). A batch that meets one draw shares its mask; the paper draws one for each
    example: `jax.vmap(lambda key, x: model(drop_connect(key, params, rate), x))(keys, batch)`.

    Args:
        key: a key of `jax.random`; each leaf of a tree has its own from it.
        w: an array of a floating dtype, or a tree of parameters, whose other leaves are left alone.
        rate: the share to drop, in [0, 1], or a tree prefix of `w` with None for "leave alone".

    Returns:
        What `w` is, with the same shapes and dtypes.

    Raises:
        ValueError: if a literal rate is outside [0, 1], or is not one number, or the rates are no prefix of `w`.
        TypeError: if an array alone is not of a floating dtype, or a rate is no number.

    >>> params = {"bias": jnp.ones(2), "kernel": jnp.ones((3, 2))}
    >>> drop_connect(jax.random.key(0), params, {"bias": None, "kernel": 0.5})["kernel"].tolist()
    [[2.0, 2.0], [0.0, 2.0], [2.0, 2.0]]

    References:
        Wan et al., Regularization of neural networks using DropConnect, 2013, eq. 5 (without the factor, which keeps
        the mean, so that evaluation takes w itself).
    """
    if jax.tree_util.all_leaves([w]):
        return _dropout(key, w, rate, (), "drop_connect")
    try:
        matched, structure = pairs(rate, w)
    except ValueError:
        paths = ["/".join(path) for path, _ in flatten(w)[0]]
        raise ValueError(
            "`drop_connect` needs one rate, or a tree prefix of the parameters with rates and None, such as "
            f"{{'head': None, 'hidden': {{'kernel': 0.5, 'bias': None}}}}; got {rate!r} for the parameters {paths}."
        ) from None
    keys = jax.random.split(key, max(len(matched), 1))[: len(matched)]
    dropped = [
        leaf if share is None or not is_floating(leaf) else _dropout(k, leaf, share, (), "drop_connect")
        for k, (_, share, leaf) in zip(keys, matched, strict=True)
    ]
    return jax.tree.unflatten(structure, dropped)


def drop_path(key, x, rate, *, batch_axis: int = 0) -> jax.Array:
    r"""Stochastic depth: a whole residual branch x of each example is dropped, or kept and divided by 1 − rate.

    Mean x, variance x²·rate/(1 − rate), all entries of an example together. For h + drop_path(key, branch(h), rate).
    The rate often grows with the depth l of L blocks: rate·l/L.

    Args:
        key: a key of `jax.random`.
        x: what the branch puts out, an array of a floating dtype.
        rate: the share of examples whose branch is dropped, in [0, 1]. 0 returns x bit for bit; 1 returns zeros.
        batch_axis: the axis of the examples.

    Returns:
        An array of the shape and dtype of `x`.

    Raises:
        ValueError: if a literal rate is outside [0, 1], or is not one number, or x has no axis `batch_axis`.
        TypeError: if x is not of a floating dtype, or the rate is no number.

    >>> drop_path(jax.random.key(0), jnp.ones((4, 3)), 0.5).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]

    References:
        Huang et al., Deep networks with stochastic depth, 2016, eq. 2, 4 and 5 (they scale at test time instead).
    """
    x = floating(x, "drop_path")
    batch = axes_of(batch_axis, x, "drop_path", "batch_axis")
    return _dropout(key, x, rate, tuple(a for a in range(x.ndim) if a not in batch), "drop_path")
