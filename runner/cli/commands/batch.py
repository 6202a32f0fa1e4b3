"""`paddock batch`: answer a file of requests, by the running service or a pool in this process.

Each answer is written to disk before the next request is sent, so no request is answered twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from paddock.engine.api.batches.batch_lines import (
    BatchInterrupted,
    BatchLine,
    BatchProgress,
    LineAnswerer,
    answers_of,
    run_lines,
)
from paddock.engine.backends.local import LocalPool
from paddock.engine.system import http
from paddock.engine.system.text import counted, shell_command
from paddock.runner.cli.arguments import JsonOption, option
from paddock.runner.cli.exit_status import DONE, INTERRUPTED, CommandError
from paddock.runner.daemon import service_lookup
from paddock.runner.daemon.service_client import READ_TIMEOUT_S, ServiceClient, ServiceError
from paddock.runner.progress import printing
from paddock.runner.settings import Settings, read_settings

EXIT_SOME_FAILED = 3  # as for a run: finished, but some requests failed
TALLY_EVERY_S = 5.0

PAUSE_S, MOST_PAUSE_S = 2.0, 30.0


def batch(
    source: Annotated[
        str, typer.Argument(metavar="IN.jsonl", help="Requests in the form of OpenAI's batches.")
    ],
    results: Annotated[
        str, typer.Argument(metavar="OUT.jsonl", help="Gets a line for each request.")
    ],
    at_once: int = option("Concurrent requests.", "--at-once", default=64, min=1, max=512),
    as_json: JsonOption = False,
) -> int:
    if not Path(source).is_file():
        raise CommandError(f"There is no file '{source}'.")
    if not Path(results).absolute().parent.is_dir():
        raise CommandError(f"There is no folder '{Path(results).parent}'.")
    if Path(source).resolve() == Path(results).resolve():
        raise CommandError("The results would be written over the requests: name another file.")
    settings = read_settings(Path.cwd())
    try:
        tally = asyncio.run(_answer_requests(settings, Path(source), Path(results), at_once))
    except KeyboardInterrupt:
        printing.print_err(
            f"Interrupted. `{shell_command('paddock', 'batch', source, results)}` continues where "
            "it stopped."
        )
        return INTERRUPTED
    counts = {"total": tally.total, "completed": tally.completed, "failed": tally.failed}
    printing.print_result(
        {"ok": not tally.failed, **counts}, f"{_tally_text(tally)}: {results}", as_json=as_json
    )
    return EXIT_SOME_FAILED if tally.failed else DONE


def _tally_text(tally: BatchProgress) -> str:
    failed = f", {tally.failed:,} failed" if tally.failed else ""
    done = tally.completed + tally.failed
    return f"{done:,} of {counted(tally.total, 'request')} answered{failed}"


async def _answer_requests(
    settings: Settings, source: Path, results: Path, at_once: int
) -> BatchProgress:
    """Answer every line of `source` that has no result yet, by the running service or a pool."""
    shown_at = time.monotonic() - TALLY_EVERY_S
    async with AsyncExitStack() as stack:
        if (service := service_lookup.find_service(settings)) is not None:
            answer = await stack.enter_async_context(_open_service(service))
        else:
            pool = LocalPool(settings.pool, has_metrics=False)
            answer = answers_of(await stack.enter_async_context(pool))
        lines = run_lines(answer, source, results, results, n_at_once=at_once)
        try:
            async for tally in await stack.enter_async_context(aclosing(lines)):
                is_over = tally.completed + tally.failed >= tally.total
                if not is_over and time.monotonic() - shown_at >= TALLY_EVERY_S:
                    shown_at = time.monotonic()
                    printing.print_err(_tally_text(tally))
        except BatchInterrupted:
            message = "The service ended; the same command continues where it stopped."
            raise ServiceError(message) from None
        return tally


@asynccontextmanager
async def _open_service(service: ServiceClient) -> AsyncIterator[LineAnswerer]:
    async with http.client(
        service.url,
        headers={"X-Paddock-Priority": "batch", **http.bearer_headers(service.api_key)},
        timeout_s=READ_TIMEOUT_S,
        trust_env=service.trusts_proxies,
    ) as client:

        async def answer(line: BatchLine) -> tuple[int, dict[str, Any]]:
            while True:
                await asyncio.to_thread(service.check)
                response = await client.post(line.url, json={**line.body, "stream": False})
                if response.status_code not in (429, 503):
                    return response.status_code, response.json()
                pause_s = http.retry_after_s(response.headers.get("retry-after"), MOST_PAUSE_S)
                await asyncio.sleep(PAUSE_S if pause_s is None else pause_s)

        yield answer
