"""The way of a document through a run is short, and is the one that CONTRIBUTING.md shows."""

import ast
import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from tests.runner.world import World

ROOT = Path(__file__).parents[3]
PIPELINE = """\
name: copies
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - for_each: doc in steps.docs.files
    do:
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ doc.sha256 }}"}}
"""


def stations() -> list[tuple[str, str]]:
    """Return the modules and functions of the table "The way of a document in a run"."""
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    table = page.partition("For each document:\n\n```\n")[2].partition("```")[0]
    rows = [re.match(r"(\S*) +(\S+)  ", line) for line in table.splitlines()]
    found, module = [], ""
    for row in rows:
        assert row is not None, table
        module = row[1] or module
        found.append((module, row[2]))
    return found


def entered(world: World) -> list[tuple[str, str]]:
    """Return the functions that a run enters, in order."""
    found: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            module = frame.f_globals.get("__name__", "").removeprefix("paddock.")
            found.append((module.removeprefix("runner."), frame.f_code.co_qualname))

    sys.setprofile(note)
    try:
        world.run()
    finally:
        sys.setprofile(None)
    return found


def test_a_document_goes_the_way_that_the_page_shows(tmp_path: Path) -> None:
    world = World(tmp_path, PIPELINE)
    world.write("inbox/a.txt", "Dear Ada")
    met = iter(entered(world))
    assert [station for station in stations() if station not in met] == []


def test_the_way_of_a_document_is_short() -> None:
    way = stations()
    assert len(way) <= 12
    assert len({module for module, _ in way if module.startswith("core.")}) <= 6


def test_an_item_turns_back_at_two_places_before_its_end() -> None:
    tree = ast.parse((ROOT / "runner/core/block_run.py").read_text("utf-8"))
    (item,) = (n for n in ast.walk(tree) if getattr(n, "name", "") == "_item")
    assert sum(isinstance(node, ast.Return) for node in ast.walk(item)) <= 2
