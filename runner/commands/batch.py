"""`paddock batch`: a file of requests, answered into another one, none of them twice."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paddock.runner.display import console

from .exits import DONE, INTERRUPTED, CommandError, guarded
from .machine import Json

if TYPE_CHECKING:
    from paddock.engine.api.openai.batch.running import Tally
    from paddock.runner.settings import Settings

SOME_FAILED = 3  # as for a run: done, but not all of it well
EVERY_S = 5.0
_REFRESH_PER_S = 4


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("batch")(guarded(batch))


def batch(
    source: Annotated[
        str, typer.Argument(metavar="IN.jsonl", help="Requests in the form of OpenAI's batches.")
    ],
    results: Annotated[str, typer.Argument(metavar="OUT.jsonl", help="Gets a line for each.")],
    at_once: Annotated[
        int, typer.Option("--at-once", min=1, max=512, help="Requests under way at a time.")
    ] = 64,
    as_json: Json = False,
) -> int:
    """Answer a file of requests; the same command again continues."""
    if not Path(source).is_file():
        raise CommandError(f"There is no file '{source}'.")
    if not Path(results).absolute().parent.is_dir():
        raise CommandError(f"There is no folder '{Path(results).parent}'.")
    if Path(source).resolve() == Path(results).resolve():
        raise CommandError("The results would be written over the requests: name another file.")
    from paddock.runner.settings import read_settings

    settings = read_settings(Path.cwd())
    last: list[Tally] = []
    try:
        with _following() as follow:
            work = _run(settings, Path(source), Path(results), at_once)
            asyncio.run(_followed(work, follow, last))
    except KeyboardInterrupt:
        console.tell(f"Interrupted. `paddock batch {source} {results}` goes on where it stopped.")
        return INTERRUPTED
    tally = last[-1]
    if as_json:
        told = {"total": tally.total, "completed": tally.completed, "failed": tally.failed}
        console.say_json({"ok": not tally.failed, **told})
    else:
        console.say(f"{words(tally)}: {results}")
    return SOME_FAILED if tally.failed else DONE


def words(tally: Tally) -> str:
    """Say how far it is."""
    failed = f", {tally.failed:,} failed" if tally.failed else ""
    done = tally.completed + tally.failed
    return f"{done:,} of {console.counted(tally.total, 'request')} answered{failed}"


async def _followed(
    work: AsyncGenerator[Tally, None], follow: Callable[[Tally], None], last: list[Tally]
) -> None:
    async with aclosing(work):
        async for tally in work:
            last[:] = [tally]
            follow(tally)


async def _run(
    settings: Settings, source: Path, results: Path, at_once: int
) -> AsyncGenerator[Tally, None]:
    """Answer by the running service, else by a pool of our own.

    Raises:
        CommandError: the service or the pool ended meanwhile.
    """
    from paddock.engine.api.openai.batch.running import Interrupted, run_lines, run_lines_by
    from paddock.runner import service

    client = service.find(settings)
    try:
        if client is not None:
            with client:
                asking = _asking(client.url, client.headers, client.trusts_proxies)
            async with asking as answer:
                tallies = run_lines_by(answer, source, results, n_at_once=at_once)
                async with aclosing(tallies):
                    async for tally in tallies:
                        yield tally
            return
        from paddock.engine.pool import LocalPool

        async with LocalPool(settings.pool) as pool:
            tallies = run_lines(pool, source, results, n_at_once=at_once)
            async with aclosing(tallies):
                async for tally in tallies:
                    yield tally
    except Interrupted:
        raise CommandError(
            "The service went away; the same command goes on where it stopped."
        ) from None


@asynccontextmanager
async def _asking(url: str, headers: dict[str, str], trusts_proxies: bool) -> AsyncIterator[Any]:
    """Give what asks the service for one line, again where it is busy."""
    import httpx

    from paddock.engine.api.errors import ApiError
    from paddock.engine.api.openai.batch.lines import Line
    from paddock.runner.service import CONNECT_S, SILENCE_S

    timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S, pool=None)
    headers = {**headers, "X-Paddock-Priority": "batch"}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=timeout, limits=limits, trust_env=trusts_proxies
    ) as http:

        async def answer(line: Line) -> dict[str, Any]:
            while True:
                asked = await http.post(line.url, json={**line.body, "stream": False})
                if asked.status_code not in (429, 503):
                    break
                await asyncio.sleep(_wait_s(asked.headers.get("retry-after", "")))
            told = asked.json()
            if asked.status_code >= 400:
                error = told.get("error") if isinstance(told, dict) else None
                said = error if isinstance(error, dict) else {"message": str(error)}
                raise ApiError(
                    asked.status_code,
                    str(said.get("message")),
                    kind=str(said.get("type") or ""),
                    code=said.get("code"),
                    param=said.get("param"),
                )
            return dict(told)

        yield answer


def _wait_s(retry_after: str) -> float:
    """Tell how long a busy service is left alone.

    >>> _wait_s("5"), _wait_s("3600"), _wait_s("soon")
    (5.0, 30.0, 2.0)
    """
    return min(30.0, float(retry_after)) if retry_after.isdecimal() else 2.0


@contextmanager
def _following() -> Iterator[Callable[[Tally], None]]:
    """Give what is told each tally: a bar on a terminal, a line now and then elsewhere."""
    if not (sys.stderr is not None and sys.stderr.isatty()):
        yield _Lines().tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(24), TextColumn("{task.description}", markup=False), TimeRemainingColumn())
    screen = Console(stderr=True, highlight=False)
    with Progress(*columns, console=screen, refresh_per_second=_REFRESH_PER_S) as progress:
        screen.show_cursor(True)
        task = progress.add_task("", total=None)

        def tell(tally: Tally) -> None:
            done = tally.completed + tally.failed
            progress.update(task, description=words(tally), total=tally.total, completed=done)

        yield tell


class _Lines:
    """Says how far it is, at first and then now and then."""

    def __init__(self) -> None:
        self._told_at = -EVERY_S

    def tell(self, tally: Tally) -> None:
        """Take a tally."""
        now = time.monotonic()
        if tally.n_left and now - self._told_at >= EVERY_S:
            self._told_at = now
            console.tell(words(tally))
