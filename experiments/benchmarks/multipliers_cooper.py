"""`multipliers_for` against Cooper: the same primal-dual algorithm, its steps to a known solution and their time.

`python -m experiments.benchmarks.multipliers_cooper` prints one table and writes it to `experiments/results/`; without
`cooper-optim` it runs ours alone. All in float64. Contenders run in turn, ratios are medians over rounds, with a 95 %
bootstrap interval; compiling is timed apart. Cooper runs eagerly, as it is meant to.

What maps to what, checked on the first `AGREE` steps (column `differ`):

    ours                               Cooper 1.0.1
    (default)                          SimultaneousOptimizer, Lagrangian
    alternating=True                   AlternatingDualPrimalOptimizer: both violations are those of θ_t
    θ_0 moved by a primal step first,  AlternatingPrimalDualOptimizer: the dual step sees θ_{t+1}; it is ours half a
      and alternating=True               step later, and evaluates the violations twice a step
    augmentation=c                     AugmentedLagrangian, DensePenaltyCoefficient(c); its dual step is v·lr, without c
    proportional=κ, ema=ν              nuPI(Kp=κ/lr, Ki=1, ema_nu=ν), its ξ put at v_0 before the first step

nuPI documents ξ_{−1} = e_0 for its default start, but its code begins with ξ_0 = 0, which adds up to κ·v_0 to the
multiplier once: "as shipped" has no equal here; nor has `nuPIInitType.ZEROS`, ξ_{−1} = 0. Not compared: `measured` is
its `strict_violation`; ours alone have restarts, log space, rates on schedules and certificates; Cooper alone has
extrapolation, any PyTorch optimizer for the multipliers, updaters that raise c where a violation does not fall, and
multipliers that are indexed or computed by a model.

References:
    Gallego-Posada et al., Cooper: a library for constrained optimization, 2025.
"""

import functools
import importlib.metadata
import importlib.util
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxreg as jr
from experiments.benchmarks import known_solutions, rounds

ROUNDS, STEPS, AGREE, TOLERANCE = 12, 100, 50, 1e-4
SIZES = {(20, 10, 5): 3, (200, 50, 20): 3, (2000, 500, 200): 1}  # parameters, inequalities, equalities: seeds

# Options of each method, κ and c being the problem's gain; the underscored ones say what Cooper does.
METHODS = {
    "simultaneous": {},
    "alternating": {"alternating": True},
    "alternating, primal first": {"alternating": True, "_primal_first": True},
    "augmented": {"augmentation": True},
    "augmented, alternating": {"augmentation": True, "alternating": True},
    "PI": {"proportional": True},
    "PI, smoothed": {"proportional": True, "ema": 0.5},
    "PI, as shipped": {"proportional": True, "_shipped": True},
}


def options_of(problem, method):
    """The options with their numbers."""
    gains = {key: problem.gain for key in ("augmentation", "proportional") if key in METHODS[method]}
    return METHODS[method] | gains


class Ours:
    """`multipliers_for` and SGD: one step, a loop over it, a scan."""

    def __init__(self, problem, options, dtype=jnp.float64):
        rates, public = problem.rates, {k: v for k, v in options.items() if k[0] != "_"}
        problem = problem._replace(rows=jax.tree.map(lambda v: jnp.asarray(v, dtype), problem.rows))
        equality = {kind: kind == "equality" for kind in problem.rows}
        tx = jr.multipliers_for(problem.violations, rates[1], equality=equality, **public)
        tx = optax.chain(tx, optax.sgd(rates[0]))
        gradient = jax.value_and_grad(lambda x: problem.loss(x, jnp))

        def step(carry, _=None):
            x, state = carry
            loss, grads = gradient(x)
            updates, state = tx.update(grads, state, x)
            return (optax.apply_updates(x, updates), state), loss

        x = jnp.asarray(problem.start, dtype)
        if "_primal_first" in options:
            x = x - rates[0] * gradient(x)[1]
        self.problem, self.step, self.carry = problem, step, (x, tx.init(x))
        self.compile = {}

    def trajectory(self, steps):
        """θ and α after each step."""

        def keep(carry, _):
            carry, _ = self.step(carry)
            return carry, (carry[0], carry[1][0].alpha)

        return jax.tree.map(np.asarray, jax.jit(lambda c: jax.lax.scan(keep, c, None, steps)[1])(self.carry))

    def residuals(self, x, alpha):
        """The certificate at θ and α."""
        kinds = {kind: kind == "equality" for kind in self.problem.rows}
        grads = jax.grad(lambda x: self.problem.loss(x, jnp))(x)
        return jr.kkt_residuals(self.problem.violations, x, grads, alpha, equality=kinds)

    def timed(self, scan):
        """A function that makes `STEPS` steps; its compile time is kept."""
        begin, carry = time.perf_counter(), jax.tree.map(jnp.copy, self.carry)
        many = (lambda c: jax.lax.scan(self.step, c, None, STEPS)) if scan else self.step
        run = jax.jit(many, donate_argnums=0).lower(carry).compile()
        self.compile["scan" if scan else "loop"] = time.perf_counter() - begin

        def go():
            nonlocal carry
            for _ in range(1 if scan else STEPS):
                carry, _ = run(carry)
            jax.block_until_ready(carry)

        return go


class Theirs:
    """The same by Cooper."""

    def __init__(self, problem, options):
        import cooper
        import torch
        from cooper.optim.torch_optimizers import nuPI

        lr, dual_lr = problem.rates
        rows = {kind: tuple(torch.tensor(v) for v in row) for kind, row in problem.rows.items()}
        self.torch, self.x = torch, torch.nn.Parameter(torch.tensor(problem.start))
        c, number = options.get("augmentation"), functools.partial(torch.tensor, dtype=torch.float64)

        def constraint(kind, r):
            form = cooper.formulations.AugmentedLagrangian if c else cooper.formulations.Lagrangian
            return cooper.Constraint(
                constraint_type=getattr(cooper.ConstraintType, kind.upper()),
                formulation_type=form,
                multiplier=cooper.multipliers.DenseMultiplier(len(r), dtype=torch.float64),
                penalty_coefficient=c and cooper.penalty_coefficients.DensePenaltyCoefficient(number(c)),
            )

        class Program(cooper.ConstrainedMinimizationProblem):
            def compute_violations(program):
                states = {
                    getattr(program, kind): cooper.ConstraintState(violation=m @ self.x - r)
                    for kind, (m, r) in rows.items()
                }
                return cooper.CMPState(observed_constraints=states)

            def compute_cmp_state(program):
                state = program.compute_violations()
                state.loss = problem.loss(self.x, torch)
                return state

        self.program = Program()
        for kind, (_, r) in rows.items():
            setattr(self.program, kind, constraint(kind, r))
        primal, dual = torch.optim.SGD([self.x], lr), list(self.program.dual_parameters())
        if "proportional" in options:
            ema = options.get("ema", 0.0)
            dual = nuPI(dual, lr=dual_lr, Kp=number(options["proportional"] / dual_lr), ema_nu=ema, maximize=True)
            for kind, (m, r) in rows.items():
                if "_shipped" not in options:
                    dual.state[getattr(self.program, kind).multiplier.weight]["xi"] = m @ self.x.detach() - r
        else:
            dual = torch.optim.SGD(dual, lr=dual_lr, maximize=True)
        name = "AlternatingPrimalDual" if "_primal_first" in options else "AlternatingDualPrimal"
        name = f"{name if 'alternating' in options else 'Simultaneous'}Optimizer"
        self.optimizer = getattr(cooper.optim, name)(self.program, primal_optimizers=primal, dual_optimizers=dual)

    def trajectory(self, steps):
        """θ and α after each step."""
        self.torch.set_num_threads(1)
        kept = []
        for _ in range(steps):
            self.optimizer.roll()
            alpha = {k: con.multiplier.weight.detach().numpy().copy() for k, con in self.program.named_constraints()}
            kept.append((self.x.detach().numpy().copy(), alpha))
        return jax.tree.map(lambda *arrays: np.stack(arrays), *kept)

    def timed(self, threads):
        """A function that makes `STEPS` steps."""

        def go():
            self.torch.set_num_threads(threads)
            for _ in range(STEPS):
                self.optimizer.roll()

        return go


def needed(problem, trajectory):
    """Steps until the largest errors of θ and of α are below `TOLERANCE` for good; None if they are not."""
    counts = []
    for kept, exact in zip(trajectory, (problem.solution, problem.multipliers), strict=True):
        errors = jax.tree.map(lambda k, e: np.abs(k - e).max(1), kept, exact)
        above = np.flatnonzero(np.max(jax.tree.leaves(errors), 0) > TOLERANCE)
        counts.append(int(above[-1]) + 2 if above.size else 1)
    return [count if count <= problem.steps else None for count in counts]


def measure(problem, name, timing):
    """One row: steps, the largest difference of the trajectories, times."""
    options = options_of(problem, name)
    ours, contenders = Ours(problem, options), {}
    mine = ours.trajectory(problem.steps)
    row = {"problem": problem.name, "method": name, "ours, steps": needed(problem, mine)}
    row["KKT residuals"] = [float(r) for r in ours.residuals(*jax.tree.map(lambda v: jnp.asarray(v[-1]), mine))]
    if timing:
        contenders = {"loop": ours.timed(scan=False), "scan": ours.timed(scan=True)}
    if importlib.util.find_spec("cooper"):
        theirs = Theirs(problem, options).trajectory(problem.steps)
        row["theirs, steps"] = needed(problem, theirs)
        late = int("_primal_first" in options)  # then our parameters are half a step ahead
        early = [(mine[0][: AGREE - late], mine[1]), (theirs[0][late:AGREE], theirs[1])]
        apart = jax.tree.map(lambda a, b: np.abs(a[:AGREE] - b[:AGREE]).max(), *early)
        row["differ"] = float(np.max(jax.tree.leaves(apart)))
        if timing:
            contenders |= {f"Cooper {k}": Theirs(problem, options).timed(k) for k in (1, 2)}
    seconds = rounds.in_turn(contenders, ROUNDS) if contenders else {}
    row |= {f"{k}, µs": 1e6 * float(np.median(s)) / STEPS for k, s in seconds.items()}
    row |= {f"{k} / loop": rounds.ratio(s, seconds["loop"]) for k, s in seconds.items() if k != "loop"}
    return row | {f"compile {k}, s": s for k, s in ours.compile.items()}


def main():
    """Print the table and write it."""
    jax.config.update("jax_enable_x64", True)
    found = importlib.util.find_spec("cooper") is not None
    about = {name: importlib.metadata.version(name) for name in ("cooper-optim", "torch")} if found else {}
    if not found:
        print("`cooper-optim` is not installed: ours alone.")
    print(f"{'problem':<23} {'method':<25} {'steps of θ, α':>13} {'Cooper':>13} {'differ':>7}  µs a step")
    problems, rows = [(known_solutions.die(), True)], []
    for size, seeds in SIZES.items():
        problems += [(known_solutions.least_norm(*size, seed), seed == 0) for seed in range(seeds)]
    for problem, timing in problems:
        for name in METHODS:
            rows.append(row := measure(problem, name, timing))
            times = [f"{key[:-4]} {row[key]:.1f}" for key in row if key.endswith("µs")]
            for key in (key for key in row if key.endswith("/ loop")):
                ratio, (low, high) = row[key]
                times.append(f"{key} {ratio:.3g} ({low:.3g}–{high:.3g})")
            times += [f"{key[:-3]} {row[key]:.2f} s" for key in row if key.startswith("compile")]
            print(
                f"{problem.name:<23} {name:<25} {row['ours, steps']!s:>13} {row.get('theirs, steps', '')!s:>13} "
                f"{row.get('differ', np.nan):7.0e}  {', '.join(times)}",
                flush=True,
            )
    rounds.write("multipliers_cooper", versions=about, rounds=ROUNDS, steps=STEPS, tolerance=TOLERANCE, rows=rows)


if __name__ == "__main__":
    main()
