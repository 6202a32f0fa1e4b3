"""`paddock status`: what `up` says of itself, or why none answers; services and last runs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from paddock.runner.cli import doctor
from paddock.runner.settings import read_settings
from tests.fakes.http_server import Answer, serving
from tests.runner.cli.commands.shell import invoke


def local(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone().isoformat()


UP: dict[str, Any] = {
    "pid": 77, "running": [{}], "waiting": 1_050, "queue": [], "is_prefect_there": True,
    "faults": {"bills.yaml": "no step", "tea.yaml": "tea.yaml:3:1: odd"},
    "pipelines": [{
        "name": "bills", "is_paused": False, "is_open": False, "window": "22:00-07:00",
        "running": 1, "waiting": 1_049, "waiting_since": local(1_800_000_000), "missing": [],
        "triggers": [
            {"trigger": "schedule 0 6 * * *", "text": "next 2026-11-27 06:00 CET",
             "is_paused": False},
            {"trigger": "webhook /bill", "text": "calls of '/bill'", "is_paused": True},
        ],
    }, {
        "name": "tea", "is_paused": True, "is_open": True, "window": None, "running": 0,
        "waiting": 0, "waiting_since": None, "missing": [], "triggers": [],
    }],
}  # fmt: skip


@contextmanager
def up_answers(code: int, answer: object) -> Iterator[str]:
    with serving(lambda request: Answer(json.dumps(answer).encode(), code)) as server:
        yield server.host


@pytest.fixture(autouse=True)
def _at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PADDOCK_HOST", "127.0.0.1:1")
    monkeypatch.chdir(tmp_path)


def test_up_is_shown_with_its_queue_and_its_triggers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with up_answers(200, UP) as address:
        monkeypatch.setenv("PADDOCK_UP_HOST", address)
        shown = invoke("status")
        assert json.loads(invoke("status", "--json").stdout)["up"] == UP
        findings = doctor.examine(read_settings(tmp_path))
    assert shown.exit_code == 0
    assert shown.stdout.splitlines() == [
        f"`paddock up` at http://{address}, process 77: 1 run at work, 1,050 orders waiting.",
        f"bills: 1 run at work, 1,049 orders waiting since {local(1_800_000_000)[:16]}, waits for "
        "its window 22:00-07:00".replace("T", " "),
        "- schedule 0 6 * * *: next 2026-11-27 06:00 CET",
        "- webhook /bill: calls of '/bill', paused",
        "tea: paused",
        "bills.yaml: no step",
        "tea.yaml:3:1: odd",
        "http://127.0.0.1:1: nothing answers.",
    ]
    (finding,) = (finding for finding in findings if finding.about == "up")
    assert finding.level == "warning"
    assert f"http://{address}: process 77" in finding.text and "no step" in finding.text


def test_up_is_shown_with_all_its_pipelines_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    with up_answers(200, UP | {"pipelines": UP["pipelines"] * 500}) as address:
        monkeypatch.setenv("PADDOCK_UP_HOST", address)
        assert len(invoke("status").stdout.splitlines()) == 4 + 500 * 4


@pytest.mark.parametrize(
    ("code", "answer", "why"),
    [
        (401, {"error": "an API key is needed."}, "an API key is needed."),
        (200, {"another": "program"}, "no `paddock up` answers."),
    ],
)
def test_what_is_no_up_is_said_and_ends_with_1(
    code: int, answer: object, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with up_answers(code, answer) as address:
        monkeypatch.setenv("PADDOCK_UP_HOST", address)
        shown = invoke("status")
    assert (shown.exit_code, shown.stdout.splitlines()[0]) == (1, f"http://{address}: {why}")
