"""`paddock cluster` and `paddock worker`: what they need is said before anything begins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PADDOCK = str(Path(sys.executable).with_name("paddock"))
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
API = {"PREFECT_API_URL": "http://127.0.0.1:1/api"}
POOL = {"PADDOCK_WORK_POOL": "letters"}


@pytest.mark.parametrize(
    ("arguments", "given", "words"),
    [
        (
            ["worker"],
            {},
            "Set PREFECT_API_URL to the Prefect server from which runs come.",
        ),
        (
            ["worker"],
            API,
            "Set PADDOCK_WORK_POOL, or use `--work-pool`; `paddock cluster init`.",
        ),
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
    arguments: list[str], given: dict[str, str], words: str, tmp_path: Path
) -> None:
    (tmp_path / "pipeline.yaml").write_text("name: p\nsteps: []\n")
    done = subprocess.run(
        [PADDOCK, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env=CLEAN | {"PADDOCK_HOME": str(tmp_path / "state")} | given,
    )  # fmt: skip
    assert (done.returncode, done.stderr.strip()) == (2, words)
