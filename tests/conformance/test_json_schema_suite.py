"""The official JSON Schema test suite, its main part for draft 2020-12.

`json_schema_suite/` is https://github.com/json-schema-org/JSON-Schema-Test-Suite at 44401e0c under
its licence (MIT), one line for each of its files. Of the schemas that `validate` takes, the decoder
writes nothing that the suite calls invalid, and validation refuses all of that.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from llguidance import LLMatcher

from paddock.engine.sampling.constraint import byte_tokeniser
from paddock.engine.sampling.json_schema import check_schema, schema_grammar
from paddock.pipelines.schema_validation import schema_mismatch

SUITE = json.loads((Path(__file__).parent / "json_schema_suite/draft2020-12.json").read_text())
REFUSED = {
    "additionalProperties": 5,
    "allOf": 2,
    "anchor": 6,
    "anyOf": 1,
    "boolean_schema": 9,
    "const": 4,
    "contains": 21,
    "defs": 2,
    "dependentRequired": 20,
    "dependentSchemas": 20,
    "dynamicRef": 44,
    "enum": 6,
    "format": 63,
    "if-then-else": 26,
    "maxContains": 12,
    "maxItems": 2,
    "maxLength": 2,
    "maxProperties": 2,
    "minContains": 26,
    "minItems": 2,
    "minLength": 2,
    "minProperties": 2,
    "multipleOf": 1,
    "not": 40,
    "oneOf": 16,
    "patternProperties": 15,
    "propertyNames": 22,
    "ref": 34,
    "refRemote": 31,
    "unevaluatedItems": 69,
    "unevaluatedProperties": 127,
    "uniqueItems": 41,
    "vocabulary": 5,
}
"""Tests of schemas that `validate` refuses, since they cannot be enforced while decoding."""
NARROWER = {
    "additionalProperties": 1,
    "allOf": 2,
    "anyOf": 1,
    "const": 4,
    "enum": 4,
    "format": 10,
    "properties": 5,
    "ref": 2,
    "required": 5,
    "type": 1,
}
"""Valid answers that the decoder does not write."""
ANNOTATIONS = "format"
"""Formats are annotations there, and checked here."""


class Case(NamedTuple):
    schema: Any
    data: Any
    is_valid: bool
    description: str


def cases(file: str) -> Iterator[Case]:
    for group in SUITE[file]:
        for test in group["tests"]:
            description = f"{group['description']}: {test['description']}"
            yield Case(group["schema"], test["data"], test["valid"], description)


def is_refused(schema: Any) -> bool:
    return bool(check_schema(schema))


def can_be_written(case: Case) -> bool:
    matcher = LLMatcher(byte_tokeniser(), schema_grammar(case.schema), log_level=0)
    text = json.dumps(case.data, ensure_ascii=False, separators=(",", ":")).encode()
    return bool(matcher.consume_tokens(list(text)) and matcher.is_accepting())


@pytest.mark.parametrize("file", sorted(SUITE))
def test_nothing_invalid_is_written_or_accepted(file: str) -> None:
    all_cases = list(cases(file))
    taken = [case for case in all_cases if not is_refused(case.schema)]
    assert len(all_cases) - len(taken) == REFUSED.get(file, 0)
    written = {case.description for case in taken if can_be_written(case)}
    found = {case.description for case in taken if schema_mismatch(case.data, case.schema) is None}
    valid = {case.description for case in taken if case.is_valid}
    assert written - valid == set(), "unsound"
    assert found - valid == set(), "lax"
    assert written - found == set(), "written, then refused"
    assert file == ANNOTATIONS or found == valid
    assert len(valid - written) == NARROWER.get(file, 0)
