"""The console's page on models, over a real service, in a real browser."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from paddock.runner.cli.console_model_page import SpeedHistory
from paddock.runner.cli.web_console import SIGN_IN
from tests.browser import Browser, Page, needs_browser
from tests.live import CHAT, STORY, VECTORS, Live
from tests.runner.cli.live_console import TOKEN, console_service

HOSTILE = "<img src=x onerror=window.hacked=1>"


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Yield a service that has done something of each kind."""
    with console_service(tmp_path_factory.mktemp("busy")) as live:
        with live.client() as client:
            body = {"model": CHAT, "prompt": "Count to 9.", "options": {"num_predict": 20}}
            assert client.post("/api/generate", json=body).status_code == 200
            assert client.post("/api/embed", json={"model": VECTORS, "input": ["one"]}).is_success
            assert client.post("/api/chat", json={"model": HOSTILE}).is_client_error
        yield live


def opened(chromium: Browser, live: Live) -> Page:
    page = chromium.page(f"{live.url}/ui/models")
    page.ask("document.getElementById('token').focus()")
    page.type(TOKEN)
    page.press("Enter", text="\r")
    page.wait("document.querySelector('h1')?.textContent === 'Models'")
    page.wait("document.readyState === 'complete'")  # its script has run
    return page


def state_of(now: float, generated: int, computed: int, **fields: Any) -> dict[str, Any]:
    model = {"name": "m", "said": generated, "computed": computed, **fields}
    return {"now": now, "models": [model]}


def test_speeds_are_what_was_counted_between_two_looks() -> None:
    history = SpeedHistory()
    assert history.add(state_of(100.0, 50, 500)).answered == 0
    second = history.add(state_of(102.0, 70, 620))
    assert (second.answered, second.read, second.of_models) == (10, 50, {"m": 10})
    assert history.add(state_of(102.1, 99, 999)) is second, "two clients share a look"
    loaded_again = history.add(state_of(104.0, 5, 9))
    assert (loaded_again.answered, loaded_again.read) == (0, 0)
    embedding = history.add(state_of(106.0, 5, 29, role="embed"))
    assert embedding.of_models == {"m": 10}
    history.add(state_of(224.5, 5, 29))
    assert [speed.at for speed in history.speeds] == [106.0, 224.5]
    assert history.steady() == 0


def test_it_shows_models_memory_and_requests_and_no_words_of_them(busy: Live) -> None:
    with busy.client() as client:
        assert client.get("/ui/models").status_code == 401
        assert "set-cookie" in client.post(SIGN_IN, data={"token": TOKEN}).headers
        page, requests = (client.get(f"/ui/{name}").text for name in ("models", "requests"))
    for words in (CHAT, VECTORS, "First token", "KV cache", "Prompts from it"):
        assert words in page
    assert "/api/embed" in requests
    assert re.search(r"<b>[\d.]+ GB</b> memory free; models hold [\d.]+ [MG]B of", page)
    assert re.search(r"Up for .*; 1 answer; 1 embedded text; 2 loads", page)
    assert "Count to 9" not in page + requests


@needs_browser
def test_it_moves_while_an_answer_comes(busy: Live, chromium: Browser) -> None:
    page = opened(chromium, busy)
    page.open(f"{busy.url}/ui/requests")
    body = {"model": CHAT, **STORY}
    with busy.client() as client, client.stream("POST", "/api/generate", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)  # kept, or the connection would be closed
        page.wait("document.querySelector('tbody')?.textContent.includes('answering')")
        page.open(f"{busy.url}/ui/models")
        page.wait("Number(document.querySelector('.chips b')?.textContent) > 0")
        page.wait("document.title.startsWith('(1) Models')")
        assert "1 of " in page.text(".cards")
        page.wait("document.querySelector('.answered').getAttribute('points').length > 20")
    page.wait("document.title.startsWith('Models')")
