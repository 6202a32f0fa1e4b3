"""Paths: resolution within the allowed folders, file names, system errors in words."""

from __future__ import annotations

import errno
import hashlib
import os
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from paddock.engine.system.disk_space import is_disk_full
from paddock.engine.system.distribution import DISTRIBUTION
from paddock.engine.system.files import MOST_NAME_BYTES, sha256_of
from paddock.engine.system.no_links import NotRegularFile
from paddock.engine.system.os_errors import is_transient

from .base import OutsideRoots, Roots, StepError

_LONGEST_SUFFIX = 32  # a longer one is not a suffix
_ERRNO_REASONS = {
    errno.EACCES: "the permissions do not allow it",
    errno.EPERM: "the system does not allow it",
    errno.EROFS: "its file system is read-only",
    errno.ENAMETOOLONG: "its name is too long for this file system",
    errno.ENOENT: "it does not exist",
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
    errno.EEXIST: "a part of its path is a file, not a folder",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open on this machine",
    errno.EIO: "the device reports an input/output error",
}


def resolve_path(roots: Roots, text: str) -> Path:
    """Return the absolute path, symlinks resolved, also of a file that does not exist yet.

    Raises:
        StepError: it is outside the pipeline's folders, or not a path.
    """
    try:
        return roots.resolve(text)
    except OutsideRoots as error:
        raise StepError(error.reason, remedy=error.remedy) from error
    except OSError as error:
        raise os_refusal(f"path '{printable(text)}' cannot be used", error) from error
    except RuntimeError as error:
        raise StepError(f"path '{printable(text)}' has a cycle of symbolic links.") from error
    except ValueError as error:  # a NUL in the middle, half a character
        raise StepError(f"path '{printable(text)}' is not a possible path: {error}.") from error


def os_refusal(what: str, error: OSError) -> StepError:
    """Return the error for a failed system call: `what`, then why; a full disk is fatal.

    A file of the installation is not the document's: the error names it, and no item is given up.

    >>> os_refusal("'a.txt' cannot be read", OSError(errno.EACCES, "")).reason
    "'a.txt' cannot be read: the permissions do not allow it."
    """
    if is_disk_full(error):
        remedy = "Free some space and run again; finished items are kept."
        return StepError(f"{what}: the disk is full.", remedy=remedy, is_fatal=True, kind="io")
    why = _ERRNO_REASONS.get(error.errno or 0) or error.strerror or type(error).__name__
    if (file := str(error.filename or "")).startswith(_installed_folders()):
        what = f"'{file}', a file that belongs to the installation, cannot be read: {why}."
        return StepError(what, remedy=f"Install `{DISTRIBUTION}` again.", kind="missing")
    return StepError(f"{what}: {why}.", kind="io")


def start_refusal(what: str, error: OSError | ValueError) -> StepError:
    """Return the error for a program that cannot be started; a missing one may stay so."""
    if isinstance(error, OSError) and is_transient(error):
        return os_refusal(f"{what} cannot be started", error)
    return StepError(f"{what} cannot be started: {getattr(error, 'strerror', None) or error}.")


@lru_cache(maxsize=1)
def _installed_folders() -> tuple[str, ...]:
    """Return the beginnings of paths that are of Paddock's code or a library's, and of no user."""
    own, libraries = Path(__file__).parents[1], Path(sysconfig.get_path("purelib"))
    # Not `examples`, whose documents may be worked on
    parts = (own / name for name in ("engine", "pipelines", "runner", "steps"))
    others = (child for child in libraries.iterdir() if child.name != own.name)
    return tuple(f"{path}{os.sep}" for path in (*parts, *others))


@contextmanager
def os_errors_refused(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise os_refusal(what, error) from error


def file_sha256(path: Path, verb: str, hint: str) -> str | None:
    """Return a file's sha256; None if it does not exist.

    Raises:
        StepError: it cannot be opened (`verb`: read or written), or is no file; that message ends
            in `hint`.
    """
    try:
        return sha256_of(path, follows_links=False)
    except FileNotFoundError:
        return None
    except NotRegularFile as error:
        raise StepError(f"'{printable(path)}' is {error.what}; {hint}.") from error
    except OSError as error:
        raise os_refusal(f"'{printable(path)}' cannot be {verb}", error) from error


def nearest_existing(folder: Path) -> Path:
    """Return a folder, or the closest existing one above it, which may be a file."""
    return next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)


def write_refusal(folder: Path) -> str | None:
    """Return why no file can be created in a folder, which may not exist yet; else None."""
    there = nearest_existing(folder)
    if not there.is_dir():
        return f"'{there}' is not a folder"
    if os.access(there, os.W_OK | os.X_OK):
        return None
    try:
        if os.statvfs(there).f_flag & os.ST_RDONLY:
            return f"the file system of '{there}' is read-only"
        return f"'{there}' belongs to '{there.owner()}' and its permissions do not allow it"
    except (OSError, KeyError):  # gone meanwhile, or an owner without a name
        return f"the permissions of '{there}' do not allow it"


def numbered_name(name: str, number: str) -> str:
    """Return a file name with a number before its suffix, within the maximum length.

    >>> numbered_name("a.txt", ".2")
    'a.2.txt'
    """
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a text
    if len(suffix) > _LONGEST_SUFFIX:
        stem, suffix = name, ""
    return fitted_name(stem, f"{number}{suffix}")


def fitted_name(stem: str, ending: str) -> str:
    """Return a file name of two parts; the first is shortened to the maximum length.

    A shortened one has a digest of the whole, so that different names stay different.
    """
    whole = stem + ending
    if len(os.fsencode(whole)) <= MOST_NAME_BYTES:
        return whole
    raw = os.fsencode(stem)
    mark = f"-{hashlib.sha256(raw).hexdigest()[:8]}{ending}"
    return raw[: MOST_NAME_BYTES - len(os.fsencode(mark))].decode("utf-8", "ignore") + mark


def printable(name: str | Path) -> str:
    """Return a file name that any terminal can print; bytes other than UTF-8 in hexadecimal."""
    return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
