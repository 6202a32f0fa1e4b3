"""The tools that a pipeline could call: built in, installed, and those of its MCP servers.

A server is asked only where its caller allows that; else it is said what that needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paddock.steps.step import StepError

if TYPE_CHECKING:
    from .binding.bound import BoundPlan
    from .secrets import Secrets
    from .settings import Settings


@dataclass(frozen=True, slots=True)
class Offered:
    """One tool by the name that a step calls it by."""

    name: str
    description: str = ""
    schema: Mapping[str, Any] = field(default_factory=dict)
    has_effects: bool = True

    def signature(self) -> str:
        """Write its arguments as a person would: those that may be left out with `?`.

        >>> Offered("f", "", {"properties": {"a": {}, "b": {}}, "required": ["a"]}).signature()
        'f(a, b?)'
        """
        needed = self.schema.get("required", ())
        names = self.schema.get("properties", {})
        listed = (name if name in needed else f"{name}?" for name in names)
        return f"{self.name}({', '.join(listed)})"


@dataclass(frozen=True, slots=True)
class Group:
    """Tools of one origin; `why` says why they cannot be listed."""

    origin: str
    tools: Sequence[Offered] = ()
    why: str = ""


def here() -> list[Group]:
    """Give what is built in, and the names of what is installed: importing it runs its code."""
    from paddock.steps.toolbox import builtin, naming

    built_in = [
        Offered(name, tool.description, builtin.schema_of(tool.arguments), tool.has_effects)
        for name, tool in builtin.TOOLS.items()
    ]
    found = [Group("built in", built_in)]
    if naming.installed():
        found.append(Group("installed", [Offered(name) for name in naming.installed()]))
    return found


async def of_servers(bound: BoundPlan, secrets: Secrets, allowed: Collection[str]) -> list[Group]:
    """Ask each MCP server that may be asked, all at once, and end them again."""
    from .observer import Silent
    from .tally import Tally
    from .toolsets import opened_hands, spec_of

    async with opened_hands(Tally("", bound.name, Silent(), secrets=secrets)) as hands:

        async def group(name: str) -> Group:
            from .reach import server_need

            origin = f"MCP server '{name}'"
            need, _, _ = server_need(name, bound)
            if need not in allowed:
                return Group(origin, why=f"not asked: that needs `--allow {need}`.")
            try:
                spec = spec_of(bound.pipeline.servers[name], bound, hands.tally)
                tools = await hands.servers.tools(spec)
            except StepError as error:
                return Group(origin, why=secrets.redact(str(error)))
            return Group(origin, [_offered(name, tool) for tool in tools.values()])

        return list(await asyncio.gather(*map(group, bound.pipeline.servers)))


def _offered(server: str, tool: Any) -> Offered:
    return Offered(f"{server}.{tool.name}", tool.description, tool.schema, tool.has_effects)


def of_file(path: Path, inputs: Mapping[str, Any], settings: Settings) -> list[Group]:
    """Give all that the steps of a pipeline could call.

    Raises:
        PipelineError: the YAML, an input or a secret is wrong.
    """
    from .verbs import prepare

    _, bound, secrets = prepare(path, inputs, settings, is_plan=True)
    return [*here(), *asyncio.run(of_servers(bound, secrets, settings.allow))]
