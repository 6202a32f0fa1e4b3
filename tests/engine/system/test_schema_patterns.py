"""Patterns are matched as the decoder writes them, or refused with the reason."""

import pytest

from paddock.engine.sampling.json_schema import check_schema
from paddock.engine.system.schema_patterns import UnknownPattern, matches
from paddock.pipelines.schema_validation import schema_mismatch


@pytest.mark.parametrize(
    ("pattern", "found", "not_found"),
    [
        (r"^\d$", ["1"], ["٣", "x", "1\n"]),
        (r"^\D$", ["٣", "x"], ["1"]),
        (r"^\w$", ["a", "_"], ["é", "-"]),
        (r"^\s$", [" ", "\xa0", "\u2028"], ["\x1c", "a"]),
        (r"^\S$", ["a", '"'], [" "]),
        (r"^.$", ["a", "😀", "\x85"], ["\n", "ab"]),
        ("b", ["abc"], ["ac"]),
        ("a|^b$", ["xa", "b"], ["xb"]),
        (r"^\p{L}+$", ["é", "π"], ["1"]),
        (r"^\p{Script=Greek}$", ["π"], ["p"]),
        (r"^\u{1F600}$", ["😀"], ["x"]),
        (r"^[\d\-x]$", ["1", "-", "x"], ["٣", "\\"]),
        (r"^[^\W\d]$", ["a"], ["1", "é"]),
        ("^[^]$", ["\n", "a"], [""]),
        (r"^\x41\u0042$", ["AB"], ["A"]),
        ("^(?<year>a)(?:b)$", ["ab"], ["a"]),
        ("^a{2,3}?$", ["aa", "aaa"], ["a", "aaaa"]),
        ('^[^"]*$', ["a", "a\n\\", "\x01"], ['"', 'a"b']),
        (r"^[^\\]$", ["a", '"', "\n"], ["\\"]),
        (r"^(a+)+$", ["a" * 5000], ["a" * 5000 + "b"]),
        ("", ["", "a"], []),
    ],
)
def test_a_pattern_means_what_the_decoder_writes(
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
        (r"(a)\1", "backreferences are not supported"),
        (r"\Aa\Z", "unrecognized escape sequence"),
        ("(a", "unclosed group"),
        ("[z-a]", "invalid character class range, the start must be <= the end"),
        ("a^b", "`^`, `$` and `\\b` are supported only where a text begins and ends"),
        (r"\p{Nonsense}", "Unicode property not found"),
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
