"""A minute of the soak: real processes, real kills, all done once. `soak.py` is the long one."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.prefect_server import seed
from tests.soak.killer import processes
from tests.soak.soak import Plan, soak
from tests.soak.world import World


def test_in_a_bad_minute_nothing_is_lost_and_nothing_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path / "soak")
    monkeypatch.setenv("PADDOCK_HOME", world.state_dir)  # by which its ledger knows us
    seed(Path(world.state_dir) / "prefect")
    plan = Plan(
        arrive_s=9, files_per_s=4, kill_every_s=3, quiet_s=300,
        surely=("run", "model's worker", "up"), poisons=0, burst=3,
        # More for models than in the long one, else no worker is there to be killed in time.
        weights={"texts": 12, "drop": 6, "notes": 3, "letters": 3},
    )  # fmt: skip
    told = asyncio.run(soak(world, plan))
    print(told.table)
    assert told.verdict.is_good, "\n".join([told.table, *told.missing, world.last_words()])
    assert told.verdict.done > 15  # how many arrive depends on the machine
    assert told.verdict.quarantined > 0
    assert not world.leftovers()
    assert not _left_after(world, 120.0)


def _left_after(world: World, within_s: float) -> list[str]:
    """Return what still runs of an ended world; what processes are forked from ends last."""
    deadline = time.monotonic() + within_s
    while any(processes(str(world.state_dir))) and time.monotonic() < deadline:
        time.sleep(0.2)
    return world.sweep()
