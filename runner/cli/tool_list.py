"""The tools that a pipeline could call: built in, installed, and those of its MCP servers.

A server is asked only where the caller permits it; otherwise the reason is listed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.steps.base import StepError

if TYPE_CHECKING:
    from paddock.runner.bind.bound import BoundPlan
    from paddock.runner.config.pipeline_secrets import Secrets
    from paddock.runner.settings import Settings


@dataclass(frozen=True, slots=True)
class ListedTool:
    """One tool by the name that a step calls it by."""

    name: str
    description: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict)
    has_effects: bool = True

    def signature(self) -> str:
        """Write its arguments as a person would: those that may be left out with `?`.

        >>> ListedTool("f", "", {"properties": {"a": {}, "b": {}}, "required": ["a"]}).signature()
        'f(a, b?)'
        """
        needed = self.schema.get("required", ())
        names = self.schema.get("properties", {})
        listed = (name if name in needed else f"{name}?" for name in names)
        return f"{self.name}({', '.join(listed)})"


@dataclass(frozen=True, slots=True)
class ToolGroup:
    """Tools of one origin; `why` says why they cannot be listed."""

    origin: str
    tools: Sequence[ListedTool] = ()
    why: str = ""


def tools_here() -> list[ToolGroup]:
    """Return what is built in, and the names of what is installed: importing it runs its code."""
    from paddock.steps.tools import builtin_tools, tool_names

    built_in = [
        ListedTool(
            name,
            tool.description,
            builtin_tools.arguments_schema_of(tool.arguments),
            tool.has_effects,
        )
        for name, tool in builtin_tools.BUILT_IN_FUNCTIONS.items()
    ]
    found = [ToolGroup("built in", built_in)]
    if tool_names.installed_tools():
        found.append(
            ToolGroup("installed", [ListedTool(name) for name in tool_names.installed_tools()])
        )
    return found


async def tools_of_servers(
    bound: BoundPlan, secrets: Secrets, allowed: Collection[str]
) -> list[ToolGroup]:
    """Ask each MCP server that may be asked, all at once, and end them again."""
    from paddock.runner.core.run_records import RunStats
    from paddock.runner.core.step_context import open_tool_runtime, server_spec
    from paddock.runner.progress.events import NullObserver

    async with open_tool_runtime(
        RunStats("", bound.name, NullObserver(), secrets=secrets)
    ) as hands:

        async def group(name: str) -> ToolGroup:
            from paddock.runner.bind.permissions import server_need

            origin = f"MCP server '{name}'"
            need, _, _ = server_need(name, bound)
            if need not in allowed:
                return ToolGroup(origin, why=f"not asked: that needs `--allow {need}`.")
            try:
                spec = server_spec(bound.pipeline.servers[name], bound, hands.stats)
                tools = await hands.servers.tools(spec)
            except StepError as error:
                return ToolGroup(origin, why=secrets.redact(str(error)))
            return ToolGroup(origin, [_listed_tool(name, tool) for tool in tools.values()])

        return list(await asyncio.gather(*map(group, bound.pipeline.servers)))


def _listed_tool(server: str, tool: Any) -> ListedTool:
    return ListedTool(f"{server}.{tool.name}", tool.description, tool.schema, tool.has_effects)


def tools_of_pipeline(path: Path, inputs: Mapping[str, Any], settings: Settings) -> list[ToolGroup]:
    """Return all that the steps of a pipeline could call.

    Raises:
        PipelineError: the YAML, an input or a secret is wrong.
    """
    from paddock.runner.api import prepare
    from paddock.runner.core.run_options import RunEnvironment, RunOptions

    made = prepare(path, inputs, RunOptions(), RunEnvironment(settings=settings), is_plan=True)
    return [*tools_here(), *asyncio.run(tools_of_servers(made.bound, made.secrets, settings.allow))]
