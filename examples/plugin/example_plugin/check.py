"""A check function: None where all is well, else a sentence for a person and for the model."""

from __future__ import annotations


def calm(value: str) -> str | None:
    """Nobody shouts in it: no exclamation marks, no words in capitals."""
    if "!" in value:
        return "It has exclamation marks; write calm sentences."
    shouted = [word for word in value.split() if len(word) > 4 and word.isupper()]
    return f"'{shouted[0]}' stands in capitals; write calm words." if shouted else None
