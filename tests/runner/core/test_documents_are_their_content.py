"""Documents and outputs that move house: renames, other places, lost state; each is there once."""

import json
import os
import random
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from paddock.runner.progress.report import Report
from paddock.runner.settings import STATE_FOLDER
from paddock.steps.sources import bucket
from paddock.steps.sources.mirror import Source, SourceAway
from tests.fakes.buckets import Place, place
from tests.forked import ForkServer
from tests.runner.core.moved_worlds import MovedWorld
from tests.runner.killed_runs import kill_runs, run_to_end
from tests.runner.world import Notes, carried_out

N_KILLS = int(os.environ.get("PADDOCK_TEST_KILLS", "4"))
PIPELINE = """\
steps:
  - {id: docs, uses: files.scan, with: {root: copies, bucket: BUCKET}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - uses: files.write
        with: {path: "out/{{ doc.relpath | replace('/', '-') }}", text: "{{ steps.text.text }}"}
returns: steps.each.counts
"""


class House(MovedWorld):
    """A pipeline over the copies of a place, which has two documents."""

    def __init__(self, folder: Path, there: Place, name: str = "pipeline.yaml") -> None:
        self.there = there
        super().__init__(folder, self.text_for(there), name=name)

    def text_for(self, there: Place) -> str:
        given = json.dumps({"url": there.url, "options": there.options})
        return PIPELINE.replace("BUCKET", given)

    def go(self, **wishes: Any) -> tuple[Report, list[str]]:
        notes = Notes()
        report = carried_out(self, observer=notes, **wishes)
        assert report.status == "completed", report.message
        return report, [text for text in notes.texts if "://" in text]

    def copies(self, folder: str = "copies") -> dict[str, str]:
        root = self.folder / folder
        files = (path for path in root.rglob("[!.]*") if path.is_file())
        return {path.relative_to(root).as_posix(): path.read_text() for path in files}

    def rename_copies(self) -> None:
        (self.folder / "copies").rename(self.folder / "papers")
        self.edit("root: copies", "root: papers")

    def copy_copies(self) -> None:
        shutil.copytree(self.folder / "copies", self.folder / "papers")
        self.edit("root: copies", "root: papers")

    def lose_all_state(self) -> None:
        shutil.rmtree(self.folder / STATE_FOLDER)

    def damage_state(self) -> None:
        for path in self.states.glob("*.json"):
            path.write_text("{")

    def remove_copies(self) -> None:
        shutil.rmtree(self.folder / "copies")

    def as_earlier_version(self, cursor: str = "") -> None:
        """Have what an earlier version noted beside the copies, in place of the state."""
        (path,) = self.states.glob("bucket-*.json")
        index, old = json.loads(path.read_text()), OLD_INDEX
        for name, copy in index["copies"].items():
            old = old.replace(f"MARKER {name}", json.dumps(copy["marker"])[1:-1])
        self.write("copies/.source.json", old.replace("CURSOR", cursor or index["cursor"]))
        self.lose_state()


OLD_INDEX = (
    '{"cursor": "CURSOR", "copies": {"a.txt": {"identity": "a.txt", "name": "a.txt", "size_bytes": '
    '3, "marker": "MARKER a.txt", "is_here": true, "is_done": false, "is_changed": false}, '
    '"b/c.txt": {"identity": "b/c.txt", "name": "b/c.txt", "size_bytes": 3, "marker": '
    '"MARKER b/c.txt", "is_here": true, "is_done": false, "is_changed": false}}, "former": []}'
)
"""Written at 6e7386861."""
FIRST = {"a.txt": "one", "b/c.txt": "two"}
LATER = {"a.txt": "changed", "b/c.txt": "two", "d.txt": "new"}


@pytest.fixture
def house(tmp_path: Path, there: Place) -> House:
    for name, text in FIRST.items():
        there.put(name, text.encode())
    made = House(tmp_path / "here", there)
    made.go()
    assert made.copies() == FIRST
    return made


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked, contents = list[str](), bucket.Bucket.contents

    def counted(self: Any, identities: Any) -> Any:
        asked.extend(identities)
        return contents(self, identities)

    monkeypatch.setattr(bucket.Bucket, "contents", counted)
    return asked


@pytest.mark.parametrize(
    ("move", "is_known"),
    [
        (House.rename_pipeline, True),
        (House.rename_base, True),
        (House.rename_copies, True),
        (House.copy_copies, True),
        (House.lose_state, False),
        (House.damage_state, False),
        (House.lose_all_state, False),
        (House.remove_copies, False),
        (House.as_earlier_version, True),
        (lambda house: house.as_earlier_version("elsewhere/"), False),
    ],
    ids=["pipeline", "base", "copies", "copied", "lost", "damaged", "none", "removed", "old",
         "old and elsewhere"],
)  # fmt: skip
def test_whatever_moves_each_document_is_there_once_and_what_is_known_is_not_fetched_again(
    house: House, there: Place, fetched: list[str], move: Callable[[House], None], is_known: bool
) -> None:
    fetched.clear()
    move(house)
    folder = "copies" if "root: copies" in house.text else "papers"
    _, notes = house.go()
    assert (house.copies(folder), notes) == (FIRST, [])
    assert sorted(fetched) == ([] if is_known else sorted(FIRST))
    there.put("a.txt", b"changed")
    there.put("d.txt", b"new")
    assert (house.go()[1], house.copies(folder)) == ([], LATER)
    there.remove("b/c.txt")
    house.go()
    assert house.copies(folder) == {"a.txt": "changed", "d.txt": "new"}


def test_a_state_that_was_restored_from_a_backup_loses_and_doubles_nothing(
    house: House, there: Place, tmp_path: Path
) -> None:
    shutil.copytree(house.states, tmp_path / "backup")
    there.put("a.txt", b"changed")
    there.put("d.txt", b"new")
    house.go()
    house.lose_state()
    shutil.copytree(tmp_path / "backup", house.states)
    assert (house.go()[1], house.copies()) == ([], LATER)


@pytest.mark.parametrize("is_made_again", [False, True])
def test_a_copy_that_was_deleted_stays_away_also_in_a_renamed_folder(
    house: House, is_made_again: bool
) -> None:
    (house.folder / "copies/a.txt").unlink()
    house.go()
    house.rename_copies()
    if is_made_again:
        (house.folder / "copies").mkdir()
    house.go()
    assert house.copies("papers") == {"b/c.txt": "two"}


def test_a_copy_that_was_deleted_stays_away_where_hidden_files_are_lost(house: House) -> None:
    (house.folder / "copies/a.txt").unlink()
    house.go()
    for path in (house.folder / "copies").glob(".*"):
        path.unlink()
    house.go()
    assert house.copies() == {"b/c.txt": "two"}


def test_a_folder_with_one_of_the_copies_gets_the_others(house: House) -> None:
    house.write("papers/a.txt", "one")
    house.edit("root: copies", "root: papers")
    house.go()
    assert house.copies("papers") == FIRST


def test_a_file_of_the_same_name_and_size_is_not_the_copy(house: House, there: Place) -> None:
    house.write("copies/bill.txt", "my words")
    house.write("copies/same.txt", "the same")
    there.put("bill.txt", b"IN WORDS")
    there.put("same.txt", b"the same")
    house.go()
    mine = {"bill.txt": "my words", "bill-2.txt": "IN WORDS", "same.txt": "the same"}
    assert house.copies() == {**FIRST, **mine}
    there.remove("bill.txt")
    house.go()
    assert house.copies() == {**FIRST, "bill.txt": "my words", "same.txt": "the same"}


def test_a_file_that_came_before_a_document_was_fetched_is_not_the_copy(
    house: House, there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks_off(self: Source, identities: Any) -> Any:
        raise SourceAway("it broke off")

    there.put("bill.txt", b"IN WORDS")
    with monkeypatch.context() as broken:
        broken.setattr(bucket.Bucket, "contents", breaks_off)
        _, notes = house.go()
    assert (
        " is away, it broke off. Its documents of before stand; the next run goes on." in notes[0]
    )
    house.write("copies/bill.txt", "my words")
    house.go()
    assert house.copies() == {**FIRST, "bill.txt": "my words", "bill-2.txt": "IN WORDS"}


def test_a_copy_that_a_person_edited_is_theirs(house: House, there: Place) -> None:
    house.write("copies/a.txt", "edited")
    house.write("copies/b/c.txt", "edited too")
    there.put("a.txt", b"changed")
    there.remove("b/c.txt")
    _, notes = house.go()
    assert house.copies() == {"a.txt": "edited", "a-2.txt": "changed", "b/c.txt": "edited too"}
    assert "2 documents of " in notes[0]
    assert "changed or gone there, and edited here, where that is kept: " in notes[0]
    assert house.go()[1] == []


def test_a_file_in_place_of_a_folder_takes_no_other_document(house: House, there: Place) -> None:
    house.write("copies/d", "mine")
    there.put("d/e.txt", b"three")
    there.put("f.txt", b"four")
    _, notes = house.go()
    assert house.copies() == {**FIRST, "d": "mine", "f.txt": "four"}
    assert "'d/e.txt' (a part of its path is a file here)" in notes[0]
    (house.folder / "copies/d").unlink()
    assert (house.go()[1], house.copies()["d/e.txt"]) == ([], "three")


def test_another_machine_with_the_same_paths_is_another_place(
    house: House, there: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "s3" if there.url.startswith("s3") else "sftp"
    home = tmp_path / "home2"
    with place(kind, tmp_path / "there2", home) as other:
        if kind == "sftp":  # the same path on both
            monkeypatch.setenv("HOME", str(home))
            port, before = other.url.split(":")[2].partition("/")[0], there.url.split(":")[2]
            other_url = there.url.replace(before.partition("/")[0], port)
            shutil.rmtree(tmp_path / "there/office")
        else:
            other_url = other.url
            for name in FIRST:
                there.remove(name)
        put = there.put if kind == "sftp" else other.put
        put("a.txt", b"ONE")
        put("b/c.txt", b"two")
        house.edit(json.dumps(there.url), json.dumps(other_url))
        house.edit(json.dumps(there.options)[1:-1], json.dumps(other.options)[1:-1])
        house.go(prune=True)
        assert house.copies() == {**FIRST, "a-2.txt": "ONE"}
        house.go(prune=True)
        assert house.copies() == {**FIRST, "a-2.txt": "ONE"}


def test_two_places_that_fill_one_folder_keep_what_one_of_them_has(
    house: House, there: Place
) -> None:
    below = f"{there.url}/b"
    step = next(line for line in house.text.splitlines() if "files.scan" in line)
    second = step.replace("id: docs", "id: more").replace(json.dumps(there.url), json.dumps(below))
    house.edit(f"{step}\n", f"{second}\n{step}\n")
    there.put("b/a.txt", b"one")
    house.go()
    assert house.copies() == {**FIRST, "c.txt": "two", "b/a.txt": "one"}
    there.remove("a.txt")
    house.go()
    house.go()
    assert house.copies() == {"a.txt": "one", "b/c.txt": "two", "c.txt": "two", "b/a.txt": "one"}
    there.put("b/a.txt", b"changed")
    house.go()
    assert house.copies()["a.txt"] == house.copies()["b/a.txt"] == "changed"


def test_two_pipelines_of_one_folder_fetch_each_document_once(
    house: House, there: Place, fetched: list[str]
) -> None:
    fetched.clear()
    other = House(house.folder, there, "other.yaml")
    other.edit("out/", "other/")
    other.go()
    there.put("d.txt", b"new")
    house.go()
    other.go()
    assert (fetched, house.copies()) == (["d.txt"], {**FIRST, "d.txt": "new"})


def test_two_runs_at_once_and_runs_that_are_killed_leave_each_document_once(
    house: House, there: Place, fork_server: ForkServer
) -> None:
    dice, texts = random.Random(84), dict[str, str]()

    def change() -> None:
        for name in dice.sample(range(12), 5):
            texts[f"{name}.txt"] = f"{name} {dice.random()}"
            there.put(f"{name}.txt", texts[f"{name}.txt"].encode())
        if (gone := dice.choice([*texts])) in texts:
            del texts[gone]
            there.remove(gone)

    kill_runs(fork_server, house, N_KILLS, dice, change)
    change()
    with ThreadPoolExecutor(2) as threads:
        for run in [threads.submit(run_to_end, fork_server, house) for _ in range(2)]:
            run.result()
    assert house.copies() == {**FIRST, **texts}
