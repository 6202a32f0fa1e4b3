"""Ollama's chat templates in Go's language, and the data that they expect.

Names and rules are Ollama's (github.com/ollama/ollama, template/template.go). A template with
`.Messages` gets the whole conversation. Any other is executed once per exchange with `.System`,
`.Prompt` and `.Response`; output after the last `.Response` is dropped, because the model
continues there.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from paddock.engine.chat.go_template.go_values import GoJsonList, GoJsonMap, GoStruct, go_value_json
from paddock.engine.chat.go_template.interpreter import GoTemplate
from paddock.engine.chat.go_template.syntax import GoTemplateError, GoTemplateExhausted
from paddock.engine.errors import BadRequest
from paddock.engine.system.light_dataclasses import dataclass

from .template_messages import (
    MEDIA_MARK,
    TemplateExhausted,
    TemplateRefused,
    TemplateTurn,
    prompt_meter,
)


class OllamaTemplate:
    """One compiled template."""

    def __init__(self, source: str) -> None:
        self.source = source
        try:
            template = GoTemplate(source, _FUNCTIONS)
            if not template.names & {"Messages", "Response"}:
                template = template.with_field("Response")
        except GoTemplateError as error:
            raise BadRequest(f"the model's chat template cannot be read: {error}") from error
        self._template = template

    @property
    def names(self) -> frozenset[str]:
        """The fields that it uses, such as `Messages`, `Tools`, `Suffix`."""
        return self._template.names

    def render(
        self,
        turns: Sequence[TemplateTurn],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        is_open: bool = True,
        n_ctx_tokens: int = 0,
        **variables: Any,
    ) -> str:
        """Render a conversation.

        `is_open` has no effect: the last turn's role decides whether an answer begins or goes on.

        Raises:
            TemplateRefused: its execution fails.
        """
        fields = _thinking_fields(variables)
        joined = list(_joined_by_role(turns))
        meter = prompt_meter(n_ctx_tokens, turns, tools)
        try:
            if "Messages" in self.names:
                systems = [_content_text(turn) for turn in joined if turn["role"] == "system"]
                conversation_data = {
                    "System": "\n\n".join(systems),
                    "Messages": [_message_struct(turn) for turn in joined],
                    "Tools": GoJsonList(_tool_struct(tool) for tool in tools),
                    "Response": "",
                    **fields,
                }
                return self._template.execute(conversation_data, meter)
            *whole, last = _exchanges(joined)
            parts = [
                self._template.execute({**exchange.data(), **fields}, meter) for exchange in whole
            ]
            parts.append(self._template.execute_until("Response", {**last.data(), **fields}, meter))
            return "".join(parts)
        except GoTemplateError as error:
            raise _template_error(error) from error

    def render_insert(
        self, prompt: str, suffix: str, *, n_ctx_tokens: int = 0, **variables: Any
    ) -> str:
        """Render the texts before and after the answer, for a template with `.Suffix`.

        Raises:
            TemplateRefused: its execution fails.
        """
        fields = _thinking_fields(variables)
        try:
            return self._template.execute(
                {"Prompt": prompt, "Suffix": suffix, "Response": "", **fields},
                prompt_meter(n_ctx_tokens, prompt, suffix),
            )
        except GoTemplateError as error:
            raise _template_error(error) from error


def _template_error(error: GoTemplateError) -> TemplateRefused:
    kind = TemplateExhausted if isinstance(error, GoTemplateExhausted) else TemplateRefused
    return kind(str(error))


@dataclass(slots=True)
class _Exchange:
    """The data of one execution of an old template."""

    system: str = ""
    prompt: str = ""
    response: str = ""

    def data(self) -> dict[str, str]:
        return {"System": self.system, "Prompt": self.prompt, "Response": self.response}


def _exchanges(turns: Sequence[TemplateTurn]) -> Iterator[_Exchange]:
    """Group turns into exchanges; the last one is yielded even if it is empty."""
    exchange = _Exchange()
    for turn in turns:
        role, content = turn["role"], _content_text(turn)
        is_new = (role == "system" and (exchange.prompt or exchange.response)) or (
            role == "user" and exchange.response
        )
        if is_new:
            yield exchange
            exchange = _Exchange()
        if role == "system":
            exchange.system = content
        elif role == "user":
            exchange.prompt = content
        elif role == "assistant":
            exchange.response = content
    yield exchange


def _joined_by_role(turns: Sequence[TemplateTurn]) -> Iterator[TemplateTurn]:
    """Join neighbours of one role, except results of tools."""
    last: TemplateTurn | None = None
    for turn in turns:
        if last is None:
            last = turn
        elif last["role"] == turn["role"] != "tool":
            calls = [*(last.get("tool_calls") or ()), *(turn.get("tool_calls") or ())]
            both = "\n\n".join([_content_text(last), _content_text(turn)])
            last = {**last, "content": both, "tool_calls": calls}
        else:
            yield last
            last = turn
    if last is not None:
        yield last


def _content_text(turn: TemplateTurn) -> str:
    content = turn.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return content or ""


def _thinking_fields(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return Ollama's fields that switch reasoning."""
    effort = variables.get("reasoning_effort", "")
    is_on = bool(variables.get("enable_thinking", False)) or bool(effort)
    is_set = "enable_thinking" in variables
    return {"Think": is_on, "ThinkLevel": effort, "IsThinkSet": is_set}


def _message_struct(turn: TemplateTurn) -> GoStruct:
    content = _content_text(turn)
    calls = turn.get("tool_calls") or ()
    return GoStruct(
        "*api.Message",
        {
            "Role": turn["role"],
            "Content": content,
            "Thinking": turn.get("reasoning_content") or turn.get("thinking") or "",
            "Images": [MEDIA_MARK] * content.count(MEDIA_MARK),
            "ToolCalls": [_call_struct(call, number) for number, call in enumerate(calls)],
            "ToolName": turn.get("name") or "",
            "ToolCallID": turn.get("tool_call_id") or "",
        },
    )


def _call_struct(call: Mapping[str, Any], number: int) -> GoStruct:
    function = call["function"]
    arguments = function["arguments"]
    fields = {
        "Index": number,
        "Name": function["name"],
        "Arguments": GoJsonMap(arguments) if isinstance(arguments, Mapping) else arguments,
    }
    return GoStruct(
        "api.ToolCall",
        {"ID": call.get("id") or "", "Function": GoStruct("api.ToolCallFunction", fields)},
    )


def _tool_struct(tool: Mapping[str, Any]) -> GoStruct:
    function = tool["function"]
    parameters = function.get("parameters") or {}
    properties = parameters.get("properties") or {}
    fields = {
        "Name": function["name"],
        "Description": function.get("description") or "",
        "Parameters": GoStruct(
            "api.ToolFunctionParameters",
            {
                "Type": parameters.get("type", "object"),
                "Defs": parameters.get("$defs"),
                "Items": parameters.get("items"),
                "Required": parameters.get("required") or [],
                "Properties": GoJsonMap(
                    {key: _property_struct(subschema) for key, subschema in properties.items()}
                    if isinstance(properties, Mapping)
                    else {}
                ),
            },
            plain=parameters,
        ),
    }
    return GoStruct(
        "api.Tool",
        {
            "Type": tool.get("type", "function"),
            "Items": tool.get("items"),
            "Function": GoStruct("api.ToolFunction", fields, plain=function),
        },
        plain=tool,
    )


def _property_struct(schema: Any) -> Any:
    """Return one parameter's schema as Ollama's struct."""
    if not isinstance(schema, Mapping):
        return schema
    inner = schema.get("properties")
    return GoStruct(
        "api.ToolProperty",
        {
            "AnyOf": [_property_struct(subschema) for subschema in schema.get("anyOf") or ()],
            "Type": schema.get("type") or "",
            "Items": schema.get("items"),
            "Description": schema.get("description") or "",
            "Enum": schema.get("enum") or [],
            "Properties": GoJsonMap(
                {key: _property_struct(subschema) for key, subschema in inner.items()}
            )
            if isinstance(inner, Mapping)
            else None,
            "Required": schema.get("required") or [],
        },
        plain=schema,
    )


def _today(*_: Any, n_days_ago: int = 0) -> str:
    today = datetime.datetime.now().astimezone().date()
    return (today - datetime.timedelta(days=n_days_ago)).isoformat()


_TYPESCRIPT = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


def _typescript_type(value: Any) -> str:
    """Return a parameter's type in TypeScript."""
    if not isinstance(value, GoStruct) or value.type_name != "api.ToolProperty":
        return "any"
    if value.fields["AnyOf"]:
        return " | ".join(map(_typescript_type, value.fields["AnyOf"]))
    kinds = value.fields["Type"]
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return " | ".join(_TYPESCRIPT.get(str(kind), "any") for kind in kinds) or "any"


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "json": go_value_json,
    "currentDate": _today,
    "yesterdayDate": lambda *_: _today(n_days_ago=1),
    "toTypeScriptType": _typescript_type,
}
