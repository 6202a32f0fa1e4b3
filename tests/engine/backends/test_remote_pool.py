"""A pool in another process: the door on its side, `RemotePool` on the other, a socket between."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette

from paddock.engine.api import pool_server
from paddock.engine.backends.rpc import PREFIX, RemotePool
from paddock.engine.errors import EngineError, ModelNotFound, WorkerLost
from paddock.engine.memory.pool_stats import LoadCount, ModelStats, PoolStats
from paddock.engine.request import ChatRequest, EmbedRequest, Message, ModelFacts, ModelSpec, Tool
from paddock.engine.system.records import replace
from paddock.engine.system.server_address import PoolAddress
from tests.fakes.pool import FakePool
from tests.waiting import eventually

MODEL = ModelSpec("writer")


class Served(FakePool):
    """A pool that is asked over a socket."""

    loads: dict[str, LoadCount]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.loads = {}
        self.n_cancelled = 0

    async def facts(self, model: ModelSpec) -> ModelFacts:
        if model.ref == "none":
            raise ModelNotFound("none", ["writer"])
        return replace(await super().facts(model), params={"stop": ("a",)})

    async def answer_to(self, request: ChatRequest) -> Any:
        try:
            return await super().answer_to(request)
        except asyncio.CancelledError:
            self.n_cancelled += 1
            raise

    async def load(self, model: ModelSpec) -> float:
        return 0.5

    async def unload(self, ref: str) -> bool:
        return ref == "writer"

    def stats(self) -> PoolStats:
        return PoolStats((ModelStats("writer", "ready", 1, 4, 9),), dict(self.loads))


@dataclass
class Door:
    """A socket that a pool can stand behind, and go away from."""

    path: Path
    server: uvicorn.Server | None = None
    serving: asyncio.Task[None] | None = None
    n_finds: int = 0
    opens_again: Callable[[], Awaitable[None]] | None = None
    doors: list[socket.socket] = field(default_factory=list)

    async def open(self, pool: Served) -> None:
        self.path.unlink(missing_ok=True)
        wire = socket.socket(socket.AF_UNIX)
        wire.bind(str(self.path))
        wire.listen()
        self.doors.append(wire)
        app = Starlette(routes=pool_server.pool_routes(pool))  # type: ignore[arg-type]
        config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False,
                                timeout_graceful_shutdown=0)  # fmt: skip
        self.server = server = uvicorn.Server(config)
        self.serving = asyncio.create_task(self.server.serve(sockets=[wire]))
        await eventually(lambda: bool(server.started))

    async def slam(self) -> None:
        """Break every connection, as a killed process does."""
        server, serving, wire = self.server, self.serving, self.doors.pop()
        assert server is not None and serving is not None
        self.path.unlink(missing_ok=True)
        for connection in list(server.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        server.force_exit = server.should_exit = True
        try:
            await serving
        finally:
            wire.close()

    async def find(self, broken: PoolAddress | None) -> PoolAddress:
        self.n_finds += 1
        if broken is not None and self.opens_again is not None:
            await self.opens_again()
        return PoolAddress(socket=self.path)


@asynccontextmanager
async def remote_pool(tmp_path: Path, pool: Served) -> AsyncIterator[tuple[RemotePool, Door]]:
    """Yield a remote pool, and the door that the real one stands behind."""
    way = Door(tmp_path / "s")
    await way.open(pool)
    try:
        async with RemotePool(way.find) as remote:
            yield remote, way
    finally:
        await way.slam()


def chat_request(text: str = "Tell of the ferry") -> ChatRequest:
    return ChatRequest(MODEL, (Message("user", text),))


async def test_what_is_asked_is_answered_as_by_the_pool_itself(tmp_path: Path) -> None:
    async with remote_pool(tmp_path, Served()) as (remote, _):
        beside = Served()
        assert await remote.facts(MODEL) == await beside.facts(MODEL)
        assert await remote.count_texts(MODEL, ["a b", ""]) == [2, 0]
        assert await remote.count_chat(MODEL, [Message("user", "a b")]) == 6
        assert await remote.count_chat(MODEL, [Message("user", "a b")], [Tool("t", "c d")]) == 10
        assert (
            await remote.chat(chat_request()).reply() == await beside.chat(chat_request()).reply()
        )
        embed = EmbedRequest(MODEL, ("a", "b"))
        assert await remote.embed(embed) == await beside.embed(embed)
        assert await remote.load(MODEL) == 0.5
        assert await remote.unload("writer") is True
        assert await remote.unload("other") is False


async def test_who_goes_is_no_longer_worked_for(tmp_path: Path) -> None:
    pool = Served(delay_s=60)
    async with remote_pool(tmp_path, pool) as (remote, _):
        answer = remote.chat(chat_request())
        await eventually(lambda: bool(pool.n_running))
        answer.cancel()
        await eventually(lambda: not pool.n_running)
    assert pool.n_cancelled == 1


async def test_many_requests_go_at_the_same_time(tmp_path: Path) -> None:
    pool = Served(together=101)
    async with remote_pool(tmp_path, pool) as (remote, _):
        await asyncio.gather(*(remote.chat(chat_request(str(n))).reply() for n in range(120)))
    assert pool.n_running_most > 100


async def test_a_request_whose_service_is_killed_is_sent_to_the_next_one(tmp_path: Path) -> None:
    first, second = Served(delay_s=60), Served()
    async with remote_pool(tmp_path, first) as (remote, way):
        way.opens_again = lambda: way.open(second)
        answers = [remote.chat(chat_request(str(n))) for n in range(5)]
        await eventually(lambda: first.n_running == 5)
        await way.slam()
        replies = await asyncio.gather(*(answer.reply() for answer in answers))
        assert [reply.text.split()[-1] for reply in replies] == ["0", "1", "2", "3", "4"]
    assert len(second.chats) == 5


async def test_a_service_that_goes_away_each_time_is_given_up(tmp_path: Path) -> None:
    pool = Served(delay_s=60)

    async def slam_always(way: Door) -> None:
        way.opens_again = lambda: way.open(pool)
        while True:
            await eventually(lambda: bool(pool.n_running))
            await asyncio.shield(way.slam())

    async with remote_pool(tmp_path, pool) as (remote, way):
        slamming = asyncio.create_task(slam_always(way))
        with pytest.raises(WorkerLost) as error:
            await remote.chat(chat_request()).reply()
        slamming.cancel()
        await asyncio.wait({slamming})
    assert str(error.value).startswith(
        "the worker of model 'writer' died: the service that has it went away"
    )


async def test_where_no_one_serves_again_the_reason_is_said(tmp_path: Path) -> None:
    async def refuse() -> None:
        raise EngineError("The local service did not start.")

    async with remote_pool(tmp_path, Served()) as (remote, way):
        way.opens_again = refuse
        await way.slam()
        with pytest.raises(EngineError) as error:
            await remote.facts(MODEL)
        await way.open(Served())
    assert str(error.value) == "The local service did not start."


async def test_a_pool_that_says_nothing_for_long_is_still_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Signs of life come while a queue is long; without them the link would break.
    monkeypatch.setattr("paddock.engine.api.pool_server.BEAT_S", 0.1)
    monkeypatch.setattr("paddock.engine.backends.rpc.SILENCE_S", 2.0)
    async with remote_pool(tmp_path, Served(delay_s=3.5)) as (remote, way):
        await remote.chat(chat_request()).reply()
    assert way.n_finds == 1


async def test_what_is_no_request_is_refused_with_a_reason(tmp_path: Path) -> None:
    async with remote_pool(tmp_path, Served()) as (_, way):
        reader, writer = await asyncio.open_unix_connection(str(way.path))
        head = f"POST {PREFIX}/chat HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Length: 3\r\n\r\nabc".encode())
        answer = await reader.read()
        writer.close()
    assert b'"kind":"BadRequest"' in answer
    assert b"this request cannot be read" in answer
