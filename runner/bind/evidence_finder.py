"""Find where an answer's values are in its sources, in the reader processes.

The finder (`pipelines.checking.evidence`) sees texts alone. It works in the reader processes,
within their limits of time and memory, so that no text holds up a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from paddock.pipelines.model import EvidenceSpec
from paddock.steps.base import Tools
from paddock.steps.readers import documents
from paddock.steps.readers.reader_pool import EvidenceRequest

from .evidence_boxes import fill_in_boxes
from .evidence_sources import EvidenceSource, read_sources
from .scope import Scope


@dataclass(frozen=True, slots=True)
class EvidenceFinder:
    """Finds the fields of a step's answers in the sources that it names."""

    schema: Any
    only: Sequence[str]
    sources: tuple[EvidenceSource, ...]
    tools: Tools
    """Whose readers know where a quote stands on a page."""
    language: str = ""
    """That of the sources; empty: it is recognised where it decides."""
    _latest: list[tuple[Any, Any]] = field(default_factory=list)
    """The latest answer and its evidence: its checks and its step ask for the same."""

    @classmethod
    def of(
        cls, spec: EvidenceSpec | None, schema: Any, scope: Scope, tools: Tools
    ) -> EvidenceFinder | None:
        """Return the finder of a step; None where it is asked for no evidence.

        Raises:
            StepError: a source is no text or too long, or all of them were skipped.
        """
        if spec is None:
            return None
        return cls(
            schema, spec.only, read_sources(spec, scope, tools.roots.base), tools, spec.language
        )

    async def located(self, output: Any) -> Any:
        """Return where each field of an answer stands, in its shape; boxes may be missing.

        Raises:
            StepError: it takes too much time or memory.
        """
        if not self._latest or self._latest[0][0] is not output:
            texts = tuple((source.name, source.text, source.page_starts) for source in self.sources)
            request = EvidenceRequest(output, self.schema, tuple(self.only), texts, self.language)
            found = await documents.locate_values(request, readers=self.tools.readers)
            self._latest[:] = [(output, found)]
        return self._latest[0][1]

    async def evidence(self, output: Any) -> Any:
        """Return where each field of an answer stands, in its shape."""
        found = await self.located(output)
        await fill_in_boxes(found, self.sources, self.tools)
        return found
