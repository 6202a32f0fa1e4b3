"""What long-lived commands log: lines for people, or one JSON object a line for journald.

The same form as a run's journal: `time`, `level`, `event`, and the text of what is said.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from .display import console
from .journal import Journal, Lines
from .observer import Observer, Silent
from .settings import Settings

LOGGER = "paddock"
_PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class AsJson(logging.Formatter):
    """Writes a record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
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


def prepare(settings: Settings) -> None:
    """Let what is logged in this process go to stderr, in the form that is asked for."""
    form = AsJson() if settings.service.is_log_json else logging.Formatter(_PLAIN)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(form)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    level = logging.DEBUG if settings.is_debug else logging.INFO
    logging.getLogger(LOGGER).setLevel(level)


def teller(settings: Settings) -> Callable[[str], None]:
    """Give what tells a person something on stderr, or logs it where a machine reads that."""
    return logging.getLogger(LOGGER).info if settings.service.is_log_json else console.tell


@contextmanager
def run_log(settings: Settings, trigger: str) -> Iterator[Observer]:
    """Give the observer of a run that nobody watches: all it does as JSON, or its notes alone."""
    if not settings.service.is_log_json:
        yield _Notes()
        return
    with Lines(sys.stderr) as lines:
        yield Journal(lines, trigger=trigger)


class _Notes(Silent):
    """Tells the notes of a run, each with its name."""

    def __init__(self) -> None:
        self._run = ""

    def began(self, run: str, pipeline: str, steps: object) -> None:
        """Keep its name."""
        self._run = f"run {run} of {pipeline}: "

    def note(self, text: str) -> None:
        """Tell it."""
        console.tell(f"{self._run}{console.message(text)}")
