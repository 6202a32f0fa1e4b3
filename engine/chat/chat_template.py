"""The model's chat template: its language, what it supports, and safe rendering.

Text from a document must never become a turn of the conversation (`control_tokens`).

A template comes with a model file or a request, so it is untrusted code. Jinja2's own sandbox
guards attributes; this one counts each loop turn, call, filter, operator and literal, and refuses
a huge value before it is made. Unlike the sandbox of pipelines, it lets templates change their
lists, as Kimi's does; they get copies.

A template shows only some capabilities of its model (tools, insert, thinking): embedding, vision
and fill-in-the-middle tokens are in the model file.
"""

from __future__ import annotations

import copy
import datetime
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, lru_cache, wraps
from typing import Any, Literal

from jinja2 import Environment, TemplateError, TemplateSyntaxError, Undefined, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context

from paddock.engine.errors import BadRequest
from paddock.engine.request import Message, Think, Tool
from paddock.engine.system.template_limits import (
    MeteredEnvironment,
    TemplateLimitExceeded,
    TemplateMeter,
    check_bits,
    check_values,
)
from paddock.engine.system.text import map_texts

from .control_tokens import MARK_END, ControlTokenRemover, TextPiece, any_of_pattern, with_literals
from .ollama_template import OllamaTemplate
from .reasoning_tags import ReasoningTags
from .template_messages import (
    MEDIA_MARK,
    CompiledTemplate,
    TemplateExhausted,
    TemplateRefused,
    TemplateTurn,
    place_messages,
    prompt_meter,
    template_turns,
    tool_definitions,
)
from .template_probe import ChatFormat, carries, probe_template

MOST_MESSAGES = 10_000  # OpenAI takes 2,048; for so many a template takes 1 s
MAX_WIDTH = 10_000  # of padding
MAX_WRAP_CHARS = 100_000  # `wordwrap(1)` of a word takes 0.1 s for so many, and 13 s for a million

_LARGE_WIDTH = re.compile(r"\d{4,}|\*|\{[^{}]*\{")
"""In a format: a large width, or one that comes from an argument."""
_SIZED_FILTERS = frozenset(
    ("batch", "center", "expandtabs", "indent", "ljust", "rjust", "slice", "tojson", "truncate",
     "wordwrap", "zfill")
)  # fmt: skip
"""Filters and methods whose number arguments determine the size of the result."""
_RECURSIVE_FILTERS = frozenset(("join", "pprint", "string", "tojson", "urlencode", "xmlattr"))
"""Filters that visit everything in a value."""


class JinjaSandbox(MeteredEnvironment):
    """One template's environment; one thread renders in it at a time."""

    def __init__(self, **options: Any) -> None:
        super().__init__(optimized=False, finalize=self.made, **options)
        del self.globals["lipsum"]
        self.filters = {
            name: self._bounded(name, function) for name, function in self.filters.items()
        }
        self.filters["_turns"] = self._turns
        self.begin()

    @property
    def meter(self) -> TemplateMeter:
        return self._meter

    def begin(self, meter: TemplateMeter | None = None) -> None:
        """Reset the meter for a new rendering."""
        self._meter = meter or TemplateMeter()

    def add_filter(self, name: str, act: Callable[..., Any]) -> None:
        self.filters[name] = self._bounded(name, act)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        match left, operator, right:
            case str() | list() | tuple(), "*", int():
                self._meter.add_text(len(left) * max(right, 0))
            case int(), "*", str() | list() | tuple():
                self._meter.add_text(len(right) * max(left, 0))
            case int(), "**", int():
                check_bits(left.bit_length() * abs(right))
            case str(), "%", _:
                _check_format(left)
            case str(), "+", str():
                self._meter.add_text(len(left) + len(right))
        return self.made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **named: Any) -> Any:
        # The object of a bound method; Jinja2's sandbox wraps methods that format texts.
        method_owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        owner, name = method_owner, getattr(__obj, "__name__", "")
        if isinstance(owner, str):
            __self._before_text(name, owner, [*args, *named.values()])
        elif isinstance(owner, list | dict):
            for argument in (*args, *named.values()):
                _check_nested_values(argument)  # it becomes part of the list or mapping
        return __self.made(super().call(__context, __obj, *args, **named))

    def _bounded(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter with checks before and a count after each call."""

        @wraps(act)
        def bounded(*args: Any, **named: Any) -> Any:
            given = [*args, *named.values()]
            texts = [argument for argument in given if isinstance(argument, str)]
            if name in _RECURSIVE_FILTERS:
                for argument in given:
                    _check_nested_values(argument)
            if texts:
                rest = [argument for argument in given if argument is not texts[0]]
                self._before_text(name, texts[0], rest)
            elif name in _SIZED_FILTERS:
                _check_widths(given)
            return self.made(act(*args, **named))

        return bounded

    def _before_text(self, name: str, text: str, others: Sequence[Any]) -> None:
        """Refuse a call that would make a huge text."""
        if name in _SIZED_FILTERS:
            _check_widths(others)
            if name == "wordwrap" and len(text) > MAX_WRAP_CHARS:
                raise TemplateLimitExceeded(
                    f"it wraps a text of more than {MAX_WRAP_CHARS:,} characters"
                )
        elif name in ("format", "format_map"):
            _check_format(text)
        elif name == "join" and len(text) > MAX_WIDTH:
            raise TemplateLimitExceeded("it joins by too long a text")
        elif name == "replace":
            words = [other for other in others if isinstance(other, str)]
            if len(words) > 1:
                self._meter.add_text(len(text) + text.count(words[0]) * len(words[1]))


def _check_widths(values: Iterable[Any]) -> None:
    if any(isinstance(value, int | float) and not value <= MAX_WIDTH for value in values):
        raise TemplateLimitExceeded(f"widths above {MAX_WIDTH:,} are not possible here")


def _check_format(text: str) -> None:
    if _LARGE_WIDTH.search(text):
        raise TemplateLimitExceeded("large widths in a format are not possible here")


def _check_nested_values(value: Any) -> None:
    if isinstance(value, list | tuple | dict):
        check_values(value)


# For models without a template: ChatML, which most instruction-tuned models have seen.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class JinjaTemplate:
    """One compiled template."""

    def __init__(self, source: str | None, *, bos: str, eos: str) -> None:
        self.source = source or CHATML
        environment = JinjaSandbox(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _GenerationTag],
        )
        environment.add_filter("tojson", _to_json)
        environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        try:
            self._template = environment.from_string(
                environment.with_metered_loops(environment.parse(self.source))
            )
        except Exception as error:  # untrusted code can raise anything
            raise BadRequest(f"the model's chat template cannot be read: {error}") from error
        self._environment = environment
        self._special = {"bos_token": bos, "eos_token": eos}

    def render(
        self,
        turns: Sequence[TemplateTurn],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        is_open: bool = True,
        n_ctx_tokens: int = 0,
        **variables: Any,
    ) -> str:
        """Render a conversation; `is_open`: end it where the assistant's answer begins.

        `n_ctx_tokens` limits the output (`prompt_meter`).

        Raises:
            TemplateRefused: in the template's own words.
        """

        def rendered(shown: Mapping[str, Any]) -> str:
            self._environment.begin(prompt_meter(n_ctx_tokens, turns, tools))
            try:
                return self._template.render(copy.deepcopy({**shown, "messages": list(turns)}))
            except TemplateLimitExceeded as error:
                raise TemplateExhausted(str(error)) from error
            except Exception as error:  # untrusted code can raise anything
                raise TemplateRefused(str(error)) from error

        variables = {"add_generation_prompt": is_open, **self._special, **variables}
        # Other names of the same values.
        variables["functions"] = json.dumps(list(tools), ensure_ascii=False, indent=4)
        variables.setdefault("datetime", _strftime_now("%b %d %Y %H:%M:%S"))
        if tools:
            shown = list(tools)
            return rendered({**variables, "tools": shown, "xml_tools": shown})
        try:
            return rendered({**variables, "tools": None})
        except TemplateExhausted:
            raise
        except TemplateRefused:
            # Some were written for requests with tools only, and iterate over `tools` regardless.
            return rendered({**variables, "tools": []})


class _GenerationTag(Extension):
    """`{% generation %}` marks text for training; here it has no effect."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.datetime.now().astimezone().strftime(layout)


def _to_json(
    value: Any,
    indent: int | None = None,
    ensure_ascii: bool = False,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return JSON as Hugging Face's templates expect it: not escaped for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=(separators[0], separators[1]) if separators else None,
        sort_keys=sort_keys,
        default=_without_undefined,
    )


def _without_undefined(value: Any) -> Any:
    if isinstance(value, Undefined):
        return None
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


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


# A list of models reads all of them: with fewer places than models, each would be read every time.
@lru_cache(maxsize=256)
def template_capabilities(source: str | None) -> frozenset[TemplateCapability]:
    """Return what a template supports; reading it takes 2 to 15 ms.

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
    if isinstance(template, OllamaTemplate):
        found |= {"tools"} if "Tools" in template.names else set()
        found |= {"insert"} if "Suffix" in template.names else set()
    else:
        environment = Environment(extensions=["jinja2.ext.loopcontrols"])
        try:
            expected = meta.find_undeclared_variables(environment.parse(source))
        except TemplateSyntaxError:  # tags of Hugging Face's own, such as `generation`
            expected = set(re.findall(r"\b(?:xml_)?tools\b", source))
        # Some (DeepSeek's) render calls alone; tools are then described in a system turn.
        if "tool_calls" in source or expected & {"tools", "xml_tools", "functions"}:
            found.add("tools")
    if isinstance(template, OllamaTemplate) and not template.names & {"Thinking", "Think"}:
        return frozenset(found)
    if _REASONING_WORDS.search(template.source):
        with suppress(TemplateRefused):
            chat_format = probe_template(template)
            if chat_format.may_reason or chat_format.is_harmony:
                found.add("thinking")
    return frozenset(found)


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
        self._forged = any_of_pattern([*control_tokens, MEDIA_MARK])

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

    @property
    def inserts(self) -> bool:
        """Whether the template has a place for the text after an answer (`.Suffix`)."""
        return isinstance(self._plain, OllamaTemplate) and "Suffix" in self._plain.names

    def render_insert(
        self, prompt: str, suffix: str, *, think: Think | None = None, n_ctx_tokens: int = 0
    ) -> tuple[TextPiece, ...]:
        """Render the texts before and after an answer, for a template that `inserts`.

        Raises:
            BadRequest: the template refuses it.
        """
        assert isinstance(self._plain, OllamaTemplate)
        literals: list[str] = []
        safe = ControlTokenRemover(self._forged, literals)
        try:
            text = self._plain.render_insert(
                safe.text(prompt),
                safe.text(suffix),
                n_ctx_tokens=n_ctx_tokens,
                **thinking_variables(think),
            )
        except TemplateRefused as error:
            raise BadRequest(f"the model's chat template refuses this: {error}") from error
        return with_literals(text, literals)

    def opens_reasoning(self, prompt: str) -> bool:
        """Return whether an answer to this prompt begins inside its reasoning."""
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
