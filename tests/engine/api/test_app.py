"""All the doors together: their order, and that nothing which is sent breaks one."""

import asyncio
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message

from paddock.engine.api import access_log
from paddock.engine.settings import ServiceSettings
from tests.engine.api.small_service import SmallService


def test_only_one_door_refuses_and_every_refusal_is_written_down(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("k\n")
    house = SmallService(ServiceSettings(api_keys_file=file, rate_per_minute=1, max_body_bytes=10))
    headers = {"Host": "evil.example", "Origin": "https://other.example", "x-api-key": "wrong"}
    assert house.ask("/api/chat", "POST", headers=headers, content=b"x" * 99).status_code == 403
    metrics = house.metrics()
    assert 'paddock_http_refused_total{reason="origin"} 1.0' in metrics
    assert "key" not in metrics and "size" not in metrics
    assert [exchange.status for exchange in house.request_log.last] == [403]


@cache
def locked() -> SmallService:
    file = Path(mkdtemp()) / "keys"
    file.write_text("k\n")
    return SmallService(
        ServiceSettings(api_keys_file=file, rate_per_minute=100, max_body_bytes=1000)
    )


VALUES = st.binary(max_size=60) | st.sampled_from(
    [b"Bearer k", b"k", b"localhost", b"[::1]:80", b"http://localhost", b"null", b"*", b"[", b":",
     b"::::", b"[::1%eth0]", b"999999999999999999999", b"-1", b"bytes=0-"]
)  # fmt: skip
HEADERS = st.sampled_from(
    [b"host", b"origin", b"authorization", b"x-api-key", b"content-length", b"x-forwarded-for",
     b"access-control-request-method", b"content-type"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["GET", "POST", "OPTIONS", "HEAD", "DELETE", "BREW"]),
    st.text(max_size=40).map(lambda text: f"/{text}") | st.sampled_from(["/", "/v1/messages"]),
    st.lists(st.tuples(HEADERS, VALUES), max_size=6),
    st.binary(max_size=1200),
)
def test_whatever_is_sent_gets_an_answer_and_a_line_and_breaks_nothing(
    method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    house, sent = locked(), []

    async def go() -> None:
        coming: asyncio.Queue[Message] = asyncio.Queue()
        coming.put_nowait({"type": "http.request", "body": body})

        async def send(message: Message) -> None:
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "headers": headers,
                 "query_string": b"", "client": ("127.0.0.1", 1), "server": ("localhost", 80),
                 "scheme": "http", "root_path": ""}  # fmt: skip
        await house.app(scope, coming.get, send)

    asyncio.run(go())
    assert sent[0]["status"] < 500
    assert not house.request_log.running
    for line in map(access_log.access_log_line, list(house.request_log.last)[-1:]):
        assert len(line.split(" ")) == 9
        assert line.isprintable()
