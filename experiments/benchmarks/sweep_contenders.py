"""The contenders of `sweeps`: functions of nothing that train all models; `compile` seconds, `bytes` for each model."""

import concurrent.futures
import functools
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import optax

import jaxreg as jr
from experiments.benchmarks import small_networks as networks

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


class ByHand:
    """A vmapped function, compiled for a chunk and run over all; `programs` at once, from threads of their own."""

    def __init__(self, function, arguments, fixed, chunk=None, programs=1):
        count = len(arguments["seed"])
        chunk, mesh = min(chunk or count, count), jax.make_mesh((jax.device_count(),), ("models",))
        many, rows = jax.vmap(lambda arguments, fixed: function(**arguments, **fixed), (0, None)), jax.P("models")
        if mesh.size > 1 and programs == 1:
            many = jax.shard_map(many, mesh=mesh, in_specs=(rows, jax.P()), out_specs=rows, check_vma=False)
            self.place = functools.partial(jax.device_put, device=jax.NamedSharding(mesh, rows))
            fixed = jax.device_put(fixed, jax.NamedSharding(mesh, jax.P()))
        else:
            self.place = functools.partial(jax.device_put, device=jax.devices()[0])
        self.parts = [{name: v[i : i + chunk] for name, v in arguments.items()} for i in range(0, count, chunk)]
        self.fixed, self.threads = fixed, concurrent.futures.ThreadPoolExecutor(programs)
        begin = time.perf_counter()
        self.program = jax.jit(many).lower(self.place(self.parts[0]), fixed).compile()
        self.compile = time.perf_counter() - begin
        memory = self.program.memory_analysis()
        self.bytes = memory.temp_size_in_bytes + memory.output_size_in_bytes + memory.argument_size_in_bytes
        self.bytes /= chunk / (mesh.size if programs == 1 else 1)  # it tells of one device

    def __call__(self):
        """Train all; the results."""
        if self.threads._max_workers == 1:
            return [jax.tree.map(np.asarray, self.program(self.place(part), self.fixed)) for part in self.parts]
        run = lambda part: jax.tree.map(np.asarray, self.program(self.place(part), self.fixed))  # noqa: E731
        return list(self.threads.map(run, self.parts))


class Sweep:
    """`sweep` itself; with `store` a new folder for each run."""

    def __init__(self, arguments, fixed, chunk=None, store=False):
        self.space, self.fixed, self.chunk, self.store = jr.zipped(**arguments), fixed, chunk, store
        self.compile = self.bytes = None

    def __call__(self):
        """Seconds, less those of compiling."""
        folder = tempfile.mkdtemp() if self.store else None
        options = {"store": Path(folder) / "store", "progress": True} if self.store else {}
        begin = time.perf_counter()
        self.runs = jr.sweep(networks.train, self.space, chunk=self.chunk, **options, **self.fixed)
        seconds = time.perf_counter() - begin - self.runs.attrs["compile_seconds"]
        self.compile = self.compile or self.runs.attrs["compile_seconds"]
        self.loss = self.runs["loss"].values
        if self.store:
            shutil.rmtree(folder)
        return seconds


class Loop:
    """One model after the other: a compiled training, or (`by_step`) a compiled step; rates are arguments of both."""

    def __init__(self, arguments, fixed, by_step=False):
        one = jax.tree.map(lambda v: v[0], arguments)
        self.arguments, self.fixed, self.by_step, self.bytes = arguments, fixed, by_step, None
        begin = time.perf_counter()
        if by_step:
            self.begin = jax.jit(self._begin).lower(**one).compile()
            carry, rows = self.begin(**one)
            self.step = jax.jit(self._step).lower(carry, rows[0], one["lr"], one["lam"], **fixed).compile()
        else:
            self.train = jax.jit(networks.train).lower(**one, **fixed).compile()
        self.compile = time.perf_counter() - begin

    def _begin(self, lr, lam, seed):
        return networks.start(networks.weights(seed), lr, lam)[1], list(networks.batches(seed, self.fixed["x"]))

    @staticmethod
    def _step(carry, rows, lr, lam, x, y):
        return networks.step(optax.adamw(lr, weight_decay=lam), carry, rows, x, y)

    def __call__(self):
        """Train all; the results."""
        found = []
        for i in range(len(self.arguments["seed"])):
            one = {name: v[i] for name, v in self.arguments.items()}
            if self.by_step:
                carry, batch = self.begin(**one)
                for rows in batch:
                    carry, value = self.step(carry, rows, one["lr"], one["lam"], **self.fixed)
                found.append({"loss": np.asarray(value)})
            else:
                found.append(jax.tree.map(np.asarray, self.train(**one, **self.fixed)))
        return found


class Torch:
    """The other process, asked to train."""

    def __init__(self, python, fixed, count=4):
        rows = np.stack([networks.batches(seed, fixed["x"]) for seed in range(count)])
        params = [networks.weights(seed) for seed in range(count)]
        self.params, self.rows = jax.tree.map(lambda *leaves: np.stack(leaves), *params), rows
        self.folder = tempfile.TemporaryDirectory()
        file, script = Path(self.folder.name) / "problem.npz", Path(__file__).with_name("sweeps_torch.py")
        np.savez(file, **self.params, **fixed, indices=rows)
        command = [python, str(script), str(file), str(CORES)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = json.loads(self.process.stdout.readline())

    def ask(self, contender, arguments):
        """Its answer."""
        request = {"contender": contender, **{name: v.tolist() for name, v in arguments.items()}}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def agree(self, fixed):
        """Check that from the same weights, by the same batches, the losses are the same."""
        arguments = networks.configurations(len(self.rows))
        ours = jax.vmap(networks.losses, (0, 0, 0, 0, None, None))(
            self.params, self.rows, arguments["lr"], arguments["lam"], fixed["x"], fixed["y"]
        )
        apart = {}
        for name, theirs in self.ask("agree", arguments).items():
            np.testing.assert_allclose(theirs, ours, rtol=2e-3, atol=2e-5, err_msg=name)
            apart[name] = float(np.max(np.abs(np.array(theirs) - ours)))
        return apart
