"""The state of a service for the console, and which pages of a real browser may ask for it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from paddock.engine.settings import ServiceSettings
from tests.browser import Browser, Page, needs_browser
from tests.fakes.http_server import Answer, serving
from tests.live import CHAT, STORY, VECTORS, Live, live_service
from tests.waiting import until

SECRET = "correct-horse-battery"


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Yield a service of its own that has done something of each kind: its counts are shown."""
    with live_service(tmp_path_factory.mktemp("busy")) as live:
        with live.client() as client:
            for n in range(3):
                prompt = f"Count to {n + 5}."
                body = {"model": CHAT, "prompt": prompt, "options": {"num_predict": 20}}
                assert client.post("/api/generate", json=body).status_code == 200
            assert client.post("/api/embed", json={"model": VECTORS, "input": ["one"]}).is_success
            assert client.post("/api/chat", json={"model": "none-such"}).status_code == 404
        yield live


def state(live: Live) -> dict[str, Any]:
    time.sleep(0.5)  # one look is good for a moment
    with live.client() as client:
        body: dict[str, Any] = client.get("/ui/state.json").json()
    return body


# What it is told


def test_it_is_told_what_is_resident_and_how_it_does(busy: Live) -> None:
    page = state(busy)
    models = {model["name"]: model for model in page["models"]}
    chat, vectors = models[CHAT], next(model for name, model in models.items() if VECTORS in name)
    assert (chat["state"], chat["role"], vectors["role"]) == ("ready", "chat", "embed")
    assert chat["said"] >= 20
    assert chat["computed"] > chat["said"]
    assert 0 < chat["cells"] <= chat["n_cells"]
    assert 0 < chat["host_bytes"] < page["memory"]["total"]
    assert 0 < chat["first_token_s"]["p50"] <= chat["first_token_s"]["p95"]
    assert page["totals"]["answers"] == 3
    assert page["devices"] == []


def test_it_is_told_the_last_requests_without_what_was_said(busy: Live) -> None:
    page = state(busy)
    failed, embedded, *chats = page["last"][:5]
    assert (failed["status"], failed["model"], failed["path"]) == (404, "none-such", "/api/chat")
    assert (embedded["path"], embedded["completion"]) == ("/api/embed", 0)
    assert embedded["prompt"] > 0
    assert len(chats) == 3
    assert all(0 < chat["completion"] <= 20 and chat["model"] == CHAT for chat in chats)
    assert "Count to" not in json.dumps(page)


def test_a_request_under_way_is_there(busy: Live) -> None:
    body = {"model": CHAT, **STORY}
    with busy.client() as client, client.stream("POST", "/api/generate", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)  # kept, or the connection would be closed
        (exchange,) = state(busy)["under_way"]
        assert (exchange["path"], exchange["fate"]) == ("/api/generate", None)
        assert exchange["seconds"] > 0
    until(lambda: not state(busy)["under_way"])
    left = state(busy)["last"][0]
    assert (left["fate"], left["path"]) == ("gone", "/api/generate")


# Keys


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("locked")
    (folder / "keys").write_text(f"{SECRET} alice\n")
    settings = ServiceSettings(api_keys_file=folder / "keys", origins=("http://friend.example:*",))
    with live_service(folder, service=settings) as live:
        yield live


# Pages of others, in a real browser


@contextmanager
def a_page_elsewhere() -> Iterator[int]:
    """Serve an empty page at a port; under which name, the browser decides."""
    page = Answer(b"<!doctype html><title>elsewhere</title>", media_type="text/html")
    with serving(lambda request: page) as server:
        yield server.server_port


def fetch(page: Page, url: str, **options: Any) -> Any:
    """Have a page ask; gives the status and text, or the word that it was refused."""
    return page.ask(
        f"fetch({json.dumps(url)}, {json.dumps(options)})"
        ".then(async (a) => [a.status, await a.text()], () => 'refused')"
    )


@needs_browser
def test_a_page_of_another_origin_may_ask_if_it_is_allowed(locked: Live, chromium: Browser) -> None:
    """The preflight, its headers and the answer, as a browser really checks them."""
    key = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json",
           "X-Stainless-Lang": "js"}  # fmt: skip
    with a_page_elsewhere() as port:
        for origin in (f"http://friend.example:{port}", f"http://localhost:{port}"):
            page = chromium.page(f"{origin}/")
            assert fetch(page, f"{locked.url}/api/version", headers=key)[0] == 200
            status, text = fetch(
                page, f"{locked.url}/api/chat", method="POST", headers=key, body='{"model": "no"}'
            )
            assert (status, json.loads(text)) == (404, {"error": "model 'no' not found"})
            assert fetch(page, f"{locked.url}/api/version")[0] == 401, "it can read the reason"


@needs_browser
def test_a_page_of_a_stranger_may_not(locked: Live, chromium: Browser) -> None:
    key = {"Authorization": f"Bearer {SECRET}"}
    with a_page_elsewhere() as port:
        page = chromium.page(f"http://evil.example:{port}/")
        assert fetch(page, f"{locked.url}/api/version", headers=key) == "refused"
        # Without a preflight, as forms are sent: it is answered, by 403, and cannot be read.
        simple = {"method": "POST", "body": "{}", "mode": "no-cors"}
        fetch(page, f"{locked.url}/api/delete", **simple)
    last = [(exchange.path, exchange.status) for exchange in locked.service.request_log.last][-2:]
    assert last == [("/api/version", 403), ("/api/delete", 403)]
