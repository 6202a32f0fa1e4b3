"""/v1/files: upload, list, look at, download, delete."""

from __future__ import annotations

import asyncio
import time

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from paddock.engine.api.openai.calls import new_id
from paddock.engine.api.openai.refusals import InvalidValue, NotThere
from paddock.engine.api.service import service_of
from paddock.engine.api.streaming import json_response
from paddock.engine.store.locks import writing

from .documents import settle
from .forms import Form, read_form
from .pages import page
from .shelf import FileFacts, FileShelf

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
MOST_LISTED = 10_000
_LEAST_EXPIRY_S, _MOST_EXPIRY_S = 3600, 30 * 24 * 3600


def shelf_of(request: Request) -> FileShelf:
    """Give the files of the service that a request came to."""
    return FileShelf(service_of(request).settings.state_dir)


async def upload(request: Request) -> Response:
    """Take a file."""
    documents = shelf_of(request).documents
    with writing(documents.folder):
        aside = await asyncio.to_thread(documents.aside)
        file = await asyncio.to_thread(documents.opened, aside)
    try:
        try:
            with writing(documents.folder):
                form = await read_form(request, file)
                await asyncio.to_thread(settle, file)
        finally:
            await asyncio.to_thread(file.close)
        facts = _facts(form)
        await asyncio.to_thread(shelf_of(request).add, facts, aside)
    finally:
        await asyncio.to_thread(aside.unlink, missing_ok=True)
    return json_response(facts.value())


def _facts(form: Form) -> FileFacts:
    purpose = form.fields.get("purpose", "")
    if purpose not in PURPOSES:
        known = ", ".join(f"'{one}'" for one in PURPOSES)
        raise InvalidValue(
            f"Invalid value for 'purpose': '{purpose[:80]}'. Supported values are: {known}.",
            "purpose",
        )
    now_ns = time.time_ns()
    expires_s = expiry_of(form.fields.get("expires_after[seconds]"))
    return FileFacts(
        new_id("file-"),
        form.filename[:255] or "upload",
        purpose,
        form.size_bytes,
        now_ns,
        None if expires_s is None else now_ns // 1_000_000_000 + expires_s,
    )


def expiry_of(text: str | int | None) -> int | None:
    """Read after how many seconds a file expires, from an hour to thirty days.

    Raises:
        InvalidValue: it is no such number.
    """
    if text is None:
        return None
    written = str(text)
    is_number = written.isascii() and written.isdigit() and len(written) < 10
    if not is_number or not _LEAST_EXPIRY_S <= int(written) <= _MOST_EXPIRY_S:
        raise InvalidValue(
            "Invalid value for 'expires_after.seconds': expected an integer from "
            f"{_LEAST_EXPIRY_S} to {_MOST_EXPIRY_S}.",
            "expires_after",
        )
    return int(written)


async def listing(request: Request) -> Response:
    """List the files, the newest first."""
    files = await asyncio.to_thread(shelf_of(request).list)
    purpose = request.query_params.get("purpose")
    values = [one.value() for one in files if purpose in (None, "", one.purpose)]
    if request.query_params.get("order") == "asc":
        values.reverse()
    return json_response(page(values, request.query_params, MOST_LISTED, MOST_LISTED))


async def one(request: Request) -> Response:
    """Look at a file."""
    return json_response((await _found(request)).value())


async def content(request: Request) -> Response:
    """Give a file's bytes."""
    facts = await _found(request)
    path = shelf_of(request).path(facts.id)
    return FileResponse(path, media_type="application/octet-stream", filename=facts.filename)


async def delete(request: Request) -> Response:
    """Take a file away. A batch that reads it has its own copy."""
    facts = await _found(request)
    await asyncio.to_thread(shelf_of(request).delete, facts.id)
    return json_response({"id": facts.id, "object": "file", "deleted": True})


async def _found(request: Request) -> FileFacts:
    file_id: str = request.path_params["file_id"]
    facts = await asyncio.to_thread(shelf_of(request).find, file_id)
    if facts is None:
        raise NotThere("File object", file_id)
    return facts
