"""Messages of a watch to a person: each once, until it is over."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from pathlib import Path

from .watch_spec import WatchSpec

_NO_ROOM = frozenset((errno.ENOSPC, errno.EMFILE, errno.ENFILE))
_MOST_NAMES = 3


class WatchMessages:
    """Tells what is new; `say` takes one line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: dict[str, str] = {}

    def tell(self, topic: str, text: str) -> None:
        """Say something, unless it was the last that was said of this topic."""
        if self._told.get(topic) != text:
            self._told[topic] = text
            self._say(text)

    def over(self, topic: str, text: str = "") -> None:
        """Note that something is over, and say so if there was something."""
        if self._told.pop(topic, None) is not None and text:
            self._say(text)


def away_message(root: Path, error: OSError) -> str:
    """Return the message that a watched folder is not to be had."""
    if isinstance(error, FileNotFoundError):
        return f"watch '{root}': the folder is not there. It is watched as soon as it is."
    if isinstance(error, NotADirectoryError):
        return f"watch '{root}': this is a file, not a folder. It is watched as soon as it is one."
    why = error.strerror or type(error).__name__
    return f"watch '{root}': the folder cannot be read ({why}). It is tried again and again."


def other_folder_message(spec: WatchSpec, n_absent: int) -> str:
    """Write that the files missing from another folder do not count as deleted."""
    what = "file was" if n_absent == 1 else "files were"
    return (
        f"watch '{spec.root}': this is not the folder in which {n_absent:,} missing {what} seen: "
        f"it was made again, or something is not mounted. Nothing counts as deleted. "
        f"If it is the right one: `paddock run {spec.file} --yes`."
    )


def polling_message(root: Path, why: OSError | str | None, every_s: float) -> str:
    """Return the message that a folder is read again and again, and why."""
    every = f"It is read every {every_s:g} s"
    if why is None:
        return f"watch '{root}': the system does not tell of all its folders. {every}."
    if isinstance(why, str):
        return f"watch '{root}': a file system of type {why} does not tell what changes. {every}."
    if why.errno in _NO_ROOM:
        return (
            f"watch '{root}': the system takes no more watches. {every}; "
            f"a higher fs.inotify.max_user_watches and max_user_instances helps."
        )
    words = why.strerror or type(why).__name__
    return f"watch '{root}': the system does not tell what changes ({words}). {every}."


def unreadable_message(root: Path, folders: Collection[str]) -> str:
    """Return which folders below cannot be read."""
    return f"watch '{root}': {_some_names(folders)} cannot be read: what lies there is not seen."


def given_up_message(root: Path, relpath: str, why: str) -> str:
    """Return the message that a file is not tried again."""
    return f"watch '{root}': '{relpath}' is not tried again before it changes: {why}"


def stuck_message(root: Path, relpath: str, why: str) -> str:
    """Return the message that a hot folder's file could not be moved."""
    return f"watch '{root}': '{relpath}' cannot be moved ({why}). It is tried again."


def not_submitted_message(root: Path, error: Exception) -> str:
    """Return the message that no run could be asked for."""
    return f"watch '{root}': no run could be asked for ({error}). It is tried again."


def unexpected_error_message(root: Path, error: Exception) -> str:
    """Return the message that something happened that nobody has thought of."""
    return f"watch '{root}': {type(error).__name__}: {error}. Everything is looked at anew."


def _some_names(names: Collection[str]) -> str:
    listed = sorted(names)
    shown = ", ".join(f"'{name}'" for name in listed[:_MOST_NAMES])
    left = len(listed) - _MOST_NAMES
    return f"{shown} and {left} more" if left > 0 else shown
