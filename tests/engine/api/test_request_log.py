"""The request_log, and what a pool's events tell it of the request that they are for."""

from paddock.engine.api.request_log import Exchange, RequestLog


def begun(request_log: RequestLog, path: str = "/api/chat") -> Exchange:
    exchange = Exchange("POST", path, "")
    request_log.begin(exchange, {"headers": []})
    return exchange


async def test_only_so_many_are_kept_and_none_that_only_looked() -> None:
    request_log = RequestLog()
    for n in range(300):
        for path in ("/api/tags", "/ui/state.json", "/metrics"):
            exchange = begun(request_log, path)
            exchange.status = n
            request_log.end(exchange, "answered", "")
    assert [exchange.status for exchange in request_log.last] == list(range(200, 300))
    assert not request_log.running
