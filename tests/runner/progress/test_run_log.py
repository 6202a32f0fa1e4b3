"""What long-lived commands log: for people, or one JSON object a line."""

import json
import logging
import sys
from pathlib import Path

import pytest

from paddock.engine.system.records import replace
from paddock.runner.progress.command_logs import (
    JsonFormatter,
    PlainFormatter,
    message_writer,
    run_log,
)
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.journal import RunJournal
from paddock.runner.settings import Settings
from tests.runner.world import settings


@pytest.fixture
def as_json(tmp_path: Path) -> Settings:
    plain = settings(tmp_path)
    return replace(plain, service=replace(plain.service, is_log_json=True))


def test_a_record_is_one_line_with_its_trace() -> None:
    try:
        raise ValueError("bad")  # noqa: TRY301 - for its trace
    except ValueError:
        trace = sys.exc_info()
    record = logging.LogRecord(
        "paddock.up", logging.WARNING, __file__, 1, "it %s\nagain", ("failed",), trace
    )
    text = JsonFormatter().format(record)
    logged = json.loads(text)
    assert "\n" not in text
    assert (logged["level"], logged["event"], logged["text"]) == (
        "warning",
        "log",
        "it failed\nagain",
    )
    assert "ValueError: bad" in logged["trace"]


def test_a_text_of_others_moves_no_cursor_of_a_person() -> None:
    try:
        raise ValueError("\x1b[2Jgone\x07")  # noqa: TRY301 - for its trace
    except ValueError:
        trace = sys.exc_info()
    record = logging.LogRecord("paddock", logging.ERROR, __file__, 1, "%s", ("\x9b2J",), trace)
    text = PlainFormatter().format(record)
    assert text.startswith("\\x9b2J\nTraceback")
    assert text.endswith("ValueError: \\x1b[2Jgone\\x07")


def test_what_is_said_is_logged_where_a_machine_reads(
    as_json: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    message_writer(settings(tmp_path))("to a person")
    assert capsys.readouterr().err == "to a person\n"
    with caplog.at_level(logging.INFO, logger="paddock"):
        message_writer(as_json)("to a machine")
    assert caplog.messages == ["to a machine"]


def test_a_run_that_no_one_watches_tells_its_notes_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_log(settings(tmp_path), "watch") as observer:
        observer.began("swift-otter", "news", [])
        observer.item("each", "a.md", ItemState.DONE, None)
        observer.note("waiting for\nanother")
    assert capsys.readouterr().err == "run swift-otter of news: waiting for another\n"


def test_a_run_that_a_machine_watches_tells_all(
    as_json: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_log(as_json, "watch") as observer:
        assert isinstance(observer, RunJournal)
        observer.began("swift-otter", "news", [])
        observer.item("each", "a.md", ItemState.DONE, None)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line.get("trigger")) for line in lines] == [
        ("began", "watch"),
        ("item", None),
    ]
