"""`paddock worker`: what its owner allows holds for the processes of its runs."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paddock.runner.cli.application import application
from paddock.runner.settings import Settings, read_settings
from paddock.runner.workers import cluster_machine

RUNNING = {
    "PREFECT_API_URL": "http://127.0.0.1:1/api",
    "PADDOCK_WORK_POOL": "paddock",
    "PADDOCK_LEDGER": "postgresql://me@127.0.0.1:1/paddock",
}


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        (["--allow", "run,secrets"], {"run", "secrets"}),
        (["--allow", "run", "--allow", "secrets"], {"run", "secrets"}),
        ([], {"network"}),
    ],
)
def test_what_is_allowed_by_hand_holds_for_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], allowed: set[str]
) -> None:
    seen: list[frozenset[str]] = []

    async def work(settings: Settings, name: str, api_url: str) -> int:
        seen.append(settings.allow)
        made = cluster_machine.worker_environment(os.environ, settings.state_dir, api_url)
        seen.append(read_settings(tmp_path, environ=made, home=tmp_path).allow)
        return 0

    monkeypatch.setattr(cluster_machine, "serve_work_pool", work)
    # Set here, so that the command's own setting of it is undone as well.
    environment = RUNNING | {"PADDOCK_HOME": str(tmp_path), "PADDOCK_ALLOW": "network"}
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    done = CliRunner().invoke(application("worker"), ["worker", *given])
    assert done.exit_code == 0, done.output
    assert seen == [allowed, allowed]


def test_a_name_that_nothing_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in RUNNING.items():
        monkeypatch.setenv(variable, value)
    done = CliRunner().invoke(application("worker"), ["worker", "--allow", "everything"])
    assert done.exit_code == 2
    assert "--allow: 'everything' is not known." in done.output
