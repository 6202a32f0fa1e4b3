"""Tools without a runner: plain functions by name, each call remembered."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paddock.steps.base import BoundTool, StepError, ToolResult

Do = Callable[[Mapping[str, Any]], Any]


@dataclass
class FakeToolset:
    """Implements `paddock.steps.base.Toolset`: `does` are functions by `name` or `server.name`.

    A function gives a value, or a `ToolResult`; it may raise. `effects` are the names of those that
    change something, `called` what was called with what, `n_running_most` how many at once.
    """

    does: dict[str, Do]
    effects: frozenset[str] = frozenset()
    timeout_s: float = 5.0
    delay_s: float = 0.0
    called: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    n_running: int = 0
    n_running_most: int = 0

    async def tool(
        self, name: str, server: str | None = None, options: Mapping[str, Any] | None = None
    ) -> BoundTool:
        full = f"{server}.{name}" if server else name
        if full not in self.does:
            raise StepError(f"there is no tool '{full}'.")

        async def do(args: Mapping[str, Any]) -> ToolResult:
            self.called.append((full, dict(args)))
            self.n_running += 1
            self.n_running_most = max(self.n_running_most, self.n_running)
            try:
                await asyncio.sleep(self.delay_s)
                made = self.does[full](args)
            finally:
                self.n_running -= 1
            return made if isinstance(made, ToolResult) else ToolResult(str(made), made)

        return BoundTool(
            name=name,
            description=f"Does {name}.\nMore of it.",
            schema={"type": "object", "properties": {"x": {"type": "string"}}},
            has_effects=full in self.effects,
            timeout_s=self.timeout_s,
            do=do,
            server=server,
        )

    async def names(self, server: str | None = None) -> Sequence[str]:
        if server is None:
            return [name for name in self.does if "." not in name]
        return [name.split(".")[1] for name in self.does if name.startswith(f"{server}.")]
