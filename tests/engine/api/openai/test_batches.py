"""Files and batches on disk."""

import stat
import time
from pathlib import Path

import pytest

from paddock.engine.api.errors import InvalidValue
from paddock.engine.api.openai.batch_endpoints import list_page
from paddock.engine.api.openai.batches import (
    BatchRecord,
    BatchStore,
    FileRecord,
    FileStore,
    with_status,
)
from paddock.engine.api.openai.chat_completions import new_id


def put(shelf: FileStore, expires_at: int | None = None) -> FileRecord:
    facts = FileRecord(new_id("file-"), "a.jsonl", "batch", 3, time.time_ns(), expires_at)
    data = shelf.new_data(facts.id)
    data.write(b"abc")
    shelf.add(facts, data)
    data.close()
    return facts


def test_a_file_is_found_until_it_is_deleted(tmp_path: Path) -> None:
    shelf = FileStore(tmp_path)
    facts = put(shelf)
    assert shelf.find(facts.id) == facts
    assert shelf.data_path(facts.id).read_bytes() == b"abc"
    assert FileStore(tmp_path).list() == [facts], "another process sees it too"
    shelf.delete(facts.id)
    assert shelf.find(facts.id) is None
    assert list(shelf.folder.iterdir()) == []


def test_a_file_whose_time_is_up_is_gone(tmp_path: Path) -> None:
    shelf = FileStore(tmp_path)
    old, new = put(shelf, int(time.time()) - 1), put(shelf, int(time.time()) + 60)
    assert shelf.list() == [new]
    assert shelf.find(old.id) is None
    assert not shelf.data_path(old.id).exists()


@pytest.mark.parametrize("file_id", ["../x", "file-../../etc", "", "file-", "FILE-" + "a" * 24])
def test_an_id_that_is_none_of_ours_is_no_path(tmp_path: Path, file_id: str) -> None:
    assert FileStore(tmp_path).find(file_id) is None
    assert BatchStore(tmp_path).find(file_id) is None


def test_no_one_else_may_read_what_people_send(tmp_path: Path) -> None:
    shelf = FileStore(tmp_path)
    facts = put(shelf)
    assert stat.S_IMODE(shelf.folder.stat().st_mode) == 0o700
    for path in (shelf.data_path(facts.id), shelf.path(facts.id, "json")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_half_a_document_is_none(tmp_path: Path) -> None:
    shelf = FileStore(tmp_path)
    facts = put(shelf)
    path = shelf.path(facts.id, "json")
    path.write_bytes(path.read_bytes()[:20])
    assert shelf.list() == []
    assert shelf.find(facts.id) is None


def test_a_batch_keeps_its_lines_whatever_becomes_of_their_file(tmp_path: Path) -> None:
    shelf, book = FileStore(tmp_path), BatchStore(tmp_path)
    file = put(shelf)
    facts = BatchRecord(new_id("batch_"), "/v1/embeddings", file.id, "24h", 7_000_000_000, 99)
    book.begin(facts, shelf.data_path(file.id))
    shelf.delete(file.id)
    assert book.source(facts.id).read_bytes() == b"abc"
    began = int(time.time())
    later = with_status(facts, "in_progress")
    book.write(later)
    assert BatchStore(tmp_path).list() == [later]
    assert later.value()["created_at"] == 7
    assert later.value()["in_progress_at"] >= began
    book.close(facts.id)
    assert [path.suffix for path in book.folder.iterdir()] == [".json"]


def test_a_list_is_read_page_by_page() -> None:
    values = [{"id": str(number)} for number in range(5)]
    first = list_page(values, {"limit": "2"}, 20, 100)
    assert ([batch["id"] for batch in first["data"]], first["has_more"]) == (["0", "1"], True)
    last = list_page(values, {"limit": "2", "after": "3"}, 20, 100)
    assert ([batch["id"] for batch in last["data"]], last["has_more"]) == (["4"], False)
    assert list_page([], {}, 20, 100)["data"] == []
    for query in ({"limit": "0"}, {"limit": "x"}, {"limit": "101"}, {"after": "nobody"}):
        with pytest.raises(InvalidValue):
            list_page(values, query, 20, 100)
