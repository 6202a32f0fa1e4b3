"""Trials of constraints: a new one is first compiled in a process with limits.

A client may send any, and llguidance expands some small schemas without end and ends its process on
others.
"""

from __future__ import annotations

import re
from contextlib import closing
from functools import lru_cache

from paddock.engine.errors import BadRequest
from paddock.engine.request import Constraint
from paddock.engine.system.frames import FrameHead
from paddock.engine.trial_process import TrialProcess
from paddock.engine.wire import from_plain

from .json_schema import SchemaProblem

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
_SMALLER = "Ask for less in one answer, or look at it afterwards with `check`."
MARK_OF_GBNF = re.compile(r"^// @(\d+) ([\w-]+)$", re.MULTILINE)
"""In Lark that was made from GBNF: a comment before each rule, with its place there."""


def constraint_name(constraint: Constraint) -> str:
    is_gbnf = constraint.kind == "lark" and MARK_OF_GBNF.search(constraint.source)
    return "the GBNF grammar" if is_gbnf else CONSTRAINT_NAMES[constraint.kind]


class ConstraintTrials(TrialProcess):
    def __init__(self) -> None:
        super().__init__("paddock.engine.sampling.constraint_trial_process")

    def check(self, constraint: Constraint) -> Constraint:
        """Compile a constraint in the subprocess; return it, in Lark what is in GBNF.

        Raises:
            BadRequest: it cannot be enforced, or costs too much to compile.
            TrialTimeout: that is not known.
        """
        answer = self._answer(constraint)
        if answer["why"]:
            raise BadRequest(answer["why"])
        return Constraint("lark", answer["lark"]) if answer["lark"] else constraint

    def schema_problems(self, source: str, *, compiles: bool) -> tuple[SchemaProblem, ...]:
        """Return why no model can be held to a JSON Schema, with places.

        Without `compiles` the schema may be too costly for that.

        Raises:
            TrialTimeout: that is not known.
        """
        try:
            answer = self._answer(Constraint("json_schema", source), places=True, compiles=compiles)
        except BadRequest as error:
            return (SchemaProblem((), str(error), _SMALLER),)
        problems = from_plain(tuple[SchemaProblem, ...], answer["problems"])
        if answer["why"] and not problems:
            return (SchemaProblem((), answer["why"], _SMALLER),)
        return problems

    def _answer(self, constraint: Constraint, **flags: bool) -> FrameHead:
        is_pattern = constraint.kind == "regex"
        most = MOST_PATTERN_CHARACTERS if is_pattern else MOST_SOURCE_CHARACTERS
        n_characters, name = len(constraint.source), constraint_name(constraint)
        if n_characters > most:
            raise BadRequest(f"{name} has {n_characters:,} characters; the limit is {most:,}")
        order = {"kind": constraint.kind, "source": constraint.source, **flags}
        return self.ask(order, name, "Use fewer options, `$ref`s or repetitions")


@lru_cache(64)  # `up` checks its pipelines again and again
def schema_problems(source: str, *, compiles: bool) -> tuple[SchemaProblem, ...]:
    with closing(ConstraintTrials()) as trials:
        return trials.schema_problems(source, compiles=compiles)
