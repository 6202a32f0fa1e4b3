"""Outputs in S3 and SFTP: whole, once, held where another program changed them, gone with items."""

import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.errors import PipelineError
from paddock.runner.progress.report import Report
from paddock.steps.sources import bucket
from paddock.steps.sources.mirror import SourceAway
from tests.fakes.buckets import Place
from tests.forked import ForkServer
from tests.runner.killed_runs import kill_runs, run_to_end
from tests.runner.world import ALL, Notes, World, carried_out

N_KILLS = int(os.environ.get("PADDOCK_TEST_KILLS", "8"))
PIPELINE = """\
steps:
  - {id: docs, uses: files.scan, with: {root: inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.text.text }}"}}
  - {uses: files.upload, with: {folder: out, bucket: BUCKET}}
returns: steps.each.counts
"""


INNER = """\
inputs: {name: str}
steps:
  - {uses: files.write, with: {path: "out/{{ inputs.name }}", text: "{{ inputs.name }}"}}
"""


class Office(World):
    def __init__(self, folder: Path, there: Place, name: str = "pipeline.yaml") -> None:
        given = {"url": there.url, "options": there.options}
        super().__init__(folder / "here", PIPELINE.replace("BUCKET", json.dumps(given)), name=name)

    def put(self, name: str, text: str) -> None:
        self.write(f"inbox/{name}", text)

    def remove(self, name: str) -> None:
        (self.folder / "inbox" / name).unlink()

    def written(self) -> list[str]:
        files = [path for path in (self.folder / "out").rglob("[!.]*") if path.is_file()]
        return sorted(path.relative_to(self.folder / "out").as_posix() for path in files)

    def go(self, **wishes: Any) -> tuple[Report, list[str]]:
        notes = Notes()
        report = carried_out(self, observer=notes, **wishes)
        return report, [text for text in notes.texts if not text.startswith("removed, since")]


@pytest.fixture
def office(tmp_path: Path, there: Place) -> Office:
    made = Office(tmp_path, there)
    made.put("a.txt", "one")
    made.put("2026/b c.txt", "two")
    return made


def test_an_output_is_sent_once_and_goes_with_its_item(
    office: Office, there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, put = list[str](), bucket.Bucket.put

    def counted(self: Any, name: str, content: bytes) -> None:
        sent.append(name)
        put(self, name, content)

    monkeypatch.setattr(bucket.Bucket, "put", counted)
    report, notes = office.go()
    assert (report.status, notes) == ("completed", [])
    assert there.objects() == {"a.txt": b"one", "2026/b c.txt": b"two"}
    office.go()
    assert sent == ["2026/b c.txt", "a.txt"]
    office.put("a.txt", "three")
    office.put("d.txt", "new")
    office.remove("2026/b c.txt")
    report, notes = office.go(prune=True)
    assert (report.status, notes) == ("completed", [])
    assert there.objects() == {"a.txt": b"three", "d.txt": b"new"}
    assert sent[2:] == ["a.txt", "d.txt"]


def test_an_object_that_another_program_wrote_is_kept_until_a_run_takes_it(
    office: Office, there: Place
) -> None:
    there.put("a.txt", b"theirs")
    there.put("other.txt", b"not ours")
    _, notes = office.go()
    assert "1 output of " in notes[0]
    assert "changed there by another program, and kept: a.txt." in notes[0]
    assert there.objects()["a.txt"] == b"theirs"
    office.go(takes_over=True)
    assert there.objects()["a.txt"] == b"one"
    there.put("2026/b c.txt", b"edited")
    office.go()
    office.put("2026/b c.txt", "three")
    _, notes = office.go()
    assert "and kept: 2026/b c.txt." in notes[0]
    office.remove("2026/b c.txt")
    _, notes = office.go(prune=True)
    assert "and kept: 2026/b c.txt." in notes[0]
    left = {"a.txt": b"one", "2026/b c.txt": b"edited", "other.txt": b"not ours"}
    assert there.objects() == left
    assert office.go()[1] == []


def test_a_bucket_that_is_away_gets_what_it_lacks_and_a_lost_index_keeps_nothing_back(
    office: Office, there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks_off(self: Any, name: str, content: bytes) -> None:
        raise SourceAway("it broke off")

    with monkeypatch.context() as broken:
        broken.setattr(bucket.Bucket, "put", breaks_off)
        report, notes = office.go()
    assert (report.status, office.written()) == ("completed", ["2026/b c.txt", "a.txt"])
    assert "2 outputs of " in notes[0]
    assert "not sent now: 2026/b c.txt (it broke off), a.txt (it b" in notes[0]
    assert there.objects() == {}
    office.go()
    (index,) = (office.folder / ".paddock/places").glob("upload-*.json")
    index.write_text("{")
    there.remove("a.txt")
    office.put("2026/b c.txt", "two")
    assert office.go()[1] == []
    assert there.objects() == {"a.txt": b"one", "2026/b c.txt": b"two"}


@pytest.mark.parametrize("there", ["s3"], indirect=True)
def test_a_bucket_that_refuses_ends_the_run_and_nothing_is_lost(
    office: Office, there: Place
) -> None:
    office.edit('"key": "a", "secret": "b"', '"anon": false')
    report, _ = office.go()
    assert (report.status, office.written()) == ("failed", ["2026/b c.txt", "a.txt"])
    assert "does not let in: " in (report.message or "")
    office.edit('"anon": false', '"key": "a", "secret": "b"')
    assert office.go()[0].status == "completed"
    assert len(there.objects()) == 2


@pytest.mark.parametrize("there", ["s3"], indirect=True)
def test_a_document_that_is_filed_there_is_sent_and_a_link_or_a_larger_one_is_not(
    office: Office, there: Place, tmp_path: Path
) -> None:
    office.edit(
        '{uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.text.text }}"}}',
        '{uses: files.move, with: {path: "{{ doc.path }}", to: "out/{{ doc.stem }}.pdf"}}',
    )
    office.edit('{"url"', '{"max_bytes": 20, "url"')
    office.put("large.txt", "x" * 21)
    _, notes = office.go()
    assert there.objects() == {"a.pdf": b"one", "b c.pdf": b"two"}
    assert "too large: large.pdf." in notes[-1]
    (tmp_path / "secret").write_text("secret")
    (office.folder / "out/a.pdf").unlink()
    (office.folder / "out/a.pdf").symlink_to(tmp_path / "secret")
    _, notes = office.go()
    assert "unreadable, or behind a link, and not sent: a.pdf." in notes[-1]
    assert there.objects() == {"a.pdf": b"one", "b c.pdf": b"two"}


@pytest.mark.parametrize("there", ["s3"], indirect=True)
def test_an_index_that_someone_else_wrote_sends_nothing_but_outputs(
    office: Office, there: Place, tmp_path: Path
) -> None:
    office.go()
    (tmp_path / "secret").write_text("secret")
    office.write("out/own.txt", "a person's")
    with office.ledger() as ledger:  # as earlier versions named it, beside the outputs
        of = f"{ledger.identity}\npipeline.yaml\n{there.url}"
    names = (str(tmp_path / "secret"), "../inbox/a.txt", "own.txt", "a\0", "\ud800", "")
    index = office.folder / f"out/.upload-{hashlib.sha256(of.encode()).hexdigest()[:8]}.json"
    (office.folder / ".paddock/places").rename(tmp_path / "places")
    index.write_text(json.dumps({"by_name": {name: {} for name in names}}))
    office.put("d.txt", "new")
    assert office.go()[0].status == "completed"
    assert there.objects() == {"a.txt": b"one", "2026/b c.txt": b"two", "d.txt": b"new"}
    assert not index.exists()


@pytest.mark.parametrize("there", ["sftp"], indirect=True)
def test_an_output_that_has_no_place_there_holds_up_no_other(office: Office, there: Place) -> None:
    there.put("2026", b"a file in place of a folder")
    report, notes = office.go()
    assert report.status == "completed"
    assert "not sent now: 2026/b c.txt (" in notes[0]
    assert there.objects() == {"2026": b"a file in place of a folder", "a.txt": b"one"}
    there.remove("2026")
    assert office.go()[1] == []
    assert there.objects() == {"a.txt": b"one", "2026/b c.txt": b"two"}


@pytest.mark.parametrize("there", ["s3"], indirect=True)
def test_outputs_of_other_pipelines_and_of_what_is_not_done_now_stay(
    office: Office, there: Place
) -> None:
    office.write("inner.yaml", INNER)
    office.edit(
        '{uses: files.write, with: {path: "out/{{ doc.relpath }}", text: "{{ steps.text.text }}"}}',
        '{uses: pipeline, with: {file: inner.yaml, inputs: {name: "{{ doc.stem }}"}}}',
    )
    office.edit("steps:", "inputs: {on: {type: bool, default: true}}\nsteps:")
    office.edit("for_each:", 'if: "inputs.on"\n    for_each:')
    office.go()
    assert there.objects() == {"a": b"a", "b c": b"b c"}
    other = Office(office.folder.parent, there, "other.yaml")
    other.put("z.txt", "z")
    other.go()
    assert there.objects().keys() == {"a", "b c", "a.txt", "z.txt", "2026/b c.txt"}
    for inputs in ({}, {"on": False}, {"on": True}):
        office.go(inputs=inputs)
        other.go()
    assert there.objects().keys() == {"a", "b c", "z", "a.txt", "z.txt", "2026/b c.txt"}


@pytest.mark.parametrize("there", ["s3"], indirect=True)
def test_an_item_sends_none_since_it_is_not_done_in_each_run(office: Office, there: Place) -> None:
    text = (office.folder / office.name).read_text()
    upload = next(line for line in text.splitlines() if "files.upload" in line)
    office.edit(f"{upload}\n", f"    {upload}\n")
    report, _ = office.go()
    errors = [item.error or "" for item in report.items]
    assert len(errors) == 2
    assert all("items are not done in each run. Move it out of the block." in e for e in errors)
    assert there.objects() == {}


@pytest.mark.parametrize("there", ["s3"], indirect=True)
def test_a_plan_sends_nothing_and_a_bucket_is_agreed_to(office: Office, there: Place) -> None:
    office.plan(allow=ALL)
    assert there.objects() == {}
    with pytest.raises(PipelineError) as raised:
        office.run(allow=["secrets"])
    assert f"the pipeline wants to send outputs to {there.url}" in str(raised.value)
    office.edit(there.url, "https://example.org/folder")
    with pytest.raises(PipelineError) as raised:
        office.run(allow=ALL)
    assert "a web server takes no files" in str(raised.value)


@pytest.mark.parametrize("there", ["sftp"], indirect=True)
def test_runs_that_are_killed_at_random_leave_the_objects_of_one_from_scratch(
    office: Office, there: Place, fork_server: ForkServer
) -> None:
    dice, names = random.Random(74), [f"d{number}.txt" for number in range(30)]

    def change() -> None:
        for name in dice.sample(names, 8):
            office.put(name, f"{dice.random()}")
        for name in dice.sample(names, 2):
            (office.folder / "inbox" / name).unlink(missing_ok=True)

    more = ("--prune", "--yes")
    kill_runs(fork_server, office, N_KILLS, dice, change, *more)
    run_to_end(fork_server, office, *more)
    expected = {name: (office.folder / "inbox" / name).read_bytes() for name in office.written()}
    assert there.objects() == expected
