"""What a step's `reply` asks for, without a pipeline: a schema, and a check that is a function."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from paddock.pipelines.label_choices import PromptLabels


@dataclass
class FakeForm:
    """Implements `paddock.steps.base.ReplyForm`; `wrong` tells of `output` and `text`."""

    schema: Any = None
    repair: int = 1
    wrong: Callable[[Any, str], list[str]] = lambda output, text: []
    seen: list[tuple[Any, str]] = field(default_factory=list)
    places: Any = None
    """What `evidence` finds."""
    wants_confidence: bool = False
    lists: Sequence[PromptLabels] = ()

    async def checked(self, output: Any, text: str) -> list[str]:
        self.seen.append((output, text))
        return [*self.wrong(output, text)]

    async def evidence(self, output: Any) -> Any:
        return self.places
