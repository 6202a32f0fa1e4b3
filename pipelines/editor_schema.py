"""JSON Schema of the pipeline language, for editors.

Built from the tables of keys and the parameter types of the steps. Draft 7, with `if`/`then` on
`uses` for `with`, as yaml-language-server expects. The types of steps and of packages' triggers are
arguments, since this package knows none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from .comparison_keys import CompareKeys, GoldKeys
from .keys import (
    STEP_ALIASES,
    ChooseKeys,
    ControlKeys,
    FileKeys,
    InputKeys,
    Keys,
    ModelKeys,
    SecretKeys,
    StepKeys,
)
from .mcp_servers import McpServerKeys
from .pipeline_tests import TestKeys
from .prompt_file import TEXT_OR_FILE_PARAMETERS
from .triggers import BudgetKeys, ConcurrencyKeys, OnKeys

Schema = dict[str, Any]

EXPRESSION: Schema = {"type": "string", "pattern": r"\{\{|\{%", "description": "An expression."}
FILE_REFERENCE: Schema = {
    "type": "object",
    "properties": {"file": {"type": "string", "description": "A path, relative to this file."}},
    "required": ["file"],
    "additionalProperties": False,
}
_REF = "#/definitions/"
X_KEYS: Schema = {"^x-": {}}
FUNCTION = r"\.py:[A-Za-z_][A-Za-z0-9_]*$"
"""A function of a Python file next to the pipeline, as a step."""
_SHORT_TYPE = r"(str|int|float|bool|date|list\[.+\]|enum\[.+\])\s*\??"
SHORT_FORM: Schema = {
    "description": "A field's type (str, int, float, bool, date, list[str], enum[a, b]; a `?` at "
    "the end: or null), fields by their names, a list of one thing, or a label of a list.",
    "anyOf": [
        {"type": "string", "pattern": rf"^\s*{_SHORT_TYPE}\s*$"},
        {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"$ref": f"{_REF}short form"},
        },
        {"type": "array", "items": {"$ref": f"{_REF}short form"}, "minItems": 1, "maxItems": 1},
        {"$ref": f"{_REF}ChooseKeys"},
    ],
}
JSON_SCHEMA: Schema = {
    "description": "A JSON Schema.",
    "type": ["object", "boolean"],
    "anyOf": [
        {"required": [word]}
        for word in ("type", "enum", "const", "$ref", "anyOf", "oneOf", "allOf", "properties")
    ],
}


def pipeline_schema(
    step_params: Mapping[str, type[BaseModel]],
    trigger_keys: Mapping[str, type[BaseModel]] | None = None,
) -> Schema:
    """Return the schema; `trigger_keys` are those of the triggers that packages bring."""
    definitions: Schema = {}
    top = _table(FileKeys, definitions)
    properties = top["properties"]
    properties["inputs"]["additionalProperties"] = _either(
        _table(InputKeys, definitions), {"type": ["string", "number", "boolean", "array", "null"]}
    )
    properties["models"]["additionalProperties"] = _either(
        _table(ModelKeys, definitions), {"type": "string"}
    )
    properties["secrets"]["additionalProperties"] = _table(SecretKeys, definitions)
    tables: dict[str, type[Keys]] = {"defaults": ControlKeys, "on": OnKeys}
    tables |= {"concurrency": ConcurrencyKeys, "budget": BudgetKeys, "gold": GoldKeys}
    tables["compare"] = CompareKeys
    for name, table in tables.items():
        properties[name] = {**_description_of(properties[name]), **_table(table, definitions)}
    properties["on"]["additionalProperties"] = False
    for name, keys in (trigger_keys or {}).items():
        entry = _table(keys, definitions)
        properties["on"]["properties"][name] = _either(entry, {"type": "array", "items": entry})
    servers = {"type": "object", "additionalProperties": _table(McpServerKeys, definitions)}
    servers["patternProperties"] = X_KEYS
    properties["mcpServers"] = {
        **_description_of(properties["mcpServers"]),
        **_either(FILE_REFERENCE, {**servers, "not": {"required": ["file"]}}),
    }
    for name in ("inputs", "models", "secrets"):
        properties[name]["patternProperties"] = X_KEYS
    test = _table(TestKeys, definitions)
    single = {name: value for name, value in test.items() if name != "required"}
    properties["tests"] = {
        **_description_of(properties["tests"]),
        **_either({"type": "array", "items": test}, single),
    }
    properties["steps"]["items"] = {"$ref": f"{_REF}step"}
    definitions["step"] = _step(step_params, definitions)
    definitions["short form"] = SHORT_FORM
    definitions["ChooseKeys"] = _table(ChooseKeys, definitions)
    definitions["ReplyKeys"]["properties"]["schema"] |= _either(
        {"$ref": f"{_REF}short form"}, FILE_REFERENCE, JSON_SCHEMA
    )
    definitions["ReplyKeys"]["properties"]["check"] |= {"type": ["array", "string", "boolean"]}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Paddock pipeline",
        **top,
        "definitions": definitions,
    }


def _description_of(found: Schema) -> Schema:
    return {name: found[name] for name in ("description",) if name in found}


def _either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _table(table: type[BaseModel], definitions: Schema) -> Schema:
    """Return the schema of one type; inner types move to the shared definitions."""
    schema = table.model_json_schema(by_alias=True, ref_template=_REF + "{model}")
    for name, inner in schema.pop("$defs", {}).items():
        definitions[name] = _cleaned(inner)
    cleaned: Schema = _cleaned(schema)
    return cleaned


def _cleaned(found: Any) -> Any:
    """Return a schema without titles of types and fields, and without defaults of null."""
    if isinstance(found, list):
        return [_cleaned(item) for item in found]
    if not isinstance(found, dict):
        return found
    return {
        name: {key: _cleaned(item) for key, item in value.items()}
        if name == "properties"
        else _cleaned(value)
        for name, value in found.items()
        if not (name == "title" and isinstance(value, str)) and (name, value) != ("default", None)
    }


def _step(step_params: Mapping[str, type[BaseModel]], definitions: Schema) -> Schema:
    step = _table(StepKeys, definitions)
    names = [*step_params, *(alias for alias, name in STEP_ALIASES.items() if name in step_params)]
    step["properties"]["uses"] |= {
        "type": "string",
        **_either({"enum": sorted(names)}, {"pattern": FUNCTION}),
    }
    step["properties"]["do"] = {
        **_description_of(step["properties"]["do"]),
        "type": "array",
        "items": {"$ref": f"{_REF}step"},
    }
    step["oneOf"] = [{"required": [name]} for name in ("uses", "filter", "for_each")]
    step["dependentRequired"] = {"for_each": ["do"]}
    step["allOf"] = [_with(name, definitions, params) for name, params in step_params.items()]
    return step


def _with(name: str, definitions: Schema, params: type[BaseModel]) -> Schema:
    aliases = [alias for alias, of in STEP_ALIASES.items() if of == name]
    made = _table(params, definitions)
    made["properties"] = {
        key: _parameter(key, found) for key, found in made.get("properties", {}).items()
    }
    made["patternProperties"] = X_KEYS
    one_of = getattr(params, "one_of", ())
    if one_of:
        made["oneOf"] = [{"required": [key]} for key in one_of]
    definitions[f"with {name}"] = made
    then: Schema = {"properties": {"with": {"$ref": f"{_REF}with {name}"}}}
    if made.get("required") or one_of:
        then["required"] = ["with"]
    uses = {"enum": [name, *aliases]}
    return {"if": {"properties": {"uses": uses}, "required": ["uses"]}, "then": then}


def _parameter(name: str, found: Schema) -> Schema:
    """Allow an expression for any value, and a file for texts that may be one."""
    about = ("description", "default", "examples")
    kept: Schema = {key: found[key] for key in about if key in found}
    rest = {key: value for key, value in found.items() if key not in kept}
    alternatives = [rest]
    if not _accepts_text(rest):
        alternatives.append(EXPRESSION)
    if name in TEXT_OR_FILE_PARAMETERS and FILE_REFERENCE not in rest.get("anyOf", ()):
        alternatives.append(FILE_REFERENCE)
    return {**kept, **(rest if len(alternatives) == 1 else _either(*alternatives))}


def _accepts_text(found: Schema) -> bool:
    if found.get("type") == "string" and not {"enum", "pattern", "minLength"} & found.keys():
        return True
    return not found or any(_accepts_text(branch) for branch in found.get("anyOf", ()))
