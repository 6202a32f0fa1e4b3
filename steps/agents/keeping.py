"""What is kept of turns that no longer fit into the context: the model's notes, or their texts.

Notes are made when turns go; of texts, those that are nearest to the latest turn come back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from paddock.engine.request import EmbedRequest, Message, ModelSpec
from paddock.engine.system import private
from paddock.steps.answers.asking import Asker
from paddock.steps.answers.fitting import most, without_middle
from paddock.steps.step import StepError
from paddock.steps.storage import EmbedModel, ItemName, Row, Store

from .memory import Turn
from .speech import marked

_SYSTEM = "You keep the notes of somebody who works on a task. You add nothing of your own."
_MOST_NOTES_TOKENS = 512
_NEAREST = 3
_NEAREST_CHARS = 2_000
"""Of each turn that comes back: three of them are about 1,500 tokens at most."""


@dataclass
class Notes:
    """Keeps notes that the model makes of turns before they go."""

    asker: Asker
    limited: Asker
    """The same with a limit to what it says, at which it may end: notes are no answer."""
    task: str
    told: str = "summed up"
    _notes: str = ""

    async def add(self, turns: Sequence[Turn]) -> None:
        """Fold turns into the notes, one after the other."""
        for turn in turns:
            reply = await self.limited.ask(await self._fitting(turn.words))
            self._notes = reply.text.strip() or self._notes

    async def words(self, about: str) -> str:
        """Give the notes."""
        return f"Your notes on what you have done so far:\n{marked(self._notes)}"

    async def close(self) -> None:
        """Do nothing."""

    def _messages(self, words: str) -> list[Message]:
        before = f"Notes so far:\n{marked(self._notes)}\n\n" if self._notes else ""
        return [
            Message("system", _SYSTEM),
            Message(
                "user",
                f"Task:\n{self.task}\n\n{before}New:\n{words}\n\nWrite the notes anew, in "
                "few words, with all facts, names and numbers that the task needs.",
            ),
        ]

    async def _fitting(self, words: str) -> list[Message]:
        async def fits(n: int) -> bool:
            messages = self._messages(without_middle(words, n))
            return await self.limited.overflow(messages) is None

        n = await most(fits, len(words))
        if n == 0 and words:
            raise await self.limited.overflow(self._messages("")) or StepError(
                "the task leaves no room for notes.", remedy="Raise the model's `ctx`."
            )
        self.asker.characters_cut += len(words) - n
        return self._messages(without_middle(words, n))


async def notes(asker: Asker, task: str) -> Notes:
    """Give a memory of notes."""
    limit = max(1, min(_MOST_NOTES_TOKENS, await asker.room() // 4))
    return Notes(asker, replace(asker, params={**asker.params, "max_tokens": limit}), task)


@dataclass
class Recalled:
    """Keeps turns in a vector store, for as long as the conversation lasts."""

    asker: Asker
    embedder: ModelSpec
    folder: Path
    name: str
    item: ItemName
    told: str = "put into the store, from where the nearest came back"
    _store: Store | None = None
    _rows: list[Row] = field(default_factory=list)

    async def add(self, turns: Sequence[Turn]) -> None:
        """Write turns to the store."""
        vectors = await self._vectors([turn.words for turn in turns])
        for turn, vector in zip(turns, vectors, strict=True):
            self._rows.append(Row(len(self._rows), turn.words, vector))
        store = await self._opened(len(vectors[0]))
        await store.replace(self.item, self._rows)

    async def words(self, about: str) -> str:
        """Give the turns that are nearest to the latest one, in their order."""
        if not self._rows:
            return ""
        (vector,) = await self._vectors([about])
        store = await self._opened(len(vector))
        found = await store.nearest(vector, _NEAREST, {"item": self.item.key})
        own = sorted((hit.index, hit.text) for hit in found if hit.step == self.item.step)
        texts = [without_middle(text, _NEAREST_CHARS) for _, text in own]
        return f"From earlier in this conversation:\n{marked(chr(10).join(texts))}" if own else ""

    async def close(self) -> None:
        """Take the turns out of the store again."""
        if self._store is not None:
            await self._store.replace(self.item, [])

    async def _opened(self, n_dimensions: int) -> Store:
        if self._store is None:
            facts = await self.asker.tools.pool.facts(self.embedder)
            model = EmbedModel(self.embedder.ref, facts.identity)
            # Another model's vectors cannot be compared with these, so it has a store of its own.
            path = self.folder / f"{self.name}-{facts.identity[:8]}.lance"
            self._store = await self.asker.tools.stores.open(path, n_dimensions, model)
        return self._store

    async def _vectors(self, texts: Sequence[str]) -> list[Sequence[float]]:
        tools = self.asker.tools
        request = EmbedRequest(
            self.embedder,
            tuple(texts),
            priority=tools.priority,
            total_s=tools.total_s,
            on_overflow="split",
        )
        return list((await tools.pool.embed(request)).vectors)


def recalled(asker: Asker) -> Recalled:
    """Give a memory in a store of the step's own, beside the pipeline's ledger."""
    tools = asker.tools
    name = "".join(char if char.isalnum() else "_" for char in tools.item.step) or "agent"
    folder = private.folder(tools.roots.base / ".paddock" / "memory")
    own = f"{tools.item.owner} (memory)"  # rows of its own, which no item of the pipeline has
    item = replace(tools.item, step=f"{tools.item.step} (memory)", owner=own)
    return Recalled(asker, tools.models.resolve(None, "embed"), folder, name, item)
