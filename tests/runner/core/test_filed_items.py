"""Where the document of a done item went, by its moves, its row and its entry."""

import json
from dataclasses import replace

import pytest

from paddock.runner.core.traces.filed_items import filed_row
from paddock.runner.core.traces.filed_results import keys_by_content
from paddock.runner.ledger.entries import Entry
from paddock.runner.ledger.filed_store import MOVED_BY_WATCH, FiledRow, MoveRow

ENTRY = Entry("a.pdf", "h", "{}", "done", returns="1", at=10.0)
DOCUMENT = "in/a.pdf", "sha"
AWAY = replace(ENTRY, reads=json.dumps({"in/a.pdf": ["away"]}))
ROW = FiledRow("a.pdf", "a.pdf", *DOCUMENT, "old/a.pdf")


def move(sha256: str, target: str | None, at: float = 11.0) -> dict[tuple[str, str], MoveRow]:
    row = MoveRow("in/a.pdf", sha256, target, "", "a.pdf", is_done=True, at=at)
    return {("in/a.pdf", sha256): row}


@pytest.mark.parametrize(
    ("entry", "row", "moves", "has_left", "place"),
    [
        pytest.param(ENTRY, ROW, move("sha", "b/a.pdf"), False, ("b/a.pdf", False), id="1-step"),
        pytest.param(ENTRY, None, move("sha", None), False, (None, True), id="1-deleted"),
        pytest.param(
            ENTRY, None, move(MOVED_BY_WATCH, "b/a.pdf"), False, ("b/a.pdf", False), id="1-watch"
        ),
        pytest.param(
            ENTRY, None, move(MOVED_BY_WATCH, "b/a.pdf", at=9.0), False, None, id="watch-before"
        ),
        pytest.param(ENTRY, None, move("other", "b/a.pdf"), False, None, id="another-content"),
        pytest.param(ENTRY, ROW, {}, False, ("old/a.pdf", False), id="2-came-again"),
        pytest.param(AWAY, None, {}, False, ("noted/a.pdf", False), id="3-older-paddock"),
        pytest.param(ENTRY, None, {}, True, (None, False), id="4-left-a-hot-folder"),
        pytest.param(ENTRY, None, {}, False, None, id="not-filed"),
    ],
)
def test_a_document_is_filed_where_it_went_as_far_as_that_is_known(
    entry: Entry,
    row: FiledRow | None,
    moves: dict[tuple[str, str], MoveRow],
    has_left: bool,
    place: tuple[str | None, bool] | None,
) -> None:
    def noted(key: str, sha256: str) -> str | None:
        return "noted/a.pdf" if (key, sha256) == ("a.pdf", "sha") else None

    filed = filed_row(entry, row, DOCUMENT, moves, noted, has_left=has_left)
    assert (None if filed is None else (filed.target, filed.is_deleted)) == place
    assert filed is None or (filed.path, filed.sha256, filed.returns) == (*DOCUMENT, "1")


def test_a_document_keeps_the_results_that_pipelines_within_its_item_filed() -> None:
    within = FiledRow("a.pdf", "a.pdf", returns="[1, 2]")
    filed = filed_row(ENTRY, within, DOCUMENT, move("sha", "b"), lambda *_: None, has_left=False)
    assert filed is not None and (filed.path, filed.returns) == ("in/a.pdf", "[1, 2]")


def test_items_of_one_name_keep_their_numbers_by_content_and_new_ones_get_the_free_ones() -> None:
    known = {key: replace(ENTRY, key=key, parts=json.dumps({"content": sha}))
             for key, sha in (("a", "x"), ("a#3", "y"))}  # fmt: skip
    assert [*keys_by_content("a", ["y", "new", "x"], known)] == ["a#3", "a#2", "a"]
    assert [*keys_by_content("a", ["x", "x"], known)] == ["a", "a#2"]
