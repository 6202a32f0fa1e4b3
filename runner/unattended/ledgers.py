"""Whether the ledgers of the pipelines in service can be read and written, looked at regularly.

A broken ledger stops every run of its folder. It is logged and told to those whom `on.notify` names
once, shown by `/status`, and `/readyz` answers 503 until it is mended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from paddock.runner.ledger.entries import ROOM_BYTES, LedgerError, unwritable
from paddock.runner.session import STATE_FOLDER

from .jobs import Post
from .watching import Opens

LOOK_S = 30.0

log = logging.getLogger("paddock.up")


class LedgerHealth:
    """What is wrong with which ledger. Lives in one loop, looks in threads."""

    def __init__(self, opens: Opens, tell: Callable[[Post, str], Awaitable[None]]) -> None:
        """`tell` sends a pipeline's notifications."""
        self.faults: dict[Path, str] = {}
        """By the folder of the pipelines; empty: all is well."""
        self._opens = opens
        self._tell = tell
        self._telling: set[asyncio.Task[None]] = set()

    async def look(self, posts: Iterable[Post]) -> None:
        """Look at the ledger of each pipeline, and tell what has changed."""
        by_folder: dict[Path, list[Post]] = {}
        for post in posts:
            by_folder.setdefault(post.standing.file.parent, []).append(post)
        for folder in [folder for folder in self.faults if folder not in by_folder]:
            del self.faults[folder]
        for folder, own in by_folder.items():
            fault = await asyncio.to_thread(self._fault, folder)
            was = self.faults.pop(folder, "")
            if fault:
                self.faults[folder] = fault
            if fault and not was:
                log.error("%s: %s", folder, fault)
                for post in own:
                    telling = asyncio.ensure_future(self._tell(post, fault))
                    self._telling.add(telling)
                    telling.add_done_callback(self._telling.discard)
            elif was and not fault:
                log.info("%s: the ledger can be used again", folder)

    def _fault(self, folder: Path) -> str:
        """Return why a ledger cannot be used; empty: it can, or there is none yet."""
        try:
            with self._opens(folder, True) as ledger:
                ledger.watched("")
                if not ledger.is_shared:
                    _check_room(folder, ledger.file)
        except LedgerError as error:
            return str(error)
        except Exception as error:  # whichever database it is, it does not answer
            return f"the ledger does not answer ({error})."
        return ""


def _check_room(folder: Path, file: Path) -> None:
    """Look whether a run could write the ledger.

    Raises:
        LedgerError: it could not, with the reason.
    """
    state = folder / STATE_FOLDER
    for place in (file, state if state.exists() else folder):
        if place.exists() and not os.access(place, os.W_OK):
            raise unwritable(f"no permission to write {place}")
    if shutil.disk_usage(folder).free < ROOM_BYTES:
        raise unwritable("the disk is full")
