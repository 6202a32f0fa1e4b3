"""Tool-call formats: how a model writes a call, and the formats of known models. Pure.

A format is a sequence of literal texts and placeholders. `template_probe` derives a format where
the template shows one. The known formats are for templates that show none; each comes from its
makers' documentation or from real answers. A hint (a word of the template or the vocabulary)
identifies the model family. The known reasoning tags are here too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from paddock.engine.request import ToolCall

Placeholder = Literal["name", "id", "index", "args", "params", "calls", "python", "gemma"]
"""`calls`: JSON of whole calls; `python`: a list of Python calls; `gemma`: Gemma's values; `args`:
JSON arguments; `params`: named values between tags; `index`: a number that is ignored.
"""

_PLACEHOLDERS: Mapping[str, Placeholder] = {name: name for name in get_args(Placeholder)}


@dataclass(frozen=True, slots=True)
class LiteralText:
    """A fixed text."""

    text: str


FormatPart = LiteralText | Placeholder


@dataclass(frozen=True, slots=True)
class ParameterFormat:
    """One named value: `opens` key `names` value `closes`."""

    opens: str
    names: str
    """Between a key and a string."""
    closes: str
    names_other: str = ""
    """Between a key and a value that is no string, where it differs."""

    @property
    def read_names(self) -> str:
        """The common end of `names` and `names_other`, after the key's attributes."""
        if not self.names_other:
            return self.names.strip()
        common = self.names
        while not self.names_other.endswith(common):
            common = common[1:]
        return common[max(common.find('"'), 0) :].strip()

    def between(self, *, is_text: bool) -> str:
        """Return the text between a key and its value."""
        return self.names if is_text or not self.names_other else self.names_other


@dataclass(frozen=True, slots=True)
class ToolCallFormat:
    """One way to write calls."""

    reads: tuple[FormatPart, ...]
    """What is parsed in an answer, up to the end of the arguments."""
    writes: tuple[FormatPart, ...]
    """How one call is written in full: for grammars and for earlier turns."""
    section_opens: str = ""
    """Comes once, before the first call."""
    section_closes: str = ""
    param: ParameterFormat | None = None

    @property
    def is_bare(self) -> bool:
        """Whether no literal text announces a call."""
        return not self.section_opens.strip() and not isinstance(self.reads[0], LiteralText)

    @property
    def continues_bare(self) -> bool:
        """Whether a second call may follow unannounced."""
        return not isinstance(self.reads[0], LiteralText)

    @property
    def triggers(self) -> tuple[str, ...]:
        """The first words of the texts that announce a call."""
        first = self.reads[0].text if isinstance(self.reads[0], LiteralText) else ""
        return tuple(_first_word(one) for one in (self.section_opens, first) if one.strip())

    @property
    def leftovers(self) -> tuple[str, ...]:
        """Closing words that may follow a call."""
        last = self.writes[-1]
        texts = [last.text if isinstance(last, LiteralText) else "", self.section_closes]
        return tuple(word for text in texts for word in _words(text))

    @property
    def literals(self) -> tuple[str, ...]:
        """Every literal text of the format."""
        parts = [part.text for part in (*self.reads, *self.writes) if isinstance(part, LiteralText)]
        tags = (self.param.opens, self.param.names, self.param.closes) if self.param else ()
        return (*parts, self.section_opens, self.section_closes, *tags)

    def write(self, call: ToolCall) -> str:
        """Return a call as the model writes it."""
        parts = [part.text if isinstance(part, LiteralText) else self._fill(part, call)
                 for part in self.writes]  # fmt: skip
        return f"{self.section_opens}{''.join(parts)}{self.section_closes}"

    def _fill(self, placeholder: Placeholder, call: ToolCall) -> str:
        if placeholder == "name":
            return call.name
        if placeholder == "id":
            return call.id
        if placeholder == "index":
            return "0"
        if placeholder == "params" and self.param is not None:
            parameter = self.param
            return "".join(
                f"{parameter.opens}{key}{parameter.between(is_text=isinstance(value, str))}"
                f"{_as_text(value)}{parameter.closes}"
                for key, value in call.arguments.items()
            )
        return json.dumps(dict(call.arguments), ensure_ascii=False)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_WORD = re.compile(r"<[^<>\s]*>|\[[^\[\]\s]*\]|[^\s<\[]+|\S")


def _words(text: str) -> list[str]:
    words = (word.lstrip("}])\"'") for word in _WORD.findall(text))
    return [word for word in words if word and word not in "{["]


def _first_word(text: str) -> str:
    """Return a literal's first tag, or else its first word."""
    stripped = text.strip()
    found = re.match(r"<\|[^<>]*\|>|<[^<>\s=]*[>=]?|\[[^\[\]\s]*\]|[^\s<\[]+|\S", stripped)
    return found.group() if found else stripped


@dataclass(frozen=True, slots=True)
class ReasoningTags:
    """The tags around reasoning."""

    opens: str
    closes: str


def json_format(
    opens: str,
    closes: str,
    *,
    name: str = "name",
    arguments: str = "arguments",
    is_list: bool = False,
) -> ToolCallFormat:
    """Return a format whose calls are JSON objects with a name and arguments."""
    first, last = ("[", "]") if is_list else ("", "")
    reads: tuple[FormatPart, ...] = ("calls",)
    if opens:
        reads = (LiteralText(opens), "calls")
    return ToolCallFormat(
        reads=reads,
        writes=(
            LiteralText(f'{opens}{first}{{"{name}": "'),
            "name",
            LiteralText(f'", "{arguments}": '),
            "args",
            LiteralText(f"}}{last}{closes}"),
        ),
    )


def written_format(
    *parts: str,
    closes: str,
    section: tuple[str, str] = ("", ""),
    param: ParameterFormat | None = None,
) -> ToolCallFormat:
    """Return a format of placeholders and literal texts, up to the arguments; `closes` ends a call.

    `section` are the texts before the first call and after the last one.
    """
    reads = tuple(_PLACEHOLDERS.get(part) or LiteralText(part) for part in parts)
    return ToolCallFormat(reads, (*reads, LiteralText(closes)), *section, param)


HERMES = json_format("<tool_call>\n", "\n</tool_call>")
"""The most common format; described to models whose template has no tools."""

LLAMA3 = json_format("", "", arguments="parameters")
_LLAMA3_TAGGED = json_format("<|python_tag|>", "", arguments="parameters")
_PYTHONIC = ToolCallFormat(("python",), LLAMA3.writes)
_MISTRAL = json_format("[TOOL_CALLS]", "", is_list=True)
_MISTRAL_NAMED = written_format("[TOOL_CALLS]", "name", "[ARGS]", "args", closes="")
_DEEPSEEK_SECTION = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")  # noqa: RUF001
_DEEPSEEK = written_format(
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",  # noqa: RUF001
    "name",
    "\n```json\n",
    "args",
    closes="\n```<｜tool▁call▁end｜>",  # noqa: RUF001
    section=_DEEPSEEK_SECTION,
)
_DEEPSEEK_SHORT = written_format(
    "<｜tool▁call▁begin｜>",  # noqa: RUF001
    "name",
    "<｜tool▁sep｜>",  # noqa: RUF001
    "args",
    closes="<｜tool▁call▁end｜>",  # noqa: RUF001
    section=_DEEPSEEK_SECTION,
)
_GRANITE = json_format("<|tool_call|>", "", is_list=True)
_COMMAND_R = json_format(
    "Action: ```json\n", "\n```", name="tool_name", arguments="parameters", is_list=True
)
_FUNCTOOLS = json_format(" functools", "", is_list=True)
_LFM_JSON = json_format("<|tool_call_start|>", "<|tool_call_end|>", is_list=True)
_LFM = ToolCallFormat((LiteralText("<|tool_call_start|>"), "python"), _LFM_JSON.writes)
_FUNCTIONARY = written_format("<function=", "name", ">", "args", closes="</function>")
_QWEN_PARAMETER = ParameterFormat("<parameter=", ">\n", "\n</parameter>\n")
_QWEN_CODER, _QWEN_CODER_OPEN = (
    written_format(
        f"{opens}<function=", "name", ">\n", "params",
        closes="</function>\n</tool_call>", param=_QWEN_PARAMETER,
    )
    for opens in ("<tool_call>\n", "")  # Qwen3-Coder sometimes forgets the outer tag
)  # fmt: skip
_GEMMA4 = written_format("<|tool_call>call:", "name", "gemma", closes="<tool_call|>")
_FUNCTION_GEMMA = written_format(
    "<start_function_call>call:", "name", "gemma", closes="<end_function_call>"
)
_KIMI = written_format(
    "<|tool_call_begin|>functions.", "name", ":", "index", "<|tool_call_argument_begin|>", "args",
    closes="<|tool_call_end|>",
    section=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
)  # fmt: skip

KNOWN_FORMATS: tuple[tuple[str, tuple[ToolCallFormat, ...]], ...] = (
    ("<|python_tag|>", (_LLAMA3_TAGGED, LLAMA3, _PYTHONIC)),
    ('"parameters": dictionary of argument name', (LLAMA3, _PYTHONIC)),
    ("[TOOL_CALLS]", (_MISTRAL, _MISTRAL_NAMED)),
    ("<｜tool▁calls▁begin｜>", (_DEEPSEEK, _DEEPSEEK_SHORT)),  # noqa: RUF001
    ("<|tool_calls_section_begin|>", (_KIMI,)),
    ("<|tool_call_start|>", (_LFM, _LFM_JSON)),
    ("<start_function_call>", (_FUNCTION_GEMMA,)),
    ("<|tool_call>", (_GEMMA4,)),
    ("<|tool_call|>", (_GRANITE,)),
    ("<parameter=", (_QWEN_CODER, _QWEN_CODER_OPEN)),
    ("Action: ```json", (_COMMAND_R,)),
    ("functools[", (_FUNCTOOLS,)),
    ("<function=", (_FUNCTIONARY,)),
    ("<tool_call>", (HERMES,)),
)

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
