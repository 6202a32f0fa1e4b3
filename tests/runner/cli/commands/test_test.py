"""`paddock test` as a person and as CI see it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from paddock.pipelines.errors import PipelineError
from paddock.runner.cli.commands import test as test_command
from tests.runner.cli.commands.shell import paddock_here as paddock

HOOKS = Path(__file__).resolve().parents[4] / ".pre-commit-hooks.yaml"
PIPELINE = """\
name: greeting
steps:
  - {id: one, uses: prompt, with: {template: "Hello, harbour."}}
returns: steps.one.text
tests:
  - {name: says hello, expect: [{contains: Hello}]}
  - {name: says goodbye, expect: [{contains: Goodbye}]}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    path = tmp_path / "pipeline.yaml"
    path.write_text(PIPELINE)
    return path


def command(files: list[str], **flags: Any) -> int:
    return test_command.test(test_command.PipelineTestFlags(files=files, **flags))


def test_a_person_reads_each_test_and_what_is_wrong_with_it(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["pipeline.yaml"]) == 4
    lines = capsys.readouterr().out.splitlines()
    lines = [line.partition(" (live")[0].partition(", in ")[0] for line in lines]
    assert lines == [
        "pipeline.yaml",
        "  passed  says hello",
        "  failed  says goodbye",
        "      contains: what the run returns does not contain 'Goodbye'.",
        "        Hello, harbour.",
        "2 tests: 1 passed, 1 failed",
    ]


def test_variants_stand_side_by_side(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["pipeline.yaml"], settings=["one.template=Hello,Goodbye"]) == 4
    lines = capsys.readouterr().out.splitlines()
    assert "pipeline.yaml: one.template=Goodbye" in lines
    assert lines[-5:-1] == [
        "    variant                says hello   says goodbye",
        "A   one.template=Hello     passed       failed",
        "B   one.template=Goodbye   failed       passed",
        "",
    ]
    with pytest.raises(PipelineError, match=r"'--prompt one' is no NAME=VALUE,…\."):
        command(["pipeline.yaml"], prompts=["one"])


def test_a_machine_gets_one_object_and_the_status(file: Path) -> None:
    ended = paddock("test", "pipeline.yaml", "--json", cwd=file.parent)
    report = json.loads(ended.out)
    assert (ended.status, report["ok"]) == (4, False)
    assert report["counts"] == {"passed": 1, "failed": 1, "error": 0, "skipped": 0}
    assert [test["outcome"] for test in report["files"][0]["tests"]] == ["passed", "failed"]
    assert "says goodbye" in ended.err


def test_a_file_that_is_wrong_is_an_error_for_ci_and_no_older_report_is_left(file: Path) -> None:
    assert command(["."], only=["says hello"], junit=Path("j.xml")) == 0
    file.write_text("steps: [{uses: promt}]\n")
    ended = paddock("test", ".", "--junit", "j.xml", cwd=file.parent)
    text = Path("j.xml").read_text()
    assert ended.status == 2
    assert 'errors="1"' in text and "there is no step called &#39;promt&#39;" in text
    ended = paddock("run", ".", "--junit", "j.xml", "--local", cwd=file.parent)
    text = Path("j.xml").read_text()
    assert ended.status == 2
    assert 'errors="1"' in text and "there is no step called &#39;promt&#39;" in text
    file.unlink()
    assert paddock("run", ".", "--junit", "j.xml", cwd=file.parent).status != 0
    assert "promt" not in Path("j.xml").read_text()


@pytest.mark.parametrize(
    "hook", yaml.safe_load(HOOKS.read_text("utf-8")), ids=lambda hook: hook["id"]
)
def test_a_hook_of_pre_commit_passes_a_sound_pipeline_and_stops_a_faulty_one(
    file: Path, hook: dict[str, Any]
) -> None:
    program, *arguments = hook["entry"].split() + hook.get("args", [])
    assert program == "paddock"
    assert re.search(hook.get("files", ""), "bills/pipeline.yaml")
    file.write_text(
        PIPELINE.replace("Goodbye", "harbour").replace("  - {name", "  - {replay: c, name")
    )
    paddock("test", "--record", cwd=file.parent)
    assert paddock(*arguments, str(file), cwd=file.parent).status == 0
    file.write_text(PIPELINE.replace("uses: prompt", "uses: promt"))
    assert paddock(*arguments, str(file), cwd=file.parent).status == 2
    if hook.get("pass_filenames", True):
        odd = file.parent / "-x" / file.name
        odd.parent.mkdir()
        odd.write_text(PIPELINE)
        assert paddock(*arguments, f"-x/{file.name}", cwd=file.parent).status == 0


def test_a_report_is_one_page_also_of_a_file_that_cannot_be_read(file: Path) -> None:
    target = file.parent / "tests.html"
    assert command([str(file)], report=target) == 4
    text = target.read_text("utf-8")
    assert "says goodbye" in text
    assert "does not contain &#39;Goodbye&#39;" in text
    file.write_text(PIPELINE.replace("uses: prompt", "uses: promt"))
    with pytest.raises(PipelineError):
        command([str(file)], report=target)
    assert "there is no step called &#39;promt&#39;" in target.read_text("utf-8")
