"""What `summarise` says to a model. Pure.

A short constant beginning (shared by all calls, so the cache keeps it), then the text, then one
closing line: small models lose instructions that stand before a long text (tried with 135M).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paddock.engine.request import Message
from paddock.pipelines.expressions import Template

from .prompt import render

SYSTEM = "You summarise texts. You keep to what they say and add nothing."
BETWEEN = "\n\n"


@dataclass(frozen=True, slots=True)
class Wording:
    """The author's wishes, made into messages."""

    words: int | None = None
    style: str | None = None
    instructions: str = ""
    map: Template | None = None
    reduce: Template | None = None

    def part(
        self, chunk: Mapping[str, Any], index: int = 0, previous: Sequence[str] = ()
    ) -> list[Message]:
        """Ask for a summary of one chunk; a text that fits is the only one."""
        if self.map is not None:
            names = {"chunk": dict(chunk), "index": index, "previous": list(previous)}
            return _said(render(self.map, "map", names))
        before = f"What came before:\n{BETWEEN.join(previous)}\n\nText:\n" if previous else ""
        return _said(f"{before}{chunk['text']}\n\n{self._closing('Summarise the text above')}")

    def whole(self, notes: Sequence[str]) -> list[Message]:
        """Ask for one text out of the notes on consecutive parts."""
        if self.reduce is not None:
            return _said(render(self.reduce, "reduce", {"notes": list(notes)}))
        closing = self._closing("Summarise the notes above as one text")
        return _said(f"{BETWEEN.join(notes)}\n\n{closing}")

    def refined(self, summary: str, text: str) -> list[Message]:
        """Ask for a summary that covers one more part."""
        closing = self._closing("Rewrite the summary above so that it also covers the text")
        return _said(f"Summary so far:\n{summary}\n\nText:\n{text}\n\n{closing}")

    def _closing(self, verb: str) -> str:
        length = f" in about {self.words} words" if self.words else ""
        style = f" Style: {self.style.rstrip('. ')}." if self.style else ""
        more = f" {self.instructions.strip()}" if self.instructions.strip() else ""
        return f"{verb}{length}.{style}{more}"


def _said(text: str) -> list[Message]:
    return [Message("system", SYSTEM), Message("user", text)]
