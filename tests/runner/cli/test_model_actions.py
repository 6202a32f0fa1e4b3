"""What is done with models on the console: ask, unload, pull, over a real service."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path

import httpx
import pytest

from paddock.runner.cli.console_actions import USE_MODELS, ModelActions
from paddock.runner.settings import read_settings
from tests.live import CHAT, Live, live_service
from tests.runner.cli.live_console import TOKEN, console_service, slow_service
from tests.runner.cli.test_console_actions import buttons, console, error_of
from tests.waiting import until


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_service(tmp_path_factory.mktemp("live")) as live:
        yield live


@pytest.fixture
def console_client(
    tmp_path: Path, live: Live, monkeypatch: pytest.MonkeyPatch
) -> Iterator[httpx.Client]:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PADDOCK_HOST", live.url.partition("://")[2])
    with console(tmp_path) as client:
        yield client


def test_a_model_is_asked_and_unloaded(console_client: httpx.Client, live: Live) -> None:
    prompt = "Say <b>hello</b> & stop."
    short = {"temperature": 0, "stop": [" ", "\n"]}  # an answer of 2,048 tokens can take minutes
    with live.client() as client:
        body = {"model": "brief", "from": CHAT, "parameters": short}
        assert client.post("/api/create", json=body).status_code == 200
    answer = console_client.post(f"{USE_MODELS}/ask", data={"model": "brief", "prompt": prompt})
    assert answer.status_code == 200, answer.text
    assert "<b>hello" not in answer.text
    shown_prompt, shown_answer = re.findall(r"<pre>([^<]*)</pre>", answer.text)
    assert unescape(shown_prompt) == prompt
    assert shown_answer
    page = console_client.get(USE_MODELS).text
    (unload,) = (name for name in buttons(page) if name.startswith("Unload "))
    name = unescape(unload).partition(" ")[2]
    done = console_client.post(f"{USE_MODELS}/unload", data={"model": name})
    assert (done.status_code, done.headers.get("location")) == (303, USE_MODELS)
    until(lambda: "Unload " not in console_client.get(USE_MODELS).text)
    again = console_client.post(f"{USE_MODELS}/unload", data={"model": name})
    assert error_of(again) == f"'{name}' is not in memory."
    for model in ("/etc/passwd", "./x.gguf"):
        refused = console_client.post(f"{USE_MODELS}/ask", data={"model": model, "prompt": prompt})
        assert refused.status_code == 409
        assert "A file is no name of a model." in error_of(refused)


def test_pages_that_ask_the_service_which_serves_them_leave_it_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("paddock.runner.cli.web_console._FREE_S", 240.0)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with console_service(tmp_path) as live, live.client(headers=headers) as client:
        only = ThreadPoolExecutor(1)
        live.loop.call_soon_threadsafe(live.loop.set_default_executor, only)
        paths = [*[USE_MODELS] * 10, "/api/tags"]
        with ThreadPoolExecutor(len(paths)) as threads:
            answers = list(threads.map(client.get, paths))
        assert [answer.status_code for answer in answers] == [200] * len(paths)


def test_a_pull_shows_how_it_stands_and_why_it_failed(console_client: httpx.Client) -> None:
    for model in ("/etc/passwd", "file:///etc/passwd"):
        refused = console_client.post(f"{USE_MODELS}/pull", data={"model": model})
        assert "A file is pulled by the command line." in error_of(refused)
    begun = console_client.post(f"{USE_MODELS}/pull", data={"model": "127.0.0.1:9/library/none"})
    assert begun.headers["location"] == USE_MODELS
    page = until(
        lambda: "Stop pulling" not in (page := console_client.get(USE_MODELS).text) and page
    )
    (status,) = re.findall('role="status">([^<]*)', page)
    assert status.startswith("127.0.0.1:9/library/none: ")
    assert "127.0.0.1:9" in status.partition(": ")[2]
    assert buttons(page)["Pull"]


@pytest.mark.parametrize(
    ("begin", "why"),
    [
        (b'{"status": "pulling x", "total": "many"}\n', "The service reported no progress"),
        (b'{"status": "pulling x", "total": [1]}\n', "The service reported no progress"),
        (b'{"status": "pulling x"}\n', "The service ended it without a reason, after 'pulling x'"),
        (b'{"error": "The disk is full."}\n', "The disk is full."),
        (b"odd\n", "The service answered with something other than a JSON object."),
        (b'{"status": "pulling x"}\n{"status": "success"}\n', "success"),
    ],
)
def test_a_pull_says_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: bytes, why: str
) -> None:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    with slow_service(begin) as service:
        service.go.set()
        monkeypatch.setenv("PADDOCK_HOST", service.address)
        actions = ModelActions(read_settings(tmp_path))
        actions.pull("ann", {"model": "x"}, None)
        page = until(lambda: (page := actions.page({})).live_s == 0 and page)
    assert f'status">x: {why}' in unescape(page.body)


def test_without_a_service_the_buttons_are_dead_and_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PADDOCK_HOST", "127.0.0.1:9")
    with console(tmp_path) as client:
        page = client.get(USE_MODELS).text
        assert buttons(page) == {"Pull": False, "Ask": False}
        assert "No model is in memory: no Paddock service runs" in page
        assert (
            client.post(f"{USE_MODELS}/ask", data={"model": CHAT, "prompt": "x"}).status_code == 409
        )
