"""What a tool's name means: built in, installed, a function of a file, or an MCP server's. Pure.

The names come from the YAML alone, never from a model or a document, so that what a pipeline
reaches for is known before it starts. Imports no tool.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

from paddock.pipelines.errors import known
from paddock.pipelines.expressions import Path

GROUP = "paddock.tools"
BUILT_IN = ("calculator", "files.read", "files.search", "http.get", "now")
OPTIONS: Mapping[str, frozenset[str]] = {
    "http.get": frozenset(("hosts", "max_bytes")),
    "files.read": frozenset(("root",)),
    "files.search": frozenset(("root",)),
}
"""What an author may fix of a built-in tool, besides `timeout`, which any tool has."""

Kind = Literal["built-in", "installed", "function", "server"]
_EXPRESSION = re.compile(r"\{[{%#]")
_FUNCTION = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_][A-Za-z0-9_]*)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Named:
    """What a name stands for."""

    kind: Kind
    name: str
    """The tool's own name: of a function its name alone; empty for all tools of a server."""
    server: str | None = None
    file: str | None = None
    """As it is written, relative to the pipeline."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A tool that a step names, where it does so, and what the author fixes of it."""

    path: Path
    """Within the step's parameters."""
    name: str
    server: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    is_written: bool = True
    """Whether it stands there as it is, and not as an expression."""


@cache
def installed() -> tuple[str, ...]:
    """Give the names of the tools that installed packages bring; imports none of them."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


@cache
def version_of(name: str) -> str:
    """Give package and version of what brings an installed tool: another one may work otherwise."""
    points = [point for point in entry_points(group=GROUP) if point.name == name]
    return " ".join(f"{one.dist.name} {one.dist.version}" for one in points if one.dist)


def named(name: str, server: str | None, servers: Collection[str]) -> Named | None:
    """Tell what a name stands for; None for nothing that is known.

    >>> named("tools.py:clean", None, ()).file, named("web.fetch", None, ["web"]).server
    ('tools.py', 'web')
    """
    if server is not None:
        return Named("server", name, server) if server in servers else None
    if name in BUILT_IN:
        return Named("built-in", name)
    found = _FUNCTION.match(name)
    if found:
        return Named("function", found["name"], file=found["file"])
    if name in installed():
        return Named("installed", name)
    head, dot, rest = name.partition(".")
    if dot and rest and head in servers:
        return Named("server", rest, head)
    return None


def unknown(name: str, server: str | None, servers: Collection[str]) -> tuple[str, str]:
    """Say that there is no such tool, and what to do: sentence without its end, and remedy."""
    if server is not None:
        remedy = known(server, servers) if servers else "Name it under `mcpServers`."
        return f"there is no MCP server '{server}'", remedy
    names = [*BUILT_IN, *installed(), *(f"{one}.…" for one in servers)]
    more = "" if "." in name else " A function of your own is named like `tools.py:clean`."
    return f"there is no tool '{name}'", f"{known(name, names)}{more}"


def wanted(uses: str, written: Mapping[str, Any]) -> Iterator[Wanted]:
    """Give the tools that a step names: `tool` by `name`, others in the list `tools`."""
    if uses == "tool":
        yield from _entry(written, (), ("name",))
        return
    tools = written.get("tools")
    if isinstance(tools, str):
        yield Wanted(("tools",), tools, is_written=False)
    for index, entry in enumerate(tools if isinstance(tools, list) else ()):
        if isinstance(entry, str):
            yield Wanted(("tools", index), entry, is_written=not _EXPRESSION.search(entry))
        elif isinstance(entry, Mapping) and not (uses == "chat" and "parameters" in entry):
            yield from _entry(entry, ("tools", index), ("tools", index))  # others are the author's


def _entry(entry: Mapping[str, Any], at: Path, place: Path) -> Iterator[Wanted]:
    name, server = entry.get("name"), entry.get("server")
    words = [word for word in (name, server) if word is not None]
    if not words or not all(isinstance(word, str) for word in words):
        return  # told with the parameters
    options = entry.get("options")
    is_written = not any(map(_EXPRESSION.search, words))
    yield Wanted(
        place if name is not None else (*at, "server"),
        name if isinstance(name, str) else "",
        server if isinstance(server, str) else None,
        options if isinstance(options, Mapping) else {},
        is_written,
    )
