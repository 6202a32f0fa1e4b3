"""Tasks that belong together: the first failure cancels the others and is raised as it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """Give a task group that raises one error, not a group of them."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        raise first_of(failures) from failures


def start(
    group: asyncio.TaskGroup, work: Coroutine[Any, Any, None], ended: Callable[[], None]
) -> None:
    """Start a task; `ended` is called when it is over, however it ended."""
    group.create_task(work).add_done_callback(lambda _: ended())


def first_of(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Give the first error in a group of groups."""
    first = failures.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first
