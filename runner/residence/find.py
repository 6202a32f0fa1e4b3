"""Find the local service that runs: read its record, knock at its door. Knows no HTTP."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from paddock.runner.settings import Settings

from . import record
from .place import Place, folder_of, place_of
from .record import Residence

KNOCK_S = 1.0


def find(settings: Settings) -> Residence | None:
    """Give the service that fits these settings; None: it does not run."""
    return at(place_of(settings))


def at(place: Place) -> Residence | None:
    """Give the service of this name; None: it does not run."""
    residence = record.residence_of(record.read(place.record))
    return residence if residence is not None and is_open(residence.socket) else None


def everyone(state_dir: Path) -> list[Residence]:
    """Give all that run in a state folder, whatever version and settings they have."""
    found = (
        record.residence_of(record.read(file))
        for file in sorted(folder_of(state_dir).glob("*.json"))
    )
    return [one for one in found if one is not None and is_open(one.socket)]


def is_open(path: Path) -> bool:
    """Return whether a process of this user listens there."""
    try:
        if path.lstat().st_uid != os.getuid():  # it may lie in the system's temporary folder
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(KNOCK_S)
        try:
            door.connect(str(path))
        except OSError:
            return False
    return True
