"""Fetch documents of a server several at once: in order, within bounds of memory and time."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar, cast

from .mirror import MOST_FAILURES, Answer, Had, Left, SourceAway, SourceRefused, Whole

T = TypeVar("T")
X = TypeVar("X")

N_AT_ONCE = 8
"""Requests to one server: OpenSSH has 10 sessions a connection; browsers send 6."""
_AHEAD_BYTES = 512 * 1024
"""Of a document that is fetched before its turn; a larger one is fetched when it has come."""
_REQUEST_S = 600.0  # for a whole one, however its bytes trickle


def in_order(
    items: Iterable[X], call: Callable[[X], T], n_at_once: int = N_AT_ONCE
) -> Iterator[tuple[X, Callable[[], T]]]:
    """Yield each item with what waits for its call; those of the next ones run meanwhile."""
    due = deque[tuple[X, Callable[[], T]]]()
    for item in items:
        due.append((item, started(partial(call, item))))
        if len(due) == n_at_once:
            yield due.popleft()
    yield from due


def fetch_in_order(
    identities: Sequence[str],
    fetch: Callable[[str, int], Answer],
    most_bytes: int,
    sizes: Mapping[str, int | None],
    n_at_once: int = N_AT_ONCE,
) -> Iterator[tuple[str, Answer]]:
    """Yield the answer of each by a call that raises `SourceAway` or `SourceRefused`.

    The call gets how many bytes it may read; of a document with more it returns `Left` with a size.
    What is refused of one document is no failure of the source.
    """
    n_failures, ahead = 0, min(_AHEAD_BYTES, most_bytes)

    def fetch_ahead(identity: str) -> Answer | None:
        if (sizes.get(identity) or 0) > ahead:
            return None
        answer = fetch(identity, ahead)
        is_large = isinstance(answer, Left) and answer.size_bytes > ahead
        return None if is_large and ahead < most_bytes else answer

    for identity, result in in_order(identities, fetch_ahead, n_at_once):
        try:
            answer = result() or started(partial(fetch, identity, most_bytes))()
        except SourceRefused as error:
            answer = Left(f"{error}")
        except SourceAway as error:
            n_failures += 1
            yield identity, Left(f"{error}")
            if n_failures == MOST_FAILURES:
                raise
            continue
        yield identity, answer


def started(call: Callable[[], T]) -> Callable[[], T]:
    """Start a call that may block for ever, in a thread that is left alone then.

    Returns what waits for its result, and raises `SourceAway` once that is late.
    """
    done = SimpleQueue[tuple[T | None, BaseException | None]]()

    def work() -> None:
        try:
            done.put((call(), None))
        except BaseException as error:  # raised again
            done.put((None, error))

    def result() -> T:
        try:
            value, error = done.get(timeout=_REQUEST_S)
        except Empty:
            raise SourceAway(f"it took more than {_REQUEST_S:.0f} s") from None
        if error is not None:
            raise error
        return cast("T", value)

    Thread(target=work, daemon=True).start()
    return result


def known_end(headers: Mapping[str, str], content: bytes) -> Whole | None:
    """Return how an answer of HTTP, read to its end, says that this is all of it.

    A client notices where an answer is shorter than its Content-Length, or lacks its last chunk.
    One without both ends where the connection does, as one that broke off: then a digest decides.

    Raises:
        SourceRefused: it is damaged.
    """
    md5 = hashlib.md5(content, usedforsecurity=False)
    if (stated := headers.get("Content-MD5")) is not None:
        if stated.strip() != b64encode(md5.digest()).decode():
            raise SourceRefused("it has another digest than the server states")
        return Whole.DIGEST
    if headers.get("Transfer-Encoding", "").strip().lower().endswith("chunked"):
        return Whole.END
    if "Content-Length" in headers:
        return Whole.LENGTH
    digests = {md5.hexdigest(), *(hashlib.new(n, content).hexdigest() for n in ("sha1", "sha256"))}
    etag = headers.get("ETag", "").removeprefix("W/").strip('"').lower()
    return Whole.DIGEST if etag in digests else None


def answer_of(content: bytes, whole_by: Whole | None, most_bytes: int) -> Answer:
    if len(content) > most_bytes:
        return Left(f"larger than `max_bytes` ({most_bytes:,})", len(content))
    if whole_by is None:
        return Left("the server does not say where it ends: it may be a part")
    return Had(content, whole_by)
