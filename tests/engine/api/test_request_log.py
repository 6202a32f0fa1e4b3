"""The request_log, and what a pool's events tell it of the request that they are for."""

import asyncio

from paddock.engine.api.request_log import Exchange, RequestLog, RequestLogEvents, note_model
from paddock.engine.request import Usage

EARS = RequestLogEvents()


def begun(request_log: RequestLog, path: str = "/api/chat") -> Exchange:
    exchange = Exchange("POST", path, "")
    request_log.begin(exchange, {"headers": []})
    return exchange


async def test_tokens_are_noted_with_the_request_that_they_are_for() -> None:
    request_log = RequestLog()

    async def serve(n: int) -> Exchange:
        exchange = begun(request_log)

        async def answer() -> None:  # a task, as a pool's answers are
            await asyncio.sleep(0.01 * (3 - n))
            EARS.answered("smol", "stop", Usage(n, n, 10 * n), 0.1)

        await asyncio.gather(*(asyncio.create_task(answer()) for _ in range(n)))
        return exchange

    rows = [
        (
            exchange.model,
            exchange.n_answers,
            exchange.n_prompt_tokens,
            exchange.n_reused_tokens,
            exchange.n_completion_tokens,
        )
        for exchange in await asyncio.gather(*(asyncio.create_task(serve(n)) for n in (1, 2)))
    ]
    assert rows == [("smol", 1, 1, 1, 10), ("smol", 2, 4, 4, 40)]


async def test_what_comes_after_the_end_is_no_ones() -> None:
    request_log = RequestLog()
    exchange = begun(request_log)
    request_log.end(exchange, "answered", "")
    EARS.answered("smol", "stop", Usage(1, 1, 1), 0.1)
    EARS.embedded("smol", 1, 1, 0.1)
    assert exchange.n_answers == 0


async def test_a_journal_stays_small_whatever_clients_name() -> None:
    recorded = begun(RequestLog(), "/" * 60_000)
    note_model("x" * 10_000_000)
    assert (len(recorded.path), len(recorded.model)) == (200, 200)


def test_outside_of_a_request_nothing_is_noted() -> None:
    note_model("smol")
    EARS.answered("smol", "stop", Usage(1, 1, 1), 0.1)


async def test_only_so_many_are_kept_and_none_that_only_looked() -> None:
    request_log = RequestLog()
    for n in range(300):
        for path in ("/api/tags", "/ui/state.json", "/metrics"):
            exchange = begun(request_log, path)
            exchange.status = n
            request_log.end(exchange, "answered", "")
    assert [exchange.status for exchange in request_log.last] == list(range(200, 300))
    assert not request_log.running
