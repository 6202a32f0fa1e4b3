"""A step's `reply` for one item: its labels, findings of checks, evidence of values."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paddock.engine.system.records import Struct
from paddock.pipelines.expressions import ExpressionError
from paddock.pipelines.label_choices import PromptLabels
from paddock.pipelines.model import ReplySpec
from paddock.runner.bind.scope import Scope
from paddock.steps.base import StepError
from paddock.steps.registry import CHECK_FUNCTIONS, UnusableCheckPlugin

from .offered_labels import OfferedLabels

if TYPE_CHECKING:
    from paddock.pipelines.text_cells import SourceText

    from .evidence import EvidenceFinder


CHECK_TIMEOUT_S = 60.0
"""A function of a plug-in may not hold up a run for ever; those of the language take no second."""


class ScopedReply(Struct, frozen=True):
    reply: ReplySpec
    scope: Scope
    finder: EvidenceFinder | None = None
    """Finds the fields of an answer, where evidence is asked for."""
    labels: OfferedLabels | None = None
    """What its chosen fields may be; None where it has none, or these are not known yet."""

    @property
    def schema(self) -> Any:
        return self.reply.schema if self.labels is None else self.labels.schema

    @property
    def lists(self) -> Sequence[PromptLabels]:
        return () if self.labels is None else self.labels.lists

    @property
    def repair(self) -> int:
        return self.reply.repair

    @property
    def wants_confidence(self) -> bool:
        return self.reply.wants_confidence

    def sources(self) -> tuple[SourceText, ...]:
        return () if self.finder is None else self.finder.sources

    async def evidence(self, output: Any) -> Any:
        return None if self.finder is None else await self.finder.located(output)

    async def checked(self, output: Any, text: str) -> list[str]:
        """Return the faults that the checks find in the answer, each once."""
        scope: dict[str, Any] = {**self.scope, "output": output, "text": text}
        if self.finder is not None and any(
            check.reads_evidence for check in self.reply.checks.values()
        ):
            scope["evidence"] = await self.finder.located(output)
        # A check may read long texts, or load what knows the languages.
        looking = asyncio.to_thread(self._checked, scope)
        try:
            return await asyncio.wait_for(looking, CHECK_TIMEOUT_S)
        except TimeoutError:
            raise StepError(
                f"`check`: the checks take longer than {CHECK_TIMEOUT_S:g} s."
            ) from None

    def _checked(self, scope: Mapping[str, Any]) -> list[str]:
        found: dict[str, None] = {}
        for check in self.reply.checks.values():
            try:
                found |= dict.fromkeys(check.failures(scope, CHECK_FUNCTIONS))
            except (ExpressionError, UnusableCheckPlugin) as error:
                raise StepError(f"`check`: {error}") from error
        return [*found]
