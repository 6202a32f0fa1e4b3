"""Ask a model once that may want tools called, and call none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paddock.engine.request import Message
from paddock.steps.answers.asking import Asker
from paddock.steps.step import StepError

from .offering import ChatTool, Offer, offers, spoken
from .speech import speech_for


@dataclass(frozen=True, slots=True)
class Wish:
    """What the model said, and what it wants called."""

    text: str
    calls: tuple[dict[str, Any], ...]
    reasoning: str


async def wished(
    asker: Asker, messages: Sequence[Message], tools: Sequence[str | ChatTool], choice: str
) -> Wish:
    """Ask once.

    Raises:
        StepError: there is no such tool.
        EngineError: the prompt does not fit with its tools, or the pool could not do it.
    """
    found = {one.said.name: one for one in await offers(tools, asker.tools.toolset)}
    facts = await asker.tools.pool.facts(asker.model)
    said = [one.said for one in found.values()]
    speech = speech_for(asker, said, facts.takes_tools, warns=False)
    opened = speech.opened(messages)
    overflow = await asker.overflow(opened, speech.tools)
    if overflow is not None:
        raise overflow
    answer = await speech.ask(opened, choice=chosen(choice, found.values()))
    calls = [
        _written(call.name, dict(call.arguments), number, found.get(call.name))
        for number, call in enumerate(answer.calls, start=1)
    ]
    return Wish(answer.text, tuple(calls), answer.reply.reasoning)


def chosen(choice: str, offered: Sequence[Offer] | Any) -> str:
    """Give the choice by the name that the model knows.

    Raises:
        StepError: the tool that must be called is not offered.
    """
    if choice in ("auto", "none", "required"):
        return choice
    for one in offered:
        own = one.bound.name if one.bound is not None else one.said.name
        if choice in (own, spoken(own), one.said.name):
            return str(one.said.name)
    known = ", ".join(f"'{one.said.name}'" for one in offered)
    raise StepError(f"`tool_choice: {choice}` names no tool that is offered. Known: {known}.")


def _written(
    name: str, arguments: dict[str, Any], number: int, offer: Offer | None
) -> dict[str, Any]:
    """Write down a call by the tool's own name; ids are the same in every run."""
    bound = offer.bound if offer is not None else None
    call = {
        "name": bound.name if bound is not None else name,
        "arguments": arguments,
        "id": f"call_{number}",
    }
    return {**call, "server": bound.server} if bound is not None and bound.server else call
