"""Whatever is sent, an answer comes that clients can read, and the service lives on.

Bounded: some hundred requests for each endpoint, in less than a minute.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import NoneType
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from tests.conformance import fuzz_routes
from tests.live import Live

CHAT, VECTORS = "smollm2:135m", "all-minilm"

PATHS = (
    "/api/generate", "/api/chat", "/api/embed", "/api/embeddings", "/api/show", "/api/create",
    "/api/copy", "/api/delete", "/api/push",
)  # fmt: skip

ODD_TEXTS = ["", "../x", "LONG", "\x00", "🦙", "\ud800"]
TEXTS = (some.text(max_size=20) | some.sampled_from(ODD_TEXTS)).map(
    lambda text: "a" * 10_000 if text == "LONG" else text
)
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | TEXTS,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
NAMES = some.sampled_from([CHAT, VECTORS, "nobody", "Nobody:v1"]) | TEXTS
# Within what would take long: short answers, small contexts.
OPTIONS = some.fixed_dictionaries(
    {"num_predict": some.just(1)},
    optional={name: VALUES for name in ("seed", "top_k", "temperature", "stop", "num_ctx", "x")},
)
TURN = some.dictionaries(
    some.sampled_from(["role", "content", "images", "tool_calls", "thinking"]), VALUES | TEXTS
)
ODD = {
    "model": NAMES | VALUES, "name": NAMES, "prompt": TEXTS | VALUES, "input": TEXTS | VALUES,
    "messages": some.lists(TURN, max_size=3) | VALUES, "images": VALUES, "format": VALUES,
    "think": VALUES, "suffix": TEXTS, "raw": VALUES, "system": TEXTS | VALUES,
    "template": TEXTS | VALUES, "context": some.lists(some.integers()) | VALUES, "tools": VALUES,
    "keep_alive": VALUES, "truncate": VALUES, "shift": VALUES, "dimensions": VALUES,
    "source": NAMES, "destination": TEXTS, "files": VALUES, "adapters": VALUES,
    "parameters": VALUES, "license": VALUES, "quantize": VALUES, "verbose": VALUES,
    "logprobs": VALUES, "top_logprobs": VALUES, "options": OPTIONS | VALUES,
    "stream": some.booleans() | VALUES,
}  # fmt: skip
GOOD: dict[str, Any] = {
    "model": CHAT, "prompt": "Hi", "messages": [{"role": "user", "content": "Hi"}], "input": "Hi",
    "options": {"num_predict": 1, "num_ctx": 128}, "source": VECTORS, "destination": "twin",
    "from": VECTORS,
}  # fmt: skip
# What is wrong everywhere is refused at the first fault; few faults at a time reach further in.
BODIES = some.sets(some.sampled_from(sorted(ODD)), max_size=3).flatmap(
    lambda names: some.fixed_dictionaries({name: ODD[name] for name in names})
)


def is_readable(answer: httpx.Response) -> bool:
    """Return whether every client can read it: JSON, lines of JSON, or nothing."""
    for line in answer.content.splitlines():
        json.loads(line)
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        assert set(answer.json()) == {"error"}
        assert isinstance(answer.json()["error"], str)
    assert b"Traceback" not in answer.content
    assert b"internal server error" not in answer.content, "nobody foresaw this"
    return True


def whole(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return a request with some odd members, whose answer is short all the same."""
    told = {**GOOD, **body}
    if isinstance(told["options"], dict | NoneType):  # anything else is refused
        told["options"] = {**(told["options"] or {}), "num_predict": 1}
    if path.startswith("/api/embed") and "model" not in body:
        told["model"] = VECTORS
    if path == "/api/create" and told["model"] in (CHAT, VECTORS):
        told["model"] = "made"  # the others are still needed
    return told


@pytest.mark.parametrize("path", PATHS)
def test_any_body_gets_an_answer_that_can_be_read(client: httpx.Client, path: str) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(BODIES)
    def fuzz(body: dict[str, Any]) -> None:
        answer = client.post(path, content=json.dumps(whole(path, body)))
        assert answer.status_code < 600
        assert is_readable(answer)

    fuzz()


@pytest.mark.parametrize("path", [*PATHS, "/api/pull", "/api/blobs/sha256:0", "/api/version"])
def test_any_bytes_get_an_answer_that_can_be_read(client: httpx.Client, path: str) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(some.binary(max_size=300))
    def fuzz(body: bytes) -> None:
        answer = client.post(path, content=body)
        assert 400 <= answer.status_code < 500
        if path != "/api/version":
            assert is_readable(answer)

    fuzz()


def test_the_service_and_its_workers_live_on(live: Live, client: httpx.Client) -> None:
    assert live.n_deaths() == 0
    assert live.n_users_within(15) == 0
    body = {"model": CHAT, "prompt": "Hi", "stream": False, "options": {"num_predict": 2}}
    assert client.post("/api/generate", json=body).json()["done"]


def test_every_route_answers_odd_requests_within_its_own_words(live: Live, tmp_path: Path) -> None:
    # The same for minutes: `python -m tests.conformance.fuzz_routes --minutes 10`.
    tally = fuzz_routes.fuzz(live, tmp_path, seed=12, seconds=60, most=100, n_clients=2)
    assert tally.wrong == []
    assert tally.n > 200


def test_no_request_decides_or_reads_a_review_for_one_who_may_not(tmp_path: Path) -> None:
    tally = fuzz_routes.Tally(1)
    fuzz_routes.fuzz_review(tmp_path, tally, seed=1, most=150)
    assert tally.wrong == []
    assert tally.statuses[500] == 0
    for state in ("accepted", "edited", "rejected", "open"):
        assert tally.by_route[f"review {state}"], f"nothing became {state}: nothing was tried"
