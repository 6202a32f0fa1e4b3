"""An effect and the step that has it: notices on a board, which is a folder of other programs.

The contract is `paddock.steps.effects`. Plans, runs and `--prune` treat a notice like a file that a
pipeline writes: one item has it, and what a person changed stays.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from paddock.steps.base import Output, Params, Step, Tools
from paddock.steps.effects import OutputEffect, put_output


class Notice(OutputEffect):
    """The notice that a step puts up, by its name."""

    name = "notice"  # of its entry point

    @classmethod
    def holds(cls, place: str) -> str | None:
        """Return the digest of what hangs there now; None: nothing."""
        file = _board() / place
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else None

    @classmethod
    def apply(cls, place: str, content: bytes) -> None:
        """Put it up."""
        _board().mkdir(parents=True, exist_ok=True)
        (_board() / place).write_bytes(content)

    @classmethod
    def undo(cls, place: str) -> None:
        """Take it down."""
        (_board() / place).unlink(missing_ok=True)


def _board() -> Path:
    return Path(os.environ.get("NOTICE_BOARD") or Path.home() / "notices")


class PinParams(Params):
    """The type of a parameter says what the step does with it."""

    notice: Annotated[str, Notice] = Field(
        pattern=r"^\w[\w.-]*$", description="The notice's name on the board."
    )
    text: str = Field(description="What it says.")


class PinOutput(Output):
    """What other steps see."""

    changed: bool


class Pin(Step[PinParams, PinOutput]):
    """A notice on the board."""

    params: ClassVar[type[PinParams]] = PinParams
    output: ClassVar[type[PinOutput]] = PinOutput

    async def run(self, params: PinParams, tools: Tools) -> PinOutput:
        """Put it up, unless a person changed it."""
        content = params.text.encode()
        return PinOutput(changed=await put_output(Notice, params.notice, content, tools))
