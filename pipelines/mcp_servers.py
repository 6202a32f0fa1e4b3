"""MCP servers under `mcpServers`, in the format of MCP clients.

Written inline, with expressions in the texts, or in a JSON file such as `mcp.json`, where
`${NAME}` stands for an environment variable: each of those becomes a secret. Knows nothing of the
protocol.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from paddock.engine.system.records import Struct, field

from . import prompt_file
from .expressions import TEMPLATE_START, ExpressionError, Path, Value
from .keys import Keys, without_x_keys
from .quantities import Seconds
from .validation import FaultCollector

DEFAULT_TIMEOUT_S = 60.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)\}")
_UNSUPPORTED_VARIABLE = re.compile(r"\$\{[^}]*\}")
_EXPRESSION_KEYS = ("command", "args", "env", "cwd", "url", "headers")


class McpServerKeys(Keys):
    """An MCP server: a command to start, or a URL."""

    type: (
        Literal["stdio", "http", "streamable-http", "streamableHttp", "streamable_http"] | None
    ) = Field(None, description="The transport; by default known from `command` or `url`.")
    command: str | None = Field(
        None,
        min_length=1,
        description="The program to start, without a shell; "
        "`{{ python }}` is the Python that runs Paddock.",
    )
    args: list[str] = Field([], description="Its arguments.")
    env: dict[str, str] = Field({}, description="Additional environment variables.")
    cwd: str | None = Field(None, description="The folder in which it runs.")
    url: str | None = Field(
        None, min_length=1, description="The URL of a server with streamable HTTP."
    )
    headers: dict[str, str] = Field({}, description="HTTP headers to send.")
    timeout: Seconds = Field(DEFAULT_TIMEOUT_S, gt=0, description="The time limit of a call.")
    disabled: bool = Field(False, description="Ignore this server.")

    @model_validator(mode="after")
    def _one_way(self) -> McpServerKeys:
        if (self.command is None) == (self.url is None):
            raise ValueError("give exactly one of `command` and `url`")
        stray = ("headers",) if self.command is not None else ("args", "env", "cwd")
        for name in stray:
            if getattr(self, name):
                of = "url" if name == "headers" else "command"
                raise ValueError(f"`{name}` belongs to `{of}`")
        return self


class McpServer(Struct, frozen=True):
    """One MCP server as written. `at` is its path in the pipeline file."""

    name: str
    keys: McpServerKeys
    at: Path
    texts: Value
    """Its texts, which may read inputs, secrets and `python`."""
    variables: frozenset[str] = field(default_factory=frozenset)
    """The environment variables that a JSON file reads as `${NAME}`."""

    @property
    def is_command(self) -> bool:
        return self.keys.command is not None


def secret_of(variable: str) -> str:
    """Return the name of the secret for an environment variable; never a valid written name."""
    return f"env {variable}"


def read_servers(data: Any, checks: FaultCollector) -> dict[str, McpServer]:
    at: Path = ("mcpServers",)
    if not isinstance(data, dict):
        return {}  # what is not None, its table reported
    if set(data) == {"file"} and isinstance(data["file"], str):
        return dict(_of_file(data["file"], checks, (*at, "file")))
    return dict(_inline(data, checks, at))


def _inline(
    data: Mapping[str, Any], checks: FaultCollector, at: Path
) -> Iterator[tuple[str, McpServer]]:
    for name, item in without_x_keys(dict(data)).items():
        place = (*at, name)
        if not _NAME.fullmatch(name):
            what = f"'{name}' cannot be the name of a server"
            checks.add(place, what, "Use letters, digits, '_' and '-'.", is_key=True)
        if isinstance(item, dict) and item.get("type") == "sse":
            remedy = "Most servers also have streamable HTTP: remove `type` and use that URL."
            checks.add((*place, "type"), "the older transport `sse` is not supported", remedy)
            continue
        keys = checks.table(McpServerKeys, item, place)
        if keys is not None and not keys.disabled:
            written = {part: item[part] for part in _EXPRESSION_KEYS if part in item}
            yield name, McpServer(name, keys, place, checks.value(written, place))


def _of_file(name: str, checks: FaultCollector, at: Path) -> Iterator[tuple[str, McpServer]]:
    """Read a JSON file of another MCP client; keys that are not ours are ignored."""
    try:
        text = prompt_file.read_raw_file(FilePath(checks.document.file).parent, name)
        found = _servers(text, name)
    except ExpressionError as error:
        checks.failed(error, at)
        return
    for server, item in found.items():
        try:
            entry = _server(server, item, at)
        except (ExpressionError, ValueError) as error:
            why = str(error)
            if isinstance(error, ValidationError):
                first = error.errors(include_url=False)[0]
                key = ".".join(map(str, first["loc"]))
                why = first["msg"].removeprefix("Value error, ")
                why = f"`{key}`: {why}" if key else why
            checks.add(at, f"in the file '{name}', server '{server}': {why}", "")
            continue
        if entry is not None:
            yield server, entry


def _servers(text: str, name: str) -> Mapping[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        remedy = "JSON has no comments, and no comma before a closing bracket."
        raise ExpressionError(f"the file '{name}' is not JSON: {error}", remedy) from None
    for outer in ("mcpServers", "servers"):
        if isinstance(data, dict) and isinstance(data.get(outer), dict):
            return dict(data[outer])
    remedy = "Write the servers under `mcpServers`, by their names."
    raise ExpressionError(f"the file '{name}' names no MCP servers", remedy)


def _server(name: str, item: Any, at: Path) -> McpServer | None:
    if not isinstance(item, dict) or not _NAME.fullmatch(name):
        raise ValueError("this is not a server")
    if item.get("disabled") is True:
        return None
    if item.get("type") == "sse":
        raise ValueError("the older transport `sse` is not supported")
    ours = {part: value for part, value in item.items() if part in (*_EXPRESSION_KEYS, "type")}
    keys = McpServerKeys.model_validate(ours)
    variables: set[str] = set()
    written = {
        part: _variables_to_secrets(ours[part], variables)
        for part in _EXPRESSION_KEYS
        if part in ours
    }
    return McpServer(name, keys, at, Value.of(written), frozenset(variables))


def _variables_to_secrets(value: Any, variables: set[str]) -> Any:
    """Convert texts with `${NAME}` to expressions; other braces stay text."""
    if isinstance(value, dict):
        return {name: _variables_to_secrets(child, variables) for name, child in value.items()}
    if isinstance(value, list):
        return [_variables_to_secrets(child, variables) for child in value]
    if not isinstance(value, str):
        return value
    for name in _UNSUPPORTED_VARIABLE.findall(value):
        if not _VARIABLE.fullmatch(name):
            raise ValueError(
                f"'{name}' is not known here; `${{NAME}}` names an environment variable"
            )
    pieces = []
    for number, piece in enumerate(_VARIABLE.split(value)):
        if number % 2:
            variables.add(piece)
            pieces.append(f"{{{{ secrets['{secret_of(piece)}'] }}}}")
        else:
            pieces.append(
                f"{{{{ {json.dumps(piece)} }}}}" if TEMPLATE_START.search(piece) else piece
            )
    return "".join(pieces)
