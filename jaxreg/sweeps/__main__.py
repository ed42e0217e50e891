"""`python -m jaxreg.sweeps show STORE`: what a sweep has found so far, as text and as a figure."""

import argparse
import os
import sys
from pathlib import Path


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
        print(runs.summary())
        if metric is None:
            print("nothing to plot: no output is a number per configuration")
            return 0
        out = args.out or (args.store if args.store.is_dir() else args.store.parent) / "show.png"
        _draw(runs, metric, out)
    except _Refused as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(f"wrote {out}, {metric}")
    return 0


class _Refused(Exception):
    """What the user has to put right."""


def _open(path: Path):
    import xarray

    import jaxreg.sweeps.runs  # noqa: F401 (gives a Dataset its `summary`)

    if not path.exists():
        raise _Refused(f"there is no {path}")
    try:
        if path.is_dir():
            from jaxreg.sweeps.backend import open_store

            return open_store(path)
        return xarray.open_dataset(path, engine="h5netcdf")
    except (OSError, ValueError) as error:
        raise _Refused(f"cannot read {path}: {error}") from error


def _metric(runs, name: str | None) -> str | None:
    from jaxreg.sweeps.runs import scalars

    names = scalars(runs)
    if name is None:
        return names[0] if names else None
    if name not in names:
        raise _Refused(f"--metric needs a number per configuration, one of {names}; got {name!r}")
    return name


def _draw(runs, metric: str, out: Path) -> None:
    """The curve of one dim, the map of two; lists of configurations and more dims as parallel coordinates."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise _Refused("a figure needs matplotlib: `pip install matplotlib`") from error
    from jaxreg import plotting

    dims = [dim for dim in runs[metric].dims if dim != "seed"] or [*runs[metric].dims]
    over = "seed" if dims != ["seed"] else None
    listed = any(dim not in runs.coords for dim in dims)
    varied = [dim for dim in dims if runs.sizes[dim] > 1] or dims[:1]
    if not listed:
        runs = runs.isel({dim: 0 for dim in dims if dim not in varied})
    if not listed and len(varied) == 1:
        ax = plotting.validation_curve(runs, metric, varied[0], over=over)
    elif not listed and len(varied) == 2:
        ax = plotting.heatmap(runs, metric, *varied, over=over)
    else:
        ax = plotting.parallel_coordinates(runs, metric, over=over)
    try:
        ax.figure.savefig(out, dpi=150)
    except (OSError, ValueError) as error:
        raise _Refused(f"cannot write {out}: {error}") from error
    finally:
        plt.close(ax.figure)


if __name__ == "__main__":
    sys.exit(main())
