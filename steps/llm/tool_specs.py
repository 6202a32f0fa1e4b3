"""Tool specifications: the tools that a step offers to a model, and their names there.

Knows no conversation. Which tools exist, `Toolset` says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from paddock.engine.request import Tool
from paddock.steps.base import BoundTool, StepError, Toolset

MOST_TOOLS = 64
"""More fill a context with their descriptions, and no model chooses well among them."""
_MOST_NAME_CHARS = 64
_FUNCTION = re.compile(r"(.+\.py):[^:]+\Z")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]+")


class ToolParam(BaseModel):
    """A tool that a model may call, or all of a server's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = Field(
        default=None,
        min_length=1,
        description="A built-in or installed tool, FILE.py:FUNCTION, or a tool of the server.",
    )
    server: str | None = Field(
        default=None,
        min_length=1,
        description="One of `mcpServers`; without `name` all of its tools are offered.",
    )
    options: dict[str, Any] = Field(
        default={},
        description="What the model cannot change: `timeout`, `hosts` of http.get, `root` of "
        "files.read and files.search.",
    )

    @model_validator(mode="after")
    def _names_something(self) -> ToolParam:
        if self.name is None and self.server is None:
            raise ValueError("a tool needs `name`, `server` or both")
        return self


class AgentTool(ToolParam):
    """A tool that is called when the model asks for it."""

    allow: Literal["tainted"] | None = Field(
        default=None,
        description="`tainted`: it may be called, though it changes something, where the "
        "conversation holds text of documents or of other tools.",
    )


class ChatTool(ToolParam):
    """A tool that the model may ask for; the pipeline's later steps do with it what they like."""

    description: str | None = Field(default=None, description="What it does, for the model.")
    parameters: dict[str, Any] | None = Field(
        default=None,
        description="JSON Schema of its arguments: with it, the tool need not exist anywhere.",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> ChatTool:
        if self.parameters is not None and (self.name is None or self.server is not None):
            raise ValueError("`parameters` describe a tool of your own: give it a `name` only")
        return self


def _entry_kind(given: Any) -> str:
    return "mapping" if isinstance(given, Mapping | BaseModel) else "text"


_ToolName = Annotated[str, Tag("text")]
AgentTools = Annotated[_ToolName | Annotated[AgentTool, Tag("mapping")], Discriminator(_entry_kind)]
"""A tool by its name, or with more; told apart first, so that faults are those of one kind."""
ChatTools = Annotated[_ToolName | Annotated[ChatTool, Tag("mapping")], Discriminator(_entry_kind)]


def refuse_duplicates(wanted: Sequence[str | ToolParam]) -> None:
    """Refuse a tool that is written twice.

    Raises:
        ValueError: with its name.
    """
    seen: set[tuple[str | None, str | None]] = set()
    for one in wanted:
        name, server = (one, None) if isinstance(one, str) else (one.name, one.server)
        if (name, server) in seen:
            what = f"the tool '{name}'" if name else f"the server '{server}'"
            raise ValueError(f"{what} is offered twice")
        seen.add((name, server))


def refuse_unknown_choice(choice: str, wanted: Sequence[str | ToolParam]) -> None:
    """Refuse a tool to be called first that is not offered, as far as the names are known.

    Raises:
        ValueError: with the names.
    """
    names = [one if isinstance(one, str) else one.name for one in wanted]
    if choice in ("auto", "none", "required") or None in names:
        return
    known = [name for name in names if name is not None]
    if not any(choice in (name, model_tool_name(name), safe_tool_name(name)) for name in known):
        words = ", ".join(f"'{name}'" for name in known)
        raise ValueError(f"`tool_choice: {choice}` names no tool that is offered: {words}")


def function_files(wanted: Sequence[str | ToolParam]) -> list[str]:
    """Name the files of the Python functions among the tools: their code decides the result."""
    names = (one if isinstance(one, str) else one.name or "" for one in wanted)
    found = (_FUNCTION.match(name) for name in names)
    return list(dict.fromkeys(one[1] for one in found if one is not None))


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """One tool as a model is told of it."""

    said: Tool
    bound: BoundTool | None = None
    """What is called; None: nobody calls it here."""
    may_be_tainted: bool = False
    root: str = "."
    """The folder of a built-in tool that reads documents."""

    @property
    def returns_untrusted(self) -> bool:
        """Whether what it gives was written by others; arithmetic and the time were not."""
        tool = self.bound
        return tool is None or tool.server is not None or tool.name not in ("calculator", "now")


async def offered_tools(wanted: Sequence[str | ToolParam], toolset: Toolset) -> list[OfferedTool]:
    """Find the tools by their names, in the author's order.

    Raises:
        StepError: there is none of this name, one is named twice, or there are too many.
    """
    found: list[OfferedTool] = []
    for one in wanted:
        param = ToolParam(name=one) if isinstance(one, str) else one
        if isinstance(param, ChatTool) and param.parameters is not None:
            said = Tool(param.name or "", param.description or "", param.parameters)
            found.append(OfferedTool(said))
            continue
        names = [param.name] if param.name else list(await toolset.names(param.server))
        for name in names:
            found.append(
                _offered_tool(await toolset.tool(name, param.server, param.options), param)
            )
    if len(found) > MOST_TOOLS:
        raise StepError(
            f"{len(found)} tools are offered; at most {MOST_TOOLS} are.",
            remedy="Name those of a server that the model needs.",
        )
    return _with_unique_names(found)


def _offered_tool(tool: BoundTool, param: ToolParam) -> OfferedTool:
    description = tool.description
    if isinstance(param, ChatTool) and param.description is not None:
        description = param.description
    may = isinstance(param, AgentTool) and param.allow == "tainted"
    root = str(param.options.get("root", "."))
    return OfferedTool(Tool(tool.name, description, dict(tool.schema)), tool, may, root)


def _with_unique_names(found: Sequence[OfferedTool]) -> list[OfferedTool]:
    """Name each tool as any model and server takes it: `http.get` becomes `http_get`.

    Raises:
        StepError: a tool is there twice.
    """
    named: dict[str, OfferedTool] = {}
    seen: set[tuple[str | None, str]] = set()
    for one in found:
        server = one.bound.server if one.bound is not None else None
        name = model_tool_name(one.said.name)
        if name in named:
            name = safe_tool_name(f"{server}_{one.said.name}" if server else one.said.name)
        if (server, one.said.name) in seen or name in named:
            of = f" of server '{server}'" if server else ""
            raise StepError(f"the tool '{one.said.name}'{of} is offered twice.")
        seen.add((server, one.said.name))
        said = Tool(name, one.said.description, one.said.parameters)
        named[name] = replace(one, said=said)
    return list(named.values())


def model_tool_name(name: str) -> str:
    """Return the name by which a model calls a tool; of a function in a file, the function's own.

    >>> model_tool_name("http.get"), model_tool_name("my_tools.py:clean")
    ('http_get', 'clean')
    """
    return safe_tool_name(name.rpartition(":")[2])


def safe_tool_name(name: str) -> str:
    """Return a name in letters, digits, '_' and '-'."""
    return _NOT_IN_A_NAME.sub("_", name)[:_MOST_NAME_CHARS] or "tool"
