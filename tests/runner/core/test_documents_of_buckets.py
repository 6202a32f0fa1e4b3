"""Documents of S3, SFTP and web servers: each version once, none lost where one is away."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paddock.pipelines.errors import PipelineError
from paddock.runner.progress.report import Report
from paddock.steps.sources import bucket, fetching
from paddock.steps.sources.mirror import Answer, SourceAway
from tests.fakes.buckets import KINDS, Place, Web, place, place_or_skip
from tests.runner.schedule.up_process import UpFolder
from tests.runner.world import Notes, World, carried_out, outputs

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


@pytest.fixture(params=KINDS)
def there(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> Iterator[Place]:
    with place_or_skip(request.param, tmp_path, monkeypatch) as made:
        yield made


class Office(World):
    def __init__(self, folder: Path, there: Place, **more: Any) -> None:
        bucket = {"url": there.url, "options": there.options, **more}
        super().__init__(folder / "here", PIPELINE.replace("BUCKET", json.dumps(bucket)))

    def go(self, **wishes: Any) -> tuple[Report, list[str]]:
        notes = Notes()
        return carried_out(self, observer=notes, **wishes), notes.texts


def test_each_version_of_a_document_is_fetched_once(
    tmp_path: Path, there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = list[str]()
    contents = bucket.Bucket.contents

    def counted(self: Any, identities: Any) -> Any:
        for identity, content in contents(self, identities):
            fetched.append(identity)
            yield identity, content

    monkeypatch.setattr(bucket.Bucket, "contents", counted)
    office = Office(tmp_path, there)
    there.put("a.txt", b"one")
    there.put("2026/b c.txt", b"two")
    report, notes = office.go()
    assert (report.status, notes, outputs(office)) == ("completed", [], ["2026-b c.txt", "a.txt"])
    report, _ = office.go()
    assert (report.returns["fresh"], len(fetched)) == (2, 2)
    there.put("a.txt", b"three")
    there.put("d.txt", b"new")
    report, notes = office.go()
    assert (office.output("a.txt"), office.output("d.txt"), notes) == ("three", "new", [])
    assert (report.returns["fresh"], len(fetched)) == (1, 4)


def test_a_place_that_is_away_has_lost_nothing_and_one_that_answers_has(
    tmp_path: Path, there: Place
) -> None:
    office = Office(tmp_path, there)
    for name in ("a.txt", "b.txt", "c.txt"):
        there.put(name, name.encode())
    office.go()
    there.remove("b.txt")
    report, _ = office.go(prune=True)
    left = ["a.txt", "c.txt"] if "http" not in there.url else ["a.txt", "b.txt", "c.txt"]
    assert (report.status, outputs(office)) == ("completed", left)
    there.stop()
    report, notes = office.go(prune=True)
    assert (report.status, outputs(office)) == ("completed", left)
    assert report.returns["fresh"] == len(left)
    assert len(notes) == 1 and " is away, " in notes[0]
    assert "Its documents of before stand." in notes[0]


def test_another_folder_deletes_nothing_and_one_that_is_missing_is_told(
    tmp_path: Path, there: Place
) -> None:
    office = Office(tmp_path, there)
    there.put("a.txt", b"one")
    there.put("2026/a.txt", b"other")
    office.go()
    inner = f"{there.url.rstrip('/')}/2026/"
    office.edit(json.dumps(there.url), json.dumps(inner))
    report, _ = office.go(prune=True)
    assert report.status == "completed"
    assert {"a.txt", "2026-a.txt"} <= {*outputs(office)}
    office.edit(json.dumps(inner), json.dumps(inner.replace("office", "nowhere")))
    report, _ = office.go(prune=True)
    if not there.url.startswith("s3"):  # which knows no folders
        assert "has no such folder" in (report.message or "")
    assert {"a.txt", "2026-a.txt"} <= {*outputs(office)}


def test_what_is_too_large_is_told_and_names_lead_nowhere_else(
    tmp_path: Path, there: Place
) -> None:
    office = Office(tmp_path, there, max_bytes=20)
    there.put("large.txt", b"x" * 21)
    there.put(".hidden.txt", b"x")
    there.put("sub/.ssh/keys.txt", b"x")
    there.put("pipeline.yaml", b"steps: []")
    before = office.file.read_text()
    _, notes = office.go()
    assert outputs(office) == ["pipeline.yaml"]
    assert "1 document of" in notes[-1]
    assert "larger than `max_bytes` (20)" in notes[-1]
    assert office.file.read_text() == before
    office.edit('"max_bytes": 20', '"max_bytes": 30')
    office.go()
    assert outputs(office) == ["large.txt", "pipeline.yaml"]


@pytest.mark.parametrize("there", ["sftp", "s3"], indirect=True)
def test_one_that_does_not_let_in_is_told(tmp_path: Path, there: Place) -> None:
    office = Office(tmp_path, there)
    there.put("a.txt", b"one")
    office.go()
    if there.url.startswith("sftp"):
        known = tmp_path / "home/.ssh/known_hosts"
        another = (tmp_path / "there/user.pub").read_text().split()[1]
        known.write_text(f"{known.read_text().rpartition(' ')[0]} {another}\n")
        told = "shows a key that"
    else:
        office.edit('"key": "a", "secret": "b"', '"anon": false')
        told = "does not let in: "
    report, _ = office.go()
    assert (report.status, told in (report.message or "")) == ("failed", True), report.message
    assert outputs(office) == ["a.txt"]


@pytest.mark.parametrize("there", ["http"], indirect=True)
def test_a_watch_of_the_folder_asks_the_place(tmp_path: Path, there: Place, up: UpFolder) -> None:
    office = Office(up.folder, there)
    office.edit("steps:", "on: {watch: [{path: copies, settle: 0.2s, batch: 0.2s}]}\nsteps:")
    there.put("a.txt", b"one")
    up.start("--allow", "network,secrets")
    up.until(lambda: (office.folder / "out/a.txt").exists())
    there.stop()
    up.stop()
    assert "Traceback" not in up.log_text()


def test_links_of_a_page_are_documents_below_it_however_they_are_written(tmp_path: Path) -> None:
    with place("http", tmp_path / "there", tmp_path / "home") as there:
        there.put("a.txt", b"one")
        there.put("b/c.txt", b"two")
        there.put("../other/o.txt", b"not here")
        links = ["./a.txt", "a.txt#top", "#top", "./", "./b/", "../other/", "../other/o.txt"]
        page = "".join(f'<a href="{link}">x</a>' for link in links)
        there.put("index.html", page.encode())
        office = Office(tmp_path, there)
        office.go()
        assert outputs(office) == ["a.txt", "b-c.txt"]


def test_a_page_that_links_to_itself_below_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "_MOST_PAGES", 20)
    with place("http", tmp_path / "there", tmp_path / "home") as there:
        there.put("index.html", b'<a href="below/">x</a>')
        (tmp_path / "there/office/below").symlink_to(".")
        report, _ = Office(tmp_path, there).go()
        assert "has more than 20 pages" in (report.message or "")


def test_one_bad_document_ends_no_batch(
    tmp_path: Path, there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = bucket.Bucket.answer

    def broken(self: Any, identity: str, most_bytes: int) -> Answer:
        if identity == "a.txt":
            raise SourceAway("it is broken")
        return answer(self, identity, most_bytes)

    for name in ("a.txt", "b.txt", "c.txt"):
        there.put(name, name.encode())
    office = Office(tmp_path, there)
    monkeypatch.setattr(bucket.Bucket, "answer", broken)
    _, notes = office.go()
    assert outputs(office) == ["b.txt", "c.txt"]
    assert "1 document of" in notes[0]
    assert "'a.txt' (it is broken)" in notes[0]
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    office.go()
    assert outputs(office) == ["a.txt", "b.txt", "c.txt"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_web_server_that_does_not_let_in_is_told_and_a_document_of_it_takes_no_other(
    tmp_path: Path, status: int
) -> None:
    with place("http", tmp_path / "there", tmp_path / "home") as there:
        there.put("a.txt", b"one")
        there.put("b.txt", b"two")
        office = Office(tmp_path, there)
        assert isinstance(there, Web)
        there.refused |= {"/office/a.txt": status}
        report, notes = office.go()
        assert (report.status, outputs(office)) == ("completed", ["b.txt"])
        assert f"'a.txt' (does not let in: {status}" in notes[0]
        there.refused["/office/"] = status
        report, _ = office.go()
        assert (report.status, "does not let in" in (report.message or "")) == ("failed", True)


@pytest.mark.parametrize("there", ["s3"], indirect=True)
def test_wrong_options_are_told_and_an_error_of_the_library_is_none(
    tmp_path: Path, there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.put("a.txt", b"one")
    office = Office(tmp_path, there)
    office.edit('"endpoint_url": "', '"endpoint_url": "nonsense ')
    assert "does not let in: Invalid endpoint" in (office.go()[0].message or "")
    office.edit('"endpoint_url": "nonsense ', '"endpoint_url": "')

    def fails(self: Any) -> Any:
        raise TypeError("of the library")

    monkeypatch.setattr(bucket.Bucket, "_all", fails)
    report, notes = office.go()
    assert (report.status, "TypeError: of the library" in notes[0]) == ("completed", True)


@pytest.mark.parametrize("there", ["sftp"], indirect=True)
def test_an_option_that_is_none_is_told(tmp_path: Path, there: Place) -> None:
    there.options = {**there.options, "nonsense": 1}
    assert "does not take that: " in (Office(tmp_path, there).go()[0].message or "")


@pytest.mark.parametrize("url", ["nonsense", "s3:/office", "ftp://h/x", "sftp://me@host/x"])
def test_an_address_that_is_no_folder_is_told_in_a_sentence(tmp_path: Path, url: str) -> None:
    world = World(tmp_path, PIPELINE.replace("BUCKET", json.dumps({"url": url})))
    with pytest.raises(PipelineError) as raised:
        world.run()
    assert "begins with `s3://`, `sftp://`" in str(raised.value)
    assert "^" not in str(raised.value).partition("`s3://`")[2].partition("\n")[0]


def test_a_call_that_blocks_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_REQUEST_S", 0.05)
    with pytest.raises(SourceAway, match="it took more than 0 s"):
        fetching.started(threading.Event().wait)()
