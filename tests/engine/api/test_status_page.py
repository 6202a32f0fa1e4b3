"""The status page: what it is told, and what a real browser makes of it."""

from __future__ import annotations

import http.server
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.backends.local import LocalPool
from paddock.engine.request import ChatRequest, Message, ModelSpec, Stream
from paddock.engine.settings import PoolSettings, ServiceSettings
from tests.browser import Browser, Page, needs_browser
from tests.fakes.crashing import crashing
from tests.live import CHAT, VECTORS, Live, live_service

pytestmark = pytest.mark.timeout(240)

SECRET = "correct-horse-battery"
# Greedily answered, this goes on for as long as it may.
STORY = {
    "prompt": "Write a very long story about a ferry.",
    "options": {"num_predict": 600, "temperature": 0},
}
CHECKS = Path(__file__).with_name("page_checks.js").read_text("utf-8")
PAGE = Path(__file__).resolve().parents[3] / "engine" / "api" / "page"
# Names that only the browser knows: it asks no name server for them.


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
        told: dict[str, Any] = client.get("/ui/state.json").json()
    return told


# What it is told


def test_it_is_told_what_is_resident_and_how_it_does(busy: Live) -> None:
    told = state(busy)
    models = {one["name"]: one for one in told["models"]}
    chat, vectors = models[CHAT], next(one for name, one in models.items() if VECTORS in name)
    assert (chat["state"], chat["role"], vectors["role"]) == ("ready", "chat", "embed")
    assert chat["said"] >= 20
    assert chat["computed"] > chat["said"]
    assert 0 < chat["cells"] <= chat["n_cells"]
    assert 0 < chat["host_bytes"] < told["memory"]["total"]
    assert 0 < chat["first_token_s"]["p50"] <= chat["first_token_s"]["p95"]
    assert told["totals"]["answers"] == 3
    assert told["devices"] == []


def test_it_is_told_the_last_requests_without_what_was_said(busy: Live) -> None:
    told = state(busy)
    failed, embedded, *chats = told["last"][:5]
    assert (failed["status"], failed["model"], failed["path"]) == (404, "none-such", "/api/chat")
    assert (embedded["path"], embedded["completion"]) == ("/api/embed", 0)
    assert embedded["prompt"] > 0
    assert len(chats) == 3
    assert all(0 < one["completion"] <= 20 and one["model"] == CHAT for one in chats)
    assert "Count to" not in json.dumps(told)


def test_a_request_under_way_is_there(busy: Live) -> None:
    body = {"model": CHAT, **STORY}
    with busy.client() as client, client.stream("POST", "/api/generate", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)  # kept, or the connection would be closed
        (exchange,) = state(busy)["under_way"]
        assert (exchange["path"], exchange["fate"]) == ("/api/generate", None)
        assert exchange["seconds"] > 0
    deadline = time.monotonic() + 5
    while state(busy)["under_way"] and time.monotonic() < deadline:
        pass
    left = state(busy)["last"][0]
    assert (left["fate"], left["path"]) == ("gone", "/api/generate")


def test_page_and_ps_count_running_and_waiting_requests_alike(tmp_path: Path) -> None:
    async def asked(pool: LocalPool) -> list[Stream]:
        story = Message("user", "Write a very long story about a ferry.")
        request = ChatRequest(ModelSpec(CHAT), (story,), {"max_tokens": 600}, "batch")
        return [pool.chat(request) for _ in range(5)]

    async def ended(streams: list[Stream]) -> None:
        for one in streams:
            one.cancel()

    # Two in the batch, two in the worker's queue, one outside.
    settings = PoolSettings(n_threads=1, num_parallel=2)
    with live_service(tmp_path, settings) as live, live.client() as client:
        streams = live.call(asked(live.service.pool))
        until = time.monotonic() + 100
        row: dict[str, Any] = {}
        while row.get("running") != 2 or row["queue_depth"] != 3:
            assert time.monotonic() < until, row
            told = client.get("/api/ps").json()
            row = next(iter(told["models"]), {})
        page = state(live)
        stats = live.service.pool.stats()
        live.call(ended(streams))
    assert told["queue_depth"] == 3
    assert (page["n_running"], page["n_waiting"]) == (2, 3)
    assert (page["models"][0]["running"], page["models"][0]["waiting"]) == (2, 3)
    assert (stats.n_running, stats.n_waiting, stats.waiting) == (2, 3, {CHAT: 3})


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Yield a service whose llama.cpp crashes with extra buffers, with a model loaded."""
    folder = tmp_path_factory.mktemp("broken")
    settings = PoolSettings(n_threads=1, cache_dir=folder / "cache", profile_s=0)
    with live_service(folder, settings) as live:
        with pytest.MonkeyPatch.context() as patch, live.client() as client:
            for name, value in crashing(folder, "extra").items():
                patch.setenv(name, value)
            body = {"model": VECTORS, "input": ["one"]}
            assert client.post("/api/embed", json=body).is_success
        yield live


def test_page_and_ps_are_told_what_a_model_goes_without(broken: Live) -> None:
    with broken.client() as client:
        (row,) = client.get("/api/ps").json()["models"]
    (model,) = state(broken)["models"]
    assert row["fallback"].startswith(
        "runs without extra buffer types, because its worker was killed by SIGSEGV while warming up"
    )
    assert model["fallback"] == row["fallback"]


@needs_browser
def test_the_page_shows_what_a_model_goes_without(broken: Live, chromium: Browser) -> None:
    page = chromium.page(f"{broken.url}/ui")
    page.wait("document.querySelector('.fallback')?.textContent")
    assert page.text(".fallback").startswith("It runs without extra buffer types, because ")


def test_its_files_let_nothing_else_in(busy: Live) -> None:
    with busy.client() as client:
        for path, kind in (("/ui", "html"), ("/ui/page.css", "css"), ("/ui/page.js", "javascript")):
            answer = client.get(path)
            assert answer.status_code == 200
            assert kind in answer.headers["content-type"]
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"


def test_its_files_name_nothing_elsewhere_and_hold_nothing_inline() -> None:
    html = (PAGE / "status.html").read_text("utf-8")
    script, style = ((PAGE / f"status.{kind}").read_text("utf-8") for kind in ("js", "css"))
    for text in (html, script, style):
        named = set(re.findall(r"https?://[^\s\"')]+", text))
        assert named <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*src=)", html)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


# What a browser makes of it


def seen(page: Page) -> str:
    return page.text("body")


@needs_browser
def test_a_browser_shows_it_and_complains_of_nothing(busy: Live, chromium: Browser) -> None:
    page = chromium.page(f"{busy.url}/ui")
    page.wait("document.body.dataset.link === 'live'")
    page.wait("document.querySelectorAll('.model').length === 2")
    text = seen(page)
    assert CHAT in text
    assert "404" in page.text("#rows")
    assert page.ask("document.querySelectorAll('#rows tr').length") >= 5
    assert page.complaints() == []
    assert {re.sub(r"^http://[^/]+", "", url) for url in page.asked_for() if url[:4] == "http"} == {
        "/ui", "/ui/page.css", "/ui/page.js", "/ui/state.json",
    }  # fmt: skip


@needs_browser
def test_it_moves_while_an_answer_comes(busy: Live, chromium: Browser) -> None:
    page = chromium.page(f"{busy.url}/ui")
    page.wait("document.body.dataset.link === 'live'")
    body = {"model": CHAT, **STORY}
    with busy.client() as client, client.stream("POST", "/api/generate", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)  # kept, or the connection would be closed
        page.wait("document.querySelector('#rows tr[data-is=live]') !== null")
        page.wait("Number(document.querySelector('#rate').textContent) > 0")
        assert page.text("#running") == "1"
        assert page.ask("document.title") == "(1) Paddock"
        assert page.ask("document.querySelectorAll('.seats .taken').length") == 1
        page.wait("document.querySelector('#answers-line').getAttribute('d').length > 20")
    page.wait("document.querySelector('#running').textContent === '0'")


@needs_browser
@pytest.mark.parametrize("width", [320, 390, 800, 1400])
def test_nothing_sticks_out_at_any_width(busy: Live, chromium: Browser, width: int) -> None:
    page = chromium.page(f"{busy.url}/ui", width=width)
    page.wait("document.querySelectorAll('.model').length === 2")
    assert page.ask("document.documentElement.scrollWidth") <= width
    assert page.ask(f"{CHECKS} outside()") == []


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(busy: Live, chromium: Browser, scheme: str) -> None:
    """Every text has the contrast that WCAG asks for, 4.5 to 1."""
    page = chromium.page(f"{busy.url}/ui")
    page.prefer(scheme)
    page.wait("document.querySelectorAll('.model').length === 2")
    assert page.ask(f"{CHECKS} pale()") == []


@needs_browser
def test_everything_can_be_reached_by_the_keyboard(busy: Live, chromium: Browser) -> None:
    page = chromium.page(f"{busy.url}/ui")
    page.wait("document.body.dataset.link === 'live'")
    reached = []
    for _ in range(8):
        page.press("Tab")
        reached.append(page.ask("document.activeElement.id || document.activeElement.textContent"))
    assert reached[0].startswith("Skip")
    assert {"theme", "chart", "/metrics"} <= set(reached)
    page.ask("document.querySelector('#theme').focus()")
    page.press("Enter", text="\r")
    page.press("Enter", text="\r")
    assert page.ask("document.documentElement.dataset.theme") == "dark"
    assert page.ask("document.querySelector('#theme').ariaLabel") == "Colours: dark"


@needs_browser
def test_a_service_that_goes_away_is_said_and_one_that_comes_back_is_found(
    tmp_path: Path, chromium: Browser
) -> None:
    with live_service(tmp_path) as live:
        page = chromium.page(f"{live.url}/ui")
        page.wait("document.body.dataset.link === 'live'")
        assert "No model is loaded" in seen(page)
    page.wait("document.body.dataset.link === 'lost'")
    assert "trying again" in page.text("#link")


# Keys


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("locked")
    (folder / "keys").write_text(f"{SECRET} alice\n")
    settings = ServiceSettings(api_keys_file=folder / "keys", origins=("http://friend.example:*",))
    with live_service(folder, service=settings) as live:
        yield live


def test_its_numbers_need_a_key_where_there_are_keys(locked: Live) -> None:
    with locked.client() as client:
        assert client.get("/ui").status_code == 200
        assert client.get("/ui/state.json").status_code == 401
        told = client.get("/ui/state.json", headers={"Authorization": f"Bearer {SECRET}"})
    assert told.status_code == 200


@needs_browser
def test_it_asks_for_a_key_and_keeps_it_for_this_tab_alone(locked: Live, chromium: Browser) -> None:
    page = chromium.page(f"{locked.url}/ui")
    page.wait("document.querySelector('#ask').open")
    assert page.ask("document.activeElement.id") == "key"
    page.type("wrong")
    page.press("Enter", text="\r")
    page.wait("!document.querySelector('#ask-wrong').hidden")
    page.type(SECRET)
    page.press("Enter", text="\r")
    page.wait("document.body.dataset.link === 'live'")
    assert not page.ask("document.querySelector('#ask').open")
    kept = page.ask(
        "[JSON.stringify(sessionStorage), JSON.stringify(localStorage), document.cookie]"
    )
    assert SECRET in kept[0]
    assert SECRET not in kept[1] + kept[2]
    page.open(f"{locked.url}/ui")
    page.wait("document.body.dataset.link === 'live'")
    page.ask("document.querySelector('#forget').click()")
    page.wait("document.querySelector('#ask').open")
    assert page.ask("sessionStorage.length") == 0


# Pages of others, in a real browser


@contextmanager
def a_page_elsewhere() -> Iterator[int]:
    """Serve an empty page at a port; under which name, the browser decides."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>elsewhere</title>")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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
    last = [(one.path, one.status) for one in locked.service.request_log.last][-2:]
    assert last == [("/api/version", 403), ("/api/delete", 403)]


@needs_browser
def test_a_page_that_points_its_own_name_here_may_not(busy: Live, chromium: Browser) -> None:
    port = busy.url.rpartition(":")[2]
    page = chromium.page(f"http://evil.example:{port}/api/tags")
    assert "is not a name of this machine" in seen(page)
    assert fetch(page, f"http://evil.example:{port}/api/tags")[0] == 403
