"""Tags that models put around their reasoning, where a template shows none. Pure."""

from __future__ import annotations

from paddock.engine.system.records import Struct


class ReasoningTags(Struct, frozen=True):
    opens: str
    closes: str


THINK_TAGS = ReasoningTags("<think>", "</think>")

KNOWN_TAGS: tuple[ReasoningTags, ...] = (
    THINK_TAGS,
    ReasoningTags("[THINK]", "[/THINK]"),
    ReasoningTags("<seed:think>", "</seed:think>"),
    ReasoningTags("<|START_THINKING|>", "<|END_THINKING|>"),
    ReasoningTags("<|channel>thought", "<channel|>"),
    ReasoningTags("<|inner_prefix|>", "<|inner_suffix|>"),
    ReasoningTags("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    ReasoningTags("<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    ReasoningTags("<thinking>", "</thinking>"),
    ReasoningTags("<reasoning>", "</reasoning>"),
    ReasoningTags("<thought>", "</thought>"),
)
