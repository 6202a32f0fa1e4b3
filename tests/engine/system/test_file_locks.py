"""File locks: one holder at a time, and how long others wait."""

import asyncio
from pathlib import Path

import pytest

from paddock.engine.system.file_locks import LockTaken, lock_now, lock_soon


def test_a_lock_is_private_and_excludes_others_of_this_process(tmp_path: Path) -> None:
    file = tmp_path / "state" / "x.lock"
    with lock_now(file):
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700
        with pytest.raises(LockTaken), lock_now(file):
            pass
    with lock_now(file):
        pass


def test_the_next_one_waits(tmp_path: Path) -> None:
    async def main() -> list[str]:
        events: list[str] = []
        file = tmp_path / "x.lock"

        async def second() -> None:
            async with lock_soon(file, wait_s=None, poll_s=0.001):
                events.append("second")

        async with lock_soon(file, wait_s=0):
            task = asyncio.create_task(second())
            await asyncio.sleep(0.01)
            with pytest.raises(LockTaken):
                async with lock_soon(file, wait_s=0.0, poll_s=0.001):
                    pass
            with pytest.raises(LockTaken):
                async with lock_soon(file, wait_s=None, is_over=lambda: True):
                    pass
            events.append("first")
        await task
        return events

    assert asyncio.run(main()) == ["first", "second"]
