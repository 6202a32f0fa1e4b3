"""The tables of a pipeline file: names, types and descriptions of every key that LANGUAGE lists.

They check one part of a file at a time and make the JSON Schema for editors. What only shows
across parts (ids, references, expressions) is checked in `model` and `plan`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from .keys import ID_PATTERN, Count, InputType, Keys, OnError, Words, or_one_text
from .quantities import KeepAlive, Seconds, Tokens


def _in_a_list(given: Any) -> Any:
    return given if isinstance(given, list) else [given]


class Retry(Keys):
    """How often a step is tried again."""

    times: Annotated[int, Field(ge=0, le=100)] = Field(2, description="How often, at most.")
    on: list[Literal["timeout", "worker", "busy", "io", "check"]] = Field(
        ["timeout", "worker", "busy"], description="After which failures."
    )
    backoff: Seconds = Field(1.0, description="The first pause; each further one is twice as long.")


class Timeout(Keys):
    """The longest that a request may take."""

    total: Seconds | None = Field(
        None, description="Counted from when the pool takes the request, not from its queue."
    )
    idle: Seconds | None = Field(None, description="The longest time without a new token.")


class ReplyKeys(Keys):
    """What a model's answer must be."""

    schema_: Any = Field(
        None,
        alias="schema",
        description="The form of the answer, which can then be no other: JSON Schema, its short "
        'form such as {title: str, points: "list[str]"}, or {file: PATH}.',
    )
    check: Annotated[list[str | bool], BeforeValidator(_in_a_list)] = Field(
        [],
        json_schema_extra=or_one_text,
        description="Bare expressions that must be true of the answer's `output` and `text`.",
        examples=["words(output.summary) <= 80"],
    )
    repair: Annotated[int, Field(ge=0, le=8)] = Field(
        1, description="How often, at most, what is wrong is told to the model, to answer anew."
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> ReplyKeys:
        if self.schema_ is None and not self.check:
            raise ValueError("`reply` needs `schema`, or `check`, or both")
        return self


class Controls(Keys):
    """What `defaults` may set for every step."""

    retry: Retry | None = Field(None, description="How often a step is tried again.")
    timeout: Timeout | None = Field(None, description="The longest that a request may take.")
    cache: Literal["auto", "off"] | None = Field(
        None, description="`off`: never take a recorded reply."
    )
    max_parallel: Count | None = Field(
        None, description="How many items of a `for_each` are worked on at once, at most."
    )
    on_error: OnError | None = Field(
        None, description="What the failure of one item of a `for_each` does to the others."
    )


class StepKeys(Controls):
    """One step, or a block of steps that runs once for each item."""

    id: str | None = Field(
        None, pattern=ID_PATTERN, description="The name by which others refer to it."
    )
    uses: str | None = Field(None, description="What the step does.", min_length=1)
    with_: dict[str, Any] = Field({}, alias="with", description="The step's own parameters.")
    needs: Words = Field([], description="Ids of steps to wait for where no reference shows it.")
    if_: str | bool | None = Field(
        None, alias="if", description="A bare expression; the step is skipped where it is false."
    )
    for_each: str | None = Field(
        None, description="`NAME in EXPRESSION`: runs `do` once for each.", examples=["doc in …"]
    )
    do: list[Any] | None = Field(None, description="The steps that run for each item.")
    where: str | bool | None = Field(
        None,
        description="A bare expression over an item: `do` runs only for those for which it holds.",
        examples=["doc.size > 0"],
    )
    key: str | None = Field(None, description="A bare expression: the item's stable name.")
    returns: Any = Field(None, description="Bare expressions: what the step gives instead.")
    reply: ReplyKeys | None = Field(
        None, description="What the model's answer must be, in its form and by checks."
    )


class InputKeys(Keys):
    """A value that the caller gives."""

    type: InputType | None = Field(None, description="What kind of value it is.")
    default: Any = Field(None, description="The value where the caller gives none.")
    required: bool | None = Field(None, description="The caller must give it.")
    values: list[Any] = Field([], description="The values that an enum may have.")
    min: float | None = Field(None, description="The least number.")
    max: float | None = Field(None, description="The greatest number.")
    description: str = Field("", description="What it is for.")
    secret: bool = Field(False, description="Never printed, never stored.")

    @model_validator(mode="after")
    def _fits_together(self) -> InputKeys:
        if self.type == "enum" and not self.values:
            raise ValueError("an enum needs `values`")
        if self.values and self.type not in ("enum", None):
            raise ValueError("`values` belong to `type: enum`")
        if self.type not in ("int", "float") and not (self.min is None and self.max is None):
            raise ValueError("`min` and `max` belong to `type: int` and `type: float`")
        return self


class SecretKeys(Keys):
    """A value that is read when a run begins; never printed, never stored."""

    env: str | None = Field(
        None,
        min_length=1,
        description="The environment variable that has it.",
        examples=["API_KEY"],
    )
    file: str | None = Field(None, min_length=1, description="The file that has it.")

    @model_validator(mode="after")
    def _one_source(self) -> SecretKeys:
        if (self.env is None) == (self.file is None):
            raise ValueError("give exactly one of `env` and `file`")
        return self


def _several(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


class PoolKeys(Keys):
    """Another pool than this machine's: one server, or several that share the work."""

    url: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_several)] = Field(
        min_length=1,
        description="Its address, or several; any server of OpenAI's API, or of Paddock.",
        examples=["http://gpu-1:8000"],
    )
    key: str | None = Field(
        None, description="What it asks for.", examples=["{{ secrets.gpu_key }}"]
    )
    tokenizer: str | None = Field(
        None,
        min_length=1,
        description="A stored model or a GGUF file to count with where the server cannot.",
    )


def _just_ref(given: Any) -> Any:
    return {"ref": given} if isinstance(given, str) else given


class ModelKeys(Keys):
    """A model, as this pipeline wants it."""

    ref: str = Field(
        min_length=1,
        description="A stored name, the path of a GGUF file, or hf:owner/repo/file.gguf.",
        examples=["smollm2:135m"],
    )
    ctx: Tokens | None = Field(None, ge=1, description="How many tokens a request may fill.")
    keep_alive: KeepAlive | None = Field(None, description="How long it stays loaded.")
    role: Literal["chat", "embed"] = Field("chat", description="What it is asked to do.")
    params: dict[str, Any] = Field({}, description="How it chooses tokens, unless a step says so.")
    think: Literal["keep", "drop"] | None = Field(
        None, description="What happens to its reasoning."
    )
    pool: PoolKeys | None = Field(None, description="Where it is served, if not here.")


Model = Annotated[ModelKeys, BeforeValidator(_just_ref)]


class FileKeys(Keys):
    """A pipeline file as a whole."""

    pipeline: Literal[1] = Field(1, description="The language's version.")
    name: str = Field("", description="The pipeline's name; by default the file's.")
    description: str = Field("", description="What it is for.")
    inputs: dict[str, Any] = Field({}, description="What the caller gives.")
    models: dict[str, Any] = Field({}, description="Models by the names that steps use.")
    secrets: dict[str, Any] = Field(
        {}, description="Values from the environment or from files; never printed, never stored."
    )
    defaults: Any = Field({}, description="Control keys for every step that does not set them.")
    on: Any = Field(None, description="What starts the pipeline by itself.")
    concurrency: Any = Field(None, description="How runs share the machine.")
    budget: Any = Field(None, description="What a run may cost.")
    mcpServers: dict[str, Any] = Field(
        {}, description="MCP servers by their names, or `{file: mcp.json}`."
    )
    steps: list[Any] = Field(description="What is done.", min_length=1)
    returns: Any = Field(None, description="Bare expressions: what a run gives.")
    tests: list[Any] = Field([], description="Runs with known inputs.")
