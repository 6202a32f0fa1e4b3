"""A value is of its schema, formats included, wherever it comes from."""

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from paddock.engine.sampling.json_schema import schema_grammar
from paddock.engine.system import schema_patterns
from paddock.pipelines import schema_validation
from paddock.pipelines.schema_validation import schema_mismatch

RIGHT = {
    "date": ["2024-02-29", "2000-02-29", "1999-12-31", "0000-01-01"],
    "time": ["13:04:28Z", "13:04:28-20:57", "13:04:28.5z", "23:59:60Z", "22:59:60-01:00"],
    "date-time": ["2024-02-29T13:04:28Z", "2024-02-29t13:04:28.1+01:00", "1998-12-31T23:59:60Z"],
    "duration": ["P1D", "PT1H", "P1Y2M3DT4H5M6S", "P1W", "P1M", "PT5M", "P1YT1S"],
    "email": ["a@b.co", "joe@localhost", "a@[127.0.0.1]", "a+b@c.de", "te~st@example.com"],
    "hostname": ["a.b", "localhost", "a" * 63, "xn--nxasmq6b", "1.2.3.4", "A.B"],
    "ipv4": ["1.2.3.4", "255.255.255.255"],
    "ipv6": ["::1", "::", "1:2:3:4:5:6:7:8", "fe80::1"],
    "uri": ["http://a.b/c?d=e#f", "mailto:a@b.c", "urn:x:y", "http://a/%20", "tel:+1-816", "x:"],
    "uuid": ["2EB8AA08-AA98-11EA-B4AA-73B441D16380"],
}
WRONG = {
    "date": ["31 Febtember", "2024-02-30", "2024-13-01", "2024-1-1", "20240229", "٢024-01-01"],
    "time": ["13:04:28", "24:00:00Z", "13:04:28+24:00", "9:04:28Z", "13:04Z", "noon"],
    "date-time": ["2024-02-29", "2024-02-29 13:04:28Z", "2024-02-30T13:04:28Z", ""],
    "duration": ["P", "PT", "P1D2H", "1D", "P0.5D", "P1W2D", "P-1D", "PT1H2S", "two days"],
    "email": ["not-a-mail", "a b@c.de", "a@b@c.de", "a..b@c.de", ".a@b.de", "a@-b.de", "a@b..de"],
    "hostname": ["-a", "a-.b", "a_b", "a.", "", "a" * 64, "a..b"],
    "ipv4": ["256.1.1.1", "1.2.3", "01.2.3.4", "1.2.3.4/8"],
    "ipv6": ["1::2::3", "fe80::1%eth0", "12345::", "1:2:3:4:5:6:7"],
    "uri": ["a/b", "//a/b", "http://a b", "http://[::1", "http://a/<b>", "1a:b", "http://a:80x/"],
    "uuid": ["2eb8aa08aa9811eab4aa73b441d16380", "{2eb8aa08-aa98-11ea-b4aa-73b441d16380}"],
}
OFTEN_ALLOWED = {"date": ["2023-02-29", "1900-02-29"], "date-time": ["2023-02-29T13:04:28Z"]}
"""What llguidance's own formats allow, and is wrong all the same."""

CASES = [
    (name, text, group is RIGHT)
    for group in (RIGHT, WRONG, OFTEN_ALLOWED)
    for name, texts in group.items()
    for text in texts
]


@pytest.mark.parametrize(("name", "text", "is_right"), CASES)
def test_a_text_is_of_a_format_or_it_is_not(name: str, text: str, is_right: bool) -> None:
    wrong = schema_mismatch({"value": text}, {"properties": {"value": {"format": name}}})
    if is_right:
        assert wrong is None
    else:
        assert wrong is not None
        assert wrong.startswith(f"At /value: {text!r}"[:150])


@pytest.mark.parametrize("name", sorted(schema_patterns.FORMATS))
def test_formats_are_checked_by_the_rules_of_the_grammar(name: str) -> None:
    grammar, bytes_only = schema_grammar({"type": "string", "format": name}), LLTokenizer("byte")
    for text in (*RIGHT[name], *WRONG[name], *OFTEN_ALLOWED.get(name, ())):
        matcher = LLMatcher(bytes_only, grammar)
        raw = list(json.dumps(text, ensure_ascii=False).encode())
        is_allowed = matcher.try_consume_tokens(raw) == len(raw) and matcher.is_accepting()
        assert is_allowed == schema_patterns.of_format(name)(text), text


def test_an_ipv4_address_in_one_of_ipv6_is_right_though_the_grammar_writes_none() -> None:
    is_right = schema_patterns.of_format("ipv6")
    assert (is_right("::ffff:192.0.2.1"), is_right("::1")) == (True, True)
    assert (is_right("1.2.3.4"), is_right("::1.2.3.4%eth0")) == (False, False)


@pytest.mark.parametrize(
    ("step", "value", "is_right"),
    [
        (0.01, 0.07, True),
        (0.01, 4.355, False),
        (0.1, 0.3, True),
        (5, 12, False),
        (0.5, float("inf"), False),
    ],
)
def test_multiples_are_those_of_decimals(step: float, value: float, is_right: bool) -> None:
    assert (schema_mismatch(value, {"multipleOf": step}) is None) == is_right


@pytest.mark.parametrize("keyword", ["allOf", "anyOf"])
def test_a_schema_that_says_the_same_in_many_ways_is_refused_at_last(
    keyword: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_validation, "_MOST_CPU_S", 0.1)
    ways = {f"d{n}": {keyword: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)}
    schema = {"$defs": {**ways, "d30": {"type": "integer"}}, "$ref": "#/$defs/d0"}
    assert schema_mismatch("x", schema) == (
        "The schema is too complex to compare it with. Use fewer patterns and `$ref`s."
    )
    assert schema_mismatch(["x"] * 10_000, {"items": {"pattern": "x"}}) is None


DRAFT = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
TREE_OF_CENTS = {
    **DRAFT,
    "properties": {
        "n": {"anyOf": [{"type": "object", "$ref": "#"}, {"type": "number", "multipleOf": 0.01}]}
    },
}


def test_a_schema_that_names_its_draft_again_is_compared_in_time_and_by_the_same_rules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert schema_mismatch({"n": {"n": 0.07}}, TREE_OF_CENTS) is None
    letters = {"$defs": {"a": {**DRAFT, "pattern": r"^\p{Lu}+$"}}, "$ref": "#/$defs/a"}
    assert schema_mismatch("ÄÖ", letters) is None
    assert schema_mismatch("äö", letters) == r"'äö' does not match '^\\p{Lu}+$'."
    monkeypatch.setattr(schema_validation, "_MOST_CPU_S", 0.1)
    ways: dict[str, Any] = {
        f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(14)
    }
    ways["a0"] = {**DRAFT, **ways["a0"]}
    schema = {"$defs": {**ways, "a14": {"type": "integer"}}, "$ref": "#/$defs/a0"}
    assert schema_mismatch("x", schema) == (
        "The schema is too complex to compare it with. Use fewer patterns and `$ref`s."
    )


@pytest.mark.parametrize(
    ("items", "is_right"),
    [
        ([1, True, 0, False, None, "1", [], {}, ""], True),
        ([1, 2, 1.0], False),
        ([{"a": [1, {"b": 2}]}, {"a": [1.0, {"b": 2}]}], False),
        ([{"a": 1, "b": 2}, {"b": 2, "a": 1}], False),
        ([{"a": 1}, {"a": True}], True),
        ([[1], [True], {"1": []}], True),
        ([True, True], False),
        ({"a": 1, "b": 1}, True),
    ],
)
def test_unique_items_are_those_of_different_json_values(items: Any, *, is_right: bool) -> None:
    assert (schema_mismatch(items, {"uniqueItems": True}) is None) == is_right
    assert schema_mismatch(items, {"uniqueItems": False}) is None


def test_unique_items_are_not_compared_pair_by_pair() -> None:
    class Counted(int):
        n_compared = 0
        __hash__ = int.__hash__

        def __eq__(self, other: object) -> bool:
            Counted.n_compared += 1
            return int(self) == other

    rows = [{"n": Counted(n)} for n in range(300)]
    assert schema_mismatch(rows, {"uniqueItems": True}) is None
    assert Counted.n_compared < len(rows)
