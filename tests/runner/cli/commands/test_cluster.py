"""`paddock cluster` and `paddock worker`: what they need is said before anything begins."""

import os
from pathlib import Path

import pytest

from tests.runner.cli.commands.shell import paddock_here

API = {"PREFECT_API_URL": "http://127.0.0.1:1/api"}
POOL = {"PADDOCK_WORK_POOL": "letters"}


@pytest.mark.parametrize(
    ("arguments", "given", "words"),
    [
        (["worker"], {}, "Set PREFECT_API_URL to the Prefect server from which runs come."),
        (["worker"], API, "Set PADDOCK_WORK_POOL, or use `--work-pool`; `paddock cluster init`."),
        (
            ["worker"],
            API | POOL,
            "The ledger is a file, which only one machine can use. Set PADDOCK_LEDGER to a "
            "PostgreSQL database that all machines reach; `paddock cluster init` checks it.",
        ),
        (
            ["cluster", "run", "pipeline.yaml"],
            API,
            "Several machines need PREFECT_API_URL, PADDOCK_WORK_POOL and PADDOCK_LEDGER.\n"
            "  `paddock cluster init` shows what is missing.",
        ),
        (["cluster", "init", "nowhere"], {}, "nowhere: there is no such folder."),
    ],
)
def test_what_lacks_is_said_before_anything_begins(
    arguments: list[str],
    given: dict[str, str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "pipeline.yaml").write_text("name: p\nsteps: []\n")
    for name in os.environ:
        if name.startswith("PREFECT_"):
            monkeypatch.delenv(name)
    environ = {"PADDOCK_HOME": str(tmp_path / "state"), **given}
    done = paddock_here(*arguments, environ=environ, cwd=tmp_path)
    assert (done.status, done.err.strip()) == (2, words)
