"""Why no reading of a field is sure, and why a decision teaches nothing; values are sentences."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from paddock.engine.system.text import cell_text, listed, one_line


class WhyOpen(Enum):
    """Why a person is asked about a field."""

    SEVERAL_DOCUMENTS = "several documents were read, or none"
    TOO_LONG = "the document is too long for rules"
    OCR = "it was read by OCR"
    NEW_SENDER = "nothing was decided on this sender"
    NEW_LAYOUT = "the papers of this sender looked otherwise"
    OTHER_ACCOUNT = "possible fraud, another account"
    OTHER_CURRENCY = "a currency that this sender never had"
    FAR_LARGER = "ten times the largest of this sender"
    EARLIER_DAY = "a day before the last one of this sender"
    SAME_NUMBER = "another paper of this sender has it"
    NOT_IN_SCHEMA = "an e-invoice states what the schema cannot hold"
    LEFT_OVER = "new on this paper"
    DIFFERENT = "decisions on this sender and layout differ"
    NO_PLACE = "its value stood nowhere, or each time elsewhere"
    NO_VALUE = "no value of its form stands in its place"
    NO_SUM = "it is no sum of others, as it was each time"
    TWO_READINGS = "two readings of it differ"
    DECIDED_OTHERWISE = "it was decided otherwise than an e-invoice of this seller states it"
    REFUSED = "what was read is not valid by schema or checks"

    @classmethod
    def named(cls, name: str) -> WhyOpen:
        """Return the reason of a stored name, in small letters; those of earlier rules are gone."""
        return cls.__members__.get(name.upper(), cls.LEFT_OVER)


DOUBTS = frozenset((
    WhyOpen.OTHER_ACCOUNT, WhyOpen.OTHER_CURRENCY, WhyOpen.FAR_LARGER, WhyOpen.EARLIER_DAY,
    WhyOpen.SAME_NUMBER, WhyOpen.NOT_IN_SCHEMA,
))  # fmt: skip
"""Those that no decision on another document takes away."""


class NoRule(Enum):
    """Why a decision makes no rule, besides some of the above."""

    TOGETHER = "accepted together with others: no one looked at it"
    GONE = "its document is deleted"
    NOT_UNSURE = "its step does not ask `when: unsure`"
    NO_SENDER = "no decided name, short and without digits, has its own cell: the sender is unknown"
    DIFFERENT = "decisions on this sender and layout differ in a field that is always the same"


def why_text(how: Mapping[str, Any], n_most: int = 5) -> str:
    """Return why a field is open, of its reading, with what is in doubt, or left over.

    >>> why_text({"open": "left_over", "left": [["Storno", 9, 15, "k"], ["Paid", -1, -1, "m"]]})
    'new on this paper: “Storno”, “Paid” is missing'
    >>> why_text({"open": "far_larger", "new": [1200], "known": [120.5]})
    'ten times the largest of this sender (1200; so far 120.5)'
    """
    why = WhyOpen.named(how["open"])
    if why in DOUBTS:
        new, known = (", ".join(map(cell_text, how.get(name, ()))) for name in ("new", "known"))
        return f"{why.value} ({new}{known and '; so far '}{known})"
    left = how.get("left") or ()
    pieces = [f"“{one_line(text, 60)}”{' is missing' * (at < 0)}" for text, at, *_ in left]
    return f"{why.value}: {listed(pieces, n_most)}" if pieces else why.value
