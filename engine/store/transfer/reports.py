"""Turn work that reports its progress into the lines of a stream, and end the work with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from paddock.engine.store.progress import Progress, Report


async def lines(work: Callable[[Report], Awaitable[None]]) -> AsyncGenerator[Progress, None]:
    """Do `work` and give what it reports; its error comes after its last line.

    Who stops listening ends the work: it is cancelled, and waited for. Lines about the same blob
    that nobody has taken yet replace each other, so a slow listener costs no memory.
    """
    waiting: list[Progress] = []
    news = asyncio.Event()

    def report(line: Progress) -> None:
        if waiting and line.total is not None and waiting[-1].status == line.status:
            waiting[-1] = line
        else:
            waiting.append(line)
        news.set()

    task = asyncio.ensure_future(work(report))
    task.add_done_callback(lambda _: news.set())
    try:
        while not (task.done() and not waiting):
            await news.wait()
            news.clear()
            while waiting:
                yield waiting.pop(0)
            if task.done():
                news.set()
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # looked at, so that nobody is told of it later
