"""The command of an experiment: an option for every field of its Config, and the files its run leaves."""

import argparse
import dataclasses
from pathlib import Path

from experiments import data, published


def main(file: str, doc: str, full, quick, run, rows, figure, argv=None) -> None:
    """Run an experiment as a command line asks.

    Args:
        file: `__file__` of the experiment.
        doc: its docstring; the first line describes the command.
        full: the Config at full size.
        quick: the Config of `--quick`, seconds instead of minutes; None where the full size takes no longer.
        run: config -> the Dataset of `jr.sweep`, or a dict of results, Datasets among them.
        rows: (what `run` gave, config) -> numbers beside the published ones.
        figure: (what `run` gave, config) -> a matplotlib figure.
        argv: the arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{Path(file).stem}", description=doc.split("\n")[0])
    for field in dataclasses.fields(full):
        option(parser, field.name, getattr(full, field.name))
    if quick is not None:
        parser.add_argument("--quick", action="store_true", help="a small form, to see that it works")
    parser.add_argument("--out", type=Path, default=Path("experiments/results"), help="default: %(default)s")
    given = vars(parser.parse_args(argv))
    out, base = given.pop("out"), quick if given.pop("quick", False) else full
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    try:
        config = dataclasses.replace(base, **given)
    except ValueError as error:
        parser.error(str(error))
    try:
        results = run(config)
    except data.DataError as error:
        parser.error(str(error))
    write(Path(file).stem, out, config, results, rows(results, config), figure(results, config))


def option(parser, name: str, value) -> None:
    """One option, of the type of its default."""
    many = isinstance(value, tuple)
    kind = type(value[0] if many else value)
    how = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
    shown = " ".join(map(str, value)) if many else value
    how |= {"nargs": "+"} if many else {}
    parser.add_argument(f"--{name.replace('_', '-')}", default=argparse.SUPPRESS, help=f"default: {shown}", **how)


def write(name: str, out: Path, config, results, rows, figure) -> None:
    """Write <out>/<name>.json and .png, every Dataset as <name>.nc or <name>_<key>.nc, and print the table."""
    import matplotlib.pyplot as plt

    out.mkdir(parents=True, exist_ok=True)
    parts = {f"_{key}": part for key, part in results.items()} if type(results) is dict else {"": results}
    seconds = 0.0
    for suffix, part in parts.items():
        if hasattr(part, "to_netcdf"):
            part.to_netcdf(out / f"{name}{suffix}.nc")
            seconds += part.attrs.get("run_seconds", 0.0) + part.attrs.get("compile_seconds", 0.0)
    published.write(rows, out / f"{name}.json", config=dataclasses.asdict(config), seconds=round(seconds, 1))
    figure.savefig(out / f"{name}.png", dpi=100)
    plt.close(figure)
    print(published.table(rows))
    print(f"{f'{seconds:.1f} s; ' if seconds else ''}wrote {out}/{name}.*")
