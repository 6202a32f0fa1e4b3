"""Tools: what a name stands for, a tool that can be called, and the step `tool`.

A name is of a built-in tool, an installed one, a function of a file, or a tool of an MCP server.
The names come from the YAML alone, never from a model or a document, so the tools of a pipeline are
known before it starts. Imports no tool.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import re
import tokenize
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from paddock.engine.system.no_links import open_file
from paddock.pipelines.errors import did_you_mean
from paddock.pipelines.expressions import TEMPLATE_START
from paddock.pipelines.expressions import Path as Place
from paddock.steps.base import (
    BoundTool,
    DocumentReaders,
    Output,
    Params,
    Roots,
    Step,
    StepError,
    StepLog,
    ToolResult,
    Tools,
)
from paddock.steps.plugins import TOOL_GROUP, plugins

TOOL_STEPS = ("tool", "agent", "chat")
"""Steps that name tools."""
BUILT_IN_TOOLS = ("calculator", "files.read", "files.search", "http.get", "now")
TOOL_OPTIONS: Mapping[str, frozenset[str]] = {
    "http.get": frozenset(("hosts", "max_bytes")),
    "files.read": frozenset(("root",)),
    "files.search": frozenset(("root",)),
}
"""Options of built-in tools, besides `timeout`, which any tool has."""

ToolKind = Literal["built-in", "installed", "function", "server"]
FUNCTION_REFERENCE = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_][A-Za-z0-9_]*)\Z", re.DOTALL)
"""A function of a Python file, such as `tools.py:clean`."""


@dataclass(frozen=True, slots=True)
class ToolReference:
    """A resolved name."""

    kind: ToolKind
    name: str
    """The tool's name; for a function only its own; empty for all tools of a server."""
    server: str | None = None
    file: str | None = None
    """As written, relative to the pipeline."""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A use of a tool in a step, with its options."""

    path: Place
    """The path in the step's parameters."""
    name: str
    server: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    is_written: bool = True
    """Whether it is a literal, not an expression."""


class FunctionNotFound(Exception):
    """A file lacks the function that is named: a sentence without its end, and a remedy."""

    def __init__(self, what: str, remedy: str = "") -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(f"{what}. {remedy}".strip())


def parse_python_file(path: Path, written: str) -> ast.Module:
    """Return a file's syntax tree; `written` names it. Runs nothing of it.

    Raises:
        FunctionNotFound: it cannot be read, or is not Python.
    """
    try:
        with open_file(path, follows_links=True) as file:
            return ast.parse(file.read())
    except FileNotFoundError:
        remedy = "Paths are relative to the YAML; create or correct it."
        raise FunctionNotFound(f"there is no file '{written}'", remedy) from None
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise FunctionNotFound(f"the file '{written}' is not Python{line}: {error.msg}") from error
    except OSError as error:
        what = f"the file '{written}' cannot be read: {error.strerror or error}"
        raise FunctionNotFound(what) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise FunctionNotFound(f"the file '{written}' is not Python: {error}") from error


# --- the code of a Python file, with the modules that it imports; none of it is run

_MAX_MODULES = 1000  # of a folder: a tree of that size is read in a second


def file_content(file: Path, most_bytes: int = -1) -> bytes:
    """Return what a file holds, or its beginning; nothing where it cannot be read."""
    try:
        with open_file(file, follows_links=True) as opened:
            return opened.read(most_bytes)
    except OSError:
        return b""


def python_modules_of(file: Path, folder: Path | None = None) -> list[Path]:
    """Return a Python file and all that it imports from a folder, else from its own, by name."""
    found, waiting = {file: None}, [file]
    while waiting and len(found) < _MAX_MODULES:
        for module in _imported_files(waiting.pop(), folder or file.parent):
            if module not in found:
                found[module] = None
                waiting.append(module)
    return sorted(found)


def code_digests(file: Path) -> dict[str, str]:
    """Return the sha256 of the code of a Python file and of each module that it imports."""
    return {
        os.path.relpath(one, file.parent): hashlib.sha256(_code(file_content(one))).hexdigest()
        for one in python_modules_of(file)
    }


def code_digest(file: Path) -> str:
    """Return one sha256 of the code of a Python file with all that it imports."""
    lines = (f"{name} {digest}\n" for name, digest in code_digests(file).items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _imported_files(file: Path, folder: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(file_content(file))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _modules(alias.name, folder)
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            at = file.parents[node.level - 1] if 0 < node.level <= len(file.parents) else folder
            yield from _modules(package, at)
            for alias in node.names:
                if alias.name == "*":  # `__all__` of a package may name its modules
                    yield from sorted(at.joinpath(*package.split(".")).glob("*.py"))
                else:
                    yield from _modules(f"{package}.{alias.name}", at)


def _modules(name: str, folder: Path) -> Iterator[Path]:
    """Yield the files of a module's name: itself, and the packages around it."""
    at = folder
    for part in filter(None, name.split(".")):
        if (at / f"{part}.py").is_file():
            yield at / f"{part}.py"
        at = at / part
        if (at / "__init__.py").is_file():
            yield at / "__init__.py"


def _code(content: bytes) -> bytes:
    r"""Return the lines of a Python file without comments.

    >>> _code(b"# Adds.\ndef add(a):  # one\n    return a + 1\n")
    b'def add(a):\n    return a + 1\n'
    """
    lines = content.splitlines(keepends=True)
    try:
        for token in tokenize.tokenize(io.BytesIO(content).readline):
            row, column = token.start[0] - 1, token.start[1]
            if token.type == tokenize.COMMENT:
                before = token.line[:column].rstrip()
                lines[row] = f"{before}\n".encode() if before else b""
    except (tokenize.TokenError, SyntaxError, ValueError, IndexError):
        return content
    return b"".join(lines)


# --- what a name stands for


def installed_tools() -> tuple[str, ...]:
    """Return the names of the tools that installed packages bring; imports none of them."""
    return tuple(plugins(TOOL_GROUP))


def tool_version(name: str) -> str:
    """Return package and version of an installed tool: another version may work differently."""
    points = plugins(TOOL_GROUP).get(name, ())
    return " ".join(f"{one.dist.name} {one.dist.version}" for one in points if one.dist)


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
    if dot and rest and head in servers:
        return ToolReference("server", rest, head)
    return None


def unknown_tool(name: str, server: str | None, servers: Collection[str]) -> tuple[str, str]:
    """Return the sentence, without its end, and the remedy for a name that is no tool."""
    if server is not None:
        remedy = did_you_mean(server, servers) if servers else "Name it under `mcpServers`."
        return f"there is no MCP server '{server}'", remedy
    names = [*BUILT_IN_TOOLS, *installed_tools(), *(f"{one}.…" for one in servers)]
    more = "" if "." in name else " Write a function of your own as `tools.py:clean`."
    return f"there is no tool '{name}'", f"{did_you_mean(name, names)}{more}"


def tools_used(uses: str, written: Mapping[str, Any]) -> Iterator[ToolUse]:
    """Yield the tools that a step names: `tool` by `name`, others in the list `tools`."""
    if uses == "tool":
        yield from _tool_use(written, (), ("name",))
        return
    tools = written.get("tools")
    if isinstance(tools, str):
        yield ToolUse(("tools",), tools, is_written=False)
    for index, entry in enumerate(tools if isinstance(tools, list) else ()):
        if isinstance(entry, str):
            yield ToolUse(("tools", index), entry, is_written=not TEMPLATE_START.search(entry))
        # With `parameters` a tool of `chat` is the author's own.
        elif isinstance(entry, Mapping) and not (uses == "chat" and "parameters" in entry):
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
    )


# --- a tool that can be called

MOST_RESULT_CHARS = 1_000_000
"""The longest result: more would not help a model, and fill the ledger."""
DEFAULT_TOOL_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class ToolContext:
    """The context of a built-in tool."""

    roots: Roots
    log: StepLog
    readers: DocumentReaders | None = None
    """None: a process is started for each document."""


@dataclass(frozen=True, slots=True)
class RunnableTool(BoundTool):
    """One tool with what decides how its calls are recorded."""

    keeps: bool = False
    """Its result depends only on its arguments, so that it can be cached."""
    digest: str = ""
    """What else decides the result: a file's content."""
    turn: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """Waits for a free process before the time limit starts."""


def tool_result(value: Any, text: str | None = None, *, is_error: bool = False) -> ToolResult:
    """Return plain data as a result; one that is too large is an error.

    >>> tool_result({"a": 1}).text, tool_result("so").text
    ('{"a": 1}', 'so')
    """
    if text is None:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if len(text) > MOST_RESULT_CHARS:
        what = (
            f"the result has {len(text):,} characters; at most {MOST_RESULT_CHARS:,} are allowed."
        )
        return ToolResult(what, None, is_error=True)
    return ToolResult(text, value, is_error)


def tool_refusal(text: str) -> ToolResult:
    return ToolResult(text, None, is_error=True)


class ToolParams(Params):
    """Parameters of `tool`."""

    name: str = Field(
        min_length=1,
        description="`calculator`, `now`, `http.get`, `files.search`, `files.read`, an installed "
        "tool, a function such as `tools.py:clean`, or a server's tool such as `web.fetch`.",
        examples=["calculator"],
    )
    args: dict[str, Any] = Field(
        default={}, description="The arguments.", examples=[{"expression": "6 * 7"}]
    )
    server: str | None = Field(
        default=None, min_length=1, description="Its MCP server, of `mcpServers`."
    )
    options: dict[str, Any] = Field(
        default={},
        description="Its options: `timeout`, `hosts` of `http.get`, `root` of `files.…`.",
    )


class ToolOutput(Output):
    """Outputs of `tool`: plain data, and text."""

    result: Any
    text: str


class CallTool(Step[ToolParams, ToolOutput]):
    """One call of a tool; some tools need the caller's consent."""

    params = ToolParams
    output = ToolOutput

    def reads(self, params: ToolParams) -> Sequence[str]:
        """Return the file that it reads; the code of a function is a part of the step's spec."""
        path = params.args.get("path")
        if params.name == "files.read" and params.server is None and isinstance(path, str):
            return (f"{params.options.get('root', '.')}/{path}",)
        return ()

    async def run(self, params: ToolParams, tools: Tools) -> ToolOutput:
        tool = await tools.toolset.tool(params.name, params.server, params.options)
        result = await tool.call(params.args)
        if result.is_error:
            raise StepError(f"the tool '{params.name}' failed: {result.sentence()}")
        return ToolOutput(result=result.value, text=result.text)
