"""A decision goes the way that `CONTRIBUTING.md` shows, from the page to the next paper."""

import asyncio
import re
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Self

from paddock.engine.settings import PoolSettings
from paddock.runner.schedule.decision_orders import DecisionTrigger
from paddock.runner.schedule.triggered_pipeline import read_triggered_pipeline
from paddock.runner.settings import Settings
from tests.runner.core.test_rules_of_decisions import NEXT, PIPELINE, TRUE, Desk, bill
from tests.runner.review.served_page import ServedPage, client
from tests.runner.schedule.desks import at_work, desk_of, open_queue
from tests.waiting import eventually

ROOT = Path(__file__).parents[3]
SECTION = (ROOT / "CONTRIBUTING.md").read_text().partition("## The way of a decision\n")[2]
STATIONS = [
    (found[1], found[2])
    for found in re.finditer(r"^ *([\w.]+) +([\w.]+)  ", SECTION.split("```")[1], re.MULTILINE)
]


class Walk:
    """Which functions are entered, in the order of the first time, in this and new threads."""

    def __init__(self) -> None:
        self.entered = dict[tuple[str, str], None]()
        self._seen = set[CodeType]()

    def __enter__(self) -> Self:
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _note(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code not in self._seen:
            self._seen.add(frame.f_code)
            module = str(frame.f_globals.get("__name__", "")).removeprefix("paddock.")
            self.entered[module, frame.f_code.co_qualname] = None


async def order_of(desk: Desk) -> str:
    """Return why `up` runs the pipeline."""
    text = desk.file.read_text(encoding="utf-8")
    served = read_triggered_pipeline(desk.file, text, Settings(PoolSettings(), desk.folder))
    assert served is not None
    trigger = DecisionTrigger()
    async with (
        open_queue(desk.folder, served) as queue,
        at_work(trigger, desk_of(queue, served, trigger)),
    ):
        await eventually(lambda: queue.orders)
        return next(iter(queue.orders.values())).reason


def test_a_decision_goes_the_way_that_contributing_shows(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "bills", f"on: {{schedule: {{cron: '0 6 * * *'}}}}\n{PIPELINE}")
    desk.arrive(a=bill())
    desk.work()
    with Walk() as walk:
        with ServedPage(desk.folder).served() as address, client(address) as page:
            (row,) = page.get("/review/api/queue").json()["rows"]
            asked = page.get(f"/review/api/reviews/{row['id']}").json()
            changes = {name: str(value) for name, value in TRUE.items()}
            decision = {"question": asked["question"], "verb": "edit", "changes": changes}
            assert page.post(f"/review/api/reviews/{row['id']}/decide", json=decision).is_success
        assert asyncio.run(order_of(desk)) == "goes on with 1 decision"
        desk.arrive(b=bill(**NEXT))
        report = desk.work()
    assert (desk.waiting(), report.calls) == ({}, 0)
    order = [station for station in walk.entered if station in STATIONS]
    assert order == STATIONS
    assert len(STATIONS) <= 12
