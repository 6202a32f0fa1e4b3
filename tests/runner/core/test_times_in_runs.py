"""`now` and `today` in expressions: what they choose, and what a new day makes stale."""

import os
import time
from pathlib import Path

import pytest

from paddock.pipelines.times import moments
from tests.runner.world import World

DAY_S = 86_400.0
LETTERS = """\
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    where: doc.modified | date == today("-1d")
    do:
      - {id: sum, uses: chat, with: {prompt: "Sum up: {{ doc.relpath }}"}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.sum.text }}"}}
    returns: {name: doc.relpath}
  - id: dated
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: chat, with: {prompt: "PROMPT {{ doc.relpath }}"}}
      - {uses: files.write, with: {path: "dated/{{ doc.relpath }}", text: "{{ steps.text.text }}"}}
  - {uses: files.write, with: {path: out/letters.csv, rows: "{{ steps.each.results }}"}}
returns: steps.each.results
"""


@pytest.fixture
def days(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Days that have gone by."""
    gone = [0.0]
    monkeypatch.setattr(
        "paddock.runner.bind.scope.moments", lambda at: moments(at + gone[0] * DAY_S)
    )
    return gone


def letters(folder: Path, prompt: str) -> World:
    world = World(folder, LETTERS.replace("PROMPT", prompt), n_documents=4)
    for number, days_ago in enumerate((0, 1, 1, 1)):
        at = time.time() - days_ago * DAY_S
        os.utime(folder / f"inbox/{number}.txt", (at, at))
    return world


def test_yesterdays_letters_are_one_where(tmp_path: Path, days: list[float]) -> None:
    world = letters(tmp_path, "Keep:")
    assert world.run().returns == [{"name": f"{number}.txt"} for number in (1, 2, 3)]
    days[0] = 1
    report = world.run()
    assert report.returns == [{"name": "0.txt"}]
    assert report.calls == 1, "of the letter that is yesterday's now"
    assert world.output("1.txt"), "what was made of the earlier one stays"
    assert world.output("letters.csv") == "name\n0.txt\n", "no one has to confirm a new day"


def test_a_new_day_makes_stale_what_reads_today_and_nothing_else(
    tmp_path: Path, days: list[float]
) -> None:
    world = letters(tmp_path, "On {{ today() }}:")
    world.run()
    assert world.run().calls == 0
    days[0] = 0.00001
    assert world.run().calls == 0, "the same day"
    days[0] = 1
    planned = world.plan()
    assert {item.key: item.state for item in planned.items if item.step == "dated"} == {
        f"{number}.txt": "stale" for number in range(4)
    }
    report = world.run()
    dated = [item for item in report.items if item.step == "dated"]
    assert {item.why for item in dated} == {"value changed: today"}
