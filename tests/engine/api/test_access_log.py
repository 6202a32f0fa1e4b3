"""The access log: one line a request, which no one outside can forge."""

import io
import json
from pathlib import Path
from threading import Event, Thread
from time import sleep
from typing import Any

import pytest

from paddock.engine.api import access_log
from paddock.engine.api.access_log import access_log_json, access_log_line
from paddock.engine.api.request_log import Exchange
from paddock.engine.settings import ServiceSettings
from tests.engine.api.small_service import SmallService
from tests.waiting import PATIENCE_S


def chat(**extra: object) -> Exchange:
    exchange = Exchange("POST", "/api/chat", "10.0.0.9", at=1_800_000_000.25, key="alice")
    exchange.model, exchange.status, exchange.sent_bytes, exchange.n_answers = (
        "smollm2:135m",
        200,
        900,
        1,
    )
    exchange.n_prompt_tokens, exchange.n_completion_tokens = 35, 120
    for name, value in extra.items():
        setattr(exchange, name, value)
    exchange.end("answered")
    exchange._seconds = 1.2345
    return exchange


def test_a_line_for_people() -> None:
    assert access_log_line(chat()) == (
        "2027-01-15T08:00:00Z 10.0.0.9 alice POST /api/chat 200 1.234s smollm2:135m 35+120"
    )


@pytest.mark.parametrize(
    "path",
    ["/a\n1970-01-01T00:00:00Z 6.6.6.6", "/a b", "/\x1b[31m", "/\u202e", "/\ud800", "/" * 9999],
)
def test_nothing_from_outside_makes_another_line_or_field(path: str) -> None:
    for line in (
        access_log_line(chat(path=path, model=path)),
        access_log_json(chat(path=path, model=path)),
    ):
        assert len(line) < 900
        assert line.encode("ascii", "backslashreplace").decode().isprintable()
    assert len(access_log_line(chat(path=path, model=path)).split(" ")) == 9


def lines_of(settings: ServiceSettings, *paths: str, **extra: Any) -> list[str]:
    stream = io.StringIO()
    with access_log.access_log_to_stream(stream.write):
        house = SmallService(settings)
        for path in paths:
            house.ask(path, **extra)
    return stream.getvalue().splitlines()


def test_each_request_leaves_one_line_without_its_query_or_body() -> None:
    lines = lines_of(
        ServiceSettings(), "/api/tags?key=secret", "/api/show", method="POST", content=b"secret"
    )
    assert [line.split()[4:6] for line in lines] == [["/api/tags", "200"], ["/api/show", "200"]]
    assert "secret" not in "".join(lines)


def test_refused_requests_leave_one_as_well(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("right\n")
    settings = ServiceSettings(api_keys_file=file, is_log_json=True)
    lines = lines_of(settings, "/api/tags", headers={"x-api-key": "a-guess"})
    assert [json.loads(line)["status"] for line in lines] == [401]
    assert "a-guess" not in lines[0]


def test_monitors_leave_none_unless_something_is_wrong() -> None:
    assert lines_of(ServiceSettings(), "/metrics", "/healthz", "/ui/state.json") == []
    stranger = {"headers": {"Host": "evil.example"}}
    assert len(lines_of(ServiceSettings(), "/metrics", **stranger)) == 1


def test_where_nothing_reads_it_the_service_ends_and_says_what_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(access_log, "MOST_WAITING_LINES", 3)
    is_read, written = Event(), list[str]()

    def write(text: str) -> None:
        is_read.wait()
        written.append(text)

    def serve() -> None:
        with access_log.access_log_to_stream(write):
            house = SmallService(ServiceSettings())
            for _ in range(9):
                house.ask("/api/tags")

    service = Thread(target=serve, daemon=True)
    service.start()
    service.join(PATIENCE_S)
    has_ended = not service.is_alive()
    is_read.set()
    assert has_ended
    for _ in range(600):
        if len(written) == 5:
            break
        sleep(0.05)
    lines = [text for text in written if "/api/tags" in text]
    assert len(lines) in (3, 4)  # the thread may have one in its hands
    assert f"{9 - len(lines)} lines are left out: nothing read this log\n" in written


def test_it_can_be_switched_off() -> None:
    assert lines_of(ServiceSettings(access_log=False), "/api/tags") == []
