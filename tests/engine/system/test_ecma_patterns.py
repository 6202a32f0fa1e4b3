"""Patterns mean what ECMA-262 says, or are refused with the reason."""

import pytest

from paddock.engine.sampling.json_schema import check_schema
from paddock.engine.system.ecma_patterns import UnknownPattern, matches
from paddock.pipelines.schema_validation import schema_mismatch


@pytest.mark.parametrize(
    ("pattern", "found", "not_found"),
    [
        (r"^\d$", ["1"], ["٣", "x", "1\n"]),
        (r"^\D$", ["٣", "x"], ["1"]),
        (r"^\w$", ["a", "_"], ["é", "-"]),
        (r"^\s$", [" ", "\xa0", "\ufeff", "\u2028"], ["\x85", "\x1c", "a"]),
        (r"^\S$", ["\x85", "a"], ["\ufeff"]),
        (r"^.$", ["a", "😀", "\x85"], ["\n", "\r", "\u2028", "ab"]),
        ("b", ["abc"], ["ac"]),
        ("a|^b$", ["xa", "b"], ["xb"]),
        (r"^\p{L}+$", ["é", "π"], ["1"]),
        (r"^\p{Script=Greek}$", ["π"], ["p"]),
        (r"^\u{1F600}$", ["😀"], ["x"]),
        (r"^\ud83d\ude00$", ["😀"], ["x"]),
        (r"^[\d\-x]$", ["1", "-", "x"], ["٣", "\\"]),
        (r"^[^\W\d]$", ["a"], ["1", "é"]),
        ("^[a&&b]$", ["a", "&", "b"], ["c"]),
        ("^[a[]$", ["[", "a"], ["]"]),
        ("^[^]$", ["\n", "a"], [""]),
        (r"^\x41\cJ\0$", ["A\n\x00"], ["A"]),
        ("^(?<year>a)(?:b)$", ["ab"], ["a"]),
        ("^a{2,3}?$", ["aa", "aaa"], ["a", "aaaa"]),
        ("^a{,2}$", ["a{,2}"], ["a", "aa"]),
        (r"^[\b]$", ["\b"], ["b"]),
        ('^[^"]*$', ["a", "a\n\\", "\x01"], ['"', 'a"b']),
        (r"^[^\\]$", ["a", '"', "\n"], ["\\"]),
        (r"^[\x00-\x1f]$", ["\x01", "\n", "\x1f"], ['"', "\\", " "]),
        (r"^(?:[\x00-\x0f]|[\x10-\x1f])$", ["\x01", "\x1f"], ['"', "\\"]),
        (r"^\p{Cc}$", ["\x01", "\x7f"], ['"', "\\"]),
        (r"^[\P{P}]$", ["a", "\n"], ['"', "\\", "."]),
        (r"^(a+)+$", ["a" * 5000], ["a" * 5000 + "b"]),
        ("", ["", "a"], []),
    ],
)
def test_a_pattern_means_what_ecma_262_says(
    pattern: str, found: list[str], not_found: list[str]
) -> None:
    schema = {"type": "string", "pattern": pattern}
    assert check_schema(schema) == ()
    assert [text for text in found if not matches(pattern)(text)] == []
    assert [text for text in not_found if matches(pattern)(text)] == []
    assert [text for text in found if schema_mismatch(text, schema) is not None] == []
    assert [text for text in not_found if schema_mismatch(text, schema) is None] == []


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(?=a)b", "look-around, including look-ahead and look-behind, is not supported"),
        ("(?<!a)b", "look-around, including look-ahead and look-behind, is not supported"),
        (r"a\b", r"'\b' looks around, which is not supported"),
        (r"(a)\1", r"'\1' refers back, which is not supported"),
        (r"(?<n>a)\k<n>", r"'\k' refers back, which is not supported"),
        (r"\Aa\Z", r"'\A' is not known in ECMA-262"),
        ("(?i)a", "'(?i' is not known in ECMA-262"),
        ("(?P<n>a)", "'(?P' is not known in ECMA-262"),
        ("a*+", "'+' at 2 repeats nothing"),
        ("^*", "'*' at 1 repeats nothing"),
        ("(a", "a group is not closed"),
        ("a)", "')' at 1 closes no group"),
        ("[a", "'[' at 0 is not closed"),
        ("[z-a]", "the range z-a has its ends exchanged"),
        ("[]", "'[]' matches nothing"),
        ("a^b", "'^' and '$' are supported only where a text begins and ends"),
        (r"[\0]", "it matches nothing"),
        (r"\pL", r"'\p' needs a property in braces"),
        (r"\u{110000}", "there is no character 110000"),
        ("a\\", "'\\' is not known in ECMA-262"),
    ],
)
def test_what_is_not_known_is_refused_with_its_place(pattern: str, why: str) -> None:
    with pytest.raises(UnknownPattern) as refused:
        matches(pattern)
    assert str(refused.value) == why
    (problem,) = check_schema({"properties": {"a": {"type": "string", "pattern": pattern}}})
    assert problem.pointer == "/properties/a/pattern"
    assert problem.message == f"the pattern cannot be used: {why}"
    (problem,) = check_schema({"patternProperties": {pattern: {}}})
    assert problem.path == ("patternProperties", pattern)
    assert schema_mismatch("a", {"pattern": pattern}) is not None


def test_every_character_can_be_matched() -> None:
    anything = matches("^[^]$")
    codes = [*range(0x300), 0x2028, 0xD7FF, 0xE000, 0xFEFF, 0xFFFF, 0x10000, 0x10FFFF]
    assert [code for code in codes if not anything(chr(code))] == []


def test_a_property_that_unicode_does_not_know_is_refused() -> None:
    (problem,) = check_schema({"type": "string", "pattern": r"\p{Nonsense}"})
    assert "Unicode property not found" in problem.message
