"""Reports of a run for CI: JUnit and Markdown, also for a run that could not begin."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from paddock.runner.progress import printing
from paddock.runner.progress.report import Report


@dataclass(frozen=True, slots=True)
class CiReports:
    """Targets of a run's reports for CI."""

    pipeline: Path
    junit: Path | None
    summary: Path | None

    @property
    def are_requested(self) -> bool:
        has_path = self.junit is not None or self.summary is not None
        return has_path or bool(os.environ.get("GITHUB_STEP_SUMMARY"))

    def write(self, ended: Report) -> bool:
        """Write them; print an error and return False if that fails."""
        if not self.are_requested:
            return True
        from paddock.runner.testing import junit_and_markdown

        try:
            junit_and_markdown.write_reports(
                [junit_and_markdown.run_as_suite(ended, str(self.pipeline))],
                junit_and_markdown.run_markdown(ended),
                junit=self.junit,
                summary=self.summary,
            )
        except OSError as error:
            printing.print_err(f"{error.filename}: cannot be written: {error.strerror}.")
            return False
        return True

    @contextmanager
    def written_on_error(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            at = self.pipeline if self.pipeline.is_dir() else self.pipeline.parent
            name = at.resolve().name
            self.write(Report("", name, "failed", {}, message=str(error) or type(error).__name__))
            raise
