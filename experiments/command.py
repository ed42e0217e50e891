"""The command of an experiment: an option for every field of its Config, and the files its run leaves."""

import argparse
import dataclasses
from pathlib import Path

from experiments import published


def parse(file: str, doc: str, full, quick, argv=None):
    """The Config that a command line asks for, and the folder to write into.

    Args:
        file: `__file__` of the experiment.
        doc: its docstring; the first line describes the command.
        full: the Config at full size.
        quick: the Config of `--quick`, a minute or less: whether all of it works, and the direction of what it shows.
        argv: the arguments; None for those of the process.
    """
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{Path(file).stem}", description=doc.split("\n")[0])
    for field in dataclasses.fields(full):
        value = getattr(full, field.name)
        many = isinstance(value, tuple)
        kind = type(value[0] if many else value)
        if kind is bool:
            how = {"action": argparse.BooleanOptionalAction}
        else:
            how = {"type": kind, **({"nargs": "+"} if many else {})}
        shown = " ".join(map(str, value)) if many else value
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, default=argparse.SUPPRESS, help=f"default: {shown}", **how)
    parser.add_argument("--quick", action="store_true", help="a small form, to see that it works")
    parser.add_argument("--out", type=Path, default=Path("experiments/results"), help="default: %(default)s")
    given = vars(parser.parse_args(argv))
    out, base = given.pop("out"), quick if given.pop("quick") else full
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return dataclasses.replace(base, **given), out


def finish(file: str, out: Path, config, runs, rows, figure) -> None:
    """Write <out>/<name>.nc, .json and .png, and print the table.

    Args:
        file: `__file__` of the experiment.
        out: the folder.
        config: what was run.
        runs: the Dataset of `jr.sweep`, or several by name: then <name>_<its name>.nc.
        rows: numbers beside the published ones.
        figure: a matplotlib figure.
    """
    name = Path(file).stem
    out.mkdir(parents=True, exist_ok=True)
    parts = {f"_{part}": some for part, some in runs.items()} if type(runs) is dict else {"": runs}
    seconds = 0.0
    for part, some in parts.items():
        some.to_netcdf(out / f"{name}{part}.nc")
        seconds += some.attrs.get("run_seconds", 0.0) + some.attrs.get("compile_seconds", 0.0)
    published.write(rows, out / f"{name}.json", config=dataclasses.asdict(config), seconds=round(seconds, 1))
    figure.savefig(out / f"{name}.png", dpi=100)
    print(published.table(rows))
    print(f"{seconds:.1f} s; wrote {out}/{name}.*")
