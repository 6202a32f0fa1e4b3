"""File-system events of a watched folder, with polling as the fallback.

The only importer of watchdog. Events are hints, never the truth: a listing finds out what changed.
They arrive in watchdog's thread. The source is restarted when that thread has died.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from watchdog import events
from watchdog.observers import Observer

from paddock.engine.system.light_dataclasses import dataclass
from paddock.runner.folders.file_filter import HOT_FOLDERS, WatchSpec
from paddock.runner.folders.folder_identity import needs_polling
from paddock.steps.files.folder_walk import is_temporary

from .io_thread import IoThread
from .watch_messages import WatchMessages, polling_message

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver, EventEmitter

MOST_PATHS = 4096
_QUEUE_FILE = Path("/proc/sys/fs/inotify/max_queued_events")
_QUEUE_EVENTS = 16_384  # the kernel's default
_END_S = 5.0
# What can mean a change; reads are left out.
_EVENT_TYPES: list[type[events.FileSystemEvent]] = [
    events.FileCreatedEvent, events.FileModifiedEvent, events.FileClosedEvent,
    events.FileMovedEvent, events.FileDeletedEvent,
    events.DirCreatedEvent, events.DirMovedEvent, events.DirDeletedEvent,
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class ChangeHints:
    """Events since the last `take`."""

    relpaths: frozenset[str] = frozenset()
    is_overflow: bool = False
    """More events came than are kept: list the whole folder."""


class FolderEvents:
    """The events below one root. `wake` is called from watchdog's thread."""

    def __init__(
        self, root: Path, wake: Callable[[], None], is_noise: Callable[[str], bool]
    ) -> None:
        """`wake` is called after an event; `is_noise` names paths to ignore."""
        self._root = root
        self._wake = wake
        self._is_noise = is_noise
        self._prefix = f"{root}{os.sep}"
        self._lock = threading.Lock()
        self._relpaths: set[str] = set()
        self._is_overflow = False
        self._has_reported = False
        self._n_events = 0
        self._written: set[str] = set()
        self._hears_closes = sys.platform == "linux"  # only inotify reports closed files
        try:
            queue_length = max(int(_QUEUE_FILE.read_text("ascii")), 16)
        except (OSError, ValueError):
            queue_length = _QUEUE_EVENTS
        self._most_events = queue_length // 2
        self._observer: BaseObserver | None = None
        self._emitters: frozenset[EventEmitter] = frozenset()

    def start(self) -> None:
        """Start listening. Blocks: every folder below the root is registered.

        Raises:
            OSError: the system has no watches left, or the root is missing.
        """
        observer = Observer()
        handler = events.FileSystemEventHandler()
        handler.on_any_event = self._on_event  # type: ignore[method-assign]
        observer.schedule(handler, str(self._root), recursive=True, event_filter=_EVENT_TYPES)
        self._observer = observer
        try:
            observer.start()
        except BaseException:
            self.stop()
            raise
        self._emitters = frozenset(observer.emitters)

    def stop(self) -> None:
        """Stop listening, in bounded time."""
        observer, self._observer = self._observer, None
        if observer is None:
            return
        with contextlib.suppress(Exception):  # ignore every error of a dying observer
            observer.stop()
        if observer.is_alive():
            observer.join(_END_S)

    def is_alive(self) -> bool:
        """Return whether events still arrive: the observer survives its dead emitter."""
        if self._observer is None or not self._observer.is_alive():
            return False
        readers = (getattr(emitter, "_inotify_fd", None) for emitter in self._emitters)
        return all(emitter.is_alive() for emitter in self._emitters) and all(
            reader is None or reader.is_alive() for reader in readers
        )

    def covers(self, n_folders: int) -> bool:
        """Return whether this many folders are watched.

        When it reaches the system's limit, watchdog continues without a word.
        """
        for emitter in self._emitters:
            group = getattr(emitter, "_inotify", None)
            paths = getattr(group, "_active_callbacks_by_path", None)
            if paths is not None and len(paths) < n_folders:
                return False
        return True

    def take(self) -> ChangeHints:
        """Return the events since the last call."""
        with self._lock:
            hints = ChangeHints(frozenset(self._relpaths), self._is_overflow)
            self._relpaths = set()
            self._is_overflow = self._has_reported = False
        return hints

    def written(self) -> frozenset[str]:
        """Return files that are known to be written and not closed."""
        with self._lock:
            return frozenset(self._written)

    def _on_event(self, event: events.FileSystemEvent) -> None:
        paths = (os.fsdecode(event.src_path), os.fsdecode(event.dest_path or ""))
        with self._lock:
            # Track open writers: the system reports each write, and each close by a writer
            relpath = os.fsdecode(event.src_path).removeprefix(self._prefix).replace(os.sep, "/")
            if event.event_type == "modified" and not event.is_directory:
                if len(self._written) < MOST_PATHS and self._hears_closes:
                    self._written.add(relpath)
            elif event.event_type in ("closed", "moved", "deleted"):
                self._written.discard(relpath)
            self._n_events += 1
            if self._n_events >= self._most_events:
                # The kernel drops events when its queue is full, and then at least this many are
                # read after the gap. So list the whole folder after that many.
                self._n_events, self._is_overflow = 0, True
                self._written.clear()
            for path in paths:
                self._add(path)
            is_news = bool(self._relpaths or self._is_overflow) and not self._has_reported
            self._has_reported = self._has_reported or is_news
        if is_news:
            self._wake()

    def _add(self, path: str) -> None:
        if not path.startswith(self._prefix):
            # The root itself was moved or deleted.
            self._is_overflow = self._is_overflow or bool(path)
            return
        relpath = path.removeprefix(self._prefix).replace(os.sep, "/")
        if self._is_noise(relpath):
            return
        if len(self._relpaths) >= MOST_PATHS:
            self._is_overflow = True
        if self._is_overflow:
            self._relpaths.clear()
        else:
            self._relpaths.add(relpath)


POLL_S = 5.0
POLL_SHARE = 0.05
"""The largest part of its time that a watch spends on reading a folder without events."""
EVENTS_RETRY_S = 300.0
"""Time before events are tried again where the system had no watches left."""


class ChangeSource:
    """The hints of one watch."""

    def __init__(
        self, spec: WatchSpec, io: IoThread, notices: WatchMessages, wake: Callable[[], None]
    ) -> None:
        self._spec = spec
        self._io = io
        self._notices = notices
        self._wake = wake
        self._events: FolderEvents | None = None
        self._retry_at: float | None = None
        self.polls = False
        """Whether the folder must be polled."""

    async def start(self, now: float) -> None:
        """Listen to events; start to poll and report why when that fails."""
        await self.stop()
        self._retry_at = None
        kind = await self._io.ask(needs_polling, self._spec.root)
        if kind is not None:
            self._poll(kind)
            return
        folder_events = FolderEvents(
            self._spec.root, self._wake, partial(is_noise, is_hot=self._spec.is_hot)
        )
        try:
            await self._io.ask(folder_events.start)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                self._retry_at = now + EVENTS_RETRY_S
                self._poll(error)
            return
        self._events, self.polls = folder_events, False
        self._notices.over("polled")

    def _poll(self, why: OSError | str | None) -> None:
        self.polls = True
        self._notices.tell("polled", polling_message(why, POLL_S))

    def is_deaf(self, now: float) -> bool:
        """Return whether events have stopped and the source must be restarted."""
        if self._events is None:
            return not self.polls or (self._retry_at is not None and now >= self._retry_at)
        return not self._events.is_alive()

    def compare(self, n_folders: int) -> None:
        """Poll as well when the system watches fewer folders than there are."""
        if self._events is None:
            return
        if not self._events.covers(n_folders):
            self._poll(None)
        elif self.polls:
            self.polls = False
            self._notices.over("polled")

    def take(self) -> ChangeHints:
        """Return the hints since the last call."""
        return self._events.take() if self._events is not None else ChangeHints()

    def written(self) -> frozenset[str]:
        """Return files that are open for writing, as far as the system reports it."""
        return self._events.written() if self._events is not None else frozenset()

    async def stop(self) -> None:
        source, self._events = self._events, None
        if source is not None:
            await self._io.ask(source.stop)

    def drop(self) -> None:
        """Stop listening without waiting: at the end, a folder may hang."""
        source, self._events = self._events, None
        if source is not None:
            self._io.leave(source.stop)


def is_noise(relpath: str, *, is_hot: bool) -> bool:
    parts = relpath.split("/")
    return any(map(is_temporary, parts)) or (is_hot and parts[0] in HOT_FOLDERS)
