"""What makes the chunks of a store those of one sweep."""

import difflib
from pathlib import Path

import jax


def merged_identity(known: dict | None, identity: dict) -> dict:
    """The known one with the groups of both."""
    known = known or identity
    return {**known, "train": {**known["train"], **identity["train"]}}


def check_identity(path: Path, facts: dict | None, identity: dict) -> None:
    """Refuse another sweep than that of a store, and tell what differs."""
    if facts is None:
        return
    old, changes = facts["identity"], []
    if sorted(old["arguments"]) != sorted(identity["arguments"]):
        changes.append(f"axes: {sorted(old['arguments'])} -> {sorted(identity['arguments'])}")
    for kind, title in (("fixed", "fixed argument"), ("options", "option")):
        for name in sorted(old[kind].keys() | identity[kind].keys()):
            was, now = (d[kind].get(name, "(absent)") for d in (old, identity))
            if was != now:
                changes.append(f"{title} {name!r}: {was} -> {now}")
    unlike = [group for group, text in identity["train"].items() if old["train"].get(group, text) != text]
    if unlike:
        changes += _diff(unlike[0], old["train"][unlike[0]], identity["train"][unlike[0]])
    if len(unlike) > 1:
        changes.append(f"`train` for other static values as well, {len(unlike)} in all, such as {unlike[1]}")
    if changes:
        if facts["jax"] != jax.__version__:
            changes.append(f"jax: {facts['jax']} -> {jax.__version__}")
        raise ValueError(
            f"`sweep` needs the sweep that {path} was made with, to resume it; what changed:\n  "
            + "\n  ".join(changes)
            + "\nThe store is as it was. Take another folder for another sweep."
        )


def _diff(group: str, old: str, new: str, most: int = 20) -> list[str]:
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), "store", "now", n=1, lineterm=""))[2:]
    more = [f"... {len(lines) - most} lines more"] if len(lines) > most else []
    return [f"`train`{f' for {group}' if group else ''}, as a jaxpr:", *(line[:160] for line in lines[:most]), *more]
