"""A form that an answer cannot be held to is refused before anything runs, at its place."""

from __future__ import annotations

import json
from pathlib import Path

from paddock.pipelines import source
from paddock.pipelines.errors import Fault
from paddock.runner.binding import replies


def faults(text: str, base: Path = Path()) -> list[Fault]:
    return list(replies.faults(source.parse(text, "news.yaml"), ("steps", 0), base))


def test_a_keyword_that_cannot_be_kept_is_told_by_its_pointer_and_place() -> None:
    text = """\
steps:
  - uses: chat
    reply:
      schema:
        type: object
        properties:
          tags: {type: array, uniqueItems: true, items: {type: string}}
"""
    assert [fault.render() for fault in faults(text)] == [
        "news.yaml:7:31: `reply.schema`, at /properties/tags/uniqueItems: an answer cannot be "
        "held to `uniqueItems` while it is written.\n"
        "       7 |           tags: {type: array, uniqueItems: true, items: {type: string}}\n"
        "         |                               ^^^^^^^^^^^\n"
        "  Remove it, and check the answer afterwards."
    ]


def test_a_fault_in_a_file_is_told_by_its_pointer_there(tmp_path: Path) -> None:
    schema = {"properties": {"a": {"type": "strnig"}}}
    (tmp_path / "form.json").write_text(json.dumps(schema), encoding="utf-8")
    (fault,) = faults("steps: [{uses: chat, reply: {schema: {file: form.json}}}]", tmp_path)
    assert fault.message == (
        "`reply.schema` in the file 'form.json', at /properties/a: there is no type 'strnig'."
    )
    assert fault.mark is not None
    assert (fault.mark.line, fault.mark.column) == (1, 30)


def test_a_short_form_is_checked_too() -> None:
    (fault,) = faults('steps: [{uses: chat, reply: {schema: {title: str, x: "lst[str]"}}}]')
    assert fault.message == "`reply.schema`, at /x: 'lst[str]' is not a type."
    assert fault.mark is not None
    assert fault.mark.snippet[fault.mark.column - 1 :].startswith('"lst[str]"')


def test_a_sound_form_has_no_fault_and_a_step_without_one_neither() -> None:
    assert faults('steps: [{uses: chat, reply: {schema: {title: str, points: "list[str]"}}}]') == []
    assert faults("steps: [{uses: chat}]") == []
    assert faults("steps: [{uses: chat, reply: 3}]") == []
