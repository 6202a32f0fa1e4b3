"""POST /api/pull, push, create and /api/blobs: long jobs on models, with progress lines.

Progress is streamed line by line, or only the last line is returned. `paddock.engine.store` does
the work; work in a thread ends when its client disconnects. A blob is written while it comes,
never whole in memory, and gets its name only when it is complete and its digest matches.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.errors import ApiError
from paddock.engine.api.json_body import (
    flag_of,
    lower_case_keys,
    object_of,
    objects_of,
    text_of,
    texts_of,
)
from paddock.engine.api.service import Service, service_of
from paddock.engine.api.streaming import json_response, ndjson_response, while_connected
from paddock.engine.errors import InvalidName, ModelNotFound
from paddock.engine.models.model_creation import create_model as make
from paddock.engine.models.model_names import FileSource, parse_name, parse_source
from paddock.engine.models.modelfile import ModelRecipe
from paddock.engine.models.pull import pull
from paddock.engine.models.pull import pull as brought
from paddock.engine.models.push import push as sent
from paddock.engine.models.transfer import ProgressLine, ReportProgress, TransferOptions
from paddock.engine.request import Message

from .models import required_name
from .requests import read_fields


async def respond_with_progress(
    request: Request, lines: AsyncGenerator[ProgressLine, None], *, streams: bool
) -> Response:
    """Answer with every line, or with the last one alone.

    Raises:
        ApiError, EngineError: it failed before the first line, or nothing was to be streamed.
    """
    told = _progress_values(lines)
    if streams:
        return await ndjson_response(request, told)
    return json_response(await while_connected(request, _last_value(told)))


async def _progress_values(
    lines: AsyncGenerator[ProgressLine, None],
) -> AsyncGenerator[dict[str, Any], None]:
    async with aclosing(lines):
        async for line in lines:
            yield progress_value(line)


async def _last_value(lines: AsyncGenerator[dict[str, Any], None]) -> dict[str, Any]:
    last: dict[str, Any] = {}
    async with aclosing(lines):
        async for line in lines:
            last = line
    return last


def progress_value(line: ProgressLine) -> dict[str, Any]:
    """Write a line as JSON has it; what is not known is left out.

    >>> progress_value(ProgressLine("success"))
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


class ClientDisconnected(Exception):
    """Raised within work whose client has gone, from where it reports."""


async def progress_from_thread(
    work: Callable[[ReportProgress], object],
) -> AsyncGenerator[ProgressLine, None]:
    """Do something in a thread and give its lines as they come; raises what it raises.

    A thread of its own: work of minutes would take those that every request needs for a moment.
    """
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[ProgressLine | None]()
    has_ended = threading.Event()
    failed: list[Exception] = []

    def tell(line: ProgressLine | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: the service has ended
            loop.call_soon_threadsafe(lines.put_nowait, line)

    def report(line: ProgressLine) -> None:
        if has_ended.is_set():
            raise ClientDisconnected
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
        async for line in _queued_lines(lines):
            yield line
    finally:
        has_ended.set()
    for error in failed:
        raise error


async def _queued_lines(lines: asyncio.Queue[ProgressLine | None]) -> AsyncIterator[ProgressLine]:
    while (line := await lines.get()) is not None:
        yield line


async def pull_model(request: Request) -> Response:
    """Bring a model; `as` gives it another name than its source's, where it is no registry's."""
    body = await read_fields(request)
    service = service_of(request)
    source = text_of(body, "model") or text_of(body, "name")
    options = await transfer_options(service, insecure=flag_of(body, "insecure"))
    own_name = text_of(body, "as") or None
    if isinstance(parse_source(source, own_name), FileSource):
        raise InvalidName(source, "it is the path of a file")  # of ours, not of who asks
    lines = brought(service.store, source, options=options, as_name=own_name)
    return await respond_with_progress(request, lines, streams=flag_of(body, "stream", True))


async def push_model(request: Request) -> Response:
    """Send a model to the registry that its name says."""
    body = await read_fields(request)
    service = service_of(request)
    name = parse_name(required_name(body))
    options = await transfer_options(service, insecure=flag_of(body, "insecure"))
    lines = sent(service.store, name, options=options)
    return await respond_with_progress(request, lines, streams=flag_of(body, "stream", True))


async def transfer_options(service: Service, *, insecure: bool = False) -> TransferOptions:
    """Return the service's settings for a pull or a push."""
    kept = await asyncio.to_thread(service.finder.needed_digests)
    return TransferOptions(
        insecure=insecure, trusted_hosts=service.settings.trusted_hosts, keep=tuple(kept)
    )


async def create_model(request: Request) -> Response:
    """Make a model, told line by line."""
    body = await read_fields(request)
    recipe = read_recipe(body)
    lines = _create_or_pull(service_of(request), recipe)
    return await respond_with_progress(request, lines, streams=flag_of(body, "stream", True))


def read_recipe(body: Mapping[str, Any]) -> ModelRecipe:
    """Read what is to be made.

    Raises:
        ApiError: 400, a name that cannot be one, or a member of the wrong type.
    """
    name, base = text_of(body, "model") or text_of(body, "name"), text_of(body, "from")
    for one in (name, base) if base else (name,):
        try:
            parse_name(one)
        except InvalidName:
            raise ApiError(400, "invalid model name") from None
    return ModelRecipe(
        name=name,
        base=parse_name(base).short if base else None,
        files=_read_digests(body, "files"),
        adapters=_read_digests(body, "adapters"),
        template=text_of(body, "template"),
        system=text_of(body, "system"),
        licenses=_read_licenses(body),
        parameters=object_of(body, "parameters"),
        messages=tuple(
            _read_recipe_message(lower_case_keys(one)) for one in objects_of(body, "messages")
        ),
        quantize=text_of(body, "quantize") or text_of(body, "quantization"),
        renderer=text_of(body, "renderer"),
        parser=text_of(body, "parser"),
        requires=text_of(body, "requires"),
    )


def _read_digests(body: Mapping[str, Any], name: str) -> dict[str, str]:
    """Return files' digests by their names: never a path of this machine."""
    files = object_of(body, name)
    return {file: text_of(files, file) for file in files}


def _read_licenses(body: Mapping[str, Any]) -> tuple[str, ...]:
    one = body.get("license")
    if isinstance(one, str):
        return (one,) if one else ()
    return tuple(texts_of(body, "license"))


def _read_recipe_message(body: Mapping[str, Any]) -> Message:
    return Message(text_of(body, "role"), text_of(body, "content"))


async def _create_or_pull(
    service: Service, recipe: ModelRecipe
) -> AsyncGenerator[ProgressLine, None]:
    try:
        async for line in _create_in_thread(service, recipe):
            yield line
    except ModelNotFound:
        if not recipe.base:
            raise
    else:
        return
    options = await transfer_options(service)
    async with aclosing(pull(service.store, parse_name(recipe.base), options=options)) as lines:
        async for line in lines:
            if line.status != "success":
                yield line
    async for line in _create_in_thread(service, recipe):
        yield line


async def _create_in_thread(
    service: Service, recipe: ModelRecipe
) -> AsyncGenerator[ProgressLine, None]:
    work = partial(make, service.store, service.finder, recipe)
    async with aclosing(progress_from_thread(work)) as lines:
        async for line in lines:
            yield line


_T = TypeVar("_T")

_WRITE_CHUNK_BYTES = 1024 * 1024
"""Hashed and written at once, in a thread: what comes from a socket is 64 kB at most."""


async def has_blob(request: Request) -> Response:
    """Return whether a blob is there.

    Raises:
        BadDigest: it cannot be one.
    """
    blobs = service_of(request).store.blobs
    is_there = await asyncio.to_thread(blobs.has, request.path_params["digest"])
    return Response(status_code=200 if is_there else 404)


async def upload_blob(request: Request) -> Response:
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
            if len(waiting) >= _WRITE_CHUNK_BYTES:
                await _finish_in_thread(partial(writer.write, bytes(waiting)))
                waiting.clear()
        await _finish_in_thread(partial(writer.write, bytes(waiting)))
        await _finish_in_thread(writer.commit)
    finally:
        await asyncio.to_thread(writer.give_up)
    return Response(status_code=201)


async def _finish_in_thread(work: Callable[[], _T]) -> _T:
    """Work in a thread; a task that is cancelled waits for it, so that two never write at once."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
