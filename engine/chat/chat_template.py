"""The model's chat template: its language, what it supports, and safe rendering.

Text from a document must never become a turn of the conversation: strings that spell one of the
model's control tokens are replaced by marks before rendering, wherever they occur (contents, tool
results, names, arguments, reasoning, tool descriptions). They come back as literal text pieces,
which are tokenised without special tokens.

A template shows only some capabilities of its model (tools, insert, thinking): embedding, vision
and fill-in-the-middle tokens are in the model file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from jinja2 import Environment, TemplateSyntaxError, meta

from paddock.engine.errors import BadRequest
from paddock.engine.request import Message, Think, Tool, ToolCall

from .jinja_template import JinjaTemplate
from .ollama_template import OllamaTemplate
from .template_messages import (
    MEDIA_MARK,
    CompiledTemplate,
    TemplateRefused,
    template_turns,
    tool_definitions,
)
from .template_probe import ChatFormat, probe_template
from .tool_formats import ReasoningTags

_TEMPLATE_ACTION = re.compile(r"\{\{(.*?)(?:\}\}|\Z)", re.DOTALL)
_QUOTED_TEXT = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|`[^`]*`", re.DOTALL)
# What only Go templates have: a field with nothing before its dot, a variable with `$`, and
# keywords that Jinja writes between other brackets.
_GO_SYNTAX = re.compile(
    r"(?<![\w)\]\"'.])\.[A-Z]|\$|^-?\s*(?:range|if|else|end|with|define|block|template)\b|^-?\s*/\*"
)
_JINJA_STATEMENT = re.compile(r"\{%[-+]?\s*\w")


def is_go_template(source: str) -> bool:
    """Return whether a template is written in Go's language, as Ollama's are, and not in Jinja's.

    >>> is_go_template("{{ .Prompt }}"), is_go_template("{{ prompt.Text }}")
    (True, False)
    """
    actions = (_QUOTED_TEXT.sub('""', found) for found in _TEMPLATE_ACTION.findall(source))
    return any(map(_GO_SYNTAX.search, actions)) and _JINJA_STATEMENT.search(source) is None


def read_template(source: str | None, *, bos: str = "", eos: str = "") -> CompiledTemplate:
    """Compile a template; None: ChatML.

    Raises:
        BadRequest: it cannot be parsed.
    """
    if source and is_go_template(source):
        return OllamaTemplate(source)
    return JinjaTemplate(source, bos=bos, eos=eos)


TemplateCapability = Literal["tools", "insert", "thinking"]

# A template without any of these words has no reasoning; probing it costs some milliseconds.
_REASONING_WORDS = re.compile(r"think|reason|thought|<\|channel\|>", re.IGNORECASE)


def template_capabilities(source: str | None) -> frozenset[TemplateCapability]:
    """Return what a template supports.

    `tools`: it renders tools; `insert`: it has a place for the text after an answer; `thinking`:
    it opens or closes reasoning. Without a template, or if it cannot be parsed: nothing.
    """
    if not source:
        return frozenset()
    try:
        template = read_template(source)
    except BadRequest:
        return frozenset()
    found: set[TemplateCapability] = set()
    if _supports_tools(template):
        found.add("tools")
    if isinstance(template, OllamaTemplate) and "Suffix" in template.names:
        found.add("insert")
    if _supports_reasoning(template):
        found.add("thinking")
    return frozenset(found)


def _supports_tools(template: CompiledTemplate) -> bool:
    if isinstance(template, OllamaTemplate):
        return "Tools" in template.names
    # Some (DeepSeek's) render calls alone; tools are then described in a system turn.
    names = {"tools", "xml_tools", "functions"}
    return "tool_calls" in template.source or bool(_undeclared_variables(template.source) & names)


def _undeclared_variables(source: str) -> set[str]:
    """Return the variables that a Jinja template expects."""
    environment = Environment(extensions=["jinja2.ext.loopcontrols"])
    try:
        return meta.find_undeclared_variables(environment.parse(source))
    except TemplateSyntaxError:  # tags of Hugging Face's own, such as `generation`
        return set(re.findall(r"\b(?:xml_)?tools\b", source))


def _supports_reasoning(template: CompiledTemplate) -> bool:
    if not _REASONING_WORDS.search(template.source):
        return False
    if isinstance(template, OllamaTemplate) and not template.names & {"Thinking", "Think"}:
        return False
    try:
        chat_format = probe_template(template)
    except TemplateRefused:
        return False
    return chat_format.may_reason or chat_format.is_harmony


# Private-use characters that no template and hardly a document contains.
_MARK_OPENS, _MARK_CLOSES, _MARK_END = "\U000f5ade", "\U000f5adf", "\U000f5ae0"
_ALL_MARKS = re.compile(f"[{_MARK_OPENS}{_MARK_CLOSES}{_MARK_END}]")


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A part of a rendered prompt; `is_literal`: control tokens in it are plain text."""

    text: str
    is_literal: bool


class ChatTemplate:
    """One model's template, compiled once, and probed when it is first used.

    `source` is in Jinja or Go; None: ChatML. `ends`: texts of the tokens that end an answer;
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
        self._plain = read_template(source, bos=bos, eos=eos)
        self._tools = read_template(tool_source, bos=bos, eos=eos) if tool_source else self._plain
        self._control_tokens = frozenset(control_tokens)
        self._ends = (eos, *ends)
        self._forged = _any_of_pattern([*control_tokens, MEDIA_MARK])

    @cached_property
    def chat_format(self) -> ChatFormat:
        """Rules, tags and tool-call formats that the template shows."""
        return self._probed(self._tools)

    @cached_property
    def _plain_format(self) -> ChatFormat:
        return self.chat_format if self._tools is self._plain else self._probed(self._plain)

    def _probed(self, template: CompiledTemplate) -> ChatFormat:
        try:
            return probe_template(template, self._control_tokens, self._ends)
        except TemplateRefused as error:
            raise BadRequest(f"the model's chat template refuses this: {error}") from error

    def render(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] = (), think: Think | None = None
    ) -> tuple[TextPiece, ...]:
        """Render a conversation, ready for the assistant's answer.

        A conversation that ends with text of the assistant is left open there: the answer
        continues it. `think=False` closes reasoning at once where the template opens it anyway.

        Raises:
            BadRequest: the template refuses it, in its own words.
        """
        literals: list[str] = []
        safe = _ControlTokenRemover(self._forged, literals)
        tags = self.chat_format.tags
        turns = [safe.message(_with_split_reasoning(one, tags)) for one in messages]
        text = self._rendered(turns, [safe.tool(one) for one in tools], think)
        if think is False and self.opens_reasoning(text):
            text = f"{text.rstrip()}\n\n{self.chat_format.tags.closes}\n\n"
        return _with_literals(text, literals)

    @property
    def inserts(self) -> bool:
        """Whether the template has a place for the text after an answer (`.Suffix`)."""
        return isinstance(self._plain, OllamaTemplate) and "Suffix" in self._plain.names

    def render_insert(
        self, prompt: str, suffix: str, *, think: Think | None = None
    ) -> tuple[TextPiece, ...]:
        """Render the texts before and after an answer, for a template that `inserts`.

        Raises:
            BadRequest: the template refuses it.
        """
        assert isinstance(self._plain, OllamaTemplate)
        literals: list[str] = []
        safe = _ControlTokenRemover(self._forged, literals)
        try:
            text = self._plain.render_insert(
                safe.text(prompt), safe.text(suffix), **thinking_variables(think)
            )
        except TemplateRefused as error:
            raise BadRequest(f"the model's chat template refuses this: {error}") from error
        return _with_literals(text, literals)

    def opens_reasoning(self, prompt: str) -> bool:
        """Return whether an answer to this prompt begins inside its reasoning."""
        return prompt.rstrip().endswith(self.chat_format.tags.opens)

    def _rendered(
        self, messages: Sequence[Message], tools: Sequence[Tool], think: Think | None
    ) -> str:
        calls = any(one.tool_calls or one.role == "tool" for one in messages)
        has_tools = bool(tools) or calls
        template = self._tools if has_tools else self._plain
        chat_format = self.chat_format if has_tools else self._plain_format
        shown = tool_definitions(tools) if chat_format.rules.shows_tools else []
        variables = thinking_variables(think, is_harmony=chat_format.is_harmony)

        def run(messages: Sequence[Message], *, is_open: bool) -> str:
            turns = template_turns(messages, tools, chat_format.rules, chat_format.formats[0])
            return template.render(turns, shown, is_open=is_open, **variables)

        try:
            begun = _with_begun_answer_mark(messages)
            if begun:
                text, found, _ = run(begun, is_open=False).rpartition(_MARK_END)
                if found:
                    return text
            return run(messages, is_open=True)
        except TemplateRefused as error:
            raise BadRequest(f"the model's chat template refuses this: {error}") from error


def _with_begun_answer_mark(messages: Sequence[Message]) -> list[Message]:
    """Return messages with the end of a begun answer marked; empty: the last is no answer."""
    last = messages[-1] if messages else None
    if last is None or last.role != "assistant" or last.tool_calls or not last.content:
        return []
    return [*messages[:-1], replace(last, content=f"{last.content}{_MARK_END}")]


def _with_split_reasoning(message: Message, tags: ReasoningTags) -> Message:
    """Split an earlier answer whose content still begins with its reasoning and tags."""
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


class _ControlTokenRemover:
    """Replaces control tokens in all texts of a request by marks."""

    def __init__(self, forged: re.Pattern[str] | None, literals: list[str]) -> None:
        self._forged = forged
        self._literals = literals

    def text(self, text: str) -> str:
        """Replace each text of a control token by a numbered mark."""
        text = _ALL_MARKS.sub("", text)
        return text if self._forged is None else self._forged.sub(self._mark, text)

    def _mark(self, match: re.Match[str]) -> str:
        self._literals.append(match.group())
        return f"{_MARK_OPENS}{len(self._literals) - 1}{_MARK_CLOSES}"

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


def _any_of_pattern(words: Collection[str]) -> re.Pattern[str] | None:
    longest_first = sorted((word for word in words if word.strip()), key=len, reverse=True)
    if not longest_first:
        return None
    # The first character is tested first: 256 alternatives at every place took 30 times as long.
    first = "".join(sorted({re.escape(word[0]) for word in longest_first}))
    return re.compile(f"(?=[{first}])(?:{'|'.join(map(re.escape, longest_first))})")


def _with_literals(rendered: str, literals: Sequence[str]) -> tuple[TextPiece, ...]:
    """Split a rendered prompt at the marks and put the literal texts back."""
    pieces = []
    for number, part in enumerate(re.split(f"{_MARK_OPENS}(\\d+){_MARK_CLOSES}", rendered)):
        is_literal = number % 2 == 1
        text = literals[int(part)] if is_literal else part
        if text:
            pieces.append(TextPiece(text, is_literal))
    return tuple(pieces)
