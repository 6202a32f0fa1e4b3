"""Schemas as people write them, with the real model and few tokens: every answer is valid."""

import asyncio
import json
import re
from collections.abc import Coroutine
from typing import Any

import jsonschema  # type: ignore[import-untyped]

from paddock.engine.backends.local import LocalPool
from paddock.engine.request import ChatRequest, Constraint, Message, ModelSpec, Reply
from paddock.engine.sampling.valid_ending import EndingSearch
from tests.engine.pools import SETTINGS
from tests.engine.sampling.world import matcher


def record(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


TEXT = {"type": "string"}
SCHEMAS: dict[str, Any] = {
    "a summary": record(title=TEXT, summary=TEXT, points={"type": "array", "items": TEXT}),
    "a verdict": record(
        label={"enum": ["positive", "negative", "neutral"]}, score={"type": "number"}
    ),
    "people": record(
        people={
            "type": "array",
            "maxItems": 3,
            "items": record(name=TEXT, age={"type": ["integer", "null"]}),
        }
    ),
    "an invoice": record(
        number={"type": "string", "pattern": "^INV-[0-9]{4}$"},
        date={"type": "string", "format": "date"},
        total={"type": "number", "minimum": 0},
        currency={"const": "EUR"},
        lines={
            "type": "array",
            "minItems": 1,
            "items": record(text=TEXT, amount={"type": "number"}),
        },
    ),
    "an event": record(
        what=TEXT,
        starts={"type": "string", "format": "date-time"},
        where={"anyOf": [TEXT, {"type": "null"}]},
    ),
    "a tree": {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "name": TEXT,
                    "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                },
                "required": ["name", "children"],
            }
        },
        "$ref": "#/$defs/node",
    },
    "one of two": {
        "oneOf": [
            record(kind={"const": "mail"}, address={"type": "string", "format": "email"}),
            record(kind={"const": "call"}, digits={"type": "string", "pattern": "^[0-9]{5,9}$"}),
        ]
    },
    "a map": {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1},
    "a tuple": {
        "type": "array",
        "prefixItems": [TEXT, {"type": "integer"}],
        "items": False,
        "minItems": 2,
    },
    "a plain list": {"type": "array", "items": TEXT, "minItems": 2, "maxItems": 4},
    "a number": {"type": "integer", "minimum": 1, "maximum": 10},
    "yes or no": {"type": "boolean"},
    "a text of some length": {"type": "string", "minLength": 20, "maxLength": 60},
    "anything": {},
    "an open object": {"type": "object"},
    "merged": {"allOf": [record(a=TEXT), record(b={"type": "integer"})]},
    "draft 7": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "definitions": {"unit": {"enum": ["kg", "m", "s"]}},
        **record(value={"type": "number"}, unit={"$ref": "#/definitions/unit"}),
        "additionalProperties": False,
    },
    "by pattern": {
        "type": "object",
        "patternProperties": {"^x_": {"type": "integer"}},
        "additionalProperties": False,
    },
    "a tool call": record(name={"enum": ["search", "open"]}, arguments={"type": "object"}),
    "optional fields": {"type": "object", "properties": {"a": TEXT, "b": {"type": "boolean"}}},
    "unicode": record(größe={"enum": ["groß", "klein"]}, straße=TEXT),
    "an address": record(
        id={"type": "string", "format": "uuid"}, url={"type": "string", "format": "uri"}
    ),
}


def ask(pool: LocalPool, schema: Any, temperature: float) -> Coroutine[Any, Any, Reply]:
    prompt = "The moon landing of 1969, by Armstrong and Aldrin (Größe: groß). Answer as JSON."
    constraint = Constraint("json_schema", json.dumps(schema))
    guide = matcher(constraint)
    shortest = EndingSearch(is_json=True).find(guide.byte_matcher) or b""
    few = len(guide.vocabulary.tokens_of(shortest)) + 8
    request = ChatRequest(
        ModelSpec("smollm2:135m"),
        (Message("user", prompt),),
        {"temperature": temperature, "max_tokens": few, "seed": 3, "repeat_penalty": 1.0},
        constraint=constraint,
    )
    return pool.chat(request).reply()


async def test_schemas_as_people_write_them_yield_valid_answers_greedy_and_drawn() -> None:
    cases = [(name, float(number % 2)) for number, name in enumerate(SCHEMAS)]
    async with LocalPool(SETTINGS) as pool:
        requests = (ask(pool, SCHEMAS[name], heat) for name, heat in cases)
        replies = await asyncio.gather(*requests)
    for (name, heat), reply in zip(cases, replies, strict=True):
        assert reply.done_reason == "stop", (name, heat, reply.text)
        jsonschema.validate(json.loads(reply.text), SCHEMAS[name])
        between_texts = re.sub(r'"(\\.|[^"\\])*"', "", reply.text)
        assert not re.search(r"\s", between_texts), (name, heat, reply.text)


def chat(pool: LocalPool, params: dict[str, Any], **extra: Any) -> Coroutine[Any, Any, Reply]:
    messages = (Message("user", "Name a fruit."),)
    request = ChatRequest(
        ModelSpec("smollm2:135m"), messages, {"max_tokens": 12, **params}, **extra
    )
    return pool.chat(request).reply()
