"""Webhooks: verify the signature, map the payload to inputs, take the call.

A webhook without a secret is served on this machine's own address alone, to the user that runs
`paddock up` (elsewhere than on Linux to every user of the machine).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from paddock.engine.api.host_check import has_own_host_name
from paddock.engine.system import socket_owners
from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.triggers import WebhookKeys
from paddock.runner.core.other_runs.group_names import rendered_value

from .triggered_pipeline import TriggeredPipeline
from .webhook_queue import AcceptedCall, CallReceipt, WebhookQueueBroken
from .webhook_signatures import BadSignature, check_signature

MOST_BODY_BYTES = 1 << 19
"""Of a body, and of the inputs made from it: Prefect takes no larger parameters."""
_OTHER_BYTES = 4096
"""Reserve for a run's other parameters."""
MOST_INPUT_BYTES = MOST_BODY_BYTES - _OTHER_BYTES
BODY_S = 20.0
RESERVED = ("/healthz", "/readyz", "/status", "/review", "/ui")
_KEYS = ("x-idempotency-key", "idempotency-key", "x-github-delivery")


class WebhookQueueFull(Exception):
    """The queue is full for now."""


AcceptCall = Callable[[AcceptedCall], Awaitable[CallReceipt]]
"""Stores a call; raises `WebhookQueueFull`, `WebhookQueueBroken`."""


@dataclass(frozen=True, slots=True)
class ServedWebhook:
    """A webhook that is served."""

    triggered: TriggeredPipeline
    webhook: WebhookKeys
    secret: str | None = field(default=None, repr=False)


def webhook_table(
    triggered: Sequence[TriggeredPipeline],
    secret_of: Callable[[TriggeredPipeline, WebhookKeys], str | None],
) -> tuple[dict[str, ServedWebhook], list[str]]:
    """Return the webhooks by their paths, and messages about those that cannot be served."""
    hooks: dict[str, ServedWebhook] = {}
    path_faults: list[str] = []
    for pipeline in triggered:
        for index, webhook in enumerate(pipeline.webhooks):
            mark = pipeline.pipeline.mark(("on", "webhook", index, "path"))
            place = f"{mark.file}:{mark.line}:{mark.column}: webhook '{webhook.path}'"
            if webhook.path in RESERVED:
                path_faults.append(f"{place} is this service's own path.\n  Choose another one.")
            elif webhook.path in hooks:
                other = hooks[webhook.path].triggered.file
                path_faults.append(f"{place} is taken by {other}.\n  Choose another path.")
            else:
                try:
                    hooks[webhook.path] = ServedWebhook(
                        pipeline, webhook, secret_of(pipeline, webhook)
                    )
                except PipelineError as error:
                    path_faults.append(str(error))
    return hooks, path_faults


class Webhooks:
    """Answers calls. `hooks` is replaced whenever files change."""

    def __init__(self, accept: AcceptCall, clock: Callable[[], float] = time.time) -> None:
        self.hooks: Mapping[str, ServedWebhook] = {}
        self._accept = accept
        self._clock = clock

    async def answer(self, request: Request) -> Response:
        """Answer one call: 202 when it is stored, or why not.

        A repeated call gets 200, with its flow run once there is one.
        """
        hook = self.hooks.get(request.url.path)
        if hook is None:
            return _error_response(404, "there is no webhook at this path.")
        try:
            _refuse_request(request, hook)
            body = await _read_body(request)
            call = self._call(hook, request.headers, body)
            answer = await self._accept(call)
        except _BadCall as error:
            return _error_response(error.status, str(error))
        except PipelineError as error:
            return _error_response(422, "\n".join(fault.message for fault in error.faults))
        except WebhookQueueFull as error:
            return _error_response(429, str(error), {"Retry-After": "60"})
        except WebhookQueueBroken:  # the message names a file of this machine
            return _error_response(
                503, "calls cannot be stored at the moment.", {"Retry-After": "60"}
            )
        except ClientDisconnect:
            return Response(status_code=499)
        facts = {
            "call": (answer.id or call.id).rpartition(":")[2],
            "pipeline": hook.triggered.pipeline.name,
            "is_known": answer.is_known,
            "run": answer.run,
        }
        return JSONResponse(facts, 200 if answer.is_known else 202)

    def _call(self, hook: ServedWebhook, headers: Mapping[str, str], body: bytes) -> AcceptedCall:
        """Verify a call and map it to inputs.

        Raises:
            _BadCall: its signature or JSON is not valid.
            PipelineError: its inputs are not what the pipeline needs.
        """
        signed = None
        if hook.secret is not None:
            try:
                signed = check_signature(hook.secret, headers, body, self._clock())
            except BadSignature as error:
                raise _BadCall(401, str(error)) from None
        try:
            payload = json.loads(body)
            json.dumps(payload, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError:
            raise _BadCall(400, "the body has half of a surrogate pair in a text.") from None
        except (ValueError, RecursionError):
            raise _BadCall(400, "the body is not JSON.") from None
        inputs = mapped_inputs(hook, payload)
        if len(json.dumps(inputs)) > MOST_INPUT_BYTES:
            raise _BadCall(413, "the inputs that it is mapped to are larger than 508 KiB.")
        # The key itself is not signed: under another one the same signature is the same call.
        key = next((headers[name] for name in _KEYS if headers.get(name)), signed)
        digest = hashlib.sha256((key or uuid.uuid4().hex).encode()).hexdigest()[:32]
        pipeline, trigger = hook.triggered.key, trigger_of(hook.webhook)
        id_ = f"{pipeline}:webhook:{digest}"
        return AcceptedCall(id_, pipeline, trigger, inputs, signature=signed)


def trigger_of(webhook: WebhookKeys) -> str:
    return f"webhook {webhook.path}"


def mapped_inputs(hook: ServedWebhook, payload: Any) -> dict[str, Any]:
    """Return the inputs that a payload fills in.

    Raises:
        PipelineError: an input is missing or wrong, or names a folder elsewhere.
    """
    pipeline, written = hook.triggered, hook.webhook.inputs
    index = pipeline.webhooks.index(hook.webhook)
    at = ("on", "webhook", index, "inputs")
    scope = {"payload": payload, "inputs": {}}
    return pipeline.inputs_from_elsewhere(rendered_value(pipeline.pipeline, written, scope, at))


class _BadCall(Exception):
    def __init__(self, status: int, words: str) -> None:
        self.status = status
        super().__init__(words)


def _refuse_request(request: Request, hook: ServedWebhook) -> None:
    if request.method != "POST":
        raise _BadCall(405, "a webhook is called by POST.")
    if hook.secret is None and not has_own_host_name(request.headers):
        raise _BadCall(403, "there is no secret: use 'localhost' or this machine's address.")
    if hook.secret is None and not socket_owners.is_own_process(
        request.client, request.scope.get("server")
    ):
        what = "there is no secret, so only the user that runs `paddock up` may call this webhook."
        raise _BadCall(403, f"{what} Others may, once it has a `secret`.")
    media_type = request.headers.get("content-type", "").partition(";")[0]
    if media_type.strip().lower() != "application/json":
        raise _BadCall(415, "the body must be JSON: Content-Type: application/json.")


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


def _error_response(status: int, words: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": words}, status, headers)
