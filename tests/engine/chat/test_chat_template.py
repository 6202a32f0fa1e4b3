import pytest
from jinja2 import nodes

from paddock.engine.chat.chat_template import ChatTemplate, template_capabilities
from paddock.engine.chat.control_tokens import TextPiece
from paddock.engine.chat.jinja_template import JinjaTemplate
from paddock.engine.chat.known_templates import MOST_TEMPLATE_CHARS, jinja_template
from paddock.engine.errors import BadRequest, TemplateTooLarge
from paddock.engine.request import Message, Tool, ToolCall
from tests.engine.chat.answer_parsing import TEMPLATES

CONTROL = ("<|im_start|>", "<|im_end|>")


def template(source: str | None = None) -> ChatTemplate:
    return ChatTemplate(source, bos="<s>", eos="</s>", control_tokens=CONTROL)


def test_a_model_without_a_template_gets_chatml() -> None:
    assert template().render([Message("user", "Hello")]) == (
        TextPiece("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", False),
    )


def test_a_template_may_refuse_a_conversation_in_its_own_words() -> None:
    source = "{% if messages[0].content == 'x' %}{{ raise_exception('no x') }}{% endif %}"
    with pytest.raises(BadRequest) as caught:
        template(source).render([Message("user", "x")])
    assert str(caught.value) == "the model's chat template refuses this: no x"


def test_a_template_cannot_reach_python() -> None:
    with pytest.raises(BadRequest, match="refuses this"):
        template("{{ messages.__class__.__mro__ }}").render([Message("user", "x")])


def test_a_second_template_is_for_requests_with_tools() -> None:
    chat_template = ChatTemplate(
        "plain", bos="", eos="", tool_source="{{ tools[0].function.name }}!"
    )
    assert chat_template.render([Message("user", "x")]) == (TextPiece("plain", False),)
    assert chat_template.render([Message("user", "x")], tools=[Tool("f")]) == (
        TextPiece("f!", False),
    )


def test_a_template_without_tools_is_told_of_them_in_words() -> None:
    call = ToolCall("get_time", {"zone": "UTC"})
    messages = [
        Message("user", "What time is it?"),
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", "12:00", tool_name="get_time"),
    ]
    (piece,) = template().render(messages, tools=[Tool("get_time", "Tells the time")])
    assert piece.text == (
        "<|im_start|>system\n"
        "You may call one or more functions. Their signatures stand here as JSON:\n"
        '<tools>\n{"type": "function", "function": {"name": "get_time", "description": '
        '"Tells the time", "parameters": {"type": "object", "properties": {}}}}\n</tools>\n'
        "To call a function, answer with exactly this form:\n"
        '<tool_call>\n{"name": "<function-name>", "arguments": {"<argument-name>": "<value>"}}\n'
        "</tool_call>\nIts result then comes between <tool_response> tags.<|im_end|>\n"
        "<|im_start|>user\nWhat time is it?<|im_end|>\n"
        "<|im_start|>assistant\n"
        '<tool_call>\n{"name": "get_time", "arguments": {"zone": "UTC"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>tool\n12:00<|im_end|>\n<|im_start|>assistant\n"
    )


BEGUN = [("user", "Count."), ("assistant", "One, two, ")]
CASES = {
    "what templates of Hugging Face call": (
        "{{ bos_token }}{{ strftime_now('%Y')|length }}{{ messages | tojson }}", [("user", "<é>")],
        '<s>4[{"role": "user", "content": "<é>"}]'),
    "lists that grow, and marks of what is generated": (
        "{% set seen = [] %}{% for m in messages %}{% if seen.append(m.content) %}{% endif %}"
        "{% endfor %}{% generation %}{{ seen | join('+') }}{% endgeneration %}",
        [("user", "a"), ("assistant", "b"), ("user", "c")], "a+b+c"),
    "an answer that still has its reasoning": (
        "{% for m in messages %}[{{ m.reasoning_content }}|{{ m.content }}]{% endfor %}",
        [("user", "<think>x</think>y"), ("assistant", "<think>\nHm.\n</think>\n\nYes."),
         ("user", "z")], "[|<think>x</think>y][Hm.|Yes.][|z]"),
    "an answer that is begun goes on": (
        None, BEGUN,
        "<|im_start|>user\nCount.<|im_end|>\n<|im_start|>assistant\nOne, two, "),
    "one that is begun, and trimmed": (
        "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}", BEGUN,
        "[Count.][One, two, "),
    "one that is begun, and not shown": (
        "{{ messages[0].content }}{% if add_generation_prompt %}>{% endif %}", BEGUN, "Count.>"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_template_renders(case: str) -> None:
    source, turns, expected = CASES[case]
    messages = [Message(*turn) for turn in turns]
    (piece,) = template(source).render(messages)
    assert piece.text == expected
    assert messages == [Message(*turn) for turn in turns]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen-Qwen3", {"tools", "thinking"}),
        ("Qwen3-Coder", {"tools"}),
        ("google-gemma-2", set()),
        ("microsoft-Phi-3.5", set()),
        ("meta-llama-Llama-3.1", {"tools"}),
        ("mistralai-Mistral-Nemo", {"tools"}),
        ("deepseek-ai-DeepSeek-R1-Distill", {"tools", "thinking"}),
        ("deepseek-ai-DeepSeek-V3.1", {"tools", "thinking"}),
        ("openai-gpt-oss", {"tools", "thinking"}),
        ("ibm-granite", {"tools", "thinking"}),
        ("Kimi-K2", {"tools"}),
        ("google-gemma-4", {"tools", "thinking"}),
    ],
)
def test_a_jinja_template_tells_what_a_model_can_do(name: str, expected: set[str]) -> None:
    (path,) = TEMPLATES.glob(f"{name}*.jinja")
    assert template_capabilities(None, path.read_text("utf-8")) == expected


@pytest.mark.parametrize("own", [None, "", "plain", "{% for", "{{ if .Tools }}", "{{ .Prompt }}"])
def test_a_template_that_shows_nothing_promises_nothing(own: str | None) -> None:
    assert template_capabilities(own, None) == frozenset()


def test_no_constant_of_a_template_is_computed_to_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def compute(self: nodes.Expr, context: nodes.EvalContext | None = None) -> None:
        pytest.fail(f"{self} is computed")

    for kind in (nodes.BinExpr, nodes.Filter, nodes.Concat, nodes.List, nodes.Compare):
        monkeypatch.setattr(kind, "as_const", compute)
    constants = "{{ 2 ** 3 }}{{ 'a' | upper }}{{ 'a' ~ 'b' }}{{ [1] }}{{ 1 < 2 }}"
    source = f"{constants}{{% if tools %}}{{% endif %}}"
    assert template_capabilities(None, source) == {"tools"}
    assert template_capabilities(None, f"{{% generation %}}{source}{{% endgeneration %}}")
    with pytest.raises(BadRequest, match="`autoescape` takes true or false"):
        JinjaTemplate("{% autoescape 'a' | upper %}{% endautoescape %}")


@pytest.mark.parametrize("own", [True, False])
def test_a_template_that_is_too_long_supports_nothing(own: bool) -> None:
    source = "{{ tools }}".ljust(MOST_TEMPLATE_CHARS)
    too_long = source + " "
    assert template_capabilities(source if own else None, source) == {"tools"}
    assert template_capabilities(too_long if own else None, too_long) == frozenset()
    with pytest.raises(TemplateTooLarge, match="at most 100,000 characters, not 100,001"):
        ChatTemplate(too_long, bos="", eos="")
    with pytest.raises(TemplateTooLarge, match="at most 100,000 characters, not 100,001"):
        jinja_template(too_long)


@pytest.mark.parametrize(
    "source",
    ["{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "{{" + "[" * 5000, "{{" + "not " * 5000 + "1}}",
     "{{ a" + " + b" * 5000 + "}}", "{{ a" + "|e" * 5000 + "}}", "{{ a" + ".b" * 5000 + "}}",
     "{% if a %}" * 500 + "{% endif %}" * 500, "{% for x in y %}" * 40 + "{% endfor %}" * 40],
)  # fmt: skip
def test_a_template_that_is_nested_too_deeply_is_refused(source: str) -> None:
    with pytest.raises(TemplateTooLarge, match="nested too deeply"):
        JinjaTemplate(source)
    assert template_capabilities(None, source) == frozenset()
