import pytest

from paddock.engine.chat.chat_template import ChatTemplate
from paddock.engine.chat.known_templates import (
    insert_form,
    is_go_template,
    jinja_template,
    served_template,
)
from paddock.engine.errors import BadRequest
from paddock.engine.request import Message
from tests.engine.chat.answer_parsing import FAMILIES, TEMPLATES

TALK = [
    Message("system", "Be brief."),
    Message("user", "Who?"),
    Message("assistant", "A model."),
    Message("user", "Which?"),
]
CHATML = (
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n"
    "<|im_start|>assistant\nA model.<|im_end|>\n<|im_start|>user\nWhich?<|im_end|>\n"
    "<|im_start|>assistant\n"
)
GO = "<|im_start|>user\n{{ .Prompt }}<|im_end|>\n<|im_start|>assistant\n"
ALPACA = (
    "Be brief.\n\n### Instruction:\nWho?\n\n### Response:\nA model.\n\n"
    "### Instruction:\nWhich?\n\n### Response:\n"
)


def prompt(template: ChatTemplate) -> str:
    return "".join(piece.text for piece in template.render(TALK))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chatml", CHATML),
        ("chatml-turns", CHATML),
        ("qwen2.5-coder", CHATML),
        ("qwen3", CHATML),
        ("alpaca", ALPACA),
        ("codellama", "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nWho? [/INST] A model. </s><s>"
         "[INST] Which? [/INST]"),
        ("mistral", "[INST] Be brief.\n\nWho?[/INST] A model.</s>[INST] Which?[/INST]"),
        ("gemma", "<start_of_turn>user\nBe brief.\n\nWho?<end_of_turn>\n<start_of_turn>model\n"
         "A model.<end_of_turn>\n<start_of_turn>user\nWhich?<end_of_turn>\n"
         "<start_of_turn>model\n"),
        ("phi3", "<|system|>\nBe brief.<|end|>\n<|user|>\nWho?<|end|>\n<|assistant|>\nA model."
         "<|end|>\n<|user|>\nWhich?<|end|>\n<|assistant|>\n"),
        ("deepseek-r1", "Be brief.<｜User｜>Who?<｜Assistant｜>A model.<｜end▁of▁sentence｜>"  # noqa: RUF001
         "<｜User｜>Which?<｜Assistant｜>"),  # noqa: RUF001
        ("llama3", "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
         "<|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|>"
         "<|start_header_id|>assistant<|end_header_id|>\n\nA model.<|eot_id|>"
         "<|start_header_id|>user<|end_header_id|>\n\nWhich?<|eot_id|>"
         "<|start_header_id|>assistant<|end_header_id|>\n\n"),
    ],
)  # fmt: skip
def test_a_go_template_is_rendered_as_its_family(name: str, expected: str) -> None:
    assert prompt(FAMILIES[name]) == expected


@pytest.mark.parametrize(
    ("go", "expected"),
    [
        ("{{ .Prompt }}", "Be brief.\n\nWho?\n\nA model.\n\nWhich?"),
        ("{{ .System }} {{ .Prompt }}", "Be brief.\n\nWho?\n\nA model.\n\nWhich?"),
        (insert_form("<P>", "<S>", "<M>", GO), CHATML),
        (insert_form("<P>", "<S>", "<M>", "{% for m in messages %}({{ m.content }}){% endfor %}"),
         "(Be brief.)(Who?)(A model.)(Which?)"),
    ],
)  # fmt: skip
def test_the_prompt_alone_and_what_show_prints_for_editors_are_taken(
    go: str, expected: str
) -> None:
    assert prompt(ChatTemplate(jinja_template(go), bos="", eos="")) == expected


JINJA, UNKNOWN = "{{ messages }}", "Q: {{ .Prompt }} A:"


def test_the_files_template_serves_where_the_packages_is_gos() -> None:
    assert served_template(JINJA, "file") == JINJA
    assert served_template(GO, "file") == served_template(UNKNOWN, "file") == "file"
    assert served_template(GO, None) == jinja_template(GO) != GO
    assert (served_template(None, "file"), served_template(None, None)) == ("file", None)
    with pytest.raises(BadRequest) as refusal:
        served_template(UNKNOWN, None)
    assert str(refusal.value) == (
        "the chat template is written in Go's language, and says something else than the families "
        "that are known here (phi4, chatml, mistral, mistral-v7, llama2, command-r, phi3, zephyr, "
        "gemma, openchat, vicuna, alpaca, deepseek-coder, solar, llama3, llama4, deepseek, "
        "granite, exaone). Write it in Jinja, as Hugging Face's models have it; without one, the "
        "model's file's own is used."
    )


# `@` stands for the turns of ChatML, as the shortest template has them.
@pytest.mark.parametrize(
    "go",
    [
        "<|begin_of_text|>@{{ .Response }}",
        "{{ if .Tools }}Tools: {{ .Tools }}{{ end }}@",
        "{{ if or .System .Tools }}<|im_start|>system {{ .System }}{{ with .Tools }}You have tools."
        "{{ end }}<|im_end|>{{ end }}@",
        "@{{ if and $.IsThinkSet (not $.Think) }}<think></think>{{ end }}",
        '{{ range $i, $_ := .Messages }}{{ if eq .Role "tool" }}Result:{{ end }}{{ end }}@',
        "{{ range $i, $_ := .Tools }}Tool {{ $i }}{{ end }}@",
        "{{- /* Not written. */ -}}{{ $last := 1 }}@{{ if false }}never{{ end }}",
        '{{ print "<|im_start|>system\\n" .System "<|im_end|>" }}@',
    ],
)
def test_what_only_tools_and_reasoning_write_is_no_text_of_a_template(go: str) -> None:
    assert jinja_template(go.replace("@", GO)) == jinja_template(GO)


@pytest.mark.parametrize(
    "go",
    [
        "{{ .Prompt }} and say nothing of <|im_start|>",
        "{{ .Prompt }}<|im_start|>user<|im_end|><|im_start|>assistant",
        "<|im_start|>user {{ .Prompt }}<|eot|><|im_start|>assistant",
        "Be kind. @",
        "@Arr,",
        "<|im_start|>system\nBe kind.<|im_end|>@",
        "{{ if .System }}{{ .System }}{{ else }}Be kind.{{ end }}@",
        "{{ if not .Tools }}Be kind.{{ end }}@",
        "{{ if .Tools }}{{ else if .System }}Be kind.{{ end }}@",
        "{{ if or .Tools .Prompt }}Be kind.{{ end }}@",
        "{{ if and true (or .Tools .Prompt) }}Be kind.{{ end }}@",
        '{{ if ne .Role "tool" }}Be kind.{{ end }}@',
        '{{ $s := "Be kind." }}{{ $s }}@',
        "{{ `Be kind.` }}@",
        "{{ end }}{{ else }}Be kind.{{ if " + "(" * 9999 + " }}@",
    ],
)
def test_a_go_template_whose_text_its_family_would_lose_is_refused(go: str) -> None:
    with pytest.raises(BadRequest, match="something else than the families"):
        jinja_template(go.replace("@", GO))


@pytest.mark.parametrize(
    "source",
    [
        "{{ .Prompt }}",
        "{{.Prompt}}",
        "{{ .Prompt",
        "{{- .System -}}",
        "x{{ range .Messages }}{{ .Content }}{{ end }}",
        "{{ if true }}x{{ end }}",
        "{{ $x := 1 }}{{ $x }}",
        "{{/* nothing */}}x",
        "{{ json .Tools }}",
        "{{ (index .Messages 0).Content }}",
    ],
)
def test_the_smallest_signs_of_go_are_enough(source: str) -> None:
    assert is_go_template(source)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "plain text",
        "{{ prompt }}",
        "{{ messages[0].Content }}",
        "{{ message['role'].Upper() }}",
        "{{ '$' }}{{ \" .Foo\" }}",
        "{% for m in messages %}{{ m.content }}{% endfor %}",
        "{% if .Foo %}{{ .Bar }}{% endif %}",
        "{{ bos_token }}{{ messages[0]['content'] }}",
        "{{ ifs }}{{ ending }}",
        *(path.read_text("utf-8") for path in TEMPLATES.glob("*.jinja")),
    ],
)
def test_what_may_be_jinja_is_not_go(source: str) -> None:
    assert not is_go_template(source)
