"""A step that writes down that it ran: who, for which version of which file, when.

It is a plug-in as anybody could write one; `world.py` puts it onto the path of what it tries. Only
so can be told from outside whether work that was finished is done again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from typing import ClassVar

from paddock.engine.request import Role
from paddock.steps.step import Output, Params, Tools


class MarkParams(Params):
    """Parameters of `soak.mark`."""

    book: str
    """The journal's file."""
    pipeline: str
    path: str
    sha256: str


class MarkOutput(Output):
    """Outputs of `soak.mark`."""

    sha256: str


class Mark:
    """Adds a line to a journal."""

    params: ClassVar[type[MarkParams]] = MarkParams
    output: ClassVar[type[MarkOutput]] = MarkOutput
    version: ClassVar[int] = 1
    is_pure: ClassVar[bool] = False
    roles: ClassVar[frozenset[Role]] = frozenset()

    def reads(self, params: MarkParams) -> Sequence[str]:
        """Name nothing."""
        return ()

    async def run(self, params: MarkParams, tools: Tools) -> MarkOutput:
        """Write it down; a line of this length is written whole, whoever else writes."""
        row = {
            "at": time.time(), "pid": os.getpid(), "pipeline": params.pipeline,
            "path": params.path, "sha256": params.sha256,
        }  # fmt: skip
        book = os.open(params.book, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(book, json.dumps(row).encode() + b"\n")
        finally:
            os.close(book)
        return MarkOutput(sha256=params.sha256)
