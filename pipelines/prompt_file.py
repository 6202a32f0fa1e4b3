"""A `.prompt.yml` file, as GitHub Models has them: a conversation with variables, and its tests.

Its messages are read as texts with `{{variable}}` in them and no other expressions. Knows no
model; the name of one that the file holds is told to whoever asks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from . import source
from .checks import Checks
from .errors import PipelineError
from .keys import Keys

SUFFIXES = (".prompt.yml", ".prompt.yaml")
_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")
_MARKS = re.compile(r"\{\{|\{%|\{#")


def is_prompt_file(name: str) -> bool:
    """Tell whether a file's name says that it is one."""
    return name.lower().endswith(SUFFIXES)


class _Foreign(Keys):
    """A table of another's format: what it has besides is left alone."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class ModelParameters(_Foreign):
    """How the model chooses tokens."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    temperature: float | None = None
    top_p: float | None = Field(None, alias="topP")
    max_tokens: int | None = Field(None, alias="maxTokens")
    max_completion_tokens: int | None = Field(None, alias="maxCompletionTokens")
    frequency_penalty: float | None = Field(None, alias="frequencyPenalty")
    presence_penalty: float | None = Field(None, alias="presencePenalty")
    seed: int | None = None
    stop: list[str] | str | None = None

    def given(self) -> dict[str, Any]:
        """Give what is set, by the names that steps use."""
        found = self.model_dump(exclude_none=True)
        limit = found.pop("max_completion_tokens", None)
        if limit is not None:
            found.setdefault("max_tokens", limit)
        if isinstance(found.get("stop"), str):
            found["stop"] = [found["stop"]]
        return found


class Turn(_Foreign):
    """One message."""

    role: Literal["system", "user", "assistant"]
    content: str

    @field_validator("role", mode="before")
    @classmethod
    def _in_small_letters(cls, given: Any) -> Any:
        given = given.lower() if isinstance(given, str) else given
        return "system" if given == "developer" else given


class StringEvaluator(_Foreign):
    """What the answer must say."""

    equals: str | None = None
    contains: str | None = None
    starts_with: str | None = Field(None, alias="startsWith")
    ends_with: str | None = Field(None, alias="endsWith")

    @model_validator(mode="after")
    def _something(self) -> StringEvaluator:
        if not any((self.equals, self.contains, self.starts_with, self.ends_with)):
            raise ValueError("give `equals`, `contains`, `startsWith` or `endsWith`")
        return self


class Choice(_Foreign):
    """One answer that a judge may give, and what it counts."""

    choice: str
    score: float


class LlmEvaluator(_Foreign):
    """A model that judges; it passes where the choice counts more than nothing."""

    prompt: str
    choices: list[Choice] = Field(min_length=1)
    model_id: str = Field("", alias="modelId")
    system_prompt: str = Field("", alias="systemPrompt")


class Evaluator(_Foreign):
    """One thing that is looked at in every answer."""

    name: str = ""
    string: StringEvaluator | None = None
    llm: LlmEvaluator | None = None
    uses: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Evaluator:
        if sum(way is not None for way in (self.string, self.llm, self.uses)) != 1:
            raise ValueError("give exactly one of `string`, `llm` and `uses`")
        return self


class PromptFile(_Foreign):
    """A whole file."""

    name: str = ""
    description: str = ""
    model: str = ""
    parameters: ModelParameters = Field(
        default_factory=lambda: ModelParameters.model_validate({}), alias="modelParameters"
    )
    response_format: Literal["text", "json_object", "json_schema"] | None = Field(
        None, alias="responseFormat"
    )
    json_schema: str | dict[str, Any] | None = Field(None, alias="jsonSchema")
    messages: list[Turn] = Field(min_length=1)
    test_data: list[dict[str, Any]] = Field([], alias="testData")
    evaluators: list[Evaluator] = Field([])

    @property
    def schema_of_answer(self) -> Any:
        """The JSON Schema that answers must match; None where they are free text."""
        if self.response_format == "json_object":
            return {"type": "object"}
        if self.response_format != "json_schema" or self.json_schema is None:
            return None
        told = self.json_schema
        data = json.loads(told) if isinstance(told, str) else told
        return data.get("schema", data)

    @property
    def variables(self) -> tuple[str, ...]:
        """The names that the messages read, in their order."""
        found = (name for turn in self.messages for name in _VARIABLE.findall(turn.content))
        return tuple(dict.fromkeys(found))

    @model_validator(mode="after")
    def _sound_schema(self) -> PromptFile:
        if self.response_format == "json_schema":
            if self.json_schema is None:
                raise ValueError("`responseFormat: json_schema` needs `jsonSchema`")
            try:
                found = self.schema_of_answer
            except ValueError as error:
                raise ValueError(f"`jsonSchema` is no JSON: {error}") from error
            if not isinstance(found, Mapping):
                raise ValueError("`jsonSchema` must be a mapping with `name` and `schema`")
        return self


def read(text: str, file: str) -> PromptFile:
    """Read a file's text.

    Raises:
        PipelineError: with every fault.
    """
    return read_document(source.parse(text, file))


def read_document(document: source.Document) -> PromptFile:
    """Read a document.

    Raises:
        PipelineError: with every fault.
    """
    checks = Checks(document)
    if isinstance(document.data, dict):
        made = checks.table(PromptFile, document.data, ())
        if made is not None:
            return made
    else:
        checks.add((), "a .prompt.yml is a mapping with the key `messages`", "Begin with it.")
    raise PipelineError(checks.faults)


def as_template(text: str) -> str:
    """Write a message as a template: its variables, and nothing else that is an expression.

    >>> as_template("Sum up {{ input }}, as {% raw %} or {{#if x}}")
    "Sum up {{ input }}, as {{ '{%' }} raw %} or {{ '{{' }}#if x}}"
    """
    parts, at = [], 0
    for found in _VARIABLE.finditer(text):
        parts += [literal(text[at : found.start()]), found[0]]
        at = found.end()
    return "".join([*parts, literal(text[at:])])


def literal(text: str) -> str:
    """Write a text as a template that renders to it."""
    return _MARKS.sub(lambda found: "{{ '" + found[0] + "' }}", text)
