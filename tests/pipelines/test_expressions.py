from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddock.pipelines.expressions import (
    Expression,
    ExpressionError,
    Template,
    Value,
    template_pieces,
)

SCOPE: dict[str, Any] = {
    "inputs": {"folder": "in", "n": 3},
    "steps": {"text": {"text": "Hello", "pages": [{"text": "a"}, {"text": "b"}], "year": "2024"}},
    "doc": {"path": "a/b.txt", "items": [1, 2], "keys": "mine", "none": None},
}


def refused(source: str, scope: dict[str, Any] | None = None) -> str:
    with pytest.raises(ExpressionError) as caught:
        Template.of(source).bound(scope or SCOPE).render()
    return str(caught.value)


# --- values


@pytest.mark.parametrize(
    ("data", "rendered"),
    [
        ("{{ inputs.n + 1 }}", 4),
        ("{{ steps.text.pages }}", [{"text": "a"}, {"text": "b"}]),
        ("n: {{ inputs.n }}", "n: 3"),
        ("{{ steps.text.year ~ '' }}", "2024"),
        ({"a": ["x", "{{ inputs.n }}"], "b": {"c": "{{ doc.path }}"}, "d": 5},
         {"a": ["x", 3], "b": {"c": "a/b.txt"}, "d": 5}),
        ("{{ doc.items }}", [1, 2]),
        ("{{ steps.text.pages|map(attribute='text') }}", ["a", "b"]),
        ("{{ {'a': 1}.items() }}", [["a", 1]]),
        ("{{ doc.zz is defined }}", False),
        ("{{ doc.zz|default('none') }}", "none"),
        ("{{ 'Où est lieu ?'|slug }}", "ou-est-lieu"),
        ("{{ 'one two three'|truncate_words(2) }}", "one two…"),
        ("{{ {'a': '<é>'}|tojson }}", '{"a": "<é>"}'),
    ],
)  # fmt: skip
def test_a_lone_expression_keeps_the_type_and_anything_else_is_text(
    data: Any, rendered: Any
) -> None:
    assert Value.of(data).render(SCOPE) == rendered


def test_bare_expressions_stand_without_braces() -> None:
    assert Expression.of("inputs.n > 2 and doc.path == 'a/b.txt'").evaluate(SCOPE) is True
    assert Value.of({"file": "doc.path", "n": 5}, bare=True).render(SCOPE) == {
        **{"file": "a/b.txt", "n": 5}
    }
    with pytest.raises(ExpressionError, match=r"stands in braces where a bare .* Write `x`\."):
        Expression.of("{{ x }}")
    for text, remedy in (
        ("{{ a }} {{ b }}", 'a ~ " " ~ b'),
        ("Dear {{ name }},", '"Dear " ~ name ~ ","'),
    ):
        with pytest.raises(ExpressionError) as caught:
            Expression.of(text)
        assert caught.value.remedy == f"Write `{remedy}`."
        Expression.of(remedy)


def test_a_bare_step_in_a_value_is_a_fault_and_every_text_that_cannot_be_read_is_found() -> None:
    with pytest.raises(ExpressionError) as caught:
        Value.of({"text": "steps.text.pages"})
    assert str(caught.value) == (
        "'steps.text.pages' is only a text here. Did you mean `{{ steps.text.pages }}`?"
    )
    _, errors = Value.scan({"a": "{{ x", "b": ["{{ y|nope }}"], "c": "{{ inputs.n }}"})
    assert [error.path for error in errors] == [("a",), ("b", 0)]


def test_an_undefined_name_is_told_with_the_near_ones() -> None:
    assert refused("{{ dox.path }}") == (
        "'dox' is not known here (in '{{ dox.path }}'). "
        "Known: 'inputs', 'steps', 'doc'. Did you mean 'doc'?"
    )
    told = refused("x {{ doc.pth }}")
    assert "there is no 'pth' here" in told
    assert "Did you mean 'path'?" in told
    assert "there is no 'zz' here" in refused("{{ doc.zz }}")
    assert "a text has no 'nme'" in refused("{{ doc.path.nme }}")
    assert "null has no 'x'" in refused("{{ doc.none.x }}")


def test_a_template_has_pieces_up_to_its_first_statement() -> None:
    def pieces(source: str) -> list[Any]:
        scope = {"a": {"b": 1}, "c": "x"}
        found = template_pieces(source)
        return [
            p if isinstance(p, str) else (p.evaluate(scope), sorted(p.references)) for p in found
        ]

    assert pieces("") == []
    assert pieces("plain") == ["plain"]
    assert pieces("{{ a }}") == [({"b": 1}, [("a",)])]
    assert pieces("x/{{ {'d': {'e': a.b}}.d.e }}.md{# no #}") == ["x/", (1, [("a", "b")]), ".md"]
    rest = "{% if c %}{{ c }}-{% for n in [a.b] %}{{ n }}{% endfor %}{% endif %}!"
    assert pieces("{{ c }}/" + rest) == [("x", [("c",)]), "/", ("x-1!", [("a", "b"), ("c",)])]
    with pytest.raises(ExpressionError):
        template_pieces("{{ a")


# --- references


@pytest.mark.parametrize(
    ("source", "references"),
    [
        ("{{ steps.text.pages }}", {("steps", "text", "pages")}),
        ("{{ steps['text'].pages[0].text }}", {("steps", "text", "pages")}),
        ("a {{ doc.path|upper }} {{ inputs.n + doc.size }}", {("doc", "path"), ("inputs", "n"), ("doc", "size")}),  # noqa: E501
        ("{{ doc[key] }}", {("doc",), ("key",)}),
        ("{% for p in steps.text.pages %}{{ p.text }}{{ loop.index }}{% endfor %}", {("steps", "text", "pages")}),  # noqa: E501
        ("{% set x = doc.a %}{{ x.b }}", {("doc", "a")}),
        ("{% if steps.a.skipped %}{{ range(3)|list }}{% endif %}", {("steps", "a", "skipped")}),
        ("no expression", set()),
    ],
)  # fmt: skip
def test_references_are_read_from_the_tree(source: str, references: set[Any]) -> None:
    assert Template.of(source).references == references


# --- what is refused


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__ }}", "{{ ''['__class__'] }}", "{{ ''['__cla' ~ 'ss__'] }}",
        "{{ [1]|map(attribute='__class__')|list }}", "{{ range.__init__.__globals__ }}",
        "{{ doc|attr('__class__') }}", "{% set x = namespace.__init__ %}",
        "{% for x in [1] %}{{ loop.__class__ }}{% endfor %}", "{{ self }}", "{{ dict.mro() }}",
        "{{ 'a'.format_map(doc) }}", "{{ '{0.__class__}'.format(1) }}", "{{ lipsum.__globals__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ self._TemplateReference__context }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ '%s' | format(doc.path.__class__) }}",
    ],
)  # fmt: skip
def test_nothing_reaches_behind_the_values(source: str) -> None:
    refused(source)


def test_reaching_for_a_class_is_refused_in_plain_words() -> None:
    assert refused("{{ ''.__class__ }}") == (
        "'{{ ''.__class__ }}' is refused: it reads '__class__', and names that begin with "
        "two underscores are not allowed. Remove it."
    )


@pytest.mark.parametrize("word", ["include 'x'", "import 'x' as y", "extends 'x'", "from 'x' import y"])  # fmt: skip  # noqa: E501
def test_templates_read_no_other_files(word: str) -> None:
    assert "templates cannot read other files" in refused("{% " + word + " %}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10**8 }}",
        "{{ [1] * 10**9 }}",
        "{{ (10**9) ** (10**9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ 'a'.ljust(10**9) }}",
        "{{ range(10**9)|list }}",
        "{{ 'x\n'|indent(10**9) }}",
        "{{ 1|round(10**9) }}",
        "{{ [1]|batch(10**9, 'x') }}",
        "{{ [1]|slice(10**9) }}",
        "{{ ('ab ' * 10000000).split() }}",
        "{{ 'x'|replace('x', 'y' * 30000000)|replace('y', 'z' * 100) }}",
        "{{ doc.path|replace('', 'aaaaaaaaaa' * 1000000)|length }}",
        "{{ ''.join(['a' * 1000000] * 1000) }}",
        "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",  # noqa: E501
        "{% set n = namespace(x='abc') %}{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}"  # noqa: E501
        "{% set n.x = y %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}",  # noqa: E501
        "{% set n = namespace(x={}) %}{% for i in range(60) %}{% set n.x = dict(a=n.x, b=n.x) %}{% endfor %}",  # noqa: E501
        "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
        "{% for i in range(100000) %}{{ 'a' * 3000000 }}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for x in range(9999) recursive %}{{ loop(range(9999)) }}{% endfor %}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
        "{% set a = 1 %}" * 20_000,
    ],
)  # fmt: skip
def test_what_would_fill_memory_or_never_end_is_refused_soon(source: str) -> None:
    refused(source)


def test_what_one_thread_spends_is_not_counted_for_another() -> None:
    endless = "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}"
    small = Template.of("{% for i in range(1000) %}{{ i }}{% endfor %}")
    with ThreadPoolExecutor(2) as threads:
        other = threads.submit(refused, endless)
        for _ in range(20):
            assert small.render().startswith("0123")
        assert "is refused" in other.result()


TOKENS = """{{ }} {% %} {# #} if for in endfor endif set doc steps inputs .path .items | upper map list ( ) [ ]
, : ' " + * ** % ~ - 1 9 10**9 == not and is defined loop range namespace x = __class__ join replace
sort tojson else"""  # noqa: E501
WORDS = st.sampled_from(TOKENS.split())


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, max_size=14).map(" ".join) | st.text(max_size=30))
def test_whatever_is_written_only_expression_errors_come(source: str) -> None:
    for make in (
        lambda: Template.of(source).bound(SCOPE).render(),
        lambda: Template.of("{{ " + source + " }}").bound(SCOPE).render(),
        lambda: Expression.of(source).evaluate(SCOPE),
    ):
        try:
            make()
        except ExpressionError as error:
            assert str(error)
