"""A deployed run before it has begun: what it tells, and a server that is being started again."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings

from paddock.runner.workers import deployed_flow
from paddock.runner.workers.deployed_flow import PrefectUnreachable, RunOrders, _FlowRunNamer
from tests.benchmarks.processes import free_port


def test_what_a_run_waits_for_is_told_until_it_begins() -> None:
    told: list[str] = []
    named = _FlowRunNamer(RunOrders(waits=told.append))
    named.note("other machines know this folder")
    named.note("waiting for run 'calm-vole', which is of the same group")
    assert told == ["waiting for run 'calm-vole', which is of the same group"]
    named.began("warm-trout", "letters", ())
    named.note("waiting for run 'calm-vole' on gpu-2, which works on the rest")
    assert told[1:] == [""]


def test_a_run_waits_for_a_server_that_is_being_started_again() -> None:
    port = free_port()

    async def no_such_run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
        writer.write(head + b"{}")
        await writer.drain()
        writer.close()

    async def main() -> None:
        carried = asyncio.create_task(deployed_flow.run_queued_flow(str(uuid4()), {}))
        await asyncio.sleep(0.5)
        assert not carried.done()
        async with await asyncio.start_server(no_such_run, "127.0.0.1", port):
            with pytest.raises(ObjectNotFound):
                await carried

    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
        asyncio.run(main())


def test_a_run_that_reaches_no_server_has_begun_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployed_flow, "REACH_S", 0.1)
    monkeypatch.setattr(deployed_flow, "REACH_PAUSE_S", 0.05)
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(PrefectUnreachable, match="All connection attempts failed"),
    ):
        asyncio.run(deployed_flow.run_queued_flow(str(uuid4()), {}))
