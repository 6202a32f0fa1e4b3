"""The tools that a step may call by name, and the ledger for what is no model call: the contract.

Knows no tool and no step. `steps/toolbox/` has the tools, the runner makes a `Toolset` for a run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

_MOST_CHARS = 500


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool gave. It comes from outside: data, never an instruction."""

    text: str
    """The same for a model to read, bounded; where `is_error`, one plain sentence."""
    value: Any = None
    """Plain JSON data; the text itself where the tool gives nothing else."""
    is_error: bool = False
    """The tool ran and said no. A tool that could not be run at all raises `StepError`."""

    def sentence(self) -> str:
        r"""Give the text for a person, in one line that is not too long: a server may say anything.

        >>> ToolResult("no\n  field").sentence(), len(ToolResult("x" * 9000).sentence())
        ('no field', 500)
        """
        text = " ".join(self.text.split())
        return text if len(text) <= _MOST_CHARS else f"{text[: _MOST_CHARS - 1]}…"


@dataclass(frozen=True, slots=True)
class BoundTool:
    """One tool, ready to be called; each call is in the ledger and has a deadline."""

    name: str
    description: str
    schema: Mapping[str, Any]
    """JSON Schema of its arguments, always of an object."""
    has_effects: bool
    """Whether a call may change something or send something off this machine."""
    timeout_s: float
    do: Callable[[Mapping[str, Any]], Awaitable[ToolResult]]
    server: str | None = None
    """The MCP server that has it."""

    async def call(self, args: Mapping[str, Any]) -> ToolResult:
        """Call it once; arguments that do not fit its schema come back as an error result.

        Raises:
            StepError: it could not be run: too late, dead, not allowed.
        """
        return await self.do(args)


class Toolset(Protocol):
    """The tools of a run. What they need is opened at first use and closed with the run."""

    async def tool(
        self, name: str, server: str | None = None, options: Mapping[str, Any] | None = None
    ) -> BoundTool:
        """Give a tool: built in, of Python, `file.py:function`, or of an MCP server.

        Without `server` the name is looked for among the built-in and installed ones, then as
        `server.tool`. `options` are what the author fixes and no model can change: `timeout` of
        any tool, `hosts` of `http.get`, `root` of `files.read` and `files.search`.

        Raises:
            StepError: there is none of this name, or its server cannot be used; says the near ones.
        """
        ...

    async def names(self, server: str | None = None) -> Sequence[str]:
        """List the tools that are there without a server, or those of one server.

        Raises:
            StepError: there is no such server, or it cannot be used.
        """
        ...


class Memo(Protocol):
    """The ledger of calls, for what is not asked of a model."""

    async def once(
        self,
        kind: str,
        asked: Mapping[str, Any],
        do: Callable[[], Awaitable[T]],
        *,
        keeps: bool = True,
    ) -> T:
        """Give the recorded result of the same request, else do it and record what comes out.

        `asked` and the result are plain JSON data. With `keeps=False` the call is recorded and
        never looked up: what has effects or depends on the time.
        """
        ...


class NoMemo:
    """Does everything anew and records nothing: where there is no ledger."""

    async def once(
        self,
        kind: str,
        asked: Mapping[str, Any],
        do: Callable[[], Awaitable[T]],
        *,
        keeps: bool = True,
    ) -> T:
        """Do it."""
        return await do()
