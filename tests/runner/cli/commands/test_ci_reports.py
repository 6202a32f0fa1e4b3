"""What CI reads of a run, also of one that could not begin."""

from pathlib import Path

import pytest

from paddock.runner.cli.commands import run as run_command
from paddock.runner.cli.commands.run import RunFlags, write_ci_reports
from paddock.runner.progress.report import Report

RUN = Report("swift-otter", "digest", "completed", {})


def test_a_run_that_could_not_begin_is_an_error_for_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "step.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place))

    def fails(flags: RunFlags) -> int:
        raise RuntimeError("there is no model.")

    monkeypatch.setattr(run_command, "_run", fails)
    file = tmp_path / "digest" / "pipeline.yaml"
    with pytest.raises(RuntimeError):
        run_command.run(RunFlags(file=str(file), junit=tmp_path / "j.xml"))
    assert '<error message="there is no model." type="failed">' in (tmp_path / "j.xml").read_text()
    assert place.read_text() == "## Paddock run of digest: failed\n\nthere is no model.\n\n"


def test_a_report_that_cannot_be_written_is_told_and_the_run_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    (tmp_path / "taken").mkdir()
    file = tmp_path / "pipeline.yaml"
    assert not write_ci_reports(RunFlags(junit=tmp_path / "taken"), file, RUN)
    assert capsys.readouterr().err == f"{tmp_path}/taken: cannot be written: Is a directory.\n"
    assert write_ci_reports(RunFlags(), file, RUN)
    assert list(tmp_path.iterdir()) == [tmp_path / "taken"]
