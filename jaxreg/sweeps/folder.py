"""What lies where in the folder of a store."""

import json
import sys
from pathlib import Path

import jax

from jaxreg.sweeps.files import read_json

FORMAT = 1


def chunk_path(root: Path, task: str) -> Path:
    """The file of a task."""
    return root / "chunks" / f"{task}.nc"


def load(root: Path) -> dict | None:
    """What a store says of itself; None where there is no store."""
    try:
        facts = json.loads((root / "sweep.json").read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise ValueError(f"{root / 'sweep.json'} is damaged: {error}.") from None
    if not isinstance(facts, dict) or "format" not in facts:
        raise ValueError(f"{root / 'sweep.json'} is none that `sweep` wrote.")
    if facts["format"] > FORMAT:
        raise ValueError(
            f"{root} is a store of format {facts['format']}, by jaxreg {facts['jaxreg']}; this version reads {FORMAT}."
        )
    return facts


def load_plans(root: Path) -> list[list[dict]]:
    """The tasks of each plan, in order."""
    return [read_json(path)["tasks"] for path in sorted((root / "plans").glob("[0-9]*.json"))]


def blank() -> dict:
    """What a new store says of itself."""
    versions = {"jaxreg": sys.modules["jaxreg"].__version__, "jax": jax.__version__}
    empty = {name: {} for name in ("outputs", "choices", "attrs", "coords")}
    return {"format": FORMAT, **versions, "identity": None, "space": None, **empty}


def check_folder(path: Path) -> None:
    """Refuse what neither is a store nor can become one."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"`sweep` needs a folder as `store`, got {path}, a file.")
    if not path.exists() or (path / "sweep.json").exists():
        return
    own = {"plans", "chunks", "carries"}  # made by a run that was killed before it wrote anything
    others = [p for p in path.iterdir() if not (p.name.startswith(("lock-", "sweep.json.")) or p.name in own)]
    if others or any(path.glob("*/*.nc")) or any(path.glob("plans/*.json")):
        found = ", ".join(repr(p.name) for p in sorted(others)[:3]) or "chunks without 'sweep.json'"
        raise ValueError(f"`sweep` needs a new or empty folder or a store as `store`; {path} is none, it has {found}.")
