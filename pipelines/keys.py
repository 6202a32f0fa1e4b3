"""Tables of keys of a pipeline file: names, types and descriptions, as Pydantic models.

They check one part of a file at a time and make the JSON Schema for editors. What shows only
across parts (ids, references, expressions) is checked in `model` and `plan`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from .e_invoices import InvoiceTerm
from .quantities import KeepAlive, Percentage, Seconds, Tokens
from .typed_rows import WrittenType

ID_PATTERN = r"^[a-z][a-z0-9_]*$"
STEP_ALIASES = {"summarize": "summarise"}


class Keys(BaseModel):
    """Base of the tables: unknown keys are faults, except those that begin with `x-`."""

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
        return without_x_keys(given) if isinstance(given, dict) else given


def without_x_keys(given: dict[str, Any]) -> dict[str, Any]:
    if not any(name.startswith("x-") for name in given):
        return given
    return {name: value for name, value in given.items() if not name.startswith("x-")}


def without_x_keys_nested(given: Any) -> Any:
    if isinstance(given, list):
        return [without_x_keys_nested(item) for item in given]
    if isinstance(given, dict):
        return {key: without_x_keys_nested(item) for key, item in without_x_keys(given).items()}
    return given


def _one_or_more(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


def list_or_text_schema(schema: dict[str, Any]) -> None:
    listed = {"type": schema.pop("type"), "items": schema.pop("items")}
    schema["anyOf"] = [listed, {"type": "string"}]


TextList: TypeAlias = Annotated[
    list[str], BeforeValidator(_one_or_more), Field(json_schema_extra=list_or_text_schema)
]
"""A list of texts, or one text alone."""

OnError: TypeAlias = Literal["quarantine", "fail", "skip"]
InputType: TypeAlias = Literal[
    "str", "int", "float", "bool", "path", "dir", "enum", "list", "json", "rows"
]
PositiveInt: TypeAlias = Annotated[int, Field(ge=1)]


def _as_list(given: Any) -> Any:
    return given if isinstance(given, list) else [given]


class RetryKeys(Keys):
    """When and how often a failed step is retried."""

    times: Annotated[int, Field(ge=0, le=100)] = Field(2, description="How many retries at most.")
    on: list[Literal["timeout", "worker", "busy", "io", "check"]] = Field(
        ["timeout", "worker", "busy"], description="Which failures are retried."
    )
    backoff: Seconds = Field(1.0, description="The first pause; it doubles each time.")


class TimeoutKeys(Keys):
    """Time limits of a request."""

    total: Seconds | None = Field(None, description="In all, without the time in the pool's queue.")
    idle: Seconds | None = Field(None, description="Without a new token.")


def _as_sources(given: Any) -> Any:
    if isinstance(given, list) or not isinstance(given, dict | None):
        return {"from": given}
    return given


def _or_sources_alone(schema: dict[str, Any]) -> None:
    """Allow the sources alone in place of a mapping, in the JSON Schema."""
    table = {**schema, "patternProperties": {"^x-": {}}}
    sources = table["properties"]["from"]["anyOf"]
    schema.clear()
    schema["anyOf"] = [*sources, table]


class EvidenceKeys(Keys):
    """The texts in which the fields of an answer are found."""

    model_config = ConfigDict(json_schema_extra=_or_sources_alone)

    from_: TextList = Field(
        alias="from",
        min_length=1,
        description="Bare expressions: a text, the outputs of `files.read`, hits of `search`.",
        examples=["steps.text"],
    )
    only: TextList = Field(
        [], description="The fields that are looked for; by default all but enumerations."
    )
    language: str = Field(
        "",
        pattern=r"[a-z]{2,3}|",
        description="The sources' language, such as `de`; by default it is recognised.",
        examples=["de"],
    )


class ChooseKeys(Keys):
    """A field whose value is a label of a list that a step, an input or a file has."""

    choose: str = Field(
        description="A bare expression: a list of texts, or of rows.", examples=["steps.tags.rows"]
    )
    by: str | None = Field(None, min_length=1, description="The column of rows with the label.")
    describe: str | None = Field(
        None, min_length=1, description="The column with what a label means, for the model to read."
    )
    unknown: str | None = Field(
        None, min_length=1, description="One label more, for what none of the list fits."
    )
    most: PositiveInt | None = Field(
        None, description="The field is a list of at most so many labels."
    )
    narrow: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="Where the whole list is too long for the prompt: how many labels, the nearest "
        "to the text by embeddings, may be chosen for it.",
    )
    relabel: Literal["affected", "all"] = Field(
        "affected",
        description="What a changed list makes stale: items whose label is gone or that a new one "
        "may fit, or all.",
    )

    @model_validator(mode="after")
    def _has_rows(self) -> ChooseKeys:
        if self.describe is not None and self.by is None:
            raise ValueError("`describe` needs `by`: only rows have columns")
        return self


class ReplyKeys(Keys):
    """What a model's answer must be."""

    schema_: Any = Field(
        None,
        alias="schema",
        description="The schema that the answer must match: JSON Schema, its short form such as "
        '{title: str, points: "list[str]"}, or {file: PATH}.',
    )
    check: Annotated[list[str | bool], BeforeValidator(_as_list)] = Field(
        [],
        json_schema_extra=list_or_text_schema,
        description="Bare expressions that must be true of the answer's `output` and `text`.",
        examples=["words(output.summary) <= 80"],
    )
    repair: Annotated[int, Field(ge=0, le=8)] = Field(
        1, description="How often, at most, the model is asked again with what is wrong."
    )
    evidence: Annotated[EvidenceKeys | None, BeforeValidator(_as_sources)] = Field(
        None,
        description="The texts in which each field of the answer is found: the step's `evidence` "
        "has its quote and place.",
        examples=["steps.text"],
    )
    readings: dict[str, InvoiceTerm] = Field(
        {},
        description="Fields that an e-invoice states, each with its term there; sure where page "
        "and sums agree, so that `review: {when: unsure}` does not ask.",
        examples=[{"total": "payable"}],
    )
    confidence: bool = Field(
        False, description="The step's `confidence` has the probability of each field."
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> ReplyKeys:
        for name in ("evidence", "readings", "confidence"):
            if getattr(self, name) and self.schema_ is None:
                raise ValueError(
                    f"`{name}` needs `schema`: it is known for each field of an answer"
                )
        if self.schema_ is None and not self.check:
            raise ValueError("`reply` needs `schema`, or `check`, or both")
        return self


class ReviewKeys(Keys):
    """When a person looks at an answer before anything is made of it."""

    when: str | bool = Field(
        True,
        description="A bare expression over `output`, `text`, `confidence`, `evidence` and what "
        "the step sees; where it is true, the item waits for a decision.",
        examples=["confidence.low < 0.8 or evidence.missing or evidence.partial"],
    )
    also: Annotated[Percentage, Field(gt=0)] | None = Field(
        None,
        description="A random share of the answers for which `when` is false, to be asked about as "
        "well; without `when`, of all answers.",
        examples=["5%"],
    )
    by: TextList = Field([], description="The names of those who may decide; by default everyone.")
    ttl: Seconds | None = Field(
        None, gt=0, description="How long it waits; by default for ever.", examples=["14d"]
    )
    on_expiry: Literal["quarantine", "accept", "skip"] = Field(
        "quarantine", description="What the next run does with an item that no one decided in time."
    )

    @model_validator(mode="after")
    def _also_leaves_some(self) -> ReviewKeys:
        if self.also is not None and self.condition is True:
            raise ValueError(
                "`when: true` asks about every answer; remove `also`, or change `when`"
            )
        return self

    @property
    def condition(self) -> str | bool:
        is_given = "when" in self.model_fields_set
        return self.when if is_given or self.also is None else False


class EscalateKeys(Keys):
    """Which answers another model gives in place of the step's own."""

    to: str = Field(
        min_length=1, description="The name of that model, under `models`.", examples=["big"]
    )
    when: str | bool = Field(
        description="A bare expression, as that of `review`, over the answer of the step's own "
        "model; where it is true, or that answer fails its checks, the other model is asked the "
        "same, and its answer is the step's.",
        examples=["confidence.low < 0.8 or evidence.missing or evidence.partial"],
    )
    also: Annotated[Percentage, Field(gt=0)] | None = Field(
        None,
        description="A random share of the other answers, of which the larger model is asked, too: "
        "how often does it say something else?",
        examples=["2%"],
    )


class ControlKeys(Keys):
    """What `defaults` may set for every step."""

    retry: RetryKeys | None = Field(
        None, description="When and how often a failed step is retried."
    )
    timeout: TimeoutKeys | None = Field(None, description="Time limits of a request.")
    cache: Literal["auto", "off"] | None = Field(
        None, description="`off`: never use a recorded reply."
    )
    max_parallel: PositiveInt | None = Field(
        None, description="How many items of a `for_each` run at once, at most."
    )
    on_error: OnError | None = Field(
        None, description="What happens when an item of a `for_each` fails."
    )


class StepKeys(ControlKeys):
    """One step, or a block of steps that runs once for each item."""

    id: str | None = Field(
        None, pattern=ID_PATTERN, description="The name by which other steps refer to it."
    )
    uses: str | None = Field(None, description="What the step does.", min_length=1)
    filter: str | dict[Literal["file"], str] | None = Field(
        None,
        description="In place of `uses`: a yes/no question to a model about the item, with the "
        "text that it is about, or {file: PATH}; an item that gets a no ends there, without a "
        "result. What is not sure waits for review.",
        examples=["Is this a bill? {{ steps.text.text }}"],
    )
    with_: dict[str, Any] = Field({}, alias="with", description="The step's own parameters.")
    needs: TextList = Field([], description="Ids of steps to wait for, where no reference says so.")
    if_: str | bool | None = Field(
        None, alias="if", description="A bare expression; the step is skipped where it is false."
    )
    for_each: str | None = Field(
        None, description="`NAME in EXPRESSION`: runs `do` once for each.", examples=["doc in …"]
    )
    do: list[Any] | None = Field(None, description="The steps that run for each item.")
    where: str | bool | None = Field(
        None,
        description="A bare expression over an item: `do` runs only for items where it is true.",
        examples=["doc.size > 0"],
    )
    key: str | None = Field(None, description="A bare expression: the item's stable name.")
    returns: Any = Field(None, description="Bare expressions: outputs in place of the step's own.")
    reply: ReplyKeys | None = Field(
        None, description="What the model's answer must be: schema and checks."
    )
    escalate: EscalateKeys | None = Field(
        None, description="The larger model that answers where the step's own is not sure enough."
    )
    review: ReviewKeys | None = Field(
        None, description="When the answer waits for a person, who decides, and for how long."
    )


class InputKeys(Keys):
    """A value that the caller passes."""

    type: InputType | None = Field(None, description="The type of the value.")
    default: Any = Field(None, description="The value if the caller passes none.")
    required: bool | None = Field(None, description="The caller must pass it.")
    values: list[Any] = Field([], description="The values that an enum may have.")
    min: float | None = Field(None, description="The smallest number.")
    max: float | None = Field(None, description="The largest number.")
    description: str = Field("", description="What it is for.")
    secret: bool = Field(False, description="Never printed, never stored.")
    columns: dict[str, WrittenType] = Field(
        {}, description="The columns of rows and their types; others are left out."
    )
    table: str = Field("", description="Which table of a file: of XLSX a sheet, table or cells.")

    @model_validator(mode="after")
    def _fits_together(self) -> InputKeys:
        if self.type != "rows" and (self.columns or self.table):
            raise ValueError("`columns` and `table` belong to `type: rows`")
        if self.type == "rows" and not isinstance(self.default, str | None):
            raise ValueError("the default of `type: rows` is the path of a table")
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
    prefect: str | None = Field(
        None,
        pattern=r"^(secret|variable)/[^/]+$",
        description="The Secret block or Variable that has it, on the Prefect server of a run.",
        examples=["secret/api-key", "variable/api_key"],
    )

    @model_validator(mode="after")
    def _one_source(self) -> SecretKeys:
        if [self.env, self.file, self.prefect].count(None) != 2:
            raise ValueError("give exactly one of `env`, `file` and `prefect`")
        return self


class PoolKeys(Keys):
    """A remote pool: one server, or several that share the work."""

    url: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_one_or_more)] = (
        Field(
            min_length=1,
            description="Its address, or several: OpenAI-compatible servers, or Paddock.",
            examples=["http://gpu-1:8000"],
        )
    )
    key: str | None = Field(None, description="The API key.", examples=["{{ secrets.gpu_key }}"])
    tokenizer: str | None = Field(
        None,
        min_length=1,
        description="A stored model or GGUF file to count tokens with, if the server cannot.",
    )


class ModelKeys(Keys):
    """A model and its settings in this pipeline."""

    ref: str = Field(
        min_length=1,
        description="A stored name, the path of a GGUF file, or hf:owner/repo/file.gguf.",
        examples=["smollm2:135m"],
    )
    ctx: Tokens | None = Field(None, ge=1, description="How many tokens a request may fill.")
    keep_alive: KeepAlive | None = Field(None, description="How long it stays loaded.")
    role: Literal["chat", "embed"] = Field("chat", description="What it is used for.")
    params: dict[str, Any] = Field(
        {}, description="Sampling parameters; those of a step take precedence."
    )
    think: Literal["keep", "drop"] | None = Field(
        None, description="What happens to its reasoning."
    )
    pool: PoolKeys | None = Field(None, description="Where it is served, if not on this machine.")


class FileKeys(Keys):
    """A pipeline file as a whole."""

    pipeline: Literal[1] = Field(1, description="The language's version.")
    name: str = Field("", description="The pipeline's name; by default the file's.")
    description: str = Field("", description="What it is for.")
    inputs: dict[str, Any] = Field({}, description="What the caller passes.")
    models: dict[str, Any] = Field({}, description="Models by the names that steps use.")
    secrets: dict[str, Any] = Field(
        {}, description="Values from the environment or from files; never printed, never stored."
    )
    defaults: Any = Field({}, description="Control keys for every step that does not set them.")
    on: Any = Field(None, description="What starts runs automatically.")
    concurrency: Any = Field(None, description="How runs share this machine.")
    budget: Any = Field(None, description="What a run may cost.")
    mcpServers: dict[str, Any] = Field(
        {}, description="MCP servers by their names, or `{file: mcp.json}`."
    )
    code: list[str] | None = Field(
        None,
        description="Globs of the files beside it that its programs load: what consent covers, in "
        "place of all in its folder. An empty list: none.",
        examples=[["scripts/**"]],
    )
    steps: list[Any] = Field(description="The steps.", min_length=1)
    returns: Any = Field(None, description="Bare expressions: the outputs of a run.")
    tests: list[Any] | dict[str, Any] = Field(
        [], description="Runs with known inputs; a table is a single test, as of a data set."
    )
    gold: Any = Field(None, description="What is right, for `paddock compare`.")
    compare: Any = Field(None, description="What `paddock compare` varies without its options.")


class SamplingParams(BaseModel):
    """`params` of a step or a model; the model's defaults apply to what is left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float | None = Field(
        default=None,
        ge=0,
        le=5,
        description="0 always takes the likeliest token; higher is more random.",
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Sample from the likeliest tokens with this total probability.",
    )
    top_k: int | None = Field(
        default=None, ge=0, description="Sample from this many of the likeliest tokens; 0 for all."
    )
    min_p: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Exclude tokens below this share of the likeliest one's probability.",
    )
    repeat_penalty: float | None = Field(
        default=None, gt=0, le=5, description="Above 1 makes recent tokens less likely."
    )
    presence_penalty: float | None = Field(
        default=None, ge=-2, le=2, description="Above 0 makes tokens that occurred less likely."
    )
    frequency_penalty: float | None = Field(
        default=None,
        ge=-2,
        le=2,
        description="Above 0 makes tokens less likely each time they occur.",
    )
    seed: int | None = Field(
        default=None, ge=0, le=2**32 - 1, description="The same seed gives the same answer."
    )
    stop: str | list[str] | None = Field(
        default=None, description="Texts at which the answer ends."
    )
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="The longest answer in tokens; then an answer that ends there is not an error.",
    )
    num_predict: int | None = Field(
        default=None, ge=1, description="Another name for `max_tokens`."
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_free_keys(cls, given: Any) -> Any:
        return without_x_keys(given) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _one_limit(self) -> SamplingParams:
        if self.max_tokens is not None and self.num_predict is not None:
            raise ValueError("give `max_tokens` or `num_predict`, not both: they mean the same")
        return self

    def given(self) -> dict[str, Any]:
        """Return what the author set, under the names of `engine.request.Sampling`."""
        values = self.model_dump(exclude_none=True)
        if "num_predict" in values:
            values["max_tokens"] = values.pop("num_predict")
        return values
