"""What must be written so that items keep their rows; the rows' prints, taken together."""

from pathlib import Path

from paddock.steps.base import ItemName, VectorRow
from paddock.steps.vectors.row_changes import (
    KnownRow,
    RowsToDrop,
    RowsToKeep,
    row_changes,
    row_owner,
)


def wish(*texts: str, owner: str = "o", step: str = "index") -> RowsToKeep:
    rows = [VectorRow(index, text, ()) for index, text in enumerate(texts)]
    return RowsToKeep.of(owner, ItemName(step, "a.md", "a.md"), rows)


def known(one: RowsToKeep) -> list[KnownRow]:
    return [KnownRow(one.owner, one.step, kept.row.index, kept.print) for kept in one.rows]


def test_rows_in_between_are_dropped_by_name() -> None:
    row = VectorRow(5, "f", ())
    made = row_changes(
        [RowsToKeep.of("o", ItemName("index", "a.md", "a.md"), [row])], known(wish("a", "b"))
    )
    assert made.drop == [RowsToDrop("o", "index", indexes=(0, 1))]


def test_a_print_knows_all_but_the_vector() -> None:
    item = ItemName("index", "a.md", "a.md")
    rows = [
        VectorRow(0, "t", ()),
        VectorRow(1, "t", ()),
        VectorRow(0, "u", ()),
        VectorRow(0, "t", (), page=1),
        VectorRow(0, "t", (), headings=("H",)),
        VectorRow(0, "t", (), source="b.md"),
        VectorRow(0, "t", (), made="split 256"),
    ]
    prints = [RowsToKeep.of("o", item, [row]).rows[0].print for row in rows]
    assert len(set(prints)) == len(rows)
    assert RowsToKeep.of("o", item, [VectorRow(0, "t", (1.0,))]).rows[0].print == prints[0]


def test_owners_in_a_store_elsewhere_are_told_apart_by_where_their_pipeline_lies() -> None:
    item = ItemName(owner="scope\na.md")
    here, there = Path("/home/here"), Path("/home/there")
    assert row_owner(item, here / "x.lance", here) == row_owner(item, there / "x.lance", there)
    shared = Path("/srv/x.lance")
    assert row_owner(item, shared, here) != row_owner(item, shared, there)
