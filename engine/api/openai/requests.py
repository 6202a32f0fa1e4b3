"""OpenAI requests: body, model, sampling, format, tools.

What is wrong raises InvalidValue, which names the field by its path and the type that was found.

Chat, completions and Responses have the same names but for a few. A value that the request lacks
comes from the model's own defaults, then from OpenAI's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from paddock.engine.api.body_models import (
    Body,
    Items,
    Needed,
    Tree,
    Whole,
    invalid_value,
    parameter,
    refused,
    shown,
    within,
)
from paddock.engine.api.errors import InvalidValue
from paddock.engine.api.request_log import note_without_effect
from paddock.engine.api.streaming import nanoseconds
from paddock.engine.chat.known_templates import jinja_template
from paddock.engine.models.model_names import parse_name
from paddock.engine.request import (
    EFFORTS,
    ChatRequest,
    Constraint,
    Message,
    ModelSpec,
    Priority,
    Role,
    Think,
    Tool,
    Usage,
    forced_call,
)
from paddock.engine.sampling.constraint_trials import MOST_GRAMMAR_CHARACTERS
from paddock.engine.sampling_values import INT32
from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.text import text_or_json


class OpenAIBody(Body):
    dialect = "openai"


OPENAI_DEFAULTS: Mapping[str, Any] = {"temperature": 1.0, "top_p": 1.0, "max_tokens": -1}
"""Used where neither the request nor the model has a value; -1: to the end of the context."""

MAX_CHOICES = 128
MAX_LOGPROBS = 20

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra"]


def _whole_context(n_tokens: int) -> int:
    if n_tokens != -1:
        raise refused("a prompt is cut to what fits the context (-1), not to a length of its own.")
    return n_tokens


class ModelBody(OpenAIBody):
    model: Needed
    truncate: bool = False
    truncate_prompt_tokens: Annotated[Whole, AfterValidator(_whole_context)] | None = None

    @property
    def truncates(self) -> bool:
        return self.truncate or self.truncate_prompt_tokens is not None

    def spec(self, role: Role) -> ModelSpec:
        return ModelSpec(model_ref(self.model), role)


def model_ref(model: str) -> str:
    """Return the pool's reference for a client's name of a model.

    Raises:
        InvalidName: it cannot be a model's name. The path of a file is none: clients may not read
            files of this machine.
    """
    name = parse_name(model)
    return name.short if model.lower().endswith(".gguf") else model


def reading_usage(usage: Usage) -> dict[str, int]:
    """Return the usage of a request that only reads."""
    n_tokens, queue_duration = usage.prompt_tokens, nanoseconds(usage.queue_s)
    return {"prompt_tokens": n_tokens, "total_tokens": n_tokens, "queue_duration": queue_duration}


Limit = Annotated[Whole, Field(ge=1, le=INT32)]
OpenLimit = Annotated[Whole, Field(ge=-1, le=INT32)]
"""A number of tokens; -1, as in other servers: to the end of the context; 0: only the prompt."""


class _Reasoning(OpenAIBody):
    effort: Effort | None = None


_ConstraintKind = Literal["json", "json_object", "regex", "choice", "grammar"]
_CONSTRAINT_KINDS: Mapping[str, _ConstraintKind] = {
    "grammar": "grammar",
    "json_schema": "json",
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
}


def constraint_of(kind: _ConstraintKind, value: Any, place: str) -> Constraint:
    """Return a constraint that a client wrote as a schema, a text or a list of texts."""
    if kind == "json_object":
        return Constraint("json")
    if kind == "json":
        return Constraint("json_schema", text_or_json(value))
    if kind == "grammar":
        if len(value) > MOST_GRAMMAR_CHARACTERS:
            most = f"the grammar has more than {MOST_GRAMMAR_CHARACTERS:,} characters"
            raise invalid_value(place, most)
        return Constraint("gbnf" if "::=" in value else "lark", value)
    return Constraint("regex", value if kind == "regex" else "|".join(map(re.escape, value)))


class _StructuredOutputs(OpenAIBody):
    json_: Tree | str | None = Field(None, alias="json")
    regex: str = ""
    choice: Annotated[Items[str], Field(min_length=1)] | None = None
    grammar: str = ""
    json_object: bool = False
    structural_tag: Literal[""] = ""
    whitespace_pattern: Literal[""] = ""
    disable_any_whitespace: bool = True


class _NamedSchema(OpenAIBody):
    strict: bool = True
    schema_: Tree = Field(alias="schema")


class ResponseFormat(OpenAIBody):
    """The form of an answer, of chat (nested `json_schema`) or Responses (flat)."""

    type: Literal["text", "json_object", "json_schema"]
    strict: bool = True
    json_schema: _NamedSchema | None = None
    schema_: Tree | None = Field(None, alias="schema")

    @model_validator(mode="after")
    def _has_schema(self) -> Self:
        if self.type == "json_schema" and self.schema_ is None and self.json_schema is None:
            raise refused("expected a JSON Schema as an object, as its `schema`.")
        return self

    def constraint(self) -> Constraint | None:
        if self.type == "text":
            return None
        schema = self.json_schema.schema_ if self.json_schema else self.schema_
        return constraint_of("json_object" if schema is None else "json", schema, "")


class SamplingBody(ModelBody):
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = within("top_p")
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    seed: Whole | None = within("seed")
    stop: Annotated[tuple[str, ...], parameter("stop")] | None = None
    logit_bias: Annotated[dict[int, float], parameter("logit_bias")] | None = None
    # Not OpenAI's, but sent by clients of local servers.
    top_k: Whole | None = within("top_k")
    repeat_last_n: Whole | None = within("repeat_last_n")
    min_p: float | None = within("min_p")
    typical_p: float | None = within("typical_p")
    repeat_penalty: float | None = within("repeat_penalty")
    repetition_penalty: float | None = within("repeat_penalty")
    """vLLM's: of the whole prompt and answer."""
    min_tokens: Whole | None = within("min_tokens")
    stop_token_ids: Items[Annotated[Whole, Field(ge=0, le=INT32)]] | None = None
    ignore_eos: bool | None = None
    guards_repetition: bool | None = None
    max_completion_tokens: OpenLimit | None = None
    max_output_tokens: OpenLimit | None = None
    max_tokens: OpenLimit | None = None
    n_predict: OpenLimit | None = None
    # Constraints, by llama-server's names and vLLM's, old and new.
    grammar: str = ""
    json_schema: Tree | None = None
    guided_json: Tree | str | None = None
    guided_regex: str = ""
    guided_choice: Annotated[Items[str], Field(min_length=1)] | None = None
    guided_grammar: str = ""
    structured_outputs: _StructuredOutputs | None = None
    stream: bool = False

    def sampling(self) -> dict[str, Any]:
        given = super().sampling()
        if self.repetition_penalty is not None:
            given["repeat_penalty"] = self.repetition_penalty
            given.setdefault("repeat_last_n", -1)
        return given

    def constraint(
        self, format_: ResponseFormat | None, place: str = "response_format"
    ) -> tuple[Constraint | None, str]:
        """Return what the answer must match, and the field that says it."""
        found: dict[str, Constraint] = {}
        if format_ is not None and (own := format_.constraint()) is not None:
            found[place] = own
        given: dict[str, tuple[_ConstraintKind, Any]] = {
            name: (kind, getattr(self, name)) for name, kind in _CONSTRAINT_KINDS.items()
        }
        if self.structured_outputs is not None:
            for kind in get_args(_ConstraintKind):
                value = getattr(self.structured_outputs, "json_" if kind == "json" else kind)
                given[f"structured_outputs.{kind}"] = (kind, value)
        for name, (kind, value) in given.items():
            if value is not None and (value or kind == "json"):
                found[name] = constraint_of(kind, value, name)
        if not found:
            return None, "tools"  # whose calls have forms, too
        names = [*found]
        if len(names) > 1:
            what = f"`{names[0]}` says what the answer must match already."
            raise invalid_value(names[1], what)
        if self.ignore_eos or self.min_tokens:
            other = "ignore_eos" if self.ignore_eos else "min_tokens"
            raise invalid_value(names[0], f"it says where the answer ends, and so does `{other}`.")
        return found[names[0]], names[0]


_FIXED_VARIABLES = frozenset(
    ("messages", "tools", "xml_tools", "functions", "datetime", "bos_token", "eos_token", "self",
     "add_generation_prompt", "turns", "is_open", "n_ctx_tokens")
)  # fmt: skip


def _own_variables(variables: dict[str, Any]) -> dict[str, Any]:
    for name in _FIXED_VARIABLES & variables.keys():
        raise refused(f"'{name}' follows from the other fields; leave it out.")
    return variables


class _Nested(OpenAIBody):
    """An object whose fields are in it, as in Responses, or nested under its type, as in chat."""

    @model_validator(mode="before")
    @classmethod
    def _nested(cls, value: Any) -> Any:
        kind = value.get("type") or "function" if isinstance(value, dict) else None
        if kind in ("function", "allowed_tools") and value.get(kind) is None:
            return {"type": kind, kind: {**value, "type": None}}
        return value


class _NamedFunction(OpenAIBody):
    name: Needed
    namespace: str = ""


class OfferedFunction(_NamedFunction):
    description: str = ""
    parameters: Tree = Field(default_factory=dict)
    strict: bool = False


_UNASKED_TOOLS = ("web_search", "image_generation", "tool_search")
"""Tools of OpenAI's servers that clients offer by themselves: a model that lacks them answers."""


def _supported(kind: str) -> str:
    if kind.startswith(_UNASKED_TOOLS):
        note_without_effect("tools", (kind,))
    elif kind not in ("function", "namespace"):
        how = "that does it" if kind != "custom" else "whose one parameter, a string, is the text"
        why = f"models here call functions only. Offer one {how}, and run it beside your client"
        raise refused(f"tools of type '{shown(kind)}' are not supported here: {why}.")
    return kind


class _OfferedTool(_Nested):
    type: Annotated[Needed, AfterValidator(_supported)]
    function: OfferedFunction | None = None


class _ToolOrNamespace(_OfferedTool):
    name: str = ""
    tools: Items[_OfferedTool] = ()


class _NamedTool(_Nested):
    type: Literal["function"]
    function: _NamedFunction


class _AllowedTools(OpenAIBody):
    mode: Literal["auto", "required"] = "auto"
    tools: Items[_NamedTool] = ()


class NamedToolChoice(_Nested):
    """Which tool must be called, or whether one may be."""

    type: Literal["none", "auto", "required", "function", "allowed_tools"]
    function: _NamedFunction | None = None
    allowed_tools: _AllowedTools | None = None


ToolChoice = Annotated[
    NamedToolChoice,
    BeforeValidator(lambda value: {"type": value} if isinstance(value, str) else value),
]


def qualified_name(namespace: str, name: str) -> str:
    """Return the name that a model sees of a tool in a namespace.

    >>> qualified_name("crm", "find"), qualified_name("mcp__crm__", "find"), qualified_name("", "a")
    ('crm__find', 'mcp__crm__find', 'a')
    """
    prefix = namespace if not namespace or namespace.endswith("__") else f"{namespace}__"
    return name if name.startswith(prefix) else prefix + name


class OfferedTools(Struct, frozen=True):
    tools: tuple[Tool, ...]
    choice: str = "auto"
    namespaces: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Namespace and own name of those that have one."""

    def find(self, named: _NamedFunction) -> Tool:
        """Return the tool of a name; without a namespace, that of the only one that has it."""
        found = []
        for tool in self.tools:
            namespace, name = self.namespaces.get(tool.name, ("", tool.name))
            if named.name in (tool.name, name) and named.namespace in ("", namespace):
                found.append(tool)
        if len(found) == 1:
            return found[0]
        known = ", ".join(f"'{tool.name}'" for tool in self.tools) or "none"
        what = "is not offered" if not found else "is offered by several namespaces"
        message = f"the tool '{shown(named.name)}' must be called, but {what}. Known: {known}."
        raise InvalidValue(message, "tool_choice.name")


class ApiCaller(Struct, frozen=True):
    """The caller's priority, and whether it waits where the queue is full."""

    priority: Priority = "interactive"
    waits: bool = False


class ToolsBody(SamplingBody):
    tools: Items[_ToolOrNamespace] = ()
    tool_choice: ToolChoice | None = None
    reasoning_effort: Effort | None = None
    reasoning: _Reasoning = _Reasoning()
    parallel_tool_calls: bool = True
    top_logprobs: Whole | None = Field(None, ge=0, le=MAX_LOGPROBS)
    chat_template: str | None = None
    chat_template_kwargs: Annotated[Tree, AfterValidator(_own_variables)] = Field(
        default_factory=dict
    )
    documents: Items[Tree] = ()

    @property
    def template_variables(self) -> dict[str, Any]:
        documents = {"documents": list(self.documents)} if self.documents else {}
        return {**self.chat_template_kwargs, **documents}

    @property
    def think(self) -> Think | None:
        """The reasoning effort: what templates have for it counts before `reasoning_effort`."""
        given, effort = self.chat_template_kwargs, self.reasoning_effort or self.reasoning.effort
        own = EFFORTS.get(effort or "")
        for name in ("enable_thinking", "thinking"):
            if isinstance(given.get(name), bool):
                return bool(given[name]) and (own or True)
        return EFFORTS.get(str(given.get("reasoning_effort")), own)

    def request(self, caller: ApiCaller, messages: tuple[Message, ...]) -> ChatRequest:
        offered = self.offered_tools()
        if offered.choice == "auto" and any(function.strict for _, function in self._functions()):
            note_without_effect("fields", ("strict",))  # only a demanded call is held to its schema
        return ChatRequest(
            self.spec("chat"),
            messages,
            self.sampling(),
            priority=caller.priority,
            tools=offered.tools,
            tool_choice=offered.choice,
            think=self.think,
            template=jinja_template(self.chat_template) if self.chat_template else None,
            template_variables=self.template_variables,
            reserves_answer=False,
            defaults=OPENAI_DEFAULTS,
        )

    def offered_tools(self) -> OfferedTools:
        by_name: dict[str, Tool] = {}
        namespaces: dict[str, tuple[str, str]] = {}
        for namespace, function in self._functions():
            name = qualified_name(namespace, function.name)
            if name in by_name and (namespace or name in namespaces):
                raise invalid_value("tools", f"two tools are called '{shown(name)}'.")
            by_name[name] = Tool(name, function.description, function.parameters)
            if namespace:
                namespaces[name] = (namespace, function.name)
        offered = OfferedTools(tuple(by_name.values()), namespaces=namespaces)
        found = self._choice()
        if found is None:
            return offered
        if found.function is not None:
            tools, choice = forced_call(offered.tools, offered.find(found.function).name)
            return replace(offered, tools=tools, choice=choice)
        tools, choice = offered.tools, str(found.type)
        if (allowed := found.allowed_tools) is not None:
            choice, names = allowed.mode, [offered.find(tool.function) for tool in allowed.tools]
            tools = tuple(tool for tool in tools if tool in names)
        if choice == "required" and not tools:
            message = "a tool must be called ('required'), but none is offered."
            raise InvalidValue(message, "tool_choice")
        return replace(offered, tools=tools, choice=choice)

    def _choice(self) -> NamedToolChoice | None:
        return self.tool_choice

    def _functions(self) -> Iterator[tuple[str, OfferedFunction]]:
        for outer in self.tools:
            if outer.function is not None:
                yield outer.function.namespace, outer.function
            for inner in outer.tools:
                if inner.function is not None:
                    yield outer.name, inner.function
