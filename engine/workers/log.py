"""The last lines that a worker wrote to standard error: llama.cpp tells there why it fails."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

_N_KEPT = 50


class LastLines:
    """Reads a stream to its end and keeps what was said last."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_N_KEPT)

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Read until the stream ends."""
        async for line in _lines(stream):
            self._lines.append(line)

    @property
    def lines(self) -> tuple[str, ...]:
        """What was kept, the newest at the end."""
        return tuple(self._lines)

    def clear(self) -> None:
        """Forget what was said: it explains no later death."""
        self._lines.clear()


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Yield lines of any length; what is too long for the buffer comes in pieces."""
    while True:
        try:
            raw = await stream.readuntil()
        except asyncio.IncompleteReadError as end:
            raw = end.partial
        except asyncio.LimitOverrunError:
            raw = await stream.read(1 << 16)
        if not raw:
            return
        line = raw.decode("utf-8", errors="replace").strip()
        if line:
            yield line
