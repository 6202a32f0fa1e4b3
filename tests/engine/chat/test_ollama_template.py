import datetime
import json
import re
import time

import pytest

from paddock.engine.chat.chat_template import ChatTemplate
from paddock.engine.chat.control_tokens import TextPiece
from paddock.engine.chat.stream_parser import AnswerMarkup, MarkupParser
from paddock.engine.errors import BadRequest
from paddock.engine.request import Message, Think, Tool, ToolCall
from tests.engine.chat.answer_parsing import WEATHER, parsed_answer, template
from tests.engine.chat.go_templates import GO_NAMES, go_source, go_template
from tests.engine.chat.test_template_probe import shape

TALK = [
    Message("system", "Be brief."),
    Message("user", "Who are you?"),
    Message("assistant", "A model."),
    Message("user", "Which one?"),
]
CALLS = (
    ToolCall("get_weather", {"city": "Paris", "days": 3}, "call_1"),
    ToolCall("get_weather", {"city": "Rome"}, "call_2"),
)
CALLING = [
    Message("user", "How is it in Paris and Rome?"),
    Message("assistant", "", tool_calls=CALLS),
    Message("tool", "22 °C", tool_name="get_weather", tool_call_id="call_1"),
    Message("tool", "31 °C", tool_name="get_weather", tool_call_id="call_2"),
    Message("assistant", "Warm."),
    Message("user", "And tomorrow?"),
]


def rendered(
    chat_template: ChatTemplate, messages: list[Message], *tools: Tool, think: Think | None = None
) -> str:
    return "".join(piece.text for piece in chat_template.render(messages, tools=tools, think=think))


@pytest.mark.parametrize("name", GO_NAMES)
def test_every_template_renders_a_conversation(name: str) -> None:
    prompt = rendered(go_template(name), TALK)
    places = [prompt.index(text) for text in ("Who are you?", "A model.", "Which one?")]
    assert places == sorted(places)
    assert "Be brief." in prompt


@pytest.mark.parametrize("name", GO_NAMES)
def test_every_template_is_told_of_tools_calls_and_results(name: str) -> None:
    prompt = rendered(go_template(name), CALLING, WEATHER)
    for text in ("Paris", "Rome", "22 °C", "31 °C", "tomorrow", "get_weather"):
        assert text in prompt
    assert prompt.index("Paris") < prompt.index("22 °C") < prompt.index("31 °C")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chatml", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho are you?"
         "<|im_end|>\n<|im_start|>assistant\nA model.<|im_end|>\n<|im_start|>user\nWhich one?"
         "<|im_end|>\n<|im_start|>assistant\n"),
        ("chatml-turns", "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho are you?"
         "<|im_end|>\n<|im_start|>assistant\nA model.<|im_end|>\n<|im_start|>user\nWhich one?"
         "<|im_end|>\n<|im_start|>assistant\n"),
        ("alpaca", "Be brief.\n\n### Instruction:\nWho are you?\n\n### Response:\nA model.\n\n"
         "### Instruction:\nWhich one?\n\n### Response:\n"),
        ("codellama", "[INST] <<SYS>>Be brief.<</SYS>>\n\nWho are you? [/INST] A model."
         "[INST] Which one? [/INST] "),
        ("mistral", "[INST] Who are you?[/INST] A model.</s>[INST] Be brief.\n\nWhich one?[/INST]"),
    ],
)  # fmt: skip
def test_a_template_without_messages_is_carried_out_turn_by_turn(name: str, expected: str) -> None:
    assert rendered(go_template(name), TALK) == expected


@pytest.mark.parametrize(
    ("name", "jinja"),
    [
        ("qwen3", "Qwen-Qwen3"),
        ("gemma", "google-gemma-2"),
        ("phi3", "microsoft-Phi-3.5"),
        ("deepseek-r1", "deepseek-ai-DeepSeek-R1-Distill"),
        ("qwen2.5-coder", "Qwen-Qwen3"),
    ],
)
def test_it_says_what_the_same_models_jinja_template_says(name: str, jinja: str) -> None:
    for talk in (TALK, TALK[1:]):
        go = rendered(go_template(name), talk, think=True)
        assert go == rendered(template(jinja), talk, think=True).removeprefix("<BOS>")


@pytest.mark.parametrize("think", [None, False, True])
def test_thinking_is_asked_for_as_the_same_models_jinja_template_does(think: bool | None) -> None:
    go = rendered(go_template("qwen3"), TALK, think=think)
    assert go == rendered(template("Qwen-Qwen3"), TALK, think=think)


def test_tools_and_calls_are_told_as_the_same_models_jinja_template_tells_them() -> None:
    go = rendered(go_template("qwen3"), CALLING, WEATHER)
    jinja = rendered(template("Qwen-Qwen3"), CALLING, WEATHER)
    assert _without_results_joined(_compact(go)) == _without_results_joined(_compact(jinja))


def _compact(prompt: str) -> str:
    """Write every line that is JSON in one way."""
    return "\n".join(
        json.dumps(json.loads(line)) if line.startswith('{"') and "<" not in line else line
        for line in prompt.splitlines()
    )


def _without_results_joined(prompt: str) -> str:
    """Qwen's own template puts neighbouring results into one turn."""
    return prompt.replace("</tool_response><|im_end|>\n<|im_start|>user\n", "</tool_response>\n")


@pytest.mark.parametrize(
    ("name", "reads", "tags"),
    [
        ("llama3", "«calls»", "<think>"),
        ("mistral", "[TOOL_CALLS] «calls»", "<think>"),
        ("qwen2.5-coder", "<tool_call>\n«calls»", "<think>"),
        ("qwen3", "<tool_call>\n«calls»", "<think>"),
        ("chatml", "<tool_call>\n«calls»", "<think>"),
        ("alpaca", "<tool_call>\n«calls»", "<think>"),
    ],
)
def test_a_template_shows_its_form(name: str, reads: str, tags: str) -> None:
    chat_format = go_template(name).chat_format
    assert shape(chat_format.formats[0]) == reads
    assert chat_format.tags.opens == tags


@pytest.mark.parametrize("name", ["llama3", "mistral", "qwen2.5-coder", "qwen3", "chatml"])
def test_what_a_template_writes_is_heard_again(name: str) -> None:
    chat_template = go_template(name)
    written = chat_template.chat_format.formats[0].write(CALLS[0])
    markup = AnswerMarkup(
        chat_template.chat_format.tags,
        chat_template.chat_format.formats,
        {"get_weather": WEATHER},
        chat_template.chat_format.wrappers,
    )
    parsed = parsed_answer(lambda: MarkupParser(markup, (), lambda: "id1"), written)
    assert parsed.tool_calls == (ToolCall("get_weather", CALLS[0].arguments, "id1"),)
    assert not parsed.text.strip()


def test_thinking_tags_are_found_in_what_a_template_says_of_thoughts() -> None:
    source = (
        "{{ range .Messages }}<{{ .Role }}>{{ if .Thinking }}<ponder>{{ .Thinking }}</ponder>"
        "{{ end }}{{ .Content }}{{ end }}<assistant>"
    )
    assert ChatTemplate(source, bos="", eos="").chat_format.tags.opens == "<think>"
    source = source.replace("ponder", "thinking")
    chat_format = ChatTemplate(source, bos="", eos="").chat_format
    assert (chat_format.tags.opens, chat_format.tags.closes) == ("<thinking>", "</thinking>")
    assert chat_format.may_reason


def test_nothing_that_a_request_says_can_become_a_turn() -> None:
    bad = "<|im_end|>"
    chat_template = ChatTemplate(go_source("qwen3"), bos="", eos="", control_tokens=[bad])
    call = ToolCall("f", {f"key{bad}": [f"value{bad}", {"deep": bad}]}, "i")
    messages = [
        Message("system", bad),
        Message("user", bad),
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", bad),
    ]
    pieces = chat_template.render(
        messages, tools=[Tool("f", bad, {"properties": {bad: {"enum": [bad]}}})]
    )
    assert "".join(piece.text for piece in pieces if not piece.is_literal).count(bad) == 4
    assert sum(piece.text == bad for piece in pieces if piece.is_literal) == 9


def test_a_text_is_inserted_where_the_template_has_a_place_for_it() -> None:
    chat_template = ChatTemplate(go_source("codellama"), bos="", eos="", control_tokens=["<MID>"])
    assert chat_template.inserts
    assert chat_template.render_insert("def f(", "<MID>\n") == (
        TextPiece("<PRE> def f( <SUF>", False),
        TextPiece("<MID>", True),
        TextPiece("\n <MID>", False),
    )
    (piece,) = go_template("qwen2.5-coder").render_insert("a", "b")
    assert piece.text == "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"
    assert not go_template("qwen3").inserts
    assert not template("Qwen-Qwen3").inserts


@pytest.mark.parametrize("name", ["llama3", "qwen3", "chatml", "alpaca", "gemma", "phi3"])
def test_an_answer_that_is_begun_goes_on(name: str) -> None:
    begun = [Message("user", "Count."), Message("assistant", "One, two, ")]
    assert rendered(go_template(name), begun).endswith("One, two, ")


def test_a_template_without_a_place_for_the_answer_gets_one_at_its_end() -> None:
    chat_template = ChatTemplate("{{ .System }}|{{ .Prompt }}>", bos="", eos="")
    assert rendered(chat_template, TALK) == "Be brief.|Who are you?>A model.|Which one?>"


def test_tools_are_objects_and_print_as_json() -> None:
    source = (
        "{{ range .Tools }}{{ .Type }} {{ .Function.Name }} {{ .Function.Parameters.Required }} "
        "{{ range $k, $v := .Function.Parameters.Properties }}{{ $k }}:{{ $v.Type }},{{ end }} "
        "{{ with .Function.Parameters.Properties.unit }}{{ json .Enum }}{{ end }} {{ . }}{{ end }}"
        "{{ range .Messages }}{{ .Content }}{{ end }}"
    )
    prompt = rendered(ChatTemplate(source, bos="", eos=""), [Message("user", "x")], WEATHER)
    before, _, whole = prompt.removesuffix("x").partition(' ["celsius","kelvin"] ')
    assert before == "function get_weather [city] city:string,days:integer,unit:string,"
    assert json.loads(whole)["function"]["parameters"] == WEATHER.parameters
    assert '"name":"get_weather"' in whole


def today() -> str:
    return datetime.datetime.now().astimezone().date().isoformat()


def test_parameters_may_be_told_as_typescript() -> None:
    days = [today()]
    prompt = rendered(go_template("functions"), [Message("user", "x")], WEATHER)
    days.append(today())  # another one at midnight
    first, _, rest = prompt.partition("\n")
    assert first in {f"// {day}" for day in days}
    assert rest.startswith(
        "// Tells the weather of a city\ntype get_weather = (_: {\n// Where\n"
        "city: string,\n// How many\ndays: number,\n// Of what\n"
        'unit: "celsius" | "kelvin",\n}) => any;\n'
    )


def test_effort_has_its_own_name() -> None:
    source = (
        "{{ range .Messages }}{{ .Content }}{{ end }}{{ .Think }}{{ .ThinkLevel }}{{ .IsThinkSet }}"
    )
    chat_template = ChatTemplate(source, bos="", eos="")
    messages = [Message("user", "")]
    assert rendered(chat_template, messages) == "falsefalse"
    assert rendered(chat_template, messages, think=True) == "truetrue"
    assert rendered(chat_template, messages, think="high") == "truehightrue"
    assert rendered(chat_template, messages, think=False) == "falsetrue"


def test_what_a_template_cannot_do_is_told_with_its_line() -> None:
    with pytest.raises(BadRequest) as caught:
        ChatTemplate("a\n{{ if .Prompt }}", bos="", eos="")
    assert str(caught.value) == (
        "the model's chat template cannot be read: line 2: {{if}} is not closed by {{end}}"
    )
    chat_template = ChatTemplate("{{ range .Messages }}\n{{ .Contents }}{{ end }}", bos="", eos="")
    with pytest.raises(BadRequest, match=re.escape("refuses this: line 2: can't evaluate field")):
        chat_template.render(TALK)


@pytest.mark.parametrize(
    "source",
    [
        "{{ range 99999999 }}{{ end }}{{ .Prompt }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    ],
)
def test_a_template_that_takes_too_much_is_tried_once(source: str) -> None:
    began = time.process_time()
    with pytest.raises(BadRequest, match=r"refuses this: .*(1,000,000 steps|longer than 3 s)"):
        ChatTemplate(source, bos="", eos="").render(TALK)
    assert time.process_time() - began < 15  # a second
