"""Steps, tools, check functions and readers, as a person and a machine see them."""

import json
import re
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import Field
from typer.testing import CliRunner

from paddock.engine.request import Role
from paddock.runner.api import validate
from paddock.runner.cli import step_catalogue
from paddock.runner.cli.application import application
from paddock.runner.cli.step_catalogue import StepDescription, step_description
from paddock.steps import registry
from paddock.steps.base import Output, Params
from paddock.steps.plugins import STEP_GROUP


class _Params(Params):
    root: str
    include: tuple[str, ...] = ("**/*",)
    newest: int | None = None
    by: str = Field("page", alias="per")


class _Output(Output):
    files: list[str]
    count: int


class _Count:
    """Count files under a root.

    More about it.
    """

    params: ClassVar = _Params
    output: ClassVar = _Output
    version: ClassVar[int] = 1
    is_pure: ClassVar[bool] = True
    roles: ClassVar[frozenset[Role]] = frozenset()


def test_a_step_is_told_with_needs_defaults_and_outputs() -> None:
    row = step_catalogue.step_row("count", _Count, "paddock-count")
    assert step_catalogue.steps_text([row]) == (
        "count  Count files under a root. [paddock-count]\n"
        "  needs  root\n"
        '  takes  include ["**/*"], newest, per "page"\n'
        "  gives  files, count"
    )
    assert row.as_json()["params"]["include"] == {
        "required": False,
        "default": ["**/*"],
        "schema": row.params[1].schema,
    }
    assert row.as_json()["outputs"] == ["files", "count"]


def test_all_that_checks_and_tools_may_call_is_listed() -> None:
    found = step_catalogue.list_installed()
    rows = {(row.kind, row.name): row for row in found.parts}
    assert rows["tool", "calculator"].takes == "expression"
    assert rows["check", "words"].takes == "value, least, most"
    assert rows["check", "located"].takes == "value"
    assert rows["reader", "pdf"].about == "application/pdf"
    assert rows["trigger", "webhook"].takes == "path, secret, inputs"
    assert all(row.about for row in rows.values())
    assert found.broken == ()
    text = step_catalogue.catalogue_text(found)
    assert re.search(r"\n  words\(value, least, most\) +Return the number of words", text)
    listing = found.as_json()
    assert listing.keys() == {"steps", "tools", "checks", "readers", "triggers", "broken"}
    assert {row["name"] for row in listing["steps"]} >= {"chat", "pipeline", "files.scan"}


def test_one_step_is_told_with_types_and_an_example() -> None:
    row = step_catalogue.step_row("count", _Count, "paddock-count")
    assert (
        StepDescription(row, _Count).text()
        == """\
count  Count files under a root.
  package paddock-count

with
  root     text, needed
  include  list of text, default ["**/*"]
  newest   whole number
  per      text, default "page"

gives
  files, count

example
  - id: count
    uses: count
    with: {root: "…"}"""
    )


def test_every_example_of_a_step_is_valid(tmp_path: Any) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "clean.yaml").write_text("steps: [{uses: prompt, with: {template: x}}]")
    for name in registry.load_all_steps()[0]:
        example = step_description(name).text().partition("\nexample\n")[2]
        file = tmp_path / "example.yaml"
        file.write_text(f"steps:\n{example}\n", encoding="utf-8")
        assert [fault.message for fault in validate(file).faults] == [], name


def test_what_is_broken_is_told_with_its_package_and_hides_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = registry._effective_points()
    bad = EntryPoint("bad", "nowhere.to:be_found", STEP_GROUP)
    monkeypatch.setattr(
        registry, "_effective_points", lambda: {"bad": (bad,), "chat": found["chat"]}
    )
    fault = "step 'bad' of package 'unknown' cannot be used: ModuleNotFoundError: No module named "
    runner = CliRunner()
    for arguments in (["steps"], ["schema"], ["schema", "--for", "llm"]):
        result = runner.invoke(application(arguments[0]), arguments)
        assert result.exit_code == 0 and "chat" in result.stdout
        assert fault in result.stderr, arguments
    listed = runner.invoke(application("steps"), ["steps", "--json"])
    assert [line.startswith(fault) for line in json.loads(listed.stdout)["broken"]] == [True]
    result = runner.invoke(application("steps"), ["steps", "bad"])
    assert result.exit_code == 1 and result.stderr.startswith(fault)


def test_a_function_of_a_file_is_told_as_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text('def clean(text: str):\n    """Clean it."""\n')
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    result = runner.invoke(application("steps"), ["steps", "./mine.py:clean"])
    assert result.stdout == (
        "./mine.py:clean  Clean it.\n\nwith\n  text  text, needed\n\n"
        'example\n  - id: clean\n    uses: ./mine.py:clean\n    with: {text: "…"}\n'
    )
    result = runner.invoke(application("steps"), ["steps", "mine.py:claen"])
    assert (result.exit_code, result.stderr) == (
        2,
        "there is no function 'claen' in 'mine.py'.\n  Known: 'clean'. Did you mean 'clean'?\n",
    )
