"""Checks of a machine before it joins a cluster: folder, PostgreSQL, Prefect's work pool, clocks.

They make what can be made, such as the automation for crashes, and report every problem with its
remedy; they use plain HTTP, since importing Prefect takes a second.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import httpx

from paddock.engine.system import files, http
from paddock.engine.system.light_dataclasses import asdict, dataclass
from paddock.engine.system.text import canonical_json
from paddock.runner.daemon.prefect_client import PREFECT_ERRORS, ask_again, client_options
from paddock.runner.folders.folder_identity import file_system_of
from paddock.runner.ledger.entries import LedgerError
from paddock.runner.ledger.ledger import Ledger, postgres_module
from paddock.runner.ledger.own_state import ForeignState, make_state
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.ledger.sharing import coordination_queries
from paddock.runner.progress.prefect_view import REFUSED, SENT_AWAY, SHARE_TAG
from paddock.runner.settings import STATE_FOLDER

if TYPE_CHECKING:
    from paddock.runner.ledger.database.postgres import PostgresDatabase

log = logging.getLogger(__name__)

FindingState = Literal["ok", "made", "warning", "wrong"]


@dataclass(frozen=True, slots=True)
class ClusterFinding:
    """Result of one check."""

    name: str
    state: FindingState
    words: str
    remedy: str = ""

    def as_text(self) -> str:
        text = f"{self.state:<8}{self.name}: {self.words}"
        return f"{text}\n        {self.remedy}" if self.remedy else text

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


CLOCK_S = 5.0
# Connections of a run: read, write, claims, heartbeat, group, budget.
CONNECTIONS_OF_A_RUN = 6
FEWEST_CONNECTIONS = 60


def check_database(url: str, state: Path) -> list[ClusterFinding]:
    """Check the database; make the ledger of the folder whose state lies in `state`. Blocks."""
    if not url:
        words = "it is a file, which only one machine at a time can use."
        remedy = "Set PADDOCK_LEDGER=postgresql://user:password@host/database on every machine."
        return [ClusterFinding("ledger", "wrong", words, remedy)]
    try:
        postgres = postgres_module()
        place = postgres.database_name(url)
        with Ledger(state, url=url) as ledger:
            n_runs = len(RunStore(ledger).run_names())
        found = [ClusterFinding("ledger", "ok", f"{place}, {n_runs} runs so far")]
        host = postgres.database_host(url)
        if not host or host in ("localhost", "127.0.0.1", "::1") or host.startswith("/"):
            words = f"the address '{host or 'this machine'}' is a different machine on each"
            remedy = "Name the server by its address in your network, the same on every machine."
            found.append(ClusterFinding("ledger's address", "warning", words, remedy))
        link = postgres.PostgresDatabase(postgres.postgres_server(url, ""))
        try:
            return [*found, _check_connections(link), _check_database_clock(link)]
        finally:
            link.close()
    except LedgerError as error:
        return [ClusterFinding("ledger", "wrong", str(error))]


def _check_connections(link: PostgresDatabase) -> ClusterFinding:
    most = int(link.rows(coordination_queries.MOST_CONNECTIONS, {})[0][0])
    used = int(link.rows(coordination_queries.COUNT_CONNECTIONS, {})[0][0])
    n_runs = max(0, most - used) // CONNECTIONS_OF_A_RUN
    words = f"{most}, of which {used} are in use: enough for {n_runs} runs at a time"
    if most >= FEWEST_CONNECTIONS:
        return ClusterFinding("connections", "ok", words)
    remedy = "Allow more: alter system set max_connections = 200; then restart it."
    return ClusterFinding("connections", "warning", words, remedy)


def _check_database_clock(link: PostgresDatabase) -> ClusterFinding:
    """Compare this machine's clock with the server's; claims use the server's only."""
    link.rows(coordination_queries.NOW, {})  # the connection is open before the time is taken
    before = time.time()
    theirs = float(link.rows(coordination_queries.NOW, {})[0][0])
    off_s = theirs - (before + time.time()) / 2
    words = f"{abs(off_s):.1f} s {'behind' if off_s > 0 else 'ahead of'} the database's"
    if abs(off_s) <= CLOCK_S:
        return ClusterFinding("clock", "ok", words)
    remedy = "Schedules and files' times would be off: set the clock by NTP (systemd-timesyncd)."
    return ClusterFinding("clock", "wrong", f"{words}; {CLOCK_S:g} s are allowed", remedy)


def check_folder(folder: Path) -> list[ClusterFinding]:
    name = f"shared folder {folder}"
    try:
        state = folder / STATE_FOLDER
        make_state(state)
        there = state / f".tried-{uuid4().hex}"
        try:
            files.write_atomically(there, b"x", is_durable=True)  # it is renamed
            there.read_bytes()
        finally:
            there.unlink(missing_ok=True)
    except ForeignState as error:
        return [ClusterFinding(name, "wrong", str(error))]
    except OSError as error:
        words = f"it cannot be used ({error.strerror or error})."
        remedy = "Mount it for writing, by the same user on every machine."
        return [ClusterFinding(name, "wrong", words, remedy)]
    kind = file_system_of(folder)
    found = ClusterFinding("file system", "ok", kind or "unknown")
    if kind.startswith("nfs"):
        words = f"by {kind}; mount it with lookupcache=positive, so that new files are seen at once"
        found = ClusterFinding("file system", "ok", words)
    elif kind in ("ext4", "xfs", "btrfs", "tmpfs", "overlay", "apfs", "ntfs", "zfs"):
        words = f"'{kind}' is a local disk of this machine"
        remedy = "Other machines must have it mounted under the same path, by NFS or SMB."
        found = ClusterFinding("file system", "warning", words, remedy)
    return [ClusterFinding(name, "ok", "writable"), found]


ANSWER_S = 15.0

SILENT_S = 90
N_LOOKS = 3
LOOK_PAUSES_S = (0.0, 1.0, 4.0)
_API_ERRORS = (*PREFECT_ERRORS, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError)
PAGE = 200
CRASH_AUTOMATION = "Paddock: a run whose machine is silent has crashed"
AUTOMATION_ORIGIN = "Made by `paddock cluster init`."
SILENT_STATES = (
    "Completed", "Failed", "Cancelled", "Crashed", "Quarantined", "Budget", "Skipped", REFUSED,
    SENT_AWAY, "TimedOut",
    "Paused", "Suspended", "Scheduled", "Late", "Resuming", "AwaitingRetry",
    "AwaitingConcurrencySlot",
)  # fmt: skip
"""States in which no process sends heartbeats."""
_NEEDED_SETTINGS = {
    ("task_run_recorder", "batch_size"): 200,
    ("task_run_recorder", "read_batch_size"): 200,
    ("event_persister", "batch_size"): 500,
    ("event_persister", "read_batch_size"): 200,
}
"""By service and setting, as in `PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE`."""


async def check_prefect(api_url: str, work_pool: str) -> list[ClusterFinding]:
    """Check Prefect's server; make the work pool and the automation if they are missing."""
    if not api_url:
        words = "no API is set, so workers cannot take runs."
        remedy = "Set PREFECT_API_URL=http://host:4200/api on every machine."
        return [ClusterFinding("Prefect", "wrong", words, remedy)]
    url = api_url.rstrip("/")
    try:
        async with http.client(
            **client_options(url, os.environ), timeout_s=ANSWER_S, connect_s=ANSWER_S
        ) as api:
            version = await api.get("/admin/version")
            if version.status_code == httpx.codes.UNAUTHORIZED:
                words = f"its API at {url} needs a password."
                remedy = "Set PREFECT_API_AUTH_STRING=user:password on every machine."
                return [ClusterFinding("Prefect", "wrong", words, remedy)]
            version.raise_for_status()
            return [
                ClusterFinding("Prefect", "ok", f"version {version.json()} at {url}"),
                *await _check_prefect_clock(api),
                *await _check_server_settings(api),
                *([SQLITE_FINDING] if await is_on_sqlite(api) else []),
                await _check_work_pool(api, work_pool),
                await _make_crash_automation(api),
            ]
    except _API_ERRORS as error:
        words = f"its API at {url} cannot be used ({error or type(error).__name__})."
        remedy = "Start it with `prefect server start --host 0.0.0.0`, or correct PREFECT_API_URL."
        return [ClusterFinding("Prefect", "wrong", words, remedy)]


async def _check_prefect_clock(api: httpx.AsyncClient) -> list[ClusterFinding]:
    """Compare this machine's clock with the server's; a busy server answers late."""
    off_s: list[float] = []
    for _ in range(N_LOOKS):
        before = datetime.now(UTC)
        answer = await api.get("/health")
        after = datetime.now(UTC)
        theirs = (
            parsedate_to_datetime(answer.headers["date"]) if "date" in answer.headers else after
        )
        early_s, late_s = (before - theirs).total_seconds(), (theirs - after).total_seconds()
        off_s.append(max(0.0, early_s, late_s))  # by so much at least
    if min(off_s) <= CLOCK_S:
        return []
    words = f"{min(off_s):.0f} s from this machine's; {CLOCK_S:g} s are allowed"
    remedy = "Set both clocks by NTP (systemd-timesyncd)."
    return [ClusterFinding("Prefect's clock", "wrong", words, remedy)]


SQLITE_WORDS = (
    "Prefect keeps its runs in SQLite, which several machines wait for: jobs may end minutes late"
)
SQLITE_FINDING = ClusterFinding(
    "Prefect's database", "warning", SQLITE_WORDS,
    "Start Prefect's server with PREFECT_SERVER_DATABASE_CONNECTION_URL="
    "postgresql+asyncpg://user:password@host/prefect.",
)  # fmt: skip
LONGEST_SQLITE_PATTERN = 50_000


async def is_on_sqlite(api: httpx.AsyncClient) -> bool:
    """Return whether Prefect's database is known to be SQLite.

    Its API does not tell, but a pattern of this length is too long for SQLite alone.
    """
    statuses = []
    with suppress(*_API_ERRORS):
        for n_letters in (1, LONGEST_SQLITE_PATTERN + 1):
            body = {"block_types": {"name": {"like_": "e" * n_letters}}, "limit": 1}
            # After an error the server may close the connection, which is not to be used again.
            once = {"Connection": "close"}
            answer = await api.post("/block_types/filter", json=body, headers=once)
            statuses.append(answer.status_code)
    return statuses == [httpx.codes.OK, httpx.codes.INTERNAL_SERVER_ERROR]


async def _check_server_settings(api: httpx.AsyncClient) -> list[ClusterFinding]:
    """Check the cost of a task: 15 to 18 ms of the server's processor by default, 4 to 5 tuned."""
    answer = await api.get("/admin/settings")
    if answer.status_code != httpx.codes.OK:
        return []
    services = answer.json().get("server", {}).get("services", {})
    small = [
        f"PREFECT_SERVER_SERVICES_{service}_{name}".upper() + f"={least}"
        for (service, name), least in _NEEDED_SETTINGS.items()
        # Another version may have other names
        if isinstance(now := (services.get(service) or {}).get(name), int) and now < least
    ]
    if not small:
        return [ClusterFinding("Prefect's settings", "ok", "tuned for many tasks")]
    settings = " ".join(small)
    words = "each task costs the server four times what it must"
    return [ClusterFinding("Prefect's settings", "warning", words, f"Start it with: {settings}")]


async def _check_work_pool(api: httpx.AsyncClient, name: str) -> ClusterFinding:
    if not name:
        words = "none is set."
        return ClusterFinding("work pool", "wrong", words, "Set PADDOCK_WORK_POOL=paddock.")
    there = await api.get(f"/work_pools/{name}")
    if there.status_code == httpx.codes.OK:
        kind, is_paused = there.json().get("type"), there.json().get("is_paused")
        if kind != "process":
            words = f"'{name}' is of type '{kind}'; workers of Paddock need type 'process'."
            remedy = "Set PADDOCK_WORK_POOL to another name."
            return ClusterFinding("work pool", "wrong", words, remedy)
        if is_paused:
            remedy = f"prefect work-pool resume {name}"
            return ClusterFinding("work pool", "warning", f"'{name}' is paused", remedy)
        found = await api.post(f"/work_pools/{name}/workers/filter", json={})
        workers = found.json() if found.status_code == httpx.codes.OK else []
        online = sorted(worker["name"] for worker in workers if worker.get("status") == "ONLINE")
        words = f"'{name}', workers online: {', '.join(online) or 'none'}"
        return ClusterFinding("work pool", "ok", words)
    await ask_again(api, "POST", "/work_pools/", {"name": name, "type": "process"})
    return ClusterFinding("work pool", "made", f"'{name}'")


async def _make_crash_automation(api: httpx.AsyncClient) -> ClusterFinding:
    """Make the automation that marks silent shares as crashed, or replace an outdated one."""
    words = f"a share of a job that was silent for {SILENT_S} s is marked as crashed"
    found = await _crash_automations(api)
    if await _replace_outdated(api, found):
        words += "; an automation of an earlier version was replaced"
        return ClusterFinding("lost machines", "made", words)
    if found:
        if any(automation.get("enabled") for automation in found):
            return ClusterFinding("lost machines", "ok", words)
        words = f"the automation '{CRASH_AUTOMATION}' is paused in Prefect"
        remedy = "Resume it on Prefect's page; until then a lost machine's items wait for ever."
        return ClusterFinding("lost machines", "warning", words, remedy)
    await ask_again(api, "POST", "/automations/", _crash_automation())
    return ClusterFinding("lost machines", "made", words)


async def _crash_automations(api: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Return the automations that this or an earlier version made, also renamed ones."""
    found: list[dict[str, Any]] = []
    while True:
        page = await api.post("/automations/filter", json={"limit": PAGE, "offset": len(found)})
        page.raise_for_status()
        found += page.json()
        if len(page.json()) < PAGE:
            return [automation for automation in found if automation.get("name") == CRASH_AUTOMATION
                    or AUTOMATION_ORIGIN in (automation.get("description") or "")]  # fmt: skip


async def _replace_outdated(api: httpx.AsyncClient, found: Sequence[Mapping[str, Any]]) -> bool:
    """Bring automations up to date; return whether one was outdated.

    One that a person has paused stays paused.
    """
    expected = _crash_automation()
    outdated = [old for old in found if old.get("description") != expected["description"]]
    for old in outdated:
        changed = {**expected, "name": old["name"], "enabled": old.get("enabled", True)}
        await ask_again(api, "PUT", f"/automations/{old['id']}", changed)
    return bool(outdated)


async def renew_crash_automation(api_url: str) -> None:
    """Replace the automation of an earlier version, which ended runs that are not ours."""
    words = ""
    for pause_s in LOOK_PAUSES_S:  # its database may be locked for a moment
        await asyncio.sleep(pause_s)
        try:
            async with http.client(
                **client_options(api_url, os.environ), timeout_s=ANSWER_S
            ) as api:
                if await _replace_outdated(api, await _crash_automations(api)):
                    log.warning("Prefect: '%s' is of this version now", CRASH_AUTOMATION)
                return
        except _API_ERRORS as error:
            words = str(error) or type(error).__name__
            if isinstance(error, httpx.ConnectError):
                break  # no server is there: `up` and workers wait for it by themselves
    log.warning("Prefect's automation '%s' cannot be checked: %s", CRASH_AUTOMATION, words)


def _crash_automation() -> dict[str, Any]:
    form: dict[str, Any] = {
        "trigger": {
            "type": "event",
            "match": {"prefect.resource.id": ["prefect.flow-run.*"]},
            "match_related": {
                "prefect.resource.role": ["tag"],
                "prefect.resource.id": [f"prefect.tag.{SHARE_TAG}"],
            },
            "for_each": ["prefect.resource.id"],
            "after": ["prefect.flow-run.heartbeat"],
            "expect": [
                "prefect.flow-run.heartbeat",
                *(f"prefect.flow-run.{state}" for state in SILENT_STATES),
            ],
            "posture": "Proactive",
            "threshold": 1,
            "within": SILENT_S,
        },
        "actions": [
            {
                "type": "change-flow-run-state",
                "state": "CRASHED",
                "name": "Crashed",
                "message": f"Nothing was heard of it for {SILENT_S} s; its machine is lost.",
            }
        ],
    }
    version = hashlib.sha256(canonical_json(form).encode()).hexdigest()[:8]
    about = f"{AUTOMATION_ORIGIN} Only runs with the tag '{SHARE_TAG}' are concerned ({version})."
    return {"name": CRASH_AUTOMATION, "description": about, "enabled": True, **form}
