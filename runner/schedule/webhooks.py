"""Webhooks: verify the signature, map the payload to inputs, store the call until Prefect has it.

Two signatures: GitHub's `X-Hub-Signature-256: sha256=HEX` over the body; and `X-Paddock-Signature:
t=SECONDS,v1=HEX` over `SECONDS.body`, which cannot be replayed later. A recorded call can be
replayed in the first form; its delivery id then gives the run that exists already. A webhook
without a secret is served on this machine's own address alone.

A call is answered when its row is on the disk (SQLite). Calls that arrive together share one
transaction, because a commit waits for the disk: 100 at once took 30 s as flow runs of Prefect's
SQLite. The call's key is the table's key, so a repeated call is one row and one run. Rows are kept
for a week after Prefect took them, for callers that repeat a call.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from paddock.engine.api.host_check import has_own_host_name
from paddock.engine.system import files
from paddock.engine.system.text import one_line
from paddock.pipelines.errors import PipelineError
from paddock.pipelines.triggers import WebhookKeys
from paddock.runner.core.concurrency import rendered_value

from .triggered_pipeline import TriggeredPipeline

log = logging.getLogger("paddock.up")
GITHUB_HEADER, OWN_HEADER = "x-hub-signature-256", "x-paddock-signature"
MOST_APART_S = 300.0
"""The largest difference between the caller's clock and ours."""


class BadSignature(Exception):
    """The signature is not valid; the reason is for the person who set it up."""


def check_signature(
    secret: str, headers: Mapping[str, str], body: bytes, now_s: float
) -> str | None:
    """Verify a call's signature; the names in `headers` are lower-case.

    Returns an id that no other call has, however it is written; None for a form without one.

    Raises:
        BadSignature: it is missing, wrong, or too old.
    """
    own, github = headers.get(OWN_HEADER), headers.get(GITHUB_HEADER)
    if own is not None:
        return _check_own(secret, own, body, now_s)
    if github is None:
        raise BadSignature(
            "the call is not signed: X-Hub-Signature-256 or X-Paddock-Signature is missing."
        )
    if not _is_same(github, f"sha256={_mac(secret, body)}"):
        raise BadSignature("the signature in X-Hub-Signature-256 is wrong.")
    return None


def _check_own(secret: str, given: str, body: bytes, now_s: float) -> str:
    parts = dict(part.strip().partition("=")[::2] for part in given.split(","))
    at = parts.get("t", "")
    if not (at.isascii() and at.isdigit() and len(at) < 15) or "v1" not in parts:
        raise BadSignature("X-Paddock-Signature must read `t=SECONDS,v1=HEX`.")
    if not _is_same(parts["v1"], _mac(secret, f"{at}.".encode() + body)):
        raise BadSignature("the signature in X-Paddock-Signature is wrong.")
    apart_s = now_s - int(at)
    if abs(apart_s) > MOST_APART_S:
        when = "in the future" if apart_s < 0 else "ago"
        raise BadSignature(f"the call was signed {abs(apart_s):.0f} s {when}; compare the clocks.")
    return parts["v1"]


def _mac(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _is_same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode())


QUEUE_FILE = "webhooks.sqlite"
MOST_WAITING = 10_000
"""Calls of one pipeline that Prefect has not taken yet; further calls get 429."""
DAMAGED = "damaged: "
"""Begins the pipeline of a damaged call."""
KEPT_S = 7 * 86_400.0
LOCK_S = 10.0

_CALLS_TABLE = """
CREATE TABLE IF NOT EXISTS calls (
    id TEXT PRIMARY KEY, pipeline TEXT NOT NULL, trigger TEXT NOT NULL, inputs TEXT NOT NULL,
    received_at REAL NOT NULL, queued_at REAL, run TEXT
)
"""


class WebhookQueueBroken(Exception):
    """The table cannot be read or written: a full disk, a damaged file."""


@dataclass(frozen=True, slots=True)
class AcceptedCall:
    """One call that becomes a run. `pipeline` is the key of its file, `id` the same if repeated."""

    id: str
    pipeline: str
    trigger: str
    inputs: Mapping[str, Any]
    received_at: float = 0.0
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class CallReceipt:
    """What became of a stored call."""

    is_known: bool
    run: str | None
    """The flow run, once Prefect has taken it."""


class WebhookQueue:
    """The table. Lives in one event loop; a thread of its own accesses the file."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / QUEUE_FILE
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="webhooks")
        self._connection: sqlite3.Connection | None = None
        self._arriving: list[tuple[AcceptedCall, asyncio.Future[CallReceipt]]] = []
        self._writing: asyncio.Task[None] | None = None
        self.waiting: Counter[str] = Counter()
        """Calls that Prefect has not taken yet, by pipeline."""
        self.fault = ""
        """Why the table cannot be used now; empty when it can."""
        self.arrived = asyncio.Event()
        """Set when there may be calls to submit."""

    async def open(self) -> None:
        """Open the table. A failure is kept in `fault`: each call then tries again.

        Deletes rows that Prefect took long ago.
        """
        try:
            await self._do(lambda db: None)
        except WebhookQueueBroken:
            return
        if self.waiting.total():
            self.arrived.set()

    async def close(self) -> None:
        """Write what has arrived, and close the file."""
        if self._writing is not None:
            await asyncio.wait({self._writing})
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def is_full(self, pipeline: str) -> bool:
        """Return whether a pipeline's waiting calls have reached the limit."""
        return self.waiting[pipeline] >= MOST_WAITING

    async def put(self, call: AcceptedCall) -> CallReceipt:
        """Store a call; it is on the disk when this returns.

        Raises:
            WebhookQueueBroken: it cannot be written, so it was not accepted.
        """
        future: asyncio.Future[CallReceipt] = asyncio.get_running_loop().create_future()
        self._arriving.append((call, future))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        return await future

    async def oldest(self, pipeline: str, n: int) -> list[AcceptedCall]:
        """Return the oldest calls of a pipeline that Prefect has not taken yet.

        Damaged ones are reported and set aside: their rows stay, and are no calls any more.

        Raises:
            WebhookQueueBroken: the table cannot be read.
        """
        calls: list[AcceptedCall]
        calls, damaged = await self._do(lambda db: _oldest_calls(db, pipeline, n))
        for id_ in damaged:
            self.waiting[pipeline] -= 1
            log.warning(
                "%s: the webhook call '%s' of %s is damaged and becomes no run; its row stays "
                "there, as one of '%s%s'.", self._file, id_, pipeline, DAMAGED, pipeline
            )  # fmt: skip
        return calls

    async def queued(self, calls: Sequence[AcceptedCall], run: str) -> None:
        """Record that Prefect has taken calls, as this flow run.

        Raises:
            WebhookQueueBroken: it cannot be recorded; submitted again, it is the same flow run.
        """
        changed = "UPDATE calls SET queued_at = ?, run = ?, inputs = '' WHERE id = ?"
        rows = [(time.time(), run, call.id) for call in calls]
        await self._do(lambda db: db.executemany(changed, rows))
        for call in calls:
            self.waiting[call.pipeline] -= 1

    async def _write(self) -> None:
        while self._arriving:
            arrived, self._arriving = self._arriving, []
            calls = [call for call, _ in arrived]
            try:
                answers = await self._do(lambda db, calls=calls: _insert_calls(db, calls))
            except WebhookQueueBroken as error:
                for _, future in arrived:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (call, future), answer in zip(arrived, answers, strict=True):
                self.waiting[call.pipeline] += not answer.is_known
                if not future.done():
                    future.set_result(answer)
            self.arrived.set()

    async def _do(self, work: Any) -> Any:
        """Run work on the connection in the thread, as one transaction."""

        def act() -> tuple[Any, Counter[str] | None]:
            waiting = None
            if self._connection is None:
                self._connection = _open_queue(self._file)
                with self._connection:
                    waiting = self._counted(self._connection)
            with self._connection:
                return work(self._connection), waiting

        try:
            done, waiting = await asyncio.get_running_loop().run_in_executor(self._thread, act)
        except (sqlite3.Error, OSError, ValueError, TypeError) as error:
            self.fault = f"{self._file}: webhook calls cannot be stored ({one_line(str(error))})."
            if not isinstance(error, OSError) and not _PASSING.search(str(error)):
                self.fault += " Move the file away to go on without the calls that wait in it."
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            raise WebhookQueueBroken(self.fault) from error
        self.fault = ""
        if waiting is not None:
            self.waiting = waiting
        return done

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @staticmethod
    def _counted(db: sqlite3.Connection) -> Counter[str]:
        db.execute("DELETE FROM calls WHERE queued_at < ?", (time.time() - KEPT_S,))
        waiting = "SELECT pipeline, count(*) FROM calls WHERE queued_at IS NULL GROUP BY pipeline"
        rows = db.execute(waiting).fetchall()
        return Counter({key: n for key, n in rows if not key.startswith(DAMAGED)})


_PASSING = re.compile("locked|busy|full|disk I/O|unable to open|readonly")
"""In SQLite's errors: they are of the disk or of another program, not of the file."""


def _open_queue(file: Path) -> sqlite3.Connection:
    files.private_folder(file.parent)
    db = sqlite3.connect(files.private_database(file), timeout=LOCK_S, check_same_thread=False)
    db.text_factory = partial(str, encoding="utf-8", errors="replace")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")  # an answered call survives a power cut
    with db:
        db.execute(_CALLS_TABLE)
        db.execute("CREATE INDEX IF NOT EXISTS waiting ON calls (pipeline, received_at) "
                   "WHERE queued_at IS NULL")  # fmt: skip
    return db


def _insert_calls(db: sqlite3.Connection, calls: Sequence[AcceptedCall]) -> list[CallReceipt]:
    answers = []
    for call in calls:
        row = (call.id, call.pipeline, call.trigger, json.dumps(dict(call.inputs)), time.time())
        added = db.execute(
            "INSERT INTO calls (id, pipeline, trigger, inputs, received_at) "
            "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row
        )  # fmt: skip
        run = None
        if not added.rowcount:
            (run,) = db.execute("SELECT run FROM calls WHERE id = ?", (call.id,)).fetchone()
        answers.append(CallReceipt(not added.rowcount, run))
    return answers


def _oldest_calls(
    db: sqlite3.Connection, pipeline: str, n: int
) -> tuple[list[AcceptedCall], list[str]]:
    """Return calls, and the ids of damaged ones, which are set aside."""
    rows = db.execute(
        "SELECT rowid, id, pipeline, trigger, inputs, received_at FROM calls "
        "WHERE pipeline = ? AND queued_at IS NULL ORDER BY received_at, rowid LIMIT ?",
        (pipeline, n),
    ).fetchall()
    calls, damaged = [], []
    for rowid, id_, key, trigger, inputs, at in rows:
        try:
            datetime.fromtimestamp(at, UTC)
            calls.append(AcceptedCall(id_, key, trigger, _read_inputs(inputs), at))
        except (ValueError, TypeError, OverflowError, OSError):
            damaged.append(str(id_))
            aside = (f"{DAMAGED}{pipeline}", rowid)
            db.execute("UPDATE calls SET pipeline = ? WHERE rowid = ?", aside)
    return calls, damaged


def _read_inputs(text: str) -> Mapping[str, Any]:
    inputs = json.loads(text)
    if not isinstance(inputs, dict) or not text.isascii():  # written with escapes
        raise ValueError("these are no inputs")
    return inputs


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
    told: list[str] = []
    for one in triggered:
        for index, webhook in enumerate(one.webhooks):
            mark = one.pipeline.mark(("on", "webhook", index, "path"))
            place = f"{mark.file}:{mark.line}:{mark.column}: webhook '{webhook.path}'"
            if webhook.path in RESERVED:
                told.append(f"{place} is this service's own path.\n  Choose another one.")
            elif webhook.path in hooks:
                other = hooks[webhook.path].triggered.file
                told.append(f"{place} is taken by {other}.\n  Choose another path.")
            else:
                try:
                    hooks[webhook.path] = ServedWebhook(one, webhook, secret_of(one, webhook))
                except PipelineError as error:
                    told.append(str(error))
    return hooks, told


class Webhooks:
    """Answers calls. `hooks` is replaced whenever files change."""

    def __init__(self, accept: AcceptCall, clock: Callable[[], float] = time.time) -> None:
        self.hooks: Mapping[str, ServedWebhook] = {}
        self._accept = accept
        self._clock = clock
        self._signed: dict[str, tuple[float, str]] = {}
        """Signature → until when it is valid, and the key of its call."""

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
        told = {
            "call": call.id.rpartition(":")[2],
            "pipeline": hook.triggered.pipeline.name,
            "is_known": answer.is_known,
            "run": answer.run,
        }
        return JSONResponse(told, 200 if answer.is_known else 202)

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
            json.dumps(payload, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise _BadCall(400, "the body has half of a surrogate pair in a text.") from None
        except (ValueError, RecursionError):
            raise _BadCall(400, "the body is not JSON.") from None
        inputs = mapped_inputs(hook, payload)
        if len(json.dumps(inputs)) > MOST_INPUT_BYTES:
            raise _BadCall(413, "the inputs that it is mapped to are larger than 508 KiB.")
        key = next((headers[name] for name in _KEYS if headers.get(name)), None)
        if signed is not None:
            key = self._first_key(signed, key)
        digest = hashlib.sha256((key or uuid.uuid4().hex).encode()).hexdigest()[:32]
        pipeline = hook.triggered.key
        trigger = f"webhook {hook.webhook.path}"
        return AcceptedCall(f"{pipeline}:webhook:{digest}", pipeline, trigger, inputs)

    def _first_key(self, signed: str, key: str | None) -> str:
        """Return the key that came first with this signature: the key itself is not signed."""
        now_s = self._clock()
        for old in [one for one, (until_s, _) in self._signed.items() if until_s < now_s]:
            del self._signed[old]
        until_s = now_s + 2 * MOST_APART_S
        return self._signed.setdefault(signed, (until_s, key or signed))[1]


def mapped_inputs(hook: ServedWebhook, payload: Any) -> dict[str, Any]:
    """Return the inputs that a payload fills in.

    Raises:
        PipelineError: an input is missing or wrong, or names a folder elsewhere.
    """
    one, written = hook.triggered, hook.webhook.inputs
    index = one.webhooks.index(hook.webhook)
    at = ("on", "webhook", index, "inputs")
    scope = {"payload": payload, "inputs": {}}
    return one.inputs_from_elsewhere(rendered_value(one.pipeline, written, scope, at))


class _BadCall(Exception):
    def __init__(self, status: int, words: str) -> None:
        self.status = status
        super().__init__(words)


def _refuse_request(request: Request, hook: ServedWebhook) -> None:
    if request.method != "POST":
        raise _BadCall(405, "a webhook is called by POST.")
    if hook.secret is None and not has_own_host_name(request.headers):
        raise _BadCall(403, "there is no secret: use 'localhost' or this machine's address.")
    media_type = request.headers.get("content-type", "").partition(";")[0]
    if media_type.strip().lower() != "application/json":
        raise _BadCall(415, "the body must be JSON: Content-Type: application/json.")


async def _read_body(request: Request) -> bytes:
    """Read the body, bounded in size and time."""
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
