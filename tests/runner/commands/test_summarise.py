from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from paddock.runner import verbs
from paddock.runner.cli import application
from tests.fakes.pool import FakePool


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two documents, and no model: what is asked is echoed."""
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(verbs, "run", partial(verbs.run, pool=FakePool()))
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b/c.md"):
        path = tmp_path / "in box" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Document {name}.")
    return tmp_path


def paddock(*arguments: str) -> Result:
    return CliRunner().invoke(application("summarise"), list(arguments))


def test_a_folder_is_summarised_without_yaml_and_then_only_what_changes(folder: Path) -> None:
    first = paddock("summarise", "in box", "-o", "out", "--words", "30", "--local")
    assert first.exit_code == 0, first.output
    assert (folder / "out" / "a.txt.md").exists() and (folder / "out" / "b" / "c.md.md").exists()
    assert sorted(path.name for path in (folder / "in box").iterdir()) == ["a.txt", "b"]
    again = paddock("summarize", "in box", "-o", "out", "--words", "30", "--local")
    assert "Wrote nothing new." in again.stdout
    (folder / "in box" / "a.txt").write_text("Another one.")
    changed = paddock("summarise", "in box", "-o", "out", "--words", "30", "--local")
    assert "1 model call" in changed.stdout


def test_what_is_saved_goes_on_where_the_command_was(folder: Path) -> None:
    arguments = ("summarise", "in box", "-o", "in box/out", "--local", "--save", "in box/s.yaml")
    first = paddock(*arguments)
    assert first.exit_code == 0, first.output
    assert "Saved as 'in box/s.yaml'. From now on: paddock run 'in box/s.yaml'\n" in first.stderr
    assert (folder / "in box" / ".paddock" / "pipeline.schema.json").exists()
    report = verbs.run(folder / "in box" / "s.yaml", local=True)
    assert (report.status, report.calls) == ("completed", 0)
    assert report.counts["fresh"] == 2, "the pipeline and its outputs are no documents"
    assert paddock(*arguments).exit_code == 0, "the same again is no conflict"
    (folder / "bytes").write_bytes(b"\xff\xfe")
    refused = paddock(*arguments[:-1], "bytes")
    assert refused.exit_code == 2 and "exists already, and says something else" in refused.stderr
    refused = paddock(*arguments, "--words", "10")
    assert (refused.exit_code, refused.stderr) == (
        2,
        f"'{folder}/in box/s.yaml' exists already, and says something else; nothing was done.\n"
        "  Give another name, or remove it first.\n",
    )


def test_a_folder_without_documents_is_told(folder: Path) -> None:
    result = paddock("summarise", "in box", "-o", "out", "--local", "--include", "*.pdf")
    assert result.exit_code == 0
    folder_ = (folder / "in box").resolve()
    (hint,) = (line for line in result.stderr.splitlines() if " there, and none " in line)
    assert hint.startswith(f"docs: {folder_}: ") and "matches `include` ('*.pdf'): '" in hint


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere", "-o", "out"), "There is no folder 'nowhere'.\n"),
        (("in box/a.txt", "-o", "out"), "'in box/a.txt' is a file.\n"
         "  Name its folder; --include takes a name.\n"),
        (("in box", "-o", "in box/a.txt"), "'in box/a.txt' is a file.\n"
         "  Name a folder for the summaries.\n"),
        (("in box", "-o", "out", "--save", "in box"), "'FOLDER/in box' is a folder.\n"
         "  Name a file for the pipeline.\n"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(folder: Path, arguments: tuple[str, ...], told: str) -> None:
    result = paddock("summarise", *arguments, "--local")
    assert (result.exit_code, result.stderr.replace(str(folder), "FOLDER")) == (2, told)
