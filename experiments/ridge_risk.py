"""The risk of ridge regression against its formula, over samples n and λ: optimal λ removes double descent.

    python -m experiments.ridge_risk

x ~ N(0, I_d), y = x·β + σε, ‖β‖ = 1; w minimises ‖Xw − y‖² + λ‖w‖², so λ/n is the formula's λ (`ridge_theory`)
and the best one is dσ²/‖β‖², whatever n. The left figure is Figure 1 of Nakkiran et al.
All λ come from one singular value decomposition of each design, all draws from one program.
Writes <out>/ridge_risk.nc, .json and .png, and prints a table.

References:
    P. Nakkiran, P. Venkat, S. Kakade, T. Ma (2021), Optimal regularization can mitigate double descent, ICLR.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import jaxreg as jr
from experiments import command, published
from experiments.ridge_theory import optimal_lam, ridgeless, ridgeless_finite, risk

RIDGELESS = {250: 1.000, 450: 2.600, 550: 2.750, 1000: 0.500}  # total risk at d = 500, σ = .5, ‖β‖ = 1
OPTIMAL = {250: 0.890, 450: 0.681, 550: 0.605, 1000: 0.425}
EXCESS = {0.5: 0.175391, 1.0: 0.390388, 2.0: 0.640388}  # γ -> excess risk at the best λ
COST = "4 min on 2 cores"
SHOWED = "At the best λ the risk falls with every sample: 23 of 23 numbers as published, double descent is gone."


@dataclasses.dataclass(frozen=True)
class Config:
    """The size of the problem, and what is swept."""

    dim: int = 500
    noise: float = 0.5
    ratios: tuple[float, ...] = tuple(np.arange(1, 21) / 10)  # n/d
    seeds: int = 60
    octaves: int = 6  # of λ, to each side of the best
    per_octave: int = 2

    @property
    def samples(self) -> np.ndarray:
        """The numbers of samples n."""
        return np.rint(self.dim * np.array(self.ratios)).astype(int)

    @property
    def best(self) -> float:
        """The best λ, dσ²/‖β‖²."""
        return self.dim * self.noise**2

    @property
    def lams(self) -> np.ndarray:
        """λ = 0, the limit, and powers of two around the best."""
        steps = np.arange(-self.octaves * self.per_octave, self.octaves * self.per_octave + 1)
        return np.array([0, *self.best * 2.0 ** (steps / self.per_octave)])


def train(seed, samples, lams, config) -> jax.Array:
    """The total risk ‖w − β‖² + σ² of the first n samples of one draw, for all n and λ."""
    keys, most = jax.random.split(jax.random.key(seed), 3), int(max(config.samples))
    beta = jax.random.normal(keys[0], config.dim)
    beta = beta / jnp.linalg.norm(beta)
    x = jax.random.normal(keys[1], (most, config.dim))
    y = x @ beta + config.noise * jax.random.normal(keys[2], most)

    def of_first(n):
        first = jnp.arange(most) < n  # the others weigh nothing
        w = jr.convex.ridge_svd(x, y, lams / n, first, fit_intercept=False).coef
        return jnp.sum((w - beta) ** 2, axis=1) + config.noise**2

    return jax.lax.map(of_first, samples)


def run(config: Config):
    """Risks of all draws, a Dataset with dims seed, n, lam."""
    grids = {"samples": config.samples, "lams": config.lams}
    with jax.enable_x64(True):  # one chunk: on CPUs, jax 0.10 hangs where two programs call LAPACK at once
        runs = jr.sweep(train, jr.grid(seed=range(config.seeds)), chunk=config.seeds, config=config, **grids)
    name = next(iter(runs.data_vars))
    runs = runs.rename({name: "risk", **dict(zip(runs[name].dims[1:], ("n", "lam"), strict=True))})
    return runs.assign_coords(n=config.samples, lam=config.lams)


def mean_and_error(risk) -> tuple:
    """The mean over draws and its standard error."""
    return risk.mean("seed"), risk.std("seed", ddof=1) / np.sqrt(risk.sizes["seed"])


def rows(runs, config: Config) -> list[published.Row]:
    """The published risks, three standard errors and 5 % allowed; and where the best λ was found, in grid steps."""
    mean, error = mean_and_error(runs["risk"])
    found = []
    for name, lam, risks in (("ridgeless", 0, RIDGELESS), ("best λ", config.best, OPTIMAL)):
        for n, printed in risks.items():
            here, se = (float(a.sel(n=n, lam=lam)) for a in (mean, error))
            found.append(published.Row(f"total risk, {name}, n = {n}", here, printed, min(3 * se, 0.05 * printed)))
            if not lam:
                exact = config.noise**2 + ridgeless_finite(config.dim, n, config.noise)
                found.append(published.Row(f"total risk, {name}, n = {n}, exact at this d", here, exact, 3 * se))
    for gamma, printed in EXCESS.items():
        n = round(config.dim / gamma)
        here, se = (float(a.sel(n=n, lam=config.best)) for a in (mean, error))
        name = f"excess risk, best λ, γ = {gamma:g}"
        found.append(published.Row(name, here - config.noise**2, printed, min(3 * se, 0.05 * printed)))
        formula = float(risk(gamma, optimal_lam(gamma, config.noise), config.noise))
        found.append(published.Row(f"{name}, formula", formula, printed, 1e-6))
    for n in RIDGELESS:
        steps = config.per_octave * np.log2(float(mean["lam"][mean.sel(n=n).argmin("lam")]) / config.best)
        found.append(published.Row(f"grid steps from λ = {config.best:g} to the least risk, n = {n}", steps, 0, 1))
    rises = int((mean.sel(lam=config.best).diff("n") > 0).sum())
    return [*found, published.Row("rises of the risk with n at the best λ", rises, 0, 0)]


def figure(runs, config: Config):
    """Risk over n for a few λ, and over λ for a few n: draws as points, formulas as lines."""
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    mean, error = mean_and_error(runs["risk"])
    floor, fine = config.noise**2, np.linspace(config.samples[0], config.samples[-1], 600)
    chosen = [0, config.best / 64, config.best / 8, config.best, config.best * 8]
    for lam, colour in zip(chosen, ("0.5", *jr.plotting.COLOURS), strict=False):
        gamma = config.dim / fine
        curve = risk(gamma, lam / fine, config.noise) if lam else ridgeless(gamma, config.noise)
        best = lam == config.best
        name = f"λ = {float(f'{lam:.3g}'):g}" if lam else "λ → 0"
        left.plot(
            fine, floor + curve, color=colour, lw=2.5 if best else 1.2, label=name + ", the best for every n" * best
        )
        some = mean.sel(lam=lam)
        left.errorbar(some["n"], some, 2 * error.sel(lam=lam), fmt="o", ms=3.5, lw=1, color=colour)
    left.axvline(config.dim, color="0.6", ls=":", lw=1)
    left.text(config.dim, 0.03, " n = d", color="0.4")
    left.set(xlabel="samples n", ylabel="test risk E(y − x·w)²", ylim=(0, 3))
    left.set_title(f"d = {config.dim}, σ = {config.noise}: the best λ removes double descent", loc="left")
    lams = config.lams[1:]
    fine = np.geomspace(lams[0], lams[-1], 300)
    for n, colour in zip(
        (config.dim // 2, config.dim, 2 * config.dim), (*jr.plotting.COLOURS[4:6], "0.35"), strict=True
    ):
        gamma = config.dim / n
        right.semilogx(fine, risk(gamma, fine / n, config.noise), color=colour, label=f"n = {n}, γ = {gamma:g}")
        excess, bars = (a.sel(n=n).isel(lam=slice(1, None)) for a in (mean - floor, 2 * error))
        right.errorbar(lams, excess, bars, fmt="o", ms=3.5, lw=1, color=colour)
        least = risk(gamma, config.best / n, config.noise)
        right.plot(config.best, least, "*", ms=13, color=colour, mec="k", mew=0.6)
        right.axhline(ridgeless(gamma, config.noise), color=colour, ls=":", lw=1)
    right.set(xlabel="λ of ‖Xw − y‖² + λ‖w‖²", ylabel="excess risk ‖w − β‖²", ylim=(0, None))
    right.set_title(f"the least risk (★) at λ = dσ² = {config.best:g} for every n", loc="left")
    right.plot([], [], color="0.3", ls=":", lw=1, label="λ → 0")
    for ax in (left, right):
        ax.plot([], [], "o", ms=3.5, color="0.3", label=f"{config.seeds} draws, ± 2 s.e.")
        ax.plot([], [], color="0.3", lw=1.2, label="formula")
        ax.legend(frameon=False, fontsize="small")
    return fig


def main(argv=None) -> None:
    """The command line."""
    command.main(__file__, __doc__, Config(), None, run, rows, figure, argv)


if __name__ == "__main__":
    main()
