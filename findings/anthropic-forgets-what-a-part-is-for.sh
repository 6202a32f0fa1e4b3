#!/usr/bin/env bash
# anthropic 2.14.0: `transform_schema`, which `messages.parse` asks with, moves into the description what the service cannot hold a
# model to, "so that the model might follow" it. But a part that is a model of its own (`$ref`, as pydantic 2.14.4 writes it)
# loses its description, and a `dict[str, int]` becomes an object that may have no key at all, with no word about its values,
# as with `response_format_from_pydantic_model` of mistralai 3.7.0.
#
# Expected: "who sends the bill" and "who pays it" beside the two parties, as openai 3.3.0 keeps them; a dict that can be filled,
# or an error, as for a value of any type.
# Seen: seller and buyer are the same to the model, and `hours` can only be {}, which pydantic takes as an answer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check anthropic==2.14.0 openai==3.3.0 mistralai==3.7.0 pydantic==2.14.4
cd "$folder"
venv/bin/python - <<'PY'
import sys
from typing import Any

import anthropic
from mistralai.extra.utils.response_format import response_format_from_pydantic_model
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel, Field


class Party(BaseModel):
    name: str


class Bill(BaseModel):
    seller: Party = Field(description="who sends the bill")
    buyer: Party = Field(description="who pays it")
    hours: dict[str, int] = Field(description="hours by name")
    count: int = Field(description="number of lines", ge=1)


seen, right = (transform(Bill)["properties"] for transform in (anthropic.transform_schema, to_strict_json_schema))
for name in Bill.model_fields:
    print(name, "| anthropic", seen[name], "| openai", right[name])
hours = response_format_from_pydantic_model(Bill)["json_schema"]["schema"]["properties"]["hours"]
print("hours | mistralai", hours)
try:
    anthropic.transform_schema(type("Any", (BaseModel,), {"__annotations__": {"value": Any}}))
    refused = False
except ValueError:
    refused = True
if seen["seller"] != seen["buyer"] or "description" in seen["seller"] or "minimum: 1" not in seen["count"]["description"]:
    sys.exit("the behaviour has changed")
if seen["hours"]["properties"] or seen["hours"]["additionalProperties"] or "integer" in str(seen["hours"]) or not refused:
    sys.exit("the behaviour has changed")
if hours["additionalProperties"] is not False or "integer" in str(hours):
    sys.exit("the behaviour has changed")
if right["buyer"]["description"] != "who pays it" or right["hours"]["additionalProperties"] != {"type": "integer"}:
    sys.exit("the behaviour has changed")
PY
