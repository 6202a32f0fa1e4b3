from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.engine.chat.stream_parser import AnswerDelta, PlainTextParser
from paddock.engine.request import Tool
from tests.engine.chat.answer_parsing import WEATHER, parsed_answer, parser_for

# What models of each family answer: taken over as facts from llama.cpp's tests/test-chat.cpp.
SPECIAL = Tool("special_function", "", {"properties": {"arg1": {"type": "integer"}}})
PYTHON = Tool("python", "", {"properties": {"code": {"type": "string"}}})
SAID = "Hello, world!\nWhat's up?"
ONE: list[tuple[str, dict[str, Any]]] = [("special_function", {"arg1": 1})]

SAMPLES: list[tuple[str, str, str, str, list[tuple[str, dict[str, Any]]]]] = [
    ("Qwen-Qwen3", SAID, SAID, "", []),
    ("Qwen-Qwen3", f"<think>\nI'm\nthinking\n</think>\n\n{SAID}", SAID, "I'm\nthinking", []),
    ("Qwen-Qwen3", "<think>\nnever closed", "", "never closed", []),
    ("Qwen-Qwen3",
     f'{SAID}\n<tool_call>\n{{"name": "special_function", "arguments": {{"arg1": 1}}}}\n'
     '</tool_call>\n<tool_call>\n{"name": "python", "arguments": {"code": "a </tool_call>"}}\n'
     "</tool_call>", SAID, "", [*ONE, ("python", {"code": "a </tool_call>"})]),
    ("NousResearch-Hermes-3", '<tool_call>{"name": "special_function", "arguments": {"arg1": 1}}',
     "", "", ONE),
    ("Qwen3-Coder",
     "<tool_call>\n<function=special_function>\n<parameter=arg1>\n1\n</parameter>\n</function>\n"
     "</tool_call>\n<tool_call>\n<function=python>\n<parameter=code>\ndef f():\n    return 1\n"
     "</parameter>\n</function>\n</tool_call>",
     "", "", [*ONE, ("python", {"code": "def f():\n    return 1"})]),
    # it often forgets the outer tag
    ("Qwen3-Coder",
     "<function=special_function>\n<parameter=arg1>\n1\n</parameter>\n</function>\n</tool_call>",
     "", "", ONE),
    ("meta-llama-Llama-3.1", '{"name": "special_function", "parameters": {"arg1": 1}}',
     "", "", ONE),
    ("meta-llama-Llama-3.1",
     '<|python_tag|>{"type": "function", "name": "special_function", "parameters": {"arg1": 1}}',
     "", "", ONE),
    ("meta-llama-Llama-3.2", "[special_function(arg1=1), python(code=\"print('hey')\")]",
     "", "", [*ONE, ("python", {"code": "print('hey')"})]),
    ("mistralai-Mistral-Nemo",
     '[TOOL_CALLS][{"name": "special_function", "arguments": {"arg1": 1}, "id": "123456789"}]',
     "", "", ONE),
    ("Mistral-Small-3.2", 'Bien.[TOOL_CALLS]special_function[CALL_ID]123456789[ARGS]{"arg1": 1}',
     "Bien.", "", ONE),
    ("Mistral-Small-3.2",
     '[TOOL_CALLS]special_function[ARGS]{"arg1": 1}[TOOL_CALLS]python[ARGS]{"code": "x"}',
     "", "", [*ONE, ("python", {"code": "x"})]),
    ("deepseek-ai-DeepSeek-R1-Distill-Qwen",
     "<think>I'm\nthinking</think>\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function"  # noqa: RUF001
     '<｜tool▁sep｜>special_function\n```json\n{"arg1": 1}\n```<｜tool▁call▁end｜>'  # noqa: RUF001
     "<｜tool▁calls▁end｜>", "", "I'm\nthinking", ONE),  # noqa: RUF001
    ("deepseek-ai-DeepSeek-V3.1",
     "CONTENT<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>special_function<｜tool▁sep｜>"  # noqa: RUF001
     '{"arg1": 1}<｜tool▁call▁end｜><｜tool▁call▁begin｜>python<｜tool▁sep｜>'  # noqa: RUF001
     '{"code": "x"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',  # noqa: RUF001
     "CONTENT", "", [*ONE, ("python", {"code": "x"})]),
    ("google-gemma-4", "<|channel>thought\nI'm\nthinking<channel|><|tool_call>call:python"
     '{code:<|"|>a {b}, c<|"|>}<tool_call|>'
     "<|tool_call>call:special_function{arg1:1}<tool_call|>",
     "", "I'm\nthinking", [("python", {"code": "a {b}, c"}), *ONE]),
    ("openai-gpt-oss", "<|channel|>analysis<|message|>I'm\nthinking<|end|><|start|>assistant to="
     'functions.special_function<|channel|>commentary json<|message|>{"arg1": 1}',
     "", "I'm\nthinking", ONE),
    ("openai-gpt-oss",
     "<|channel|>commentary to=functions.special_function <|constrain|>json<|message|>"
     '{"arg1": 1}<|call|>', "", "", ONE),
    ("openai-gpt-oss",
     "<|channel|>analysis<|message|>I'm\nthinking<|end|><|start|>assistant<|channel|>final"
     f"<|message|>{SAID}", SAID, "I'm\nthinking", []),
    ("ibm-granite-granite-3.3",
     '<|tool_call|>[{"name": "special_function", "arguments": {"arg1": 1}}]', "", "", ONE),
    ("CohereForAI-c4ai-command-r7b",
     "<|START_THINKING|>I'm\nthinking<|END_THINKING|><|START_ACTION|>[\n    {"
     '"tool_call_id": "0", "tool_name": "special_function", "parameters": {"arg1": 1}}\n]'
     "<|END_ACTION|>", "", "I'm\nthinking", ONE),
    ("CohereForAI-c4ai-command-r7b", f"<|START_RESPONSE|>{SAID}<|END_RESPONSE|>", SAID, "", []),
    ("Kimi-K2", "Good.<|tool_calls_section_begin|><|tool_call_begin|>functions.special_function:0"
     '<|tool_call_argument_begin|>{"arg1": 1}<|tool_call_end|><|tool_calls_section_end|>',
     "Good.", "", ONE),
    ("microsoft-Phi-3.5",
     'I will.\n\n<tool_call>\n{"name": "special_function", "arguments": "{\\"arg1\\": 1}"}\n'
     "</tool_call>\n", "I will.", "", ONE),
]  # fmt: skip


def parts_of(parsed: AnswerDelta) -> tuple[str, str, list[tuple[str, dict[str, Any]]]]:
    calls = [(call.name, dict(call.arguments)) for call in parsed.tool_calls]
    return parsed.text, parsed.reasoning, calls


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample[0]}-{sample[1][:30]}")
def test_what_models_answer_is_heard_apart(
    sample: tuple[str, str, str, str, list[tuple[str, dict[str, Any]]]],
) -> None:
    name, answer, text, reasoning, calls = sample
    parsed = parsed_answer(lambda: parser_for(name, (SPECIAL, PYTHON)), answer)
    assert parts_of(parsed) == (text, reasoning, calls)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SAMPLES), st.lists(st.integers(0, 10_000), max_size=12), st.booleans())
def test_it_does_not_matter_how_an_answer_is_cut(
    sample: tuple[str, str, str, str, list[Any]], cuts: list[int], is_inside: bool
) -> None:
    def made() -> Any:
        return parser_for(sample[0], (SPECIAL, PYTHON), is_inside=is_inside)

    whole = parsed_answer(made, sample[1])
    assert parsed_answer(made, sample[1], cuts) == whole
    assert parsed_answer(made, sample[1], range(len(sample[1].encode()))) == whole


@pytest.mark.parametrize("sample", [one for one in SAMPLES if one[4] and "gpt-oss" not in one[0]],
                         ids=lambda sample: f"{sample[0]}-{sample[1][:30]}")  # fmt: skip
def test_a_demanded_call_that_a_limit_cuts_leaves_no_text(
    sample: tuple[str, str, str, str, list[tuple[str, dict[str, Any]]]],
) -> None:
    name, answer, text, _, calls = sample
    for end in range(1, len(answer)):
        parsed = parsed_answer(
            lambda: parser_for(name, (SPECIAL, PYTHON), must_call=True), answer[:end], is_cut=True
        )
        found = parts_of(parsed)
        assert text.startswith(found[0]) and found[2] == calls[: len(found[2])], answer[:end]


@pytest.mark.parametrize(("answer", "text"), [
    ('Ok.\n<tool_call>\n{"name": "special_function", "arguments": {"arg1": 1}}\n</tool_', "Ok."),
    ('Ok.\n<tool_call>\n{"name": "special_func', "Ok."),
    ("A tag: <tool_call> is", "A tag: <tool_call> is"),
])  # fmt: skip
def test_of_a_call_that_a_limit_cuts_nothing_is_text(answer: str, text: str) -> None:
    made = parsed_answer(lambda: parser_for("Qwen-Qwen3", (SPECIAL,)), answer, is_cut=True)
    assert made.text == text


SCRAPS = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<tool_call>", "</tool_call>", "\n", " ", "a", "<", "é",
         "[TOOL_CALLS]",
         '{"name": "get_weather", "arguments": {"city": "Rome"}}', '{"name": "x"', "}", "[", "]",
         "<function=get_weather>", "<parameter=city>", "</parameter>", "</function>", '"', "STOP",
         "<|tool_call>call:get_weather{city:", '<|"|>', "<tool_call|>", "<|channel>thought", "get_",
         "<channel|>", "get_weather(city=1)", ", ", "get_weather", "[ARGS]"]
    ),
    max_size=14,
)  # fmt: skip
FAMILIES = st.sampled_from(
    ["Qwen-Qwen3", "Qwen3-Coder", "meta-llama-Llama-3.2", "Mistral-Small-3.2", "google-gemma-4"]
)


@settings(max_examples=300, deadline=None)
@given(FAMILIES, SCRAPS, st.lists(st.integers(0, 500), max_size=8), st.booleans(), st.booleans())
def test_nonsense_is_heard_the_same_however_it_is_cut(
    name: str, scraps: list[str], cuts: list[int], is_inside: bool, has_stop: bool
) -> None:
    def made() -> Any:
        return parser_for(name, stop=("STOP", "a\n") if has_stop else (), is_inside=is_inside)

    answer = "".join(scraps)
    whole = parsed_answer(made, answer)
    assert parsed_answer(made, answer, cuts) == whole
    assert parsed_answer(made, answer, range(len(answer.encode()))) == whole


@given(st.text("ab <>", max_size=30), st.lists(st.integers(0, 50), max_size=5))
def test_nothing_is_lost_of_an_answer_without_tags(answer: str, cuts: list[int]) -> None:
    assert parsed_answer(lambda: parser_for("Qwen-Qwen3"), answer, cuts) == AnswerDelta(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "The tag <tool_call> announces a call.",
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": \n',
        '<tool_call>{"nothing": "known"}</tool_call>',
        "<tool_call>[1, 2]</tool_call>",
    ],
)
def test_a_malformed_call_comes_back_as_text(answer: str) -> None:
    assert parsed_answer(lambda: parser_for("Qwen-Qwen3"), answer) == AnswerDelta(answer)


@pytest.mark.parametrize(
    "answer", ['{"a": 1, "b": [2]}', '{"name": "nobody", "parameters": {}}', "[1, 2, 3]", "[see]"]
)
def test_json_is_no_call_unless_it_names_a_tool(answer: str) -> None:
    assert parsed_answer(lambda: parser_for("meta-llama-Llama-3.1"), answer) == AnswerDelta(answer)


def test_text_is_told_as_soon_as_it_is_certain() -> None:
    parser = parser_for("Qwen-Qwen3")
    assert parser.feed(b"Hello <").text == "Hello"
    assert parser.feed(b"b> <tool_") == AnswerDelta(" <b>")
    assert parser.feed(b"call>\n") == AnswerDelta()
    assert parser.feed(b'{"name": "get_weather", "arguments": {"city": "Rome"').tool_calls == ()
    (call,) = parser.feed(b"}}").tool_calls
    assert (call.name, call.arguments, call.id) == ("get_weather", {"city": "Rome"}, "id1")
    assert parser.feed(b"\n</tool_call>") == parser.close() == AnswerDelta()


def test_stop_strings_end_the_text_but_not_reasoning_or_calls() -> None:
    answer = '<think>END</think>a<tool_call>{"name": "get_weather", "arguments": {"city": "END"}}'
    parsed = parsed_answer(
        lambda: parser_for("Qwen-Qwen3", stop=("END",)), f"{answer}</tool_call>b END c"
    )
    assert parts_of(parsed) == ("ab ", "END", [("get_weather", {"city": "END"})])


def test_a_prompt_that_opens_reasoning_is_answered_from_within_it() -> None:
    made = lambda: parser_for("Qwen-Qwen3", is_inside=True)  # noqa: E731
    assert parsed_answer(made, "hm\n</think>\n\nYes.") == AnswerDelta("Yes.", "hm")
    assert parsed_answer(made, "<think>hm</think>Yes.") == AnswerDelta("Yes.", "hm")
    assert parsed_answer(made, "hm") == AnswerDelta("", "hm")


def test_a_call_within_reasoning_counts_only_where_nothing_follows() -> None:
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    made = lambda: parser_for("Qwen-Qwen3", is_inside=True)  # noqa: E731
    assert parts_of(parsed_answer(made, f"Look.\n{call}\n")) == (
        "",
        "Look.",
        [("get_weather", {"city": "Rome"})],
    )
    thought = f"I could say {call} here."
    assert parsed_answer(made, f"{thought}</think>No.") == AnswerDelta("No.", thought)


def test_a_long_answer_costs_little_to_hear() -> None:
    parser = parser_for("Qwen-Qwen3", (WEATHER,))
    head = b'<tool_call>\n{"name": "get_weather", "arguments": {"city": "'
    parser.feed(head)
    for _ in range(20_000):  # quadratic reading would take minutes
        parser.feed(b"Rome ")
    (call,) = parser.feed(b'"}}').tool_calls
    assert len(call.arguments["city"]) == 100_000


@given(st.text(), st.lists(st.integers(1, 4), min_size=1))
def test_characters_come_whole_however_the_bytes_are_cut(text: str, lengths: list[int]) -> None:
    raw, answer, shown, at, turn = text.encode(errors="replace"), PlainTextParser(), "", 0, 0
    while at < len(raw):
        n = lengths[turn % len(lengths)]
        shown += answer.feed(raw[at : at + n]).text
        at, turn = at + n, turn + 1
    shown += answer.close().text
    assert shown == raw.decode()


@given(
    st.text("abE", max_size=30),
    st.lists(st.text("abE", min_size=1, max_size=4), min_size=1, max_size=3),
    st.integers(1, 5),
)
def test_the_answer_ends_before_the_first_stop_string(
    text: str, stops: list[str], step: int
) -> None:
    answer, shown, raw = PlainTextParser(tuple(stops)), "", text.encode()
    for at in range(0, len(raw), step):
        shown += answer.feed(raw[at : at + step]).text
        if answer.is_stopped:
            break
    shown += answer.close().text
    assert not any(stop in shown for stop in stops)
    assert text.startswith(shown)
    assert answer.is_stopped == any(stop in text for stop in stops)
    if not answer.is_stopped:
        assert shown == text


def test_the_stop_string_that_comes_first_is_told() -> None:
    text = PlainTextParser(stop=("END", "stop", "top"))
    assert text.stopped_by == ""
    assert text.feed(b"a stop, END").text == "a "
    assert text.stopped_by == "stop"
