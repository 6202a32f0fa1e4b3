"""Outputs in buckets whose pipeline, folder or state is another one now: none is forgotten."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paddock.steps.sources import bucket
from tests.fakes.buckets import Place
from tests.runner.core.moved_worlds import MovedWorld
from tests.runner.world import Notes, carried_out

PIPELINE = """\
inputs: {says: {type: str, default: text}}
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - uses: files.write
        with: {path: "out/{{ doc.relpath }}", text: "{{ inputs.says }} {{ steps.text.text }}"}
  - {uses: files.upload, with: {folder: out, bucket: BUCKET}}
returns: steps.each.counts
"""


class House(MovedWorld):
    def __init__(self, folder: Path, there: Place, name: str = "pipeline.yaml") -> None:
        self.there = there
        given = json.dumps({"url": there.url, "options": there.options})
        super().__init__(folder, PIPELINE.replace("BUCKET", given), name=name)

    def go(self, **wishes: Any) -> list[str]:
        notes = Notes()
        report = carried_out(self, observer=notes, **wishes)
        assert report.status == "completed", report.message
        return [text for text in notes.texts if self.there.url in text]

    def rename_folder(self) -> None:
        self.edit("out/{{", "sent/{{")
        self.edit("folder: out", "folder: sent")

    def move_folder(self) -> None:
        (self.folder / "out").rename(self.folder / "sent")
        self.rename_folder()

    def rename_all(self) -> None:
        self.rename_folder()
        self.rename_pipeline()
        self.rename_base()

    def as_earlier_version(self) -> None:
        """Have what an earlier version noted beside the outputs, in place of the state."""
        (path,) = self.states.glob("upload-*.json")
        objects = json.loads(path.read_text())["by_name"]
        known = (OLD_OBJECT % tuple(map(json.dumps, (name, each["sha256"], each["version"])))
                 for name, each in objects.items())  # fmt: skip
        with self.ledger() as ledger:
            of = f"{ledger.identity}\n{self.name}\n{self.there.url}"
        index = f"out/.upload-{hashlib.sha256(of.encode()).hexdigest()[:8]}.json"
        self.write(index, f'{{"by_name": {{{", ".join(known)}}}}}')
        self.lose_state()


OLD_OBJECT = '%s: {"sha256": %s, "version": %s, "intended": []}'
"""Written at 6e7386861."""


@pytest.fixture
def house(tmp_path: Path, there: Place) -> House:
    made = House(tmp_path / "here", there)
    for name in ("a.txt", "b.txt", "c.txt"):
        made.write(f"inbox/{name}", name[0])
    assert made.go() == []
    assert there.objects() == {f"{name}.txt": f"text {name}".encode() for name in "abc"}
    return made


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names, put = list[str](), bucket.Bucket.put

    def counted(self: Any, name: str, content: bytes) -> None:
        names.append(name)
        put(self, name, content)

    monkeypatch.setattr(bucket.Bucket, "put", counted)
    return names


MOVES: dict[str, Callable[[House], None]] = {
    "pipeline": House.rename_pipeline,
    "base": House.rename_base,
    "folder": House.rename_folder,
    "folder with its files": House.move_folder,
    "all": House.rename_all,
    "old index": House.as_earlier_version,
}


@pytest.mark.parametrize("move", MOVES.values(), ids=[*MOVES])
def test_whatever_is_renamed_its_objects_are_its_own(
    house: House, there: Place, sent: list[str], move: Callable[[House], None]
) -> None:
    move(house)
    assert (house.go(), sent) == ([], [])
    house.write("inbox/a.txt", "changed")
    (house.folder / "inbox/b.txt").unlink()
    assert house.go(prune=True) == []
    assert there.objects() == {"a.txt": b"text changed", "c.txt": b"text c"}
    house.go(inputs={"says": "now"}, prune=True)
    assert there.objects() == {"a.txt": b"now changed", "c.txt": b"now c"}


@pytest.mark.parametrize("move", [House.rename_pipeline, House.rename_folder, House.rename_all])
def test_what_goes_while_names_change_goes_there_too(
    house: House, there: Place, move: Callable[[House], None]
) -> None:
    move(house)
    house.write("inbox/a.txt", "changed")
    (house.folder / "inbox/b.txt").unlink()
    assert house.go(prune=True) == []
    assert there.objects() == {"a.txt": b"text changed", "c.txt": b"text c"}


@pytest.mark.parametrize("is_damaged", [False, True])
def test_an_object_of_which_nothing_is_known_is_kept_and_not_called_another_programs_alone(
    house: House, there: Place, is_damaged: bool
) -> None:
    (state,) = house.states.glob("*.json")
    state.write_text("{") if is_damaged else state.unlink()
    assert house.go() == []
    state.write_text("{") if is_damaged else state.unlink()
    house.write("inbox/a.txt", "changed")
    (note,) = house.go()
    assert "not sent from here, or changed there by another program, and kept: a.txt." in note
    assert there.objects()["a.txt"] == b"text a"
    assert house.go(takes_over=True) == []
    assert there.objects()["a.txt"] == b"text changed"


def test_a_folder_that_is_away_takes_no_object_with_it(
    house: House, there: Place, tmp_path: Path
) -> None:
    before = there.objects()
    house.edit("for_each:", "if: inputs.says == 'text'\n    for_each:")
    house.go()
    (house.folder / "out").rename(tmp_path / "away")
    house.go(inputs={"says": "nothing"})
    assert there.objects() == before
    (tmp_path / "away").rename(house.folder / "out")
    assert house.go() == []
    assert there.objects() == before


def test_of_two_folders_with_one_name_the_first_has_it(house: House, there: Place) -> None:
    more = House(house.folder, there, "more.yaml")
    more.edit("out/{{", "more/{{")
    more.edit("folder: out", "folder: more")
    house.write("inbox/d.txt", "d")
    for _ in range(2):
        (note,) = more.go(inputs={"says": "more"})
        assert "3 outputs of " in note
        assert "of a name that another folder or pipeline has there, and not sent: " in note
        (note,) = house.go()
        assert "another folder or pipeline has there, and not sent: d.txt." in note
    objects = {f"{name}.txt": f"text {name}".encode() for name in "abc"}
    assert there.objects() == {**objects, "d.txt": b"more d"}
    (house.folder / "inbox/a.txt").unlink()
    house.go(prune=True)
    more.go(inputs={"says": "more"}, prune=True)
    assert there.objects().keys() == {"b.txt", "c.txt", "d.txt"}


def test_two_steps_of_one_pipeline_do_not_take_each_others_objects(
    house: House, there: Place
) -> None:
    step = next(line for line in house.text.splitlines() if "files.upload" in line)
    house.edit(step, f"{step}\n{step.replace('folder: out', 'folder: inbox2')}")
    written = "      - uses: files.write\n"
    second = '        with: {path: "inbox2/{{ doc.relpath }}", text: "second"}\n'
    house.edit(written, f"{written}{second}{written}")
    for _ in range(2):
        (note,) = house.go()
        assert "of a name that another folder or pipeline has there, and not sent: " in note
        assert there.objects()["a.txt"] == b"text a"


def test_what_is_restored_from_a_backup_of_the_state_is_sent_on(
    house: House, there: Place, tmp_path: Path
) -> None:
    shutil.copytree(house.states, tmp_path / "backup")
    house.write("inbox/a.txt", "changed")
    house.write("inbox/d.txt", "new")
    house.go()
    house.lose_state()
    shutil.copytree(tmp_path / "backup", house.states)
    assert house.go() == []
    assert there.objects()["a.txt"] == b"text changed"
    assert there.objects()["d.txt"] == b"text new"


def test_pipelines_of_two_folders_send_nothing_over_each_others_objects(
    house: House, there: Place
) -> None:
    other = House(house.folder.with_name("there too"), there)
    other.write("inbox/a.txt", "other")
    other.write("inbox/e.txt", "e")
    (note,) = other.go()
    assert "not sent from here, or changed there by another program, and kept: a.txt." in note
    assert there.objects()["e.txt"] == b"text e"
    (other.folder / "inbox/a.txt").unlink()
    other.go(prune=True)
    house.go()
    assert there.objects()["a.txt"] == b"text a"
