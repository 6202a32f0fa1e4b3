"""Files of the local daemon: socket, locks, pid record, start options; which daemons run.

The file name contains a digest of version, environment and pool settings, since runs that differ
in these need daemons of their own. Imports no HTTP: commands read this quickly.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Literal

from paddock.engine.settings import PoolSettings
from paddock.engine.system import files, private_files
from paddock.engine.system.distribution import own_version
from paddock.engine.system.records import Struct, asdict, known_record, record_from
from paddock.runner.settings import Settings, UnattendedSettings

MOST_SOCKET_LETTERS = 100  # the longest is 108 on Linux, 104 on macOS
DaemonKind = Literal["background", "serve"]
KNOCK_S = 1.0


class DaemonError(Exception):
    """The local service cannot be used here. The message has the reason and what to do."""


class DaemonGone(DaemonError):
    """The local service ended, or was killed, since it was found."""


class DaemonPaths(Struct, frozen=True):
    folder: Path
    name: str

    @property
    def socket(self) -> Path:
        """Its Unix socket; in the system's temporary folder where the path would be too long."""
        path = self.folder / f"{self.name}.sock"
        if len(os.fsencode(path)) <= MOST_SOCKET_LETTERS:
            return path
        own = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"paddock-{os.getuid()}"
        short_folder = folder if len(os.fsencode(folder)) < 60 else Path("/tmp") / folder.name
        return short_folder / f"{own}-{self.name}.sock"

    @property
    def lock(self) -> Path:
        return self.folder / f"{self.name}.lock"

    @property
    def record(self) -> Path:
        return self.folder / f"{self.name}.json"

    @property
    def starting(self) -> Path:
        return self.folder / f"{self.name}.starting"


def paths_of(settings: Settings) -> DaemonPaths:
    whole = "\n".join((own_version(), sys.prefix, repr(settings.pool)))
    name = hashlib.sha256(whole.encode()).hexdigest()[:12]
    return DaemonPaths(daemon_folder(settings.state_dir), name)


def daemon_folder(state_dir: Path) -> Path:
    return state_dir / "residence"


def daemon_log(state_dir: Path) -> Path:
    return daemon_folder(state_dir) / "service.log"


def make_daemon_folders(paths: DaemonPaths) -> DaemonPaths:
    """Make the folders, readable by their owner only.

    Raises:
        DaemonError: they cannot be made, or belong to another user.
    """
    private_files.make_private(paths.folder.parent)
    for folder in {paths.folder, paths.socket.parent}:
        try:
            private_files.private_folder(folder)
            stat = folder.stat()
        except OSError as error:
            raise DaemonError(
                f"{folder} cannot be used for the local service: {error.strerror}.\n"
                "  Set PADDOCK_HOME to a folder that you can write to; "
                "`paddock run --local` needs no service."
            ) from None
        if stat.st_uid != os.getuid():
            raise DaemonError(
                f"{folder} belongs to another user, so the local service cannot be trusted there.\n"
                "  Set PADDOCK_HOME to a folder of your own; "
                "`paddock run --local` needs no service."
            )
    return paths


class DaemonInfo(Struct, frozen=True):
    """A running daemon: one model pool behind a socket."""

    state_dir: Path
    socket: Path
    version: str
    pid: int
    kind: DaemonKind = "background"
    began: float = 0.0
    """Unix time."""


def find_daemon(settings: Settings) -> DaemonInfo | None:
    return daemon_at(paths_of(settings))


def daemon_at(paths: DaemonPaths) -> DaemonInfo | None:
    daemon = known_record(DaemonInfo, files.read_json_object(paths.record))
    return daemon if daemon is not None and is_listening(daemon.socket) else None


def running_daemons(state_dir: Path) -> list[DaemonInfo]:
    """Return a state folder's running daemons of every version and with any settings."""
    records = map(files.read_json_object, sorted(daemon_folder(state_dir).glob("*.json")))
    return [
        info
        for record in records
        if (info := known_record(DaemonInfo, record)) is not None and is_listening(info.socket)
    ]


def is_listening(path: Path) -> bool:
    try:
        if path.lstat().st_uid != os.getuid():  # it may lie in the system's temporary folder
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(KNOCK_S)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def encode_start_options(settings: Settings) -> str:
    value = {
        "state_dir": settings.state_dir,
        "idle_s": settings.unattended.service_idle_s,
        "pool": asdict(settings.pool),
    }
    return json.dumps(value, default=str)


def decode_start_options(text: str) -> Settings:
    value = json.loads(text)
    return Settings(
        pool=record_from(PoolSettings, value["pool"]),
        state_dir=Path(value["state_dir"]),
        unattended=UnattendedSettings(service_idle_s=float(value["idle_s"])),
    )
