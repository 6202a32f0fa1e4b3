from __future__ import annotations

import pytest

from paddock.engine.chat.chat_template import template_capabilities
from tests.engine.chat.gospeak import go_source
from tests.engine.chat.hearing import TEMPLATES


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("chatml", set()),
        ("chatml-turns", set()),
        ("alpaca", set()),
        ("llama3", {"tools"}),
        ("mistral", {"tools"}),
        ("gemma", set()),
        ("qwen2.5-coder", {"tools", "insert"}),
        ("qwen3", {"tools", "thinking"}),
        ("deepseek-r1", {"thinking"}),
        ("codellama", {"insert"}),
    ],
)
def test_a_go_template_tells_what_a_model_can_do(name: str, wanted: set[str]) -> None:
    assert template_capabilities(go_source(name)) == wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
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
def test_a_jinja_template_tells_what_a_model_can_do(name: str, wanted: set[str]) -> None:
    (path,) = TEMPLATES.glob(f"{name}*.jinja")
    assert template_capabilities(path.read_text("utf-8")) == wanted


@pytest.mark.parametrize(
    "source", [None, "", "plain", "{% for", "{{ if .Prompt }}", "{{ .Prompt }}"]
)
def test_a_template_that_says_nothing_promises_nothing(source: str | None) -> None:
    assert template_capabilities(source) == frozenset()
