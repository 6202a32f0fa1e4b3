"""HEAD and POST /api/blobs/:digest: files on their way into the store, never whole in memory.

Knows no model. A blob gets its name only when all of it has come and its digest is right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.service import service_of

_T = TypeVar("_T")

_PIECE_BYTES = 1024 * 1024
"""Hashed and written at once, in a thread: what comes from a socket is 64 kB at most."""


async def head_blob(request: Request) -> Response:
    """Tell whether a blob is there.

    Raises:
        BadDigest: it cannot be one.
    """
    blobs = service_of(request).store.blobs
    is_there = await asyncio.to_thread(blobs.has, request.path_params["digest"])
    return Response(status_code=200 if is_there else 404)


async def post_blob(request: Request) -> Response:
    """Take a blob: 201; one that is there already is not read again: 200.

    Raises:
        BadDigest: it cannot be one.
        DigestMismatch: what came is something else; nothing of it was kept.
        StoreFull, StoreReadOnly: likewise.
        starlette.requests.ClientDisconnect: the client went; likewise.
    """
    blobs, digest = service_of(request).store.blobs, request.path_params["digest"]
    if await asyncio.to_thread(blobs.has, digest):
        return Response(status_code=200)
    writer = await asyncio.to_thread(blobs.writer, digest)
    try:
        waiting = bytearray()
        async for part in request.stream():
            waiting += part
            if len(waiting) >= _PIECE_BYTES:
                await _to_its_end(partial(writer.write, bytes(waiting)))
                waiting.clear()
        await _to_its_end(partial(writer.write, bytes(waiting)))
        await _to_its_end(writer.commit)
    finally:
        await asyncio.to_thread(writer.give_up)
    return Response(status_code=201)


async def _to_its_end(work: Callable[[], _T]) -> _T:
    """Work in a thread; a task that is cancelled waits for it, so that two never write at once."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
