"""Trials of constraints: a new one is first compiled in a process with limits.

A client may send any, and llguidance expands some small schemas without end and ends its process on
others.
"""

from __future__ import annotations

from paddock.engine.errors import BadRequest
from paddock.engine.request import Constraint
from paddock.engine.system.processes import FrameProcess, python_command

MOST_GRAMMAR_CHARACTERS = 512 * 1024
"""Of a schema or grammar; the largest real ones have some 50,000."""
MOST_PATTERN_CHARACTERS = 32 * 1024
TRIAL_CPU_S = 3
"""For one trial: 5,000 optional properties take 2.1 s, a usual schema 1 ms."""
TRIAL_WALL_S = 60.0
"""The same on a busy machine."""
TRIAL_MEMORY_BYTES = 512 * 1024 * 1024
"""Beyond what the process has at its start."""
TRIAL_COMMAND = python_command("-m", "paddock.engine.sampling.constraint_trial_process")

CONSTRAINT_NAMES = {
    "json": "JSON",
    "json_schema": "the JSON Schema",
    "regex": "the regular expression",
    "lark": "the Lark grammar",
}


class ConstraintTrials:
    def __init__(self) -> None:
        self._process = FrameProcess(TRIAL_COMMAND)

    def check(self, constraint: Constraint) -> None:
        """Compile a constraint in the subprocess.

        Raises:
            BadRequest: it cannot be enforced, or costs too much to compile.
        """
        is_pattern = constraint.kind == "regex"
        most = MOST_PATTERN_CHARACTERS if is_pattern else MOST_GRAMMAR_CHARACTERS
        n_characters, name = len(constraint.source), CONSTRAINT_NAMES[constraint.kind]
        if n_characters > most:
            raise BadRequest(f"{name} has {n_characters:,} characters; the limit is {most:,}")
        order = {"kind": constraint.kind, "source": constraint.source}
        answer = self._process.ask(order, TRIAL_WALL_S)
        if answer is None:
            raise BadRequest(
                f"{name} is too complex: it cannot be compiled within {TRIAL_CPU_S} s and "
                f"{TRIAL_MEMORY_BYTES // 2**20} MiB. Use fewer options, `$ref`s or repetitions"
            )
        if answer["why"]:
            raise BadRequest(answer["why"])

    def close(self) -> None:
        self._process.close()
