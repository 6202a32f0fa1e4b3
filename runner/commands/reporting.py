"""Leave behind what CI reads of a run: JUnit XML and Markdown, also of one that could not begin."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from paddock.runner.display import console
from paddock.runner.report import Report


@dataclass(frozen=True, slots=True)
class Reports:
    """Where the reports of a run go."""

    pipeline: Path
    junit: Path | None
    summary: Path | None

    @property
    def are_wanted(self) -> bool:
        """Whether there is anything to write."""
        asked = self.junit is not None or self.summary is not None
        return asked or bool(os.environ.get("GITHUB_STEP_SUMMARY"))

    def write(self, ended: Report) -> bool:
        """Write them; tells whether that went well. The run itself is told in any case."""
        if not self.are_wanted:
            return True
        from paddock.runner.trials.reports import write_run

        try:
            write_run(ended, str(self.pipeline), junit=self.junit, summary=self.summary)
        except OSError as error:
            console.tell(f"{error.filename}: cannot be written: {error.strerror}.")
            return False
        return True

    @contextmanager
    def even_if_it_fails(self) -> Iterator[None]:
        """Write them also where an error keeps the run from beginning, or ends it."""
        try:
            yield
        except Exception as error:
            name = self.pipeline.parent.resolve().name
            self.write(Report("", name, "failed", {}, message=str(error) or type(error).__name__))
            raise
