"""Which of a server's models is meant, by what it is known, and how often it is connected to."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddock.engine.backends.model_discovery import matching_model, model_identity
from paddock.engine.backends.openai_client import ServerAway, ServerConnection
from paddock.engine.system.server_address import ServerAddress

LISTED: list[dict[str, Any]] = [
    {"id": "/models/a.gguf", "aliases": ["/models/a.gguf"]},
    {"id": "org/b", "aliases": ["bee"]},
    {"id": "c:latest"},
    {"id": "a.gguf"},
]


@pytest.mark.parametrize(
    ("ref", "meant"),
    [
        ("/models/a.gguf", "/models/a.gguf"),
        ("a.gguf", "a.gguf"),
        ("a", "/models/a.gguf"),
        ("/home/me/pipelines/a.gguf", "/models/a.gguf"),
        ("org/b", "org/b"),
        ("bee", "org/b"),
        ("c", "c:latest"),
        ("c:latest", "c:latest"),
        ("d", None),
        ("org", None),
        ("", None),
    ],
)
def test_a_model_is_found_by_its_name_an_alias_or_its_file(ref: str, meant: str | None) -> None:
    found = matching_model(ref, LISTED)
    assert (found and found["id"]) == meant


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text(), min_size=1))
def test_the_same_marks_give_the_same_identity_in_whatever_order(marks: dict[str, object]) -> None:
    other = dict(reversed(marks.items()))
    assert model_identity(marks) == model_identity(other)
    assert model_identity(marks) != model_identity({**marks, "one more": 1})


@pytest.mark.parametrize("n_closed", [0, 1, 2])
async def test_a_kept_connection_that_the_server_closes_under_a_request_is_opened_once_more(
    n_closed: int,
) -> None:
    """So many connections after the first answer end without one."""
    connected: list[asyncio.StreamWriter] = []
    n_answers = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal n_answers
        connected.append(writer)
        with suppress(asyncio.IncompleteReadError):  # the client has closed it
            while await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(2)  # the body, {}
                if n_answers and len(connected) <= n_closed:
                    break
                n_answers += 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        line = ServerConnection(ServerAddress(f"http://127.0.0.1:{port}"))
        assert await line.post("/a", {}) == {}
        if n_closed == 2:  # it is away: what is said is why the first one broke
            with pytest.raises(ServerAway) as caught:
                await line.post("/b", {})
            assert caught.value.was_sent
        else:
            assert await line.post("/b", {}) == {}
        await line.aclose()
        for writer in connected:
            writer.close()
            await writer.wait_closed()
    assert (len(connected), n_answers) == {0: (1, 2), 1: (2, 2), 2: (2, 1)}[n_closed]
