"""What an MCP server writes besides answers: its last words, and what is no message at all.

Knows neither the protocol nor its library: it looks at what goes by.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from paddock.steps import processes

_KEPT_BYTES = 4096
_GARBAGE_CHARS = 80


@dataclass
class Heard:
    """What a server wrote besides answers."""

    stderr: bytearray = field(default_factory=bytearray)
    garbage: str = ""
    is_over: bool = False

    def words(self) -> str:
        """Give them as the end of a sentence."""
        if self.garbage:
            return f": it writes what is no JSON-RPC: '{self.garbage}'"
        said = processes.last_words(bytes(self.stderr))
        return f": {said}" if said else "."


@asynccontextmanager
async def listening(heard: Heard) -> AsyncIterator[Any]:
    """Give a file in which a server may complain; its last words are kept."""
    read, write = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", buffering=0)
    )
    hearing = asyncio.create_task(_hear(reader, heard.stderr))
    errors = os.fdopen(write, "w")
    try:
        yield errors
    finally:
        errors.close()
        transport.close()
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)


async def _hear(reader: asyncio.StreamReader, said: bytearray) -> None:
    while piece := await reader.read(_KEPT_BYTES):
        said.extend(piece)
        del said[: max(0, len(said) - _KEPT_BYTES)]


class Watched:
    """A transport that tells when the other side has ended, and keeps what is no message."""

    def __init__(self, transport: Any, heard: Heard) -> None:
        self._transport = transport
        self._heard = heard

    async def __aenter__(self) -> Any:
        """Give both directions."""
        read, write = await self._transport.__aenter__()
        return _Reading(read, self._heard), write

    async def __aexit__(self, *error: Any) -> bool | None:
        """End the other side."""
        self._heard.is_over = True
        ended: bool | None = await self._transport.__aexit__(*error)
        return ended


class _Reading:
    """What comes in, looked at on its way."""

    def __init__(self, stream: Any, heard: Heard) -> None:
        self._stream = stream
        self._heard = heard

    async def receive(self) -> Any:
        try:
            item = await self._stream.receive()
        except BaseException:
            self._heard.is_over = True
            raise
        return self._looked_at(item)

    def __aiter__(self) -> _Reading:
        return self

    async def __anext__(self) -> Any:
        try:
            return self._looked_at(await self._stream.__anext__())
        except StopAsyncIteration:
            self._heard.is_over = True
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> _Reading:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        return await self._stream.__aexit__(*error)

    def _looked_at(self, item: Any) -> Any:
        if isinstance(item, Exception) and not self._heard.garbage:
            self._heard.garbage = _garbage(item)
        return item


def _garbage(error: Exception) -> str:
    """Give the line that was no message."""
    errors: Sequence[Any] = ()
    with contextlib.suppress(Exception):
        errors = error.errors()  # type: ignore[attr-defined]  # Pydantic's have it
    line = str(errors[0].get("input", "")) if errors else str(error)
    return " ".join(line.split())[:_GARBAGE_CHARS]
