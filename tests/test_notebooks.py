"""Notebooks run from top to bottom, are paired with their scripts, and keep their outputs."""

from pathlib import Path

import jupytext
import nbclient
import nbformat
import pytest

pytestmark = pytest.mark.interpreters

FOLDER = Path(__file__).parent.parent / "notebooks"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda p: p.stem)
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own machinery; the notebook's warnings are in its kernel
def test_notebook(path):
    notebook = nbformat.read(path, as_version=4)
    script = jupytext.read(path.with_suffix(".py"))
    sources = lambda nb: [(cell.cell_type, cell.source) for cell in nb.cells]
    assert sources(notebook) == sources(script)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(bool(cell.outputs) for cell in code) >= len(code) / 2, "outputs are kept"
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": FOLDER}}).execute()
