"""What a turn has to say to the pool: plain lists that go into one frame."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from paddock.engine.dialogue.listener import Heard
from paddock.engine.sampling.picker import Choice


@dataclass(slots=True)
class Told:
    """One turn."""

    started: list[int] = field(default_factory=list)
    progressed: list[int] = field(default_factory=list)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    """Fields of `request.Chunk`, and `id`; what is empty is left out."""
    done: list[dict[str, Any]] = field(default_factory=list)
    """`id`, `reason`, `usage`, `is_shortened`; `stop` where a stop string was met, and `tokens`
    where they are wanted."""
    n_tokens: int = 0
    """Size of the batch that was decoded."""
    n_sequences: int = 0
    n_waiting: int = 0
    n_cells_used: int = 0
    n_cells_shared: int = 0
    """Counted once for each holder but the first."""
    n_preempted: int = 0
    n_drafted: int = 0
    n_accepted: int = 0
    step_s: float = 0.0
    """Of the forward pass alone."""
    is_urgent: bool = False
    """Whether a request waits for it: its beginning, a chat's first token, or an end."""
    is_read: bool = False
    """Whether it has a part of an answer that is read as it comes."""

    def as_head(self) -> dict[str, Any]:
        """Give a frame's head; `dataclasses.asdict` would take 0.1 ms to copy what is ours."""
        return {name: getattr(self, name) for name in self.__slots__}

    def chunk(self, request_id: int, heard: Heard, choice: Choice | None) -> None:
        """Add a piece of an answer."""
        fields: dict[str, Any] = {
            "id": request_id,
            "text": heard.text,
            "n_tokens": int(choice is not None),
        }
        if heard.reasoning:
            fields["reasoning"] = heard.reasoning
        if heard.tool_calls:
            fields["tool_calls"] = [asdict(call) for call in heard.tool_calls]
        if choice is not None and choice.logprob is not None:
            fields["logprobs"] = [choice.logprob]
        self.chunks.append(fields)
