from pathlib import Path
from typing import Any

import pytest

from paddock.engine.system.records import replace
from paddock.runner import api
from paddock.runner.api import run_until_end
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.progress.report import Report
from tests.fakes.pool import FakePool
from tests.runner.cli.commands.shell import invoke


def with_fake_pool(
    file: Path,
    inputs: Any = None,
    options: RunOptions | None = None,
    environment: RunEnvironment | None = None,
) -> Report:
    environment = replace(environment or RunEnvironment(), pool=FakePool())
    return run_until_end(file, inputs, options, environment)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two documents, and no model: what is asked is echoed."""
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(api, "run", with_fake_pool)
    monkeypatch.setattr(api, "run_until_end", with_fake_pool)
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b/c.md"):
        path = tmp_path / "in box" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Document {name}.")
    return tmp_path


def test_a_folder_is_summarised_without_yaml_and_then_only_what_changes(folder: Path) -> None:
    first = invoke("summarise", "in box", "-o", "out", "--words", "30", "--local")
    assert first.exit_code == 0, first.output
    assert (folder / "out" / "a.txt.md").exists() and (folder / "out" / "b" / "c.md.md").exists()
    assert sorted(path.name for path in (folder / "in box").iterdir()) == ["a.txt", "b"]
    again = invoke("summarize", "in box", "-o", "out", "--words", "30", "--local")
    assert "Wrote no new files." in again.stdout
    (folder / "in box" / "a.txt").write_text("Another one.")
    changed = invoke("summarise", "in box", "-o", "out", "--words", "30", "--local")
    assert "1 model call" in changed.stdout


@pytest.mark.parametrize("file", ["s.yaml", "in box/s.yaml", "out/s.yaml", "elsewhere/s.yaml"])
def test_a_saved_pipeline_owns_what_the_command_made(folder: Path, file: str) -> None:
    arguments = ("summarise", "in box", "-o", "out", "--words", "30", "--local")
    assert invoke(*arguments).exit_code == 0
    (folder / "out/b/c.md.md").write_text("Mine.")
    saved = invoke(*arguments, "--save", file)
    assert saved.exit_code == 0, saved.output
    assert f"It goes on with the summaries of '{folder}/out'.\n" in saved.stderr
    assert "0 model calls" in saved.stdout
    assert "Held 1 item: b/c.md." in saved.stdout
    assert not (folder / "out/.summarise.yaml").exists()
    inputs = {"folder": str(folder / "in box"), "out": str(folder / "out")}
    report = api.run(folder / file, inputs, options=RunOptions(local=True, takes_over=True))
    assert (report.calls, report.counts) == (0, {"fresh": 1, "stale": 1})
    pipeline = folder / file
    pipeline.write_text(pipeline.read_text().replace("words: 30", "words: 20"))
    report = api.run(pipeline, inputs, options=RunOptions(local=True))
    assert report.counts == {"stale": 2}, "its own outputs are written over"
    (folder / "in box/a.txt").unlink()
    api.run(pipeline, inputs, options=RunOptions(local=True, prune=True))
    assert not (folder / "out/a.txt.md").exists()


def test_one_document_is_summarised_alone_or_printed(folder: Path) -> None:
    (folder / "in box" / "a[1].txt").write_text("Brackets are no pattern.")
    written = invoke("summarise", "in box/a[1].txt", "-o", "out", "--local")
    assert written.exit_code == 0, written.output
    assert [path.name for path in (folder / "out").glob("*.md")] == ["a[1].txt.md"]
    printed = invoke("summarise", "in box/a[1].txt", "--local")
    assert printed.exit_code == 0
    assert printed.stdout == f"{(folder / 'out/a[1].txt.md').read_text()}\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("nowhere", "-o", "out"), "There is no folder 'nowhere'.\n"),
        (("in box",), "There is no folder for the summaries.\n  Name one by `-o`.\n"),
        (("in box/a.txt", "--save", "s.yaml"), "There is no folder for the summaries.\n"
         "  Name one by `-o`.\n"),
        (("in box", "-o", "in box/a.txt"), "'in box/a.txt' is a file.\n"
         "  Name a folder for the summaries.\n"),
        (("in box", "-o", "out", "--save", "in box"), "'FOLDER/in box' is a folder.\n"
         "  Name a file for the pipeline.\n"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(folder: Path, arguments: tuple[str, ...], expected: str) -> None:
    result = invoke("summarise", *arguments, "--local")
    assert (result.exit_code, result.stderr.replace(str(folder), "FOLDER")) == (2, expected)
