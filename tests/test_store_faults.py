"""Stores when something breaks: the fault is told, what was finished stays."""

import contextlib
import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import pytest

from jaxreg.sweeps.store import Store

pytestmark = pytest.mark.interpreters

IDENTITY = {"arguments": ["lam"], "fixed": {}, "train": {}, "options": {}}
HERE = Path(__file__).parent.parent
TASKS = [("", [(2.0 * i,), (2.0 * i + 1,)]) for i in range(4)]


def outputs(task, length=3):
    """What a task gives: told by its name, so that a test can check it anywhere."""
    number = int(task.replace("-", ""))
    return {"loss": np.array([number, -number], np.float32), "curve": np.full((2, length), number, np.float32)}


def check(store, task, length=3):
    found = store.read(task)
    for name, expected in outputs(task, length).items():
        np.testing.assert_array_equal(found[name], expected)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


def filled(root):
    with Store(root, IDENTITY) as store:
        tasks = store.extend(TASKS)
        for task in tasks:
            store.write(task, outputs(task))
    return tasks


def python(code, *arguments, wrapper=(), **options):
    return subprocess.run(
        [*wrapper, sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": f"{HERE}:{HERE / 'tests'}"},
        **options,
    )


# Full disks


@contextlib.contextmanager
def files_of_at_most(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_chunk_that_cannot_be_written_costs_no_other(root):
    with Store(root, IDENTITY) as store:
        one, two, three, _ = store.extend(TASKS)
        store.write(one, outputs(one))
        store.write_carry(two, 5, [np.arange(3)])
        with files_of_at_most(20_000):
            with pytest.raises(OSError, match=rf"cannot write .*{two}\.nc: File too large\. The 1 finished chunks are"):
                store.write(two, outputs(two, 10_000))
            with pytest.raises(OSError, match=rf"{two}\.npz: File too large"):
                store.write_carry(two, 10, [np.arange(10_000)])
            with pytest.raises(OSError, match=r"sweep\.json: File too large"):
                store.remember("key", "x" * 30_000)
            with pytest.raises(OSError, match=r"0001\.json: File too large"):
                store.extend([("", [(10.0 + i,) for i in range(5000)])])
            store.write(three, outputs(three))
        assert not list(root.rglob("*.tmp"))
        assert not store.finished(two)
        assert len(store.tasks) == 4
        assert store.read_carry(two)[0] == 5
        store.write(two, outputs(two, 10_000))
    with Store(root, IDENTITY) as store:
        check(store, one)
        check(store, two, 10_000)
        check(store, three)
        assert store.recall("key") is None


def test_a_disk_that_fills_up(tmp_path):
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("mounts are not allowed here")
    result = python(
        """
        import subprocess, sys
        from test_store_faults import *
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", sys.argv[1]], check=True)
        root = Path(sys.argv[1]) / "store"
        with Store(root, IDENTITY) as store:
            tasks, written = store.extend([("", [(2.0 * i,), (2.0 * i + 1,)]) for i in range(40)]), []
            try:
                for task in tasks:
                    store.write(task, outputs(task, 2000))
                    written.append(task)
            except OSError as error:
                print(error)
        assert 2 < len(written) < 30
        assert not list(root.rglob("*.tmp"))
        with Store(root, IDENTITY) as store:  # with no room to name the holder of the lock
            assert [task for task in tasks if store.finished(task)] == written
            for task in written:
                check(store, task, 2000)
        """,
        tmp_path,
        wrapper=["unshare", "-rm"],
    )
    assert result.returncode == 0, result.stderr
    assert "No space left on device" in result.stdout
    assert "finished chunks are safe; the same call resumes." in result.stdout


# Folders that cannot be written, and what is no store


def test_a_path_below_a_file(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(ValueError, match=r"needs a folder as `store`, got .*file, a file"):
        Store(tmp_path / "file", IDENTITY)
    with pytest.raises(OSError, match=r"cannot write .*store: Not a directory"):
        Store(tmp_path / "file" / "store", IDENTITY)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="Linux's")
def test_a_file_system_that_takes_no_files():
    with pytest.raises(OSError, match="cannot write /proc/store"):
        Store("/proc/store", IDENTITY)


def test_a_folder_of_others():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own can be entered by its user alone
        os.chmod(folder, 0o555)
        result = python(
            """
            import sys
            from test_store_faults import *
            import h5py
            if os.getuid() == 0:  # whom no permission stops
                os.setuid(65534)
            try:
                Store(Path(sys.argv[1]) / "store", IDENTITY)
            except PermissionError as error:
                print(error)
            """,
            folder,
        )
        os.chmod(folder, 0o755)
    assert "store: Permission denied." in result.stdout, result.stderr


@pytest.mark.parametrize("names", [["thesis.tex"], ["chunks/0000-000000.nc", "plans/0000.json"]])
def test_a_folder_that_is_no_store_is_left_alone(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("text")
    before = sorted(root.rglob("*"))
    with pytest.raises(ValueError, match="is none, it has"):
        Store(root, IDENTITY)
    assert sorted(root.rglob("*")) == before


def test_an_empty_folder_becomes_a_store(root):
    (root / "chunks").mkdir(parents=True)  # as far as a killed run may have come
    (root / "lock-0").touch()
    (root / "sweep.json.0-1-2.tmp").touch()
    filled(root)
    assert not list(root.rglob("*.tmp"))


@pytest.mark.parametrize("text", ['{"format": 1, "ide', "[]", '{"name": "of another tool"}'])
def test_a_damaged_sweep_json(root, text):
    filled(root)
    (root / "sweep.json").write_text(text)
    with pytest.raises(ValueError, match=r"sweep\.json is (damaged|none)"):
        Store(root, IDENTITY)


# Damaged chunks

DAMAGES = {
    "cut": lambda data: data[:-7],
    "cut in the metadata": lambda data: data[:700],
    "empty": lambda data: b"",
    "a bit of the numbers": lambda data: data.replace(np.float32(2).tobytes() * 6, np.float32(2.5).tobytes() * 6),
    "a bit of the metadata": lambda data: data[:900] + bytes([data[900] ^ 1]) + data[901:],
    "zeros": lambda data: bytes(len(data)),
    "another file": lambda data: b"text",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_a_damaged_chunk_is_set_aside_and_computed_again(root, damage, caplog):
    tasks = filled(root)
    path = root / "chunks" / f"{tasks[2]}.nc"
    damaged = damage(path.read_bytes())
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    with Store(root, IDENTITY) as store, caplog.at_level(logging.WARNING):
        assert [store.finished(task) for task in tasks] == [True, True, False, True]
        assert f"{tasks[2]}.nc is damaged" in caplog.text
        assert path.with_name(f"{path.name}.damaged").read_bytes() == damaged
        store.write(tasks[2], outputs(tasks[2]))
        check(store, tasks[2])
    with Store(root, IDENTITY) as store:
        assert all(map(store.finished, tasks))


def test_a_chunk_of_other_configurations_is_set_aside(root, caplog):
    tasks = filled(root)
    shutil.copy(root / "chunks" / f"{tasks[0]}.nc", root / "chunks" / f"{tasks[1]}.nc")
    with Store(root, IDENTITY) as store:
        assert not store.finished(tasks[1])
    assert "other configurations than planned" in caplog.text


@pytest.mark.parametrize("damage", [DAMAGES["cut"], DAMAGES["empty"], DAMAGES["zeros"], DAMAGES["another file"]])
def test_a_damaged_carry_is_set_aside(root, damage, caplog):
    with Store(root, IDENTITY) as store:
        store.write_carry("0000-000000", 3, [np.arange(5)])
        path = root / "carries" / "0000-000000.npz"
        path.write_bytes(damage(path.read_bytes()))
        assert store.read_carry("0000-000000") is None
        assert "npz is damaged" in caplog.text
        store.write_carry("0000-000000", 4, [np.arange(5)])
        assert store.read_carry("0000-000000")[0] == 4


# Several processes

HOLD = """
import sys, time
from test_store_faults import *
store = Store(sys.argv[1], IDENTITY)
print("open", flush=True)
time.sleep(60)
"""


def test_one_process_at_a_time_and_the_next_one_after_a_kill(root):
    tasks = filled(root)
    with Store(root, IDENTITY), pytest.raises(ValueError, match="in use by another sweep of this process"):
        Store(root, IDENTITY)
    environment = {**os.environ, "PYTHONPATH": f"{HERE}:{HERE / 'tests'}"}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True, env=environment, cwd=HERE
    ) as holder:
        assert holder.stdout.readline() == "open\n"
        leftover = root / "chunks" / f"0000-000000.nc.0-{holder.pid}-0.tmp"
        leftover.touch()
        with pytest.raises(ValueError, match=f"in use by process {holder.pid}"):
            Store(root, IDENTITY)
        Store(root, IDENTITY, process=1).close()
        assert leftover.exists()  # it is of a process that lives
        holder.kill()
    with Store(root, IDENTITY, process=1) as store:
        assert not leftover.exists()
        assert all(map(store.finished, tasks))
    Store(root, IDENTITY).close()


KILLS = """
import random, signal, sys, time
import h5py
from test_store_faults import *

root, rounds = Path(sys.argv[1]), int(sys.argv[2])
delays, known, torn, kills = random.Random(0), set(), 0, 0
while kills < rounds or not known:
    kills += 1
    child = os.fork()  # imports once, not once a kill
    if child == 0:
        store = Store(root, IDENTITY)
        while True:
            first = 2.0 * len(store.tasks)
            for task in store.extend([("", [(first + i,), (first + i + 0.5,)]) for i in range(0, 6, 2)]):
                store.write_carry(task, 1, [np.full(100, 7)])
                store.write(task, outputs(task, 50))
                store.drop_carry(task)
                store.remember("last", task)
    time.sleep(delays.uniform(0.0, 0.08))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    torn += len(list(root.rglob("*.tmp")))
    with Store(root, IDENTITY) as store:
        assert not list(root.rglob("*.tmp"))
        visible = {path.stem for path in (root / "chunks").iterdir()}
        assert known <= visible <= set(store.tasks)
        for task in sorted(visible - known):
            assert store.finished(task)
            check(store, task, 50)
        for path in (root / "carries").iterdir():
            step, (leaf,) = store.read_carry(path.stem)
            assert step == 1 and (leaf == 7).all()
        assert not list(root.rglob("*.damaged"))
        known = visible
print(len(known), torn)
"""


@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_any_moment_every_visible_chunk_is_whole(root, rounds):
    result = python(KILLS, root, rounds)
    assert result.returncode == 0, result.stderr
    chunks, _ = map(int, result.stdout.split())
    assert chunks > 0
