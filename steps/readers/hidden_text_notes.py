"""Text that a document does not show: it is read like all other text, and noted on the item.

Each reader finds what its kind can hide. `html`: styles, and ink of the paper's colour; also of
`mail` and `epub`. `word`: hidden runs and styles. `powerpoint`, `office`: hidden slides and shapes,
those beside a slide. `spreadsheets`: sheets, rows, columns and cells. `pdf`: what a page does not
draw.
"""

from __future__ import annotations

from collections.abc import Sequence

from .reader import text_sample


def hidden_text_note(what: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Return the note that `what` hides these texts, which are read like all others.

    >>> hidden_text_note("the page", ["Pay  twice"])
    (": text that the page does not show is read as well (10 characters: 'Pay twice')",)
    """
    shown = f": text that {what} does not show is read as well ({text_sample(texts)})"
    return (shown,) if texts else ()


def hidden_sheet_notes(sheets: list[str], parts: list[str]) -> list[str]:
    notes = [f": hidden sheets are read as well ({', '.join(sheets)})"] if sheets else []
    if parts:
        notes.append(f": hidden rows, columns and cells are read as well ({'; '.join(parts)})")
    return notes
