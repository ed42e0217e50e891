"""Numbers beside those that were published, and whether they agree."""

import datetime
import importlib.metadata
import json
import platform
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

    @property
    def expected(self) -> str:
        """What was published, in words."""
        return f"{self.published:.9g} ± {self.tolerance:.1e}"


class Range(NamedTuple):
    """One number, and the line it must not cross: low ≤ here ≤ high."""

    name: str
    here: float
    low: float = -float("inf")
    high: float = float("inf")

    @property
    def agrees(self) -> bool:
        """Whether the number is in the range; NaN is not."""
        return self.low <= self.here <= self.high

    @property
    def expected(self) -> str:
        """The range, in words."""
        if self.low == -float("inf"):
            return f"≤ {self.high:.9g}"
        return f"≥ {self.low:.9g}" if self.high == float("inf") else f"{self.low:.9g} to {self.high:.9g}"


class Seen(NamedTuple):
    """A number to report, about which nothing was claimed before; beside it what was printed elsewhere, if anything."""

    name: str
    here: float
    expected: str = ""
    agrees = None


def table(rows) -> str:
    """The rows as text, each beside what was published, and a count of those that agree."""
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}}{'here':>16}   published"]
    for row in rows:
        fails = "  DIFFERS" if row.agrees is not None and not row.agrees else ""
        lines.append(f"{row.name:{width}}{row.here:16.9g}   {row.expected}{fails}")
    judged = [bool(row.agrees) for row in rows if row.agrees is not None]
    return "\n".join([*lines, f"{sum(judged)} of {len(judged)} agree"])


def write(rows, file: Path, **facts) -> None:
    """The rows as JSON, with the date, the device, the versions, and any other facts of the run."""
    import jax

    device = jax.devices()[0]
    record = {
        "date": datetime.date.today().isoformat(),
        "device": f"{platform.machine()} {device.device_kind}, {len(jax.devices())} × {device.platform}",
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "optax", "flax")},
        **facts,
        "rows": [
            {
                "name": row.name,
                "here": float(row.here),
                "expected": row.expected,
                "agrees": None if row.agrees is None else bool(row.agrees),
            }
            for row in rows
        ],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record, indent=1, ensure_ascii=False))
