"""What an answer must match, and who listens to it: by the request, and by how the model speaks.

Pure. Knows no tokens but those that stand for tags and channels.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from paddock.engine.errors import BadRequest
from paddock.engine.request import ChatRequest, Constraint, Sampling, Tool

from .ear import AnswerListener, Ways
from .forced import (
    Beginning,
    after_analysis,
    after_reasoning,
    force_call,
    force_harmony_call,
)
from .harmony import HARMONY_TOKENS, HarmonyListener
from .listener import Listener
from .probes import Manner


def wanted_tools(request: ChatRequest) -> tuple[Tool, ...]:
    """Give the tools of which one must be called; empty: none must.

    Raises:
        BadRequest: the choice names no tool of the request.
    """
    choice = request.tool_choice
    if choice in ("auto", "none"):
        return ()
    if choice == "required":
        if not request.tools:
            raise BadRequest("a tool must be called (tool_choice: required), but none is offered")
        return request.tools
    named = tuple(tool for tool in request.tools if tool.name == choice)
    if not named:
        known = ", ".join(f"'{tool.name}'" for tool in request.tools) or "none"
        raise BadRequest(f"the tool '{choice}' must be called, but is not offered. Known: {known}.")
    return named


def listener_for(
    manner: Manner, tools: tuple[Tool, ...], sampling: Sampling, *, is_inside: bool
) -> Listener:
    """Give who hears an answer; `is_inside`: it begins within its reasoning."""
    if manner.is_harmony:
        return HarmonyListener(sampling.stop, new_call_id)
    ways = Ways(
        manner.tags,
        manner.forms if tools else (),
        {tool.name: tool for tool in tools},
        manner.wrappers,
        is_inside,
    )
    return AnswerListener(ways, sampling.stop, new_call_id)


def shown_tokens(manner: Manner, specials: Mapping[str, int], *, has_tools: bool) -> frozenset[int]:
    """Give the control tokens that stand in anything that is listened for."""
    if manner.is_harmony:
        return frozenset(specials[text] for text in HARMONY_TOKENS if text in specials)
    texts = [manner.tags.opens, manner.tags.closes]
    if has_tools:
        texts += [text for form in manner.forms for text in form.literals]
        if any("gemma" in form.reads for form in manner.forms):
            texts += ['<|"|>', "<escape>"]
    whole = "\n".join(texts)
    return frozenset(token for text, token in specials.items() if text in whole)


def constraint_of(
    request: ChatRequest,
    manner: Manner,
    wanted: tuple[Tool, ...],
    specials: Mapping[str, int],
    *,
    is_inside: bool,
) -> Constraint | None:
    """Give what the answer must match; reasoning may come before it."""
    may_reason = manner.may_reason and request.think is not False
    beginning = Beginning(manner.tags, is_inside, may_reason)
    if wanted:
        if manner.is_harmony:
            return force_harmony_call(wanted, specials)
        return force_call(manner.forms[0], wanted, beginning, specials)
    if request.constraint is None:
        return None
    if manner.is_harmony:
        return after_analysis(request.constraint, specials)
    return after_reasoning(request.constraint, beginning, specials)


def new_call_id() -> str:
    """Make an id for a tool call: nine letters and digits, as Mistral's templates insist."""
    return f"c{secrets.token_hex(4)}"
