"""Files that a command writes and takes back: managed blocks, and several changes as one.

A managed block is the lines of a text file that the command wrote, beside those of a person. Its
first line holds a digest of the others, so that a block which was edited is known as such without
a record elsewhere. A file that is the command's own, such as a unit, is one block.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from paddock.engine.system import files, private_files
from paddock.engine.system.light_dataclasses import dataclass, field
from paddock.runner.cli.exit_status import CommandError

_BEGIN, _END = "# Begin of `paddock setup`", "# End of `paddock setup`."
_BLOCK = re.compile(
    rf"^{re.escape(_BEGIN)} ([0-9a-f]{{16}})[^\n]*\n(.*?)^{re.escape(_END)}\n",
    re.MULTILINE | re.DOTALL,
)

BlockState = Literal["absent", "intact", "edited"]


def block_state(text: str) -> BlockState:
    r"""Return whether a text has a block, and whether that is as it was written.

    >>> block_state(with_block("theirs = 1\n", "ours = 2\n"))
    'intact'
    >>> block_state(with_block("", "ours = 2\n").replace("2", "3"))
    'edited'
    """
    found = _BLOCK.search(text)
    if found is None:
        return "edited" if _BEGIN in text else "absent"
    return "intact" if found[1] == _digest(found[2]) else "edited"


def with_block(text: str, lines: str) -> str:
    """Return a text with these lines as its block: in place of the old one, else at the top.

    At the top, since a key behind a table of TOML would belong to that table.
    """
    head = f"{_BEGIN} {_digest(lines)}: do not edit; `paddock setup --undo` removes it."
    block = f"{head}\n{lines}{_END}\n"
    if _BLOCK.search(text):
        return _BLOCK.sub(lambda _: block, text, count=1)
    return block + text


def _digest(lines: str) -> str:
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file that is written, or removed."""

    path: Path
    old: str | None = field(repr=False)
    new: str | None = field(repr=False)
    what: str
    mode: int = private_files.PRIVATE_FILE

    def put(self, text: str | None, mode: int) -> None:
        """Write or remove it; a folder that is there already keeps its mode."""
        if text is None:
            self.path.unlink(missing_ok=True)
            return
        if not self.path.parent.exists():
            is_private = mode == private_files.PRIVATE_FILE
            (private_files.private_folder if is_private else os.makedirs)(self.path.parent)
        with files.atomic_file(self.path, mode=mode, is_durable=True) as file:
            file.write(text.encode())

    def __str__(self) -> str:
        verb = "remove" if self.new is None else "write" if self.old is None else "change"
        return f"{verb} {self.path}: {self.what}"


def mode_of(path: Path) -> int:
    """Return the mode of a file; that of a private one if there is none."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return private_files.PRIVATE_FILE


@dataclass(frozen=True, slots=True)
class ManagedFile:
    """A file that may have a block, as it is now."""

    path: Path
    text: str | None = field(repr=False)
    """None: there is no file."""

    @classmethod
    def read(cls, path: Path) -> ManagedFile:
        try:
            return cls(path, path.read_bytes().decode())
        except FileNotFoundError:
            return cls(path, None)
        except UnicodeDecodeError:
            raise CommandError(f"{path} is not text.\n  Move it away, and try again.") from None

    @property
    def state(self) -> BlockState:
        return block_state(self.text or "")

    @property
    def others(self) -> str:
        """What is not the command's."""
        return _BLOCK.sub("", self.text or "", count=1)

    @property
    def is_own(self) -> bool:
        """Whether it is the command's block, as written, and nothing else."""
        return self.state == "intact" and not (self.others or self.path.is_symlink())

    def unedited(self, *, is_alone: bool = False) -> ManagedFile:
        """Return the file, if the block is as it was written; `is_alone`: and nothing else is."""
        if self.state == "edited" or (is_alone and self.others):
            raise CommandError(
                f"{self.path} was edited since `paddock setup` wrote it.\n  Move it away, and try "
                "again; `systemctl edit` keeps changes of a unit in another file."
            )
        return self

    def written(
        self, lines: str, what: str, mode: int = private_files.PRIVATE_FILE
    ) -> list[FileChange]:
        """Return the change to a block of these lines, if it is another one."""
        new = with_block(self.text or "", lines)
        return [] if new == self.text else [FileChange(self.path, self.text, new, what, mode)]

    def removed(self) -> FileChange:
        """Return the change that takes the block out; an empty file goes."""
        what = "what it wrote there"
        return FileChange(self.path, self.text, self.others or None, what, mode_of(self.path))


def require_rights(changes: Sequence[FileChange]) -> None:
    """Raise PermissionError for the first file that cannot be written."""
    for change in changes:
        folder = next(parent for parent in change.path.parents if parent.exists())
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(change.path))


def write_all(changes: Sequence[FileChange]) -> None:
    """Write all files or none.

    Raises:
        OSError: the system refused one.
    """
    begun: list[tuple[FileChange, int]] = []
    try:
        for change in changes:
            begun.append((change, mode_of(change.path)))
            change.put(change.new, change.mode)
    except BaseException:  # Ctrl-C, too
        for change, old_mode in reversed(begun):
            with suppress(OSError):  # the one that failed is as it was
                change.put(change.old, old_mode)
        raise
