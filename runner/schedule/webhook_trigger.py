"""Webhook trigger: an HTTP path; each call of it that is valid becomes an order.

A call is answered when its order is on the disk, and runs then, whatever becomes of the pipeline's
file. The same call again, by its key or its signature, is the same order. A webhook without a
secret is served on this machine's own address alone, to the user that runs `paddock up` (elsewhere
than on Linux to every user of the machine).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from paddock.engine.api.host_check import has_own_host_name
from paddock.engine.api.streaming import json_response
from paddock.engine.system import socket_owners
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.triggers import WebhookKeys
from paddock.runner.config import pipeline_secrets
from paddock.runner.core.other_runs.group_names import rendered_value
from paddock.runner.workers.order import Order

from .order_queue import MOST_WAITING, QueueBroken
from .triggered_pipeline import TriggeredPipeline
from .triggers import NothingToWaitFor, PathTaken, TriggerDesk
from .webhook_signatures import BadSignature, check_signature

MOST_BODY_BYTES = 1 << 19
"""Of a body, and of the inputs made from it."""
BODY_S = 20.0
PATH_RETRY_S = 2.0
_AGAIN = {"Retry-After": "60"}
_KEYS = ("x-idempotency-key", "idempotency-key", "x-github-delivery")


def _webhooks(triggered: TriggeredPipeline) -> Sequence[WebhookKeys]:
    return triggered.pipeline.on.webhook if triggered.pipeline.on else ()


class WebhookTrigger:
    """One webhook. How a payload becomes inputs is read from the pipeline as it is at the call."""

    kind: ClassVar[str] = "webhook"
    Keys = WebhookKeys

    def __init__(self, keys: WebhookKeys, triggered: TriggeredPipeline) -> None:
        self.path = keys.path
        self.secret: str | None = None
        try:
            self.secret = self._secret(keys.secret, triggered)
        except PipelineError as error:
            raise NothingToWaitFor(self.key, error) from error

    def __eq__(self, other: object) -> bool:
        own = self.path, self.secret
        return isinstance(other, WebhookTrigger) and (other.path, other.secret) == own

    def __hash__(self) -> int:
        return hash(self.path)

    @property
    def key(self) -> str:
        return f"webhook {self.path}"

    def _secret(self, written: str | None, triggered: TriggeredPipeline) -> str | None:
        pipeline, at = triggered.pipeline, self._at(triggered)
        if written is None:
            if not triggered.is_open:
                return None
            what = f"webhook '{self.path}' has no secret, and other machines may call it."
            raise PipelineError.of(what, "Add a `secret`.", pipeline.mark(at))
        scope: dict[str, object] = {"inputs": {}}
        if "secrets" in written:
            scope["secrets"] = pipeline_secrets.read_secrets(pipeline, os.environ).values
        return str(rendered_value(pipeline, written, scope, (*at, "secret")))

    async def run(self, desk: TriggerDesk) -> None:
        """Answer calls until cancelled. A path that is taken is tried again."""
        is_served = False
        while not is_served:
            try:
                desk.serve(self.path, partial(self.answer, desk))
                is_served = True
            except PathTaken as taken:
                triggered = desk.pipeline()
                mark = triggered.pipeline.mark((*self._at(triggered), "path"))
                what = f"is taken by {taken.by}.\n  Choose another path."
                if not taken.by:
                    what = "is this service's own path.\n  Choose another one."
                place = f"{mark.file}:{mark.line}:{mark.column}"
                desk.warn(f"{place}: webhook '{self.path}' {what}")
                await asyncio.sleep(PATH_RETRY_S)
        await asyncio.Event().wait()

    async def done(self, order: Order) -> None:
        """Do nothing: the answer to a repeated call has the end."""

    def status(self, now: datetime) -> Mapping[str, Any]:
        return {"text": f"calls of '{self.path}'"}

    async def answer(self, desk: TriggerDesk, request: Request) -> Response:
        """Answer a call: 202 when its order is on the disk, 200 if it was before, or why not."""
        triggered = desk.pipeline()
        try:
            self._refuse_request(request)
            body = await _read_body(request)
            signature = self._checked_signature(request.headers, body)
            inputs = self._inputs(triggered, _payload(body))
            if desk.queue.waiting(triggered.key) >= MOST_WAITING:
                return _error_response(429, "too many calls of this pipeline wait already.", _AGAIN)
            # The key itself is not signed: under another one the same signature is the same call.
            named = (request.headers[name] for name in _KEYS if request.headers.get(name))
            call = next(named, signature) or uuid.uuid4().hex
            receipt = await desk.order(
                f"webhook:{hashlib.sha256(call.encode()).hexdigest()[:32]}",
                inputs=inputs,
                reason="called by its webhook",
                is_promised=True,
                signature=signature,
            )
        except _BadCall as error:
            return _error_response(error.status, str(error))
        except PipelineError as error:
            return _error_response(422, "\n".join(fault.message for fault in error.faults))
        except QueueBroken:  # the message names a file of this machine
            return _error_response(503, "calls cannot be stored at the moment.", _AGAIN)
        except ClientDisconnect:
            return Response(status_code=499)
        facts = {
            "order": receipt.order.id,
            "pipeline": triggered.pipeline.name,
            "is_known": receipt.is_known,
            "end": receipt.order.end or None,
        }
        return json_response(facts, 200 if receipt.is_known else 202)

    def _at(self, triggered: TriggeredPipeline) -> tuple[str, str, int]:
        """Return its place in the file; past the end where the file has just changed."""
        paths = [webhook.path for webhook in _webhooks(triggered)]
        return "on", "webhook", [*paths, self.path].index(self.path)

    def _refuse_request(self, request: Request) -> None:
        if request.method != "POST":
            raise _BadCall(405, "a webhook is called by POST.")
        if self.secret is None and not has_own_host_name(request.headers):
            raise _BadCall(403, "there is no secret: use 'localhost' or this machine's address.")
        if self.secret is None and not socket_owners.is_own_process(
            request.client, request.scope.get("server")
        ):
            what = "there is no secret, so only the user that runs `paddock up` may call this"
            raise _BadCall(403, f"{what} webhook. Others may, once it has a `secret`.")
        media_type = request.headers.get("content-type", "").partition(";")[0]
        if media_type.strip().lower() != "application/json":
            raise _BadCall(415, "the body must be JSON: Content-Type: application/json.")

    def _checked_signature(self, headers: Mapping[str, str], body: bytes) -> str | None:
        if self.secret is None:
            return None
        try:
            return check_signature(self.secret, headers, body, time.time())
        except BadSignature as error:
            raise _BadCall(401, str(error)) from None

    def _inputs(self, triggered: TriggeredPipeline, payload: Any) -> dict[str, Any]:
        """Return the inputs that a payload fills in.

        Raises:
            PipelineError: an input is missing or wrong, or names a folder elsewhere.
            _BadCall: they are too large.
        """
        at, scope = self._at(triggered), {"payload": payload, "inputs": {}}
        if at[2] == len(_webhooks(triggered)):
            raise _BadCall(404, "there is no webhook at this path.")
        written = _webhooks(triggered)[at[2]].inputs
        inputs = triggered.inputs_from_elsewhere(
            rendered_value(triggered.pipeline, written, scope, (*at, "inputs"))
        )
        if len(json.dumps(inputs)) > MOST_BODY_BYTES:
            raise _BadCall(413, "the inputs that it is mapped to are larger than 512 KiB.")
        return inputs


class _BadCall(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                body += piece
                if len(body) > MOST_BODY_BYTES:
                    raise _BadCall(413, "the body is larger than 512 KiB.")
    except TimeoutError:
        raise _BadCall(408, f"the body did not arrive within {BODY_S:g} s.") from None
    return bytes(body)


def _payload(body: bytes) -> Any:
    try:
        payload = json.loads(body)
        json.dumps(payload, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise _BadCall(400, "the body has half of a surrogate pair in a text.") from None
    except (ValueError, RecursionError):
        raise _BadCall(400, "the body is not JSON.") from None
    return payload


def _error_response(
    status: int, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    return json_response({"error": message}, status, headers)
