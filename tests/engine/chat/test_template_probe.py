import itertools
from typing import Any

import pytest

from paddock.engine.chat.chat_template import ChatTemplate
from paddock.engine.chat.stream_parser import AnswerMarkup, MarkupParser
from paddock.engine.chat.tool_call_syntax import LiteralText, ToolCallFormat
from paddock.engine.errors import BadRequest
from paddock.engine.request import Message, Tool, ToolCall
from tests.engine.chat.answer_parsing import FAMILIES, TEMPLATES, WEATHER, template

NAMES = sorted(path.stem for path in TEMPLATES.glob("*.jinja"))


def shape(form: ToolCallFormat) -> str:
    parts = [part.text if isinstance(part, LiteralText) else f"«{part}»" for part in form.reads]
    return "".join([form.section_opens, *parts])


@pytest.mark.parametrize("name", NAMES)
def test_every_template_is_told_of_tools_calls_and_results(name: str) -> None:
    calls = (
        ToolCall("get_weather", {"city": "Paris", "days": 3}, "call_with_a_long_id"),
        ToolCall("get_weather", {"city": "Rome"}, "call_with_another"),
    )
    messages = [
        Message("user", "How is it in Paris and Rome?"),
        Message("assistant", "", tool_calls=calls),
        Message("tool", "22 °C", tool_name="get_weather", tool_call_id="call_with_a_long_id"),
        Message("tool", "31 °C", tool_name="get_weather", tool_call_id="call_with_another"),
        Message("assistant", "Warm."),
        Message("user", "And tomorrow?"),
    ]
    prompt = "".join(piece.text for piece in template(name).render(messages, tools=[WEATHER]))
    for text in ("Tells the weather of a city", "Paris", "Rome", "22 °C", "31 °C", "tomorrow"):
        assert text in prompt
    assert prompt.index("Paris") < prompt.index("22 °C") < prompt.index("31 °C")


@pytest.mark.parametrize(
    ("name", "think", "ends"),
    [
        ("Qwen-Qwen3", None, "<|im_start|>assistant\n"),
        ("Qwen-Qwen3", True, "<|im_start|>assistant\n"),
        ("Qwen-Qwen3", False, "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        ("deepseek-ai-DeepSeek-V3.1", True, "<｜Assistant｜><think>"),  # noqa: RUF001
        ("deepseek-ai-DeepSeek-V3.1", False, "<｜Assistant｜><think></think>"),  # noqa: RUF001
    ],
)
def test_a_template_is_told_whether_to_reason(name: str, think: bool | None, ends: str) -> None:
    chat_template = template(name)
    prompt = "".join(
        piece.text for piece in chat_template.render([Message("user", "Hi")], think=think)
    )
    assert prompt.endswith(ends)
    assert chat_template.opens_reasoning(prompt) == ends.endswith("<think>")


def test_reasoning_that_a_template_always_opens_is_closed_at_once() -> None:
    source = "{{ messages[0].content }}<|assistant|><think>\n"
    chat_template = ChatTemplate(source, bos="", eos="")
    (piece,) = chat_template.render([Message("user", "Hi")], think=False)
    assert piece.text == "Hi<|assistant|><think>\n\n</think>\n\n"


def test_effort_reaches_gpt_oss() -> None:
    for think, effort in (("high", "high"), (False, "low"), (None, "medium")):
        pieces = template("openai-gpt-oss").render([Message("user", "Hi")], think=think)  # type: ignore[arg-type]
        assert f"Reasoning: {effort}" in pieces[0].text


def test_a_system_turn_that_is_refused_goes_before_the_first_user_turn() -> None:
    messages = [Message("system", "Be brief."), Message("user", "Hi"), Message("user", "Ho")]
    (piece,) = template("google-gemma-2").render(messages)
    assert piece.text == (
        "<BOS><start_of_turn>user\nBe brief.\n\nHi\n\nHo<end_of_turn>\n<start_of_turn>model\n"
    )


def test_a_conversation_that_no_merging_saves_is_refused() -> None:
    messages = [Message("user", "Hi"), Message("tool", "22", tool_name="f"), Message("user", "Ho")]
    with pytest.raises(BadRequest, match="the model's chat template refuses this: "):
        template("Mistral-Small-3.2").render(messages)


def test_a_form_is_studied_in_milliseconds_and_without_tools_too() -> None:
    source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    chat_format = ChatTemplate(source, bos="", eos="").chat_format
    assert not chat_format.rules.shows_tools
    assert not chat_format.rules.shows_calls
    assert shape(chat_format.formats[0]) == "<tool_call>\n«calls»"


def test_a_vocabulary_gives_away_what_a_template_does_not() -> None:
    source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    chat_template = ChatTemplate(source, bos="", eos="", control_tokens=["<|tool_call_start|>"])
    assert shape(chat_template.chat_format.formats[0]) == "<|tool_call_start|>«python»"


def prompt_of(chat_template: ChatTemplate, messages: list[Message], **options: Any) -> str:
    return "".join(piece.text for piece in chat_template.render(messages, **options))


CONVERSATIONS = {
    "a late system message": "user assistant system user",
    "a late one behind a first one": "system user assistant system user",
    "one between two questions": "user system user",
    "one after the question": "user assistant user system",
    "one after an answer": "system user assistant system",
    "one alone": "system",
    "two": "system system user",
    "a developer's": "developer user",
    "a developer's after the system's": "system developer user",
    "a late developer's": "user assistant developer user",
    "a role of no template": "user assistant critic user",
}


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", [*NAMES, *FAMILIES])
def test_no_template_swallows_or_moves_a_message(name: str, conversation: str) -> None:
    chat_template = FAMILIES.get(name) or template(name)
    roles = CONVERSATIONS[conversation].split()
    messages = [Message(role, f"Text {n}: <b> & c.") for n, role in enumerate(roles)]
    prompt = prompt_of(chat_template, messages)
    assert [prompt.count(message.content) for message in messages] == [1] * len(messages)
    # A few templates put the first system message before the last question.
    places = [prompt.index(message.content) for message in messages[roles[0] == "system" :]]
    assert places == sorted(places)
    if roles[-3:] == ["assistant", "system", "user"]:
        n = len(messages) - 2
        without = prompt_of(chat_template, [*messages[:n], messages[-1]])
        end = without.index(messages[n - 1].content) + len(messages[n - 1].content)
        if roles[0] != "system" or prompt.index(messages[0].content) < places[0]:
            assert prompt.startswith(without[:end]), "it is not computed again"


def test_a_message_for_which_a_template_has_no_room_is_refused() -> None:
    chat_template = ChatTemplate("{{ messages[0].content }}", bos="", eos="")
    with pytest.raises(BadRequest) as refusal:
        prompt_of(chat_template, [Message("user", "Hi"), Message("system", "In French")])
    assert str(refusal.value) == (
        "the model's chat template leaves out message 2, of the role 'system'."
        " Put its text into a message of the user."
    )


def test_a_role_that_a_template_names_is_the_templates_to_show() -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'control' %}[{{ m.content | upper }}]"
        "{% else %}{{ m.role }}: {{ m.content }}\n{% endif %}{% endfor %}"
    )
    messages = [Message("control", "thinking"), Message("user", "Hi")]
    assert prompt_of(ChatTemplate(source, bos="", eos=""), messages) == "[THINKING]user: Hi\n"


@pytest.mark.parametrize("name", [*NAMES, *FAMILIES])
def test_what_an_answer_says_beside_its_call_arrives(name: str) -> None:
    call = ToolCall("get_weather", {"city": "Paris <a> & b"}, "abcdefgh1")
    messages = [
        Message("user", "How is it in Paris?"),
        Message("assistant", "I look it up.", "They want weather.", tool_calls=(call,)),
        Message("tool", "22 < 23 & dry", tool_name="get_weather", tool_call_id=call.id),
    ]
    chat_template = FAMILIES.get(name) or template(name)
    prompt = prompt_of(chat_template, messages, tools=[WEATHER])
    for text in ("I look it up.", "Paris <a> & b", "22 < 23 & dry"):
        assert prompt.count(text) == 1, text


_TAGGED = """{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for call in m.tool_calls %}
<function name="{{ call.function.name }}">{% for key, value in call.function.arguments.items() %}
<param name="{{ key }}">VALUE</param>{% endfor %}
</function>{% endfor %}
{% endfor %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}"""
VALUES = {
    "as they are": "{{ value }}",
    "in CDATA": "{% if value is string and ('<' in value or '&' in value) %}"
    "<![CDATA[{{ value }}]]>{% else %}{{ value }}{% endif %}",
}
SAVE = Tool(
    "save",
    "Saves",
    {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "maybe": {"type": ["string", "null"]},
            "kind": {"enum": ["1", "2"]},
            "either": {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/word"}]},
            "n": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "options": {"type": "object"},
            "free": {},
        },
        "$defs": {"word": {"type": "string"}},
    },
)
ARGUMENTS: tuple[dict[str, Any], ...] = (
    {"text": "a < b & c > d", "n": 3},
    {"text": '<p class="x">it\'s "so" &amp; so</p>\n&lt;i&gt;', "n": 3},
    {"text": "x ]]> y", "maybe": None},
    {"text": "42", "maybe": "12", "kind": "1", "either": "x<y"},
    {"text": "true", "either": 7, "free": 1.5},
    {"text": '{"a": 1}', "tags": ["a<b", "it's & so", "True"], "options": {"Ok": True, "no": None}},
    {"text": '"quoted"', "free": "plain & so"},
)


TAGS = {"text": "</param> & <param>", "n": -1}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [*itertools.product([*VALUES, "Qwen3-Coder"], ARGUMENTS), ("in CDATA", TAGS)],
    ids=str,
)
def test_arguments_arrive_as_the_tools_schema_has_them(
    name: str, arguments: dict[str, Any]
) -> None:
    source = _TAGGED.replace("VALUE", VALUES.get(name, ""))
    chat_template = ChatTemplate(source, bos="", eos="") if name in VALUES else template(name)
    call = ToolCall("save", arguments, "abcdefgh1")
    messages = [Message("user", "Hi"), Message("assistant", "", tool_calls=(call,))]
    prompt = prompt_of(chat_template, messages, tools=[SAVE])
    chat_format = chat_template.chat_format
    markup = AnswerMarkup(chat_format.tags, chat_format.formats, {"save": SAVE})
    parser = MarkupParser(markup, (), lambda: "id")
    delta = parser.feed(prompt[prompt.rindex("<function") :].encode())
    found = (*delta.tool_calls, *parser.close().tool_calls)
    assert [dict(one.arguments) for one in found] == [arguments]


def test_a_tool_whose_properties_are_an_empty_list_is_called() -> None:
    chat_format = template("Qwen3-Coder").chat_format
    tool = Tool("save", "", {"type": "object", "properties": []})  # as PHP writes none
    parser = MarkupParser(
        AnswerMarkup(chat_format.tags, chat_format.formats, {"save": tool}), (), lambda: "id"
    )
    answer = "<function=save>\n<parameter=n>\n3\n</parameter>\n</function>"
    (call,) = parser.feed(answer.encode()).tool_calls
    assert call.arguments == {"n": 3}
