"""Messages over a pipe: a JSON head and raw bytes behind it. No pickle, so nothing can run.

A frame is two little-endian 32-bit lengths, the head as UTF-8 JSON, and the body.
"""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any, BinaryIO

Head = dict[str, Any]

_LENGTHS = struct.Struct("<II")
MAX_FRAME_BYTES = 1 << 30


class Closed(Exception):
    """The other side is gone."""


def pack(head: Head, body: bytes = b"") -> bytes:
    """Write one frame."""
    raw = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    return _LENGTHS.pack(len(raw), len(body)) + raw + body


def read(stream: BinaryIO) -> tuple[Head, bytes]:
    """Read one frame, waiting for it.

    Raises:
        Closed: the stream has ended.
    """
    n_head, n_body = _lengths(_exactly(stream, _LENGTHS.size))
    head: Head = json.loads(_exactly(stream, n_head))
    return head, _exactly(stream, n_body)


async def read_async(stream: asyncio.StreamReader) -> tuple[Head, bytes]:
    """Read one frame, waiting for it.

    Raises:
        Closed: the stream has ended.
    """
    try:
        n_head, n_body = _lengths(await stream.readexactly(_LENGTHS.size))
        head: Head = json.loads(await stream.readexactly(n_head))
        return head, await stream.readexactly(n_body)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Closed from error


def _lengths(raw: bytes) -> tuple[int, int]:
    n_head, n_body = _LENGTHS.unpack(raw)
    if n_head + n_body > MAX_FRAME_BYTES:
        raise Closed
    return n_head, n_body


def _exactly(stream: BinaryIO, n_bytes: int) -> bytes:
    raw = stream.read(n_bytes)
    if len(raw) < n_bytes:
        raise Closed
    return raw
