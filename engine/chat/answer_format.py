"""What an answer must look like: its grammar, and the parser that reads it. Pure.

A grammar forces a tool call, or lets reasoning come first. Grammars are written in llguidance's
dialect of Lark (its docs/syntax.md): control tokens stand by their numbers, everything else as
text, and a tool's arguments are held to its JSON Schema.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paddock.engine.errors import BadRequest
from paddock.engine.request import ChatRequest, Constraint, Sampling, Tool
from paddock.engine.sampling.constraint import parse_schema
from paddock.engine.sampling.schema import embeddable_schema

from .stream_parser import HARMONY_TOKENS, AnswerMarkup, HarmonyParser, MarkupParser, StreamParser
from .template_probe import ChatFormat
from .tool_formats import LiteralText, ParameterFormat, Placeholder, ReasoningTags, ToolCallFormat

Schema = Mapping[str, Any]

_AS_TEMPLATES_WRITE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": True,
}
"""Models have seen calls as `tojson` writes them; what a schema says beyond is not refused."""

_ANY_TEXT = "/(.|\\n)*/"
_SPACE = "/[ \\n]{0,2}/"


class LarkGrammar:
    """Collects the rules of one grammar.

    Args:
        specials: ids of the tokens that cannot be spelled by others, by their texts.
    """

    def __init__(self, specials: Mapping[str, int]) -> None:
        self._specials = specials
        self._rules: list[str] = []
        longest = sorted(specials, key=len, reverse=True)
        self._cuts = re.compile("(" + "|".join(map(re.escape, longest)) + ")") if longest else None

    def rule(self, body: str, options: str = "") -> str:
        """Add a rule; gives its name."""
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name}{options}: {body}")
        return name

    def text(self, text: str) -> str:
        """Write a literal text; control tokens in it stand by their numbers."""
        pieces = self._cuts.split(text) if self._cuts else [text]
        return " ".join(self._piece(piece) for piece in pieces if piece)

    def _piece(self, piece: str) -> str:
        token = self._specials.get(piece)
        return json.dumps(piece, ensure_ascii=False) if token is None else f"<[{token}]>"

    def json(self, schema: Schema) -> str:
        """Write a JSON Schema."""
        told = json.dumps({**schema, "x-guidance": _AS_TEMPLATES_WRITE}, ensure_ascii=False)
        return self.rule(f"%json {told}")

    def until(self, text: str) -> str:
        """Write any text that ends with the first `text`, which it contains."""
        pieces = [piece for piece in self._cuts.split(text) if piece] if self._cuts else [text]
        if pieces[0] in self._specials:
            return f"{_ANY_TEXT} {self.text(text)}"
        suffix = json.dumps(pieces[0], ensure_ascii=False)
        lazy = self.rule(_ANY_TEXT, f"[suffix={suffix}]")
        return f"{lazy} {self.text(''.join(pieces[1:]))}"

    def starting(self, body: str) -> str:
        """Return the whole grammar, beginning with `body`."""
        return "\n".join([f"start: {body}", *self._rules])


@dataclass(frozen=True, slots=True)
class ReasoningPrefix:
    """What may or must come before what is asked for."""

    tags: ReasoningTags
    is_inside: bool = False
    """The prompt has opened reasoning, so it must be closed."""
    may_reason: bool = False

    def write(self, grammar: LarkGrammar) -> str:
        """Return the rules for it; empty for nothing."""
        if not self.is_inside and not self.may_reason:
            return ""
        closes = grammar.until(self.tags.closes)
        if self.is_inside:
            return f"{closes} {_SPACE} "
        return f"({grammar.text(self.tags.opens)} {closes} {_SPACE})? "


def tool_call_grammar(
    form: ToolCallFormat,
    tools: Iterable[Tool],
    beginning: ReasoningPrefix,
    specials: Mapping[str, int],
) -> Constraint:
    """Return the grammar of one call of one of these tools, as the model's template writes it."""
    grammar = LarkGrammar(specials)
    before = beginning.write(grammar)
    calls = " | ".join(grammar.rule(_call_rule(grammar, form, tool)) for tool in tools)
    return Constraint("lark", grammar.starting(f"{before}({calls})"))


def harmony_call_grammar(tools: Iterable[Tool], specials: Mapping[str, int]) -> Constraint:
    """Return the grammar of one call by gpt-oss."""
    grammar = LarkGrammar(specials)
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
    constraint: Constraint, beginning: ReasoningPrefix, specials: Mapping[str, int]
) -> Constraint:
    """Let a model think before what it says must match."""
    if not beginning.is_inside and not beginning.may_reason:
        return constraint
    grammar = LarkGrammar(specials)
    before = beginning.write(grammar)
    return Constraint("lark", grammar.starting(f"{before}{_constraint_rule(grammar, constraint)}"))


def analysis_then(constraint: Constraint, specials: Mapping[str, int]) -> Constraint:
    """The same for gpt-oss, whose answer stands on a channel of its own."""
    grammar = LarkGrammar(specials)
    head = grammar.text("<|channel|>final<|message|>")
    body = f"{_analysis_rule(grammar)}{head} {_constraint_rule(grammar, constraint)}"
    return Constraint("lark", grammar.starting(body))


def _constraint_rule(grammar: LarkGrammar, constraint: Constraint) -> str:
    if constraint.kind in ("json", "json_schema"):
        # By the rules of an answer without reasoning: compact, and nothing passed over.
        told = json.dumps(embeddable_schema(parse_schema(constraint)), ensure_ascii=False)
        return grammar.rule(f"%json {told}")
    if constraint.kind == "regex":
        return "/" + re.sub(r"(?<!\\)/", r"\\/", constraint.source) + "/"
    return grammar.rule(f"%lark {{\n{constraint.source}\n}}")


def _call_rule(grammar: LarkGrammar, form: ToolCallFormat, tool: Tool) -> str:
    parts = [grammar.text(form.section_opens)]
    for part in form.writes:
        parts.append(
            grammar.text(part.text)
            if isinstance(part, LiteralText)
            else _placeholder_rule(grammar, part, form, tool)
        )
    return " ".join(filter(None, [*parts, grammar.text(form.section_closes)]))


def _placeholder_rule(
    grammar: LarkGrammar, hole: Placeholder, form: ToolCallFormat, tool: Tool
) -> str:
    if hole == "name":
        return grammar.text(tool.name)
    if hole == "id":
        return "/[a-zA-Z0-9]{9}/"
    if hole == "index":
        return '"0"'
    if hole == "python":
        return _python_call_rule(grammar, tool)
    if hole == "gemma":
        return _gemma_object_rule(grammar, _arguments_schema(tool), _gemma_quote(form))
    if hole == "params" and form.param is not None:
        given = _schema_properties(_arguments_schema(tool))
        return " ".join(_parameter_rule(grammar, form.param, *one) for one in given)
    return grammar.json(_arguments_schema(tool))


def _quoted_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _arguments_schema(tool: Tool) -> Schema:
    """Return the schema of a tool's arguments: an object that has no other members."""
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
        (key, {**shared, **one} if isinstance(one, dict) else {}, key in required)
        for key, one in schema.get("properties", {}).items()
    ]


def _parameter_rule(
    grammar: LarkGrammar, param: ParameterFormat, key: str, schema: Schema, required: bool
) -> str:
    is_text = schema.get("type") == "string"
    opens = grammar.text(f"{param.opens}{key}{param.between(is_text=is_text)}")
    if not is_text:
        body = f"{opens} {grammar.json(schema)} {grammar.text(param.closes)}"
    elif _are_all_texts(schema.get("enum")):
        choices = " | ".join(grammar.text(one) for one in schema["enum"])
        body = f"{opens} ({choices}) {grammar.text(param.closes)}"
    else:
        body = f"{opens} {grammar.until(param.closes)}"
    return grammar.rule(body) + ("" if required else "?")


def _are_all_texts(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(v, str) for v in values)


def _python_call_rule(grammar: LarkGrammar, tool: Tool) -> str:
    given = [
        (f"({_quoted_text(key + '=')} {grammar.json(schema)})", required)
        for key, schema, required in _schema_properties(_arguments_schema(tool))
    ]
    return (
        f"{_quoted_text('[' + tool.name + '(')} {_joined_members(given, ', ')} {_quoted_text(')]')}"
    )


def _joined_members(members: Sequence[tuple[str, bool]], comma: str = ",") -> str:
    """Write members with commas between; the required ones first, then any of the others."""
    between = _quoted_text(comma)
    needed = [text for text, required in members if required]
    free = [text for text, required in members if not required]
    if needed:
        return " ".join([f" {between} ".join(needed), *(f"({between} {one})?" for one in free)])
    # Any of the others may be the first, and only those behind it follow.
    firsts = [
        " ".join([text, *(f"({between} {later})?" for later in free[number + 1 :])])
        for number, text in enumerate(free)
    ]
    return f"({' | '.join(firsts)})?" if firsts else '""'


def _gemma_quote(form: ToolCallFormat) -> str:
    """Return what stands around strings: FunctionGemma and Gemma 4 differ in it."""
    return "<escape>" if any("<start_function_call>" in one for one in form.literals) else '<|"|>'


def _gemma_object_rule(grammar: LarkGrammar, schema: Schema, quote: str) -> str:
    members = [
        (f"({_quoted_text(key + ':')} {_gemma_value_rule(grammar, one, quote)})", required)
        for key, one, required in _schema_properties(schema)
    ]
    return f'"{{" {_joined_members(members)} "}}"'


def _gemma_value_rule(grammar: LarkGrammar, schema: Schema, quote: str) -> str:
    if _are_all_texts(schema.get("enum")):
        choices = " | ".join(grammar.text(f"{quote}{one}{quote}") for one in schema["enum"])
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
    """Return the tools of which one must be called; empty: none must.

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


def stream_parser_for(
    manner: ChatFormat, tools: tuple[Tool, ...], sampling: Sampling, *, is_inside: bool
) -> StreamParser:
    """Return who hears an answer; `is_inside`: it begins within its reasoning."""
    if manner.is_harmony:
        return HarmonyParser(sampling.stop, new_call_id)
    ways = AnswerMarkup(
        manner.tags,
        manner.forms if tools else (),
        {tool.name: tool for tool in tools},
        manner.wrappers,
        is_inside,
    )
    return MarkupParser(ways, sampling.stop, new_call_id)


def visible_control_tokens(
    manner: ChatFormat, specials: Mapping[str, int], *, has_tools: bool
) -> frozenset[int]:
    """Return the control tokens that stand in anything that is listened for."""
    if manner.is_harmony:
        return frozenset(specials[text] for text in HARMONY_TOKENS if text in specials)
    texts = [manner.tags.opens, manner.tags.closes]
    if has_tools:
        texts += [text for form in manner.forms for text in form.literals]
        if any("gemma" in form.reads for form in manner.forms):
            texts += ['<|"|>', "<escape>"]
    whole = "\n".join(texts)
    return frozenset(token for text, token in specials.items() if text in whole)


def answer_constraint(
    request: ChatRequest,
    manner: ChatFormat,
    wanted: tuple[Tool, ...],
    specials: Mapping[str, int],
    *,
    is_inside: bool,
) -> Constraint | None:
    """Return what the answer must match; reasoning may come before it."""
    may_reason = manner.may_reason and request.think is not False
    beginning = ReasoningPrefix(manner.tags, is_inside, may_reason)
    if wanted:
        if manner.is_harmony:
            return harmony_call_grammar(wanted, specials)
        return tool_call_grammar(manner.forms[0], wanted, beginning, specials)
    if request.constraint is None:
        return None
    if manner.is_harmony:
        return analysis_then(request.constraint, specials)
    return reasoning_then(request.constraint, beginning, specials)


def new_call_id() -> str:
    """Make an id for a tool call: nine letters and digits, as Mistral's templates insist."""
    return f"c{secrets.token_hex(4)}"
