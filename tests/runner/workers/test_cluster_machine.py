"""`paddock cluster init`: what is found and made, in words, with what to do about it."""

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.settings import Settings as PrefectSettings

from paddock.engine.system.retry import Backoff
from paddock.runner.daemon import prefect_client as prefect_client_module
from paddock.runner.settings import UnattendedSettings
from paddock.runner.workers import cluster_checks
from paddock.runner.workers.cluster_checks import ClusterFinding
from paddock.runner.workers.cluster_machine import prepare_cluster
from tests.postgres import Postgres
from tests.prefect_server import prefect_client
from tests.runner.world import settings


def is_ready(found: list[ClusterFinding]) -> bool:
    return all(check.state != "wrong" for check in found)


def named(findings: list[ClusterFinding]) -> Mapping[str, ClusterFinding]:
    return {finding.name: finding for finding in findings}


def test_all_that_lacks_is_told_at_once_with_what_to_do(tmp_path: Path) -> None:
    found = asyncio.run(prepare_cluster(tmp_path, settings(tmp_path), ""))
    assert not is_ready(found)
    assert [finding.as_text() for finding in found if finding.state == "wrong"] == [
        "wrong   ledger: it is a file, which only one machine at a time can use.\n"
        "        Set PADDOCK_LEDGER=postgresql://user:password@host/database on every machine.",
        "wrong   Prefect: no API is set, so workers cannot take runs.\n"
        "        Set PREFECT_API_URL=http://host:4200/api on every machine.",
    ]
    assert named(found)[f"shared folder {tmp_path}"].state == "ok"


@pytest.mark.usefixtures("no_automations")
def test_a_real_cluster_is_made_and_found_ready_the_next_time(
    url: str, prefect_api: str, tmp_path: Path
) -> None:
    given = replace(
        settings(tmp_path), ledger_url=url, unattended=UnattendedSettings(work_pool="letters")
    )
    first = asyncio.run(prepare_cluster(tmp_path, given, prefect_api))
    assert is_ready(first)
    made = {finding.name for finding in first if finding.state == "made"}
    assert made == {"work pool", "lost machines"}
    again = asyncio.run(prepare_cluster(tmp_path, given, prefect_api))
    assert is_ready(again) and "made" not in {finding.state for finding in again}
    found = named(again)
    assert found["work pool"].words == "'letters', workers online: none"
    words = "a share of a job that was silent for 90 s is marked as crashed"
    assert found["lost machines"].words == words
    assert found["Prefect's settings"].words == "tuned for many tasks"
    assert found["clock"].state == "ok"
    assert found["Prefect's database"].as_text() == (
        "warning Prefect's database: Prefect keeps its runs in SQLite, which several machines wait "
        "for: jobs may end minutes late\n        Start Prefect's server with "
        "PREFECT_SERVER_DATABASE_CONNECTION_URL=postgresql+asyncpg://user:password@host/prefect."
    )
    assert found["ledger's address"].state == "warning"


FIRST_FORM = {
    "name": cluster_checks.CRASH_AUTOMATION,
    "description": "Made by `paddock cluster init`.",
    "enabled": True,
    "trigger": {
        "type": "event",
        "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
        "for_each": ["prefect.resource.id"],
        "after": ["prefect.flow-run.heartbeat"],
        "expect": ["prefect.flow-run.heartbeat", "prefect.flow-run.Completed"],
        "posture": "Proactive",
        "threshold": 1,
        "within": 90,
    },
    "actions": [{"type": "change-flow-run-state", "state": "CRASHED", "name": "Crashed"}],
}
"""The automation as it was first made: every flow run of the server."""


def posted(prefect_api: str, path: str, body: Any) -> Any:
    """Send an object to the server and return what it answers, if anything."""
    with prefect_client(prefect_api) as api:
        answer = api.post(path, json=body).raise_for_status()
    return answer.json() if answer.content else None


def automations(prefect_api: str) -> dict[str, Any]:
    """Return the server's automations by their ids."""
    return {
        automation["id"]: automation
        for automation in posted(prefect_api, "/automations/filter", {})
    }


@pytest.fixture
def no_automations(prefect_api: str) -> None:
    for automation in automations(prefect_api):
        with prefect_client(prefect_api) as api:
            api.delete(f"/automations/{automation}").raise_for_status()


@pytest.mark.usefixtures("no_automations")
@pytest.mark.parametrize("change", [{}, {"name": "renamed by a person"}, {"enabled": False}])
def test_an_automation_of_an_earlier_version_is_replaced(
    prefect_api: str, change: dict[str, Any]
) -> None:
    ours = posted(prefect_api, "/automations/", {**FIRST_FORM, **change})["id"]
    foreign = {**FIRST_FORM, "name": "another team's", "description": ""}
    posted(prefect_api, "/automations/", foreign)
    before = automations(prefect_api)
    asyncio.run(cluster_checks.renew_crash_automation(prefect_api))
    after = automations(prefect_api)
    assert set(after) == set(before)
    changed = {id_ for id_ in after if after[id_]["trigger"] != before[id_]["trigger"]}
    assert changed == {ours}
    assert after[ours]["trigger"]["match_related"]["prefect.resource.id"] == [
        "prefect.tag.paddock-share"
    ]
    assert (after[ours]["name"], after[ours]["enabled"]) == (
        before[ours]["name"], before[ours]["enabled"]
    )  # fmt: skip
    found = named(asyncio.run(cluster_checks.check_prefect(prefect_api, "letters")))
    state = "warning" if change.get("enabled") is False else "ok"
    assert found["lost machines"].state == state
    assert set(automations(prefect_api)) == set(before)


async def test_a_server_with_prefects_own_settings_is_told_how_to_start_it() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=PrefectSettings().model_dump(mode="json"))

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport, base_url="http://prefect") as api:
        (found,) = await cluster_checks._check_server_settings(api)
    assert found.state == "warning"
    assert found.remedy.startswith(
        "Start it with: PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE=200 "
    )


async def test_a_server_whose_database_is_locked_for_a_moment_is_asked_again(
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(prefect_client_module, "BACKOFF", Backoff(0, 0))
    locked = {"/work_pools/", "/automations/"}

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if request.method == "POST" and path in locked:
            locked.remove(path)
            return httpx.Response(503)
        return httpx.Response(404 if request.method == "GET" else 200, json=[])

    transport = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=transport, base_url="http://prefect") as api:
        made = [
            await cluster_checks._check_work_pool(api, "letters"),
            await cluster_checks._make_crash_automation(api),
        ]
    assert [finding.state for finding in made] == ["made", "made"]
    assert not locked


def test_a_work_pool_of_another_type_is_refused(prefect_api: str) -> None:
    posted(prefect_api, "/work_pools/", {"name": "docks", "type": "docker"})
    found = named(asyncio.run(cluster_checks.check_prefect(prefect_api, "docks")))["work pool"]
    assert found == ClusterFinding(
        "work pool",
        "wrong",
        "'docks' is of type 'docker'; workers of Paddock need type 'process'.",
        "Set PADDOCK_WORK_POOL to another name.",
    )


def test_an_api_that_is_not_there_is_named() -> None:
    found = asyncio.run(cluster_checks.check_prefect("http://127.0.0.1:1/api", "p"))
    words = "its API at http://127.0.0.1:1/api cannot be used (All connection attempts failed)."
    assert [(check.state, check.words) for check in found] == [("wrong", words)]


def test_a_database_without_rights_is_one_finding(server: Postgres, tmp_path: Path) -> None:
    server.say("create role visitor login")
    server.make("closed")
    found = cluster_checks.check_database(server.url("closed", "visitor"), tmp_path)
    assert [check.state for check in found] == ["wrong"]
    assert 'grant create on database "closed" to "visitor"' in found[0].words


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert [check.state for check in cluster_checks.check_folder(tmp_path)] == ["wrong"]


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / ".paddock").write_text("")
    found = cluster_checks.check_folder(tmp_path)
    (check,) = found
    assert (check.state, check.words) == (
        "wrong",
        f"{tmp_path / '.paddock'} is not used: something else stands in place of a file or "
        "folder.\n"
        "  If it is data, leave it; otherwise move it away.",
    )


def test_a_clock_that_is_off_is_told(monkeypatch: Any, url: str, tmp_path: Path) -> None:
    real, began = time.time, time.monotonic()
    monkeypatch.setattr("paddock.runner.workers.cluster_checks.time.time", lambda: real() - 60)
    clock = named(cluster_checks.check_database(url, tmp_path))["clock"]
    took_s = time.monotonic() - began
    off_s, _, words = clock.words.partition(" ")
    assert (clock.state, words) == ("wrong", "s behind the database's; 5 s are allowed")
    # The database may have answered at any moment between the two looks at our own clock.
    assert abs(float(off_s) - 60) <= took_s / 2 + 0.1
