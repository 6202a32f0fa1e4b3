"""Walk a tree of notes without asking a model: what would be asked, and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from paddock.engine.request import Reply, Usage
from paddock.steps.answers.asking import Asker
from paddock.steps.answers.structured import Answer
from paddock.steps.folding import Folder, Messages, Note
from paddock.steps.step import UNKNOWN, NotKnown, ReplyForm


@dataclass
class Counting:
    """How many calls there would be, and how many replies are known."""

    n_calls: int = 0
    n_known: int = 0

    def folder(self, asker: Asker, messages: Messages, fanin: int) -> ForeseeingFolder:
        """Give a folder that counts here."""
        return ForeseeingFolder(asker, messages, fanin, self)


@dataclass(frozen=True)
class ForeseeingFolder(Folder):
    """Folds what is known; an answer that is not known makes those above it unknown as well."""

    seen: Counting = field(default_factory=Counting)

    async def _ask(self, notes: Sequence[Note], level: int, form: ReplyForm | None) -> Answer:
        self.seen.n_calls += 1
        if any(UNKNOWN in note.text for note in notes):
            return _unknown(form)
        try:
            answer = await super()._ask(notes, level, form)
        except NotKnown:
            return _unknown(form)
        self.seen.n_known += 1
        return answer


def _unknown(form: ReplyForm | None) -> Answer:
    output: Any = None if form is None or form.schema is None else {}
    return Answer(UNKNOWN, output, Reply(UNKNOWN, "stop", Usage(), ""))
