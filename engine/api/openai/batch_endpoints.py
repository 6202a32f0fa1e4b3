"""/v1/files and /v1/batches: handlers, multipart upload, pagination.

An upload is written to its final folder while it comes: Starlette's own form parser would keep a
copy in the system's temporary folder, which is often main memory.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from pydantic import AfterValidator, Field
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, Response

from paddock.engine.api.api_keys import key_name_of
from paddock.engine.api.body_models import Needed, Texts, Whole, invalid_value, refused, shown
from paddock.engine.api.errors import ApiError, InvalidValue, NoSuchObject
from paddock.engine.api.json_body import read_json
from paddock.engine.api.request_log import note_without_effect
from paddock.engine.api.service import service_of
from paddock.engine.api.streaming import json_response
from paddock.engine.models.blobs import store_write_errors
from paddock.engine.system import socket_owners

from .batches import BatchRecord, BatchRunner, FileRecord, FileStore
from .chat_completions import new_id
from .endpoints import BATCH_ENDPOINTS
from .requests import OpenAIBody

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


def list_page(
    values: Sequence[Mapping[str, Any]], query: Mapping[str, str], usual: int, most: int
) -> dict[str, Any]:
    """Return the page of a list that a query selects; each value has an `id`."""
    text, after, start = query.get("limit") or str(usual), query.get("after"), 0
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else 0
    if not 1 <= limit <= most:
        message = f"Invalid value for 'limit': expected an integer from 1 to {most}."
        raise InvalidValue(message, "limit")
    if after:
        ids = [value["id"] for value in values]
        if after not in ids:
            why = "Invalid value for 'after': there is no such id in this list."
            raise InvalidValue(why, "after")
        start = ids.index(after) + 1
    shown = list(values[start : start + limit])
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": start + limit < len(values),
    }


_FILE_PART = "file"
MAX_FIELD_BYTES = 64 * 1024
"""Limit for all form fields together, with their headers, without the file."""
WRITE_CHUNK_BYTES = 256 * 1024
"""Buffered before a thread writes it."""


async def read_upload(request: Request, write: Callable[[bytes], object]) -> UploadForm:
    """Return a form with a file in its part `file`; `write` gets the file's bytes, in a thread."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise InvalidValue("send the file as multipart/form-data.", _FILE_PART)
    form = UploadForm()
    try:
        parser = MultipartParser(options[b"boundary"], form.callbacks())
        async for data in request.stream():
            parser.write(data)
            if len(form.buffer) >= WRITE_CHUNK_BYTES:
                await asyncio.to_thread(write, form.take_buffer())
        parser.finalize()
    except FormParserError as error:
        raise ApiError(400, f"the form cannot be read: {error}") from None
    await asyncio.to_thread(write, form.take_buffer())
    if form.filename is None:
        message = f"Missing required parameter: '{_FILE_PART}'."
        raise InvalidValue(message, _FILE_PART, "missing_required_parameter")
    return form


class UploadForm:
    """The fields of a form, and its file's name and size; collected by the parser's callbacks."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size_bytes = 0
        self.buffer = bytearray()
        self._header = [bytearray(), bytearray()]
        self._disposition = b""
        self._field = ""
        self._value = bytearray()
        self._is_file = False
        self._n_field_bytes = 0

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def take_buffer(self) -> bytes:
        data = bytes(self.buffer)
        self.buffer.clear()
        return data

    def _begin(self) -> None:
        self._disposition, self._value = b"", bytearray()

    def _header_end(self) -> None:
        if self._header[0].lower() == b"content-disposition":
            self._disposition = bytes(self._header[1])
        self._header = [bytearray(), bytearray()]

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._field == _FILE_PART
        if not self._is_file:
            return self._count(len(self._disposition))
        if self.filename is not None:
            raise InvalidValue("send one file at a time.", _FILE_PART)
        self.filename = options.get(b"filename", b"upload").decode("utf-8", "replace")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.buffer += data[start:end]
            self.size_bytes += end - start
            return
        self._count(end - start)
        self._value += data[start:end]

    def _count(self, n_bytes: int) -> None:
        self._n_field_bytes += n_bytes
        if self._n_field_bytes > MAX_FIELD_BYTES:
            raise ApiError(413, f"the form's fields have more than {MAX_FIELD_BYTES} bytes")

    def _end(self) -> None:
        if not self._is_file:
            self.fields[self._field] = self._value.decode("utf-8", "replace")


PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
MAX_FILES_LISTED = 10_000
_LEAST_EXPIRY_S, _MOST_EXPIRY_S = 3600, 30 * 24 * 3600


def file_store_of(request: Request) -> FileStore:
    return FileStore(service_of(request).settings.state_dir)


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


_Owned = TypeVar("_Owned", FileRecord, BatchRecord)


def _of_caller(records: Iterable[_Owned], request: Request) -> list[_Owned]:
    owner = owner_of(request)
    return [record for record in records if record.owner in ("", owner)]


async def upload_file(request: Request) -> Response:
    store, file_id = file_store_of(request), new_id("file-")
    data = await asyncio.to_thread(store.new_data, file_id)
    try:
        with store_write_errors(store.folder):
            form = await read_upload(request, data.write)
        purpose = form.fields.get("purpose", "")
        note_without_effect("fields", form.fields.keys() - {"purpose"})
        if purpose not in PURPOSES:
            known = ", ".join(f"'{supported}'" for supported in PURPOSES)
            raise InvalidValue(
                f"Invalid value for 'purpose': '{purpose[:80]}'. Supported values are: {known}.",
                "purpose",
            )
        now_ns = time.time_ns()
        expires_s = read_expiry(form.fields.get("expires_after[seconds]"))
        new_file_record = FileRecord(
            file_id,
            (form.filename or "upload")[:255],
            purpose,
            form.size_bytes,
            now_ns,
            None if expires_s is None else now_ns // 1_000_000_000 + expires_s,
        )
        record = replace(new_file_record, owner=owner_of(request))
        await asyncio.to_thread(store.add, record, data)
    finally:
        await asyncio.to_thread(data.close)
    return json_response(record.value())


def read_expiry(text: str | int | None) -> int | None:
    """Return after how many seconds a file expires: from an hour to thirty days."""
    if text is None:
        return None
    digits = str(text)
    is_number = digits.isascii() and digits.isdigit() and len(digits) < 10
    if not is_number or not _LEAST_EXPIRY_S <= int(digits) <= _MOST_EXPIRY_S:
        raise InvalidValue(
            "Invalid value for 'expires_after.seconds': expected an integer from "
            f"{_LEAST_EXPIRY_S} to {_MOST_EXPIRY_S}.",
            "expires_after",
        )
    return int(digits)


async def list_files(request: Request) -> Response:
    """Handle GET /v1/files: the newest first."""
    files = _of_caller(await asyncio.to_thread(file_store_of(request).list), request)
    purpose = request.query_params.get("purpose")
    values = [file.value() for file in files if purpose in (None, "", file.purpose)]
    if request.query_params.get("order") == "asc":
        values.reverse()
    return json_response(
        list_page(values, request.query_params, MAX_FILES_LISTED, MAX_FILES_LISTED)
    )


async def get_file(request: Request) -> Response:
    return json_response((await _find_file(request)).value())


async def download_file(request: Request) -> Response:
    record = await _find_file(request)
    path = file_store_of(request).data_path(record.id)
    return FileResponse(path, media_type="application/octet-stream", filename=record.filename)


async def delete_file(request: Request) -> Response:
    """Handle DELETE /v1/files/ID. A running batch has its own copy."""
    record = await _find_file(request)
    await asyncio.to_thread(file_store_of(request).delete, record.id)
    return json_response({"id": record.id, "object": "file", "deleted": True})


async def _find_file(request: Request) -> FileRecord:
    file_id: str = request.path_params["file_id"]
    record = await asyncio.to_thread(file_store_of(request).find, file_id)
    if record is None or not _of_caller([record], request):
        raise NoSuchObject("File object", file_id)
    return record


BATCHES_PER_PAGE, MAX_BATCHES_LISTED = 20, 100
_COMPLETION_WINDOW = re.compile(r"(\d{1,4})([mhd])")
_UNIT_S = {"m": 60, "h": 3600, "d": 86400}


def batch_runner_of(request: HTTPConnection) -> BatchRunner:
    return cast(BatchRunner, request.app.state.batches)


def _known_endpoint(endpoint: str) -> str:
    if endpoint not in BATCH_ENDPOINTS:
        known = ", ".join(f"'{supported}'" for supported in BATCH_ENDPOINTS)
        raise refused(f"'{shown(endpoint)}'. Supported values are: {known}.")
    return endpoint


def _known_window(window: str) -> str:
    found = _COMPLETION_WINDOW.fullmatch(window)
    if found is None or int(found[1]) == 0:
        raise refused("expected a time such as '24h'.")
    return window


def _short_pairs(pairs: dict[str, str]) -> dict[str, str]:
    if len(pairs) > 16:
        raise refused("at most 16 pairs are kept.")
    if any(len(name) > 64 or len(value) > 512 for name, value in pairs.items()):
        raise refused("names have at most 64 characters, values 512.")
    return pairs


class _Expiry(OpenAIBody):
    seconds: Whole | None = Field(None, ge=0)


class _BatchBody(OpenAIBody):
    endpoint: Annotated[Needed, AfterValidator(_known_endpoint)]
    input_file_id: Needed
    completion_window: Annotated[str, AfterValidator(_known_window)] = "24h"
    """OpenAI's `24h`, or another number of `m`, `h`, `d`."""
    metadata: Annotated[Texts, AfterValidator(_short_pairs)] = Field(default_factory=dict)
    output_expires_after: _Expiry | None = None

    def record(self) -> BatchRecord:
        now_ns, window = time.time_ns(), self.completion_window
        expiry = self.output_expires_after
        return BatchRecord(
            new_id("batch_"),
            self.endpoint,
            self.input_file_id,
            window,
            now_ns,
            now_ns // 1_000_000_000 + int(window[:-1]) * _UNIT_S[window[-1]],
            self.metadata,
            read_expiry(expiry.seconds) if expiry else None,
        )


async def create_batch(request: Request) -> Response:
    """Handle POST /v1/batches: start a batch of an uploaded file."""
    body = _BatchBody.read(await read_json(request))
    batches = batch_runner_of(request)
    record = replace(body.record(), owner=owner_of(request))
    file = await asyncio.to_thread(batches.files.find, record.input_file_id)
    if file is None or not _of_caller([file], request):
        why = f"there is no file '{record.input_file_id[:80]}'."
        raise invalid_value("input_file_id", why, "invalid_file")
    if file.purpose != "batch":
        why = f"its purpose is '{file.purpose}', not 'batch'."
        raise invalid_value("input_file_id", why, "invalid_file_purpose")
    await batches.create(record, batches.files.data_path(file.id))
    return json_response(record.value())


async def list_batches(request: Request) -> Response:
    """Handle GET /v1/batches: the newest first."""
    found = _of_caller(await batch_runner_of(request).list(), request)
    values = [batch.value() for batch in found]
    return json_response(
        list_page(values, request.query_params, BATCHES_PER_PAGE, MAX_BATCHES_LISTED)
    )


async def get_batch(request: Request) -> Response:
    return json_response((await _find_batch(request)).value())


async def cancel_batch(request: Request) -> Response:
    record = await _find_batch(request)
    cancelled = await batch_runner_of(request).cancel(record.id)
    if cancelled is None and record.status not in ("cancelling", "cancelled"):
        raise InvalidValue(f"Cannot cancel a batch with status '{record.status}'.", "batch_id")
    return json_response((cancelled or record).value())


async def _find_batch(request: Request) -> BatchRecord:
    batch_id: str = request.path_params["batch_id"]
    record = await batch_runner_of(request).find(batch_id)
    if record is None or not _of_caller([record], request):
        raise NoSuchObject("Batch object", batch_id)
    return record
