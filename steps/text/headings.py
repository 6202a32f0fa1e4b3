"""The headings above an offset in a Markdown text."""

from __future__ import annotations

import re
from bisect import bisect_right

from paddock.engine.system.records import Struct

_HEADING_LINE = r"^(?:(?P<fence> {0,3}(?:`{3,}|~{3,}))|(?P<level>#{1,6})[ \t]+(?P<title>.*))"


class Headings(Struct, frozen=True):
    offsets: tuple[int, ...]
    paths: tuple[tuple[str, ...], ...]
    """For each heading: the titles from the outermost down to it."""

    @classmethod
    def of(cls, text: str) -> Headings:
        offsets: list[int] = []
        paths: list[tuple[str, ...]] = []
        open_ones: list[tuple[int, str]] = []
        fence = ""
        for line in re.finditer(_HEADING_LINE, text, re.MULTILINE):
            if line["fence"]:
                mark = line["fence"].strip()
                if not fence:
                    fence = mark
                elif mark.startswith(fence):  # the same mark ends it, at least as long
                    fence = ""
            elif not fence:
                level = len(line["level"])
                open_ones = [heading for heading in open_ones if heading[0] < level]
                open_ones.append((level, line["title"].strip().rstrip("#").strip()))
                offsets.append(line.start())
                paths.append(tuple(title for _, title in open_ones))
        return cls(tuple(offsets), tuple(paths))

    def at(self, offset: int) -> tuple[str, ...]:
        index = bisect_right(self.offsets, offset)
        return self.paths[index - 1] if index else ()
