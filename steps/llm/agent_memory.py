"""Memory of an agent: keep its conversation within the context by dropping old turns.

`window` keeps nothing of dropped turns; `summary` keeps notes that the model makes when turns are
dropped; `store` keeps their texts in a vector store, of which those nearest to the latest turn
come back. The system message and the task always stay. Knows no tools.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from paddock.engine.request import Message, ModelSpec, Tool
from paddock.engine.system import private_files
from paddock.engine.system.records import Struct, field, replace
from paddock.engine.system.text import without_middle
from paddock.steps.base import EmbedModel, ItemName, Vector, VectorRow, VectorStore
from paddock.steps.vectors.embed import embed_texts

from .ask_and_repair import ModelCaller
from .prompt_truncation import most_that_fits
from .tool_calls import CallResult
from .tool_protocol import as_data

_MOST_RESULTS_SHARE = 0.6
"""Of the context without the task: with more, one turn would push out all others."""
_TARGET_FILL_SHARE = 0.75
"""How full the context is after dropping turns, so that not every turn changes the prefix."""


class AgentTurn(Struct, frozen=True):
    message: Message
    results: tuple[Message, ...]
    words: str
    """The same as plain text."""
    found: str = ""
    """The results of successful calls."""

    @property
    def messages(self) -> list[Message]:
        return [self.message, *self.results]


def turn_text(text: str, given: Sequence[CallResult]) -> str:
    parts = [text]
    for result in given:
        arguments = json.dumps(dict(result.call.arguments), ensure_ascii=False)
        parts.append(f"{result.call.name} {arguments} gave:\n{as_data(result.text)}")
    return "\n\n".join(filter(None, parts))


class ConversationMemory(Struct):
    """One conversation: its first messages, and the turns that fit."""

    caller: ModelCaller
    tools: Sequence[Tool]
    head: list[Message]
    """The system message and the task, which is last."""
    kept: TurnStore | None
    """Of dropped turns; None: they are lost."""
    turns: list[AgentTurn] = field(default_factory=list)
    _n_gone: int = 0

    async def shown(self, closing: str = "", *, counts: bool = True) -> list[Message]:
        """Return the messages of the next prompt; `closing` is the last one.

        Without `counts` they may not fit, which the pool finds out.

        Raises:
            PromptTooLong: the beginning and the last turn alone do not fit.
        """
        while True:
            about = self.turns[-1].words if self.turns else ""
            messages = self._beside(await self._words(about), self._n_gone, closing)
            overflow = await self.caller.overflow(messages, self.tools) if counts else None
            if overflow is None:
                return messages
            if self._n_gone >= len(self.turns) - 1:
                break
            n_gone = self._n_gone + await self._n_to_go()
            gone, self._n_gone = self.turns[self._n_gone : n_gone], n_gone
            if self.kept is not None:
                await self.kept.add(gone)
        bare = self._beside("", self._n_gone, closing)
        if await self.caller.overflow(bare, self.tools):
            raise overflow
        return bare  # what is kept of the others does not fit with the last turn

    async def in_plain_words(
        self, messages: Sequence[Message], *, counts: bool = True
    ) -> list[Message]:
        """Return `messages` without tool calls, with results of tools in front of the task.

        As many of the latest turns as fit; without `counts` all that are left. The task is last,
        since small models lose what is before a long text (tried with 135M).

        Raises:
            PromptTooLong: not even the last turn fits.
        """
        last = messages[-1]
        for n_gone in range(self._n_gone, max(len(self.turns), self._n_gone + 1)):
            found = "\n\n".join(turn.found for turn in self.turns[n_gone:] if turn.found)
            recalled = await self._words(found)
            content = "\n\n".join(filter(None, [recalled, found, last.content]))
            plain = [*messages[:-1], replace(last, content=content)]
            overflow = await self.caller.overflow(plain) if counts else None
            if overflow is None:
                self._n_gone = n_gone
                return plain
        assert overflow is not None
        raise overflow

    async def _n_to_go(self) -> int:
        """Return how many turns, at least one, to drop so that the context has space again."""
        goal = _TARGET_FILL_SHARE * await self.caller.room()
        n_most = len(self.turns) - 1 - self._n_gone
        for n in range(1, n_most):
            shorter = self._beside("", self._n_gone + n, "")
            if await self.caller.size(shorter, self.tools) <= goal:
                return n
        return n_most

    async def _words(self, about: str) -> str:
        """Return text about dropped turns for the prompt; empty for nothing."""
        return await self.kept.words(about) if self._n_gone and self.kept is not None else ""

    def _beside(self, words: str, n_gone: int, closing: str) -> list[Message]:
        head = list(self.head)
        if words:
            head[-1] = replace(head[-1], content=f"{head[-1].content}\n\n{words}")
        messages = [*head, *(message for turn in self.turns[n_gone:] for message in turn.messages)]
        return [*messages, Message("user", closing)] if closing else messages

    async def fitting(self, turn: Message, given: Sequence[CallResult]) -> list[CallResult]:
        """Shorten results that would fill the context, with a note."""
        head, room = [*self.head, turn], await self.caller.room()
        n_bytes = max((_n_bytes(result.text) for result in given), default=0)

        def limit_beside(n_tokens: float) -> float:
            return max(0, (room - n_tokens) * _MOST_RESULTS_SHARE) // max(1, len(given))

        if n_bytes <= limit_beside(self.caller.most(head, self.tools)):
            return list(given)
        limit = int(limit_beside(await self.caller.size(head, self.tools)))
        return [await self._cut(result, limit) for result in given]

    async def _cut(self, given: CallResult, limit: int) -> CallResult:
        text = given.text
        if _n_bytes(text) <= limit:
            return given

        def shortened(n: int) -> str:
            return without_middle(text, n, f"\n[… {len(text) - n:,} characters left out …]\n")

        async def fits(n: int) -> bool:
            return (await self.caller.count([shortened(n)]))[0] <= limit

        n = await most_that_fits(fits, len(text))
        if n == len(text):
            return given
        self.caller.characters_cut += len(text) - n
        self.caller.tools.log.note(
            f"the result of '{given.call.name}' is too long for the context: "
            f"{len(text) - n:,} of its {len(text):,} characters were left out of the middle."
        )
        return replace(given, text=shortened(n))

    def note_dropped_turns(self) -> None:
        if self._n_gone:
            turns = "turn was" if self._n_gone == 1 else "turns were"
            self.caller.tools.log.note(
                f"the conversation outgrew the context: its {self._n_gone} oldest {turns} "
                f"{'left out' if self.kept is None else self.kept.outcome}."
            )


def _n_bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


_NOTES_SYSTEM = "You keep the notes of a person who works on a task. You add nothing of your own."
_MOST_NOTES_TOKENS = 512
_RECALLED_TURNS = 3
_RECALLED_CHARS = 2_000
"""Of each recalled turn: three of them are at most about 1,500 tokens."""


class TurnNotes(Struct):
    """Keeps notes of dropped turns, written by the model."""

    caller: ModelCaller
    limited: ModelCaller
    """The same with `max_tokens`: notes may end at a limit."""
    task: str
    outcome: str = "summarised"
    """What happened to dropped turns, for the report."""
    _notes: str = ""

    async def add(self, turns: Sequence[AgentTurn]) -> None:
        """Add dropped turns, the oldest first."""
        for turn in turns:
            reply = await self.limited.ask(await self._prompt(turn.words))
            self._notes = reply.text.strip() or self._notes

    async def words(self, about: str) -> str:
        return f"Your notes on what you have done so far:\n{as_data(self._notes)}"

    async def close(self) -> None: ...

    async def _prompt(self, words: str) -> list[Message]:
        before = f"Notes so far:\n{as_data(self._notes)}\n\n" if self._notes else ""

        def prompt(n: int) -> list[Message]:
            new = without_middle(words, n)
            order = (
                f"Task:\n{self.task}\n\n{before}New:\n{new}\n\nRewrite the notes, in "
                "few words, with all facts, names and numbers that the task needs."
            )
            return [Message("system", _NOTES_SYSTEM), Message("user", order)]

        n = await self.limited.most_characters(len(words), prompt) if words else 0
        self.caller.characters_cut += len(words) - n
        return prompt(n)


async def turn_notes(caller: ModelCaller, task: str) -> TurnNotes:
    limit = max(1, min(_MOST_NOTES_TOKENS, await caller.room() // 4))
    params = {**caller.params, "max_tokens": limit}
    limited = replace(caller, params=params, on_truncated="keep", noun="memory note")
    return TurnNotes(caller, limited, task)


class RecalledTurns(Struct):
    """Keeps dropped turns in a vector store until the conversation ends."""

    caller: ModelCaller
    embedder: ModelSpec
    folder: Path
    name: str
    item: ItemName
    outcome: str = "put into the store, from where the nearest came back"
    _store: VectorStore | None = None
    _rows: list[VectorRow] = field(default_factory=list)

    async def add(self, turns: Sequence[AgentTurn]) -> None:
        vectors = await self._vectors([turn.words for turn in turns])
        for turn, vector in zip(turns, vectors, strict=True):
            self._rows.append(VectorRow(len(self._rows), turn.words, vector))
        store = await self._opened(len(vectors[0]))
        await store.replace(self.item, self._rows)

    async def words(self, about: str) -> str:
        """Return the turns nearest to the latest one, in order; empty for none."""
        if not self._rows:
            return ""
        (vector,) = await self._vectors([about])
        store = await self._opened(len(vector))
        (found,) = await store.nearest([vector], _RECALLED_TURNS, {"item": self.item.key})
        own = sorted((hit.index, hit.text) for hit in found if hit.step == self.item.step)
        texts = [without_middle(text, _RECALLED_CHARS) for _, text in own]
        return f"From earlier in this conversation:\n{as_data(chr(10).join(texts))}" if own else ""

    async def close(self) -> None:
        if self._store is not None:
            await self._store.replace(self.item, [])

    async def _opened(self, n_dimensions: int) -> VectorStore:
        if self._store is None:
            facts = await self.caller.tools.llm.pool.facts(self.embedder)
            model = EmbedModel(self.embedder.ref, facts.identity)
            # Another model's vectors cannot be compared with these, so it has a store of its own.
            path = self.folder / f"{self.name}-{facts.identity[:8]}.lance"
            self._store = await self.caller.tools.stores.open(path, n_dimensions, model)
        return self._store

    async def _vectors(self, texts: Sequence[str]) -> Sequence[Vector]:
        tools = self.caller.tools
        return (await embed_texts(tools, self.embedder, texts, on_overflow="split")).vectors


TurnStore = TurnNotes | RecalledTurns
"""What is kept of dropped turns."""


def recalled_turns(caller: ModelCaller) -> RecalledTurns:
    """Return a memory in the step's own store, next to the pipeline's ledger."""
    tools = caller.tools
    name = "".join(char if char.isalnum() else "_" for char in tools.item.step) or "agent"
    folder = private_files.private_folder(tools.files.roots.base / ".paddock" / "memory")
    own = f"{tools.item.owner} (memory)"  # an owner that no item of the pipeline has
    item = replace(tools.item, step=f"{tools.item.step} (memory)", owner=own)
    return RecalledTurns(caller, tools.llm.models.resolve(None, "embed"), folder, name, item)
