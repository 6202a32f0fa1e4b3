"""Render a conversation with the model's own chat template, safely.

What a document says must not be read as a turn of the conversation: texts that spell one of the
model's control tokens are taken out before rendering, wherever they stand (contents, tool results,
names, arguments, reasoning, descriptions of tools), and come back as plain text pieces, which are
tokenised without special tokens.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from paddock.engine.errors import BadRequest
from paddock.engine.request import Message, Think, Tool, ToolCall

from .forms import Tags
from .ollama_template import OllamaTemplate
from .probes import Manner, study
from .template import Refused, Template
from .templates import read_template
from .turns import MEDIA_MARK, build_turns, tool_turns

# Private-use characters that no template and hardly a document contains.
_OPEN, _CLOSE, _END = "\U000f5ade", "\U000f5adf", "\U000f5ae0"
_OWN = re.compile(f"[{_OPEN}{_CLOSE}{_END}]")


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A part of a rendered prompt; `is_literal`: control tokens in it are mere text."""

    text: str
    is_literal: bool


class ChatTemplate:
    """One model's template, compiled once, and studied when it is first used.

    Args:
        source: the template of the model file, Jinja's or Go's; None: ChatML.
        bos: the text of the token that begins a sequence.
        eos: the text of the token that ends one.
        control_tokens: the texts of all control tokens.
        ends: the texts of all tokens that end an answer.
        tool_source: a second template for requests with tools, where the file has one.
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
        self._plain = read_template(source, bos=bos, eos=eos)
        self._tools = read_template(tool_source, bos=bos, eos=eos) if tool_source else self._plain
        self._control_tokens = frozenset(control_tokens)
        self._ends = (eos, *ends)
        self._forged = _any_of([*control_tokens, MEDIA_MARK])

    @cached_property
    def manner(self) -> Manner:
        """How the model speaks, by its template."""
        return self._studied(self._tools)

    @cached_property
    def _plain_manner(self) -> Manner:
        return self.manner if self._tools is self._plain else self._studied(self._plain)

    def _studied(self, template: Template) -> Manner:
        try:
            return study(template, self._control_tokens, self._ends)
        except Refused as error:
            raise BadRequest(f"the model's chat template refuses this: {error}") from error

    def render(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] = (), think: Think | None = None
    ) -> tuple[TextPiece, ...]:
        """Render a conversation, ready for the assistant's answer.

        A conversation that ends with words of the assistant is left open there: the answer goes
        on with them. `think=False` closes reasoning at once where the template opens it
        regardless.

        Raises:
            BadRequest: the template refuses it, in its own words.
        """
        literals: list[str] = []
        safe = _Safe(self._forged, literals)
        tags = self.manner.tags
        told = [safe.message(_unfolded(one, tags)) for one in messages]
        text = self._rendered(told, [safe.tool(one) for one in tools], think)
        if think is False and self.opens_reasoning(text):
            text = f"{text.rstrip()}\n\n{self.manner.tags.closes}\n\n"
        return _put_back(text, literals)

    @property
    def inserts(self) -> bool:
        """Whether the template has a place for what comes after an answer (`.Suffix`)."""
        return isinstance(self._plain, OllamaTemplate) and "Suffix" in self._plain.names

    def render_insert(
        self, prompt: str, suffix: str, *, think: Think | None = None
    ) -> tuple[TextPiece, ...]:
        """Render what stands before and after an answer, for a template that `inserts`.

        Raises:
            BadRequest: the template refuses it.
        """
        assert isinstance(self._plain, OllamaTemplate)
        literals: list[str] = []
        safe = _Safe(self._forged, literals)
        try:
            text = self._plain.render_insert(
                safe.text(prompt), safe.text(suffix), **thinking(think)
            )
        except Refused as error:
            raise BadRequest(f"the model's chat template refuses this: {error}") from error
        return _put_back(text, literals)

    def opens_reasoning(self, prompt: str) -> bool:
        """Tell whether an answer to this prompt begins inside its reasoning."""
        return prompt.rstrip().endswith(self.manner.tags.opens)

    def _rendered(
        self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None
    ) -> str:
        calls = any(one.tool_calls or one.role == "tool" for one in messages)
        has_tools = bool(tools) or calls
        template = self._tools if has_tools else self._plain
        manner = self.manner if has_tools else self._plain_manner
        shown = tool_turns(tools) if manner.wants.shows_tools else []
        told = thinking(think, is_harmony=manner.is_harmony)

        def run(messages: Sequence[Message], *, is_open: bool) -> str:
            turns = build_turns(messages, tools, manner.wants, manner.forms[0])
            return template.render(turns, shown, is_open=is_open, **told)

        try:
            begun = _begun(messages)
            if begun:
                text, is_shown, _ = run(begun, is_open=False).rpartition(_END)
                if is_shown:
                    return text
            return run(messages, is_open=True)
        except Refused as error:
            raise BadRequest(f"the model's chat template refuses this: {error}") from error


def _begun(messages: Sequence[Message]) -> list[Message]:
    """Mark where an answer that is begun already goes on; empty: none is."""
    last = messages[-1] if messages else None
    if last is None or last.role != "assistant" or last.tool_calls or not last.content:
        return []
    return [*messages[:-1], replace(last, content=f"{last.content}{_END}")]


def _unfolded(message: Message, tags: Tags) -> Message:
    """Part an earlier answer that still has its reasoning before it, tags and all."""
    opens, found, text = message.content.lstrip().partition(tags.closes)
    if message.role != "assistant" or message.reasoning or not found:
        return message
    if not opens.startswith(tags.opens):
        return message
    reasoning = opens.removeprefix(tags.opens).strip()
    return replace(message, content=text.lstrip(), reasoning=reasoning)


def thinking(think: Think | None, *, is_harmony: bool = False) -> dict[str, Any]:
    """Give the variables by which templates are told whether to reason; none for None."""
    if think is None:
        return {}
    is_on = think is not False
    told: dict[str, Any] = {
        "enable_thinking": is_on,
        "thinking": is_on,
        "skip_thinking": not is_on,
        "thinking_mode": "enabled" if is_on else "disabled",
    }
    effort = think if isinstance(think, str) else None
    if is_harmony and think is False:
        effort = "low"  # gpt-oss cannot do without, only with less
    if effort:
        told |= {key: effort for key in ("reasoning_effort", "thinking_effort")}
    return told


class _Safe:
    """Takes what spells a control token out of everything that a request says."""

    def __init__(self, forged: re.Pattern[str] | None, literals: list[str]) -> None:
        self._forged = forged
        self._literals = literals

    def text(self, text: str) -> str:
        """Replace what spells a control token by a numbered mark."""
        text = _OWN.sub("", text)
        return text if self._forged is None else self._forged.sub(self._mark, text)

    def _mark(self, match: re.Match[str]) -> str:
        self._literals.append(match.group())
        return f"{_OPEN}{len(self._literals) - 1}{_CLOSE}"

    def value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(one) for one in value]
        return value

    def message(self, message: Message) -> Message:
        return replace(
            message,
            content=self.text(message.content),
            reasoning=self.text(message.reasoning),
            tool_name=self.text(message.tool_name),
            tool_call_id=self.text(message.tool_call_id),
            tool_calls=tuple(
                ToolCall(self.text(one.name), self.value(one.arguments), self.text(one.id))
                for one in message.tool_calls
            ),
        )

    def tool(self, tool: Tool) -> Tool:
        return Tool(
            self.text(tool.name), self.text(tool.description), self.value(dict(tool.parameters))
        )


def _any_of(words: Collection[str]) -> re.Pattern[str] | None:
    longest_first = sorted((word for word in words if word.strip()), key=len, reverse=True)
    if not longest_first:
        return None
    # Looking at the first character first: 256 alternatives at every place took 30 times as long.
    first = "".join(sorted({re.escape(word[0]) for word in longest_first}))
    return re.compile(f"(?=[{first}])(?:{'|'.join(map(re.escape, longest_first))})")


def _put_back(rendered: str, literals: Sequence[str]) -> tuple[TextPiece, ...]:
    """Cut a rendered prompt at the marks and set the literal texts in their places."""
    pieces = []
    for number, part in enumerate(re.split(f"{_OPEN}(\\d+){_CLOSE}", rendered)):
        is_literal = number % 2 == 1
        text = literals[int(part)] if is_literal else part
        if text:
            pieces.append(TextPiece(text, is_literal))
    return tuple(pieces)
