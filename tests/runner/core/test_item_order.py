"""Items that take longest begin first, and nothing that a run leaves behind depends on it."""

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from paddock.runner.core import block_run
from paddock.runner.core.block_run import expected_tokens, longest_first
from paddock.runner.core.traces.block_work import ItemWork
from paddock.runner.ledger.entries import Entry
from paddock.runner.progress.events import Observer
from paddock.runner.progress.item_states import ItemState
from tests.fakes.pool import FakePool
from tests.runner.world import World, each_document

SEVERAL_STEPS = """\
name: notes
""" + each_document("""\
      - {id: sum, uses: chat, with: {prompt: "{{ steps.text.text }}\\n\\nSum up."}}
      - {id: who, uses: chat, with: {prompt: "{{ steps.text.text }}\\n\\nWho?"}}
      - {uses: files.write, with: {path: "out/{{ doc.name }}", text: "{{ steps.who.text }}"}}
    returns: {file: doc.relpath, sum: steps.sum.text}
  - {id: table, uses: files.write, with: {path: out/all.csv, rows: "{{ steps.each.results }}"}}
returns: {all: steps.each.results, changed: steps.each.changed, failed: steps.each.failed}
""")


def item(key: str, size: int, tokens: int = 0, suffix: str = ".txt") -> ItemWork:
    entry = Entry(key, "", "", "done", tokens=tokens) if tokens else None
    file = {"path": key, "suffix": suffix, "size": size}
    return ItemWork(key=key, name=key, value=file, entry=entry)


def keys(items: list[ItemWork]) -> list[str]:
    return [item.key for item in items]


def ordered(items: list[ItemWork]) -> list[ItemWork]:
    return longest_first(items, expected_tokens(items, items))


def test_the_longest_begin_first_and_those_of_about_the_same_length_in_their_own_order() -> None:
    items = [item("a", 120), item("b", 2000), item("c", 100), item("d", 5000), item("e", 1100)]
    assert keys(ordered(items)) == ["d", "b", "e", "a", "c"]


def test_what_an_item_took_before_counts_more_than_its_size() -> None:
    done = [item("a.pdf", 900_000, 500, ".pdf"), item("b.txt", 8_000, 2_000)]
    new = [item("c.pdf", 900_000, suffix=".pdf"), item("d.txt", 8_000), item("e.md", 400_000)]
    assert keys(ordered([*done, *new])) == ["e.md", "b.txt", "d.txt", "a.pdf", "c.pdf"]


def documents(world: World) -> None:
    for number, n_words in enumerate([3, 400, 5, 90, 4, 1500]):
        world.write(f"inbox/{number}.txt", f"Document {number}: " + "the ferry sails " * n_words)


@dataclass
class Begun(Observer):
    """The items in the order in which they began."""

    keys: list[str] = field(default_factory=list)

    def item(self, step: str, key: str, state: ItemState, detail: str | None) -> None:
        if state == "running" and key and key not in self.keys:
            self.keys.append(key)


def left_behind(world: World) -> dict[str, Any]:
    """Return outputs, and the ledger's rows but for times and random names."""
    out = {path.name: path.read_bytes() for path in sorted((world.folder / "out").iterdir())}
    with closing(sqlite3.connect(world.folder / ".paddock" / "ledger.sqlite")) as ledger:
        items = ledger.execute(
            "select key, hash, state, replace(returns, ?, ''), outputs, calls, tokens from events "
            "where kind = 'ended'",
            (str(world.folder),),  # which is a part of the path that the table has
        )
        calls = ledger.execute("select hash, request, reply, usage, step, key from calls")
        return {"out": out, "items": sorted(items), "calls": sorted(calls)}


def test_results_reports_and_ledger_do_not_depend_on_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("longest first", "as listed"):
        if name == "as listed":
            monkeypatch.setattr(block_run, "longest_first", lambda todo, _: list(todo))
        (tmp_path / name).mkdir()
        world = World(tmp_path / name, SEVERAL_STEPS)
        documents(world)
        begun = Begun()
        report = world.run(pool=FakePool(n_ctx_tokens=16_000), observer=begun)
        facts = report.as_json()
        for item_ in facts["items"]:
            item_["seconds"] = 0
        facts |= {"run": "", "seconds": 0}
        found.append((begun.keys[0], json.dumps(facts), left_behind(world)))
    (longest, *ours), (first, *plain) = found
    assert (longest, first) == ("5.txt", "0.txt")
    assert ours == plain


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: notes", "name: notes\nbudget: {tokens: 1000000}"),
        ("    returns: {file", "    on_error: fail\n    returns: {file"),
        ("    returns: {file", "    max_parallel: 1\n    returns: {file"),
    ],
)
def test_a_run_that_may_end_early_does_its_items_as_they_are_listed(
    tmp_path: Path, old: str, new: str
) -> None:
    world, begun = World(tmp_path, SEVERAL_STEPS.replace(old, new)), Begun()
    documents(world)
    world.run(pool=FakePool(n_ctx_tokens=16_000), observer=begun)
    assert begun.keys[0] == "0.txt"
