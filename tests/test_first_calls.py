"""How many programs a first call compiles: each takes a share of a second, whatever the size of the data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MOST = {  # entry of the benchmark of first calls -> programs at most
    "lasso solve": 2,
    "lasso path": 2,
    "elastic net solve": 2,
    "ridge solve": 0,
    "logistic solve": 2,
    "logistic path": 2,
    "logistic cross-validation": 3,
    "multinomial solve": 2,
    "MCP, squared": 2,
    "MCP, logistic": 2,
    "multi-task lasso": 2,
    "a user's penalty": 2,
    "Poisson": 2,
    "fit, squared": 1,
    "fit, logistic": 1,
    "hypergradient, squared": 5,  # of which 3 are the loss of the user
    "hypergradient, logistic": 5,
    "tune a ridge, 5 steps": 1,
}
COUNT = """
import json, sys
import jax
import numpy as np
from experiments.benchmarks.first_call import Data, calls, counted

rng = np.random.default_rng(0)
X = rng.normal(size=(30, 6))
y = 150 + 100 * X[:, 0] - 50 * X[:, 1] + 20 * rng.normal(size=30)
data = Data(X, np.abs(y), X, (y > np.median(y)).astype(int))
compiled, programs = counted(), {}
for name, call in calls(data).items():
    if name in sys.argv[1:]:
        jax.clear_caches()
        compiled.clear()
        jax.block_until_ready(call())
        programs[name] = len(compiled)
print(json.dumps(programs))
"""


@pytest.fixture(scope="module")
def programs():
    """{entry: programs of its first call}, loaded ones too, in a process with the dtypes of a user's."""
    done = subprocess.run([sys.executable, "-c", COUNT, *MOST], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.interpreters
@pytest.mark.parametrize("name", MOST)
def test_few_programs(programs, name):
    assert programs[name] <= MOST[name], f"`{name}` compiles {programs[name]} programs, at most {MOST[name]}"
