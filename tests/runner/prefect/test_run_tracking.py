"""Who serves a run and where it is shown, by what is asked and what the environment says."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddock.runner.daemon.daemon_session import is_daemon_running
from paddock.runner.daemon.on_demand_pool import ServicePool
from paddock.runner.prefect.local_service import shared_home_pool
from paddock.runner.prefect.run_mode import RunMode, is_ci, run_mode
from tests.runner.world import settings

API = {"PREFECT_API_URL": "http://127.0.0.1:4200/api"}
ALONE = RunMode("none", "none")


@pytest.mark.parametrize("environ", [{}, API, {"CI": "1"}, {**API, "CI": "true"}])
def test_local_is_alone_whatever_the_environment_says(environ: dict[str, str]) -> None:
    assert run_mode(True, environ) == ALONE


def test_by_itself_a_run_has_the_service_and_is_shown_by_it() -> None:
    assert run_mode(None, {}) == RunMode("started", "service")


def test_an_api_by_name_is_where_it_is_shown() -> None:
    assert run_mode(None, API) == RunMode("started", "api")
    assert run_mode(None, {"PREFECT_API_URL": " "}) == RunMode("started", "service")


def test_a_machine_that_builds_and_tests_is_left_alone() -> None:
    assert run_mode(None, {"CI": "1"}) == ALONE
    assert run_mode(None, {**API, "CI": "1"}) == RunMode("none", "api")
    assert run_mode(False, {"CI": "1"}) == RunMode("started", "service")


def test_a_pool_of_the_callers_needs_no_service() -> None:
    assert run_mode(None, {}, has_pool=True) == ALONE
    assert run_mode(None, API, has_pool=True) == RunMode("none", "api")
    assert run_mode(False, {}, has_pool=True) == RunMode("started", "service")


def test_inside_a_flow_run_it_is_shown_there() -> None:
    assert run_mode(None, API, within=True) == RunMode("started", "within")
    assert run_mode(None, {"CI": "1"}, within=True) == RunMode("found", "within")
    assert run_mode(None, {}, within=True, has_pool=True) == RunMode("none", "within")


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
    async with shared_home_pool(here, "p") as pool:
        assert not isinstance(pool, ServicePool)
    monkeypatch.delenv("CI")
    async with shared_home_pool(here, "p") as pool:
        assert isinstance(pool, ServicePool)
    assert not is_daemon_running(here), "it starts at the first call"
