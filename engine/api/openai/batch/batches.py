"""/v1/batches: create, list, look at, cancel."""

from __future__ import annotations

import asyncio
import re
import time

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from paddock.engine.api.openai.bodies import read_fields
from paddock.engine.api.openai.calls import new_id
from paddock.engine.api.openai.fields import Fields
from paddock.engine.api.openai.handlers import ENDPOINTS
from paddock.engine.api.openai.refusals import InvalidValue, NotThere
from paddock.engine.api.service import service_of
from paddock.engine.api.streaming import json_response

from .book import BatchFacts
from .files import expiry_of
from .keeper import Batches
from .pages import page

USUALLY_LISTED, MOST_LISTED = 20, 100
_WINDOW = re.compile(r"(\d{1,4})([mhd])")
_UNIT_S = {"m": 60, "h": 3600, "d": 86400}


def batches_of(request: HTTPConnection) -> Batches:
    """Give the batches of the service that a request came to."""
    companions = request.app.state.companions
    return next(one for one in companions if isinstance(one, Batches))


async def create(request: Request) -> Response:
    """Begin a batch whose lines were uploaded."""
    body = await read_fields(request, service_of(request).settings.max_body_bytes)
    batches = batches_of(request)
    facts = _read(body)
    file = await asyncio.to_thread(batches.shelf.find, facts.input_file_id)
    if file is None:
        said = f"there is no file '{facts.input_file_id[:80]}'."
        raise body.refused("input_file_id", said, "invalid_file")
    if file.purpose != "batch":
        said = f"its purpose is '{file.purpose}', not 'batch'."
        raise body.refused("input_file_id", said, "invalid_file_purpose")
    await batches.create(facts, batches.shelf.path(file.id))
    return json_response(facts.value())


def _read(body: Fields) -> BatchFacts:
    endpoint = body.needed_text("endpoint")
    if endpoint not in ENDPOINTS:
        known = ", ".join(f"'{one}'" for one in ENDPOINTS)
        raise body.refused("endpoint", f"'{endpoint[:80]}'. Supported values are: {known}.")
    expiry = body.object("output_expires_after")
    now_ns = time.time_ns()
    window = body.text("completion_window", "24h")
    return BatchFacts(
        new_id("batch_"),
        endpoint,
        body.needed_text("input_file_id"),
        window,
        now_ns,
        now_ns // 1_000_000_000 + _window_s(body, window),
        _metadata(body),
        expiry_of(expiry.whole("seconds", 0)) if expiry else None,
    )


def _window_s(body: Fields, window: str) -> int:
    """Read how long a batch may take: OpenAI's `24h`, or another number of `m`, `h`, `d`."""
    found = _WINDOW.fullmatch(window)
    if found is None or int(found[1]) == 0:
        raise body.refused("completion_window", "expected a time such as '24h'.")
    return int(found[1]) * _UNIT_S[found[2]]


def _metadata(body: Fields) -> dict[str, str]:
    found = body.object("metadata")
    if found is None:
        return {}
    if len(found.values) > 16:
        raise body.refused("metadata", "at most 16 pairs are kept.")
    for name in found.values:
        if len(name) > 64 or len(found.text(name)) > 512:
            raise body.refused("metadata", "names have at most 64 characters, values 512.")
    return {name: found.text(name) for name in found.values}


async def listing(request: Request) -> Response:
    """List the batches, the newest first."""
    values = [one.value() for one in await batches_of(request).list()]
    return json_response(page(values, request.query_params, USUALLY_LISTED, MOST_LISTED))


async def one(request: Request) -> Response:
    """Look at a batch."""
    return json_response((await _found(request)).value())


async def cancel(request: Request) -> Response:
    """End a batch before its end."""
    facts = await _found(request)
    called_off = await batches_of(request).cancel(facts.id)
    if called_off is None and facts.status not in ("cancelling", "cancelled"):
        raise InvalidValue(f"Cannot cancel a batch with status '{facts.status}'.", "batch_id")
    return json_response((called_off or facts).value())


async def _found(request: Request) -> BatchFacts:
    batch_id: str = request.path_params["batch_id"]
    facts = await batches_of(request).find(batch_id)
    if facts is None:
        raise NotThere("Batch object", batch_id)
    return facts
