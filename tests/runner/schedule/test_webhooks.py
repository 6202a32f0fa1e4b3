"""Calls from elsewhere: which are valid, what is refused, what becomes an order."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from paddock.engine.settings import PoolSettings
from paddock.engine.system.records import replace
from paddock.runner.schedule import webhook_trigger
from paddock.runner.schedule.order_queue import OrderQueue, QueueBroken
from paddock.runner.schedule.pipeline_triggers import triggers_of
from paddock.runner.schedule.trigger_keeper import TriggerKeeper
from paddock.runner.schedule.triggered_pipeline import TriggeredPipeline, read_triggered_pipeline
from paddock.runner.schedule.up_status import make_status_app
from paddock.runner.schedule.webhook_signatures import OWN_HEADER
from paddock.runner.schedule.webhook_trigger import MOST_BODY_BYTES
from paddock.runner.settings import Settings
from paddock.runner.workers.order import FROM_PREFECT, Order
from tests.runner.schedule.signed_calls import sign_body

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


def read(file: Path, text: str = PIPELINE) -> TriggeredPipeline:
    made = read_triggered_pipeline(file, text, Settings(PoolSettings(), file.parent))
    assert made is not None
    return made


class Address:
    """The address of `paddock up`, with the webhooks of some pipelines."""

    def __init__(self, folder: Path, *triggered: TriggeredPipeline) -> None:
        self._first = triggered
        """Those that it is to have before the first call."""
        self.queue = OrderQueue(folder / "state")
        self.why_missing = ""
        self._is_open = False
        self._served: set[str] = set()
        nothing: Any = None
        self.keeper = TriggerKeeper(
            self.queue,
            nothing,
            lambda pipeline: triggers_of(replace(pipeline, is_open=self._is_open)),
            lambda: self.why_missing,
        )
        self.app = make_status_app(lambda: {}, lambda: {}, self.keeper.answer)

    async def put(self, triggered: TriggeredPipeline, *, is_open: bool = False) -> None:
        """Run the triggers of a pipeline."""
        await self.put_first()
        self._is_open = is_open
        self._served.add(triggered.key)
        with suppress(QueueBroken):
            await self.queue.serve(self._served)
        await self.keeper.put(triggered)

    async def put_first(self) -> None:
        first, self._first = self._first, ()
        for triggered in first:
            await self.put(triggered)

    @property
    def orders(self) -> list[Order]:
        return [*self.queue.orders.values()]

    async def post(self, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.ask("POST", path, body, {"content-type": "application/json", **named})

    async def post_signed(self, body: bytes, *, ago_s: int = 0, **headers: str) -> tuple[int, Any]:
        return await self.post("/digest", body, **signed(body, ago_s), **headers)

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        await self.put_first()
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url=OWN_URL) as here:
            answer = await here.request(method, path, content=body, headers=headers)
        return answer.status_code, answer.json() if answer.content else None


@pytest.fixture
def address(tmp_path: Path) -> Iterator[Address]:
    (tmp_path / "inbox").mkdir()
    made = Address(tmp_path, read(tmp_path / "digest.yaml"))
    yield made
    asyncio.run(made.queue.close())


def signed(body: bytes, ago_s: int = 0) -> dict[str, str]:
    return {OWN_HEADER: sign_body("hush", body, int(time.time()) - ago_s)}


def body_of(**payload: Any) -> bytes:
    return json.dumps(payload).encode()


GOOD = body_of(folder="inbox")


async def test_a_call_becomes_an_order_with_inputs_from_its_payload(
    address: Address, tmp_path: Path
) -> None:
    status, answer = await address.post_signed(GOOD)
    (order,) = address.orders
    expected = {"order": order.id, "pipeline": "digest", "is_known": False, "end": None}
    assert (status, answer) == (202, expected)
    assert order.pipeline == str(tmp_path / "digest.yaml")
    assert (order.trigger, order.is_promised, order.state) == ("webhook /digest", True, "waiting")
    assert order.inputs == {"folder": str(tmp_path / "inbox"), "tone": "plain"}


async def test_the_same_call_again_is_the_same_order_and_tells_its_end(address: Address) -> None:
    head = signed(GOOD)
    first = (await address.post("/digest", GOOD, **head))[1]["order"]
    for end in (None, "completed"):
        status, answer = await address.post("/digest", GOOD, **head)  # sent again by someone else
        assert (status, answer["order"], answer["end"]) == (200, first, end)
        if end is None:
            address.queue.note(first, state="ended", end="completed", ended_at=time.time())
    other = body_of(folder="inbox", tone="warm")
    for _ in range(2):
        await address.post_signed(other, x_idempotency_key="42")
    assert len(address.orders) == 1


@pytest.mark.parametrize("key", ["", "1"])
async def test_a_call_that_was_recorded_starts_nothing_however_it_is_sent_again(
    address: Address, key: str, tmp_path: Path
) -> None:
    head = signed(GOOD)
    given: Any = {"x_idempotency_key": key} if key else {}
    assert (await address.post("/digest", GOOD, **head, **given))[0] == 202
    at, mac = head[OWN_HEADER].split(",")
    for written in (f"{at},{mac}", f"{mac}, {at}", f"{at},{mac},x=1"):
        for named in ({}, {"x_idempotency_key": "2"}, {"idempotency_key": "3"}):
            assert (await address.post("/digest", GOOD, **{OWN_HEADER: written}, **named))[0] == 200
    assert len(address.orders) == 1
    again = Address(tmp_path, read(tmp_path / "digest.yaml"))  # `up` starts again
    assert (await again.post("/digest", GOOD, **head, x_idempotency_key="4"))[0] == 200
    assert len(again.orders) == 1
    await again.queue.close()


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"folder": "../.."}, "input 'folder' leads outside the pipeline's folder."),
        ({"folder": "/etc"}, "input 'folder' leads outside the pipeline's folder."),
        ({"folder": 5}, "input 'folder' must be a path, not '5'."),
        ({"folder": "inbox", "tone": "sour"}, "input 'tone' cannot be 'sour'."),
        ({}, "`on.webhook.0.inputs.folder`: "),
    ],
)
async def test_inputs_that_a_pipeline_does_not_take_are_refused(
    address: Address, payload: Any, words: str
) -> None:
    status, answer = await address.post_signed(body_of(**payload))
    assert (status, address.orders) == (422, [])
    assert answer["error"].startswith(words)


NO_JSON = "the body is not JSON."
TOO_LARGE = "the body is larger than 512 KiB."
PLAIN = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "words"),
    [
        ("POST", "/digest", GOOD, PLAIN, 401,
         "the call is not signed: X-Hub-Signature-256 or X-Paddock-Signature is missing."),
        ("POST", "/digest", b"{", {}, 400, NO_JSON),
        ("POST", "/digest", b"[" * 100_000, {}, 400, NO_JSON),
        ("POST", "/digest", b'{"folder": "inbox", "tone": [NaN]}', {}, 400, NO_JSON),
        ("POST", "/digest", b'{"folder": "inbox", "tone": [-Infinity]}', {}, 400, NO_JSON),
        ("POST", "/digest", b'{"folder": "inbox", "tone": [1e999]}', {}, 400, NO_JSON),
        ("POST", "/digest", b'{"folder": "inbox", "tone": "\\ud83d"}', {}, 400,
         "the body has half of a surrogate pair in a text."),
        ("POST", "/digest", b" " * (MOST_BODY_BYTES + 1), {}, 413, TOO_LARGE),
        ("POST", "/digest", body_of(folder="inbox", tone="x" * 600_000), {}, 413, TOO_LARGE),
        ("GET", "/digest", b"", {}, 405, "a webhook is called by POST."),
        ("POST", "/digest", GOOD, {"content-type": "text/plain"}, 415,
         "the body must be JSON: Content-Type: application/json."),
        ("POST", "/open", GOOD, PLAIN | {"host": "evil.example"}, 403,
         "there is no secret: use 'localhost' or this machine's address."),
    ],
    ids=range(12),
)  # fmt: skip
async def test_a_call_that_is_not_valid_is_refused_before_anything_is_done(
    address: Address, method: str, path: str, body: bytes, headers: Any, status: int, words: str
) -> None:
    headers = headers or {"content-type": "application/json", **signed(body)}
    assert await address.ask(method, path, body, headers) == (status, {"error": words})
    assert address.orders == []


async def test_without_a_secret_only_the_own_user_may_call(
    address: Address, caller: Callable[[int | None], None]
) -> None:
    spelled = {"content-type": "Application/JSON; charset=utf-8"}
    answer = await address.ask("POST", "/open", GOOD, spelled)
    assert answer[0] == 422, "only the input is missing"
    for owner in (os.getuid() + 1, None):
        caller(owner)
        assert await address.post("/open", GOOD) == (403, {"error": (
            "there is no secret, so only the user that runs `paddock up` may call this webhook. "
            "Others may, once it has a `secret`."
        )})  # fmt: skip


async def test_when_too_many_orders_wait_the_caller_is_asked_to_come_again(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_trigger, "MOST_WAITING", 2)
    for tone in ("plain", "warm"):
        assert (await address.post_signed(body_of(folder="inbox", tone=tone)))[0] == 202
    full = {"error": "too many calls of this pipeline wait already."}
    assert await address.post_signed(GOOD) == (429, full)
    address.queue.note(address.orders[0].id, state="running")
    assert (await address.post_signed(GOOD))[0] == 202


async def test_a_path_that_is_taken_is_told_once_and_served_when_it_is_free(
    address: Address,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(webhook_trigger, "PATH_RETRY_S", 0.01)
    other = tmp_path / "other.yaml"
    await address.put(read(other, PIPELINE.replace("/open", "/status")))
    expected = [
        f"{other}:4:13: webhook '/digest' is taken by {tmp_path / 'digest.yaml'}.\n"
        "  Choose another path.",
        f"{other}:7:14: webhook '/status' is this service's own path.\n  Choose another one.",
    ]
    await asyncio.sleep(0.05)
    await address.keeper.drop(str(tmp_path / "digest.yaml"))
    address.why_missing = "it is tried again"

    async def is_served() -> bool:
        status, answer = await address.post_signed(body_of(folder="inbox"))
        return bool(status == 202 and address.queue.orders[answer["order"]].pipeline == str(other))

    for _ in range(400):
        if await is_served():
            break
        await asyncio.sleep(0.05)
    assert caplog.messages == expected


async def test_a_call_is_mapped_as_the_file_says_now(address: Address, tmp_path: Path) -> None:
    file = tmp_path / "digest.yaml"
    changed = read(file, PIPELINE.replace("default('plain')", "default('warm')"))
    await address.put(changed)
    assert (await address.post_signed(GOOD))[0] == 202
    assert address.orders[0].inputs["tone"] == "warm"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"trigger": FROM_PREFECT}, ""),
        ({"trigger": "webhook /gone"}, "its webhook /gone is no more."),
        ({"inputs": {}}, "input 'folder' has no value."),
        ({"inputs": {"folder": "inbox", "tone": "sour"}}, "input 'tone' cannot be 'sour'."),
        ({"inputs": {"folder": "/etc"}}, "input 'folder' leads outside the pipeline's folder."),
        ({"inputs": {"folder": "/etc"}, "is_promised": False}, ""),
    ],
)
def test_an_order_that_its_pipeline_no_longer_takes_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    triggered = read(tmp_path / "digest.yaml")
    order = Order(
        "id", "key", triggered.key, "webhook /digest", {"folder": "inbox"}, is_promised=True
    )
    refusal = triggered.refusal(replace(order, **changes), ["webhook /digest"])
    assert refusal.startswith(words) and bool(refusal) == bool(words)


async def test_a_call_waits_for_a_webhook_whose_secret_is_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inbox").mkdir()
    monkeypatch.delenv("HOOK", raising=False)
    text = PIPELINE.replace("hush", '"{{ secrets.hook }}"') + "secrets: {hook: {env: HOOK}}\n"
    address, file = Address(tmp_path), tmp_path / "digest.yaml"
    allowed = Settings(PoolSettings(), tmp_path, allow=frozenset({"secrets"}))
    triggered = read_triggered_pipeline(file, text, allowed)
    assert triggered is not None
    await address.put(triggered)
    assert (await address.post_signed(GOOD))[0] == 503
    monkeypatch.setenv("HOOK", "hush")
    await address.put(triggered)
    assert (await address.post_signed(GOOD))[0] == 202
    await address.keeper.stop()
    await address.queue.close()


async def test_a_webhook_answers_as_soon_as_its_pipeline_is_served_also_with_a_full_disk(
    tmp_path: Path,
) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "state").write_text("a file where the folder should be")
    address, triggered = Address(tmp_path), read(tmp_path / "digest.yaml")
    address.why_missing = "`paddock up` is starting."  # 404 would tell its sender: it never comes
    assert await address.post_signed(GOOD) == (503, {"error": address.why_missing})
    address.why_missing = ""
    assert (await address.post_signed(GOOD))[0] == 404
    await address.put(triggered)
    refused = {"error": "calls cannot be stored at the moment."}
    assert await address.post_signed(GOOD) == (503, refused)
    assert "orders cannot be stored" in address.queue.fault
    (tmp_path / "state").unlink()
    assert (await address.post_signed(GOOD))[0] == 202
    assert address.queue.fault == ""
    await address.put(read(tmp_path / "digest.yaml", PIPELINE.replace("hush", "hush!")))
    assert (await address.post_signed(GOOD))[0] == 401
    await address.keeper.drop(triggered.key)
    assert (await address.post_signed(GOOD))[0] == 404
    await address.keeper.stop()
    await address.queue.close()
