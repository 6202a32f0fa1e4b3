"""Whether a state folder (`.paddock`) counts: it is this user's own. Otherwise it is data.

Who can write into a folder of documents can make a `.paddock` there. What stands in one is believed
(answers, inputs of past runs, what may be cleaned), so each reader, writer and cleaner asks here
before it opens anything in it. Which ledgers are known here, `known_ledgers` decides; which folders
a search finds, `folders.state_folders`.

1. Each part of its path is a folder, or a link that this user or the system made.
2. It belongs to this user or to the administrator, and so does all that lies in it.
3. No other user can write to it.
4. In a folder that the home's settings trust (`trust_state`, as Git's `safe.directory`) 2 and 3 do
   not count: owners mean nothing on some shares and in some containers.
5. Files are regular ones; the ledger's own are no links.

Machines that share a ledger know the folder by the identity in its file `id`.
"""

from __future__ import annotations

import enum
import errno
import os
import shlex
import stat
from contextlib import ExitStack, suppress
from pathlib import Path
from uuid import UUID, uuid4

from paddock.engine.system import files, no_links, private_files
from paddock.engine.system.owners import Stranger, find_other_owner
from paddock.engine.system.text import one_line
from paddock.runner.config.config_file import config_folder, foreign_text
from paddock.runner.settings import read_settings

from .entries import LedgerError

LEDGER_FILE = "ledger.sqlite"
_NEVER_LINKS = frozenset(
    ("id", LEDGER_FILE, f"{LEDGER_FILE}-wal", f"{LEDGER_FILE}-shm", f"{LEDGER_FILE}-journal")
)


class WrongKind(enum.Enum):
    """Why a state folder is none, whatever its owner."""

    LINK = "a link leads there"
    NO_FILE = "something else stands in place of a file or folder"
    UNKNOWN = "it was not made here, but is a copy, a backup, or came with the folder"


class ForeignState(LedgerError):
    """A state folder that does not count."""

    def __init__(self, state: Path, why: Stranger | WrongKind, name: str = "") -> None:
        self.state = state
        self.why = why
        what = state / name if name else state
        if not isinstance(why, WrongKind):
            config = config_folder(os.environ, Path.home())
            super().__init__(foreign_text(what, why, state.parent, config))
            return
        remedy = "If it is data, leave it; otherwise move it away."
        if why is WrongKind.UNKNOWN:
            adopt = f"`paddock adopt {shlex.quote(str(state.parent))}`"
            remedy = f"{adopt} says what is in it, and takes it. To begin without it, move it away."
        super().__init__(f"{one_line(str(what))} is not used: {why.value}.\n  {one_line(remedy)}")


def open_state(state: Path) -> int:
    """Return the descriptor of a state folder that counts; the caller closes it.

    Raises:
        ForeignState: it is data.
        OSError: it cannot be opened; FileNotFoundError: there is none.
    """
    whole = Path(os.path.abspath(state))  # noqa: PTH100 - its links are judged first
    try:
        handle = no_links.open_folder(no_links.resolve(str(whole)))
    except (NotADirectoryError, RuntimeError) as error:
        raise ForeignState(whole, WrongKind.NO_FILE) from error
    except PermissionError as error:
        if find_other_owner(whole.stat()) is not Stranger.OWNER:
            raise
        raise ForeignState(whole, Stranger.OWNER) from error
    except OSError as error:
        if error.errno != errno.ELOOP and not whole.is_symlink():
            raise
        raise ForeignState(whole, WrongKind.LINK) from error
    with ExitStack() as stack:
        stack.callback(os.close, handle)
        found = _first_fault(handle)
        if (
            found is not None
            and isinstance(found[0], Stranger)
            and read_settings().trusts(whole.parent)
        ):
            found = _first_fault(handle, is_trusted=True)
        if found is not None:
            raise ForeignState(whole, *found)
        stack.pop_all()
    return handle


def is_own_state(state: Path) -> bool:
    """Return whether there is a state folder that counts.

    Raises:
        ForeignState: it is data.
        OSError: it cannot be opened.
    """
    try:
        os.close(open_state(state))
    except FileNotFoundError:
        return False
    return True


def make_state(state: Path) -> None:
    """Make a state folder for this user alone, or narrow the mode of the one that there is.

    Raises:
        ForeignState: there is one that is data; or owners mean nothing here, and nothing was made.
        OSError: it cannot be made.
    """
    if not is_own_state(state):
        private_files.private_folder(state)
        try:
            is_own_state(state)
        except ForeignState:
            with suppress(OSError):  # another process has put something into it
                state.rmdir()
            raise
    private_files.private_folder(state)
    ignore = state / ".gitignore"  # Git leaves the folder out, with all that it holds
    if not ignore.exists():
        private_files.write_private(ignore, "*\n")


def _first_fault(
    folder: int, *, is_trusted: bool = False
) -> tuple[Stranger | WrongKind, str] | None:
    facts = os.fstat(folder)
    if not is_trusted and (why := find_other_owner(facts)) is not None:
        return why, ""
    is_reached = bool(facts.st_mode & 0o011)
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                facts = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # it was removed meanwhile
            if stat.S_ISLNK(facts.st_mode) and entry.name in _NEVER_LINKS:
                return WrongKind.LINK, entry.name
            if stat.S_IFMT(facts.st_mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                return WrongKind.NO_FILE, entry.name
            if (
                not is_trusted
                and (why := find_other_owner(facts, is_reached=is_reached)) is not None
            ):
                return why, entry.name
    return None


# --- its identity


def folder_identity(folder: Path) -> str:
    """Return the identity of a ledger's folder, 32 hexadecimal digits; make it if there is none.

    Raises:
        LedgerError: the folder cannot be written, or the file holds something else.
    """
    file = folder / "id"
    try:
        while (found := known_folder_identity(folder)) is None:
            files.create_once(file, f"{uuid4()}\n")
    except OSError as error:
        raise LedgerError(
            f"{file}: the folder's identity cannot be written ({error.strerror or error})."
        ) from error
    return found


def has_folder_identity(folder: Path) -> bool:
    """Return whether a folder has one, because its ledger is, or was, in PostgreSQL."""
    return (folder / "id").exists()


def known_folder_identity(folder: Path) -> str | None:
    """Return the identity of a folder, None if it has none.

    Raises:
        LedgerError: the file holds something else.
    """
    file = folder / "id"
    try:
        return UUID(file.read_text("utf-8").strip()).hex
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LedgerError(
            f"{file}: this is not the identity of a folder. Restore the file, which names the "
            f"ledger in PostgreSQL, or remove it to start with a new ledger."
        ) from error
