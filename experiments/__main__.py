"""What there is: `python -m experiments`; and, with --record, RESULTS.md from the last results."""

import argparse
import ast
import json
import shutil
import textwrap
from pathlib import Path

HERE = Path(__file__).parent


def experiments() -> dict[str, dict[str, str]]:
    """The first line, and COST and SHOWED, of every experiment; read, not imported."""
    found = {}
    for file in sorted(HERE.glob("*.py")):
        tree = ast.parse(file.read_text())
        constants = {
            node.targets[0].id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        if {"COST", "SHOWED"} <= set(constants):
            doc = ast.get_docstring(tree).split("\n")[0]
            found[file.stem] = {"doc": doc} | {name: ast.literal_eval(constants[name]) for name in ("COST", "SHOWED")}
    return found


def listing() -> str:
    """A paragraph an experiment."""
    return "\n\n".join(
        "\n".join([f"{name}  ({about['COST']})", *(wrapped(about[part]) for part in ("doc", "SHOWED"))])
        for name, about in experiments().items()
    )


def wrapped(text: str) -> str:
    """Lines of at most 100 characters, indented."""
    return textwrap.fill(text, 100, initial_indent="    ", subsequent_indent="    ")


def section(name: str, about: dict[str, str], record: dict) -> str:
    """One experiment in RESULTS.md."""
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    lines = [f"## {name}", "", about["doc"], "", about["SHOWED"], ""]
    lines += [f"{record['date']}, {record['device']}, {versions}; {about['COST']}.", ""]
    if (HERE / "figures" / f"{name}.png").is_file():
        lines += [f"![{about['doc']}](figures/{name}.png)", ""]
    lines += ["| | here | published, or pass line | |", "|---|---|---|---|"]
    verdict = {True: "agrees", False: "**differs**", None: ""}
    for row in record["rows"]:
        cells = row["name"], f"{row['here']:.6g}", row["expected"], verdict[row["agrees"]]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def write(results: Path) -> None:
    """RESULTS.md and figures/ from the files that the experiments' commands left in `results`."""
    listed = experiments()
    found = {name: results / f"{name}.json" for name in listed if (results / f"{name}.json").is_file()}
    records = {name: json.loads(file.read_text()) for name, file in found.items()}
    old = [name for name, record in records.items() if "rows" not in record]
    if old:
        raise SystemExit(f"The results of {', '.join(old)} are of an older form: run them again.")
    (HERE / "figures").mkdir(exist_ok=True)
    for name in records:
        shutil.copyfile(results / f"{name}.png", HERE / "figures" / f"{name}.png")
    head = ["# Results", "Written by `python -m experiments --record` from what the experiments' commands left."]
    sections = [section(name, listed[name], record) for name, record in records.items()]
    (HERE / "RESULTS.md").write_text("\n\n".join([*head, *sections]) + "\n")


def main(argv=None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="write RESULTS.md from the results in FOLDER")
    results = parser.parse_args(argv).record
    if results is None:
        print(f"Run one with python -m experiments.<name>; --help tells its options.\n\n{listing()}")
    else:
        write(results)


if __name__ == "__main__":
    main()
