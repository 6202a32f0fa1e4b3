"""POST /api/pull, push, create and /api/blobs: long jobs on models, with progress lines.

Progress is streamed line by line, or only the last line is returned. `paddock.engine.models` does
the work; work in a thread ends when its client disconnects. A blob is written while it comes, never
whole in memory, and gets its name only when it is complete and its digest matches.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response

from paddock.engine.api.body_models import Few, Items, Texts
from paddock.engine.api.errors import ApiError
from paddock.engine.api.json_body import read_json
from paddock.engine.api.service import Service, service_of
from paddock.engine.api.streaming import json_response, ndjson_response, while_connected
from paddock.engine.errors import InvalidName, ModelNotFound
from paddock.engine.models import model_creation
from paddock.engine.models.model_names import parse_name
from paddock.engine.models.model_recipe import ModelRecipe
from paddock.engine.models.pull import pull
from paddock.engine.models.push import push
from paddock.engine.models.transfer import ProgressLine, ReportProgress, TransferOptions
from paddock.engine.models.transfer_client import progress_lines
from paddock.engine.request import Message
from paddock.engine.system.tasks import call_in, in_left_thread, run_to_end

from .models import NamedModelBody
from .requests import MessageBody


async def respond_with_progress(
    request: Request, lines: AsyncGenerator[ProgressLine, None], *, streams: bool
) -> Response:
    async def values() -> AsyncGenerator[dict[str, Any], None]:
        async with aclosing(lines):
            async for line in lines:
                yield progress_value(line)

    async def last_value() -> dict[str, Any]:
        last: dict[str, Any] = {}
        async for value in values():
            last = value
        return last

    if streams:
        return await ndjson_response(request, values())
    return json_response(await while_connected(request, last_value()))


def progress_value(line: ProgressLine) -> dict[str, Any]:
    """Return a line as a JSON value, without unknown fields.

    >>> progress_value(ProgressLine("success"))
    {'status': 'success'}
    """
    value: dict[str, Any] = {"status": line.status}
    if line.digest:
        value["digest"] = line.digest
    if line.total is not None:
        value["total"] = line.total
    if line.completed:
        value["completed"] = line.completed
    return value


class ClientDisconnected(Exception):
    """Raised by `report` in a thread whose client has disconnected."""


async def progress_from_thread(
    work: Callable[[ReportProgress], object],
) -> AsyncGenerator[ProgressLine, None]:
    """Run `work` in a thread and yield its lines as they come; raise its exception.

    In its own thread: work of minutes would block the threads that every request uses briefly.
    """
    loop, has_ended = asyncio.get_running_loop(), threading.Event()

    async def work_in_thread(report: ReportProgress) -> None:
        def report_or_end(line: ProgressLine) -> None:
            if has_ended.is_set():
                raise ClientDisconnected
            call_in(loop, report, line)

        await in_left_thread(work, report_or_end)

    try:
        async with aclosing(progress_lines(work_in_thread)) as lines:
            async for line in lines:
                yield line
    finally:
        has_ended.set()


class _PushBody(NamedModelBody):
    insecure: bool = False
    stream: bool = True


class _PullBody(_PushBody):
    own_name: str = Field("", alias="as")


async def pull_model(request: Request) -> Response:
    """Handle POST /api/pull; `as` is another name for a model that is not from a registry."""
    body = _PullBody.read(await read_json(request))
    service = service_of(request)
    source = body.model or body.name
    own_name = body.own_name or None
    options = await transfer_options(service, insecure=body.insecure)
    lines = pull(service.store, source, options=options, as_name=own_name)
    return await respond_with_progress(request, lines, streams=body.stream)


async def push_model(request: Request) -> Response:
    body = _PushBody.read(await read_json(request))
    service, name = service_of(request), parse_name(body.needed_name)
    options = await transfer_options(service, insecure=body.insecure)
    lines = push(service.store, name, options=options)
    return await respond_with_progress(request, lines, streams=body.stream)


async def transfer_options(service: Service, *, insecure: bool = False) -> TransferOptions:
    kept = await asyncio.to_thread(service.finder.needed_digests)
    return TransferOptions(
        insecure=insecure, trusted_hosts=service.settings.trusted_hosts, keep=tuple(kept)
    )


_RECIPE_FIELDS = ("files", "adapters", "template", "system", "parameters", "renderer", "parser",
                  "requires")  # fmt: skip


class CreateBody(NamedModelBody):
    base: str = Field("", alias="from")
    files: Texts = Field(default_factory=dict)
    """Digests by file name; never a path of this machine."""
    adapters: Texts = Field(default_factory=dict)
    template: str = ""
    system: str = ""
    license: Annotated[
        Items[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
    ] = ()
    parameters: Few = Field(default_factory=dict)
    messages: Items[MessageBody] = ()
    quantize: str = ""
    quantization: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    stream: bool = True

    def recipe(self) -> ModelRecipe:
        name = self.model or self.name
        for ref in (name, self.base) if self.base else (name,):
            try:
                parse_name(ref)
            except InvalidName:
                raise ApiError(400, "invalid model name") from None
        return ModelRecipe(
            name=name,
            base=parse_name(self.base).short if self.base else None,
            licenses=tuple(filter(None, self.license)),
            messages=tuple(Message(message.role, message.content) for message in self.messages),
            quantize=self.quantize or self.quantization,
            **{name: getattr(self, name) for name in _RECIPE_FIELDS},
        )


async def create_model(request: Request) -> Response:
    body = CreateBody.read(await read_json(request))
    lines = _create_or_pull(service_of(request), body.recipe())
    return await respond_with_progress(request, lines, streams=body.stream)


async def _create_or_pull(
    service: Service, recipe: ModelRecipe
) -> AsyncGenerator[ProgressLine, None]:
    create = partial(model_creation.create_model, service.store, service.finder, recipe)
    try:
        async with aclosing(progress_from_thread(create)) as lines:
            async for line in lines:
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
    async with aclosing(progress_from_thread(create)) as lines:
        async for line in lines:
            yield line


_WRITE_CHUNK_BYTES = 1024 * 1024
"""Hashed and written at once in a thread; a socket brings at most 64 kB at a time."""


async def has_blob(request: Request) -> Response:
    blobs = service_of(request).store.blobs
    is_there = await asyncio.to_thread(blobs.has, request.path_params["digest"])
    return Response(status_code=200 if is_there else 404)


async def upload_blob(request: Request) -> Response:
    """Handle POST /api/blobs/DIGEST: 201, or 200 for a known blob, which is not read again.

    Of a blob that does not arrive whole, or has another digest, nothing is kept.
    """
    blobs, digest = service_of(request).store.blobs, request.path_params["digest"]
    if await asyncio.to_thread(blobs.has, digest):
        return Response(status_code=200)
    writer = await asyncio.to_thread(blobs.writer, digest)
    try:
        buffer = bytearray()
        async for part in request.stream():
            buffer += part
            if len(buffer) >= _WRITE_CHUNK_BYTES:
                await run_to_end(writer.write, bytes(buffer))
                buffer.clear()
        await run_to_end(writer.write, bytes(buffer))
        await run_to_end(writer.commit)
    finally:
        await asyncio.to_thread(writer.close)
    return Response(status_code=201)
