"""Messages of a watch to people."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

_NO_ROOM = frozenset((errno.ENOSPC, errno.EMFILE, errno.ENFILE))


class WatchMessages:
    """Report changes of the watch of `root`; `say` takes one line."""

    def __init__(self, root: Path, say: Callable[[str], None]) -> None:
        self._root = root
        self._say = say
        self._reported: dict[str, str] = {}

    def report_once(self, topic: str, text: str) -> None:
        """Report a message, unless it was the last one of this topic."""
        if self._reported.get(topic) != text:
            self._reported[topic] = text
            self._say(f"watch '{self._root}': {text}")

    def over(self, topic: str, text: str = "") -> None:
        """Forget a topic, and report `text` if the topic had a message."""
        if self._reported.pop(topic, None) is not None and text:
            self._say(f"watch '{self._root}': {text}")


def away_message(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "the folder does not exist. The watch starts when it does."
    if isinstance(error, NotADirectoryError):
        return "this is a file, not a folder. The watch starts when it is one."
    why = error.strerror or type(error).__name__
    return f"the folder cannot be read ({why}). Retrying."


def polling_message(why: OSError | str | None, every_s: float) -> str:
    every = f"Polling every {every_s:g} s"
    if why is None:
        return f"the system cannot watch all its folders. {every}."
    if isinstance(why, str):
        return f"a file system of type {why} reports no changes. {every}."
    if why.errno in _NO_ROOM:
        return (
            f"the system has no watches left. {every}; "
            f"a higher fs.inotify.max_user_watches and max_user_instances helps."
        )
    words = why.strerror or type(why).__name__
    return f"the system reports no changes ({words}). {every}."
