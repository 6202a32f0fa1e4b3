"""Run the lines of a batch through a pool: many at once, each once, whatever dies meanwhile.

Results are written in the order in which they come, not in that of the lines (`custom_id` says
which is which): so each is safe on the disk as soon as there is one. A run that is begun again on
the same files goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from paddock.engine.api.errors import ApiError
from paddock.engine.api.openai.calls import Caller
from paddock.engine.api.openai.handlers import ENDPOINTS, line_answer
from paddock.engine.pool import LocalPool

from .documents import append
from .lines import Line, answer_line, check_lines, failure_line, read_lines, recover

AT_ONCE = 64
"""Requests of one run in the pool: more than a model decodes at once, so that its scheduler can
choose, and prompts that begin alike meet."""
_PORTION = 64
"""Lines that a thread reads at a time."""

_CALLER = Caller("batch", waits=True)

Answering = Callable[[Line], Awaitable[Mapping[str, Any]]]
"""Gives the body that answers a line, or raises `ApiError` with what is answered instead."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How far a run is."""

    total: int
    completed: int
    failed: int

    @property
    def n_left(self) -> int:
        """Tell how many have no result yet."""
        return self.total - self.completed - self.failed


class Interrupted(Exception):
    """The pool ended before the lines did; what is written stays, and the run can go on later."""


async def run_lines(
    pool: LocalPool,
    source: Path,
    results: Path,
    *,
    urls: Sequence[str] = ENDPOINTS,
    n_lines: int | None = None,
    n_at_once: int = AT_ONCE,
) -> AsyncGenerator[Tally, None]:
    """Answer every line by a pool, at the priority of batches; see `run_lines_by`."""

    async def answer(line: Line) -> Mapping[str, Any]:
        return await line_answer(pool, line.url, line.body, _CALLER)

    tallies = run_lines_by(answer, source, results, urls=urls, n_lines=n_lines, n_at_once=n_at_once)
    async with aclosing(tallies):
        async for tally in tallies:
            yield tally


async def run_lines_by(
    answer: Answering,
    source: Path,
    results: Path,
    *,
    urls: Sequence[str] = ENDPOINTS,
    n_lines: int | None = None,
    n_at_once: int = AT_ONCE,
) -> AsyncGenerator[Tally, None]:
    """Answer every line of `source` that has no result in `results` yet.

    Tells how far it is at the beginning, and whenever results were brought to the disk. Lines that
    cannot be answered have their error as their result.

    Args:
        answer: is asked for each line.
        source: OpenAI's Batch lines.
        results: gets a line for each, in the order in which they come; made if it is not there.
        urls: the endpoints that the lines may ask.
        n_lines: how many there are, if `check_lines` was asked already.
        n_at_once: how many are asked at the same time.

    Raises:
        BadLines: nothing was run, and `results` is as it was.
        Interrupted: the pool ended.
        EngineError: the results cannot be written.
    """
    total = n_lines if n_lines is not None else await asyncio.to_thread(check_lines, source, urls)
    done = await asyncio.to_thread(recover, results)
    n_good = sum(done.values())
    n_bad = len(done) - n_good
    yield Tally(total, n_good, n_bad)
    left = _Left(read_lines(source, done))
    coming: asyncio.Queue[tuple[bytes, bool] | None] = asyncio.Queue()
    runners = [
        asyncio.create_task(_run(answer, left, coming))
        for _ in range(min(n_at_once, total - len(done)))
    ]
    try:
        n_running = len(runners)
        while n_running or not coming.empty():
            written = [await coming.get()]
            while not coming.empty():
                written.append(coming.get_nowait())
            n_running -= written.count(None)
            told = [one for one in written if one is not None]
            if told:
                # One wait for the disk for all that came meanwhile.
                await asyncio.to_thread(append, results, b"".join(text for text, _ in told))
                n_good += sum(is_good for _, is_good in told)
                n_bad += sum(not is_good for _, is_good in told)
                yield Tally(total, n_good, n_bad)
        if n_good + n_bad < total:
            raise Interrupted
    finally:
        for runner in runners:
            runner.cancel()
        await asyncio.gather(*runners, return_exceptions=True)


class _Left:
    """The lines that are still to be run; a thread reads them portion by portion."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._portion: list[Line] = []
        self._lock = asyncio.Lock()

    async def next(self) -> Line | None:
        """Give the next one, or None at the end."""
        async with self._lock:
            if not self._portion:
                self._portion = await asyncio.to_thread(self._read)
            return self._portion.pop() if self._portion else None

    def _read(self) -> list[Line]:
        return list(islice(self._lines, _PORTION))[::-1]


async def _run(
    answer: Answering, left: _Left, coming: asyncio.Queue[tuple[bytes, bool] | None]
) -> None:
    """Run lines, one after the other, until there are no more; says None at its end."""
    try:
        while (line := await left.next()) is not None:
            try:
                body = await answer(line)
                coming.put_nowait((answer_line(line, body), True))
            except ApiError as error:
                coming.put_nowait((failure_line(line, error), False))
    finally:
        coming.put_nowait(None)
