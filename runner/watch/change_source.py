"""File-system events of a watched folder, with polling as the fallback.

The only importer of watchdog. An event says when to list, and a listing what changed. Events arrive
in watchdog's thread. The source is restarted when that thread has died.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from watchdog import events
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, EventEmitter

from paddock.runner.folders.folder_identity import silent_file_system
from paddock.steps.temporary_names import is_temporary

from .watch_messages import WatchMessages, polling_message

MOST_WRITTEN = 4096
FORGET_AFTER = 8_192
"""Events after which open files are forgotten: half the kernel's queue, which drops events, and so
reports of closed files, when it is full."""
POLL_S = 5.0
POLL_SHARE = 0.05
"""The largest part of its time that a watch spends on reading a folder without events."""
EVENTS_RETRY_S = 300.0
"""Time before events are tried again where the system had no watches left."""
UNWATCHED_S = 4.0
"""Time for which watchdog may be late with new folders."""
_END_S = 5.0
# What can mean a change; reads are left out. Attributes are a mode or a time: no one is writing.
_EVENT_TYPES: list[type[events.FileSystemEvent]] = [
    events.FileCreatedEvent, events.FileModifiedEvent, events.FileClosedEvent,
    events.FileMovedEvent, events.FileDeletedEvent, events.FileAttribEvent, events.DirAttribEvent,
    events.DirCreatedEvent, events.DirMovedEvent, events.DirDeletedEvent,
]  # fmt: skip


class ChangeSource:
    """Events below one root. `wake` is called from watchdog's thread."""

    def __init__(
        self,
        root: Path,
        ask: Callable[..., Awaitable[Any]],
        notices: WatchMessages,
        wake: Callable[[], None],
    ) -> None:
        """`ask` makes a call that may hang."""
        self._root = root
        self._ask = ask
        self._notices = notices
        self._wake = wake
        self._retry_at: float | None = None
        self._fewer_since: float | None = None
        """Since when the system watches fewer folders than there are."""
        self.polls = False
        """Whether the folder must be polled."""
        self._observer: BaseObserver | None = None
        self._emitters: frozenset[EventEmitter] = frozenset()
        self._lock = threading.Lock()
        self._has_changed = False
        self._n_events = 0
        self._written: set[str] = set()
        """Files that were written and not closed since; only inotify reports closed files."""

    async def start(self, now: float) -> None:
        """Listen to events; start to poll and report why when that fails."""
        await self.stop()
        self._retry_at = None
        kind = await self._ask(silent_file_system, self._root)
        if kind is not None:
            self._poll(kind)
            return
        try:
            await self._ask(self._listen)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                self._retry_at = now + EVENTS_RETRY_S
                self._poll(error)
            return
        self.polls, self._fewer_since = False, None
        self._notices.over("polled")

    def _listen(self) -> None:
        """Start listening. Blocks: every folder below the root is registered.

        Raises:
            OSError: the system has no watches left, or the root is missing.
        """
        observer = Observer()
        handler = events.FileSystemEventHandler()
        handler.on_any_event = self._on_event  # type: ignore[method-assign]
        observer.schedule(handler, str(self._root), recursive=True, event_filter=_EVENT_TYPES)
        try:
            observer.start()
        except BaseException:
            _end(observer)
            raise
        self._observer, self._emitters = observer, frozenset(observer.emitters)
        with self._lock:
            self._written.clear()

    def _poll(self, why: OSError | str | None) -> None:
        self.polls = True
        self._notices.report_once("polled", polling_message(why, POLL_S))

    def is_deaf(self, now: float) -> bool:
        """Return whether events have stopped and the source must be restarted."""
        if self._observer is None:
            return not self.polls or (self._retry_at is not None and now >= self._retry_at)
        if not self._observer.is_alive():
            return True
        return not all(map(can_report, self._emitters))

    def compare(self, n_folders: int, now: float) -> None:
        """Poll as well while the system watches fewer folders than there are.

        When it reaches the system's limit, watchdog continues without a word. It registers new
        folders in a thread of its own, so only what lasts is reported.
        """
        if self._observer is None:
            return
        numbers = map(n_watched_folders, self._emitters)
        if all(n is None or n >= n_folders for n in numbers):
            self._fewer_since = None
            self.polls = False
            self._notices.over("polled")
        elif self._fewer_since is None:
            self._fewer_since, self.polls = now, True
        elif now - self._fewer_since >= UNWATCHED_S:
            self._poll(None)

    def take(self) -> bool:
        """Return whether there was an event since the last call."""
        with self._lock:
            has_changed, self._has_changed = self._has_changed, False
        return has_changed

    def written(self) -> frozenset[str]:
        """Return files that are open for writing, as far as the system reports it."""
        with self._lock:
            return frozenset(self._written)

    async def stop(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            await self._ask(_end, observer)

    def drop(self) -> None:
        """Stop listening without waiting: at the end, a folder may hang."""
        observer, self._observer = self._observer, None
        if observer is not None:
            threading.Thread(target=_end, args=(observer,), daemon=True).start()

    def _on_event(self, event: events.FileSystemEvent) -> None:
        prefix = f"{self._root}{os.sep}"
        paths = [os.fsdecode(path) for path in (event.src_path, event.dest_path) if path]
        paths = [path.removeprefix(prefix).replace(os.sep, "/") for path in paths]
        relpath = paths[0]
        # A run writes a ledger all the time, which may lie below the root
        is_noise = all(any(map(is_temporary, path.split("/"))) for path in paths)
        with self._lock:
            self._n_events += 1
            if self._n_events % FORGET_AFTER == 0:
                self._written.clear()
            if event.event_type == "modified" and not event.is_directory:
                if len(self._written) < MOST_WRITTEN and sys.platform == "linux":
                    self._written.add(relpath)
            elif event.event_type in ("closed", "moved", "deleted"):
                self._written.discard(relpath)
            is_new = not (is_noise or self._has_changed)
            self._has_changed = self._has_changed or not is_noise
        if is_new:
            self._wake()


def can_report(emitter: EventEmitter) -> bool:
    """Return whether an emitter, and its reader of inotify, live: their observer survives them."""
    reader = getattr(emitter, "_inotify_fd", None)
    return emitter.is_alive() and (reader is None or reader.is_alive())


def n_watched_folders(emitter: EventEmitter) -> int | None:
    """Return how many folders the system watches; None: it is not inotify."""
    folders = getattr(getattr(emitter, "_inotify", None), "_active_callbacks_by_path", None)
    return None if folders is None else len(folders)


def _end(observer: BaseObserver) -> None:
    with contextlib.suppress(Exception):  # ignore every error of a dying observer
        observer.stop()
    if observer.is_alive():
        observer.join(_END_S)
