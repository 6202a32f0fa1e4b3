"""The access log: one line a request, for people or as JSON. Knows no prompt and no answer.

A line has the time, the client, the key's name, what was asked, the status, the seconds, the model
and its tokens (prompt and answer); `-` stands for what there is not. Query strings are left out,
for people put secrets there.
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

from .journal import Exchange, is_watching

_LOGGER = "paddock.access"
_LONGEST = 200


def writer(*, is_json: bool) -> Callable[[Exchange], None]:
    """Give what writes down an exchange that has ended, through the logger `paddock.access`.

    Monitors that were answered well leave no line: they come every few seconds, and are counted in
    `/metrics`.
    """
    logger = logging.getLogger(_LOGGER)
    form = as_json if is_json else as_text

    def write(exchange: Exchange) -> None:
        if not (is_watching(exchange.path) and exchange.status < 400):
            logger.info(form(exchange))

    return write


def as_text(exchange: Exchange) -> str:
    """Write a line for people.

    >>> as_text(Exchange("GET", "/api/tags", "127.0.0.1", at=0.0, status=200, fate="answered"))
    '1970-01-01T00:00:00Z 127.0.0.1 - GET /api/tags 200 0.000s - -'
    """
    at = datetime.fromtimestamp(exchange.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    tokens = f"{exchange.n_prompt_tokens}+{exchange.n_completion_tokens}"
    words = [
        at, exchange.client, exchange.key, exchange.method, exchange.path, str(exchange.status),
        f"{exchange.seconds:.3f}s", exchange.model, tokens if exchange.n_answers else "-",
    ]  # fmt: skip
    if exchange.fate != "answered":
        words.append(str(exchange.fate))
    return " ".join(_word(word) for word in words)


def as_json(exchange: Exchange) -> str:
    """Write a line for machines; what there is not is left out."""
    told: dict[str, Any] = {
        "time": datetime.fromtimestamp(exchange.at, UTC).isoformat(timespec="milliseconds"),
        "client": exchange.client,
        "key": exchange.key,
        "method": exchange.method[:_LONGEST],
        "path": exchange.path[:_LONGEST],
        "status": exchange.status,
        "seconds": round(exchange.seconds, 4),
        "first_byte_seconds": round(exchange.first_s, 4),
        "bytes": exchange.sent_bytes,
        "model": exchange.model[:_LONGEST],
        "prompt_tokens": exchange.n_prompt_tokens if exchange.n_answers else None,
        "completion_tokens": exchange.n_completion_tokens if exchange.n_answers else None,
        "fate": exchange.fate,
    }
    return json.dumps({name: value for name, value in told.items() if value not in ("", None)})


def _word(text: str) -> str:
    r"""Make one word of what came from outside: nothing in it may look like another line or field.

    >>> _word("a b\nc"), _word("")
    ('a%20b%0Ac', '-')
    """
    short = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    shown = "".join(
        letter if letter.isprintable() and letter != " " else _quoted(letter) for letter in short
    )
    return shown or "-"


def _quoted(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogatepass"))


@contextmanager
def to_stream(stream: IO[str] | None = None) -> Iterator[None]:
    """Write the access log's lines to a stream until the block ends; by default standard error.

    A thread writes, so that a pipe which nobody empties never holds up the service.
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
