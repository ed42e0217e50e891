"""What the convex benchmarks share: contenders here and in another process, calibrated, and timed in rotation."""

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from experiments.benchmarks import rounds

HERE = Path(__file__).parent
STEP = 10**0.5  # from one tolerance to the next in `calibrate`
POOLS = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"


class NotReached(RuntimeError):
    """A contender broke down or ran out of time."""


def limit(threads):
    """Keep this process, and those it starts, to as many cores: pools of threads are made to fit."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ |= {name: str(threads) for name in POOLS}


class Peers:
    """The other process; one that answers too late is ended and started anew."""

    def __init__(self, python, seconds=60.0):
        self.python, self.seconds, self.folder = python, seconds, tempfile.TemporaryDirectory()
        self.keep = Path(self.folder.name) / "coefs.npy"
        self.start()

    def start(self):
        """Start it."""
        command = [self.python, str(HERE / "convex_peers.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = json.loads(self.process.stdout.readline())

    def stop(self):
        """End it."""
        self.process.kill()
        self.process.communicate()

    def write(self, name, **arrays):
        """The file of a problem."""
        file = Path(self.folder.name) / f"{name}.npz"
        np.savez(file, **arrays)
        return str(file)

    def ask(self, keep=False, seconds=None, **request):
        """Its answer, as a dict, with "coefs" where they are to be kept."""
        request |= {"keep": str(self.keep)} if keep else {}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            if not ready.select(seconds or self.seconds):
                self.stop()
                self.start()
                raise NotReached("time")
        reply = json.loads(self.process.stdout.readline() or '{"error": "ended"}')
        if reply.get("error") == "ended":
            self.start()
        if "seconds" not in reply:
            raise NotReached(reply["error"])
        return reply | ({"coefs": np.load(self.keep)} if keep else {})


def calibrate(run, judge, tol, guess, limit=60.0, most=16, loosen=True):
    """The loosest of a contender's own tolerances, `guess` · 10^(k/2), whose judged gap is at most `tol`.

    Args:
        run: own tolerance -> (seconds, solution).
        judge: solution -> largest gap.
        tol: what is to be reached.
        guess: where to begin: from there it is tightened until it reaches `tol`, or loosened until it does not.
        limit: seconds a run may take; tighter ones are not tried then.
        most: tolerances to try.
        loosen: whether to try looser ones than `guess`.

    Returns:
        A dict: "own" tolerance, None if `tol` was not reached; "gap", "solution" and "seconds" there; "tried", all
        pairs of own tolerance and gap.
    """
    found, tried = {"own": None, "gap": None, "solution": None, "seconds": None}, []
    own = guess
    for _ in range(most):
        try:
            begin = time.perf_counter()
            seconds, solution = run(own)
        except NotReached as reason:
            found |= {"why": str(reason)} if found["own"] is None else {}
            break
        gap = float(judge(solution))
        tried.append((own, gap))
        reached = gap <= tol
        if not reached and found["own"] is not None:
            break
        if reached:
            found |= {"own": own, "gap": gap, "solution": solution, "seconds": seconds}
            if not loosen or (len(tried) > 1 and tried[-2][1] > tol):
                break
        elif time.perf_counter() - begin > limit:
            break
        own = own * STEP if reached else own / STEP
    return found | {"tried": tried}


def in_rotation(contenders, number):
    """{name: seconds of each round} of {name: function that returns its seconds}; another begins each round."""
    names = list(contenders)
    seconds = {name: [] for name in names}
    for k in range(number):
        at = k % max(1, len(names))
        for name in names[at:] + names[:at]:
            seconds[name].append(contenders[name]())
    return {name: np.array(times) for name, times in seconds.items()}


def timed(function):
    """(seconds, result) of a function of nothing."""
    begin = time.perf_counter()
    result = function()
    return time.perf_counter() - begin, result


def how_many(seconds, number, budget):
    """Rounds: `number`, or what `budget` seconds allow of them where one takes `seconds`, but not under 10."""
    return max(min(number, 10), min(number, int(budget / max(seconds, 1e-9))))


def against(seconds, ours):
    """{name: (ratio, interval)} of all contenders to one of ours; above 1 where ours is the faster."""
    return {name: rounds.ratio(times, seconds[ours]) for name, times in seconds.items() if name != ours}


def cold(problem, tol, repeats=3):
    """Seconds of the first call in fresh processes: without a cache, with an empty one to fill, with a warm one."""
    found = {}
    for cache in ("none", "empty", "warm"):
        runs = []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                for last in (False, True) if cache == "warm" else (True,):
                    command = [sys.executable, "-m", "experiments.benchmarks.convex_cold", problem, str(tol)]
                    command += [] if cache == "none" else ["--cache", folder]
                    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE.parent.parent)
                    if last:
                        runs.append(json.loads(done.stdout.splitlines()[-1]))
        found[cache] = {key: float(np.median([run[key] for run in runs])) for key in runs[0]}
    return found
