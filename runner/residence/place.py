"""Where the local service of a state folder is found: folders, socket, lock, by what it serves.

Runs of another version, of another environment or with other settings of the pool need a service
of their own, so these are part of its name. Pure but for `made`.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from paddock.engine.system import private
from paddock.engine.system.distribution import own_version
from paddock.runner.settings import Settings

MOST_SOCKET_LETTERS = 100  # the system has room for 108, on macOS for 104


class NoResidence(Exception):
    """The local service cannot be had here: why, and what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """Names of one service's files."""

    folder: Path
    name: str

    @property
    def socket(self) -> Path:
        """Its door; in a folder of the system's temporary one where the path is too long."""
        path = self.folder / f"{self.name}.sock"
        if len(os.fsencode(path)) <= MOST_SOCKET_LETTERS:
            return path
        own = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        return _short_folder() / f"{own}-{self.name}.sock"

    @property
    def lock(self) -> Path:
        """Held by whoever serves."""
        return self.folder / f"{self.name}.lock"

    @property
    def record(self) -> Path:
        """Who serves, as JSON."""
        return self.folder / f"{self.name}.json"

    @property
    def starting(self) -> Path:
        """Held by whoever starts one."""
        return self.folder / f"{self.name}.starting"


def place_of(settings: Settings) -> Place:
    """Name the service that fits these settings."""
    pool = repr(settings.pool)
    whole = "\n".join((own_version(), sys.prefix, pool))
    return Place(folder_of(settings.state_dir), hashlib.sha256(whole.encode()).hexdigest()[:12])


def folder_of(state_dir: Path) -> Path:
    """Give the folder of the services of a state folder."""
    return state_dir / "residence"


def log_of(state_dir: Path) -> Path:
    """Give the file that the services of a state folder write to."""
    return folder_of(state_dir) / "service.log"


def made(place: Place) -> Place:
    """Make the folders, for their owner alone.

    Raises:
        NoResidence: they cannot be made, or are somebody else's.
    """
    private.narrow(place.folder.parent)
    for folder in {place.folder, place.socket.parent}:
        try:
            private.folder(folder)
            stat = folder.stat()
        except OSError as error:
            raise NoResidence(
                f"{folder} cannot be used for the local service: {error.strerror}.\n"
                "  Set PADDOCK_HOME to a folder that can be written; `run --local` needs none."
            ) from None
        if stat.st_uid != os.getuid():
            raise NoResidence(
                f"{folder} belongs to another user, so the local service cannot be trusted there.\n"
                "  Set PADDOCK_HOME to a folder of your own; `run --local` needs none."
            )
    return place


def _short_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"paddock-{os.getuid()}"
    return folder if len(os.fsencode(folder)) < 60 else Path("/tmp") / folder.name
