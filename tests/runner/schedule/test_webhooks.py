"""Calls from elsewhere: who is believed, what is refused, what becomes a run."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from paddock.engine.settings import PoolSettings
from paddock.engine.system import socket_owners
from paddock.runner.schedule.reconciler import Reconciler
from paddock.runner.schedule.triggered_pipeline import TriggeredPipeline, read_triggered_pipeline
from paddock.runner.schedule.up_status import StatusAccess, make_status_app
from paddock.runner.schedule.webhook_queue import (
    AcceptedCall,
    CallReceipt,
    WebhookQueue,
    WebhookQueueBroken,
)
from paddock.runner.schedule.webhook_runs import MOST_TOGETHER, WebhookRuns, calls_together
from paddock.runner.schedule.webhook_signatures import OWN_HEADER
from paddock.runner.schedule.webhooks import (
    MOST_BODY_BYTES,
    MOST_INPUT_BYTES,
    WebhookQueueFull,
    Webhooks,
    webhook_table,
)
from paddock.runner.settings import Settings
from tests.runner.schedule.signed_calls import sign_body

NOW = 1_000_000
# With a port: a request that names none comes by no connection whose owner could be asked for.
OWN_URL = "http://localhost:4720"
PIPELINE = """\
name: digest
on:
  webhook:
    - path: /digest
      secret: hush
      inputs: {folder: "{{ payload.folder }}", tone: "{{ payload.tone | default('plain') }}"}
    - {path: /open}
inputs: {folder: {type: dir, required: true}, tone: {values: [plain, warm], default: plain}}
steps: [{id: docs, uses: files.scan, with: {root: "{{ inputs.folder }}"}}]
"""


class WebhookServer:
    """The address with one pipeline's webhooks."""

    def __init__(self, folder: Path, text: str = PIPELINE) -> None:
        self.queue = WebhookQueue(folder / "state")
        self.is_full = False
        made = read_triggered_pipeline(
            folder / "digest.yaml", text, Settings(PoolSettings(), folder)
        )
        assert made is not None
        self.triggered: TriggeredPipeline = made
        self.webhooks = Webhooks(self.accept, clock=lambda: NOW)
        self.webhooks.hooks, self.faults = webhook_table([made], lambda pipeline, hook: hook.secret)
        self.app = make_status_app(
            lambda: {"prefect": True}, lambda: {"pid": 1}, self.webhooks.answer
        )

    async def accept(self, call: AcceptedCall) -> CallReceipt:
        if self.is_full:
            raise WebhookQueueFull("too many calls of this pipeline wait already.")
        return await self.queue.put(replace(call, pipeline="digest"))

    @property
    def calls(self) -> list[AcceptedCall]:
        return asyncio.run(self.queue.oldest("digest", 100))

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", path, body, {"content-type": "application/json", **named})

    def post_signed(self, body: bytes, *, now_s: int = NOW, **headers: str) -> tuple[int, Any]:
        return self.post("/digest", body, **signed(body, now_s), **headers)

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        answer = self.answer(method, path, body, headers)
        return answer.status_code, answer.json()

    def answer(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        async def main() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url=OWN_URL) as here:
                return await here.request(method, path, content=body, headers=headers)

        return asyncio.run(main())

    def read_by(self, reader: StatusAccess) -> WebhookServer:
        """Allow only some addresses to read the status."""
        self.app = make_status_app(lambda: {}, lambda: {"pid": 1}, self.webhooks.answer, reader)
        return self


@pytest.fixture
def webhook_server(tmp_path: Path) -> Iterator[WebhookServer]:
    (tmp_path / "inbox").mkdir()
    server = WebhookServer(tmp_path)
    yield server
    asyncio.run(server.queue.close())


def signed(body: bytes, now_s: int = NOW) -> dict[str, str]:
    return {OWN_HEADER: sign_body("hush", body, now_s)}


def body_of(**payload: Any) -> bytes:
    return json.dumps(payload).encode()


def test_a_call_becomes_a_run_with_inputs_from_its_payload(
    webhook_server: WebhookServer, tmp_path: Path
) -> None:
    status, answer = webhook_server.post_signed(body_of(folder="inbox"))
    assert (status, answer["pipeline"], answer["is_known"]) == (202, "digest", False)
    (call,) = webhook_server.calls
    assert call.id == f"{webhook_server.triggered.key}:webhook:{answer['call']}"
    assert call.trigger == "webhook /digest"
    assert call.inputs == {"folder": str(tmp_path / "inbox"), "tone": "plain"}


def test_the_same_call_twice_is_one_run(webhook_server: WebhookServer) -> None:
    body, other = body_of(folder="inbox"), body_of(folder="inbox", tone="warm")
    assert webhook_server.post_signed(body)[0] == 202
    assert webhook_server.post_signed(body)[0] == 200  # sent again by someone else
    for _ in range(2):
        webhook_server.post_signed(other, x_idempotency_key="42")
    assert len(webhook_server.calls) == 2


@pytest.mark.parametrize("key", ["", "1"])
def test_a_call_that_was_recorded_starts_nothing_however_it_is_sent_again(
    webhook_server: WebhookServer, key: str, tmp_path: Path
) -> None:
    body = body_of(folder="inbox")
    given: Any = {"x_idempotency_key": key} if key else {}
    assert webhook_server.post_signed(body, **given)[0] == 202
    at, mac = signed(body)[OWN_HEADER].split(",")
    for written in (f"{at},{mac}", f"{mac}, {at}", f"{at},{mac},x=1"):
        for headers in ({}, {"x_idempotency_key": "2"}, {"idempotency_key": "3"}):
            seen, _ = webhook_server.post("/digest", body, **{OWN_HEADER: written}, **headers)
            assert seen == 200
    assert len(webhook_server.calls) == 1
    again = WebhookServer(tmp_path)  # `up` starts again
    assert again.post_signed(body, x_idempotency_key="4")[0] == 200
    assert len(again.calls) == 1
    asyncio.run(again.queue.close())


@pytest.mark.parametrize(
    ("payload", "status", "words"),
    [
        ({"folder": "../.."}, 422, "input 'folder' leads outside the pipeline's folder."),
        ({"folder": "/etc"}, 422, "input 'folder' leads outside the pipeline's folder."),
        ({"folder": 5}, 422, "input 'folder' must be a path, not '5'."),
        ({"folder": "inbox", "tone": "sour"}, 422, "input 'tone' cannot be 'sour'."),
        ({}, 422, "`on.webhook.0.inputs.folder`: 'payload' has no 'folder'."),
    ],
)
def test_inputs_that_a_pipeline_does_not_take_are_refused(
    webhook_server: WebhookServer, payload: Any, status: int, words: str
) -> None:
    seen, answer = webhook_server.post_signed(body_of(**payload))
    assert (seen, webhook_server.calls) == (status, [])
    assert answer["error"].startswith(words.split("'payload'")[0])


def test_what_is_no_call_is_refused_before_anything_is_done(
    webhook_server: WebhookServer, caller: Callable[[int | None], None]
) -> None:
    good = body_of(folder="inbox")
    assert webhook_server.post("/digest", good)[0] == 401
    assert webhook_server.post_signed(good, now_s=NOW - 3_000)[0] == 401
    assert webhook_server.post_signed(b"{")[0] == 400
    assert webhook_server.post_signed(b"[" * 100_000)[0] == 400
    for number in (b"NaN", b"-Infinity", b"1e999"):
        body = b'{"folder": "inbox", "tone": [%b]}' % number
        assert webhook_server.post_signed(body) == (400, {"error": "the body is not JSON."})
    for large in (b" " * (MOST_BODY_BYTES + 1), body_of(folder="inbox", tone="x" * 600_000)):
        assert webhook_server.post_signed(large)[0] == 413
    half = {"error": "the body has half of a surrogate pair in a text."}
    assert webhook_server.post_signed(b'{"folder": "inbox", "tone": "\\ud83d"}') == (400, half)
    assert webhook_server.ask("GET", "/digest")[0] == 405
    assert webhook_server.ask("POST", "/digest", good)[0] == 415
    assert webhook_server.post("/elsewhere", good)[0] == 404
    of_another_name = webhook_server.post("/open", good, host="evil.example")
    assert of_another_name[0] == 403
    assert webhook_server.calls == []
    spelled = {"content-type": "Application/JSON; charset=utf-8"}
    assert webhook_server.ask("POST", "/open", good, spelled)[0] == 422  # only the input is missing
    for owner in (os.getuid() + 1, None):
        caller(owner)
        assert webhook_server.post("/open", good) == (403, {"error": (
            "there is no secret, so only the user that runs `paddock up` may call this webhook. "
            "Others may, once it has a `secret`."
        )})  # fmt: skip


def test_when_the_queue_is_full_the_caller_is_asked_to_come_again(
    webhook_server: WebhookServer,
) -> None:
    webhook_server.is_full = True
    full = {"error": "too many calls of this pipeline wait already."}
    assert webhook_server.post_signed(body_of(folder="inbox")) == (429, full)


@pytest.fixture
def caller(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Return what sets whose connection requests come by: these have none of their own."""

    def set_owner(owner: int | None) -> None:
        monkeypatch.setattr(socket_owners, "client_owner", lambda client, server: owner)

    set_owner(os.getuid())
    return set_owner


@pytest.mark.usefixtures("caller")
def test_health_and_status_are_told_and_no_page_of_another_name_reads_them(
    webhook_server: WebhookServer,
) -> None:
    assert webhook_server.ask("GET", "/healthz") == (200, {"ok": True})
    assert webhook_server.ask("GET", "/readyz") == (200, {"ready": True, "prefect": True})
    assert webhook_server.ask("GET", "/status") == (200, {"pid": 1})
    assert webhook_server.ask("GET", "/status", headers={"host": "evil.example"})[0] == 403


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text("open-sesame\n")
    return file


def test_the_status_is_for_its_own_user_and_for_those_with_a_key(
    webhook_server: WebhookServer, keys: Path, caller: Callable[[int | None], None]
) -> None:
    def status_for(reader: StatusAccess, **headers: str) -> int:
        return webhook_server.read_by(reader).ask("GET", "/status", headers=headers)[0]

    everyone, key = StatusAccess(is_open=True, keys=keys), {"authorization": "Bearer open-sesame"}
    assert status_for(StatusAccess(is_open=True)) == 403
    assert status_for(everyone) == 401
    assert status_for(everyone, **{"x-api-key": "open-says-me"}) == 401
    assert status_for(everyone, **key) == 200
    assert status_for(StatusAccess(is_open=False, keys=keys)) == 200
    for owner in (os.getuid() + 1, None):
        caller(owner)
        assert status_for(StatusAccess()) == 403
        assert status_for(StatusAccess(keys=keys)) == 401
        assert status_for(StatusAccess(keys=keys), **key) == 200


def test_browsers_of_people_who_may_read_the_status_are_sent_to_the_console(
    webhook_server: WebhookServer, keys: Path, caller: Callable[[int | None], None]
) -> None:
    def seen(reader: StatusAccess, **headers: str) -> httpx.Response:
        asks = {"accept": "text/html,*/*", **headers}
        return webhook_server.read_by(reader).answer("GET", "/status", headers=asks)

    for reader in (StatusAccess(), StatusAccess(is_open=True, keys=keys)):
        answer = seen(reader)
        assert (answer.status_code, answer.headers["location"]) == (307, "/ui")
    assert seen(StatusAccess(), host="evil.example").status_code == 403
    caller(os.getuid() + 1)
    assert seen(StatusAccess()).status_code == 403
    assert seen(StatusAccess(), accept="application/json").status_code == 403


def calls_of(*numbers: int, trigger: str = "webhook /x", size: int = 0) -> list[AcceptedCall]:
    return [AcceptedCall(f"k{n}", "p", trigger, {"n": n, "s": "x" * size}) for n in numbers]


def test_calls_of_one_trigger_and_group_are_one_run_in_their_order() -> None:
    def numbers(calls: list[AcceptedCall], n_groups: int = 1) -> list[list[int]]:
        found = calls_together(calls, lambda call: str(call.inputs["n"] % n_groups))
        return [[call.inputs["n"] for call in some] for some in found]

    assert numbers(calls_of(*range(5))) == [[0, 1, 2, 3, 4]]
    assert numbers(calls_of(*range(5)), n_groups=2) == [[0, 2, 4], [1, 3]]
    two = [*calls_of(1), *calls_of(2, trigger="webhook /y"), *calls_of(3)]
    assert numbers(two) == [[1, 3], [2]]
    assert numbers(calls_of(*range(MOST_TOGETHER + 1))) == [list(range(MOST_TOGETHER))]
    # Prefect takes a bounded size, and a small one never overtakes a large one.
    large = [*calls_of(0, 1, 2, size=MOST_INPUT_BYTES // 3), *calls_of(3)]
    assert numbers(large) == [[0]]


async def test_a_thousand_calls_at_once_are_all_on_the_disk_and_none_twice(tmp_path: Path) -> None:
    queue = WebhookQueue(tmp_path)
    await queue.open()
    calls = [AcceptedCall(f"k{n}", "p", "webhook /x", {"n": n}) for n in range(1_000)]
    receipts = await asyncio.gather(*(queue.put(call) for call in [*calls, *calls[:100]]))
    assert sum(receipt.is_known for receipt in receipts) == 100
    (first, *_) = await queue.oldest("p", 5)
    await queue.queued([first], "flow-run")
    assert (await queue.put(first)).run == "flow-run"
    await queue.close()
    again = WebhookQueue(tmp_path)
    await again.open()
    assert again.waiting == {"p": 999}
    assert again.arrived.is_set()
    left = await again.oldest("p", 2_000)
    assert sorted(call.inputs["n"] for call in left) == list(range(1, 1_000))
    await again.close()
    assert (tmp_path / "webhooks.sqlite").stat().st_mode & 0o077 == 0


async def stored(folder: Path, n: int) -> Path:
    """Store calls; return the table's file."""
    queue = WebhookQueue(folder)
    await queue.open()
    await asyncio.gather(
        *(queue.put(AcceptedCall(f"k{k}", "p", "webhook /x", {"name": k})) for k in range(n))
    )
    await queue.close()
    return folder / "webhooks.sqlite"


@pytest.mark.parametrize(
    "change",
    ["inputs = '{\"name\": 1'", "inputs = '[1]'", "inputs = cast(x'7bff7d' as text)",
     "received_at = 'soon'", "received_at = 1e300"],
)  # fmt: skip
async def test_a_damaged_call_is_reported_and_kept_and_the_others_become_runs(
    tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = await stored(tmp_path, 3)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(f"UPDATE calls SET {change} WHERE id = 'k1'")
    queue = WebhookQueue(tmp_path)
    await queue.open()
    assert {call.id for call in await queue.oldest("p", 10)} == {"k0", "k2"}
    assert queue.waiting == {"p": 2}
    assert caplog.messages == [
        f"{file}: the webhook call 'k1' of p is damaged and becomes no run; its row stays there, "
        "as one of 'damaged: p'."
    ]
    await queue.close()
    again = WebhookQueue(tmp_path)
    await again.open()
    assert again.waiting == {"p": 2}
    await again.close()
    with closing(sqlite3.connect(file)) as db:
        rows = db.execute("SELECT id FROM calls WHERE pipeline = 'damaged: p'").fetchall()
    assert rows == [("k1",)]


async def test_a_file_that_is_no_table_of_calls_is_a_sentence_with_its_remedy(
    tmp_path: Path,
) -> None:
    file = tmp_path / "webhooks.sqlite"
    file.write_text("This is no database. " * 500)
    queue = WebhookQueue(tmp_path)
    await queue.open()
    assert queue.fault == (
        f"{file}: webhook calls cannot be stored (file is not a database). Move the file away to "
        "go on without the calls that wait in it."
    )
    await queue.close()


async def test_any_damage_to_the_stored_calls_is_a_sentence_or_read(tmp_path: Path) -> None:
    original = (await stored(tmp_path / "whole", 40)).read_bytes()
    chance, n_broken = random.Random(24), 0
    rows = [found.start() for found in re.finditer(b"webhook /x", original)]
    for number in range(120):
        data = bytearray(original)
        if number % 6 == 0:
            del data[chance.randrange(len(data)) :]
        for _ in range(chance.choice((1, 3, 30)) if data else 0):
            # Every other file in what says the types of a row's values, where most damage is seen.
            near = chance.choice(rows) - chance.randrange(24)
            at = near if number % 2 else chance.randrange(len(data))
            data[min(at, len(data) - 1)] ^= 1 << chance.randrange(8)
        folder = tmp_path / str(number)
        folder.mkdir()
        file = folder / "webhooks.sqlite"
        file.write_bytes(data)
        queue = WebhookQueue(folder)
        await queue.open()
        try:
            found = await queue.oldest("p", 100)
            assert all(isinstance(call.id, str) for call in found)
            await queue.queued(found[:1], "run")
            await queue.put(AcceptedCall("new", "p", "webhook /x", {}))
        except WebhookQueueBroken as error:
            n_broken += 1
            assert str(error).startswith(f"{file}: webhook calls cannot be stored (")
            assert "\n" not in str(error)
            for left in folder.iterdir():
                left.unlink()
            assert not (await queue.put(AcceptedCall("new", "p", "webhook /x", {}))).is_known
            assert (queue.fault, queue.waiting) == ("", {"p": 1})
        await queue.close()
    assert 0 < n_broken < 120


def test_calls_are_taken_before_prefect_has_the_pipeline(
    webhook_server: WebhookServer, tmp_path: Path
) -> None:
    nothing: Any = None
    manager: Any = SimpleNamespace(deployments={}, is_stopping=False, folder=tmp_path)
    runs = WebhookRuns(manager, webhook_server.queue)
    posting = Reconciler(nothing, manager, nothing, nothing, runs, is_open=False)
    webhook_server.app = make_status_app(lambda: {}, lambda: {}, posting.hooks.answer)
    body = body_of(folder="inbox")
    fresh = {OWN_HEADER: sign_body("hush", body, int(time.time()))}
    assert webhook_server.post("/digest", body, **fresh)[0] == 404
    posting.serve_hooks([webhook_server.triggered])
    assert webhook_server.post("/digest", body, **fresh)[0] == 202
    assert webhook_server.queue.waiting == {webhook_server.triggered.key: 1}
    together: Any = SimpleNamespace(order={"trigger": "webhook /digest", "calls": [{}] * 200})
    alone: Any = SimpleNamespace(order={"trigger": "webhook /digest"})
    other: Any = SimpleNamespace(order={"trigger": "schedule"})
    job: Any = SimpleNamespace(tracked=alone, running=SimpleNamespace(waits_for=None))
    manager.queue, manager.jobs = [together, other], {"a": job}
    manager.deployments = {"d": SimpleNamespace(triggered=webhook_server.triggered)}
    assert runs.call_counts() == {"calls_waiting": 201, "calls_running": 1}, "taken or not"
    manager.is_stopping = True
    assert webhook_server.post("/digest", body, **fresh)[0] == 429


def test_a_call_that_cannot_be_written_down_is_not_accepted(
    webhook_server: WebhookServer, tmp_path: Path
) -> None:
    body = body_of(folder="inbox")
    state = tmp_path / "state"
    state.write_text("a file where the folder should be")
    status, answer = webhook_server.post_signed(body)
    assert (status, answer) == (503, {"error": "calls cannot be stored at the moment."})
    assert "webhook calls cannot be stored" in webhook_server.queue.fault
    state.unlink()
    assert webhook_server.post_signed(body)[0] in (200, 202)

    assert webhook_server.queue.fault == ""


def test_a_path_that_is_taken_is_told(webhook_server: WebhookServer) -> None:
    hooks, faults = webhook_table(
        [webhook_server.triggered, webhook_server.triggered], lambda pipeline, hook: None
    )
    assert set(hooks) == {"/digest", "/open"}
    file = webhook_server.triggered.file
    assert faults == [
        f"{file}:4:13: webhook '/digest' is taken by {file}.\n  Choose another path.",
        f"{file}:7:14: webhook '/open' is taken by {file}.\n  Choose another path.",
    ]


def test_a_path_of_the_service_itself_is_told(tmp_path: Path) -> None:
    webhook_server = WebhookServer(tmp_path, PIPELINE.replace("/open", "/status"))
    assert webhook_server.faults == [
        f"{tmp_path / 'digest.yaml'}:7:14: webhook '/status' is this service's own path.\n"
        "  Choose another one."
    ]
