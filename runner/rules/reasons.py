"""Why no reading of a field is sure, and why a decision teaches nothing; values are sentences."""

from __future__ import annotations

from enum import Enum


class WhyOpen(Enum):
    """Why a person is asked about a field."""

    SEVERAL_DOCUMENTS = "several documents were read, or none"
    TOO_LONG = "the document is too long for rules"
    OCR = "it was read by OCR"
    NEW_SENDER = "nothing was decided on this sender"
    NEW_LAYOUT = "the papers of this sender looked otherwise"
    SEVERAL_FIT = "two senders or layouts fit"
    OTHER_ACCOUNT = "an IBAN is new for this sender"
    NEW_LINE = "a line, more or less than before, may tell it"
    OTHER_NAMED = "its text names another choice than was decided"
    DIFFERENT = "decisions on this sender and layout differ"
    NO_PLACE = "its value stood nowhere, or each time elsewhere"
    NO_VALUE = "its label or a value of its form is missing, or it has two"
    NEW_LABEL = "a label is new beside it"
    NEW_AROUND = "what stands around its number is new"
    TWO_READINGS = "two readings of it differ"
    DECIDED_OTHERWISE = "it was decided otherwise than an e-invoice of this seller states it"
    REFUSED = "what was read is not valid by schema or checks"


class NoRule(Enum):
    """Why a decision makes no rule, besides some of the above."""

    TOGETHER = "accepted together with others: no one looked at it"
    GONE = "its document is deleted"
    NOT_UNSURE = "its step does not ask `when: unsure`"
    NO_SENDER = "no decided name, short and without digits, has its own cell: the sender is unknown"
    DIFFERENT = "decisions on this sender and layout differ in a field that is always the same"
