"""Retention and run history of a ledger in PostgreSQL, which several machines share."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from paddock.runner.api import run_async
from paddock.runner.core.run_options import RunEnvironment, RunOptions
from paddock.runner.folders.state_folders import find_ledgers
from paddock.runner.ledger.retention import RetentionLimits, SweepResult, sweep_ledger
from paddock.runner.ledger.run_history import recent_runs
from paddock.runner.progress.report import Report
from tests.fakes.pool import FakePool
from tests.runner.world import World, settings

EVERYTHING = RetentionLimits(runs_before=time.time() + 1e6, calls_before=time.time() + 1e6)


def ran(world: World, url: str) -> Report:
    shared = replace(settings(world.folder), ledger_url=url)
    return asyncio.run(
        run_async(
            world.file,
            {},
            options=RunOptions(local=True),
            environment=RunEnvironment(settings=shared, pool=FakePool()),
        )
    )


def test_cleaning_a_shared_ledger_removes_only_what_is_not_needed(url: str, tmp_path: Path) -> None:
    world = World(tmp_path, n_documents=3)
    ran(world, url)
    world.edit("Sum up:", "Summarise:")
    assert ran(world, url).calls == 4
    state = tmp_path / ".paddock"
    would = sweep_ledger(state, url, EVERYTHING, is_dry=True)
    swept = sweep_ledger(state, url, EVERYTHING)
    assert (swept.calls, swept.logs) == (4, 2)
    assert would == swept
    assert ran(world, url).counts == {"fresh": 4}
    assert (
        sweep_ledger(state, url, replace(EVERYTHING, runs_before=0, max_bytes=1)) == SweepResult()
    )


def test_the_runs_of_a_shared_ledger_are_listed(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, n_documents=1)
    report = ran(world, url)
    monkeypatch.setenv("PADDOCK_LEDGER", url)
    found = recent_runs(find_ledgers([tmp_path]), limit=5)
    assert [past.row.run for past in found.runs] == [report.run]
