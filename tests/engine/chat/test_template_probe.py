import pytest

from paddock.engine.chat.chat_template import ChatTemplate
from paddock.engine.chat.tool_call_syntax import LiteralText, ToolCallFormat
from paddock.engine.errors import BadRequest
from paddock.engine.request import Message, ToolCall
from tests.engine.chat.answer_parsing import TEMPLATES, WEATHER, template

NAMES = sorted(path.stem for path in TEMPLATES.glob("*.jinja"))


def shape(form: ToolCallFormat) -> str:
    parts = [part.text if isinstance(part, LiteralText) else f"«{part}»" for part in form.reads]
    return "".join([form.section_opens, *parts])


def test_gpt_oss_is_known_by_its_channels() -> None:
    assert [name for name in NAMES if template(name).chat_format.is_harmony] == [
        "openai-gpt-oss-120b"
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_template_renders_a_conversation(name: str) -> None:
    messages = [
        Message("system", "Be brief."),
        Message("user", "Who are you?"),
        Message("assistant", "A model.", reasoning="Say what I am."),
        Message("user", "Which one?"),
    ]
    prompt = "".join(piece.text for piece in template(name).render(messages))
    for text in ("Be brief.", "Who are you?", "A model.", "Which one?"):
        assert text in prompt


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
