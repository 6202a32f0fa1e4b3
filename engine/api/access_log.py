"""Access log: a line, or a JSON object, for each request, to standard error or a file.

A line has the time, the client, the key's name, the request, status, seconds, model and tokens;
`-` stands for a missing value. Query strings are left out because people put secrets there.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from queue import SimpleQueue
from typing import IO, Any
from urllib.parse import quote

from paddock.engine.api.request_log import Exchange, is_monitoring_path
from paddock.engine.system.text import shorten

_LOGGER = "paddock.access"
_MAX_WORD_CHARS = 200


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


@contextmanager
def access_log_to_stream(stream: IO[str] | None = None) -> Iterator[None]:
    """Write the access log to a stream until the block ends; by default to standard error.

    A thread writes, so that a full pipe never blocks the service.
    """
    queue: SimpleQueue[logging.LogRecord] = SimpleQueue()
    out = logging.StreamHandler(stream or sys.stderr)
    out.setFormatter(logging.Formatter("%(message)s"))
    logger, handler = logging.getLogger(_LOGGER), QueueHandler(queue)
    listener = QueueListener(queue, out)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    listener.start()
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before
        listener.stop()
