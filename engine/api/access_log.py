"""Access log: a line, or a JSON object, for each request, to standard error or a file.

A line has the time, the client, the key's name, the request, status, seconds, model and tokens;
`-` stands for a missing value. Query strings are left out because people put secrets there.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from queue import Full, Queue
from threading import Thread
from typing import Any
from urllib.parse import quote

from paddock.engine.api.request_log import Exchange, is_monitoring_path
from paddock.engine.system.text import shorten

_LOGGER = "paddock.access"
_MAX_WORD_CHARS = 200
MOST_WAITING_LINES = 10_000  # 1 MB, some seconds of a busy service
END_S = 1.0
"""Waits twice for lines that are not written yet."""


def access_log_writer(*, is_json: bool) -> Callable[[Exchange], None]:
    """Return a function that logs an ended exchange through the logger `paddock.access`.

    Monitoring requests that succeed are not logged: they come every few seconds.
    """
    logger = logging.getLogger(_LOGGER)
    form = access_log_json if is_json else access_log_line

    def write(exchange: Exchange) -> None:
        if not (is_monitoring_path(exchange.path) and exchange.status < 400):
            logger.info(form(exchange))

    return write


def access_log_line(exchange: Exchange) -> str:
    """Return a line for people.

    >>> access_log_line(Exchange("GET", "/api/tags", "::1", at=0.0, status=200, fate="answered"))
    '1970-01-01T00:00:00Z ::1 - GET /api/tags 200 0.000s - -'
    """
    at = datetime.fromtimestamp(exchange.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    tokens = f"{exchange.n_prompt_tokens}+{exchange.n_completion_tokens}"
    words = [
        at, exchange.client, exchange.key, exchange.method, exchange.path, str(exchange.status),
        f"{exchange.seconds:.3f}s", exchange.model, tokens if exchange.n_answers else "-",
    ]  # fmt: skip
    if exchange.fate != "answered":
        words.append(str(exchange.fate))
    return " ".join(_safe_word(word) for word in words)


def access_log_json(exchange: Exchange) -> str:
    fields: dict[str, Any] = {
        "time": datetime.fromtimestamp(exchange.at, UTC).isoformat(timespec="milliseconds"),
        "client": exchange.client,
        "key": exchange.key,
        "method": exchange.method[:_MAX_WORD_CHARS],
        "path": exchange.path[:_MAX_WORD_CHARS],
        "status": exchange.status,
        "seconds": round(exchange.seconds, 4),
        "first_byte_seconds": round(exchange.first_s, 4),
        "bytes": exchange.sent_bytes,
        "model": exchange.model[:_MAX_WORD_CHARS],
        "prompt_tokens": exchange.n_prompt_tokens if exchange.n_answers else None,
        "completion_tokens": exchange.n_completion_tokens if exchange.n_answers else None,
        "fate": exchange.fate,
    }
    return json.dumps({name: value for name, value in fields.items() if value not in ("", None)})


def _safe_word(text: str) -> str:
    r"""Return untrusted text as one word, so that it cannot forge another line or field.

    >>> _safe_word("a b\nc"), _safe_word("")
    ('a%20b%0Ac', '-')
    """
    shown = "".join(
        letter
        if letter.isprintable() and letter != " "
        else quote(letter, safe="", errors="surrogatepass")
        for letter in shorten(text, _MAX_WORD_CHARS)
    )
    return shown or "-"


class _LineWriter(logging.Handler):
    """Writes lines in a thread: where nothing reads them, neither requests nor the end wait."""

    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__()
        self._write, self._n_lost = write, 0
        self._lines: Queue[str | None] = Queue(MOST_WAITING_LINES)
        self._thread = Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        self.add(record.getMessage())

    def add(self, line: str) -> None:
        try:
            self._lines.put_nowait(f"{line}\n")
        except Full:
            self._n_lost += 1

    def close(self) -> None:
        with suppress(Full):
            self._lines.put(None, timeout=END_S)
        self._thread.join(END_S)
        super().close()

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            with suppress(OSError):  # what reads it may have ended
                self._write(line)
                if n_lost := self._n_lost:
                    self._n_lost -= n_lost
                    self._write(f"{n_lost} lines are left out: nothing read this log\n")


def _write_error_output(text: str) -> None:
    # Not by `sys.stderr`: its lock would be held at the end, and Python would end by a signal
    os.write(2, text.encode("utf-8", "backslashreplace"))


@contextmanager
def access_log_to_stream(
    write: Callable[[str], object] = _write_error_output,
) -> Iterator[Callable[[str], None]]:
    """Write the access log until the block ends; yield what adds a line."""
    logger, handler = logging.getLogger(_LOGGER), _LineWriter(write)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield handler.add
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
        handler.close()
