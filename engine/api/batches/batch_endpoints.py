"""/v1/files and /v1/batches: handlers, multipart upload, pagination.

An upload is written to its final folder while it comes: Starlette's own form parser would keep a
copy in the system's temporary folder, which is often main memory.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar, cast

from pydantic import AfterValidator, Field
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, Response

from paddock.engine.api.api_keys import key_name_of
from paddock.engine.api.body_models import (
    Needed,
    Texts,
    Whole,
    invalid_value,
    missing_parameter,
    refused,
    shown,
)
from paddock.engine.api.errors import ApiError, InvalidValue, NoSuchObject
from paddock.engine.api.json_body import read_json
from paddock.engine.api.openai.chat_completions import new_id
from paddock.engine.api.openai.endpoints import BATCH_ENDPOINTS
from paddock.engine.api.openai.requests import OpenAIBody
from paddock.engine.api.streaming import json_response
from paddock.engine.models.blobs import store_write_errors
from paddock.engine.system import socket_owners

from .batch_runner import BatchRecord, BatchRunner, FileRecord, RecordFolder

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_Record = TypeVar("_Record", FileRecord, BatchRecord)

MAX_FIELD_BYTES = 64 * 1024
"""Limit for all form fields together, with their headers, without the file."""


class UploadForm:
    """A form with fields and one file; `write` gets the file's bytes."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size_bytes = 0
        self._write = write
        self._headers = [bytearray(), bytearray()]
        self._disposition = b""
        self._field = ""
        self._value = bytearray()
        self._n_field_bytes = 0

    async def read(self, request: Request) -> None:
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        if kind != b"multipart/form-data" or b"boundary" not in options:
            raise InvalidValue("send the file as multipart/form-data.", "file")
        callbacks: MultipartCallbacks = {
            "on_header_field": lambda data, start, end: self._headers[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._headers[1].extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._part_begin,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
        }
        try:
            parser = MultipartParser(options[b"boundary"], callbacks)
            async for data in request.stream():
                await asyncio.to_thread(parser.write, data)
            parser.finalize()
        except FormParserError as error:
            raise ApiError(400, f"the form cannot be read: {error}") from None
        if self.filename is None:
            raise missing_parameter("file")

    def _header_end(self) -> None:
        name, value = map(bytes, self._headers)
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._headers = [bytearray(), bytearray()]

    def _part_begin(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        if self._field != "file":
            self._count(len(self._disposition))
        elif self.filename is not None:
            raise InvalidValue("send one file at a time.", "file")
        else:
            self.filename = options.get(b"filename", b"upload").decode("utf-8", "replace")
        self._disposition = b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._field == "file":
            self._write(data[start:end])
            self.size_bytes += end - start
        else:
            self._count(end - start)
            self._value += data[start:end]

    def _part_end(self) -> None:
        if self._field != "file":
            self.fields[self._field] = self._value.decode("utf-8", "replace")
        self._value.clear()

    def _count(self, n_bytes: int) -> None:
        self._n_field_bytes += n_bytes
        if self._n_field_bytes > MAX_FIELD_BYTES:
            raise ApiError(413, f"the form's fields have more than {MAX_FIELD_BYTES} bytes")


_LEAST_EXPIRY_S, _MOST_EXPIRY_S = 3600, 30 * 24 * 3600
_UNIT_S = {"m": 60, "h": 3600, "d": 86400}


class _UploadBody(OpenAIBody):
    purpose: Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
    expires_s: int | None = Field(
        None, alias="expires_after[seconds]", ge=_LEAST_EXPIRY_S, le=_MOST_EXPIRY_S, strict=False
    )
    anchor: Literal["created_at"] = Field("created_at", alias="expires_after[anchor]")


class _ListQuery(OpenAIBody):
    limit: int | None = Field(None, ge=1, le=10_000, strict=False)
    after: str = ""
    purpose: str = ""
    order: str = "desc"


def _known_endpoint(endpoint: str) -> str:
    if endpoint not in BATCH_ENDPOINTS:
        known = ", ".join(f"'{supported}'" for supported in BATCH_ENDPOINTS)
        raise refused(f"'{shown(endpoint)}'. Supported values are: {known}.")
    return endpoint


def _known_window(window: str) -> str:
    if re.fullmatch(r"0{0,3}[1-9][0-9]{0,3}[mhd]", window) is None:
        raise refused("expected a time such as '24h'.")
    return window


def _short_pairs(pairs: dict[str, str]) -> dict[str, str]:
    if len(pairs) > 16:
        raise refused("at most 16 pairs are kept.")
    if any(len(name) > 64 or len(value) > 512 for name, value in pairs.items()):
        raise refused("names have at most 64 characters, values 512.")
    return pairs


class _ExpiryBody(OpenAIBody):
    seconds: Whole | None = Field(None, ge=_LEAST_EXPIRY_S, le=_MOST_EXPIRY_S)


class _BatchBody(OpenAIBody):
    endpoint: Annotated[Needed, AfterValidator(_known_endpoint)]
    input_file_id: Needed
    completion_window: Annotated[str, AfterValidator(_known_window)] = "24h"
    """OpenAI's `24h`, or another number of `m`, `h`, `d`."""
    metadata: Annotated[Texts, AfterValidator(_short_pairs)] = Field(default_factory=dict)
    output_expires_after: _ExpiryBody | None = None


def batches_of(request: HTTPConnection) -> BatchRunner:
    return cast(BatchRunner, request.app.state.batches)


def owner_of(request: Request) -> str:
    """Return whose files and batches a request makes; empty: everyone's.

    That is the name of its key, else the user of this machine that asks, where the system tells.
    """
    if name := key_name_of(request.scope):
        return f"key {name}"
    client, server = request.client, request.scope.get("server")
    if server is not None and server[1] is None:  # a socket of this user in the file system
        return f"user {os.getuid()}"
    if client is None or server is None:
        return ""
    user = socket_owners.client_owner((client.host, client.port), (server[0], server[1]))
    return "" if user is None else f"user {user}"


async def _find(request: Request, records: RecordFolder[_Record]) -> _Record:
    record_id: str = request.path_params["id"]
    record = await asyncio.to_thread(records.find, record_id, owner_of(request))
    if record is None:
        raise NoSuchObject(f"{records.kind.__name__.removesuffix('Record')} object", record_id)
    return record


def _page(records: Iterable[FileRecord | BatchRecord], limit: int | None, after: str) -> Response:
    values = [record.value() for record in records]
    ids = [value["id"] for value in values]
    start = 0
    if after:
        if after not in ids:
            raise invalid_value("after", "there is no such id in this list.")
        start = ids.index(after) + 1
    end = start + (limit or len(ids))
    page = ids[start:end]
    value = {
        "object": "list",
        "data": values[start:end],
        "first_id": page[0] if page else None,
        "last_id": page[-1] if page else None,
        "has_more": end < len(ids),
    }
    return json_response(value)


async def upload_file(request: Request) -> Response:
    store, file_id = batches_of(request).files, new_id("file-")
    data = await asyncio.to_thread(store.new_data, file_id)
    try:
        form = UploadForm(data.write)
        with store_write_errors(store.folder):
            await form.read(request)
        body = _UploadBody.read(form.fields)
        now_ns = time.time_ns()
        record = FileRecord(
            id=file_id,
            filename=(form.filename or "upload")[:255],
            purpose=body.purpose,
            size_bytes=form.size_bytes,
            created_ns=now_ns,
            expires_at=body.expires_s and now_ns // 1_000_000_000 + body.expires_s,
            owner=owner_of(request),
        )
        await asyncio.to_thread(store.add, record, data)
    finally:
        await asyncio.to_thread(data.close)
    return json_response(record.value())


async def list_files(request: Request) -> Response:
    query = _ListQuery.read(dict(request.query_params))
    files = await asyncio.to_thread(batches_of(request).files.list, owner_of(request))
    found = [file for file in files if query.purpose in ("", file.purpose)]
    return _page(found[::-1] if query.order == "asc" else found, query.limit, query.after)


async def get_file(request: Request) -> Response:
    return json_response((await _find(request, batches_of(request).files)).value())


async def download_file(request: Request) -> Response:
    files = batches_of(request).files
    record = await _find(request, files)
    path = files.data_path(record.id)
    return FileResponse(path, media_type="application/octet-stream", filename=record.filename)


async def delete_file(request: Request) -> Response:
    """Handle DELETE /v1/files/ID. A running batch has its own copy."""
    files = batches_of(request).files
    record = await _find(request, files)
    await asyncio.to_thread(files.delete, record.id)
    return json_response({"id": record.id, "object": "file", "deleted": True})


async def create_batch(request: Request) -> Response:
    body = _BatchBody.read(await read_json(request))
    batches = batches_of(request)
    owner = owner_of(request)
    window = body.completion_window
    file = await asyncio.to_thread(batches.files.find, body.input_file_id, owner)
    if file is None:
        why = f"there is no file '{shown(body.input_file_id)}'."
        raise invalid_value("input_file_id", why, "invalid_file")
    if file.purpose != "batch":
        why = f"its purpose is '{file.purpose}', not 'batch'."
        raise invalid_value("input_file_id", why, "invalid_file_purpose")
    now_ns, expiry = time.time_ns(), body.output_expires_after
    record = BatchRecord(
        id=new_id("batch_"),
        endpoint=body.endpoint,
        input_file_id=file.id,
        completion_window=window,
        created_ns=now_ns,
        expires_at=now_ns // 1_000_000_000 + int(window[:-1]) * _UNIT_S[window[-1]],
        metadata=body.metadata,
        output_expires_s=expiry.seconds if expiry else None,
        owner=owner,
    )
    await batches.create(record, batches.files.data_path(file.id))
    return json_response(record.value())


async def list_batches(request: Request) -> Response:
    query = _ListQuery.read(dict(request.query_params))
    batches = batches_of(request).batches
    found = await asyncio.to_thread(batches.list, owner_of(request))
    return _page(found, query.limit or 20, query.after)


async def get_batch(request: Request) -> Response:
    return json_response((await _find(request, batches_of(request).batches)).value())


async def cancel_batch(request: Request) -> Response:
    batches = batches_of(request)
    record = await _find(request, batches.batches)
    cancelled = await batches.cancel(record.id)
    if cancelled is None and record.status not in ("cancelling", "cancelled"):
        raise InvalidValue(f"Cannot cancel a batch with status '{record.status}'.", "batch_id")
    return json_response((cancelled or record).value())


BATCH_ROUTES = (
    ("POST", "/v1/files", upload_file),
    ("GET", "/v1/files", list_files),
    ("GET", "/v1/files/{id}", get_file),
    ("DELETE", "/v1/files/{id}", delete_file),
    ("GET", "/v1/files/{id}/content", download_file),
    ("POST", "/v1/batches", create_batch),
    ("GET", "/v1/batches", list_batches),
    ("GET", "/v1/batches/{id}", get_batch),
    ("POST", "/v1/batches/{id}/cancel", cancel_batch),
)
