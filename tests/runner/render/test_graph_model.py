"""What a graph says of the last run: one that ended, one that died."""

import asyncio
import json
import socket
import time
from pathlib import Path

from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.run_history import LedgerFolder, recent_runs
from paddock.runner.ledger.run_store import RunStore
from paddock.runner.render.graph_model import (
    GraphBox,
    LastRunSteps,
    LastStepRun,
    box_text,
    last_run_steps,
)
from tests.runner.world import World

LINES = (
    {"event": "began", "run": "calm-otter"},
    {"event": "step", "step": "docs", "items": 1, "fresh": 0},
    {"event": "item", "step": "docs", "state": "done", "seconds": 0.5},
    {"event": "step", "step": "each", "items": 9, "fresh": 5},
    {"event": "item", "step": "each", "key": "a", "state": "done", "seconds": 1.5, "calls": 2},
    {"event": "item", "step": "each", "key": "b", "state": "quarantined", "seconds": 1.0},
)


def read_last_run(file: Path) -> LastRunSteps:
    runs = recent_runs([LedgerFolder(file.parent / ".paddock", file.name)], limit=1).runs
    return last_run_steps(runs[0] if runs else None)


def left_behind(folder: Path, status: str, summary: dict[str, object] | None) -> Path:
    """Make what a run leaves behind that did not end as it should."""
    state = folder / ".paddock"

    async def write() -> None:
        with Ledger(state) as ledger:
            row = {"run": "calm-otter", "pipeline": "p", "file": "p.yaml", "started": time.time()}
            row |= {"status": status, "host": socket.gethostname(), "pid": 2**22 + 1}
            RunStore(ledger).record_run(
                {**row, "summary": json.dumps(summary) if summary else None}
            )
            await ledger.durable()

    asyncio.run(write())
    (state / "runs").mkdir()
    text = "\n".join(map(json.dumps, LINES)) + '\n{"event": "it'
    (state / "runs/calm-otter.jsonl").write_text(text)
    return folder / "p.yaml"


def test_of_a_run_that_died_its_journal_tells(tmp_path: Path) -> None:
    last = read_last_run(left_behind(tmp_path, "running", None))
    assert last.steps["docs"] == LastStepRun("done", {}, 1, seconds=0.5)
    each = last.steps["each"]
    assert each.counts == {"fresh": 5, "done": 1, "quarantined": 1, "left": 2}
    assert (each.state, each.calls) == ("failed", 2)
    assert (
        box_text(GraphBox("each", "each", "", last=each))
        == "1 done · 5 fresh · 1 quarantined · 2 left · 2.5 s · 2 calls"
    )
    assert last.otherwise == LastStepRun()  # of what happened within items it tells nothing


def test_a_run_that_ended_tells_of_each_step(world: World) -> None:
    world.documents(2)
    assert read_last_run(world.file) == LastRunSteps()
    world.run()
    last = read_last_run(world.file)
    assert {name: (step.state, step.n, step.calls) for name, step in last.steps.items()} == {
        "docs": ("done", 1, 0), "text": ("done", 2, 0), "sum": ("done", 2, 2),
        "(files.write)": ("done", 2, 0), "each": ("done", 0, 0), "digest": ("done", 1, 1),
        "report": ("done", 1, 0),
    }  # fmt: skip
    world.run()
    last = read_last_run(world.file)
    assert last.steps["each"].state == "fresh"
    assert "text" not in last.steps
    assert box_text(GraphBox("text", "text", "files.read", last=last.otherwise)) == "nothing to do"
