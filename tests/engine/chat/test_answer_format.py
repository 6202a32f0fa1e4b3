import json
import warnings

import pytest
from llguidance import LLMatcher, LLTokenizer
from llguidance.llamacpp import lltokenizer_from_vocab

from paddock.engine.chat.answer_format import (
    ReasoningPrefix,
    analysis_then,
    harmony_call_grammar,
    reasoning_then,
    tool_call_grammar,
)
from paddock.engine.chat.chat_template import ChatTemplate
from paddock.engine.chat.reasoning_tags import THINK_TAGS
from paddock.engine.llama.llama_model import Model
from paddock.engine.request import Constraint, Tool, ToolCall
from paddock.engine.sampling.constraint import as_lark
from tests.engine.chat.answer_parsing import TEMPLATES, WEATHER, template

CALL = ToolCall("get_weather", {"city": "Paris", "days": 3, "unit": "kelvin"}, "abcdef123")
NOTHING_BEFORE = ReasoningPrefix(THINK_TAGS)


@pytest.fixture(scope="module")
def grammars(model: Model) -> LLTokenizer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # llguidance asks by an old name
        return lltokenizer_from_vocab(model._vocab)


def begun(grammars: LLTokenizer, constraint: Constraint) -> LLMatcher:
    """Return a matcher at the beginning; the grammar is sound, and nothing in it is passed over."""
    assert constraint.kind == "lark"
    grammar = LLMatcher.grammar_from_lark(constraint.source)
    is_refused, warned = LLMatcher.validate_grammar_with_warnings(grammar, grammars)
    assert (is_refused, warned) == (False, [])
    return LLMatcher(grammars, grammar)


def takes(grammars: LLTokenizer, model: Model, constraint: Constraint, answer: str) -> bool:
    """Return whether a whole answer matches, tokenised as a model without these tags would."""
    matcher = begun(grammars, as_lark(constraint))
    tokens = model.tokenise(answer, with_special=False, parse_special=True).tolist()
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def spelled(name: str) -> str:
    """Write the call as the family does."""
    if name.startswith("google-gemma-4"):
        return '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:3,unit:<|"|>kelvin<|"|>}'
    return template(name).chat_format.formats[0].write(CALL)


@pytest.mark.parametrize(
    "name", sorted(p.stem for p in TEMPLATES.glob("*.jinja") if "gpt-oss" not in p.stem)
)
def test_a_forced_call_is_written_as_the_template_writes_it(
    name: str, model: Model, grammars: LLTokenizer
) -> None:
    call_format = template(name).chat_format.formats[0]
    constraint = tool_call_grammar(call_format, [WEATHER], NOTHING_BEFORE, {})
    answer = spelled(name)
    tokens = model.tokenise(answer, with_special=False, parse_special=False).tolist()
    assert begun(grammars, constraint).try_consume_tokens(tokens) == len(tokens)
    for wrong in ("Paris is", answer.replace("get_weather", "get_whatever")):
        assert not takes(grammars, model, constraint, wrong)
    if "unit" in answer and '"kelvin"' in answer:
        assert not takes(grammars, model, constraint, answer.replace("kelvin", "fahrenheit"))


def test_gpt_oss_may_analyse_before_a_forced_call(model: Model, grammars: LLTokenizer) -> None:
    constraint = harmony_call_grammar([WEATHER], {})
    call = ' to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Paris"}'
    analysis = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    assert takes(grammars, model, constraint, call)
    assert takes(grammars, model, constraint, analysis + call)
    assert not takes(grammars, model, constraint, analysis + "<|channel|>final<|message|>No.")


def test_a_schema_with_definitions_keeps_them(model: Model, grammars: LLTokenizer) -> None:
    tool = Tool(
        "move",
        "",
        {
            "properties": {"to": {"$ref": "#/$defs/point"}},
            "required": ["to"],
            "$defs": {"point": {"enum": ["north", "south"]}},
        },
    )
    for name in ("Qwen-Qwen3", "Qwen3-Coder"):
        call_format = template(name).chat_format.formats[0]
        constraint = tool_call_grammar(call_format, [tool], NOTHING_BEFORE, {})
        assert begun(grammars, constraint).compute_ff_bytes()


def test_reasoning_comes_before_a_schema(model: Model, grammars: LLTokenizer) -> None:
    schema = Constraint("json_schema", json.dumps({"enum": ["yes", "no"]}))
    may = reasoning_then(schema, ReasoningPrefix(THINK_TAGS, may_reason=True), {})
    assert takes(grammars, model, may, '"yes"')
    assert takes(grammars, model, may, '<think>\nHm, "maybe"?\n</think>\n\n"no"')
    assert not takes(grammars, model, may, '<think>Hm.</think>"maybe"')
    must = reasoning_then(schema, ReasoningPrefix(THINK_TAGS, is_inside=True), {})
    assert takes(grammars, model, must, 'Hm.</think>"no"')
    assert not takes(grammars, model, must, '"no"')
    assert reasoning_then(schema, NOTHING_BEFORE, {}) is schema


@pytest.mark.parametrize(
    ("constraint", "answer"),
    [
        (Constraint("json"), '{"a":1}'),
        (Constraint("regex", "a/b[0-9]+"), "a/b12"),
        (Constraint("lark", 'start: first "b"\nfirst: "a"'), "ab"),
        (Constraint("gbnf", 'root ::= "\\"" first\nfirst ::= "\u2028" # b'), '"\u2028'),
    ],
)
def test_every_kind_of_constraint_can_follow_reasoning(
    constraint: Constraint, answer: str, model: Model, grammars: LLTokenizer
) -> None:
    beginning = ReasoningPrefix(THINK_TAGS, may_reason=True)
    reasoning = reasoning_then(constraint, beginning, {})
    assert takes(grammars, model, reasoning, answer)
    assert takes(grammars, model, reasoning, f"<think>Hm</think>{answer}")
    final = analysis_then(constraint, {})
    assert takes(grammars, model, final, f"<|channel|>final<|message|>{answer}")


def test_control_tokens_stand_by_their_numbers(model: Model, grammars: LLTokenizer) -> None:
    source = (
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}<|im_start|>"
        "{{ c.function | tojson }}<|endoftext|>{% endfor %}{% endfor %}{{ tools }}"
    )
    chat_template = ChatTemplate(source, bos="", eos="", control_tokens=model.special_tokens())
    call_format = chat_template.chat_format.formats[0]
    constraint = tool_call_grammar(call_format, [WEATHER], NOTHING_BEFORE, model.special_tokens())
    matcher = begun(grammars, constraint)
    assert "<[1]>" in constraint.source
    assert matcher.compute_ff_tokens()[0] == model.special_tokens()["<|im_start|>"]
