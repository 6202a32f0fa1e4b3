"""Steps, tools, check functions and readers, as a person and a machine see them."""

import re
from typing import Any, ClassVar

from pydantic import Field

from paddock.engine.request import Role
from paddock.runner.api import validate
from paddock.runner.cli import step_catalogue
from paddock.runner.cli.step_catalogue import StepDescription, step_description
from paddock.steps import registry
from paddock.steps.base import Output, Params


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


def test_a_step_has_its_defaults_and_outputs_as_json() -> None:
    row = step_catalogue.step_row("count", _Count, "paddock-count")
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
    assert listing.keys() == {
        "steps", "tools", "checks", "readers", "formats", "triggers", "broken",
    }  # fmt: skip
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
