import pytest

from paddock.engine.chat.go_template.interpreter import GoTemplate
from paddock.engine.chat.go_template.syntax import GoTemplateSyntaxError


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a\n{{ .Name", "line 2: unclosed action"),
        ("{{ /* x }}", "line 1: unexpected '/' in an action"),
        ("{{/* x }}", "line 1: unclosed comment"),
        ("{{/* x */ .A }}", "line 1: comment ends before closing delimiter"),
        ('{{ "x }}', 'line 1: unterminated or malformed quote "'),
        ('{{ "\\z" }}', "line 1: bad escape '\\\\z' in \"\\z\""),
        ("{{ 3x }}", "line 1: unexpected 'x' in an action"),
        ("{{ 99999999999999999999 }}", "line 1: integer overflow: '99999999999999999999'"),
        ("\n{{ if .A }}x", "line 2: {{if}} is not closed by {{end}}"),
        ("x{{ end }}", "line 1: unexpected {{end}}"),
        ("{{ else }}", "line 1: unexpected {{else}}"),
        ("{{ if .A }}{{ else }}{{ else }}{{ end }}", "line 1: expected end; found {{else}}"),
        ("{{ if }}{{ end }}", "line 1: missing value for if"),
        ("{{ }}", "line 1: empty command"),
        ("{{ .A | }}", "line 1: empty command"),
        ("{{ nope .A }}", "line 1: function 'nope' not defined"),
        ("{{ $x }}", "line 1: undefined variable '$x'"),
        ("{{ if true }}{{ $x := 1 }}{{ end }}{{ $x }}", "line 1: undefined variable '$x'"),
        ("{{ $a, $b := .A }}", "line 1: too many declarations in command"),
        ("{{ (.A }}", "line 1: unclosed left paren"),
        ("{{ .A) }}", "line 1: unexpected ')' in command"),
        ("{{ .A | 3 }}", "line 1: non executable command in pipeline stage 2"),
        ("{{ 3 .A }}", "line 1: can't give argument to non-function 3"),
        ("{{ break }}", "line 1: {{break}} outside {{range}}"),
        ('{{ if true }}{{ define "x" }}{{ end }}{{ end }}', "line 1: unexpected {{define}}"),
        ("{{ define x }}{{ end }}", "line 1: unexpected 'x' in define clause"),
        ("{{ template .X }}", "line 1: unexpected '.X' in template clause"),
        ('{{ "x".Y }}', "line 1: unexpected . after term '\"x\"'"),
        ("{{ .A.}}", "line 1: unexpected '.' in operand"),
        ("{{ a + b }}", "line 1: unexpected '+' in an action"),
        ("{{ .A + 1 }}", "line 1: unexpected '+' in an action"),
        (
            '{{ define "x" }}1{{ end }}{{ define "x" }}2{{ end }}',
            "line 1: multiple definition of template 'x'",
        ),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(source: str, expected: str) -> None:
    with pytest.raises(GoTemplateSyntaxError) as caught:
        GoTemplate(source, {})
    assert str(caught.value) == expected


def test_deep_nesting_is_refused_and_long_chains_are_not() -> None:
    with pytest.raises(GoTemplateSyntaxError, match="more than 60 actions within each other"):
        GoTemplate("{{ if true }}" * 100 + "{{ end }}" * 100, {})
    with pytest.raises(GoTemplateSyntaxError, match="more than 60 actions within each other"):
        GoTemplate("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", {})
    chain = "".join(f"{{{{ else if eq .N {n} }}}}{n}" for n in range(500))
    template = GoTemplate("{{ if eq .N -1 }}x" + chain + "{{ end }}", {})
    assert template.execute({"N": 499}) == "499"


def test_the_names_that_a_template_speaks_of_are_known() -> None:
    source = (
        "{{ range $i, $m := .Messages }}{{ $m.Role }}{{ if (and $.Tools (len .X)) }}{{ end }}"
        '{{ else }}{{ (index .Y 0).Z }}{{ end }}{{ define "d" }}{{ .Inner }}{{ end }}'
    )
    names = {"Messages", "Role", "Tools", "X", "Y", "Z", "Inner"}
    assert GoTemplate(source, {}).names == names


def test_a_comment_or_a_trimmed_line_does_not_shift_the_lines_of_errors() -> None:
    source = "{{/* one\ntwo */}}\n{{- /* three */ -}}\n\n{{ `four\n` }}{{ nope }}"
    with pytest.raises(GoTemplateSyntaxError, match="line 6: function 'nope' not defined"):
        GoTemplate(source, {})
