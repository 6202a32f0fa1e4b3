"""What `reply` asks of one step of one item: implements `paddock.steps.step.ReplyForm`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from paddock.pipelines.expressions import ExpressionError
from paddock.steps.answers.functions import BrokenCheck
from paddock.steps.step import StepError

from .binding.replies import BoundReply
from .scope import Scope

MOST_S = 60.0
"""A function of a plug-in may not hold up a run for ever; those of the language take no second."""


@dataclass(frozen=True, slots=True)
class AskedFor:
    """The step's `reply`, over the scope of the item that it works on."""

    reply: BoundReply
    scope: Scope

    @property
    def schema(self) -> Any:
        """The JSON Schema of the answer; None: it is free text."""
        return self.reply.schema

    @property
    def repair(self) -> int:
        """How often what is wrong is told to the model."""
        return self.reply.repair

    async def failures(self, output: Any, text: str) -> list[str]:
        """Tell which checks the answer does not pass.

        Raises:
            StepError: a check cannot be evaluated.
        """
        # A check may read long texts, or load what knows the languages.
        looking = asyncio.to_thread(self._failures, output, text)
        try:
            return await asyncio.wait_for(looking, MOST_S)
        except TimeoutError:
            raise StepError(f"`check`: the checks take longer than {MOST_S:g} s.") from None

    def _failures(self, output: Any, text: str) -> list[str]:
        scope = {**self.scope, "output": output, "text": text}
        found: dict[str, None] = {}
        for check in self.reply.checks:
            try:
                told = check.failures(scope, self.reply.functions)
            except (ExpressionError, BrokenCheck) as error:
                raise StepError(f"`check`: {error}") from error
            found.update(dict.fromkeys(told))
        return list(found)
