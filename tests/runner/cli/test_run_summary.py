import hashlib
import shlex
from pathlib import Path

import pytest

from paddock.engine.models.well_known import MEASURED
from paddock.runner.bind.trust.consent import NotConsented
from paddock.runner.bind.trust.permissions import PermissionNeed
from paddock.runner.cli.run_summary import closing_lines, print_closing
from paddock.runner.progress.item_states import ItemState
from paddock.runner.progress.report import ItemReport, Report
from tests.runner.world import World


def report(**changes: object) -> Report:
    values: dict[str, object] = {
        "run": "swift-otter",
        "pipeline": "digest",
        "status": "completed",
        "counts": {"new": 1, "fresh": 12},
        "calls": 3,
        "tokens": {"prompt": 8123, "prompt_reused": 3100, "completion": 911},
        "seconds": 12.7,
        **changes,
    }
    return Report(**values)  # type: ignore[arg-type]


def test_three_lines_close_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    items = (
        ItemReport("each", "a.pdf", ItemState.QUARANTINED, error="damaged"),
        ItemReport("each", "b.md", ItemState.NEW),
    )
    written = (str(tmp_path / "out" / "sub" / "a.md"), str(tmp_path / "out" / "b.md"))
    lines = closing_lines(
        report(items=items, written=written, cached_calls=1),
        fail_hint="`paddock plan p.yaml` says why.",
    )
    assert lines == (
        "Wrote 2 files under out.",
        "Not done: a.pdf. `paddock plan p.yaml` says why.",
        "Took 13 s, 3 model calls and 1 from the ledger; saved: 12 items fresh, "
        "3,100 of 8,123 prompt tokens reused.",
    )


def test_what_waits_for_review_is_named_with_the_command() -> None:
    lines = closing_lines(report(counts={"waiting": 7}), fail_hint="", file="bills.yaml")
    assert lines[1] == "7 wait for review: `paddock review bills.yaml`."
    lines = closing_lines(report(counts={"waiting": 1}), fail_hint="", file="bills.yaml")
    assert lines[1] == "1 waits for review: `paddock review bills.yaml`."


def test_how_often_a_model_was_right_is_noted_once_where_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(b"smollm2:135m").hexdigest()
    monkeypatch.setitem(MEASURED, digest, "had 64 of 100 right")
    world = World(tmp_path, n_documents=3)
    assert world.run().notes == ("smollm2:135m had 64 of 100 right.",)
    assert world.run().notes == ()  # nothing was asked


def test_a_command_to_copy_quotes_the_name_of_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    failed = (ItemReport("each", "a.pdf", ItemState.QUARANTINED, error="damaged"),)
    given = report(items=failed, counts={"waiting": 1})
    print_closing(given, "a;touch b.yaml", is_apart=False)
    shown = capsys.readouterr().out
    assert "`paddock plan 'a;touch b.yaml'` shows why" in shown
    assert "waits for review: `paddock review 'a;touch b.yaml'`." in shown
    needed = [PermissionNeed("run", "run `id`", is_of_run=True, is_of_up=True)]
    consent = str(NotConsented(needed, Path("a'; touch b;'.yaml")))
    words = shlex.split(consent.partition("`paddock allow ")[2].rpartition("`")[0])
    assert words == ["a'; touch b;'.yaml"]
