"""Grammars that make a model call a tool, or think before it answers as asked. Pure.

They are written in llguidance's dialect of Lark (its docs/syntax.md): control tokens stand by
their numbers, everything else as text; a tool's parameters are held to its JSON Schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paddock.engine.request import Constraint, Tool
from paddock.engine.sampling.constraint import parsed
from paddock.engine.sampling.schema import embedded

from .calls import CallForm, Hole, Lit, ParamForm
from .forms import Tags

Schema = Mapping[str, Any]

_AS_TEMPLATES_WRITE = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": True,
}
"""Models have seen calls as `tojson` writes them; what a schema says beyond is not refused."""

_ANYTHING = "/(.|\\n)*/"
_SPACE = "/[ \\n]{0,2}/"


class Grammar:
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
            return f"{_ANYTHING} {self.text(text)}"
        suffix = json.dumps(pieces[0], ensure_ascii=False)
        lazy = self.rule(_ANYTHING, f"[suffix={suffix}]")
        return f"{lazy} {self.text(''.join(pieces[1:]))}"

    def starting(self, body: str) -> str:
        """Give the whole grammar, beginning with `body`."""
        return "\n".join([f"start: {body}", *self._rules])


@dataclass(frozen=True, slots=True)
class Beginning:
    """What may or must come before what is asked for."""

    tags: Tags
    is_inside: bool = False
    """The prompt has opened reasoning, so it must be closed."""
    may_reason: bool = False

    def write(self, grammar: Grammar) -> str:
        """Give the rules for it; empty for nothing."""
        if not self.is_inside and not self.may_reason:
            return ""
        closes = grammar.until(self.tags.closes)
        if self.is_inside:
            return f"{closes} {_SPACE} "
        return f"({grammar.text(self.tags.opens)} {closes} {_SPACE})? "


def force_call(
    form: CallForm, tools: Iterable[Tool], beginning: Beginning, specials: Mapping[str, int]
) -> Constraint:
    """Give the grammar of one call of one of these tools, as the model's template writes it."""
    grammar = Grammar(specials)
    before = beginning.write(grammar)
    calls = " | ".join(grammar.rule(_one_call(grammar, form, tool)) for tool in tools)
    return Constraint("lark", grammar.starting(f"{before}({calls})"))


def force_harmony_call(tools: Iterable[Tool], specials: Mapping[str, int]) -> Constraint:
    """Give the grammar of one call by gpt-oss."""
    grammar = Grammar(specials)
    calls = []
    for tool in tools:
        head = grammar.text(f" to=functions.{tool.name}<|channel|>commentary json<|message|>")
        calls.append(grammar.rule(f"{head} {grammar.json(_arguments(tool))}"))
    return Constraint("lark", grammar.starting(f"{_analysis(grammar)}({' | '.join(calls)})"))


def _analysis(grammar: Grammar) -> str:
    opens = grammar.text("<|channel|>analysis<|message|>")
    closes = grammar.until("<|end|>")
    return f"({opens} {closes} {grammar.text('<|start|>assistant')})? "


def after_reasoning(
    constraint: Constraint, beginning: Beginning, specials: Mapping[str, int]
) -> Constraint:
    """Let a model think before what it says must match."""
    if not beginning.is_inside and not beginning.may_reason:
        return constraint
    grammar = Grammar(specials)
    before = beginning.write(grammar)
    return Constraint("lark", grammar.starting(f"{before}{_asked(grammar, constraint)}"))


def after_analysis(constraint: Constraint, specials: Mapping[str, int]) -> Constraint:
    """The same for gpt-oss, whose answer stands on a channel of its own."""
    grammar = Grammar(specials)
    head = grammar.text("<|channel|>final<|message|>")
    body = f"{_analysis(grammar)}{head} {_asked(grammar, constraint)}"
    return Constraint("lark", grammar.starting(body))


def _asked(grammar: Grammar, constraint: Constraint) -> str:
    if constraint.kind in ("json", "json_schema"):
        # By the rules of an answer without reasoning: compact, and nothing passed over.
        told = json.dumps(embedded(parsed(constraint)), ensure_ascii=False)
        return grammar.rule(f"%json {told}")
    if constraint.kind == "regex":
        return "/" + re.sub(r"(?<!\\)/", r"\\/", constraint.source) + "/"
    return grammar.rule(f"%lark {{\n{constraint.source}\n}}")


def _one_call(grammar: Grammar, form: CallForm, tool: Tool) -> str:
    parts = [grammar.text(form.section_opens)]
    for part in form.writes:
        parts.append(
            grammar.text(part.text) if isinstance(part, Lit) else _hole(grammar, part, form, tool)
        )
    return " ".join(filter(None, [*parts, grammar.text(form.section_closes)]))


def _hole(grammar: Grammar, hole: Hole, form: CallForm, tool: Tool) -> str:
    if hole == "name":
        return grammar.text(tool.name)
    if hole == "id":
        return "/[a-zA-Z0-9]{9}/"
    if hole == "index":
        return '"0"'
    if hole == "python":
        return _python_call(grammar, tool)
    if hole == "gemma":
        return _gemma_object(grammar, _arguments(tool), _gemma_quote(form))
    if hole == "params" and form.param is not None:
        given = _properties(_arguments(tool))
        return " ".join(_param(grammar, form.param, *one) for one in given)
    return grammar.json(_arguments(tool))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _arguments(tool: Tool) -> Schema:
    """Give the schema of a tool's arguments: an object that has no other members."""
    schema = {"type": "object", **tool.parameters}
    schema.setdefault("properties", {})
    if "$ref" not in schema:
        schema.setdefault("additionalProperties", False)
    return schema


Property = tuple[str, Schema, bool]
"""Name, schema, and whether it is required."""


def _properties(schema: Schema) -> list[Property]:
    required = schema.get("required", ())
    shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    return [
        (key, {**shared, **one} if isinstance(one, dict) else {}, key in required)
        for key, one in schema.get("properties", {}).items()
    ]


def _param(grammar: Grammar, param: ParamForm, key: str, schema: Schema, required: bool) -> str:
    is_text = schema.get("type") == "string"
    opens = grammar.text(f"{param.opens}{key}{param.between(is_text=is_text)}")
    if not is_text:
        body = f"{opens} {grammar.json(schema)} {grammar.text(param.closes)}"
    elif _all_texts(schema.get("enum")):
        choices = " | ".join(grammar.text(one) for one in schema["enum"])
        body = f"{opens} ({choices}) {grammar.text(param.closes)}"
    else:
        body = f"{opens} {grammar.until(param.closes)}"
    return grammar.rule(body) + ("" if required else "?")


def _all_texts(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(v, str) for v in values)


def _python_call(grammar: Grammar, tool: Tool) -> str:
    given = [
        (f"({_quoted(key + '=')} {grammar.json(schema)})", required)
        for key, schema, required in _properties(_arguments(tool))
    ]
    return f"{_quoted('[' + tool.name + '(')} {_joined(given, ', ')} {_quoted(')]')}"


def _joined(members: Sequence[tuple[str, bool]], comma: str = ",") -> str:
    """Write members with commas between; the required ones first, then any of the others."""
    between = _quoted(comma)
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


def _gemma_quote(form: CallForm) -> str:
    """Give what stands around strings: FunctionGemma and Gemma 4 differ in it."""
    return "<escape>" if any("<start_function_call>" in one for one in form.literals) else '<|"|>'


def _gemma_object(grammar: Grammar, schema: Schema, quote: str) -> str:
    members = [
        (f"({_quoted(key + ':')} {_gemma_value(grammar, one, quote)})", required)
        for key, one, required in _properties(schema)
    ]
    return f'"{{" {_joined(members)} "}}"'


def _gemma_value(grammar: Grammar, schema: Schema, quote: str) -> str:
    if _all_texts(schema.get("enum")):
        choices = " | ".join(grammar.text(f"{quote}{one}{quote}") for one in schema["enum"])
        return f"({choices})"
    kind = schema.get("type")
    if kind == "object" and schema.get("properties"):
        return _gemma_object(grammar, schema, quote)
    if kind == "array":
        item = grammar.rule(_gemma_value(grammar, schema.get("items", {}), quote))
        return f'"[" ({item} ("," {item})*)? "]"'
    if kind in ("number", "integer", "boolean", "null"):
        return grammar.json(schema)
    return f"{grammar.text(quote)} {grammar.until(quote)}"
