"""Chat templates that others wrote: parsed, probed and rendered in a process of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from paddock.engine import trial_process
from paddock.engine.errors import BadRequest, TemplateTooLarge, TemplateUnreadable
from paddock.engine.request import Message, Think, Tool
from paddock.engine.system.frames import FrameHead
from paddock.engine.system.records import replace
from paddock.engine.trial_process import TrialProcess
from paddock.engine.wire import from_plain, to_plain

from .chat_template import ChatTemplate
from .control_tokens import TextPiece
from .template_probe import ChatFormat

_ERRORS = {kind.__name__: kind for kind in (BadRequest, TemplateTooLarge, TemplateUnreadable)}


class TemplateTrials(TrialProcess):
    """Raises BadRequest where a template is refused or costs too much, and as TrialProcess."""

    def __init__(self) -> None:
        super().__init__("paddock.engine.chat.template_trial_process")

    def capabilities(self, own: str | None, of_file: str | None) -> list[str]:
        """Return `template_capabilities`; none of a template that costs too much."""
        try:
            return list(self.compute({"own": own, "of_file": of_file})["capabilities"])
        except BadRequest:
            return []

    def compute(self, order: FrameHead, within_s: float | None = None) -> FrameHead:
        answer = self.ask(order, "the chat template", "Use a simpler one", within_s)
        if "error" in answer:
            raise _ERRORS[answer["error"]](answer["why"])
        return answer


class ForeignTemplate(ChatTemplate):
    """A request's or a Modelfile's template, for one request: it ends with that.

    `facts` are the arguments of a ChatTemplate.
    """

    def __init__(self, facts: FrameHead, trials: TemplateTrials) -> None:
        self._facts, self._trials = facts, trials
        self._ends_s = trials.clock_s() + trial_process.TRIAL_WALL_S

    def _compute(self, **order: Any) -> FrameHead:
        left_s = self._ends_s - self._trials.clock_s()
        return self._trials.compute({"template": self._facts, **order}, left_s)

    @cached_property
    def chat_format(self) -> ChatFormat:
        return from_plain(ChatFormat, self._compute()["format"])

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        think: Think | None = None,
        variables: Mapping[str, Any] | None = None,
        n_ctx_tokens: int = 0,
    ) -> tuple[TextPiece, ...]:
        # Only the number of pictures counts.
        bare = [replace(message, images=(b"",) * len(message.images)) for message in messages]
        options = {"think": think, "variables": variables, "n_ctx_tokens": n_ctx_tokens}
        answer = self._compute(
            messages=to_plain(bare), tools=to_plain(list(tools)), options=options
        )
        return from_plain(tuple[TextPiece, ...], answer["pieces"])
