"""Who serves a run and where it is shown, by what is asked and what the environment says."""

import subprocess
import sys

import pytest

from paddock.runner.prefect.run_mode import is_flow, uses_service
from paddock.runner.settings import is_ci

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


UNSENT = """
import asyncio
import paddock.runner.prefect.client_settings
from prefect.logging.handlers import APILogWorker

asyncio.run(APILogWorker._handle_batch(object(), [b"{}"]))
"""


def test_logs_that_a_server_which_went_away_misses_are_not_told_on_the_terminal() -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNSENT], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
