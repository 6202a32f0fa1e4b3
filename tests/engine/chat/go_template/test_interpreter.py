from typing import Any

import pytest

from paddock.engine.chat.go_template.go_values import GoJsonList, GoJsonMap, GoStruct, go_value_json
from paddock.engine.chat.go_template.interpreter import GoTemplate
from paddock.engine.chat.go_template.syntax import GoTemplateError

DATA: dict[str, Any] = {
    "Name": "Ada",
    "Empty": "",
    "Zero": 0,
    "Three": 3,
    "Half": 0.5,
    "Yes": True,
    "No": False,
    "Nothing": None,
    "List": ["a", "b", "c"],
    "None": [],
    "Map": {"two": 2, "one": 1},
    "Args": GoJsonMap(city="Zürich <1>", days=3),
    "Tools": GoJsonList([{"name": "f"}]),
    "Deep": {"A": {"B": "found"}},
    "User": GoStruct("User", {"Name": "Bob", "Tags": ["x", "y"]}),
}


def printed(source: str, data: Any = DATA) -> str:
    return GoTemplate(source, {"json": go_value_json}).execute(data)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # Texts, trimming, comments.
        ("plain } text", "plain } text"),
        ("a {{ .Name }} b", "a Ada b"),
        ("a {{- .Name -}} b", "aAdab"),
        ("a \n\t{{- .Name }} b", "aAda b"),
        ("a {{ .Name -}}\n\n b", "a Adab"),
        ("a{{/* a comment with }} in it */}}b", "ab"),
        ("a {{- /* trims */ -}} b", "ab"),
        ("{{ 3 -}} x", "3x"),
        ("{{-3}}", "-3"),
        # Constants.
        (r'{{ "a\tb\"c\\ A \x41 \101" }}', 'a\tb"c\\ A A A'),
        ("{{ `raw \\n \"x\"` }}", 'raw \\n "x"'),
        ("{{ 'a' }}", "97"),
        ("{{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 017 }} {{ 1_000 }}", "31 5 15 15 1000"),
        ("{{ 1.5 }} {{ 1e3 }} {{ .5 }}", "1.5 1000 0.5"),
        ("{{ true }} {{ false }}", "true false"),
        ('{{ print nil }}', "<nil>"),
        # Fields, variables, chains.
        ("{{ .Deep.A.B }}", "found"),
        ("{{ .User.Name }}", "Bob"),
        ("{{ (index .List 1) }}", "b"),
        ("{{ (.Deep).A.B }}", "found"),
        ("{{ .Missing }}", "<no value>"),
        ("{{ .Nothing }}", "<no value>"),
        ("{{ $x := .Name }}{{ $x }}{{ $x = 3 }}{{ $x }}", "Ada3"),
        ("{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ $x }}{{ end }}{{ $x }}", "21"),
        ("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("{{ with .Deep }}{{ $.Name }} {{ .A.B }}{{ end }}", "Ada found"),
        ("{{ $u := .User }}{{ $u.Name }}", "Bob"),
        # What is true.
        ("{{ if .Name }}y{{ else }}n{{ end }}", "y"),
        ("{{ if .Empty }}y{{ else }}n{{ end }}", "n"),
        ("{{ if .Zero }}y{{ else }}n{{ end }}", "n"),
        ("{{ if .None }}y{{ else }}n{{ end }}", "n"),
        ("{{ if .Missing }}y{{ else }}n{{ end }}", "n"),
        ("{{ if .User }}y{{ end }}", "y"),
        ("{{ if .No }}1{{ else if .Zero }}2{{ else if .Yes }}3{{ else }}4{{ end }}", "3"),
        ("{{ if $x := .Name }}{{ $x }}{{ end }}", "Ada"),
        ("{{ with .Empty }}y{{ else }}{{ .Name }}{{ end }}", "Ada"),
        ("{{ with .Empty }}a{{ else with .Name }}{{ . }}{{ end }}", "Ada"),
        ("{{ with $x := .Name }}{{ $x }}{{ . }}{{ end }}", "AdaAda"),
        # Loops.
        ("{{ range .List }}[{{ . }}]{{ end }}", "[a][b][c]"),
        ("{{ range $i, $x := .List }}{{ $i }}{{ $x }}{{ end }}", "0a1b2c"),
        ("{{ range $x := .List }}{{ $x }}{{ end }}", "abc"),
        ("{{ range $k, $v := .Map }}{{ $k }}={{ $v }} {{ end }}", "one=1 two=2 "),
        ("{{ range .None }}x{{ else }}none{{ end }}", "none"),
        ("{{ range .Missing }}x{{ else }}none{{ end }}", "none"),
        ("{{ range 3 }}{{ . }}{{ end }}", "012"),
        ("{{ range .List }}{{ if eq . \"b\" }}{{ break }}{{ end }}{{ . }}{{ end }}", "a"),
        ("{{ range .List }}{{ if eq . \"b\" }}{{ continue }}{{ end }}{{ . }}{{ end }}", "ac"),
        ("{{ $n := 0 }}{{ range $i, $_ := .List }}{{ $n = $i }}{{ end }}{{ $n }}", "2"),
        ("{{ $x := 0 }}{{ range $x = .List }}{{ end }}{{ $x }}", "c"),
        ("{{ range .List }}{{ range $.List }}{{ break }}{{ end }}{{ . }}{{ end }}", "abc"),
        # Functions.
        ('{{ eq .Name "Bob" "Ada" }} {{ ne .Three 4 }}', "true true"),
        ("{{ lt 1 2 }}{{ le 2 2 }}{{ gt 1 2 }}{{ ge 2 2 }}", "truetruefalsetrue"),
        ('{{ lt "a" "b" }}', "true"),
        ("{{ eq .Three 3.0 }}", "true"),
        ("{{ eq .Nothing nil }} {{ eq .Name nil }}", "true false"),
        ('{{ and .Name "x" }} {{ and .Empty .Missing.Field }}', "x "),
        ("{{ or .Empty .Name }} {{ or .Name .Missing.Field }}", "Ada Ada"),
        ("{{ not .Empty }}", "true"),
        ('{{ len .List }} {{ len "é" }} {{ len .Map }}', "3 2 2"),
        ('{{ index .Map "one" }} {{ index .Map "x" }} {{ index .List 2 }}', "1 <no value> c"),
        ('{{ index "ABC" 1 }}', "66"),
        ("{{ slice .List 1 }} {{ slice .List 0 2 }}", "[b c] [a b]"),
        ('{{ slice "abcdef" 2 4 }}', "cd"),
        ('{{ print "a" 1 2 "b" 3 }}|{{ print 1 2 }}|{{ println "a" 1 }}', "a1 2b3|1 2|a 1\n"),
        ('{{ printf "%s has %d, %5.2f%% %v %q" .Name 3 0.5 .List "x\\"" }}',
         'Ada has 3,  0.50% [a b c] "x\\""'),
        ('{{ .Name | printf "%s-%s" "x" | len }}', "5"),
        ("{{ .List | json }}", '["a","b","c"]'),
        # Printing.
        ("{{ .Args }}", '{"city":"Zürich <1>","days":3}'),
        ("{{ .Args.city }} {{ .Args.days }}", "Zürich <1> 3"),
        ("{{ .Tools }}", '[{"name":"f"}]'),
        ("{{ .Map }} {{ .List }} {{ .User }}", "map[one:1 two:2] [a b c] {Bob [x y]}"),
        ("{{ .Half }} {{ 1000000.5 }} {{ 0.00001 }}", "0.5 1.0000005e+06 1e-05"),
        # Other templates.
        ('{{ define "x" }}<{{ . }}>{{ end }}{{ template "x" .Name }}', "<Ada>"),
        ('{{ template "x" }}{{ define "x" }}{{ . }}{{ end }}', "<no value>"),
        ('{{ block "b" .User }}{{ .Name }}{{ end }}', "Bob"),
        ('{{ define "r" }}{{ if . }}{{ len . }}{{ template "r" slice . 1 }}{{ end }}{{ end }}'
         '{{ template "r" .List }}', "321"),
        ('{{ $x := 1 }}{{ define "t" }}{{ $ }}{{ end }}{{ template "t" 5 }}', "5"),
    ],
)  # fmt: skip
def test_a_template_prints_what_go_would(source: str, expected: str) -> None:
    assert printed(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("\n\n{{ .User.Nope }}", "line 3: can't evaluate field Nope in type User"),
        ("{{ .Name.Nope }}", "line 1: can't evaluate field Nope in type string"),
        ("{{ .Missing.Nope }}", "line 1: nil has no field Nope"),
        ("{{ .Name 1 }}", "line 1: can't give argument to non-function .Name"),
        ("{{ 1 | .Name }}", "line 1: can't give argument to non-function .Name"),
        ("{{ index .List 3 }}", "line 1: error calling index: index out of range: 3"),
        ("{{ index .List }}{{ slice .List 4 }}",
         "line 1: error calling slice: index out of range: 4"),
        ("{{ len 3 }}", "line 1: error calling len: len of type int"),
        ('{{ eq 1 "1" }}', "line 1: error calling eq: incompatible types for comparison"),
        ("{{ eq .List .List }}",
         "line 1: error calling eq: non-comparable types []interface {} and []interface {}"),
        ("{{ lt true false }}", "line 1: error calling lt: invalid type for comparison"),
        ("{{ not }}", "line 1: error calling not: wrong number of args: want 1 got 0"),
        ("{{ not 1 2 }}", "line 1: error calling not: wrong number of args: want 1 got 2"),
        ("{{ eq 1 }}", "line 1: error calling eq: missing argument for comparison"),
        ("{{ range .Name }}{{ end }}", "line 1: range can't iterate over Ada"),
        ("{{ nil }}", "line 1: nil is not a command"),
        ('\n{{ template "x" }}', "line 2: template 'x' not defined"),
        ("{{ if false }}{{ $x := 1 }}{{ else }}{{ $x }}{{ end }}",
         "line 1: undefined variable: $x"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_out_is_told_with_its_line(source: str, expected: str) -> None:
    with pytest.raises(GoTemplateError) as caught:
        printed(source)
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ range 100000000 }}{{ end }}", "it takes (more than 1,000,000 steps|longer than 3 s)"),
        ('{{ define "x" }}{{ template "x" }}{{ end }}{{ template "x" }}', "it goes deeper than"),
        ('{{ $x := "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" }}'
         "{{ range 40 }}{{ $x = print $x $x }}{{ end }}", "it makes (a text of )?more than"),
        ('{{ range 2000 }}{{ printf "%100000s" "x" }}{{ end }}', "it prints more than"),
    ],
)  # fmt: skip
def test_a_template_cannot_use_up_the_machine(source: str, why: str) -> None:
    with pytest.raises(GoTemplateError, match=why):
        printed(source)


def test_a_template_cannot_reach_python() -> None:
    for source in ("{{ .Name.__class__ }}", "{{ .User.__class__ }}", "{{ .__class__ }}"):
        try:
            assert printed(source) == "<no value>"
        except GoTemplateError:
            continue


def test_a_template_may_be_cut_after_a_field() -> None:
    source = "{{ if .A }}<{{ .A }}>{{ else }}{{ .Response }}!{{ end }}{{ .B }}"
    data = {"A": "", "B": "b", "Response": "r"}
    assert GoTemplate(source, {}).execute_until("Response", data) == "r"
    assert GoTemplate(source, {}).execute_until("Response", {**data, "A": "a"}) == "<a>"
    assert GoTemplate("{{ .B }}", {}).execute_until("Response", data) == "b"
