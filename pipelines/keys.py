"""The base of every table of keys, and the small types that several tables share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

ID_PATTERN = r"^[a-z][a-z0-9_]*$"


class Keys(BaseModel):
    """Unknown keys are faults; those that begin with `x-` are free."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        defer_build=True,
        json_schema_extra={"patternProperties": {"^x-": {}}},
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_free_keys(cls, given: Any) -> Any:
        return without_free(given) if isinstance(given, dict) else given


def without_free(given: dict[str, Any]) -> dict[str, Any]:
    """Leave out the keys that begin with `x-`."""
    if not any(name.startswith("x-") for name in given):
        return given
    return {name: value for name, value in given.items() if not name.startswith("x-")}


def without_free_within(given: Any) -> Any:
    """Leave out the keys that begin with `x-`, at any depth."""
    if isinstance(given, list):
        return [without_free_within(item) for item in given]
    if isinstance(given, dict):
        return {key: without_free_within(item) for key, item in without_free(given).items()}
    return given


def _one_or_more(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


def or_one_text(schema: dict[str, Any]) -> None:
    """Tell an editor that one text may stand in place of a list of them."""
    listed = {"type": schema.pop("type"), "items": schema.pop("items")}
    schema["anyOf"] = [listed, {"type": "string"}]


Words: TypeAlias = Annotated[
    list[str],
    BeforeValidator(_one_or_more),
    Field(json_schema_extra=or_one_text),
]
"""A list of texts, or one text alone."""

OnError: TypeAlias = Literal["quarantine", "fail", "skip"]
InputType: TypeAlias = Literal["str", "int", "float", "bool", "path", "dir", "enum", "list", "json"]
Count: TypeAlias = Annotated[int, Field(ge=1)]
