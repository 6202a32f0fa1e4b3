"""A model's chat template: what it supports, and prompts in which no text forges a turn.

Text from a document must never become a turn of the conversation (`control_tokens`).

A template shows only some capabilities of its model (tools, thinking): embedding, vision and
fill-in-the-middle tokens are in the model file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, Literal

from paddock.engine.errors import BadRequest
from paddock.engine.request import Message, Think, Tool
from paddock.engine.system.records import replace
from paddock.engine.system.text import map_texts

from .control_tokens import MARK_END, ControlTokenRemover, TextPiece, any_of_pattern, with_literals
from .jinja_template import JinjaTemplate
from .known_templates import CHATML, served_template
from .reasoning_tags import ReasoningTags
from .template_messages import (
    MEDIA_MARK,
    TemplateRefused,
    place_messages,
    template_turns,
    tool_definitions,
)
from .template_probe import ChatFormat, carries, probe_template

MOST_MESSAGES = 10_000  # OpenAI takes 2,048; for so many a template takes 1 s


TemplateCapability = Literal["tools", "thinking"]

# A template without any of these words has no reasoning; probing it costs some milliseconds.
_REASONING_WORDS = re.compile(r"think|reason|thought|<\|channel\|>", re.IGNORECASE)


def template_capabilities(own: str | None, of_file: str | None) -> frozenset[TemplateCapability]:
    """Return what a model's template supports; reading it takes 2 to 15 ms.

    `tools`: it renders tools; `thinking`: it opens or closes reasoning. Without a template, or if
    it cannot be parsed: nothing. `own` and `of_file` are those of `served_template`.
    """
    try:
        source = served_template(own, of_file)
        if not source:
            return frozenset()
        template = JinjaTemplate(source)
        expected = template.variables()
    except (BadRequest, RecursionError):
        return frozenset()
    found: set[TemplateCapability] = set()
    # Some (DeepSeek's) render calls alone; tools are then described in a system turn.
    if "tool_calls" in source or expected & {"tools", "xml_tools", "functions"}:
        found.add("tools")
    if _REASONING_WORDS.search(source):
        with suppress(TemplateRefused):
            chat_format = probe_template(template)
            if chat_format.may_reason or chat_format.is_harmony:
                found.add("thinking")
    return frozenset(found)


class ChatTemplate:
    """One model's template, compiled once, and probed when it is first used.

    `source` is in Jinja; None: ChatML. `ends`: texts of the tokens that end an answer;
    `tool_source`: a second template for requests with tools, where the file has one.
    """

    def __init__(
        self,
        source: str | None,
        *,
        bos: str,
        eos: str,
        control_tokens: Collection[str] = (),
        ends: Sequence[str] = (),
        tool_source: str | None = None,
    ) -> None:
        self._plain = JinjaTemplate(source or CHATML, bos=bos, eos=eos)
        self._tools = JinjaTemplate(tool_source, bos=bos, eos=eos) if tool_source else self._plain
        self._control_tokens = frozenset(control_tokens)
        self._ends = (eos, *ends)
        self._forged = any_of_pattern([*control_tokens, MEDIA_MARK])

    @cached_property
    def chat_format(self) -> ChatFormat:
        """Rules, tags and tool-call formats that the template shows."""
        return self._probed(self._tools)

    @cached_property
    def _plain_format(self) -> ChatFormat:
        return self.chat_format if self._tools is self._plain else self._probed(self._plain)

    def _probed(self, template: JinjaTemplate) -> ChatFormat:
        try:
            return probe_template(template, self._control_tokens, self._ends)
        except TemplateRefused as error:
            raise BadRequest(f"the model's chat template refuses this: {error}") from error

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        think: Think | None = None,
        variables: Mapping[str, Any] | None = None,
        n_ctx_tokens: int = 0,
    ) -> tuple[TextPiece, ...]:
        """Render a conversation, ready for the assistant's answer.

        A conversation that ends with text of the assistant is left open there: the answer
        continues it. `think=False` closes reasoning at once where the template opens it anyway.
        `n_ctx_tokens` limits the output (`prompt_meter`); `variables`: others than those here.

        Raises:
            BadRequest: the template refuses it, in its own words, or reads no `documents`.
        """
        if (n := len(messages)) > MOST_MESSAGES:
            raise BadRequest(f"a conversation has at most {MOST_MESSAGES:,} messages, not {n:,}")
        literals: list[str] = []
        safe = ControlTokenRemover(self._forged, literals)
        tags = self.chat_format.tags
        turns = [safe.message(_with_split_reasoning(message, tags)) for message in messages]
        given = map_texts(variables or {}, safe.text)
        shown = [safe.tool(tool) for tool in tools]
        text = self._rendered(turns, shown, think, given, n_ctx_tokens)
        if think is False and self.opens_reasoning(text):
            text = f"{text.rstrip()}\n\n{self.chat_format.tags.closes}\n\n"
        return with_literals(text, literals, self._forged)

    def opens_reasoning(self, prompt: str) -> bool:
        return prompt.rstrip().endswith(self.chat_format.tags.opens)

    def _rendered(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        think: Think | None,
        given: Mapping[str, Any],
        n_ctx_tokens: int,
    ) -> str:
        calls = any(message.tool_calls or message.role == "tool" for message in messages)
        has_tools = bool(tools) or calls
        template = self._tools if has_tools else self._plain
        chat_format = self.chat_format if has_tools else self._plain_format
        shown = tool_definitions(tools) if chat_format.rules.shows_tools else []
        variables = thinking_variables(think, is_harmony=chat_format.is_harmony) | dict(given)
        if "documents" in given and "documents" not in template.source:
            raise BadRequest(
                "the model's chat template reads no `documents`; put the texts into a message"
            )

        def run(messages: Sequence[Message], *, is_open: bool) -> str:
            turns = template_turns(messages, tools, chat_format.rules, chat_format.formats[0])
            return template.render(
                turns, shown, is_open=is_open, n_ctx_tokens=n_ctx_tokens, **variables
            )

        try:
            messages = place_messages(
                messages, lambda role, place: carries(template, chat_format, role, place, has_tools)
            )
            last = messages[-1] if messages else None
            if last and last.role == "assistant" and last.content and not last.tool_calls:
                marked = replace(last, content=f"{last.content}{MARK_END}")
                begun = [*messages[:-1], marked]
                text, found, _ = run(begun, is_open=False).rpartition(MARK_END)
                if found:
                    return text
            return run(messages, is_open=True)
        except TemplateRefused as error:
            raise BadRequest(f"the model's chat template refuses this: {error}") from error


def _with_split_reasoning(message: Message, tags: ReasoningTags) -> Message:
    opens, found, text = message.content.lstrip().partition(tags.closes)
    if message.role != "assistant" or message.reasoning or not found:
        return message
    if not opens.startswith(tags.opens):
        return message
    reasoning = opens.removeprefix(tags.opens).strip()
    return replace(message, content=text.lstrip(), reasoning=reasoning)


def thinking_variables(think: Think | None, *, is_harmony: bool = False) -> dict[str, Any]:
    """Return the template variables that switch reasoning; none for None."""
    if think is None:
        return {}
    is_on = think is not False
    variables: dict[str, Any] = {
        "enable_thinking": is_on,
        "thinking": is_on,
        "skip_thinking": not is_on,
        "thinking_mode": "enabled" if is_on else "disabled",
    }
    effort = think if isinstance(think, str) else None
    if is_harmony and think is False:
        effort = "low"  # gpt-oss cannot switch reasoning off
    if effort:
        variables |= {key: effort for key in ("reasoning_effort", "thinking_effort")}
    return variables
