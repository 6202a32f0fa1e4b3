"""Trials of constraints: a new one is first compiled in a process with limits.

A client may send any, and llguidance expands some small schemas without end and ends its process on
others.
"""

from __future__ import annotations

import re

from paddock.engine.errors import BadRequest
from paddock.engine.request import Constraint
from paddock.engine.trial_process import TRIAL_WALL_S, TrialProcess

MOST_SOURCE_CHARACTERS = 512 * 1024
"""Of a schema, or of what a grammar becomes; the largest real ones have some 50,000."""
MOST_GRAMMAR_CHARACTERS = 100_000
MOST_PATTERN_CHARACTERS = 32 * 1024
CONSTRAINT_NAMES = {
    "json": "JSON",
    "json_schema": "the JSON Schema",
    "regex": "the regular expression",
    "lark": "the Lark grammar",
    "gbnf": "the GBNF grammar",
}


MARK_OF_GBNF = re.compile(r"^// @(\d+) ([\w-]+)$", re.MULTILINE)
"""In Lark that was made from GBNF: a comment before each rule, with its place there."""


def constraint_name(constraint: Constraint) -> str:
    is_gbnf = constraint.kind == "lark" and MARK_OF_GBNF.search(constraint.source)
    return "the GBNF grammar" if is_gbnf else CONSTRAINT_NAMES[constraint.kind]


class ConstraintTrials(TrialProcess):
    def __init__(self) -> None:
        super().__init__("paddock.engine.sampling.constraint_trial_process")

    def check(self, constraint: Constraint, within_s: float = TRIAL_WALL_S) -> Constraint:
        """Compile a constraint in the subprocess; return it, in Lark what is in GBNF.

        Raises:
            BadRequest: it cannot be enforced, or costs too much to compile.
            TrialTimeout: that is not known.
        """
        is_pattern = constraint.kind == "regex"
        most = MOST_PATTERN_CHARACTERS if is_pattern else MOST_SOURCE_CHARACTERS
        n_characters, name = len(constraint.source), constraint_name(constraint)
        if n_characters > most:
            raise BadRequest(f"{name} has {n_characters:,} characters; the limit is {most:,}")
        order = {"kind": constraint.kind, "source": constraint.source}
        answer = self.ask(order, name, "Use fewer options, `$ref`s or repetitions", within_s)
        if answer["why"]:
            raise BadRequest(answer["why"])
        return Constraint("lark", answer["lark"]) if answer["lark"] else constraint
