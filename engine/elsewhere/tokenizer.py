"""Count tokens with the vocabulary of a GGUF file on this machine, for servers that cannot.

Loads no weights: a vocabulary of 50,000 tokens takes a fifth of a second and 30 MB. Knows no
server.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from paddock.engine.errors import BadRequest, ModelBroken
from paddock.engine.request import Message

START_S, COUNT_S, STOP_S = 60.0, 60.0, 5.0
_MOST_LINE_BYTES = 64 * 1024 * 1024
_MODULE = "paddock.engine.elsewhere.tokenizer_process"


class Tokenizer:
    """Asks a process of its own, which is started at first use. Lives in one event loop."""

    def __init__(self, path: Path, parts: Sequence[str] = ()) -> None:
        """`parts` are the files of a split model after the first."""
        self.path = path
        self._parts = parts
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def count_chat(self, messages: Sequence[Message]) -> int:
        """Count a conversation, by the template of the file.

        Raises:
            ModelBroken: the file cannot be read.
            BadRequest: its template refuses such a conversation.
        """
        turns = [[message.role, message.content, message.reasoning] for message in messages]
        return (await self._counts({"messages": turns}))[0]

    async def count_texts(self, texts: Sequence[str]) -> list[int]:
        """Count texts, without special tokens."""
        return await self._counts({"texts": list(texts)}) if texts else []

    async def aclose(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await process.wait()

    async def _counts(self, order: dict[str, Any]) -> list[int]:
        async with self._turn:
            told = await self._asked(order)
        if "error" in told:
            raise BadRequest(f"{self.path} cannot count it: {told['error']}")
        return [int(count) for count in told["counts"]]

    async def _asked(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send an order; a process that has died is started once more."""
        for _ in range(2):
            process = await self._started()
            try:
                async with asyncio.timeout(COUNT_S):
                    assert process.stdin is not None
                    process.stdin.write(json.dumps(order).encode() + b"\n")
                    await process.stdin.drain()
                    return await _line(process)
            except (TimeoutError, OSError, EOFError, ValueError):
                await self.aclose()
            except asyncio.CancelledError:
                await self.aclose()  # its answer would be taken for the next one's
                raise
        raise ModelBroken(str(self.path), "its vocabulary cannot be asked: the process ended")

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _MODULE, str(self.path), *self._parts,
            stdin=pipe, stdout=pipe, stderr=nowhere, limit=_MOST_LINE_BYTES,
        )  # fmt: skip
        try:
            async with asyncio.timeout(START_S):
                await _line(process)
        except (TimeoutError, EOFError, ValueError):
            await self.aclose()
            raise ModelBroken(str(self.path), "its vocabulary cannot be read") from None
        except asyncio.CancelledError:
            await self.aclose()
            raise
        return process


async def _line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Read one answer.

    Raises:
        EOFError, ValueError: there is none.
    """
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise EOFError
    told: dict[str, Any] = json.loads(line)
    return told
