"""Tools and commands whose results come out of a cassette, or go into one.

Taped is what comes from elsewhere: tools of MCP servers, of installed packages, `now`, `http.get`,
and commands. What this machine does by itself in the test's own folder is done. A replay starts
no server and no command.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar, cast

from paddock.engine.errors import DeadlineExceeded
from paddock.steps.step import StepError
from paddock.steps.toolbox import naming
from paddock.steps.toolset import BoundTool, Memo, ToolResult, Toolset

from .taped import Tape

T = TypeVar("T")
_FROM_ELSEWHERE = frozenset(("now", "http.get"))
RUN = "run"


class TapedTools:
    """Implements `paddock.runner.taping.Taping` over a tape."""

    def __init__(self, tape: Tape, turn: int = 0) -> None:
        self._tape = tape
        self._turn = {"turn": turn} if turn else {}
        self._turns: Counter[str] = Counter()
        self._said: dict[str, list[Any]] = {}

    def toolset(self, inner: Toolset) -> Toolset:
        """Give the tools of a step."""
        return _Toolset(inner, self)

    def memo(self, inner: Memo) -> Memo:
        """Give the ledger of a step's other calls."""
        return _Memo(inner, self)

    @property
    def is_replayed(self) -> bool:
        """Whether nothing but what was recorded is given."""
        return self._tape.is_replayed

    def recorded(self, kind: Literal["tool", "listing"], asked: Mapping[str, Any]) -> Any:
        """Give the next result of a call; the last one again where no more were recorded.

        Raises:
            StepError: it was an error, or was not recorded.
        """
        given = self._tape.find(kind, asked)
        if given is None:
            raise StepError("nothing is recorded.")
        results = given["results"]
        name = f"{kind} {self._tape.wording.kept(sorted(asked.items(), key=str))}"
        turn = min(self._turns[name], len(results) - 1)
        self._turns[name] += 1
        result = results[turn]
        if isinstance(result, dict) and "raised" in result:
            raise StepError(result["raised"], remedy=result["remedy"], kind=result["kind"])
        return result

    def record(self, kind: Literal["tool", "listing"], asked: Mapping[str, Any], got: Any) -> None:
        """Keep a result of a call beside those that it gave before in this test."""
        name = f"{kind} {sorted(asked.items(), key=str)}"
        results = self._said.setdefault(name, [])
        results.append(got)
        told = results[:1] if all(one == got for one in results) else results
        self._tape.keep(kind, asked, {"results": told})

    async def taped(
        self,
        kind: Literal["tool", "listing"],
        asked: Mapping[str, Any],
        do: Callable[[], Awaitable[Any]],
    ) -> Any:
        """Give what was recorded, or do it and record what came of it."""
        if kind == "tool":
            asked = {**asked, **self._turn}
        if self.is_replayed:
            return self.recorded(kind, asked)
        try:
            got = await do()
        except StepError as error:
            told = {"raised": error.reason, "remedy": error.remedy, "kind": error.kind}
            self.record(kind, asked, told)
            raise
        except DeadlineExceeded as error:
            self.record(kind, asked, {"raised": str(error), "remedy": "", "kind": "timeout"})
            raise
        self.record(kind, asked, got)
        return got


class _Toolset:
    """Implements `paddock.steps.toolset.Toolset`."""

    def __init__(self, inner: Toolset, tapes: TapedTools) -> None:
        self._inner = inner
        self._tapes = tapes

    async def tool(
        self, name: str, server: str | None = None, options: Mapping[str, Any] | None = None
    ) -> BoundTool:
        """Give a tool; what is known of one of a server is recorded as well."""
        if server is None and not _is_from_elsewhere(name):
            return await self._inner.tool(name, server, options)
        opened: list[BoundTool] = []

        async def ask() -> dict[str, Any]:
            opened.append(await self._inner.tool(name, server, options))
            return _facts(opened[0])

        asked = _plain({"tool": name, "server": server, "options": dict(options or {})})
        facts = await self._tapes.taped("listing", asked, ask)
        made = opened[0] if opened else _replayed(facts)
        return replace(made, do=self._calling(made, asked))

    async def names(self, server: str | None = None) -> Sequence[str]:
        """List tools."""
        if server is None:
            return await self._inner.names()

        async def ask() -> list[str]:
            return list(await self._inner.names(server))

        return tuple(await self._tapes.taped("listing", {"server": server}, ask))

    def _calling(
        self, tool: BoundTool, of: Mapping[str, Any]
    ) -> Callable[[Mapping[str, Any]], Awaitable[ToolResult]]:
        async def do(args: Mapping[str, Any]) -> ToolResult:
            async def ask() -> dict[str, Any]:
                got = await tool.do(args)
                return {"text": got.text, "value": got.value, "is_error": got.is_error}

            asked = {**of, "args": dict(args)}
            return ToolResult(**await self._tapes.taped("tool", asked, ask))

        return do


class _Memo:
    """Implements `paddock.steps.toolset.Memo`: commands are taped, all else is done."""

    def __init__(self, inner: Memo, tapes: TapedTools) -> None:
        self._inner = inner
        self._tapes = tapes

    async def once(
        self,
        kind: str,
        asked: Mapping[str, Any],
        do: Callable[[], Awaitable[T]],
        *,
        keeps: bool = True,
    ) -> T:
        """Give the recorded result, or do it."""
        if kind != "tool" or asked.get("tool") != RUN:
            return await self._inner.once(kind, asked, do, keeps=keeps)

        async def taped() -> T:
            return cast("T", await self._tapes.taped("tool", asked, do))

        return await self._inner.once(kind, asked, taped, keeps=keeps)


def _is_from_elsewhere(name: str) -> bool:
    if name in _FROM_ELSEWHERE:
        return True
    return name not in naming.BUILT_IN and ".py:" not in name


def _facts(tool: BoundTool) -> dict[str, Any]:
    return _plain(
        {
            "name": tool.name,
            "description": tool.description,
            "schema": dict(tool.schema) or {"type": "object"},
            "has_effects": tool.has_effects,
            "timeout_s": tool.timeout_s,
            "server": tool.server,
        }
    )


def _replayed(facts: Mapping[str, Any]) -> BoundTool:
    async def nobody(args: Mapping[str, Any]) -> ToolResult:
        raise StepError("this tool is not there in a replay.")

    return BoundTool(**{"server": None, **facts}, do=nobody)


def _plain(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if value is not None and value != {}}
