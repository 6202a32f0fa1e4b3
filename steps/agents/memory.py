"""Keep a conversation within the context: its oldest turns go, whole, and what is kept of them.

`window` keeps nothing of them, `summary` notes by the model, `store` their texts, of which the
nearest come back. The system's words and the task always stay. Knows no tools.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from paddock.engine.request import Message, Tool, ToolCall
from paddock.steps.answers.asking import Asker
from paddock.steps.answers.fitting import most, without_middle

from .speech import Given, marked

_SHARE_OF_RESULTS = 0.6
"""Of the room beside the task: more, and a turn later nothing else is left of the conversation."""
_CALM = 0.75
"""So full it is after turns went: or one would go at each turn, and no prompt begin as the last."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What the model said, and what its calls gave: it stays or goes as a whole."""

    said: Message
    results: tuple[Message, ...]
    words: str
    """The same in plain words."""
    found: str = ""
    """Of these, what calls gave that went well."""

    @property
    def messages(self) -> list[Message]:
        """Give it as the model is shown it."""
        return [self.said, *self.results]


def in_words(text: str, given: Sequence[Given]) -> str:
    """Write a turn in plain words."""
    calls = [f"{_shown(one.call)} gave:\n{marked(one.text)}" for one in given]
    return "\n\n".join(filter(None, [text, *calls]))


def _shown(call: ToolCall) -> str:
    return f"{call.name} {json.dumps(dict(call.arguments), ensure_ascii=False)}"


class Kept(Protocol):
    """What is kept of turns that are no longer shown."""

    async def add(self, turns: Sequence[Turn]) -> None:
        """Take turns that go now, the oldest first."""
        ...

    async def words(self, about: str) -> str:
        """Give what to tell of them beside the task; empty for nothing."""
        ...

    async def close(self) -> None:
        """Let go of all of them: the conversation has ended."""
        ...

    @property
    def told(self) -> str:
        """Say what becomes of turns that go, for the person who reads the report."""
        ...


class Nothing:
    """Keeps nothing."""

    told = "left out"

    async def add(self, turns: Sequence[Turn]) -> None:
        """Let them go."""

    async def words(self, about: str) -> str:
        """Tell nothing."""
        return ""

    async def close(self) -> None:
        """Do nothing."""


@dataclass
class Memory:
    """One conversation: its beginning, and of its turns those that fit."""

    asker: Asker
    tools: Sequence[Tool]
    head: list[Message]
    """The system's words and the task, which is the last of them."""
    kept: Kept
    turns: list[Turn] = field(default_factory=list)
    _n_gone: int = 0

    async def shown(self, closing: str = "") -> list[Message]:
        """Give what the model is shown now: all of it fits, and `closing` is said last.

        Raises:
            PromptTooLong: the beginning and the last turn alone do not fit.
        """
        messages = await self._with(self._n_gone, closing)
        overflow = await self.asker.overflow(messages, self.tools)
        if overflow is None:
            return messages
        most_gone = len(self.turns) - 1
        goal = _CALM * await self.asker.room()
        while self._n_gone < most_gone:
            n_gone = self._n_gone + await self._n_to_go(goal)
            gone = self.turns[self._n_gone : n_gone]
            self._n_gone = n_gone
            await self.kept.add(gone)
            messages = await self._with(self._n_gone, closing)
            overflow = await self.asker.overflow(messages, self.tools)
            if overflow is None:
                return messages
        bare = self._beside("", self._n_gone, closing)
        if await self.asker.overflow(bare, self.tools):
            raise overflow
        return bare  # what is kept of the others finds no room beside the last turn

    async def in_plain_words(self, messages: Sequence[Message]) -> list[Message]:
        """Give `messages` without any talk of tools, with what they gave before the last of them.

        As many of the latest turns as fit; before the task, since small models lose what stands
        before a long text (tried with 135M).

        Raises:
            PromptTooLong: not even the last turn fits.
        """
        last = messages[-1]
        for n_gone in range(self._n_gone, max(len(self.turns), self._n_gone + 1)):
            found = "\n\n".join(turn.found for turn in self.turns[n_gone:] if turn.found)
            kept = await self.kept.words(found) if self._n_gone else ""
            content = "\n\n".join(filter(None, [kept, found, last.content]))
            plain = [*messages[:-1], replace(last, content=content)]
            overflow = await self.asker.overflow(plain)
            if overflow is None:
                self._n_gone = n_gone
                return plain
        assert overflow is not None
        raise overflow

    async def _n_to_go(self, goal: float) -> int:
        """Tell how many turns, one at least, must go for the others to leave some room."""
        n_most = len(self.turns) - 1 - self._n_gone
        for n in range(1, n_most):
            left = self._beside("", self._n_gone + n, "")
            if await self.asker.size(left, self.tools) <= goal:
                return n
        return n_most

    async def _with(self, n_gone: int, closing: str) -> list[Message]:
        about = self.turns[-1].words if self.turns else ""
        return self._beside(await self.kept.words(about) if n_gone else "", n_gone, closing)

    def _beside(self, words: str, n_gone: int, closing: str) -> list[Message]:
        head = list(self.head)
        if words:
            head[-1] = replace(head[-1], content=f"{head[-1].content}\n\n{words}")
        messages = [*head, *(one for turn in self.turns[n_gone:] for one in turn.messages)]
        return [*messages, Message("user", closing)] if closing else messages

    async def fitting(self, said: Message, given: Sequence[Given]) -> list[Given]:
        """Cut results that would leave no room for anything else, and say so."""
        room = await self.asker.room() - await self.asker.size([*self.head, said], self.tools)
        limit = max(0, int(room * _SHARE_OF_RESULTS)) // max(1, len(given))
        return [await self._cut(one, limit) for one in given]

    async def _cut(self, given: Given, limit: int) -> Given:
        text = given.text
        if len(text) <= limit:  # a token has a character at least
            return given

        def shortened(n: int) -> str:
            return without_middle(text, n, f"\n[… {len(text) - n:,} characters left out …]\n")

        async def fits(n: int) -> bool:
            return (await self.asker.count([shortened(n)]))[0] <= limit

        n = await most(fits, len(text))
        if n == len(text):
            return given
        self.asker.characters_cut += len(text) - n
        self.asker.tools.log.note(
            f"the result of '{given.call.name}' is too long to stand beside the task: "
            f"{len(text) - n:,} of its {len(text):,} characters were left out of its middle."
        )
        return Given(given.call, shortened(n))

    def tell(self) -> None:
        """Note what was not shown to the end."""
        if self._n_gone:
            turns = "turn was" if self._n_gone == 1 else "turns were"
            self.asker.tools.log.note(
                f"the conversation outgrew the context: its {self._n_gone} oldest {turns} "
                f"{self.kept.told}."
            )
