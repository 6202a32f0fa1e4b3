"""Text parameters that name a file: templates, and conversations in `.prompt.yml` files.

A `.prompt.yml` file, as GitHub Models had them, holds messages with `{{variable}}` and no other
expressions, model parameters, and tests. A file must lie under the pipeline's folder. Knows no
model; the model's name in such a file is returned to the caller.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from paddock.engine.system.no_links import read_file
from paddock.engine.system.records import record, replace

from . import yaml_source
from .errors import PipelineError
from .expressions import TEMPLATE_START, ExpressionError, Template
from .keys import Keys
from .validation import FaultCollector

SUFFIXES = (".prompt.yml", ".prompt.yaml")
_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")


def is_prompt_file(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


class _ForeignKeys(Keys):
    """A table of a foreign format: unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class ModelParameters(_ForeignKeys):
    """Sampling parameters."""

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
        found = self.model_dump(exclude_none=True)
        limit = found.pop("max_completion_tokens", None)
        if limit is not None:
            found.setdefault("max_tokens", limit)
        if isinstance(found.get("stop"), str):
            found["stop"] = [found["stop"]]
        return found


class PromptMessage(_ForeignKeys):
    """One message."""

    role: Literal["system", "user", "assistant"]
    content: str

    @field_validator("role", mode="before")
    @classmethod
    def _in_small_letters(cls, given: Any) -> Any:
        given = given.lower() if isinstance(given, str) else given
        return "system" if given == "developer" else given


class StringEvaluator(_ForeignKeys):
    """What the answer must contain."""

    equals: str | None = None
    contains: str | None = None
    starts_with: str | None = Field(None, alias="startsWith")
    ends_with: str | None = Field(None, alias="endsWith")

    @model_validator(mode="after")
    def _something(self) -> StringEvaluator:
        if not any((self.equals, self.contains, self.starts_with, self.ends_with)):
            raise ValueError("give `equals`, `contains`, `startsWith` or `endsWith`")
        return self


class EvaluatorChoice(_ForeignKeys):
    """One possible answer of a judge, and its score."""

    choice: str
    score: float


class LlmEvaluator(_ForeignKeys):
    """A model that judges; a choice with a score above 0 passes."""

    prompt: str
    choices: list[EvaluatorChoice] = Field(min_length=1)
    model_id: str = Field("", alias="modelId")
    system_prompt: str = Field("", alias="systemPrompt")


class PromptEvaluator(_ForeignKeys):
    """One evaluator of every answer."""

    name: str = ""
    string: StringEvaluator | None = None
    llm: LlmEvaluator | None = None
    uses: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> PromptEvaluator:
        if sum(way is not None for way in (self.string, self.llm, self.uses)) != 1:
            raise ValueError("give exactly one of `string`, `llm` and `uses`")
        return self


class PromptFile(_ForeignKeys):
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
    messages: list[PromptMessage] = Field(min_length=1)
    test_data: list[dict[str, Any]] = Field([], alias="testData")
    evaluators: list[PromptEvaluator] = Field([])

    @property
    def schema_of_answer(self) -> Any:
        """The JSON Schema that answers must match; None for free text."""
        if self.response_format == "json_object":
            return {"type": "object"}
        if self.response_format != "json_schema" or self.json_schema is None:
            return None
        schema = self.json_schema
        data = json.loads(schema) if isinstance(schema, str) else schema
        return data.get("schema", data)

    @property
    def variables(self) -> tuple[str, ...]:
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
                raise ValueError(f"`jsonSchema` is not JSON: {error}") from error
            if not isinstance(found, Mapping):
                raise ValueError("`jsonSchema` must be a mapping with `name` and `schema`")
        return self


def prompt_file_of(document: yaml_source.YamlDocument) -> PromptFile:
    """Return a document as a prompt file.

    Raises:
        PipelineError: with every fault.
    """
    checks = FaultCollector(document)
    if isinstance(document.data, dict):
        prompt_file = checks.table(PromptFile, document.data, ())
        if prompt_file is not None:
            return prompt_file
    else:
        checks.add((), "a .prompt.yml is a mapping with the key `messages`", "Begin with it.")
    raise PipelineError(checks.faults)


def to_template(text: str) -> str:
    """Convert a message to a template in which only its variables are expressions.

    >>> to_template("Sum up {{ input }}, as {% raw %} or {{#if x}}")
    "Sum up {{ input }}, as {{ '{%' }} raw %} or {{ '{{' }}#if x}}"
    """
    parts = []
    at = 0
    for found in _VARIABLE.finditer(text):
        parts += [escape_template(text[at : found.start()]), found[0]]
        at = found.end()
    return "".join([*parts, escape_template(text[at:])])


def escape_template(text: str) -> str:
    return TEMPLATE_START.sub(lambda found: "{{ '" + found[0] + "' }}", text)


@record(slots=True, eq=False, repr=False)
class ConversationTemplate(Template):
    """A template with the text of all messages; `chat` takes them one by one."""

    turns: tuple[tuple[str, Template], ...]
    params: Mapping[str, Any]
    """Sampling parameters that the file sets."""
    schema: Any
    """The JSON Schema that the answer must match; None for free text."""

    @classmethod
    def read(cls, text: str, file: str, name: str) -> ConversationTemplate:
        """Parse a file's text; `name` is the file as written in the pipeline.

        Raises:
            ExpressionError: it is not a conversation; with the line.
        """
        try:
            found = prompt_file_of(yaml_source.parse_yaml(text, file))
        except PipelineError as error:
            fault = error.faults[0]
            line = f", line {fault.mark.line}" if fault.mark else ""
            message = f"in the file '{name}'{line}: {fault.message.rstrip('.')}"
            raise ExpressionError(message, fault.remedy) from None
        turns = tuple(
            (turn.role, Template.of(to_template(turn.content))) for turn in found.messages
        )
        params, schema = found.parameters.given(), found.schema_of_answer
        # All that decides an answer, as one text: part of the ledger's keys.
        written = [f"[{role}]\n{template.source}" for role, template in turns]
        settings = {"params": params, "schema": schema}
        extra = json.dumps({k: v for k, v in settings.items() if v}, sort_keys=True)
        whole = Template.of("\n".join([*written, *([to_template(extra)] if extra != "{}" else [])]))
        return cls(whole.source, whole._compiled, file, {}, turns, params, schema)

    def bound(self, scope: Mapping[str, Any]) -> ConversationTemplate:
        turns = tuple((role, template.bound(scope)) for role, template in self.turns)
        return replace(self, _scope=scope, turns=turns)


TEXT_OR_FILE_PARAMETERS: Mapping[str, frozenset[str]] = {
    "prompt": frozenset(),
    "template": frozenset(),
    "map": frozenset(("chunk", "index", "previous")),
    "reduce": frozenset(("notes",)),
    "system": frozenset(),
    "instructions": frozenset(),
    "schema": frozenset(),
}
"""Parameters of built-in steps that take text or a file, with the names they add."""

MAX_TEXT_FILE_BYTES = 1024 * 1024


def is_file_reference(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"file"}


def read_template_file(base: FilePath, name: Any) -> Template:
    """Read a template file; `name` is relative to `base`, and must lie under it.

    Raises:
        ExpressionError: it does not exist, lies elsewhere, or is not a template.
    """
    path = _path_under(base, name)
    text = _text_of_file(path, name)
    if is_prompt_file(name):
        return ConversationTemplate.read(text, str(path), name)
    try:
        return Template.of(text, str(path))
    except ExpressionError as error:
        line = f", line {error.line}" if error.line else ""
        raise ExpressionError(
            f"in the file '{name}'{line}: {error.message}", error.remedy
        ) from None


def read_raw_file(base: FilePath, name: Any) -> str:
    """Read a file's text; `name` is relative to `base`, and must lie under it.

    Raises:
        ExpressionError: it does not exist, or lies elsewhere.
    """
    return _text_of_file(_path_under(base, name), name)


def _path_under(base: FilePath, name: Any) -> FilePath:
    if not isinstance(name, str) or not name:
        raise ExpressionError("`file` must be the path of a file")
    if "{{" in name or "\0" in name:
        raise ExpressionError(
            f"the name of a template file must be a literal, not '{name}'",
            "Choose between files with `if` on two steps.",
        )
    root = base.resolve()
    try:
        path = (root / name).resolve()
    except (OSError, RuntimeError) as error:  # too long a name, a circle of symlinks
        raise ExpressionError(f"the file '{name[:60]}' cannot be used as a path") from error
    if not path.is_relative_to(root):
        raise ExpressionError(
            f"the file '{name}' lies outside the pipeline's folder", "Move or copy it there."
        )
    if any(part.casefold() == ".paddock" for part in path.relative_to(root).parts):
        raise ExpressionError(
            f"the file '{name}' lies in '.paddock', where Paddock keeps its own state",
            "Move or copy it elsewhere.",
        )
    return path


def _text_of_file(path: FilePath, name: str) -> str:
    try:
        raw = read_file(path, MAX_TEXT_FILE_BYTES)
    except FileNotFoundError:
        raise ExpressionError(
            f"there is no file '{name}'", "Paths are relative to the YAML; create or correct it."
        ) from None
    except OSError as error:
        why = error.strerror or str(error)
        raise ExpressionError(f"the file '{name}' cannot be read: {why}") from error
    if len(raw) > MAX_TEXT_FILE_BYTES:
        raise ExpressionError(f"the file '{name}' is larger than 1 MiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ExpressionError(f"the file '{name}' is not UTF-8 text", "Save it as UTF-8.") from None
