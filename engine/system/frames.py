"""Frames between processes of ours: two lengths, a JSON object, and bytes beside it.

Readers of documents, functions of users, processes that answer orders, workers of models and runs
of `paddock up` send them. Never pickles: what takes over a process must not reach the one that
started it.
A frame says its size first, so that one that is too large is refused before it is read.
"""

from __future__ import annotations

import json
import os
import select
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:  # half of a reader's start, which has no event loop
    from asyncio import StreamReader

FrameHead = dict[str, Any]

_LENGTHS = struct.Struct("<QQ")
MAX_FRAME_BYTES = 1 << 30
_MAX_HEAD_BYTES = 16 * 1024**2
_PIECE_BYTES = 1024**2
_POLL_S = 0.05  # a reader's memory grows by 50 to 100 MB in that time


class PipeClosed(Exception):
    """The other end has closed the pipe, or sends no frames."""


class FrameTooLarge(PipeClosed):
    """The other end announced a frame that is larger than any regular one."""


def pack_frame(head: FrameHead, body: bytes = b"", *, errors: str = "replace") -> bytes:
    """Return a frame; `errors` is for halves of characters, which `surrogatepass` keeps."""
    raw = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode(errors=errors)
    return b"".join((_LENGTHS.pack(len(raw), len(body)), raw, body))


def read_frame(stream: BinaryIO) -> tuple[FrameHead, bytes]:
    """Wait for a frame and return its head and body.

    Raises:
        PipeClosed: the stream has ended.
        FrameTooLarge, ValueError: what comes is no frame.
    """
    n_head, n_body = _lengths(_exactly(stream, _LENGTHS.size), MAX_FRAME_BYTES)
    return _head(_exactly(stream, n_head)), _exactly(stream, n_body)


async def read_frame_async(
    stream: StreamReader, max_bytes: int = MAX_FRAME_BYTES
) -> tuple[FrameHead, bytes]:
    """Wait for a frame and return its head and body.

    Raises:
        PipeClosed: the stream has ended.
        FrameTooLarge, ValueError: what comes is no frame.
    """
    try:
        n_head, n_body = _lengths(await stream.readexactly(_LENGTHS.size), max_bytes)
        head = _head(await stream.readexactly(n_head))
        return head, await stream.readexactly(n_body)
    except (EOFError, ConnectionError) as error:
        raise PipeClosed from error


def _head(raw: bytes) -> FrameHead:
    try:
        head = json.loads(raw)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(head, dict):
        raise ValueError("a frame's head is an object")  # noqa: TRY004 - as other garbage
    return head


def _lengths(raw: bytes, max_bytes: int) -> tuple[int, int]:
    n_head, n_body = _LENGTHS.unpack(raw)
    if n_head + n_body > max_bytes:
        raise FrameTooLarge
    return n_head, n_body


def _exactly(stream: BinaryIO, n_bytes: int) -> bytes:
    raw = stream.read(n_bytes)
    if len(raw) < n_bytes:
        raise PipeClosed
    return raw


class FramePipes:
    """Pipes of a process that one thread at a time asks; a full one never blocks the other."""

    def __init__(self, stdin: int, stdout: int) -> None:
        os.set_blocking(stdin, False)
        self._stdin, self._stdout = stdin, stdout
        self._received = bytearray()
        self._unsent = memoryview(b"")

    def ask(
        self,
        sent: bytes,
        check: Callable[[], None],
        max_body_bytes: int = 0,
        poll_s: float = _POLL_S,
    ) -> tuple[FrameHead, memoryview]:
        """Send bytes and return the next frame; `check` is called often, and raises to give up.

        What was given up goes on with no bytes.

        Raises:
            PipeClosed: the process has ended.
            FrameTooLarge: its answer has more bytes than it may have.
            ValueError: what it sends is no frame.
        """
        self._unsent = memoryview(sent) if sent else self._unsent
        while (found := self._taken(max_body_bytes)) is None:
            writable = [self._stdin] if self._unsent else []
            can_read, can_write, _ = select.select([self._stdout], writable, [], poll_s)
            if can_write:
                with suppress(BrokenPipeError, BlockingIOError):
                    n_sent = os.write(self._stdin, self._unsent[:_PIECE_BYTES])
                    self._unsent = self._unsent[n_sent:]
            if can_read:
                piece = os.read(self._stdout, _PIECE_BYTES)
                if not piece:
                    raise PipeClosed
                self._received += piece
            check()
        return found

    def _taken(self, max_body_bytes: int) -> tuple[FrameHead, memoryview] | None:
        """Return a received frame; None: it is incomplete."""
        if len(self._received) < _LENGTHS.size:
            return None
        n_head, n_body = _LENGTHS.unpack_from(self._received)
        if n_head > _MAX_HEAD_BYTES or n_body > max_body_bytes:
            raise FrameTooLarge
        begins = _LENGTHS.size + n_head
        if len(self._received) < begins + n_body:
            return None
        found, self._received = memoryview(self._received), self._received[begins + n_body :]
        return _head(bytes(found[_LENGTHS.size : begins])), found[begins : begins + n_body]


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return this process's pipes of requests and of answers.

    What it prints from here on goes to standard error, and nothing else reads its requests.
    """
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    sys.stdout = sys.stderr
    return requests, answers


def send_frame(answers: BinaryIO, frame: bytes) -> None:
    answers.write(frame)
    answers.flush()


def answer_frames(
    requests: BinaryIO, answers: BinaryIO, answer: Callable[[FrameHead], bytes]
) -> None:
    with suppress(PipeClosed):
        while True:
            head, _ = read_frame(requests)
            send_frame(answers, answer(head))
