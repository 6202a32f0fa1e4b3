"""A reader: what `files.read` and `summarise` see in a kind of document. Here: subtitles."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from paddock.steps.readers.reader import Document, Unreadable

_TIMES = re.compile(r"^\d+:\d\d:\d\d[,.]\d+\s*-->.*$")


class Subtitles:
    """What is said in a file of subtitles, without the times."""

    suffixes: ClassVar[tuple[str, ...]] = (".srt",)
    media_type: ClassVar[str] = "application/x-subrip"
    version: ClassVar[int] = 1  # a higher one makes what was read before stale

    def read(self, path: Path) -> Document:
        """Read it; runs in a thread, so that it may take its time."""
        lines = path.read_text("utf-8-sig", errors="replace").splitlines()
        if not any(_TIMES.match(line) for line in lines):
            raise Unreadable("has no subtitles: no line with times such as 00:00:01,000 --> …")
        said = [line for line in lines if not _TIMES.match(line) and not line.strip().isdigit()]
        text = "\n".join(line.strip() for line in said if line.strip())
        return Document(pages=(text,), media_type=self.media_type)
