"""Pulls, pushes and creations, told line by line, or at their end.

Knows no registry and no file. Work in a thread is told to end where its client has gone.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.streaming import json_response, ndjson, while_connected
from paddock.engine.store.progress import Progress, Report


async def tell_progress(
    request: Request, lines: AsyncGenerator[Progress, None], *, streams: bool
) -> Response:
    """Answer with every line, or with the last one alone.

    Raises:
        ApiError, EngineError: it failed before the first line, or nothing was to be streamed.
    """
    told = _written(lines)
    if streams:
        return await ndjson(request, told)
    return json_response(await while_connected(request, _last(told)))


async def _written(lines: AsyncGenerator[Progress, None]) -> AsyncGenerator[dict[str, Any], None]:
    async with aclosing(lines):
        async for line in lines:
            yield written(line)


async def _last(lines: AsyncGenerator[dict[str, Any], None]) -> dict[str, Any]:
    last: dict[str, Any] = {}
    async with aclosing(lines):
        async for line in lines:
            last = line
    return last


def written(line: Progress) -> dict[str, Any]:
    """Write a line as JSON has it; what is not known is left out.

    >>> written(Progress("success"))
    {'status': 'success'}
    """
    told: dict[str, Any] = {"status": line.status}
    if line.digest:
        told["digest"] = line.digest
    if line.total is not None:
        told["total"] = line.total
    if line.completed:
        told["completed"] = line.completed
    return told


class GivenUp(Exception):
    """Raised within work whose client has gone, from where it reports."""


async def from_thread(work: Callable[[Report], object]) -> AsyncGenerator[Progress, None]:
    """Do something in a thread and give its lines as they come; raises what it raises.

    A thread of its own: work of minutes would take those that every request needs for a moment.
    """
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[Progress | None]()
    has_ended = threading.Event()
    failed: list[Exception] = []

    def tell(line: Progress | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: the service has ended
            loop.call_soon_threadsafe(lines.put_nowait, line)

    def report(line: Progress) -> None:
        if has_ended.is_set():
            raise GivenUp
        tell(line)

    def run() -> None:
        try:
            work(report)
        except Exception as error:  # raised again where the lines are read
            failed.append(error)
        finally:
            tell(None)

    threading.Thread(target=run, name="creation", daemon=True).start()
    try:
        async for line in _until_none(lines):
            yield line
    finally:
        has_ended.set()
    for error in failed:
        raise error


async def _until_none(lines: asyncio.Queue[Progress | None]) -> AsyncIterator[Progress]:
    while (line := await lines.get()) is not None:
        yield line
