"""Names of tools: built-in, installed, a function of a file, of an MCP server.

The names come from the YAML alone, never from a model or a document, so the tools of a pipeline are
known before it starts. Imports no tool.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from paddock.engine.system.records import Struct, replace
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.expressions import TEMPLATE_START
from paddock.pipelines.expressions import Path as Place
from paddock.steps.facts import ToolUse
from paddock.steps.plugins import TOOL_GROUP, plugins

TRUSTED_TOOLS = frozenset(("calculator", "now"))
"""Tools whose results are not the text of others."""
BUILT_IN_TOOLS = ("calculator", "files.read", "files.search", "http.get", "now")
TOOL_OPTIONS: Mapping[str, frozenset[str]] = {
    "http.get": frozenset(("hosts", "headers", "max_bytes", "items", "next")),
    "files.read": frozenset(("root",)),
    "files.search": frozenset(("root",)),
}
"""Options of built-in tools, besides `timeout`, which any tool has."""

FUNCTION_REFERENCE = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_][A-Za-z0-9_]*)\Z", re.DOTALL)
"""A function of a Python file, such as `tools.py:clean`."""


class ToolReference(Struct, frozen=True):
    kind: Literal["built-in", "installed", "function", "server"]
    name: str
    """The tool's name; for a function only its own; empty for all tools of a server."""
    server: str | None = None
    file: str | None = None
    """As written, relative to the pipeline."""


def installed_tools() -> tuple[str, ...]:
    return tuple(plugins(TOOL_GROUP))


def tool_version(name: str) -> str:
    """Return package and version of an installed tool: another version may work differently."""
    points = plugins(TOOL_GROUP).get(name, ())
    return " ".join(f"{point.dist.name} {point.dist.version}" for point in points if point.dist)


def resolve_tool(name: str, server: str | None, servers: Collection[str]) -> ToolReference | None:
    """Resolve a name; None if it is unknown.

    >>> resolve_tool("web.fetch", None, ["web"]).server
    'web'
    """
    if server is not None:
        return ToolReference("server", name, server) if server in servers else None
    if name in BUILT_IN_TOOLS:
        return ToolReference("built-in", name)
    found = FUNCTION_REFERENCE.match(name)
    if found:
        return ToolReference("function", found["name"], file=found["file"])
    if name in installed_tools():
        return ToolReference("installed", name)
    head, dot, rest = name.partition(".")
    return ToolReference("server", rest, head) if dot and rest and head in servers else None


def unknown_tool(name: str, server: str | None, servers: Collection[str]) -> tuple[str, str]:
    if server is not None:
        remedy = did_you_mean(server, servers, "Name it under `mcpServers`.")
        return f"there is no MCP server '{server}'", remedy
    names = [*BUILT_IN_TOOLS, *installed_tools(), *(f"{known}.…" for known in servers)]
    hint = "" if "." in name else " Write a function of your own as `tools.py:clean`."
    return f"there is no tool '{name}'", f"{did_you_mean(name, names)}{hint}"


def one_tool(written: Mapping[str, Any]) -> Iterator[ToolUse]:
    for use in _tool_use(written, (), ("name",)):
        yield replace(use, args=("args", written.get("args")))


def listed_tools(written: Mapping[str, Any], *, may_be_its_own: bool = False) -> Iterator[ToolUse]:
    """Yield the tools in a step's list `tools`; with `parameters` one is its author's own."""
    tools = written.get("tools")
    if isinstance(tools, str):
        yield ToolUse(("tools",), tools, is_written=False)
    for index, entry in enumerate(tools if isinstance(tools, list) else ()):
        if isinstance(entry, str):
            at = ("tools", index)
            yield ToolUse(at, entry, is_written=not TEMPLATE_START.search(entry), entry=at)
        elif isinstance(entry, Mapping) and not (may_be_its_own and "parameters" in entry):
            yield from _tool_use(entry, ("tools", index), ("tools", index))


def _tool_use(entry: Mapping[str, Any], at: Place, place: Place) -> Iterator[ToolUse]:
    name, server = entry.get("name"), entry.get("server")
    words = [word for word in (name, server) if word is not None]
    if not words or not all(isinstance(word, str) for word in words):
        return  # reported with the parameters
    options = entry.get("options")
    is_written = not any(map(TEMPLATE_START.search, words))
    yield ToolUse(
        place if name is not None else (*at, "server"),
        name if isinstance(name, str) else "",
        server if isinstance(server, str) else None,
        options if isinstance(options, Mapping) else {},
        is_written,
        at,
    )
