"""Imports point one way and stay light; the README is true."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {  # room -> rooms it may import
    "arrays": set(),
    "pytree": {"arrays"},
    "geometry": {"arrays"},
    "spectra": {"arrays", "geometry"},
    "chains": {"arrays"},
    "select": {"pytree"},
    "penalties": {"chains", "arrays", "geometry", "pytree", "spectra"},
    "constraints": {"arrays", "geometry", "pytree", "spectra", "penalties"},
    "conventions": {"penalties", "pytree"},
    "requirements": {"pytree", "penalties", "constraints"},
    "objective": {"arrays", "pytree", "penalties", "requirements"},
    "duality": {"arrays", "pytree", "penalties", "constraints", "requirements"},
    "joint": {"arrays", "pytree", "select", "constraints", "requirements"},
    "activity": {"pytree", "requirements"},
    "transforms": {"arrays", "pytree", "penalties", "constraints", "requirements", "objective"},
    "convex": {"arrays", "pytree", "geometry", "penalties", "requirements", "conventions", "tune", "sweeps"},
    "tune": {"pytree"},
    "noise": {"arrays", "pytree"},
    "sweeps": set(),
    "ensemble": {"pytree"},
    "diagnostics": {"arrays", "pytree", "select", "penalties", "objective", "requirements", "convex"},
    "plotting": {"sweeps"},
}
CORE = {"jax", "optax", "numpy"} | set(sys.stdlib_module_names)
LAZY = {"xarray", "tqdm", "h5py", "scipy", "cloudpickle"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("path", sorted((ROOT / "jaxreg").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    room = path.relative_to(ROOT / "jaxreg").parts[0].removesuffix(".py")
    for name in imports(path):
        top, *rest = name.split(".")
        if top != "jaxreg":
            assert top in CORE | LAZY | ({"matplotlib"} if room == "plotting" else set())
        elif room != "__init__" and rest[0] != room and path.name != "__main__.py":  # a command may use any room
            assert rest[0] in ALLOWED[room], f"{room} must not import {name}"


def run(code, **options):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=ROOT, **options
    )


@pytest.mark.interpreters
def test_import_is_light():
    result = run(
        "import sys, jaxreg; heavy = 'xarray', 'pandas', 'matplotlib', 'flax', 'sklearn', 'tqdm', 'h5netcdf', 'h5py'; "
        "print([m for m in heavy if m in sys.modules])"
    )
    assert result.stdout.strip() == "[]", result.stderr


def blocks():
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)


ONE_AFTER_ANOTHER = """
import contextlib, io, json, sys, traceback
told = []
for block in json.load(sys.stdin):
    out, error = io.StringIO(), ""
    try:
        with contextlib.redirect_stdout(out):
            exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
    except BaseException:
        error = traceback.format_exc()
    told.append((out.getvalue(), error))
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told():
    """What each block prints, and its error; in a process with the dtypes of a user's."""
    result = run(ONE_AFTER_ANOTHER, input=json.dumps(blocks()))
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.interpreters
@pytest.mark.parametrize("block", range(len(blocks())))
def test_readme_code_runs(told, block):
    printed, error = told[block]
    assert not error, error
    assert printed.strip()


def test_readme_table_names_what_exists():
    import jaxreg as jr

    for name in re.findall(r"jr\.(\w+)", (ROOT / "README.md").read_text()):
        assert hasattr(jr, name), name


def test_readme_has_two_commands():
    commands = re.findall(r"^```(?:sh|bash)\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert len(commands) == 2
    assert all(command.strip().count("\n") == 0 for command in commands)
