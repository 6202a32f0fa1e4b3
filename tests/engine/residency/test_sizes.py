"""What models took is kept, and a broken book is as good as none."""

from __future__ import annotations

from pathlib import Path

from paddock.engine.residency.sizes import Measured, SizeBook
from paddock.engine.workers.load import Taken


def test_the_last_size_counts_and_is_known_to_the_next_pool(tmp_path: Path) -> None:
    file = tmp_path / "cache" / "sizes.json"
    book = SizeBook(file)
    book.note("a", Taken(100, 50), load_s=2)
    book.note("a", Taken(80, 60), load_s=1)
    book.note("b", Taken(1), load_s=3)
    assert SizeBook(file).find("a") == Measured(Taken(80, 60), 1)
    assert SizeBook(file).find("c") is None


def test_what_another_process_noted_meanwhile_is_kept(tmp_path: Path) -> None:
    mine, theirs = SizeBook(tmp_path / "sizes.json"), SizeBook(tmp_path / "sizes.json")
    assert mine.find("b") is None
    theirs.note("b", Taken(2), 1)
    mine.note("a", Taken(1), 1)
    assert SizeBook(tmp_path / "sizes.json").find("b") == Measured(Taken(2), 1)


def test_a_book_that_cannot_be_read_or_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "sizes.json").write_text('{"a": [1]}')
    book = SizeBook(tmp_path / "sizes.json")
    assert book.find("a") is None
    nowhere = SizeBook(tmp_path / "sizes.json" / "below")
    nowhere.note("a", Taken(1), 1)
    assert nowhere.find("a") == Measured(Taken(1), 1)
