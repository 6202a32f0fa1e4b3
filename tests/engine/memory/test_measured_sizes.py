"""What models took is kept, and a broken book is as good as none."""

from pathlib import Path

from paddock.engine.memory.measured_sizes import MeasuredSize, MeasuredSizes
from paddock.engine.workers.worker_protocol import WorkerMemory


def test_the_last_size_counts_and_is_known_to_the_next_pool(tmp_path: Path) -> None:
    file = tmp_path / "cache" / "sizes.json"
    book = MeasuredSizes(file)
    book.note("a", WorkerMemory(100, 50), load_s=2)
    book.note("a", WorkerMemory(80, 60), load_s=1)
    book.note("b", WorkerMemory(1), load_s=3)
    assert MeasuredSizes(file).find("a") == MeasuredSize(WorkerMemory(80, 60), 1)
    assert MeasuredSizes(file).find("c") is None


def test_what_another_process_noted_meanwhile_is_kept(tmp_path: Path) -> None:
    mine, theirs = MeasuredSizes(tmp_path / "sizes.json"), MeasuredSizes(tmp_path / "sizes.json")
    assert mine.find("b") is None
    theirs.note("b", WorkerMemory(2), 1)
    mine.note("a", WorkerMemory(1), 1)
    assert MeasuredSizes(tmp_path / "sizes.json").find("b") == MeasuredSize(WorkerMemory(2), 1)


def test_a_book_that_cannot_be_read_or_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "sizes.json").write_text('{"a": [1]}')
    book = MeasuredSizes(tmp_path / "sizes.json")
    assert book.find("a") is None
    nowhere = MeasuredSizes(tmp_path / "sizes.json" / "below")
    nowhere.note("a", WorkerMemory(1), 1)
    assert nowhere.find("a") == MeasuredSize(WorkerMemory(1), 1)
