"""The lasso's path, knot by knot: between knots the solution is linear in λ."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxreg.convex.programs import program

DEPENDENT = 1e-10  # of its square, what of a column is not in the span of the active ones


class Knots(NamedTuple):
    """w(λ) = fixed − λ·slope from each knot up to the one before."""

    lam: jax.Array  # (most,), descending
    fixed: jax.Array  # (most, p)
    slope: jax.Array  # (most, p)
    count: jax.Array
    tableau: jax.Array  # at the last, to go on from there
    signs: jax.Array  # (p,), likewise


@program(small=2**17, static_argnames="most")
def homotopy(gram, start, strength, signs, lam_max, lam_min, most: int) -> Knots:
    r"""Every knot of argmin_w ½‖w‖²_G − ⟨c, w⟩ + λΣ sⱼ|wⱼ| from `lam_max` down to `lam_min`.

    A tableau holds −G_AA⁻¹, G_AA⁻¹G_AB and the Schur complement of the active set A, and, in two rows more, u and v
    with w_A = (u − λv)_A and the correlations c_B = (u − λv)_B. At a knot one weight enters or leaves: one pivot, a
    matrix of rank one. Directions decide who may enter or leave, so that ties are taken one after another at one λ.

    Args:
        gram: (p, p), G.
        start: the tableau at `lam_max`, (p + 2, p).
        strength: (p,), s > 0.
        signs: (p,), s times the signs of the solution at `lam_max`; zeros if it is 0.
        lam_max: where to begin.
        lam_min: where to stop.
        most: knots to stop at.

    Rounding adds up over pivots: the duality gap of the result says how much.

    References:
        Osborne, Presnell and Turlach, A new approach to variable selection in least squares problems, 2000;
        Efron, Hastie, Johnstone and Tibshirani, Least angle regression, 2004, section 3.1.
    """
    p = gram.shape[0]
    row, column = jnp.arange(p + 2, dtype=jnp.int32)[:, None], jnp.arange(p, dtype=jnp.int32)[None]
    diagonal = jnp.diagonal(gram)

    def look(tableau, left, signs, lam) -> _Knot:
        """The next knot below λ: who enters or leaves there."""
        u, v = tableau[p], tableau[p + 1]
        active = signs != 0
        # A column that depends on the active ones keeps its place between the bounds for as long as they are active.
        free = ~active & (left > DEPENDENT * diagonal)
        # λ at which a correlation reaches ±λs, for those that approach it; at which a weight reaches 0, likewise.
        above = jnp.where(strength + v > 0, u / (strength + v), -jnp.inf)
        below = jnp.where(strength - v > 0, -u / (strength - v), -jnp.inf)
        zero = jnp.where(signs * v < 0, u / v, -jnp.inf)
        reached = jnp.where(active, zero, jnp.where(free, jnp.maximum(above, below), -jnp.inf))
        j = jnp.argmax(reached).astype(jnp.int32)
        leaves = signs[j] != 0
        sign = jnp.where(leaves, signs[j], jnp.where(above[j] >= below[j], strength[j], -strength[j]))
        pivots = jax.lax.dynamic_index_in_dim(tableau, j, 0, False)
        ends = jnp.stack([u[j], jnp.where(leaves, v[j], v[j] + sign)])
        line = jnp.where(active, jnp.stack([u, v]), 0)
        return _Knot(jnp.minimum(reached[j], lam), j, leaves, sign, pivots, ends), line

    def unfinished(carry):
        return (carry[0] < most) & (carry[1].lam > lam_min)

    def step(carry):
        # The pivots were read when the knot was found: to read them here would make XLA copy the tableau.
        k, knot, tableau, left, signs, ends, lines = carry
        inverse = 1 / knot.pivots[knot.j]
        signed = jnp.where(knot.leaves, -inverse, inverse)
        multiples = jnp.concatenate([knot.pivots, knot.ends])[:, None]
        in_row, in_column = row == knot.j, column == knot.j
        new = tableau - multiples * (knot.pivots * inverse)[None]
        new = jnp.where(in_row, knot.pivots[None] * signed, new)
        new = jnp.where(in_column, multiples * signed, new)
        new = jnp.where(in_row & in_column, -inverse, new)
        tableau = jnp.where(knot.leaves & in_column & (row == p + 1), new - knot.sign, new)
        left = jnp.where(in_column[0], -inverse, left - jnp.square(knot.pivots) * inverse)
        signs = jnp.where(in_column[0], jnp.where(knot.leaves, 0, knot.sign), signs)
        knot, line = look(tableau, left, signs, knot.lam)
        return k + 1, knot, tableau, left, signs, ends.at[k].set(knot.lam), lines.at[k].set(line)

    left = jnp.diagonal(start)
    knot, line = look(start, left, signs, jnp.asarray(lam_max, gram.dtype))
    ends = jnp.zeros(most, gram.dtype).at[0].set(knot.lam)
    lines = jnp.zeros((most, 2, p), gram.dtype).at[0].set(line)
    carry = jnp.int32(1), knot, start, left, signs, ends, lines
    k, _, tableau, _, signs, ends, lines = jax.lax.while_loop(unfinished, step, carry)
    return Knots(ends, lines[:, 0], lines[:, 1], k, tableau, signs)


class _Knot(NamedTuple):
    lam: jax.Array
    j: jax.Array
    leaves: jax.Array
    sign: jax.Array  # the strength with the weight's sign
    pivots: jax.Array  # the tableau's row j
    ends: jax.Array  # u_j, v_j


def plain(gram, linear):
    """The tableau of an empty active set."""
    return np.concatenate([gram, linear[None], np.zeros_like(linear)[None]])


@program
def extended(gram, linear, tableau, signs, places):
    """The tableau with more columns, which are not active.

    Args:
        gram: (p, p), with the new columns.
        linear: (p,), likewise.
        tableau: (m + 2, m) with m ≤ p, of the others, which come first.
        signs: (p,), not 0 where active.
        places: (k,), of the new columns, padded with p.
    """
    p, more = len(linear), len(linear) - tableau.shape[1]
    tableau = jnp.pad(tableau, ((0, 0), (0, more)))
    tableau = jnp.concatenate([tableau[:-2], jnp.zeros((more, p), gram.dtype), tableau[-2:]])
    active = (signs != 0)[:, None]
    new = jnp.take(gram, places, 1, mode="fill", fill_value=0)
    near = jnp.where(active, new, 0)  # G_AN
    across = jnp.where(active, -tableau[:p] @ near, 0)  # G_AA⁻¹G_AN
    # Of the old columns G_AA⁻¹G_A· is in the tableau, of the new ones it is `across`.
    through = jnp.where(active, tableau[:p], 0).at[:, places].set(across, mode="drop")
    entries = jnp.where(active, across, new - through.T @ near)
    square = tableau[:p].at[:, places].set(entries, mode="drop").at[places].set(entries.T, mode="drop")
    ends = jnp.stack([jnp.take(linear, places, mode="fill", fill_value=0), jnp.zeros(len(places), gram.dtype)])
    return jnp.concatenate([square, tableau[p:].at[:, places].set(ends - tableau[p:] @ near, mode="drop")])


def at(knots: Knots, lams) -> tuple[np.ndarray, np.ndarray]:
    """w at each of `lams`, (K, p), and the knots above it; below the last knot, as on the last line."""
    count, lams = int(knots.count), np.asarray(lams)
    place = np.minimum(np.searchsorted(-np.asarray(knots.lam)[:count], -lams), count - 1)
    w = np.asarray(knots.fixed)[place] - lams[:, None] * np.asarray(knots.slope)[place]
    return w, place
