"""Make notes fit into prompts of their own, as far as their author allows that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from paddock.steps.answers.asking import Asker
from paddock.steps.answers.fitting import head, most
from paddock.steps.folding import Messages, Note, shown
from paddock.steps.pieces import cut

_MARGIN_TOKENS = 8
_MOST_CUTS = 8


async def fitting(
    notes: Sequence[Note], asker: Asker, messages: Messages, on_overflow: str
) -> list[Note]:
    """Give the notes, those that are too long cut as `on_overflow` says, the others as they are.

    With `error` they are given as they are: whoever folds them says which does not fit.

    Raises:
        PromptTooLong: not even an empty note fits.
    """
    if on_overflow == "error":
        return list(notes)
    sizes = await asker.count([note.text for note in notes])
    empty = await asker.size(messages(notes[:1], 0)) - sizes[0]
    limit = await asker.room() - empty - _MARGIN_TOKENS
    made: list[Note] = []
    for note, size in zip(notes, sizes, strict=True):
        # What is close to the limit is counted in its prompt, which may name it twice.
        if 2 * size <= limit or await asker.overflow(messages([note], 0)) is None:
            made.append(note)
        elif on_overflow == "truncate":
            made.append(await _beginning(note, asker, messages))
        else:
            made += await _parts(note, asker, messages, max(1, limit))
    return made


async def _beginning(note: Note, asker: Asker, messages: Messages) -> Note:
    def kept(n: int) -> Note:
        text = head(note.text, n)
        return replace(note, text=text, value=text)

    async def fits(n: int) -> bool:
        return await asker.overflow(messages([kept(n)], 0)) is None

    n = await most(fits, len(note.text))
    overflow = None if n else await asker.overflow(messages([kept(0)], 0))
    if overflow is not None:
        raise overflow
    n_characters = len(note.text) - len(kept(n).text)
    asker.characters_cut += n_characters
    asker.tools.log.note(
        f"only the first {len(kept(n).text):,} of {len(note.text):,} characters of "
        f"'{shown(note.name)}' were read (on_overflow: truncate)."
    )
    return kept(n)


async def _parts(note: Note, asker: Asker, messages: Messages, limit: int) -> list[Note]:
    overflow = None
    for _ in range(_MOST_CUTS):
        pieces = await cut(note.text, n_tokens=limit, count=asker.count)
        parts = [
            Note(f"{note.name}#{number}", piece.text, piece.text)
            for number, piece in enumerate(pieces, 1)
        ]
        longest = max(zip(pieces, parts, strict=True), key=lambda pair: pair[0].n_tokens)[1]
        overflow = await asker.overflow(messages([longest], 0))
        if overflow is None:
            return parts
        limit = max(1, limit * 3 // 4)
    assert overflow is not None
    raise overflow
