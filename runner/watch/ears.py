"""How a watch hears of changes: by events where the system tells them, else by looking often.

Events are started anew when their source has died, and are never relied upon.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial

from . import notices
from .events import Events, Hints
from .filesystems import needs_polling
from .look import Look
from .names import is_temporary
from .notices import Notices
from .spec import HOT_FOLDERS, WatchSpec

POLL_S = 5.0
POLL_SHARE = 0.05
"""The most of its time that a watch spends on reading a folder that tells nothing."""
RETRY_S = 300.0
"""How often events are tried again where the system had no room for them."""


class Ears:
    """The hints of one watch."""

    def __init__(
        self, spec: WatchSpec, look: Look, notices_: Notices, wake: Callable[[], None]
    ) -> None:
        self._spec = spec
        self._look = look
        self._notices = notices_
        self._wake = wake
        self._events: Events | None = None
        self._retry_at: float | None = None
        self.polls = False
        """Whether the folder must be looked at often."""

    async def start(self, now: float) -> None:
        """Listen, or begin to poll and say why."""
        await self.stop()
        self._retry_at = None
        kind = await self._look.ask(partial(needs_polling, self._spec.root))
        if kind is not None:
            self._poll(kind)
            return
        events = Events(self._spec.root, self._wake, partial(is_noise, is_hot=self._spec.is_hot))
        try:
            await self._look.ask(events.start)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                self._retry_at = now + RETRY_S
                self._poll(error)
            return
        self._events, self.polls = events, False
        self._notices.over("polled")

    def _poll(self, why: OSError | str | None) -> None:
        self.polls = True
        self._notices.tell("polled", notices.polled(self._spec.root, why, POLL_S))

    def is_deaf(self, now: float) -> bool:
        """Tell whether events should come and do not: start anew."""
        if self._events is None:
            return not self.polls or (self._retry_at is not None and now >= self._retry_at)
        return not self._events.is_alive()

    def compare(self, n_folders: int) -> None:
        """Poll as well where the system listens to fewer folders than there are."""
        if self._events is None:
            return
        if not self._events.covers(n_folders):
            self._poll(None)
        elif self.polls:
            self.polls = False
            self._notices.over("polled")

    def take(self) -> Hints:
        """Take what was heard."""
        return self._events.take() if self._events is not None else Hints()

    def written(self) -> frozenset[str]:
        """Return files that were written to and not closed since, as far as the system tells."""
        return self._events.written() if self._events is not None else frozenset()

    async def stop(self) -> None:
        """Listen no more."""
        events, self._events = self._events, None
        if events is not None:
            await self._look.ask(events.stop)

    def drop(self) -> None:
        """Listen no more, and wait for nobody: at the end, when a folder may hang."""
        events, self._events = self._events, None
        if events is not None:
            self._look.leave(events.stop)


def is_noise(relpath: str, *, is_hot: bool) -> bool:
    """Tell whether a change there never matters."""
    parts = relpath.split("/")
    return any(map(is_temporary, parts)) or (is_hot and parts[0] in HOT_FOLDERS)
