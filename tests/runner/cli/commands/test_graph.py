"""`graph`, `run --report` and `logs --report` as a person calls them."""

from pathlib import Path

import pytest

from tests.runner.cli.commands.shell import invoke
from tests.runner.world import each_document

COPIES = """\
name: copies
""" + each_document("""\
      - uses: files.write
        with: {path: "out/{{ doc.relpath }}", text: "{{ steps.text.text }}"}
""")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/a.txt").write_text("A letter.")
    (tmp_path / "pipeline.yaml").write_text(COPIES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_pipeline_is_printed_or_written_as_mermaid_text(folder: Path) -> None:
    printed = invoke("graph", ".").stdout
    assert printed.splitlines()[3] == "flowchart TD"
    for name in ("new/p.mmd", "p.Mermaid"):
        result = invoke("graph", ".", "-o", name)
        assert (result.exit_code, result.stdout) == (0, "")
        assert result.stderr == f"Drew pipeline.yaml to {name}.\n"
        assert (folder / name).read_text("utf-8") == printed


def test_the_last_run_is_in_the_graph_and_has_a_page(folder: Path) -> None:
    result = invoke("run", ".", "--local", "--report", "reports/run.html")
    assert result.exit_code == 0
    page = (folder / "reports/run.html").read_text("utf-8")
    assert '<a href="../inbox/a.txt">a.txt</a>' in page
    assert '<a href="../out/a.txt">a.txt</a>' in page
    assert "1 done" in invoke("graph", ".").stdout
    invoke("run", ".", "--local")
    assert "1 fresh" in invoke("graph", ".").stdout
    again = invoke("logs", "--report", "again.html")
    assert again.exit_code == 0
    assert ">fresh <b>" in (folder / "again.html").read_text("utf-8")


OUTER = """\
name: outer
steps:
  - {id: copy, uses: pipeline, with: {file: pipeline.yaml}}
  - {id: more, uses: pipeline, with: {file: other.yaml}, needs: [copy]}
"""
OTHER = """\
steps:
  - {id: again, uses: pipeline, with: {file: pipeline.yaml}}
"""


def test_what_a_step_runs_is_drawn_in_it(folder: Path) -> None:
    (folder / "outer.yaml").write_text(OUTER)
    (folder / "other.yaml").write_text(OTHER.replace("pipeline.yaml", "third.yaml"))
    (folder / "third.yaml").write_text(COPIES.replace("out/", "third/"))
    before = invoke("graph", "outer.yaml").stdout
    for name in ("copy", "copy_2eeach", "more", "more_2eagain", "more_2eagain_2eeach"):
        assert f"subgraph n_{name}[" in before
    assert "n_copy_2edocs --> n_copy_2eeach" in before
    assert "<b>copy</b><br/>pipeline pipeline.yaml" in before
    assert invoke("run", "outer.yaml", "--local").exit_code == 0
    after = invoke("graph", "outer.yaml").stdout
    assert after.count("subgraph ") == 5
    assert "<b>each</b><br/>for each doc in steps.docs.files<br/>1 done" in after
    assert "<b>text</b><br/>files.read<br/>done" in after
    assert invoke("run", "outer.yaml", "--local").exit_code == 0
    assert "<b>text</b><br/>files.read<br/>nothing to do" in invoke("graph", "outer.yaml").stdout
