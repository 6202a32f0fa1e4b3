"""What a chat template is to the rest of the engine, in whichever language it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

Turn = dict[str, Any]


class Refused(Exception):
    """The template does not take this conversation; the message is its own."""


class Exhausted(Refused):
    """The template took more time or memory than it may: it will do so again."""


class Template(Protocol):
    """One compiled template."""

    @property
    def source(self) -> str:
        """Its text."""
        ...

    def render(
        self,
        turns: Sequence[Turn],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        is_open: bool = True,
        **variables: Any,
    ) -> str:
        """Render a conversation; `is_open`: the assistant is to speak next.

        Raises:
            Refused: in the template's own words.
        """
        ...
