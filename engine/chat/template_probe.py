"""Probe a chat template: derive its rules and formats from rendered test conversations. Pure.

The probe finds turn rules, reasoning tags and the tool-call format. A template is a program; its
output for a known call, reasoning or text shows what the model was trained to write. llama.cpp
compares rendered probes too (its docs/autoparser.md). Here each output is searched for the words
of the test conversation, and the text around them is the format. A derived format counts only if
parsing the output with it returns the rendered call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Any

from paddock.engine.request import Message, Tool
from paddock.engine.system.records import Struct, replace
from paddock.engine.system.template_limits import DEADLINE_S, ProcessorTime

from .jinja_template import JinjaTemplate
from .reasoning_tags import KNOWN_TAGS, THINK_TAGS, ReasoningTags
from .template_messages import (
    Place,
    TemplateExhausted,
    TemplateRefused,
    TemplateTurn,
    TurnRules,
    template_turns,
)
from .tool_call_syntax import (
    HERMES,
    KNOWN_FORMATS,
    FormatPart,
    IncompleteValue,
    LiteralText,
    MalformedValue,
    ParameterFormat,
    Placeholder,
    ToolCallFormat,
    calls_in_json,
    parse_calls,
    parse_gemma_object,
    parse_python_calls,
)

PROBE_TOOL_NAME, PROBE_CALL_ID = "qx_tool", "qxid00001"
PROBE_ARGUMENTS: dict[str, Any] = {"qx_key": "qxv one", "qx_more": 7}
SECOND_PROBE_ARGUMENTS: dict[str, Any] = {"qx_key": "qxw two", "qx_more": 8}
_PROBE_PARAMETERS = {
    "type": "object",
    "properties": {
        "qx_key": {"type": "string", "description": "a text"},
        "qx_more": {"type": "integer", "description": "a number"},
    },
    "required": ["qx_key", "qx_more"],
}
PROBE_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": PROBE_TOOL_NAME, "description": "a tool", "parameters": _PROBE_PARAMETERS},
}
_PROBE_TOOLS = {PROBE_TOOL_NAME: Tool(PROBE_TOOL_NAME, "a tool", _PROBE_PARAMETERS)}


class _SeenCall(Struct, frozen=True):
    """A call in a template's output: the places of its known parts, in order."""

    placeholders: tuple[tuple[int, int, Placeholder], ...]
    start: int
    end: int
    """`start` and `end` enclose the whole call; for JSON, the whole value."""
    reads: tuple[Placeholder, ...] = ()
    """One placeholder that covers the whole call, where the parts are not parsed one by one."""
    is_list: bool = False
    param: ParameterFormat | None = None


class _Delimiters(Struct, frozen=True):
    opens: str
    closes: str
    section_opens: str = ""
    section_closes: str = ""


def derive_tool_format(
    one_call: str, two_calls: str, remove_prefix: Callable[[str], str]
) -> ToolCallFormat | None:
    """Return the format that `one_call` and (unless empty) `two_calls` show, or None.

    `remove_prefix` removes what comes before every answer, such as reasoning tags.
    """
    for find_call in _FINDERS:
        seen = find_call(one_call, PROBE_ARGUMENTS, 0)
        if seen is None:
            continue
        second = find_call(two_calls, SECOND_PROBE_ARGUMENTS, seen.end) if two_calls else None
        before, after = remove_prefix(one_call[: seen.start]), one_call[seen.end :]
        parts = _format_parts(one_call, seen)
        marks = _Delimiters(before, after)
        if second is not None and not seen.is_list:
            again = (find_call(two_calls, PROBE_ARGUMENTS, 0) for find_call in _FINDERS)
            first_end = next(filter(None, again), seen).end
            marks = _delimiters(before, two_calls[first_end : second.start], after)
            parts = _with_index_placeholder(parts, _format_parts(two_calls, second))
        writes = _merged_literals([LiteralText(marks.opens), *parts, LiteralText(marks.closes)])
        shell: Sequence[FormatPart] = seen.reads or parts
        reads = _merged_literals([LiteralText(marks.opens), *shell])
        if seen.reads and not marks.opens.strip():
            reads = tuple(seen.reads)
        call_format = ToolCallFormat(
            reads, writes, marks.section_opens, marks.section_closes, seen.param
        )
        if _reads_back(call_format, remove_prefix(one_call)) and (
            call_format.param is None or call_format.param.opens.strip()
        ):
            return call_format
        return None
    return None


def _delimiters(before: str, between: str, after: str) -> _Delimiters:
    """Divide what stands before, between and after two calls into theirs and the section's.

    >>> _delimiters("<a><b>", "</b><b>", "</b></a>")
    _Delimiters(opens='<b>', closes='</b>', section_opens='<a>', section_closes='</a>')
    """
    n_opens = _shared_end(before, between)
    n_closes = n_same = _n_common(after, between[: len(between) - n_opens])
    cut = re.search(r"[<\[][^<>\[\]]*$", after[:n_same])
    if cut and n_same < len(after):  # within a tag
        n_closes = cut.start()
    n_section = len(before) - n_opens
    return _Delimiters(before[n_section:], after[:n_closes], before[:n_section], after[n_closes:])


def _reads_back(call_format: ToolCallFormat, text: str) -> bool:
    """Return whether parsing the output by the format gives back the rendered call."""
    try:
        calls, _ = parse_calls(call_format, text, 0, _PROBE_TOOLS)
    except (MalformedValue, IncompleteValue):
        return False
    return [(call.name, dict(call.arguments)) for call in calls] == [
        (PROBE_TOOL_NAME, PROBE_ARGUMENTS)
    ]


def _format_parts(text: str, seen: _SeenCall) -> list[FormatPart]:
    parts: list[FormatPart] = []
    at = seen.start
    for start, end, placeholder in seen.placeholders:
        parts += [LiteralText(text[at:start]), placeholder]
        at = end
    return [*parts, LiteralText(text[at : seen.end])]


def _with_index_placeholder(parts: list[FormatPart], other: list[FormatPart]) -> list[FormatPart]:
    """Replace the number of the call, the only difference of two calls, by a placeholder."""
    if len(parts) != len(other):
        return parts
    made: list[FormatPart] = []
    for part, same in zip(parts, other, strict=True):
        if not isinstance(part, LiteralText) or not isinstance(same, LiteralText) or part == same:
            made.append(part)
            continue
        pieces = re.split(r"(\d+)", part.text)
        others = re.split(r"(\d+)", same.text)
        if len(pieces) != len(others):
            return parts
        for piece, its in zip(pieces, others, strict=True):
            made.append("index" if piece != its and piece.isdigit() else LiteralText(piece))
    return made


def _merged_literals(parts: list[FormatPart]) -> tuple[FormatPart, ...]:
    made: list[FormatPart] = []
    for part in parts:
        last = made[-1] if made else None
        if isinstance(part, LiteralText) and isinstance(last, LiteralText):
            made[-1] = LiteralText(last.text + part.text)
        elif not isinstance(part, LiteralText) or part.text:
            made.append(part)
    return tuple(piece for part in made for piece in _with_second_name(part))


def _with_second_name(part: FormatPart) -> list[FormatPart]:
    """Replace the tool's name within a literal, which some formats repeat, by a placeholder."""
    if not isinstance(part, LiteralText) or PROBE_TOOL_NAME not in part.text:
        return [part]
    first, *rest = part.text.split(PROBE_TOOL_NAME)
    pieces: list[FormatPart] = [LiteralText(first)] if first else []
    for text in rest:
        pieces += ["name", LiteralText(text)] if text else ["name"]
    return pieces


def _n_common(text: Iterable[str], other: Iterable[str]) -> int:
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False))
    )


def _shared_end(text: str, other: str) -> int:
    n = _n_common(reversed(text), reversed(other))
    shared = text[len(text) - n :]
    # A shared end of two different tags belongs to neither.
    cut = re.match(r"[^<\[]*?[>\]]", shared)
    return n - cut.end() if cut else n


def _json_values(text: str, at: int) -> list[tuple[int, int, Any]]:
    """Return every JSON object and array in a text, outer ones first."""
    found = []
    decoder = json.JSONDecoder()
    for mark in re.finditer(r"[{\[]", text[at:]):
        start = at + mark.start()
        try:
            value, end = decoder.raw_decode(text, start)
        except ValueError:
            continue
        found.append((start, end, value))
    return found


def _json_call(text: str, arguments: Mapping[str, Any], at: int) -> _SeenCall | None:
    for start, end, value in _json_values(text, at):
        try:
            calls = calls_in_json(value, _PROBE_TOOLS)
        except MalformedValue:
            continue
        if not any(
            (call.name, dict(call.arguments)) == (PROBE_TOOL_NAME, arguments) for call in calls
        ):
            continue
        inner = [
            found
            for found in _json_values(text, start)
            if found[2] == arguments and found[1] <= end
        ]
        name = text.find(PROBE_TOOL_NAME, start, end)
        placeholders: list[tuple[int, int, Placeholder]] = [
            (name, name + len(PROBE_TOOL_NAME), "name")
        ]
        call_id = text.find(PROBE_CALL_ID[:-1], start, end)
        if call_id >= 0:
            placeholders.append((call_id, call_id + len(PROBE_CALL_ID), "id"))
        if inner:
            placeholders.append((inner[0][0], inner[0][1], "args"))
        return _SeenCall(
            tuple(sorted(placeholders)), start, end, ("calls",), isinstance(value, list)
        )
    return None


def _named_call(text: str, arguments: Mapping[str, Any], at: int) -> _SeenCall | None:
    name = text.find(PROBE_TOOL_NAME, at)
    if name < 0:
        return None
    inner = next((found for found in _json_values(text, at) if found[2] == arguments), None)
    if inner is None:
        return None
    placeholders: list[tuple[int, int, Placeholder]] = [(inner[0], inner[1], "args")]
    # Some write the name twice; the one nearest to the arguments is parsed.
    name = text.rfind(PROBE_TOOL_NAME, at, inner[0])
    if name >= 0:
        placeholders.append((name, name + len(PROBE_TOOL_NAME), "name"))
    call_id = text.find(PROBE_CALL_ID[:-1], at, inner[0])
    if call_id >= 0:
        placeholders.append((call_id, call_id + len(PROBE_CALL_ID), "id"))
    placeholders.sort()
    return _SeenCall(tuple(placeholders), placeholders[0][0], inner[1])


def _python_call(text: str, arguments: Mapping[str, Any], at: int) -> _SeenCall | None:
    start = text.find(f"[{PROBE_TOOL_NAME}(", at)
    if start < 0:
        return None
    try:
        calls, end = parse_python_calls(text, start)
    except (MalformedValue, IncompleteValue):
        return None
    if (PROBE_TOOL_NAME, arguments) not in [(name, dict(given)) for name, given in calls]:
        return None
    return _SeenCall(((start, end, "python"),), start, end, ("python",), is_list=True)


def _gemma_call(text: str, arguments: Mapping[str, Any], at: int) -> _SeenCall | None:
    start = text.find(PROBE_TOOL_NAME + "{", at)
    if start < 0:
        return None
    try:
        given, end = parse_gemma_object(text, start + len(PROBE_TOOL_NAME))
    except (MalformedValue, IncompleteValue):
        return None
    if dict(given) != arguments:
        return None
    return _SeenCall(
        (
            (start, start + len(PROBE_TOOL_NAME), "name"),
            (start + len(PROBE_TOOL_NAME), end, "gemma"),
        ),
        start,
        end,
    )


def _tagged_call(text: str, arguments: Mapping[str, Any], at: int) -> _SeenCall | None:
    """Find a name, then each key and value, between tags."""
    places = []
    key_at = text.find("qx_key", at)
    at = text.rfind(PROBE_TOOL_NAME, at, key_at) if key_at >= 0 else -1
    if at < 0:
        return None
    for word in (
        PROBE_TOOL_NAME,
        "qx_key",
        str(arguments["qx_key"]),
        "qx_more",
        str(arguments["qx_more"]),
    ):
        at = text.find(word, at)
        if at < 0:
            return None
        places.append((at, at + len(word)))
        at += len(word)
    name, key, value, second_key, number = places
    between = text[value[1] : second_key[0]]
    n_opens = _shared_end(text[name[1] : key[0]], between)
    opens = between[len(between) - n_opens :]
    closes = between[: len(between) - n_opens]
    texts, others = text[key[1] : value[0]], text[second_key[1] : number[0]]
    param = ParameterFormat(opens, texts, closes, others if others != texts else "")
    start = key[0] - n_opens
    end = number[1] + _n_common(text[number[1] :], closes)  # the last one may lack a separator
    placeholders: list[tuple[int, int, Placeholder]] = [(*name, "name"), (start, end, "params")]
    return _SeenCall(tuple(placeholders), name[0], end, param=param)


_FINDERS = (_json_call, _named_call, _python_call, _gemma_call, _tagged_call)


_SYSTEM_WORD, _USER_WORD, _ANSWER_WORD = "qxsys", "qxask", "qxsaid"
_REASONING_WORD, _RESULT_WORD = "qxthought", "qxresult <b> & c"
_USER_TURN: TemplateTurn = {"role": "user", "content": _USER_WORD}
_RESULT_TURN: TemplateTurn = {
    "role": "tool",
    "name": PROBE_TOOL_NAME,
    "tool_call_id": PROBE_CALL_ID,
    "content": _RESULT_WORD,
}


class ChatFormat(Struct, frozen=True):
    rules: TurnRules
    tags: ReasoningTags
    formats: tuple[ToolCallFormat, ...]
    """The template's own first, then those that its words hint at; never empty."""
    wrappers: tuple[str, ...] = ()
    """Marks around plain text that are not part of it."""
    may_reason: bool = False
    is_harmony: bool = False
    """gpt-oss: an answer is several messages on named channels."""


def probe_template(
    template: JinjaTemplate, vocabulary: Collection[str] = (), ends: Sequence[str] = ()
) -> ChatFormat:
    """Return a template's format, from about 30 renderings (2 to 15 ms, seconds at worst).

    `vocabulary`: the model's control tokens, which hint at a format if the template shows none;
    `ends`: texts of tokens that end an answer.

    Raises:
        TemplateExhausted: the template exceeds its limits.
    """
    probe = _TemplateProbe(template, ends)
    rules = probe.rules()
    tags = probe.tags(rules)
    rules, shown = probe.calls(rules, tags)
    hints: Container[str] = set() if shown else set(vocabulary)
    hinted = [
        call_format
        for hint, formats in KNOWN_FORMATS
        if hint in template.source or hint in hints
        for call_format in formats
    ]
    formats = tuple(dict.fromkeys([*([shown] if shown else []), *hinted])) or (HERMES,)
    return ChatFormat(
        rules=rules,
        tags=tags,
        formats=formats,
        wrappers=probe.wrappers(tags),
        may_reason=tags.opens in template.source or tags.closes in template.source,
        is_harmony="<|channel|>" in template.source and "<|message|>" in template.source,
    )


_LATE = ("user assistant X user", "user X assistant user", "user assistant user X")
_PLACES: Mapping[Place, tuple[str, ...]] = {
    "only": ("X",),
    "first": ("X user",),
    "second": ("system X user",),
    "late without system": _LATE,
    "late": tuple(f"system {roles}" for roles in _LATE),
}
"""Conversations with a message X at a place. What will follow it is not known, so all count."""


@lru_cache(maxsize=128)
def carries(
    template: JinjaTemplate, chat_format: ChatFormat, role: str, place: Place, has_tools: bool
) -> bool:
    """Return whether a turn arrives at a place, whole and once, in order with the others.

    What is before it stays a prefix, so that it is not computed again; a user's turn, the last
    resort, may change it.
    """
    rules = chat_format.rules
    if role == "system" and (place == "first" or not rules.takes_system):
        return place in ("only", "first")  # `template_turns` finds room for it
    is_private = role not in ("system", "developer", "user")
    if is_private and re.search(rf"""(['"`]){re.escape(role)}\1""", template.source):
        return True  # the template knows what it means, and may show it otherwise
    tools = [PROBE_TOOL] if has_tools and rules.shows_tools else []

    def render(messages: Sequence[Message]) -> str:
        turns = template_turns(messages, (), rules, chat_format.formats[0])
        return template.render(turns, tools, datetime="")

    for roles in map(str.split, _PLACES[place]):
        n = roles.index("X")
        roles[n] = role
        texts = [f"qx{number} <a> & b" for number in range(len(roles))]
        turns = list(map(Message, roles, texts))
        kept = ""
        try:
            shown = render(turns)
            if n and role != "user":
                without = render([*turns[:n], *turns[n + 1 :]])
                kept = "".join(without.partition(texts[n - 1])[:2])
        except TemplateRefused:
            return False
        ordered = [texts[k] for k in range(len(roles)) if k == n or roles[k] != "system"]
        in_order = re.search(".*".join(map(re.escape, ordered)), shown, re.DOTALL)
        if not in_order or shown.count(texts[n]) != 1 or not shown.startswith(kept):
            return False
    return True


class _TemplateProbe:
    """Renders conversations with words that occur in no template."""

    def __init__(self, template: JinjaTemplate, ends: Sequence[str]) -> None:
        self._template = template
        self._ends = [end for end in ends if end]
        self._is_typed = False
        self._time = ProcessorTime()

    def _try(self, *turns: TemplateTurn, tools: bool = False, is_open: bool = False) -> str:
        """Return the rendered conversation, or an empty text if the template refuses it."""
        if self._time.is_over():
            raise TemplateExhausted(f"it takes longer than {DEADLINE_S:g} s")
        own = list(turns)
        if self._is_typed:
            own = [
                {**turn, "content": [{"type": "text", "text": turn["content"]}]}
                if isinstance(turn["content"], str)
                else turn
                for turn in turns
            ]
        try:
            return self._template.render(own, [PROBE_TOOL] if tools else [], is_open=is_open)
        except TemplateExhausted:
            raise
        except TemplateRefused:
            return ""

    def rules(self) -> TurnRules:
        if _USER_WORD not in self._try(_USER_TURN):
            self._is_typed = True
            self._is_typed = _USER_WORD in self._try(_USER_TURN)
        source = self._template.source
        return TurnRules(
            takes_system=_SYSTEM_WORD
            in self._try({"role": "system", "content": _SYSTEM_WORD}, _USER_TURN),
            alternates=not self._try(_USER_TURN, _USER_TURN),
            shows_tools=PROBE_TOOL_NAME in self._try(_USER_TURN, tools=True),
            typed_content=self._is_typed,
            thinking_key=".thinking" in source and "reasoning_content" not in source,
        )

    def tags(self, rules: TurnRules) -> ReasoningTags:
        turn = _assistant_turn(_ANSWER_WORD)
        turn["thinking" if rules.thinking_key else "reasoning_content"] = _REASONING_WORD
        before, found, after = self._try(_USER_TURN, turn).partition(_REASONING_WORD)
        source = self._template.source
        if found:
            for tags in KNOWN_TAGS:
                if before.rstrip().endswith(tags.opens):
                    return tags
            opens = re.search(r"<[^<>\s]*(?:think|reason|thought)[^<>\s]*>\s*$", before, re.I)
            closes = re.match(r"\s*(<[^<>\s]+>)", after)
            if opens and closes:
                return ReasoningTags(opens.group().strip(), closes.group(1))
        named = (tags for tags in KNOWN_TAGS if tags.closes in source and tags.opens in source)
        return next(named, next((t for t in KNOWN_TAGS if t.closes in source), THINK_TAGS))

    def wrappers(self, tags: ReasoningTags) -> tuple[str, ...]:
        prompt = self._try(_USER_TURN, is_open=True)
        before, found, after = self._try(_USER_TURN, _assistant_turn(_ANSWER_WORD)).partition(
            _ANSWER_WORD
        )
        own = without_tags(_answer_part(prompt, before), tags)
        if not found or not re.fullmatch(r"<\|[A-Z_]+\|>", own):
            return ()
        closes = re.match(r"\s*(<[^<>\s]+>)", after)
        return (own, closes.group(1)) if closes else (own,)

    def calls(
        self, rules: TurnRules, tags: ReasoningTags
    ) -> tuple[TurnRules, ToolCallFormat | None]:
        variants = (
            replace(rules, arguments_as_text=as_text, null_content=is_null)
            for as_text in (False, True)
            for is_null in (False, True)
        )
        shown = [(variant, text) for variant in variants if (text := self._calls_shown(variant, 1))]
        for tried, one_call in shown:
            two_calls = self._calls_shown(tried, 2)
            call_format = derive_tool_format(
                one_call, two_calls, lambda text: without_tags(text, tags)
            )
            if call_format is not None:
                if call_format.param is not None:
                    quotes = self._quotes(tried, call_format.param)
                    param = replace(call_format.param, quotes=quotes)
                    call_format = replace(call_format, param=param)
                return self._call_rules(tried, has_two=bool(two_calls)), call_format
        if shown:
            return self._call_rules(shown[0][0], has_two=True), None
        result = self._try(
            _USER_TURN, _assistant_turn(_ANSWER_WORD), _RESULT_TURN, tools=True, is_open=True
        )
        return replace(rules, shows_calls=False, shows_results=_RESULT_WORD in result), None

    def _quotes(self, rules: TurnRules, param: ParameterFormat) -> tuple[str, str]:
        """Return what is around an argument with `<` and `&`."""
        turn = _calling_turn(rules, 1, text=_RESULT_WORD)
        shown = self._try(_USER_TURN, turn, tools=True).rpartition(f"qx_key{param.names}")[2]
        before, found, after = shown.partition(param.closes)[0].partition(_RESULT_WORD)
        return (before, after) if found else ("", "")

    def _call_rules(self, rules: TurnRules, *, has_two: bool) -> TurnRules:
        calling_turn = _calling_turn(rules, 1)
        result = self._try(_USER_TURN, calling_turn, _RESULT_TURN, tools=True, is_open=True)
        other_id = self._try(_USER_TURN, _calling_turn(rules, 1, "call_0123456789"), tools=True)
        both = self._try(_USER_TURN, {**calling_turn, "content": _ANSWER_WORD}, tools=True)
        return replace(
            rules,
            shows_calls_with_text=_ANSWER_WORD in both and PROBE_ARGUMENTS["qx_key"] in both,
            single_calls=not has_two,
            shows_results=_RESULT_WORD in result,
            short_ids=not other_id,
        )

    def _calls_shown(self, rules: TurnRules, n_calls: int) -> str:
        whole = self._try(_USER_TURN, _calling_turn(rules, n_calls), tools=True)
        prompt = self._try(_USER_TURN, tools=True, is_open=True)
        text = self._try(_USER_TURN, _assistant_turn(_ANSWER_WORD), tools=True)
        body = _answer_part(prompt, whole)
        if PROBE_TOOL_NAME not in body or "qxv" not in body or (n_calls == 2 and "qxw" not in body):
            return ""
        tail = text.partition(_ANSWER_WORD)[2]
        body = body[: len(body) - common_end(tail, body)]
        after = body.rindex("qx")
        ends = [at for end in self._ends if (at := body.find(end, after)) >= 0]
        return body[: min(ends, default=len(body))]


def _assistant_turn(content: str | None) -> TemplateTurn:
    return {"role": "assistant", "content": content}


def _calling_turn(
    rules: TurnRules, n_calls: int, call_id: str = PROBE_CALL_ID, text: str = "qxv one"
) -> TemplateTurn:
    given = [{**PROBE_ARGUMENTS, "qx_key": text}, SECOND_PROBE_ARGUMENTS][:n_calls]
    calls = [
        {
            "id": f"{call_id[:-1]}{number}",
            "type": "function",
            "function": {
                "name": PROBE_TOOL_NAME,
                "arguments": json.dumps(arguments) if rules.arguments_as_text else arguments,
            },
        }
        for number, arguments in enumerate(given, start=1)
    ]
    return {**_assistant_turn(None if rules.null_content else ""), "tool_calls": calls}


def without_tags(text: str, tags: ReasoningTags) -> str:
    while True:
        text = text.lstrip()
        for mark in (tags.opens, tags.closes):
            if text.startswith(mark):
                text = text[len(mark) :]
                break
        else:
            return text


def _answer_part(prompt: str, whole: str) -> str:
    n = common_start(prompt, whole)
    body = whole[n:]
    if n == len(prompt):
        return body
    # Some end a prompt with more instructions; both then contain the turn's opening.
    overlap = next((k for k in range(len(body), 0, -1) if prompt.endswith(body[:k])), 0)
    return body[overlap:]


def common_start(text: str, other: str) -> int:
    """Return the length of the common beginning, without a cut tag."""
    n = _n_common(text, other)
    if n == len(text):
        return n
    return _before_cut_tag(other, n)


def common_end(text: str, other: str) -> int:
    """Return the length of the common end, without a cut tag."""
    start = len(other) - _n_common(reversed(text), reversed(other))
    while start < len(other) and _before_cut_tag(other, start) != start:
        start += 1
    return len(other) - start


def _before_cut_tag(text: str, at: int) -> int:
    """Return `at`, or the beginning of the tag that it would cut."""
    for tag in re.finditer(r"<[^<>\s]*>|\[[^\[\]\s]*\]", text):
        if tag.start() < at < tag.end():
            return tag.start()
    return at
