"""What must be written so that items keep their rows; the rows' prints, taken together."""

from __future__ import annotations

from pathlib import Path

import pytest

from paddock.steps.storage import ItemName, Row
from paddock.steps.stores.rows import Change, Cut, Known, Sum, Wish, change, owner_of


def wish(*texts: str, owner: str = "o", step: str = "index") -> Wish:
    rows = [Row(index, text, ()) for index, text in enumerate(texts)]
    return Wish.of(owner, ItemName(step, "a.md", "a.md"), rows)


def known(one: Wish) -> list[Known]:
    return [Known(one.owner, one.step, kept.row.index, kept.print) for kept in one.rows]


def put(made: Change) -> list[str]:
    return [kept.row.text for _, kept in made.put]


def test_rows_of_a_new_item_are_put_in_place_of_none() -> None:
    made = change([wish("a", "b")], [])
    assert (put(made), made.has_old, made.drop) == (["a", "b"], False, [])
    assert made.sums["o"] == Sum.of(kept.print for kept in wish("a", "b").rows)


def test_what_is_equal_is_not_written_again() -> None:
    assert change([wish("a", "b")], known(wish("a", "b"))).is_nothing


def test_only_what_differs_is_written() -> None:
    made = change([wish("a", "B", "c")], known(wish("a", "b")))
    assert (put(made), made.has_old, made.drop) == (["B", "c"], True, [])


def test_rows_beyond_the_last_are_dropped_in_one_word() -> None:
    made = change([wish("a")], known(wish("a", "b", "c")))
    assert (put(made), made.drop) == ([], [Cut("o", "index", above=0)])
    assert made.sums["o"] == Sum.of(kept.print for kept in wish("a").rows)


def test_rows_in_between_are_dropped_by_name() -> None:
    row = Row(5, "f", ())
    made = change([Wish.of("o", ItemName("index", "a.md", "a.md"), [row])], known(wish("a", "b")))
    assert made.drop == [Cut("o", "index", indexes=(0, 1))]


def test_other_steps_and_other_items_keep_theirs() -> None:
    others = known(wish("x", step="titles")) + known(wish("y", owner="p"))
    made = change([wish()], [*known(wish("a")), *others])
    assert made.drop == [Cut("o", "index")]
    assert made.sums["o"] == Sum.of(kept.print for kept in wish("x", step="titles").rows)


def test_a_sum_is_read_as_it_was_written_and_takes_away_what_it_took() -> None:
    one, two = Sum.of(["0a", "ff"]), Sum.of(["1b"])
    assert Sum.read(one.text) == one
    assert (one + two - two, Sum().text) == (one, "")
    with pytest.raises(ValueError, match="invalid literal"):
        Sum.read("x")


def test_a_print_knows_all_but_the_vector() -> None:
    item = ItemName("index", "a.md", "a.md")
    rows = [
        Row(0, "t", ()),
        Row(1, "t", ()),
        Row(0, "u", ()),
        Row(0, "t", (), page=1),
        Row(0, "t", (), headings=("H",)),
        Row(0, "t", (), source="b.md"),
        Row(0, "t", (), made="split 256"),
    ]
    prints = [Wish.of("o", item, [row]).rows[0].print for row in rows]
    assert len(set(prints)) == len(rows)
    assert Wish.of("o", item, [Row(0, "t", (1.0,))]).rows[0].print == prints[0]


def test_owners_in_a_store_elsewhere_are_told_apart_by_where_their_pipeline_lies() -> None:
    item = ItemName(owner="scope\na.md")
    here, there = Path("/home/here"), Path("/home/there")
    assert owner_of(item, here / "x.lance", here) == owner_of(item, there / "x.lance", there)
    shared = Path("/srv/x.lance")
    assert owner_of(item, shared, here) != owner_of(item, shared, there)
