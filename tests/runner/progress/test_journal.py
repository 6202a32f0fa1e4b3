"""What a run writes down of itself: one JSON object a line, bounded, without secrets."""

import contextlib
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import Usage
from paddock.engine.system import private_files
from paddock.runner.cli.history_text import run_progress_text
from paddock.runner.progress import journal
from paddock.runner.progress.events import ModelCall
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.journal import JournalProgress, LineWriter, RunJournal
from paddock.runner.progress.report import Report
from tests.runner.world import World


def read(folder: Path) -> list[dict[str, Any]]:
    (file,) = (folder / ".paddock" / "runs").glob("*.jsonl")
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_every_item_of_a_run_has_its_line_with_what_it_took(world: World, tmp_path: Path) -> None:
    world.documents(2)
    world.write("inbox/bad.pdf", "%PDF no")
    report = world.run()
    lines = read(tmp_path)
    assert {line["run"] for line in lines} == {report.run}
    assert {line["pipeline"] for line in lines} == {"summaries"}
    assert [line["event"] for line in lines][:2] == ["began", "step"]
    items = {line["key"]: line for line in lines if line.get("key")}
    assert (items["0.txt"]["state"], items["0.txt"]["calls"]) == ("done", 1)
    assert items["0.txt"]["tokens"] > 0
    assert items["bad.pdf"]["level"] == "warning"
    assert items["bad.pdf"]["error"] == "step 'text': 'bad.pdf' is damaged or not a PDF."
    assert lines[-1]["event"] == "ended"
    assert (lines[-1]["status"], lines[-1]["counts"]) == (
        "quarantined",
        {"new": 3, "quarantined": 1},
    )


def test_what_is_secret_is_taken_out_of_names_errors_and_notes() -> None:
    lines: list[str] = []
    observer = RunJournal(
        lambda line, _: lines.append(line), lambda text: text.replace("s3cret", "***")
    )
    observer.began("swift-otter", "news", ["each"])
    observer.item("each", "s3cret.md", ItemState.RUNNING, None)
    observer.item("each", "s3cret.md", ItemState.FAILED, "'s3cret' was refused")
    observer.note("the key s3cret is wrong")
    observer.ended(Report("swift-otter", "news", "failed", {}, message="s3cret!"))
    assert len(lines) == 4
    assert "s3cret" not in "".join(lines)


def test_calls_that_the_ledger_answered_are_not_counted_as_work() -> None:
    lines: list[str] = []
    observer = RunJournal(lambda line, _: lines.append(line))
    observer.began("swift-otter", "news", ["each"])
    observer.item("each", "a.md", ItemState.RUNNING, None)
    usage = Usage(prompt_tokens=10, completion_tokens=5)
    for is_cached in (False, True):
        call = ModelCall("hash", "chat", "writer", usage, began=0, is_cached=is_cached)
        observer.call("each", "a.md", call)
    observer.item("each", "a.md", ItemState.DONE, None)
    item = json.loads(lines[-1])
    assert (item["calls"], item["tokens"]) == (1, 15)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="NOT TRIED: there is no /dev/full")
def test_a_journal_on_a_full_disk_ends_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left is written once more when the file is closed, and fails again."""
    full = Path("/dev/full").open("w")  # noqa: SIM115 - the journal closes it
    monkeypatch.setattr(private_files, "open_private", lambda *_: full)
    with LineWriter(tmp_path / "a.jsonl") as lines:
        RunJournal(lines).began("a", "p", [])


def test_progress_has_the_runs_own_speed_and_estimate_and_says_what_is_not_known(
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.jsonl"
    began = datetime(2026, 11, 24, tzinfo=UTC)
    lines = [(0, {"event": "step", "step": "each", "items": 9, "fresh": 0})]
    estimates = [(10, 100, 90.0), (11, 120, 80.0), (25, 400, 70.0)]  # second, tokens, to go
    progress, now = JournalProgress(file), began.timestamp() + 30

    def text(*events: tuple[int, dict[str, Any]]) -> str:
        with file.open("a") as journal:
            for second, line in events:
                at = (began + timedelta(seconds=second)).isoformat()
                journal.write(json.dumps({"time": at, **line}) + "\n")
        return run_progress_text(progress, now)

    assert text() == ""
    assert text(*lines) == "0 of 9, time to go not known yet"
    for second, n_tokens, left_s in estimates:
        line = {"event": "time_left", "step": "each", "seconds": left_s, "written": n_tokens}
        shown = text((second, line))
    assert shown == "0 of 9, 20 tokens/s, about 1 min 5 s to go"  # 280 tokens in 14 s, 70 - 5 s
    assert text((26, {"event": "time_left"}), (26, {"event": "note", "text": "x"})) == shown
    stop = {"event": "note", "text": "A stop was requested.", "is_stop": True}
    assert text((27, stop)) == "0 of 9, 20 tokens/s, stopping after items in flight"
    assert run_progress_text(progress, None) == "0 of 9"


def test_a_pipe_that_no_one_empties_does_not_hold_up_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal, "CLOSE_S", 0.1)
    monkeypatch.setattr(journal, "MAX_WAITING_LINES", 1_000)
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    with LineWriter(stream) as lines:
        observer = RunJournal(lines)
        observer.began("a", "p", [])
        for number in range(20_000):
            observer.item("each", f"{number}.md", ItemState.DONE, None)
    os.close(reading)  # which ends the thread that writes
    with contextlib.suppress(BrokenPipeError):
        stream.close()
