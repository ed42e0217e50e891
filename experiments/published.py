"""Numbers beside those that were published, and whether they agree."""

import json
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """One number, the published one, and how far apart they may be."""

    name: str
    here: float
    published: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether the distance is within the tolerance; NaN is not."""
        return abs(self.here - self.published) <= self.tolerance


def table(rows) -> str:
    """The rows as text, with the distance of each from what was published."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}}{'here':>16}{'published':>16}{'|difference|':>14}{'tolerance':>11}"]
    for row in rows:
        lines.append(
            f"{row.name:{width}}{row.here:16.9g}{row.published:16.9g}"
            f"{abs(row.here - row.published):14.1e}{row.tolerance:11.1e}{'' if row.agrees else '  DIFFERS'}"
        )
    return "\n".join([*lines, f"{sum(row.agrees for row in rows)} of {len(rows)} agree"])


def write(rows, file: Path) -> None:
    """The rows as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([row._asdict() | {"agrees": bool(row.agrees)} for row in rows], indent=1))
