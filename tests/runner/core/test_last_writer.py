"""An output is whose item wrote it last; another one's is written again, without a call."""

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from paddock.runner.lineage.explain import explain_path
from tests.fakes.pool import FakePool
from tests.runner.world import World, reasons

ROWS = """steps:
  - {id: t, uses: files.rows, with: {path: t.csv}}
  - id: each
    for_each: row in steps.t.rows
    KEY
    do:
      - {id: said, uses: chat, with: {prompt: "{{ row.price }}"}}
      - {uses: files.write, with: {path: "PATH", text: "{{ steps.said.text }}"}}
"""
NESTED = """steps:
  - {id: t, uses: files.scan, with: {root: ., include: [t.csv]}}
  - id: each
    for_each: doc in steps.t.files
    do:
      - {id: rows, uses: files.rows, with: {path: "{{ doc.path }}"}}
      - id: inner
        for_each: row in steps.rows.rows
        do:
          - {id: said, uses: chat, with: {prompt: "{{ row.price }}"}}
          - uses: files.write
            with: {path: "out/{{ loop.index }}.txt", text: "{{ steps.said.text }}"}
"""
SUB = """steps:
  - {id: t, uses: files.rows, with: {path: t.csv}}
  - {id: each, uses: pipeline, with: {file: sub.yaml, inputs: {rows: "{{ steps.t.rows }}"}}}
"""
INNER = ROWS.replace("  - {id: t, uses: files.rows, with: {path: t.csv}}\n", "")
INNER = "inputs: {rows: {type: list}}\n" + INNER.replace("steps.t.rows", "inputs.rows")
BLOCKS = """steps:
  - {id: t, uses: files.rows, with: {path: t.csv}}
  - id: each
    for_each: row in steps.t.rows | selectattr('price', 'eq', '40') | list
    do:
      - {id: said, uses: chat, with: {prompt: "{{ row.price }}"}}
      - {uses: files.write, with: {path: "out/1.txt", text: "{{ steps.said.text }}"}}
  - id: other
    for_each: row in steps.t.rows | rejectattr('price', 'eq', '40') | list
    do: [{uses: files.write, with: {path: "out/1.txt", text: "{{ row.price }}"}}]
"""
INDEX = ROWS.replace("PATH", "out/{{ loop.index }}.txt").replace("    KEY\n", "")
BY_ID = ROWS.replace("PATH", "out/{{ row.id }}.txt")
KINDS: Mapping[str, tuple[str, str]] = {
    "rows without key": (BY_ID.replace("    KEY\n", ""), ""),
    "rows with another key": (BY_ID.replace("KEY", 'key: "row.price | string"'), ""),
    "places in a list": (INDEX, ""),
    "a nested block": (NESTED, ""),
    "a block of a pipeline that a step runs": (SUB, INNER.replace("    KEY\n", "").replace(
        "PATH", "out/{{ loop.index }}.txt")),
    "another block": (BLOCKS, ""),
}  # fmt: skip


def table(*prices: int) -> str:
    return "\n".join(["id,price", *(f"{n},{price}" for n, price in enumerate(prices, 1)), ""])


class Rows(World):
    """A world whose outputs are made of the rows of a table."""

    def become(self, *prices: int, **options: Any) -> tuple[dict[str, str], int]:
        """Run with these prices, as planned; return the outputs, and the number of chats."""
        self.write("t.csv", table(*prices))
        planned = self.plan()
        report = self.run(pool=FakePool(answer=lambda request: request.messages[-1].content),
                          **options)  # fmt: skip
        assert report.status == "completed", report.message
        steps = [item for item in planned.items if not item.is_step]
        work = {item.key for item in steps if item.state in ("new", "stale", "changed")}
        done = {i.key for i in report.items if i.state in ("new", "stale", "changed")}
        assert work == {key.partition("/")[0] for key in done} or options
        assert not [item for item in self.plan().items if item.state not in ("fresh", "deleted")]
        out = {path.stem: path.read_text() for path in sorted((self.folder / "out").iterdir())}
        return out, len(self.pool.chats)


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return Rows(tmp_path, BY_ID.replace("    KEY\n", ""))


@pytest.mark.parametrize(("kind", "prune"), [*zip(KINDS, cycle([True, False]), strict=False)])
def test_a_value_that_comes_back_is_written_again_without_a_call(
    tmp_path: Path, kind: str, prune: bool
) -> None:
    text, sub = KINDS[kind]
    world = Rows(tmp_path, text, beside={"sub.yaml": sub} if sub else {})
    assert world.become(40) == ({"1": "40"}, 1)
    out, _ = world.become(45, prune=prune)
    assert out == {"1": "45"}
    assert world.become(40, prune=prune) == ({"1": "40"}, 0)
    if kind != "another block":
        assert world.become(40, 45, prune=prune)[0] == {"1": "40", "2": "45"}
        assert world.become(45, prune=prune)[0]["1"] == "45"
        assert world.become(40, 45, prune=prune) == ({"1": "40", "2": "45"}, 0)


@pytest.mark.parametrize(("kind", "who"), [
    ("rows with another key", "item '45'"),
    ("another block", "'other'"),
])  # fmt: skip
def test_the_plan_and_why_say_who_wrote_it_since(tmp_path: Path, kind: str, who: str) -> None:
    text = KINDS[kind][0].replace("steps.said.text", "row.price")
    own = '{uses: files.write, with: {path: "out/own-{{ row.price }}", text: same}}'
    text = text.replace('{id: said, uses: chat, with: {prompt: "{{ row.price }}"}}', own)
    world = Rows(tmp_path, text)
    world.become(40)
    world.become(45)
    world.write("t.csv", table(40))
    (why,) = {why for why in reasons(world.plan()).values() if why and "since" in why}
    assert why == f"output was written since by {who}: out/1.txt"
    (origin,) = explain_path(tmp_path / "out/own-40").origins
    assert why in [change.what for change in origin.changes]
    (origin,) = explain_path(tmp_path / "out/1.txt").origins
    (writer,) = (item.key for item in world.plan().items if item.why == why)
    assert [change.what for change in origin.changes] == [
        f"the next run writes it for item '{writer}'"
    ]
    world.become(40)
    (origin,) = explain_path(tmp_path / "out/own-40").origins
    assert origin.changes == ()


def test_equal_contents_of_two_items_leave_both_fresh(rows: Rows) -> None:
    rows.edit("{{ steps.said.text }}", "same")
    rows.become(40)
    rows.become(45)
    assert rows.become(40, prune=True) == ({"1": "same"}, 0)
    assert rows.run().counts == {"fresh": 1}


def test_what_a_person_edited_meanwhile_is_held(rows: Rows) -> None:
    rows.become(40)
    rows.become(45)
    rows.write("out/1.txt", "Mine.")
    rows.write("t.csv", table(40))
    assert [item.state for item in rows.plan().items if item.step == "each"] == ["held", "deleted"]
    rows.run()
    assert rows.output("1.txt") == "Mine."
    assert rows.become(40, takes_over=True) == ({"1": "40"}, 0)
