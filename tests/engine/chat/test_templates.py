from __future__ import annotations

import pytest

from paddock.engine.chat.chat_template import is_go_template
from tests.engine.chat.gospeak import GO_NAMES, go_source
from tests.engine.chat.hearing import TEMPLATES


@pytest.mark.parametrize("name", GO_NAMES)
def test_every_go_template_is_known_as_one(name: str) -> None:
    assert is_go_template(go_source(name))


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.jinja")), ids=lambda path: path.stem)
def test_every_jinja_template_is_known_as_one(path: object) -> None:
    assert not is_go_template(path.read_text("utf-8"))  # type: ignore[attr-defined]


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
    ],
)
def test_what_may_be_jinja_is_no_go(source: str) -> None:
    assert not is_go_template(source)
