"""Logs of long-lived commands: lines for people, or JSON in the form of a journal."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from paddock.runner.settings import Settings

from . import printing
from .events import Observer
from .journal import LineWriter, RunJournal

LOGGER = "paddock"
_PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": "log",
            "logger": record.name,
            "text": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


class PlainFormatter(logging.Formatter):
    """Formats for people; a text of others, also in a traceback, moves no cursor."""

    def format(self, record: logging.LogRecord) -> str:
        return printing.printable_text(super().format(record))


def prepare_logging(settings: Settings) -> None:
    form = JsonFormatter() if settings.service.is_log_json else PlainFormatter(_PLAIN)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(form)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    level = logging.DEBUG if settings.is_debug else logging.INFO
    logging.getLogger(LOGGER).setLevel(level)


def message_writer(settings: Settings) -> Callable[[str], None]:
    """Return what prints messages on stderr, or logs them as JSON."""
    return logging.getLogger(LOGGER).info if settings.service.is_log_json else printing.print_err


@contextmanager
def run_log(settings: Settings, trigger: str) -> Iterator[Observer]:
    """Yield the observer of an unattended run: all events as JSON, or its notes alone."""
    if not settings.service.is_log_json:
        yield _NoteWriter()
        return
    with LineWriter(sys.stderr) as lines:
        yield RunJournal(lines, trigger=trigger)


class _NoteWriter(Observer):
    def __init__(self) -> None:
        self._run = ""

    def began(self, run: str, pipeline: str, steps: object) -> None:
        self._run = f"run {run} of {pipeline}: "

    def note(self, text: str) -> None:
        printing.print_err(f"{self._run}{printing.printable_message(text)}")
