"""`python -m jaxreg.sweeps show STORE`: what a sweep has found so far, as text and as a figure."""

import argparse
import os
import sys
from pathlib import Path

from jaxreg.plotting import save_overview


def main(argv=None) -> int:
    """The command line; 0 if all went well, 2 if there is nothing to show."""
    parser = argparse.ArgumentParser(prog="python -m jaxreg.sweeps", description=__doc__.split("\n")[0])
    verb = parser.add_subparsers(dest="verb", required=True).add_parser("show", help="print and plot a sweep")
    verb.add_argument("store", type=Path, metavar="STORE", help="a sweep's folder, running or not, or a NetCDF file")
    verb.add_argument("--metric", metavar="NAME", help="what to plot (default: the first number per configuration)")
    verb.add_argument(
        "--out", type=Path, metavar="FILE", help="where to draw it (default: show.png beside the results)"
    )
    args = parser.parse_args(argv)
    try:
        runs = _open(args.store)
        metric = _metric(runs, args.metric)
        _tell(runs.summary())
        if metric is None:
            _tell("nothing to plot: no output is a number per configuration")
            return 0
        out = args.out or (args.store if args.store.is_dir() else args.store.parent) / "show.png"
        save_overview(runs, metric, out)
    except (_Refused, ImportError, OSError, ValueError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    _tell(f"wrote {out}, {metric}")
    return 0


def _tell(text: str) -> None:
    """Print, to nobody once the reader of a pipe has gone, as `head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Refused(Exception):
    """What the user has to put right."""


def _open(path: Path):
    import xarray

    import jaxreg.sweeps.runs  # noqa: F401 (gives a Dataset its `summary`)

    if not path.exists():
        raise _Refused(f"there is no {path}")
    if path.is_dir():
        from jaxreg.sweeps.backend import open_store

        return open_store(path)
    try:
        return xarray.open_dataset(path, engine="h5netcdf")
    except (OSError, ValueError) as error:
        raise _Refused(f"{path} is no NetCDF file: {error}") from error


def _metric(runs, name: str | None) -> str | None:
    from jaxreg.sweeps.runs import scalars

    names = scalars(runs)
    if name is None:
        return names[0] if names else None
    if name not in names:
        raise _Refused(f"--metric needs a number per configuration, one of {names}; got {name!r}")
    return name


if __name__ == "__main__":
    sys.exit(main())
