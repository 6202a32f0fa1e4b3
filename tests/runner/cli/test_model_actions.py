"""What is done with models on the console: ask, unload, pull, over a real service."""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import httpx
import pytest

from paddock.runner.cli.console_actions import USE_MODELS
from tests.live import CHAT, Live, live_service
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
