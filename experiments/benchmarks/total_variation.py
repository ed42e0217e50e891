"""Total variation's prox against a compiled O(n) loop, a sequential O(n) loop in XLA, and an approximate solver.

`python -m experiments.benchmarks.total_variation` prints one table and writes it to `experiments/results/`. Contenders
run in turn, `ROUNDS` rounds; ratios are medians over rounds, with a 95 % bootstrap interval. Compiling is timed apart.
"""

import functools
import importlib.util
import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxreg as jr
from experiments.benchmarks import rounds

ROUNDS = 12
LAM = 3.0


def condat(y, lam):
    """Total variation's prox of one chain: Condat's direct algorithm, as published.

    References:
        Condat, A direct algorithm for 1-D total variation denoising, 2013.
    """
    n, x = len(y), np.zeros_like(y)
    k = start = low_end = high_end = 0
    low, high, u_low, u_high = y[0] - lam, y[0] + lam, lam, -lam
    while True:
        if k == n - 1:
            if u_low < 0:
                x[start : low_end + 1] = low
                k = start = low_end = low_end + 1
                low, u_low, u_high = y[k], lam, y[k] + lam - high
            elif u_high > 0:
                x[start : high_end + 1] = high
                k = start = high_end = high_end + 1
                high, u_high, u_low = y[k], -lam, y[k] - lam - low
            else:
                x[start:] = low + u_low / (k - start + 1)
                return x
        else:
            u_low += y[k + 1] - low
            u_high += y[k + 1] - high
            if u_low < -lam:
                x[start : low_end + 1] = low
                k = start = high_end = low_end = low_end + 1
                low, high, u_low, u_high = y[k], y[k] + 2 * lam, lam, -lam
            elif u_high > lam:
                x[start : high_end + 1] = high
                k = start = low_end = high_end = high_end + 1
                low, high, u_low, u_high = y[k] - 2 * lam, y[k], lam, -lam
            else:
                k += 1
                if u_low >= lam:
                    low_end = k
                    low += (u_low - lam) / (k - start + 1)
                    u_low = lam
                if u_high <= -lam:
                    high_end = k
                    high += (u_high + lam) / (k - start + 1)
                    u_high = -lam


def johnson(z, lam):
    """The same as a dynamic program in one `lax.while_loop`, a knot or an entry an iteration.

    References:
        Johnson, A dynamic programming algorithm for the fused lasso and L0-segmentation, 2013.
    """
    n = len(z)
    zeros = jnp.zeros_like(z)
    knots = jnp.zeros((3, 2 * n + 1), z.dtype)  # place, change of slope, change of intercept

    def body(carry):
        i, left, right, (a, b), (c, d), knots, lows, highs = carry
        limit = jnp.where(i == n - 1, 0, lam)
        some = left <= right
        first, last = knots[:, left], knots[:, right]
        pop_left = some & (a * first[0] + b < -limit)
        pop_right = some & (c * last[0] + d > limit)
        stay = pop_left | pop_right
        low, high = (-limit - b) / a, (limit - d) / c
        lows, highs = (v.at[i].set(jnp.where(stay, v[i], w)) for v, w in ((lows, low), (highs, high)))
        knots = knots.at[:, jnp.where(stay, 2 * n, left - 1)].set(jnp.stack([low, a, b + limit]))
        knots = knots.at[:, jnp.where(stay, 2 * n, right + 1)].set(jnp.stack([high, -c, limit - d]))
        after = z[jnp.minimum(i + 1, n - 1)]
        a = jnp.where(stay, a + jnp.where(pop_left, first[1], 0), 1)
        b = jnp.where(stay, b + jnp.where(pop_left, first[2], 0), -limit - after)
        c = jnp.where(stay, c - jnp.where(pop_right, last[1], 0), 1)
        d = jnp.where(stay, d - jnp.where(pop_right, last[2], 0), limit - after)
        left = jnp.where(stay, left + pop_left, left - 1)
        right = jnp.where(stay, right - pop_right, right + 1)
        return jnp.where(stay, i, i + 1), left, right, (a, b), (c, d), knots, lows, highs

    one = jnp.ones((), z.dtype)
    carry = (0, n, n - 1, (one, -z[0]), (one, -z[0]), knots, zeros, zeros)
    *_, lows, highs = jax.lax.while_loop(lambda carry: carry[0] < n, body, carry)
    return jax.lax.scan(lambda x, w: (jnp.clip(x, *w),) * 2, lows[-1], (lows, highs), reverse=True)[1]


def contenders(n, columns):
    """{name: function of chains (n, columns)}, those that are installed; ours first."""

    def on_device(solve):
        compiled = jax.jit(solve)
        return lambda z: np.asarray(compiled(z))

    def one_by_one(solve):
        return lambda z: np.stack([solve(np.ascontiguousarray(chain)) for chain in z.T], 1)

    found = {
        "jaxreg": on_device(lambda z: jr.TotalVariation(LAM, axis=0).prox(z, 1.0)),
    }
    if columns == 1 and n <= 10_000:  # XLA copies the knots in every iteration: quadratic, and worse under vmap
        found["XLA loop"] = on_device(lambda z: johnson(z[:, 0], LAM)[:, None])
    if importlib.util.find_spec("numba"):
        import numba

        compiled = numba.njit(condat)
        found["numba Condat"] = one_by_one(lambda chain: compiled(chain, np.float32(LAM)))
    if importlib.util.find_spec("skimage") and columns == 1:
        from skimage.restoration import denoise_tv_chambolle

        found["skimage"] = one_by_one(lambda chain: denoise_tv_chambolle(chain, weight=LAM))
    return found


def measure(n, columns, rng):
    """One row of the table per contender: first call, time, ratio of times to ours, largest error."""
    z = np.cumsum(rng.normal(size=(n, columns)), 0).astype(np.float32)
    exact = np.stack([condat(chain, LAM) for chain in z.astype(np.float64).T[:8]], 1)
    found, first, error = contenders(n, columns), {}, {}
    for name, solve in found.items():
        begin = time.perf_counter()
        x = solve(z)
        first[name], error[name] = time.perf_counter() - begin, float(np.abs(x[:, :8] - exact).max())
    seconds = rounds.in_turn({name: functools.partial(solve, z) for name, solve in found.items()}, ROUNDS)
    rows = []
    for name, times in seconds.items():
        ratio, interval = rounds.ratio(times, seconds["jaxreg"])
        row = {"n": n, "columns": columns, "contender": name, "first call, s": first[name], "error": error[name]}
        rows.append(row | {"ms": 1e3 * np.median(times), "times ours": ratio, "interval": interval})
    return rows


def main():
    """Print the table and write it."""
    rng = np.random.default_rng(0)
    rows = []
    print(
        f"{'n':>7} {'columns':>7}  {'contender':<13} {'first, s':>8} {'ms':>9} {'times ours':>10}  interval       error"
    )
    for n, columns in [(1_000, 1), (10_000, 1), (100_000, 1), (128, 784)]:
        for row in measure(n, columns, rng):
            low, high = row["interval"]
            print(
                f"{n:>7} {columns:>7}  {row['contender']:<13} {row['first call, s']:8.2f} {row['ms']:9.3f} "
                f"{row['times ours']:10.3f}  {low:.3f}–{high:.3f}  {row['error']:.1e}"
            )
            rows.append(row)
    rounds.write("total_variation", rounds=ROUNDS, lam=LAM, rows=rows)


if __name__ == "__main__":
    main()
