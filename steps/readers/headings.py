"""Which headings stand over a place in a Markdown text."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

_LINE = r"^(?:(?P<fence> {0,3}(?:`{3,}|~{3,}))|(?P<level>#{1,6})[ \t]+(?P<title>.*))"


@dataclass(frozen=True, slots=True)
class Headings:
    """The headings of a text, by their offsets."""

    offsets: tuple[int, ...]
    paths: tuple[tuple[str, ...], ...]
    """For each heading: the titles from the outermost down to it."""

    @classmethod
    def of(cls, text: str) -> Headings:
        """Find the `#` headings that do not stand in fenced code."""
        offsets: list[int] = []
        paths: list[tuple[str, ...]] = []
        open_ones: list[tuple[int, str]] = []
        fence = ""
        for line in re.finditer(_LINE, text, re.MULTILINE):
            if line["fence"]:
                fence = _after(line["fence"].strip(), fence)
            elif not fence:
                level = len(line["level"])
                open_ones = [one for one in open_ones if one[0] < level]
                open_ones.append((level, line["title"].strip().rstrip("#").strip()))
                offsets.append(line.start())
                paths.append(tuple(title for _, title in open_ones))
        return cls(tuple(offsets), tuple(paths))

    def at(self, offset: int) -> tuple[str, ...]:
        """Give the titles over `offset`, the outermost first; a heading stands over itself."""
        index = bisect_right(self.offsets, offset)
        return self.paths[index - 1] if index else ()


def _after(mark: str, fence: str) -> str:
    """Tell which fence is open after this mark: one ends with its like, as long or longer."""
    if not fence:
        return mark
    return "" if mark.startswith(fence) else fence
