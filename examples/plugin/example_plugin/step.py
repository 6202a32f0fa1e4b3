"""A step: typed parameters, a typed output, one method. The contract is `paddock.steps.base`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from paddock.steps.base import Output, Params, StepError, Tools


class ReadingTimeParams(Params):
    """What stands under `with`; the descriptions are what `paddock steps` and editors show."""

    text: str = Field(description="The text to read.")
    words_per_minute: int = Field(default=200, ge=1, description="How fast somebody reads.")


class ReadingTimeOutput(Output):
    """What other steps see as `steps.<id>.…`: plain JSON data."""

    words: int
    minutes: float


class ReadingTime:
    """How long a text takes to read."""

    params: ClassVar[type[ReadingTimeParams]] = ReadingTimeParams
    output: ClassVar[type[ReadingTimeOutput]] = ReadingTimeOutput
    version: ClassVar[int] = 1  # a higher one makes earlier results stale
    is_pure: ClassVar[bool] = True  # it may run while a run is only planned
    roles: ClassVar[frozenset[str]] = frozenset()  # it asks no model

    def reads(self, params: ReadingTimeParams) -> tuple[str, ...]:
        """Name the files whose content decides the result: none."""
        return ()

    async def run(self, params: ReadingTimeParams, tools: Tools) -> ReadingTimeOutput:
        """Count."""
        words = len(params.text.split())
        if not words:
            raise StepError("there is nothing to read.", remedy="Leave empty documents out.")
        return ReadingTimeOutput(words=words, minutes=round(words / params.words_per_minute, 1))
