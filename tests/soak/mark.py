"""A step that writes down that it ran: who, for which version of which file, when.

A document whose name says so kills the process that works on it.

It is a plug-in as anybody could write one; `world.py` puts it onto the path of what it tries. Only
so can be told from outside whether work that was finished is done again.
"""

import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar

from paddock.engine.request import Role
from paddock.steps.base import Output, Params, Tools

POISON = "-poison"
"""In a path: the process that works on it dies. This module lies alone where it is installed."""


class MarkParams(Params):
    book: str
    """The journal's file."""
    pipeline: str
    path: str
    sha256: str
    kills: str = ""
    """Where to write down that this process dies of what it works on; empty: it does not."""


class MarkOutput(Output):
    sha256: str


class Mark:
    params: ClassVar[type[MarkParams]] = MarkParams
    output: ClassVar[type[MarkOutput]] = MarkOutput
    version: ClassVar[int] = 1
    is_pure: ClassVar[bool] = False
    roles: ClassVar[frozenset[Role]] = frozenset()

    def reads(self, params: MarkParams) -> Sequence[str]:
        """Name nothing."""
        return ()

    async def run(self, params: MarkParams, tools: Tools) -> MarkOutput:
        """Write it down; a line of this length is written whole, whatever else writes."""
        now = {"at": time.time(), "pid": os.getpid()}
        if params.kills and POISON in params.path:
            _write(params.kills, now)
            os.kill(os.getpid(), signal.SIGKILL)
        named = {"pipeline": params.pipeline, "path": params.path, "sha256": params.sha256}
        _write(params.book, {**now, **named})
        return MarkOutput(sha256=params.sha256)


def _write(book: str, row: Mapping[str, object]) -> None:
    handle = os.open(book, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(handle, json.dumps(row).encode() + b"\n")
    finally:
        os.close(handle)
