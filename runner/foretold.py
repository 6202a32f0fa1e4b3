"""How many of a step's model calls are known already: it is walked with the ledger, and none made.

What comes out of items that are yet to be done is unknown; what they are called mostly is not, and
that is what the shape of a tree hangs on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from paddock.engine.errors import EngineError
from paddock.engine.request import (
    ChatRequest,
    Chunk,
    EmbedReply,
    EmbedRequest,
    Message,
    ModelFacts,
    ModelSpec,
    Pool,
    Reply,
    Stream,
    Tool,
)
from paddock.pipelines.expressions import ExpressionError, Value
from paddock.steps.step import Foreseen, NotKnown, StepError
from paddock.steps.storage import ItemName

from .binding.bound import BoundBlock, BoundStep
from .binding.parameters import BindError
from .block_run import BlockRun
from .body import steps_of
from .calls import LedgerPool
from .freshness import CONTENT, canonical, is_file
from .ledger.entries import Entry
from .ledger.ledger import Ledger
from .ledger.origins import Origins
from .replying import AskedFor
from .scope import Scope
from .tools import Toolbox
from .work import ItemWork

MOST_S = 3.0
"""A plan does not wait longer for one step's calls to be looked up; it estimates them instead."""
_CHARS_A_TOKEN = 4


async def foretold(
    step: BoundStep, scope: Scope, toolbox: Toolbox, scope_id: str
) -> Foreseen | None:
    """Tell how many calls a step would make over a scope; None where that cannot be told."""
    if not can_be_foretold(step):
        return None
    caller = toolbox.caller(scope_id, step, step.id, None)
    name = ItemName(step.id, step.id)
    tools = toolbox.tools(step, caller, toolbox.outputs(scope_id, step.id), name)
    known = LedgerPool(
        Unasked(toolbox.pool), toolbox.ledger, toolbox.digests, toolbox.tally, caller
    )
    reply = None if step.reply is None else AskedFor(step.reply, scope)
    try:
        async with asyncio.timeout(MOST_S):
            params = step.params.render(scope)
            asked = replace(tools, pool=known, reply=reply)
            seen: Foreseen = await step.kind().foresee(params, asked)  # type: ignore[attr-defined]
    except (StepError, EngineError, ExpressionError, BindError, TimeoutError):
        return None
    return seen


def can_be_foretold(step: BoundStep) -> bool:
    """Tell whether a step can be walked without asking a model."""
    return hasattr(step.kind, "foresee")


def guessed(run: BlockRun) -> dict[str, Any]:
    """Give what a block will offer, as far as it can be known before its items are done."""
    from paddock.steps.foreseeing import UNKNOWN  # with all that folds; few plans have such a step

    def rendered(part: Value, scope: Scope, key: str) -> Any:
        try:
            return part.render(scope)
        except ExpressionError:
            return f"{UNKNOWN} {key}"

    block = run.block
    written = block.returns.data if block.returns is not None else None
    fields = written if isinstance(written, dict) else {}
    parts = {name: Value.of(text, bare=True) for name, text in fields.items()}
    results = list(run.results)
    for item in run.todo():
        scope = run.scope.child(block.var, item.item)
        found = {name: rendered(part, scope, item.key) for name, part in parts.items()}
        results[item.index] = found or {"text": f"{UNKNOWN} {item.key}"}
    offered = run.offered()
    return {**offered, "results": [result for result in results if result is not None]}


Asked = tuple[str, str, str]
"""Of what an item's calls are made, whatever its name: its content, kind of file, and the rest."""


def asked_of(item: ItemWork) -> Asked:
    """Say of what an item's calls are made."""
    if not is_file(item.item):
        return "", "", item.hash
    return item.item["sha256"], _suffix(item.item.get("path", "")), _but_content(item.parts)


def asked_before(
    ledger: Ledger, scope: str, entries: Mapping[str, Entry], wanted: Collection[Asked]
) -> Iterator[tuple[Asked, str]]:
    """Give which of these the calls of items were made of, and their keys.

    One that is quarantined fails as it did, after the calls that it made.
    """
    contents = {content for content, _, _ in wanted}
    made = Origins(ledger).made_of(scope) if contents - {""} else {}
    for key, entry in entries.items():
        if entry.state not in ("done", "quarantined"):
            continue
        asked = "", "", entry.hash
        if key in made and made[key].source:
            source = made[key].made["source"]
            if source["sha256"] not in contents:
                continue
            asked = source["sha256"], _suffix(source["path"]), _but_content(entry.parts)
        if asked in wanted:
            yield asked, key


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _but_content(parts: str) -> str:
    return canonical({name: part for name, part in json.loads(parts).items() if name != CONTENT})


_REPEATABLE = frozenset(
    ("files.read", "files.rows", "files.write", "split", "prompt", "chat", "summarise", "embed",
     "reduce")
)  # fmt: skip
"""Steps that give the same of the same, where models are not asked anew."""


def offered_again(run: BlockRun, ledger: Ledger) -> dict[str, Any] | None:
    """Give what a block will offer whose items merely lack what they made: the same as before.

    None where something else is to be done, or where it may turn out otherwise.
    """
    todo = run.todo()
    if todo and not (all(i.verdict.is_remade for i in todo) and _is_repeatable(run.block)):
        return None
    for item in todo:
        if item.entry is not None:
            run.results[item.index] = ledger.value(item.entry.returns, item.entry.returns_object)
        run.counts[item.verdict.state] += 1
        run.changed.append({"key": item.key, "state": item.verdict.state})
    return run.offered()


def _is_repeatable(block: BoundBlock) -> bool:
    """Tell whether doing an item once more gives what it gave before."""
    last = block.body[-1]
    if block.returns is None and isinstance(last, BoundStep) and last.uses == "files.write":
        return False  # whether the file was changed is another matter the next time
    if block.returns is not None and any("changed" in path for path in block.returns.references):
        return False
    return all(step.uses in _REPEATABLE and step.cache for step in steps_of(block.body))


class Unasked:
    """Implements `paddock.engine.request.Pool`: asks no model, and counts by the length alone."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def facts(self, model: ModelSpec) -> ModelFacts:
        """Tell what is known of a model."""
        return await self._pool.facts(model)

    async def count_chat(
        self, model: ModelSpec, messages: Sequence[Message], tools: Sequence[Tool] = ()
    ) -> int:
        """Estimate a prompt's tokens."""
        return sum(len(message.content) // _CHARS_A_TOKEN + 4 for message in messages)

    async def count_texts(self, model: ModelSpec, texts: Sequence[str]) -> list[int]:
        """Estimate each text's tokens."""
        return [len(text) // _CHARS_A_TOKEN for text in texts]

    def chat(self, request: ChatRequest) -> Stream:
        """Give a stream that says that nothing is known."""
        return _Silent()

    async def embed(self, request: EmbedRequest) -> EmbedReply:
        """Say that nothing is known.

        Raises:
            NotKnown: always.
        """
        raise NotKnown


class _Silent:
    """Implements `paddock.engine.request.Stream` for a call that is not made."""

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        raise NotKnown
        yield  # makes it a generator

    async def reply(self) -> Reply:
        """Say that nothing is known.

        Raises:
            NotKnown: always.
        """
        raise NotKnown

    def cancel(self) -> None:
        """Do nothing."""
