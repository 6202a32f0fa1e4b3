"""Who serves a run and where it is shown, by what is asked and what the environment says."""

import subprocess
import sys
from pathlib import Path

import pytest

from paddock.runner.daemon.daemon_files import find_daemon
from paddock.runner.daemon.daemon_session import ServicePool
from paddock.runner.prefect.run_mode import is_flow, uses_service
from paddock.runner.prefect.run_tracking import shared_default_pool
from paddock.runner.settings import is_ci
from tests.runner.world import settings
from tests.waiting import PATIENCE_S

API = {"PREFECT_API_URL": "http://127.0.0.1:4200/api"}


@pytest.mark.parametrize("environ", [{}, API, {"CI": "1"}, {**API, "CI": "true"}])
def test_local_is_alone_whatever_the_environment_says(environ: dict[str, str]) -> None:
    assert not uses_service(True, environ)
    assert not is_flow(True, environ, is_prefect=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", True), ("true", True), ("", False), ("0", False), ("False", False)],
)
def test_ci_is_what_is_set_and_not_denied(value: str, expected: bool) -> None:
    assert is_ci({"CI": value}) is expected
    assert not is_ci({})


async def test_several_runs_share_the_pool_that_one_run_would_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = settings(tmp_path)
    monkeypatch.setenv("CI", "1")
    async with shared_default_pool(here) as pool:
        assert not isinstance(pool, ServicePool)
    monkeypatch.delenv("CI")
    async with shared_default_pool(here) as pool:
        assert isinstance(pool, ServicePool)
    assert find_daemon(here) is None, "it starts at the first call"


UNSENT = """
import asyncio
import paddock.runner.prefect.client_settings
from prefect.logging.handlers import APILogWorker

asyncio.run(APILogWorker._handle_batch(object(), [b"{}"]))
"""


def test_logs_that_a_server_which_went_away_misses_are_not_told_on_the_terminal() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNSENT],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")
