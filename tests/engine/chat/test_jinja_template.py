import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from paddock.engine.chat.jinja_template import JinjaTemplate
from paddock.engine.chat.template_messages import TemplateRefused
from paddock.engine.errors import BadRequest

BIG = "{% set ns = namespace(x='ab') %}{% for _ in range(60) %}"
GROWN = (
    "{% set a = [[1]] %}{% for _ in range(60) %}{% set b = [] %}{{ b.append(a[-1]) or '' }}"
    "{{ b.append(a[-1]) or '' }}{{ a.append(b) or '' }}{% endfor %}"
)
TOO_LONG = "more than (33,554,432|134,217,728) characters"
TOO_WIDE = "must be a whole number up to 1,000"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
         "it takes (more than 1,000,000 steps|longer than 3 s)"),
        ("{{ 'x' * 1000000000 }}", "it makes (a text of )?more than"),
        ("{{ 1000000000 * [1] }}", "it makes a list of more than 1,000,000 values"),
        ("{{ [[1] * 1000] * 1000 }}", "it makes a list of more than 1,000,000 values"),
        *((source, TOO_LONG) for source in (
            "{{ ('%(a)s' * 40000) % {'a': 'x' * 1000} }}",
            "{{ ('{0:999}' * 40000).format(1) }}",
            "{{ ('{a[0]}' * 40000).format(a=['x' * 1000]) }}",
            "{{ ('%(a)s' * 40000) | format(a='x' * 1000) }}",
            "{{ ('x' * 9000).join(['a'] * 4000) }}",
            "{{ ('x' * 9000).join(range(4000)) }}",
            "{{ ('x' * 4000).join('x' * 9000) }}",
            "{{ range(4000) | join('x' * 9000) }}",
            "{{ range(4000) | map('string') | join(d='x' * 9000) }}",
            "{{ ('\n' * 40000) | indent(999, blank=true) }}",
            "{{ ('\n' * 4000) | indent('x' * 9999, blank=true) }}",
            "{{ ([1] * 40000) | tojson(indent=999) }}",
            "{{ ([1] * 4000) | tojson(separators=('x' * 9000, ':')) }}",
            "{% set ns = namespace(x=[1]) %}{% for _ in range(300) %}{% set ns.x = [ns.x] %}"
            "{% endfor %}{{ ns.x | tojson(indent=999) }}",
            "{{ ['a' * 9000] | replace('a', 'x' * 9000) }}",
            "{{ ('a' * 9000) | replace(new='x' * 9000, old='a') }}",
            *(BIG + f"{{% set ns.x = ns.x{grows} %}}{{% endfor %}}" for grows in (
                " ~ ns.x", " + ns.x", ".replace('a', ns.x)", " | replace('a', ns.x)")),
        )),
        ("{{ [{'x' * 1000000: 1}] * 200 }}", "it makes more than 134,217,728 characters in all"),
        ("{{ [{('x' * 1000000,): 1}] * 200 }}", "it makes more than 134,217,728 characters"),
        *((source, TOO_WIDE) for source in (
            "{{ 1.5 | round(20000) }}", "{{ 1.5 | round(-20000) }}",
            "{{ 'x'.center(1000000000) }}", "{{ 'x'.zfill(1000000000) }}",
            "{{ 'x' | center(1000000000) }}", "{{ 'x' | indent(1000000000) }}",
            "{{ ['x'] | map('center', 1000000000) | list }}",
            "{{ {'a': 1} | tojson(indent=1000000000) }}")),
        ("{{ ([[1]] * 9) | sum(start=[]) }}", "sum adds numbers only"),
        *((f"{{{{ ('x' * 1000001) | {name} }}}}",
           "would read a text of more than 1,000,000 letters|more than 1,000,000 characters")
          for name in (
            "list", "batch(1) | list", "sort", "unique | list", "map('upper') | list", "title",
            "urlencode", "groupby('a')", "reverse | list", "wordwrap(1)")),
        ("{{ ('x ' * 2000001).split() }}", "it splits a text of more than 4,000,000 characters"),
        *((f"{{{{ {method} }}}}", "has no attribute") for method in (
            "(1).to_bytes(9, 'big')", "'x'.translate({120: 'y'})", "'x'.encode('utf-32')",
            "'x'.expandtabs(9999)", "[].sort()")),
        *((f"{{{{ {path} }}}}", "names that begin with two underscores are not allowed")
          for path in ("''.__class__", "''['__class__']", "'{0.__class__}'.format(1)",
                       "'' | attr('__class__')")),
        ("{{ strftime_now('%9999Y') }}", "its layout of a date is too long, or has a width"),
        ("{{ strftime_now('%c' * 501) }}", "its layout of a date is too long, or has a width"),
        ("{{ 10 ** (10 ** 10) }}", "it makes a number of more than 4,096 bits"),
        (BIG + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
         "it makes a list or mapping of more than 1,000,000 values"),
        (GROWN, "it makes a list or mapping of more than|it takes longer than 3 s"),
        ("{{ '%1000000000d' % 1 }}", "a width in its format has more than three digits"),
        ("{{ '%*d' % (1000000000, 1) }}", "a width in its format has more than three digits"),
        ("{{ '%1000000000d' | format(1) }}", "a width in its format has more than three digits"),
        ("{{ '{:1000000000}'.format(1) }}", "a width in its format has more than three digits"),
        ("{{ '{:{}}'.format(1, 1000000000) }}", "a width in its format has more than three digits"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{{ range(1000000000) }}", "its `range` has more than 100,000 numbers"),
        ("{{ lipsum(1000000) }}", "'lipsum' is undefined"),
    ],
)  # fmt: skip
def test_a_template_cannot_use_up_the_machine(source: str, why: str) -> None:
    began = time.process_time()
    with pytest.raises(TemplateRefused, match=why):
        JinjaTemplate(source, bos="", eos="").render([{"role": "user", "content": "x"}])
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ '%.2f and %s' % (0.5, 'x') }}", "0.50 and x"),
        ("{{ '%05d' | format(42) }}", "00042"),
        ("{{ '{} {:>4}'.format(1, 2) }}", "1    2"),
        ("{{ 'a,b'.split(',') | join('+') }}", "a+b"),
        ("{{ 'a\nb' | indent(2) }}", "a\n  b"),
        ("{{ 123456.75 | round(1) }} {{ [1, 2] | sum }} {{ [{'a': 2}] | sum('a') }}",
         "123456.8 3 2"),
        ("{{ messages | map(attribute='role') | join }}{{ messages | join('-', 'role') }}",
         "useruser"),
        ("{{ messages | join(attribute='role', d=',') }} {{ ['a'] | replace('a', 'b') }}",
         "user ['b']"),
        ("{{ '-'.join(['a', 'b']) }}", "a-b"),
        ("{{ [1] | tojson(indent=1, separators=(',', ':')) }} {{ 'x' | tojson }}", '[\n 1\n] "x"'),
        ("{{ 'ab' | list }} {{ 'abc' | batch(2) | list }}", "['a', 'b'] [['a', 'b'], ['c']]"),
        ("{{ 'a b'.split() }} {{ 'a b' | title }} {{ 'a b' | urlencode }}", "['a', 'b'] A B a%20b"),
        ("{{ strftime_now('%Y') | length }} {{ strftime_now('%d %B, 2024')[-4:] }}", "4 2024"),
        ("{% for i in range(3) %}{{ loop.index }}/{{ loop.length }}{{ ' last' if loop.last }} "
         "{% endfor %}", "1/3 2/3 3/3 last "),
        ("{{ messages[0].content ~ 1 ~ [2] }}", "x1[2]"),
        ("{{ {'a': [1, 2]} | tojson }}", '{"a": [1, 2]}'),
        ("{{ 1000000 + 1 }} {{ 5000000 | default(0) }}", "1000001 5000000"),
        ("{% set x %}a{% endset %}{% macro m(y) %}<{{ y }}>{% endmacro %}{{ m(x) }}", "<a>"),
        ("{% for k, v in {'b': 1, 'a': 2}.items() | sort %}{{ k }}{{ v }}{% endfor %}", "a2b1"),
        ("{% for m in messages recursive %}{{ m.role }}{% endfor %}", "user"),
    ],
)  # fmt: skip
def test_what_templates_do_is_possible(source: str, expected: str) -> None:
    turns = [{"role": "user", "content": "x"}]
    assert JinjaTemplate(source, bos="", eos="").render(turns) == expected


def test_a_long_conversation_is_no_burden() -> None:
    source = "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}"
    turns = [{"role": "user", "content": "word " * 1000}] * 3000
    assert len(JinjaTemplate(source, bos="", eos="").render(turns)) > 15_000_000


WORDS = (
    "for", "x", "in", "if", "else", "endif", "endfor", "set", "macro", "endmacro", "messages",
    "messages[0]", ".content", ".items()", "['role']", "|", "tojson", "trim", "join", "(", ")",
    "[", "]", "{", "}", "~", "+", "*", "**", "%", "==", "not", "is", "defined", "1", "99999999999",
    "'y'", ",", ":", "loop", "namespace()", "range(3)", "raise_exception('no')", "none", "=",
)  # fmt: skip
PARTS = some.one_of(
    some.text(max_size=4),
    some.lists(some.sampled_from(WORDS), max_size=6).map(
        lambda all_: f"{{{{ {' '.join(all_)} }}}}"
    ),
    some.lists(some.sampled_from(WORDS), max_size=6).map(lambda all_: f"{{% {' '.join(all_)} %}}"),
    some.sampled_from(["{% for x in messages %}", "{% endfor %}", "{% if x %}", "{% endif %}"]),
)


@settings(max_examples=150, deadline=None)
@given(some.lists(PARTS, max_size=8).map("".join))
def test_no_template_ends_otherwise_than_by_a_text_or_a_refusal(source: str) -> None:
    with suppress(BadRequest, TemplateRefused):
        template = JinjaTemplate(source, bos="", eos="")
        assert isinstance(template.render([{"role": "user", "content": "x"}]), str)
