from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.engine.chat.go_template.go_values import GoJsonList, GoJsonMap, GoStruct, go_value_json
from paddock.engine.chat.go_template.interpreter import GoTemplate
from paddock.engine.chat.go_template.syntax import GoTemplateError

WORDS = (
    "if", "else", "end", "range", "with", "define", "template", "block", "break", "continue",
    "and", "or", "not", "eq", "lt", "len", "index", "slice", "print", "printf", "println", "json",
    ".", ".A", ".B.C", "$", "$x", "$x.A", "(", ")", "|", ":=", "=", ",", "nil", "true", "3",
    "-1.5", '"x"', "`y`", "'c'", '"%v %d"', "x",
)  # fmt: skip
ACTIONS = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
PARTS = st.one_of(
    st.text(max_size=5),
    st.sampled_from(["{{", "}}", "{{- ", " -}}", "{{/*", "*/}}", "{{ end }}", "{{ else }}"]),
    ACTIONS.map(lambda action: f"{{{{ {action} }}}}"),
    st.sampled_from(["{{ if .A }}", "{{ range .B }}", "{{ with $x := .A }}", '{{ define "x" }}']),
)
SOURCES = st.lists(PARTS, max_size=12).map("".join)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(GoJsonList),
        st.dictionaries(st.sampled_from("ABC"), inner, max_size=3),
        st.dictionaries(st.sampled_from("ABC"), inner, max_size=3).map(GoJsonMap),
        st.dictionaries(st.sampled_from("ABC"), inner, max_size=3).map(lambda m: GoStruct("S", m)),
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(SOURCES, st.dictionaries(st.sampled_from("ABC"), VALUES, max_size=3))
def test_no_template_ends_otherwise_than_by_a_text_or_its_own_error(
    source: str, data: dict[str, Any]
) -> None:
    with suppress(GoTemplateError):
        template = GoTemplate(source, {"json": go_value_json})
        assert isinstance(template.execute(data), str)
        assert isinstance(template.execute_until("A", data), str)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.sampled_from("{}-/*.$()|:=,\"'`\\ \nab1"), max_size=40))
def test_no_characters_end_otherwise_than_by_a_text_or_its_own_error(source: str) -> None:
    with suppress(GoTemplateError):
        assert isinstance(GoTemplate(source, {}).execute({"a": 1}), str)
