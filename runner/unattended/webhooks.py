"""A call from elsewhere becomes a run: checked, bounded, mapped to inputs, written down.

Knows no Prefect: `accept` writes the call down, and it is answered at once. A secret stands in the
pipeline's file or in `secrets`; a webhook without one is served on this machine's own address
alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from paddock.pipelines.errors import PipelineError
from paddock.pipelines.triggers import Webhook

from . import signatures
from .health import is_asked_by_own_name
from .signatures import Refused
from .standing import Standing
from .webhook_queue import Answer, QueueBroken

MOST_BYTES = 1 << 19
"""Of a body, and of the inputs that it is mapped to: Prefect takes no larger parameters."""
_OTHER_BYTES = 4096
"""What Prefect is told of a run besides its inputs."""
BODY_S = 20.0
RESERVED = ("/healthz", "/readyz", "/status")
_KEYS = ("x-idempotency-key", "idempotency-key", "x-github-delivery")


class Full(Exception):
    """The queue takes no more for now."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call that is to become a run."""

    standing: Standing
    trigger: str
    inputs: Mapping[str, Any]
    key: str
    """The same call twice has the same one."""


Accept = Callable[[Call], Awaitable[Answer]]
"""Writes a call down: raises `Full`, `QueueBroken`."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook that is served."""

    standing: Standing
    webhook: Webhook
    secret: str | None = field(default=None, repr=False)


def table(
    standing: Sequence[Standing], secret_of: Callable[[Standing, Webhook], str | None]
) -> tuple[dict[str, Hook], list[str]]:
    """Give the webhooks by their paths, and what cannot be served, in words."""
    hooks: dict[str, Hook] = {}
    told: list[str] = []
    for one in standing:
        for index, webhook in enumerate(one.webhooks):
            mark = one.pipeline.mark(("on", "webhook", index, "path"))
            place = f"{mark.file}:{mark.line}:{mark.column}: webhook '{webhook.path}'"
            if webhook.path in RESERVED:
                told.append(f"{place} is this service's own path.\n  Choose another one.")
            elif webhook.path in hooks:
                other = hooks[webhook.path].standing.file
                told.append(f"{place} is taken by {other}.\n  Choose another path.")
            else:
                try:
                    hooks[webhook.path] = Hook(one, webhook, secret_of(one, webhook))
                except PipelineError as error:
                    told.append(str(error))
    return hooks, told


class Webhooks:
    """Answers calls. `hooks` is replaced whenever files change."""

    def __init__(self, accept: Accept, clock: Callable[[], float] = time.time) -> None:
        self.hooks: Mapping[str, Hook] = {}
        self._accept = accept
        self._clock = clock
        self._signed: dict[str, tuple[float, str]] = {}
        """Signature → until when it could be believed, and the key that its call had."""

    async def answer(self, request: Request) -> Response:
        """Answer one call: 202 when it is written down, or why not.

        A call that came before is answered by 200, with its flow run once there is one.
        """
        hook = self.hooks.get(request.url.path)
        if hook is None:
            return _no(404, "there is no webhook of this path.")
        if request.method != "POST":
            return _no(405, "a webhook is called by POST.")
        if hook.secret is None and not is_asked_by_own_name(request):
            return _no(403, "there is no secret: ask by 'localhost' or by this machine's address.")
        media_type = request.headers.get("content-type", "").partition(";")[0]
        if media_type.strip().lower() != "application/json":
            return _no(415, "the body must be JSON: Content-Type: application/json.")
        try:
            body = await _body(request)
            call = self._call(hook, request.headers, body)
            answer = await self._accept(call)
        except _Bad as error:
            return _no(error.status, str(error))
        except PipelineError as error:
            return _no(422, "\n".join(fault.message for fault in error.faults))
        except Full as error:
            return _no(429, str(error), {"Retry-After": "60"})
        except QueueBroken:  # its words name a file of this machine
            return _no(503, "calls cannot be written down at the moment.", {"Retry-After": "60"})
        except ClientDisconnect:
            return Response(status_code=499)
        told = {
            "call": call.key.removeprefix("webhook:"),
            "pipeline": hook.standing.pipeline.name,
            "is_known": answer.is_known,
            "run": answer.run,
        }
        return JSONResponse(told, 200 if answer.is_known else 202)

    def _call(self, hook: Hook, headers: Mapping[str, str], body: bytes) -> Call:
        """Check a call and map it.

        Raises:
            _Bad: it is not signed as it should be, or is no JSON.
            PipelineError: it does not give the pipeline what it needs.
        """
        signed = None
        if hook.secret is not None:
            try:
                signed = signatures.check(hook.secret, headers, body, self._clock())
            except Refused as error:
                raise _Bad(401, str(error)) from None
        try:
            payload = json.loads(body)
            json.dumps(payload, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _Bad(400, "the body has half of a surrogate pair in a text.") from None
        except (ValueError, RecursionError):
            raise _Bad(400, "the body is not JSON.") from None
        inputs = mapped(hook, payload)
        if len(json.dumps(inputs)) > MOST_BYTES - _OTHER_BYTES:
            raise _Bad(413, "the inputs that it is mapped to are larger than 508 KiB.")
        key = next((headers[name] for name in _KEYS if headers.get(name)), None)
        if signed is not None:
            key = self._first_key(signed, key)
        digest = hashlib.sha256((key or uuid.uuid4().hex).encode()).hexdigest()[:32]
        return Call(hook.standing, f"webhook {hook.webhook.path}", inputs, f"webhook:{digest}")

    def _first_key(self, signed: str, key: str | None) -> str:
        """Give the key that a signature came with first: nobody has signed the key."""
        now_s = self._clock()
        for old in [one for one, (until_s, _) in self._signed.items() if until_s < now_s]:
            del self._signed[old]
        until_s = now_s + 2 * signatures.MOST_APART_S
        return self._signed.setdefault(signed, (until_s, key or signed))[1]


def mapped(hook: Hook, payload: Any) -> dict[str, Any]:
    """Fill in the inputs from a payload.

    Raises:
        PipelineError: an input is missing or wrong, or names a folder elsewhere.
    """
    one, written = hook.standing, hook.webhook.inputs
    index = one.webhooks.index(hook.webhook)
    at = ("on", "webhook", index, "inputs")
    return one.inputs_from_elsewhere(one.rendered(written, {"payload": payload, "inputs": {}}, at))


class _Bad(Exception):
    def __init__(self, status: int, words: str) -> None:
        self.status = status
        super().__init__(words)


async def _body(request: Request) -> bytes:
    """Read the body, bounded in size and time."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.stream():
                body += piece
                if len(body) > MOST_BYTES:
                    raise _Bad(413, "the body is larger than 512 KiB.")
    except TimeoutError:
        raise _Bad(408, f"the body did not come within {BODY_S:g} s.") from None
    return bytes(body)


def _no(status: int, words: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": words}, status, headers)
