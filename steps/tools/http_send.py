"""The step `http.send`: a request that changes something elsewhere, for an item at most once.

The ledger has a claim before the request, and what was answered behind it. A claim without an
answer, after a cut, may have arrived: a person is asked, and it is never sent again by itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import Field

from paddock.engine.system.hosts import BadHost, has_expression, read_pattern
from paddock.engine.system.http import HttpFailure, http_failures, read_start, retry_after_s
from paddock.engine.system.retry import Backoff
from paddock.engine.system.text import one_line
from paddock.steps.base import Output, Params, SendState, Step, StepError, Tools
from paddock.steps.effects import SentRequest
from paddock.steps.param_types import DoorParam

_TRIES = 4
_PAUSES = Backoff(1.0, 30.0, spread=0.25)
_LONGEST_PAUSE_S = 60.0
_MOST_BYTES = 1024 * 1024
_PASSING, _NO_ENTRY = (429, 500, 502, 503, 504), (401, 403, 407)
_AGAIN = "The next run tries again"


class HttpSendParams(Params):
    url: str = Field(min_length=1, description="Where it goes.", examples=["https://example.org/"])
    hosts: Annotated[list[str], SentRequest] = Field(
        min_length=1, description="The only servers that are asked.", examples=[["example.org"]]
    )
    method: Literal["POST", "PUT", "PATCH", "DELETE"] = Field(default="POST", description="How.")
    data: Any = Field(default=None, description="Sent as JSON.")
    text: str | None = Field(default=None, description="In its place.")
    headers: Annotated[dict[str, str], DoorParam] = Field(
        default={}, description="Such as `Authorization`."
    )

    @classmethod
    def faults(cls, given: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        found, hosts = [*super().faults(given)], given.get("hosts", ())
        for host in map(str, hosts if isinstance(hosts, list) else [hosts]):
            try:
                if has_expression(host):
                    found.append(("`hosts` is known before a run.", "Write the names of servers."))
                elif hosts:
                    read_pattern(host)
            except BadHost as error:
                found.append((f"`hosts`: {error}.", ""))
        return tuple(found)


class HttpSendOutput(Output):
    output: dict[str, Any] = Field(
        description="`status` and `json` of the answer, `key`, by which the server knows the "
        "request, and `unknown`: whether it arrived, which a person is asked then."
    )
    text: str = Field(description="The answer.")
    sent: Any = Field(description="What was sent.")


class HttpSend(Step[HttpSendParams, HttpSendOutput]):
    """A request to a server, for an item at most once."""

    params = HttpSendParams
    output = HttpSendOutput

    async def run(self, params: HttpSendParams, tools: Tools) -> HttpSendOutput:
        body = params.data if params.text is None else params.text
        request = {"method": params.method, "url": params.url, "body": body}
        request["headers"] = sorted(params.headers)

        def ended(status: int | None, text: str, key: str = "", **others: Any) -> HttpSendOutput:
            answer = {"status": status, "json": None, "key": key, "unknown": False, **others}
            with suppress(ValueError, RecursionError):
                answer["json"] = json.loads(text)
            return HttpSendOutput(output=answer, text=text, sent=body)

        if tools.effects is None:
            tools.log.note(f"nothing is sent to {params.url} in a test.")
            return ended(None, "")
        claims = tools.effects.claims
        for n_failed in range(1, _TRIES + 1):
            claim = await claims.claim(tools.item, request, n_refused=tools.llm.n_refused)
            if claim.state is SendState.ANSWERED:
                return ended(claim.reply["status"], claim.reply["text"], claim.key)
            if claim.state is SendState.UNKNOWN:
                text = f"{params.method} {params.url} was sent, and a cut left it unknown whether "
                text += "it arrived. Look there. Accept it if it did; if it did not, reject it, "
                text += "and `run --retry-failed` sends it again, with the same key."
                tries = claim.reply["n_refused"] + 1  # another question after another try
                return ended(None, text, claim.key, unknown=True, tries=tries)
            try:
                status, text, wait_s = await _answer(params, claim.key)
            except (StepError, HttpFailure) as error:
                if isinstance(error, HttpFailure) and error.was_sent:
                    continue  # the claim tells that it is unknown
                await claims.end(claim, SendState.OPEN)
                if isinstance(error, StepError):
                    raise
                remedy = f"{_AGAIN}; SSL_CERT_FILE names authorities of your own."
                what = f"{error}".rstrip(".")
                raise StepError(f"{what}.", remedy=remedy, kind="io") from error
            if 200 <= status < 300:
                await claims.end(claim, SendState.ANSWERED, status=status, text=text)
                return ended(status, text, claim.key)
            is_passing = status in _PASSING
            await claims.end(claim, SendState.OPEN if is_passing else SendState.REFUSED)
            if not is_passing or n_failed == _TRIES:
                raise _refused(params.url, status, text)
            await asyncio.sleep(_PAUSES.pause_s(n_failed) if wait_s is None else wait_s)
        raise AssertionError  # the last try raises, or returns


async def _answer(params: HttpSendParams, key: str) -> tuple[int, str, float | None]:
    """Return status and text of the answer, and how long the server asks to wait."""
    from . import http_fetch  # it needs httpx, and `schema` describes this step without

    try:
        target = await http_fetch.allowed_target(params.url, params.hosts)
    except http_fetch.NotFetched as error:
        raise StepError(f"{error}".rstrip(".") + ".") from error
    request = http_fetch.pinned_request(target, {"Idempotency-Key": key, **params.headers})
    if params.text is not None:
        request["content"] = params.text.encode()
    elif params.data is not None:
        request["json"] = params.data
    with http_failures(f"'{params.url}'"):
        async with (
            http_fetch.http_client(target.proxy) as client,
            client.stream(params.method, **request) as answer,
        ):
            text = (await read_start(answer, _MOST_BYTES)).decode("utf-8", "replace")
            wait_s = retry_after_s(answer.headers.get("retry-after"), _LONGEST_PAUSE_S)
            return answer.status_code, text, wait_s


def _refused(url: str, status: int, text: str) -> StepError:
    what = f"'{url}' answers with status {status}: {one_line(text, 300)}".rstrip(": .")
    if status in _PASSING:
        return StepError(f"{what}.", remedy=f"{_AGAIN}.", kind="io")
    if status in _NO_ENTRY:  # of all items: none is given up
        remedy = "Renew the secret in `headers`, or its rights; the next run goes on."
        return StepError(f"{what}.", remedy=remedy, kind="missing")
    return StepError(f"{what}.", remedy="Once that is mended: `run --retry-failed`.")
