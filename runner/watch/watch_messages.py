"""Messages of a watch to a person: each once, until its cause is over."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from pathlib import Path

from .watch_spec import WatchSpec

_NO_ROOM = frozenset((errno.ENOSPC, errno.EMFILE, errno.ENFILE))
_MOST_NAMES = 3


class WatchMessages:
    """Report changes; `say` takes one line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: dict[str, str] = {}

    def tell(self, topic: str, text: str) -> None:
        """Report a message, unless it was the last one of this topic."""
        if self._told.get(topic) != text:
            self._told[topic] = text
            self._say(text)

    def over(self, topic: str, text: str = "") -> None:
        """Forget a topic, and report `text` if the topic had a message."""
        if self._told.pop(topic, None) is not None and text:
            self._say(text)


def away_message(root: Path, error: OSError) -> str:
    """Return the message that a watched folder cannot be read."""
    if isinstance(error, FileNotFoundError):
        return f"watch '{root}': the folder does not exist. The watch starts when it does."
    if isinstance(error, NotADirectoryError):
        return f"watch '{root}': this is a file, not a folder. The watch starts when it is one."
    why = error.strerror or type(error).__name__
    return f"watch '{root}': the folder cannot be read ({why}). Retrying."


def other_folder_message(spec: WatchSpec, n_absent: int) -> str:
    """Return the message that files missing from another folder do not count as deleted."""
    what = "file was" if n_absent == 1 else "files were"
    return (
        f"watch '{spec.root}': this is not the folder in which {n_absent:,} missing {what} seen: "
        f"it was made again, or something is not mounted. Nothing counts as deleted. "
        f"If it is the right one: `paddock run {spec.file} --yes`."
    )


def polling_message(root: Path, why: OSError | str | None, every_s: float) -> str:
    """Return the message that a folder is polled, and why."""
    every = f"Polling every {every_s:g} s"
    if why is None:
        return f"watch '{root}': the system cannot watch all its folders. {every}."
    if isinstance(why, str):
        return f"watch '{root}': a file system of type {why} reports no changes. {every}."
    if why.errno in _NO_ROOM:
        return (
            f"watch '{root}': the system has no watches left. {every}; "
            f"a higher fs.inotify.max_user_watches and max_user_instances helps."
        )
    words = why.strerror or type(why).__name__
    return f"watch '{root}': the system reports no changes ({words}). {every}."


def unreadable_message(root: Path, folders: Collection[str]) -> str:
    """Return the message that folders below the root cannot be read."""
    return f"watch '{root}': {_some_names(folders)} cannot be read: files there are not seen."


def given_up_message(root: Path, relpath: str, why: str) -> str:
    """Return the message that a file is not retried."""
    return f"watch '{root}': '{relpath}' is not retried until it changes: {why}"


def stuck_message(root: Path, relpath: str, why: str) -> str:
    """Return the message that a hot folder's file could not be moved."""
    return f"watch '{root}': '{relpath}' cannot be moved ({why}). Retrying."


def not_submitted_message(root: Path, error: Exception) -> str:
    """Return the message that no run could be submitted."""
    return f"watch '{root}': no run could be submitted ({error}). Retrying."


def unexpected_error_message(root: Path, error: Exception) -> str:
    """Return the message of an unexpected error."""
    return f"watch '{root}': {type(error).__name__}: {error}. The whole folder is listed again."


def _some_names(names: Collection[str]) -> str:
    listed = sorted(names)
    shown = ", ".join(f"'{name}'" for name in listed[:_MOST_NAMES])
    left = len(listed) - _MOST_NAMES
    return f"{shown} and {left} more" if left > 0 else shown
