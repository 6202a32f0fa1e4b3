"""A reading: the value of one field of a document, and who says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from paddock.engine.system.records import Struct

Witness = Literal["person", "rule", "xml"]


class Reading(Struct, frozen=True, gc=False):
    value: Any
    witness: Witness
    decisions: tuple[str, ...] = ()
    """Ids of the decisions that a rule's rests on."""
    label: str = ""
    """What governs its place; empty: it is the same in all documents of this sender and layout."""

    @property
    def decision(self) -> str:
        """The id of the first of these; empty: it rests on none."""
        return self.decisions[0] if self.decisions else ""

    @property
    def source(self) -> Mapping[str, Any]:
        """It without its value, as outputs and questions have it."""
        if self.witness != "rule":
            return {"by": self.witness}
        return {"by": self.witness, "decision": self.decision, "label": self.label}


def values_of(readings: Mapping[str, Reading]) -> dict[str, Any]:
    return {name: reading.value for name, reading in readings.items()}
