"""The notebooks of the examples, run as Jupyter runs them, with the model of the package."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import pytest

from tests.waiting import PATIENCE_S

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of Jupyter's own
    import nbformat
    from nbclient import NotebookClient

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*/*.ipynb"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_a_notebook_runs_from_top_to_bottom(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "example"
    shutil.copytree(file.parent, folder, ignore=shutil.ignore_patterns(".paddock", "out"))
    notebook = nbformat.read(file, as_version=4)  # type: ignore[no-untyped-call]
    assert all(not cell.get("outputs") for cell in notebook.cells)
    environ = {**os.environ, "CI": "1", "HOME": str(tmp_path)}
    client = NotebookClient(
        notebook, timeout=PATIENCE_S, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=environ)
    shown = [str(cell.get("outputs")) for cell in notebook.cells]
    assert any("<td>4 done</td>" in text for text in shown)
    assert any("decimal128(10, 2)" in text and "date32" in text for text in shown)
