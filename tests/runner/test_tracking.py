"""Who serves a run and where it is shown, by what is asked and what the environment says."""

from __future__ import annotations

import pytest

from paddock.runner.tracking import Way, is_ci, way

API = {"PREFECT_API_URL": "http://127.0.0.1:4200/api"}
ALONE = Way("none", "none")


@pytest.mark.parametrize("environ", [{}, API, {"CI": "1"}, {**API, "CI": "true"}])
def test_local_is_alone_whatever_the_environment_says(environ: dict[str, str]) -> None:
    assert way(True, environ) == ALONE


def test_by_itself_a_run_has_the_service_and_is_shown_by_it() -> None:
    assert way(None, {}) == Way("started", "service")


def test_an_api_by_name_is_where_it_is_shown() -> None:
    assert way(None, API) == Way("started", "api")
    assert way(None, {"PREFECT_API_URL": " "}) == Way("started", "service")


def test_a_machine_that_builds_and_tests_is_left_alone() -> None:
    assert way(None, {"CI": "1"}) == ALONE
    assert way(None, {**API, "CI": "1"}) == Way("none", "api")
    assert way(False, {"CI": "1"}) == Way("started", "service")


def test_a_pool_of_the_callers_needs_no_service() -> None:
    assert way(None, {}, has_pool=True) == ALONE
    assert way(None, API, has_pool=True) == Way("none", "api")
    assert way(False, {}, has_pool=True) == Way("started", "service")


def test_inside_a_flow_run_it_is_shown_there() -> None:
    assert way(None, API, within=True) == Way("started", "within")
    assert way(None, {"CI": "1"}, within=True) == Way("found", "within")
    assert way(None, {}, within=True, has_pool=True) == Way("none", "within")


@pytest.mark.parametrize(
    ("value", "is_one"), [("1", True), ("true", True), ("", False), ("0", False), ("False", False)]
)
def test_ci_is_what_is_set_and_not_denied(value: str, is_one: bool) -> None:
    assert is_ci({"CI": value}) is is_one
    assert not is_ci({})
