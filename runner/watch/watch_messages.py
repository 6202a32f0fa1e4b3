"""What a watch reports to people."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Callable
from pathlib import Path

from paddock.runner.folders.file_filter import WatchSpec

_NO_ROOM = frozenset((errno.ENOSPC, errno.EMFILE, errno.ENFILE))


class WatchMessages:
    """Report changes of the watch of `root`; `say` takes one line."""

    def __init__(self, root: Path, say: Callable[[str], None]) -> None:
        self._root = root
        self._say = say
        self._reported: dict[str, str] = {}

    def tell(self, topic: str, text: str) -> None:
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


def other_folder_message(spec: WatchSpec, n_absent: int) -> str:
    """Return the message that files missing from another folder do not count as deleted."""
    what = "file was" if n_absent == 1 else "files were"
    return (
        f"this is not the folder in which {n_absent:,} missing {what} seen: "
        f"it was made again, or something is not mounted. Nothing counts as deleted. "
        f"If it is the right one: `paddock run {shlex.quote(str(spec.file))} --yes`."
    )


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
