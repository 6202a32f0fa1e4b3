"""Format of an answer: its grammar and its parser. Pure.

A grammar forces a tool call, or allows reasoning before a constrained answer. Grammars are
written in llguidance's dialect of Lark (its docs/syntax.md): control tokens by their numbers, the
rest as text; a tool's arguments must match its JSON Schema.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paddock.engine.errors import BadRequest
from paddock.engine.request import ChatRequest, Constraint, Sampling, Tool
from paddock.engine.sampling.json_schema import embeddable_schema, json_rule, parse_schema
from paddock.engine.system.records import Struct

from .harmony import HARMONY_TOKENS, HarmonyParser
from .reasoning_tags import ReasoningTags
from .stream_parser import AnswerMarkup, MarkupParser, StreamParser
from .template_probe import ChatFormat
from .tool_call_syntax import LiteralText, ParameterFormat, Placeholder, ToolCallFormat

Schema = Mapping[str, Any]

_AS_TEMPLATES_WRITE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": True,
}
"""Models were trained on calls as `tojson` writes them; unknown keywords are ignored."""

_ANY_TEXT = "/(.|\\n)*/"
_SPACE = "/[ \\n]{0,2}/"


class LarkGrammar:
    """Collects the rules of one grammar.

    `special_ids`: ids of control tokens and tags, by their texts.
    """

    def __init__(self, special_ids: Mapping[str, int]) -> None:
        self._special_ids = special_ids
        self._rules: list[str] = []
        longest = sorted(special_ids, key=len, reverse=True)
        self._cuts = re.compile("(" + "|".join(map(re.escape, longest)) + ")") if longest else None

    def rule(self, body: str, options: str = "") -> str:
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name}{options}: {body}")
        return name

    def text(self, text: str) -> str:
        """Return the rule of a literal text, control tokens in it by their numbers."""
        pieces = self._cuts.split(text) if self._cuts else [text]
        return " ".join(self._piece(piece) for piece in pieces if piece)

    def _piece(self, piece: str) -> str:
        token = self._special_ids.get(piece)
        return json.dumps(piece, ensure_ascii=False) if token is None else f"<[{token}]>"

    def json(self, schema: Schema) -> str:
        return self.rule(json_rule({**schema, "x-guidance": _AS_TEMPLATES_WRITE}))

    def until(self, text: str) -> str:
        """Return the rule of any text up to and including the first `text`."""
        pieces = [piece for piece in self._cuts.split(text) if piece] if self._cuts else [text]
        if pieces[0] in self._special_ids:
            return f"{_ANY_TEXT} {self.text(text)}"
        suffix = json.dumps(pieces[0], ensure_ascii=False)
        lazy = self.rule(_ANY_TEXT, f"[suffix={suffix}]")
        return f"{lazy} {self.text(''.join(pieces[1:]))}"

    def starting(self, body: str) -> str:
        return "\n".join([f"start: {body}", *self._rules])


class ReasoningPrefix(Struct, frozen=True):
    tags: ReasoningTags
    is_inside: bool = False
    """The prompt has opened reasoning, so it must be closed."""
    may_reason: bool = False

    def write(self, grammar: LarkGrammar) -> str:
        """Return its rules; empty: there is none."""
        if not self.is_inside and not self.may_reason:
            return ""
        closes = grammar.until(self.tags.closes)
        if self.is_inside:
            return f"{closes} {_SPACE} "
        return f"({grammar.text(self.tags.opens)} {closes} {_SPACE})? "


def tool_call_grammar(
    call_format: ToolCallFormat,
    tools: Iterable[Tool],
    beginning: ReasoningPrefix,
    special_ids: Mapping[str, int],
) -> Constraint:
    grammar = LarkGrammar(special_ids)
    before = beginning.write(grammar)
    calls = " | ".join(grammar.rule(_call_rule(grammar, call_format, tool)) for tool in tools)
    return Constraint("lark", grammar.starting(f"{before}({calls})"))


def harmony_call_grammar(tools: Iterable[Tool], special_ids: Mapping[str, int]) -> Constraint:
    grammar = LarkGrammar(special_ids)
    calls = []
    for tool in tools:
        head = grammar.text(f" to=functions.{tool.name}<|channel|>commentary json<|message|>")
        calls.append(grammar.rule(f"{head} {grammar.json(_arguments_schema(tool))}"))
    return Constraint("lark", grammar.starting(f"{_analysis_rule(grammar)}({' | '.join(calls)})"))


def _analysis_rule(grammar: LarkGrammar) -> str:
    opens = grammar.text("<|channel|>analysis<|message|>")
    closes = grammar.until("<|end|>")
    return f"({opens} {closes} {grammar.text('<|start|>assistant')})? "


def reasoning_then(
    constraint: Constraint, beginning: ReasoningPrefix, special_ids: Mapping[str, int]
) -> Constraint:
    if not beginning.is_inside and not beginning.may_reason:
        return constraint
    grammar = LarkGrammar(special_ids)
    before = beginning.write(grammar)
    return Constraint("lark", grammar.starting(f"{before}{_constraint_rule(grammar, constraint)}"))


def analysis_then(constraint: Constraint, special_ids: Mapping[str, int]) -> Constraint:
    grammar = LarkGrammar(special_ids)
    head = grammar.text("<|channel|>final<|message|>")
    body = f"{_analysis_rule(grammar)}{head} {_constraint_rule(grammar, constraint)}"
    return Constraint("lark", grammar.starting(body))


def _constraint_rule(grammar: LarkGrammar, constraint: Constraint) -> str:
    if constraint.kind in ("json", "json_schema"):
        # As strict as an answer without reasoning: compact, no unknown keywords.
        return grammar.rule(json_rule(embeddable_schema(parse_schema(constraint))))
    if constraint.kind == "regex":
        return "/" + re.sub(r"(?<!\\)/", r"\\/", constraint.source) + "/"
    if constraint.kind == "gbnf":
        return grammar.rule(f"%gbnf {_quoted_text(constraint.source)}")  # `as_lark` translates it
    return grammar.rule(f"%lark {{\n{constraint.source}\n}}")


def _call_rule(grammar: LarkGrammar, call_format: ToolCallFormat, tool: Tool) -> str:
    parts = [grammar.text(call_format.section_opens)]
    for part in call_format.writes:
        parts.append(
            grammar.text(part.text)
            if isinstance(part, LiteralText)
            else _placeholder_rule(grammar, part, call_format, tool)
        )
    return " ".join(filter(None, [*parts, grammar.text(call_format.section_closes)]))


def _placeholder_rule(
    grammar: LarkGrammar, placeholder: Placeholder, call_format: ToolCallFormat, tool: Tool
) -> str:
    if placeholder == "name":
        return grammar.text(tool.name)
    if placeholder == "id":
        return "/[a-zA-Z0-9]{9}/"
    if placeholder == "index":
        return '"0"'
    if placeholder == "python":
        members = [
            (f"({_quoted_text(key + '=')} {grammar.json(schema)})", required)
            for key, schema, required in _schema_properties(_arguments_schema(tool))
        ]
        inside = _joined_members(members, ", ")
        return f"{_quoted_text('[' + tool.name + '(')} {inside} {_quoted_text(')]')}"
    if placeholder == "gemma":
        # The quote around strings: FunctionGemma's and Gemma 4's differ
        gemma_quote = (
            "<escape>"
            if any("<start_function_call>" in literal for literal in call_format.literals)
            else '<|"|>'
        )
        return _gemma_object_rule(grammar, _arguments_schema(tool), gemma_quote)
    if placeholder == "params" and call_format.param is not None:
        given = _schema_properties(_arguments_schema(tool))
        return " ".join(
            _parameter_rule(grammar, call_format.param, *schema_property)
            for schema_property in given
        )
    return grammar.json(_arguments_schema(tool))


def _quoted_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _arguments_schema(tool: Tool) -> Schema:
    schema = {"type": "object", **tool.parameters}
    schema.setdefault("properties", {})
    if "$ref" not in schema:
        schema.setdefault("additionalProperties", False)
    return schema


SchemaProperty = tuple[str, Schema, bool]
"""Name, schema, and whether it is required."""


def _schema_properties(schema: Schema) -> list[SchemaProperty]:
    required = schema.get("required", ())
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    return [
        (key, {**shared, **subschema} if isinstance(subschema, dict) else {}, key in required)
        for key, subschema in schema.get("properties", {}).items()
    ]


def _parameter_rule(
    grammar: LarkGrammar, param: ParameterFormat, key: str, schema: Schema, required: bool
) -> str:
    is_text = schema.get("type") == "string"
    opens = grammar.text(f"{param.opens}{key}{param.between(is_text=is_text)}")
    if not is_text:
        body = f"{opens} {grammar.json(schema)} {grammar.text(param.closes)}"
    elif _are_all_texts(schema.get("enum")):
        choices = " | ".join(grammar.text(choice) for choice in schema["enum"])
        body = f"{opens} ({choices}) {grammar.text(param.closes)}"
    else:
        body = f"{opens} {grammar.until(param.closes)}"
    return grammar.rule(body) + ("" if required else "?")


def _are_all_texts(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(v, str) for v in values)


def _joined_members(members: Sequence[tuple[str, bool]], comma: str = ",") -> str:
    """Join members by commas: the required ones first, then any of the optional ones."""
    between = _quoted_text(comma)
    needed = [text for text, required in members if required]
    optional = [text for text, required in members if not required]
    if needed:
        return " ".join(
            [f" {between} ".join(needed), *(f"({between} {text})?" for text in optional)]
        )
    # Any optional member may be the first; only later ones follow it.
    firsts = [
        " ".join([text, *(f"({between} {later})?" for later in optional[number + 1 :])])
        for number, text in enumerate(optional)
    ]
    return f"({' | '.join(firsts)})?" if firsts else '""'


def _gemma_object_rule(grammar: LarkGrammar, schema: Schema, quote: str) -> str:
    members = [
        (f"({_quoted_text(key + ':')} {_gemma_value_rule(grammar, subschema, quote)})", required)
        for key, subschema, required in _schema_properties(schema)
    ]
    return f'"{{" {_joined_members(members)} "}}"'


def _gemma_value_rule(grammar: LarkGrammar, schema: Schema, quote: str) -> str:
    if _are_all_texts(schema.get("enum")):
        choices = " | ".join(grammar.text(f"{quote}{choice}{quote}") for choice in schema["enum"])
        return f"({choices})"
    kind = schema.get("type")
    if kind == "object" and schema.get("properties"):
        return _gemma_object_rule(grammar, schema, quote)
    if kind == "array":
        item = grammar.rule(_gemma_value_rule(grammar, schema.get("items", {}), quote))
        return f'"[" ({item} ("," {item})*)? "]"'
    if kind in ("number", "integer", "boolean", "null"):
        return grammar.json(schema)
    return f"{grammar.text(quote)} {grammar.until(quote)}"


def required_tools(request: ChatRequest) -> tuple[Tool, ...]:
    """Return the tools of which one must be called; empty: a call is optional.

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


def required_schemas(request: ChatRequest) -> tuple[tuple[str, str], ...]:
    """Return the name and the schema of each tool of which one must be called."""
    tools = required_tools(request)
    return tuple((tool.name, json.dumps(_arguments_schema(tool))) for tool in tools)


def offered_tools(request: ChatRequest) -> tuple[Tool, ...]:
    return () if request.tool_choice == "none" else request.tools


def answer_format(
    request: ChatRequest,
    sampling: Sampling,
    chat_format: ChatFormat,
    required: tuple[Tool, ...],
    special_ids: Mapping[str, int],
    *,
    is_inside: bool,
) -> tuple[StreamParser, frozenset[int], Constraint | None]:
    """Return the answer's parser, the control tokens that it must see, and the constraint.

    `required`: the tools of which one must be called; `is_inside`: the answer begins within its
    reasoning.
    """
    tools, constraint = offered_tools(request), request.constraint
    if chat_format.is_harmony:
        if required:
            constraint = harmony_call_grammar(required, special_ids)
        elif constraint is not None:
            constraint = analysis_then(constraint, special_ids)
        visible = frozenset(special_ids[text] for text in HARMONY_TOKENS if text in special_ids)
        return HarmonyParser(sampling.stop, new_call_id), visible, constraint
    markup = AnswerMarkup(
        chat_format.tags,
        chat_format.formats if tools else (),
        {tool.name: tool for tool in tools},
        chat_format.wrappers,
        is_inside,
        must_call=bool(required),
    )
    may_reason = chat_format.may_reason and request.think is not False
    beginning = ReasoningPrefix(chat_format.tags, is_inside, may_reason)
    if required:
        constraint = tool_call_grammar(chat_format.formats[0], required, beginning, special_ids)
    elif constraint is not None:
        constraint = reasoning_then(constraint, beginning, special_ids)
    texts = [markup.tags.opens, markup.tags.closes]
    texts += [text for call_format in markup.formats for text in call_format.literals]
    if any("gemma" in call_format.reads for call_format in markup.formats):
        texts += ['<|"|>', "<escape>"]
    whole = "\n".join(texts)
    visible_tokens = frozenset(token for text, token in special_ids.items() if text in whole)
    return MarkupParser(markup, sampling.stop, new_call_id), visible_tokens, constraint


def new_call_id() -> str:
    return f"c{secrets.token_hex(4)}"
