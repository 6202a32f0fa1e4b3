"""What the decoder can produce, validation accepts: answers written at random, byte by byte."""

import json
import random
from typing import Any

import pytest
from llguidance import LLMatcher

from paddock.engine.sampling.constraint import byte_tokeniser
from paddock.engine.sampling.json_schema import check_schema, schema_grammar
from paddock.engine.system.schema_patterns import END_SIGN, FORMATS
from paddock.pipelines.schema_validation import schema_mismatch

MOST_BYTES = 400
PATTERNS = (
    r"^\d+$", r"\d", r"^\D$", r"^\w+$", r"^\W$", r"^\s$", r"^\S$", r"^.$", r"^\p{L}+$", r"^\P{L}$",
    r"^\p{Lu}\p{Script=Greek}?$", "^[^]$", "^[^a-z]$", r"a|^b$", r"^(?:^a|b)c$", r"^a{0,3}?$",
    r"^(?<year>\d{4})/$", r"^\x41\u0042\u{1F600}$", r"^\/\.$", "^é$", r"^(?:)$", "",
)  # fmt: skip
SCHEMAS: list[Any] = [
    *({"type": "string", "format": name} for name in sorted(FORMATS)),
    *({"type": "string", "pattern": pattern} for pattern in PATTERNS),
    {"type": "string", "format": "date", "pattern": "02-29$"},
    {"type": "string", "format": "date-time", "maxLength": 24, "pattern": "-29"},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 0.5},
    {"exclusiveMinimum": 123456, "exclusiveMaximum": 123456.25},
    {"type": ["number", "null"], "minimum": -1.05, "exclusiveMaximum": -1},
    {"type": "number", "minimum": 0.5, "exclusiveMaximum": 1},
    {
        "type": "object",
        "patternProperties": {r"^\d$": {"type": "integer"}, r"^\p{Lu}$": {"minimum": 3}},
        "additionalProperties": False,
    },
]


def written(schema: Any, seed: int) -> Any:
    """Return an answer that the decoder allows; None if it did not end in time."""
    chance = random.Random(seed)
    matcher = LLMatcher(byte_tokeniser(), schema_grammar(schema), log_level=0)
    text = bytearray()
    while len(text) < MOST_BYTES:
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        allowed = [byte for byte in range(END_SIGN) if mask >> byte & 1]
        may_end = matcher.is_accepting()
        if may_end and (not allowed or chance.random() < 0.3):
            return json.loads(text)
        plain = [byte for byte in allowed if byte in b'0123456789abZ-.:"@ '] or allowed
        byte = chance.choice(plain if chance.random() < 0.6 else allowed)
        matcher.consume_token(byte)
        text.append(byte)
    return None


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_what_the_decoder_writes_is_valid(schema: Any) -> None:
    assert check_schema(schema) == ()
    answers = [answer for seed in range(60) if (answer := written(schema, seed)) is not None]
    assert answers
    refused = [
        (answer, why) for answer in answers if (why := schema_mismatch(answer, schema)) is not None
    ]
    assert refused == []
