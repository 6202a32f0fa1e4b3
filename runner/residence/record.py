"""Who serves in a state folder, as it is written beside the socket."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from paddock.engine.system import private

Kind = Literal["background", "up", "serve", "worker"]


@dataclass(frozen=True, slots=True)
class Residence:
    """What runs on this machine for all runs: a pool behind a socket, and a Prefect server."""

    state_dir: Path
    socket: Path
    prefect_api_url: str
    """Empty: it has none, or not yet."""
    version: str
    pid: int
    kind: Kind = "background"
    """By whom it is held: of itself, or by `paddock up`, `serve` or `worker`."""
    began: float = 0.0
    """Unix time."""

    def with_prefect(self, url: str) -> Residence:
        """Give it with the address of Prefect's API."""
        return replace(self, prefect_api_url=url)


def write(file: Path, value: dict[str, Any]) -> None:
    """Write a record for its owner alone, at once or not at all."""
    half = file.with_name(f".{file.name}.{os.getpid()}")
    with private.opened(half) as out:
        json.dump(value, out)
    half.replace(file)


def read(file: Path) -> dict[str, Any]:
    """Read a record; empty where there is none that can be read."""
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def as_record(residence: Residence) -> dict[str, Any]:
    """Give what is written of a service."""
    fields = asdict(residence)
    return {**fields, "state_dir": str(residence.state_dir), "socket": str(residence.socket)}


def residence_of(record: dict[str, Any]) -> Residence | None:
    """Give the service that a record tells of; None: it is not whole."""
    try:
        return Residence(
            state_dir=Path(record["state_dir"]),
            socket=Path(record["socket"]),
            prefect_api_url=str(record["prefect_api_url"]),
            version=str(record["version"]),
            pid=int(record["pid"]),
            kind=record["kind"],
            began=float(record["began"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
