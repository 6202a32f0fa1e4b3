"""Marks that no message may have: two full stops, one after a space, an escaped line end."""

import re

import pytest

from paddock.pipelines.errors import PipelineError
from paddock.runner.progress import printing
from paddock.steps.base import StepError

_STRAY = re.compile(
    r"(?<!\.)\.\.(?=\s|$)|(?<=\S) [.,;](?=\s|$)|\.:(?=\s|$)|[?!]\.(?=\s|$)|[.:;,][;,](?=\s|$)|\\n"
)


def strays(text: str) -> list[str]:
    """Return each stray mark of a text with what stands around it.

    >>> strays("'x' is broken.. Mend it."), strays("see ../x ... or a.b."), strays("No 'x'. .")
    (["'x' is broken.. Mend it."], [], ["No 'x'. ."])
    """
    return [text[max(0, m.start() - 60) : m.end() + 30] for m in _STRAY.finditer(text)]


def watch(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that fills with the strays of every fault, step error and line on stderr."""
    found: list[str] = []
    fault, step, tell = PipelineError.__init__, StepError.__init__, printing.print_err

    def faults_of(self: PipelineError, faults: object) -> None:
        fault(self, faults)  # type: ignore[arg-type]
        for one in self.faults:
            found.extend(strays(one.in_one_line()))

    def step_error(self: StepError, reason: str, **more: object) -> None:
        step(self, reason, **more)  # type: ignore[arg-type]
        found.extend(strays(str(self)))

    def told(text: str) -> None:
        found.extend(strays(text))
        tell(text)

    monkeypatch.setattr(PipelineError, "__init__", faults_of)
    monkeypatch.setattr(StepError, "__init__", step_error)
    monkeypatch.setattr(printing, "print_err", told)
    return found
