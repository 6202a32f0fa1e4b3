"""Tool calls: how models write them, and parsing them out of an answer that may still grow. Pure.

A format is a sequence of literal texts and placeholders. `template_probe` derives a format where
the template shows one. The known formats are for templates that show none; each comes from its
makers' documentation or from real answers. A hint (a word of the template or the vocabulary)
identifies the model family.

Arguments are JSON, Python's call syntax, or Gemma's own values. Every parsing function takes a text
and a position in it, and returns the value and the position after it. `IncompleteValue` means that
more text is needed, `MalformedValue` that no more text can help. A text that is accepted is
accepted with any continuation, so the result never depends on how an answer was cut into tokens.
White space between literals does not matter, and a call is certain as soon as its arguments are
complete: its closing tag is not awaited.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Literal, get_args

from paddock.engine.request import Tool, ToolCall
from paddock.engine.system.python_syntax import parse_expression
from paddock.engine.system.records import Struct
from paddock.engine.system.text import has_json_type, parse_shallow_json, resolve_ref, text_or_json

Placeholder = Literal["name", "id", "index", "args", "params", "calls", "python", "gemma"]
"""`calls`: JSON of whole calls; `python`: a list of Python calls; `gemma`: Gemma's values; `args`:
JSON arguments; `params`: named values between tags; `index`: a number that is ignored.
"""

_PLACEHOLDERS: Mapping[str, Placeholder] = {name: name for name in get_args(Placeholder)}


class LiteralText(Struct, frozen=True):
    text: str


FormatPart = LiteralText | Placeholder


class ParameterFormat(Struct, frozen=True):
    """One named value: `opens` key `names` value `closes`."""

    opens: str
    names: str
    """Between a key and a string."""
    closes: str
    names_other: str = ""
    """Between a key and a value that is no string, where it differs."""
    quotes: tuple[str, str] = ("", "")
    """Around a text with `<` or `&`, such as CDATA's."""

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
        return self.names if is_text or not self.names_other else self.names_other


class ToolCallFormat(Struct, frozen=True):
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
        return not self.section_opens.strip() and not isinstance(self.reads[0], LiteralText)

    @property
    def continues_bare(self) -> bool:
        return not isinstance(self.reads[0], LiteralText)

    @property
    def triggers(self) -> tuple[str, ...]:
        first = self.reads[0].text if isinstance(self.reads[0], LiteralText) else ""
        return tuple(_first_word(text) for text in (self.section_opens, first) if text.strip())

    @property
    def leftovers(self) -> tuple[str, ...]:
        last = self.writes[-1]
        texts = [last.text if isinstance(last, LiteralText) else "", self.section_closes]
        words = (word.lstrip("}])\"'") for text in texts for word in _WORD.findall(text))
        return tuple(word for word in words if word and word not in "{[")

    @property
    def literals(self) -> tuple[str, ...]:
        parts = [part.text for part in (*self.reads, *self.writes) if isinstance(part, LiteralText)]
        tags = (self.param.opens, self.param.names, self.param.closes) if self.param else ()
        return (*parts, self.section_opens, self.section_closes, *tags)

    def write(self, call: ToolCall) -> str:
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
                f"{text_or_json(value)}{parameter.closes}"
                for key, value in call.arguments.items()
            )
        return json.dumps(dict(call.arguments), ensure_ascii=False)


_WORD = re.compile(r"<[^<>\s]*>|\[[^\[\]\s]*\]|[^\s<\[]+|\S")


def _first_word(text: str) -> str:
    stripped = text.strip()
    found = re.match(r"<\|[^<>]*\|>|<[^<>\s=]*[>=]?|\[[^\[\]\s]*\]|[^\s<\[]+|\S", stripped)
    return found.group() if found else stripped


def json_format(
    opens: str,
    closes: str,
    *,
    name: str = "name",
    arguments: str = "arguments",
    is_list: bool = False,
) -> ToolCallFormat:
    first, last = ("[", "]") if is_list else ("", "")
    return ToolCallFormat(
        reads=(LiteralText(opens), "calls") if opens else ("calls",),
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
        closes="</function>\n</tool_call>", param=_QWEN_PARAMETER
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


JsonObject = Mapping[str, Any]


class IncompleteValue(Exception):
    """The text ends within the value."""


class MalformedValue(Exception):
    """The text is no such value, and no continuation makes it one."""


_JSON_MARKS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[{}\[\]]', re.DOTALL)
_PYTHON_MARKS = re.compile(r"\"(?:[^\"\\]|\\.)*+\"?|'(?:[^'\\]|\\.)*+'?|[{}()\[\]]", re.DOTALL)
_PAIRS = {"}": "{", "]": "[", ")": "("}


def skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _next_at(text: str, at: int) -> int:
    """Return the position of the next character that is not white space, which must be there."""
    at = skip_space(text, at)
    if at >= len(text):
        raise IncompleteValue
    return at


def parse_json(text: str, at: int) -> tuple[Any, int]:
    end = _end_of_bracket(text, at, _JSON_MARKS, "{[")
    try:
        return parse_shallow_json(text[at:end], strict=False), end
    except ValueError:
        raise MalformedValue from None


def parse_python_calls(text: str, at: int) -> tuple[list[tuple[str, JsonObject]], int]:
    """Parse `[name(key=value, …), …]` to names with arguments."""
    end = _end_of_bracket(text, at, _PYTHON_MARKS, "[")
    # Some templates write a text's line breaks as they are.
    tree = _python_tree(_PYTHON_MARKS.sub(lambda mark: mark[0].replace("\n", "\\n"), text[at:end]))
    if not isinstance(tree, ast.List) or not tree.elts:
        raise MalformedValue
    return [_python_call(element) for element in tree.elts], end


def _python_tree(text: str) -> ast.expr:
    try:
        return parse_expression(text.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise MalformedValue from None


def _end_of_bracket(text: str, at: int, marks: re.Pattern[str], opens: str) -> int:
    if at >= len(text):
        raise IncompleteValue
    if text[at] not in opens:
        raise MalformedValue
    depth: list[str] = []
    for found in marks.finditer(text, at):
        mark = found.group()
        if mark[0] in "\"'":
            continue  # an unclosed string reaches to the end of the text
        if mark in _PAIRS:
            if depth.pop() != _PAIRS[mark]:
                raise MalformedValue
            if not depth:
                return found.end()
        else:
            depth.append(mark)
    raise IncompleteValue


def _python_call(node: ast.expr) -> tuple[str, JsonObject]:
    if not isinstance(node, ast.Call) or node.args:
        raise MalformedValue
    arguments = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise MalformedValue
        arguments[keyword.arg] = _python_value(keyword.value)
    return ast.unparse(node.func), arguments


_CONSTANTS = {"true": True, "false": False, "null": None}


def _python_value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in _CONSTANTS:
        return _CONSTANTS[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_python_value(element) for element in node.elts]
    if isinstance(node, ast.Dict):
        keys = [str(_python_value(key)) for key in node.keys if key is not None]
        return dict(zip(keys, map(_python_value, node.values), strict=False))
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError):
        raise MalformedValue from None
    if not isinstance(value, str | int | float | bool | None):
        raise MalformedValue
    return value


_GEMMA_BARE = re.compile(r"[^,{}\[\]<\"]*")


def parse_gemma_object(text: str, at: int) -> tuple[JsonObject, int]:
    """Parse `{city:<|"|>Paris<|"|>,days:3}`: bare keys, strings between quote tokens."""
    if at >= len(text):
        raise IncompleteValue
    if text[at] != "{":
        raise MalformedValue
    members: dict[str, Any] = {}
    at += 1
    while True:
        at = skip_space(text, at)
        if text[at : at + 1] == "}":
            return members, at + 1
        key, at = _gemma_key(text, at)
        members[key], at = _gemma_value(text, at)
        at = _gemma_separator(text, at, "}")


def _gemma_key(text: str, at: int) -> tuple[str, int]:
    quote = _gemma_quote(text, at)
    if quote:
        key, at = _gemma_string(text, at, quote)
        at = _next_at(text, at)
        if text[at] != ":":
            raise MalformedValue
        return key, at + 1
    end = text.find(":", at)
    if end < 0:
        raise IncompleteValue
    if any(mark in text[at:end] for mark in "{}[],"):
        raise MalformedValue
    return text[at:end].strip(), end + 1


def _gemma_separator(text: str, at: int, closes: str) -> int:
    at = _next_at(text, at)
    if text[at] == ",":
        return at + 1
    if text[at] != closes:
        raise MalformedValue
    return at


def _gemma_value(text: str, at: int) -> tuple[Any, int]:
    at = _next_at(text, at)
    if text[at] == "{":
        return parse_gemma_object(text, at)
    if text[at] == "[":
        items: list[Any] = []
        at += 1
        while True:
            at = skip_space(text, at)
            if text[at : at + 1] == "]":
                return items, at + 1
            item, at = _gemma_value(text, at)
            items.append(item)
            at = _gemma_separator(text, at, "]")
    quote = _gemma_quote(text, at)
    if quote:
        return _gemma_string(text, at, quote)
    found = _GEMMA_BARE.match(text, at)
    assert found is not None
    if found.end() >= len(text):
        raise IncompleteValue
    return parse_bare_value(found.group().strip()), found.end()


def _gemma_quote(text: str, at: int) -> str:
    for quote in ('<|"|>', "<escape>", '"'):
        if text.startswith(quote, at):
            return quote
        if len(text) - at < len(quote) and quote.startswith(text[at:]):
            raise IncompleteValue
    return ""


def _gemma_string(text: str, at: int, quote: str) -> tuple[str, int]:
    end = text.find(quote, at + len(quote))
    if end < 0:
        raise IncompleteValue
    return text[at + len(quote) : end], end + len(quote)


def parse_bare_value(text: str, schema: Any = None, root: Any = None) -> Any:
    """Return the value of an unquoted text: its JSON or Python value, or else the text.

    The first of them that the schema allows, `$ref`s being looked up in `root`.

    >>> parse_bare_value("3"), parse_bare_value("Paris"), parse_bare_value("3", {"type": "string"})
    (3, 'Paris', '3')
    """
    values: list[Any] = [text]
    word = "null" if text == "None" else text.lower()
    if word in _CONSTANTS:  # models write Python's True and False too
        values.insert(0, _CONSTANTS[word])
    elif text.startswith(("[", "{")):
        with suppress(MalformedValue):
            values.insert(0, _python_value(_python_tree(text)))
    with suppress(ValueError):
        value = parse_shallow_json(text, strict=False)
        values.insert(len(values) if schema and isinstance(value, str) else 0, value)
    return next((value for value in values if _allows(schema, value, root)), values[0])


def _allows(schema: Any, value: Any, root: Any, n_levels: int = 8) -> bool:
    """Return whether a schema allows a value, by its types, constants and alternatives."""
    if not isinstance(schema, Mapping) or not n_levels:
        return True
    options: list[Any] = []
    for name in ("anyOf", "oneOf", "allOf"):
        options += schema[name] if isinstance(schema.get(name), list) else []
    options += [resolve_ref(root, str(schema["$ref"]))] if "$ref" in schema else []
    constants, kinds = schema.get("enum"), schema.get("type")
    if not isinstance(constants, list):
        constants = [schema.get("const", value)]
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return (
        any(constant == value and type(constant) is type(value) for constant in constants)
        and any(has_json_type(value, kind) for kind in kinds)
        and (not options or any(_allows(option, value, root, n_levels - 1) for option in options))
    )


def parse_calls(
    call_format: ToolCallFormat, text: str, at: int, tools: Mapping[str, Tool]
) -> tuple[list[ToolCall], int]:
    """Parse one announced section of calls (ids may be empty).

    Raises:
        IncompleteValue: the text ends too early.
        MalformedValue: it is no call in this format.
    """
    if call_format.section_opens.strip():
        try:
            at = _skip_literal(text, at, call_format.section_opens)
        except MalformedValue:
            if call_format.continues_bare and not text.startswith(("{", "["), at):
                raise
    if call_format.is_bare:
        _check_bare_call(call_format, text, at, tools)
    found: dict[str, Any] = {}
    for part in call_format.reads:
        if isinstance(part, LiteralText):
            at = _skip_literal(text, at, part.text)
        else:
            found[part], at = _parse_placeholder(call_format, part, text, at, tools, found)
    if "calls" in found:
        calls = calls_in_json(found["calls"], tools)
    elif "python" in found:
        calls = [ToolCall(name, arguments) for name, arguments in found["python"]]
    else:
        arguments = _first_of(found, ("args", "params", "gemma"))
        call_id = str(found.get("id", ""))
        # Kimi's ids are `functions.get_weather:0`.
        name = found.get("name") or _CALL_NUMBER.sub("", call_id).removeprefix("functions.")
        calls = [ToolCall(str(name), _arguments_object(arguments), call_id)]
    if not calls or any(not call.name for call in calls):
        raise MalformedValue
    if call_format.is_bare and any(call.name not in tools for call in calls):
        raise MalformedValue
    return calls, at


_BARE_KEYS = tuple(
    f'"{key}"'
    for key in (
        *("name", "type", "function", "parameters", "arguments", "id"),
        *("tool_name", "tool_calls", "tool_call"),
    )
)


def _check_bare_call(
    call_format: ToolCallFormat, text: str, at: int, tools: Mapping[str, Tool]
) -> None:
    """Refuse early what is no call, so that other JSON or a list is not held back whole."""
    at = _next_at(text, at)
    is_python = call_format.reads[0] == "python"
    opens, words = ("[", tuple(f"{name}(" for name in tools)) if is_python else ("{", _BARE_KEYS)
    if text[at] != opens:
        raise MalformedValue
    rest = text[skip_space(text, at + 1) :]
    if not rest.startswith(words) and not any(word.startswith(rest) for word in words):
        raise MalformedValue


def _skip_literal(text: str, at: int, literal: str) -> int:
    """Return the position after a literal text; white space may differ."""
    for word in literal.split():
        at = skip_space(text, at)
        if not text.startswith(word, at):
            raise IncompleteValue if word.startswith(text[at:]) else MalformedValue
        at += len(word)
    return at


_TOOL_NAME = re.compile(r"[\w.\-/:]+")
_DIGITS = re.compile(r"\d+")
_CALL_NUMBER = re.compile(r"(?<=.):\d+$")


def _parse_placeholder(
    call_format: ToolCallFormat,
    placeholder: Placeholder,
    text: str,
    at: int,
    tools: Mapping[str, Tool],
    found: Mapping[str, Any],
) -> tuple[Any, int]:
    at = skip_space(text, at)
    if placeholder in ("name", "id", "index"):
        pattern = _TOOL_NAME if placeholder != "index" else _DIGITS
        match = pattern.match(text, at)
        if match is None:
            raise IncompleteValue if at >= len(text) else MalformedValue
        if match.end() >= len(text):
            raise IncompleteValue
        word = match.group()
        if placeholder == "name" and "index" in call_format.reads:
            word = _CALL_NUMBER.sub("", word)  # Kimi's
        return word, match.start() + len(word)
    if placeholder == "python":
        return parse_python_calls(text, at)
    if placeholder == "gemma":
        return parse_gemma_object(text, at)
    if placeholder == "params":
        return _parse_parameters(call_format, text, at, tools.get(str(found.get("name"))))
    return parse_json(text, at)


def _parse_parameters(
    call_format: ToolCallFormat, text: str, at: int, tool: Tool | None
) -> tuple[dict[str, Any], int]:
    param = call_format.param
    assert param is not None
    opens = param.opens.strip()
    arguments: dict[str, Any] = {}
    closes = call_format.leftovers[:1]
    parameters = tool.parameters if tool else {}
    schemas = parameters.get("properties") or {}
    while True:
        at = skip_space(text, at)
        rest = text[at:]
        if rest.startswith(opens):
            key, value, at = _parse_parameter(param, text, at + len(opens))
            arguments[key] = parse_bare_value(value, schemas.get(key), parameters)
        elif opens.startswith(rest):
            raise IncompleteValue
        elif not closes or rest.startswith(closes[0]):
            return arguments, at
        elif closes[0].startswith(rest):
            raise IncompleteValue
        else:
            raise MalformedValue


def _parse_parameter(param: ParameterFormat, text: str, at: int) -> tuple[str, str, int]:
    """Return the name of the parameter that begins here, its value as written, and its end."""
    named = _literal_pattern(param.read_names).search(text, at)
    if named is None:
        raise IncompleteValue
    key = text[at : named.start()].strip().split('"')[0]
    start, (before, after) = named.end(), param.quotes
    if is_quoted := bool(before) and text.startswith(before, skip_space(text, start)):
        start = skip_space(text, start) + len(before)
    closed_by = f"{after} {param.closes}" if is_quoted else param.closes
    closed = _literal_pattern(closed_by).search(text, start)
    if closed is None:
        raise IncompleteValue
    value = text[start : closed.start()]
    if param.names.endswith("\n") and not is_quoted:
        value = value.removeprefix("\n").removesuffix("\n")
    return key, value, closed.end()


@lru_cache(maxsize=64)
def _literal_pattern(literal: str) -> re.Pattern[str]:
    """Return the pattern of a literal text with any white space between its words."""
    return re.compile(r"\s*".join(map(re.escape, literal.split())))


_NAME_KEYS = ("name", "tool_name", "function_name", "function", "recipient_name")
_ARGUMENTS_KEYS = ("arguments", "parameters", "args", "input", "kwargs")
_ID_KEYS = ("id", "tool_call_id", "call_id")


def calls_in_json(value: Any, tools: Mapping[str, Tool] | None = None) -> list[ToolCall]:
    """Return the calls in a JSON value, under any of the known keys.

    Raises:
        MalformedValue: it holds something else.
    """
    if isinstance(value, list):
        return [call for item in value for call in calls_in_json(item, tools)]
    if not isinstance(value, dict):
        raise MalformedValue
    if isinstance(value.get("tool_calls"), list):
        return calls_in_json(value["tool_calls"], tools)
    if isinstance(value.get("tool_call"), dict):
        return calls_in_json(value["tool_call"], tools)
    inner = value.get("function")
    if isinstance(inner, dict):
        return calls_in_json(
            {**{key: value[key] for key in _ID_KEYS if key in value}, **inner}, tools
        )
    return [_flat_call(value, tools or {})]


def _flat_call(value: dict[str, Any], tools: Mapping[str, Tool]) -> ToolCall:
    name = next((value[key] for key in _NAME_KEYS if isinstance(value.get(key), str)), None)
    if name is None:
        if len(value) != 1:
            raise MalformedValue
        ((name, arguments),) = value.items()
        if name not in tools:
            raise MalformedValue
        return ToolCall(name, _arguments_object(arguments))
    call_id = next((str(value[key]) for key in _ID_KEYS if value.get(key)), "")
    return ToolCall(name, _arguments_object(_first_of(value, _ARGUMENTS_KEYS)), call_id)


def _first_of(value: Mapping[str, Any], keys: Iterable[str]) -> Any:
    return next((value[key] for key in keys if key in value), {})


def _arguments_object(value: Any) -> dict[str, Any]:
    """Return arguments as an object; some models write JSON in a string."""
    if isinstance(value, str):
        try:
            value = parse_shallow_json(value, strict=False) if value.strip() else {}
        except ValueError:
            raise MalformedValue from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedValue
    return value


def parse_first_complete_call(
    formats: Sequence[ToolCallFormat], text: str, at: int, tools: Mapping[str, Tool]
) -> tuple[list[ToolCall], int]:
    """Parse calls by the first format that fits.

    Raises:
        IncompleteValue: the first format that may still fit needs more text.
        MalformedValue: none fits.
    """
    for call_format in formats:
        with suppress(MalformedValue):
            return parse_calls(call_format, text, at, tools)
    raise MalformedValue
