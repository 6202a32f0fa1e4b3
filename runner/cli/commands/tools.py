"""The tools that steps may name, built-in and of MCP servers: `paddock tools`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from paddock.engine.system.records import Struct, asdict, field
from paddock.engine.system.text import one_line
from paddock.runner.api import prepare
from paddock.runner.bind.bound import BoundPlan
from paddock.runner.bind.trust.permissions import server_permission
from paddock.runner.bind.trust.reached import declared_server
from paddock.runner.cli.arguments import (
    InputsOption,
    JsonOption,
    argument,
    given_settings,
    option,
    parse_inputs,
    pipeline_file,
)
from paddock.runner.cli.exit_status import DONE
from paddock.runner.config.pipeline_secrets import Secrets
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.core.run_stats import RunStats
from paddock.runner.progress import printing
from paddock.runner.progress.events import Observer
from paddock.runner.settings import read_settings
from paddock.steps.base import StepError
from paddock.steps.tools import builtin_tools
from paddock.steps.tools.tool_names import installed_tools

_MAX_ABOUT_CHARS = 90


def tools(
    file: str | None = argument("A pipeline: its MCP servers are asked, too.", metavar="FILE"),
    inputs: InputsOption = None,
    allow: list[str] | None = option("Permissions: mcp, network, secrets.", metavar="NAME,..."),
    as_json: JsonOption = False,
) -> int:
    if file is None:
        groups = tools_here()
    else:
        path = pipeline_file(file, "tools")
        settings = read_settings(path.parent, flags=given_settings(allow=allow))
        environment = RunEnvironment(settings=settings)
        made = prepare(path, parse_inputs(inputs), RunOptions(), environment, is_plan=True)
        of_servers = tools_of_servers(made.bound, made.secrets, settings.allow)
        groups = [*tools_here(), *asyncio.run(of_servers)]
    rows = []
    for group in groups:
        of_group = [asdict(tool) for tool in group.tools]
        rows.append({"origin": group.origin, "tools": of_group, "why": group.why or None})
    text = "\n".join(line for group in groups for line in _group_lines(group))
    printing.print_result({"groups": rows}, text, as_json=as_json)
    return DONE


def _group_lines(group: ToolGroup) -> Iterator[str]:
    yield printing.with_cause(group.origin, group.why)
    for tool in group.tools:
        about = one_line(tool.description, _MAX_ABOUT_CHARS)
        name = tool.signature() if tool.schema else tool.name
        yield printing.printable_line(f"  {name}  {about}".rstrip())


class ListedTool(Struct, frozen=True):
    name: str
    """As a step uses it."""
    description: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict)
    has_effects: bool = True

    def signature(self) -> str:
        """Return name and arguments, optional ones with `?`.

        >>> ListedTool("f", "", {"properties": {"a": {}, "b": {}}, "required": ["a"]}).signature()
        'f(a, b?)'
        """
        needed = self.schema.get("required", ())
        names = self.schema.get("properties", {})
        listed = (name if name in needed else f"{name}?" for name in names)
        return f"{self.name}({', '.join(listed)})"


class ToolGroup(Struct, frozen=True):
    """Tools of one origin, or in `why` the reason why they cannot be listed."""

    origin: str
    tools: Sequence[ListedTool] = ()
    why: str = ""


def tools_here() -> list[ToolGroup]:
    """Return built-in tools, and the names of installed ones: importing those runs their code."""
    built_in = []
    for name, tool in builtin_tools.BUILT_IN_FUNCTIONS.items():
        schema = builtin_tools.arguments_schema_of(tool.arguments)
        built_in.append(ListedTool(name, tool.description, schema, tool.has_effects))
    found = [ToolGroup("built in", built_in)]
    if installed_tools():
        found.append(ToolGroup("installed", [ListedTool(name) for name in installed_tools()]))
    return found


async def tools_of_servers(
    bound: BoundPlan, secrets: Secrets, allowed: Collection[str]
) -> list[ToolGroup]:
    from paddock.runner.core.item_toolset import ToolRuntime, server_spec

    stats = RunStats("", bound.name, Observer(), secrets=secrets)
    async with AsyncExitStack() as session:
        runtime = ToolRuntime(stats, session)

        async def group(name: str) -> ToolGroup:
            origin = f"MCP server '{name}'"
            need = server_permission(declared_server(name, bound.pipeline))
            if need not in allowed:
                return ToolGroup(origin, why=f"not asked: that needs `--allow {need}`.")
            try:
                spec = server_spec(bound.pipeline.servers[name], bound, runtime.stats)
                tools = await runtime.servers.tools(spec)
            except StepError as error:
                return ToolGroup(origin, why=secrets.redact(str(error)))
            listed = [
                ListedTool(f"{name}.{tool.name}", tool.description, tool.schema, tool.has_effects)
                for tool in tools.values()
            ]
            return ToolGroup(origin, listed)

        return list(await asyncio.gather(*map(group, bound.pipeline.servers)))
