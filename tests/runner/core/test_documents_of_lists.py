"""Documents that a server lists as JSON: endless lists end, and one bad document takes no other."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from paddock.runner.progress.report import Report
from paddock.steps.sources.fetching import N_AT_ONCE
from paddock.steps.tools import http_fetch
from tests.runner.world import Notes, World, carried_out, outputs

PIPELINE = """\
steps:
  - id: docs
    uses: files.scan
    with:
      root: copies
      listing: {url: "URL/list", hosts: ["127.0.0.1"], headers: {Authorization: "T"},
                items: results, next: next, version: "{v}", contents: "URL/d/{id}"}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - uses: files.write
        with: {path: "out/{{ doc.relpath | replace('/', '-') }}", text: "{{ steps.text.text }}"}
returns: steps.each.counts
"""
CUT, SLOW = "cut", "slow"


class Lists(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.rows: list[dict[str, Any]] = []
        self.next: Any = None
        self.answers: dict[str, Any] = {}
        """By path: text, a status, a status with headers, `CUT` or `SLOW`."""
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    def put(self, name: str, text: Any = "text", **more: Any) -> None:
        row = {"id": len(self.rows), "v": "1", "name": name, **more}
        self.rows.append(row)
        self.answers[f"/d/{row['id']}"] = text


class _Handler(BaseHTTPRequestHandler):
    server: Lists

    def do_GET(self) -> None:
        lists = self.server
        lists.asked.append((self.path, dict(self.headers)))
        answer: Any = lists.answers.get(self.path, 404)
        if self.path.startswith("/list") and self.path not in lists.answers:
            following = lists.next() if callable(lists.next) else lists.next
            answer = json.dumps({"results": lists.rows, "next": following})
        status, headers = answer if isinstance(answer, tuple) else (answer, {})
        body = answer.encode() if isinstance(answer, str) else b""
        self.send_response(status if isinstance(status, int) else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) + 9 * (answer in (CUT, SLOW))))
        self.end_headers()
        if answer == SLOW:
            for _ in range(6_000):
                self.wfile.write(b"")
                self.wfile.flush()
                time.sleep(0.1)
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def lists() -> Iterator[Lists]:
    with Lists() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class Office(World):
    def __init__(self, folder: Path, lists: Lists) -> None:
        super().__init__(folder / "here", PIPELINE.replace("URL", lists.url))

    def go(self) -> tuple[Report, list[str]]:
        notes = Notes()
        return carried_out(self, observer=notes), notes.texts


@pytest.fixture
def office(tmp_path: Path, lists: Lists) -> Office:
    return Office(tmp_path, lists)


@pytest.mark.parametrize(
    ("next_page", "most", "said"),
    [
        (lambda: f"/list?page={time.monotonic()}", ("_MOST_PAGES", 20), "has more than 20 pages"),
        (lambda: f"/list?{time.monotonic()}", ("_MOST_LIST_BYTES", 99), "pages or 99 bytes"),
        ("/list", ("_MOST_PAGES", 20), "twice"),
        ("http://[", ("_MOST_PAGES", 20), "as the next page, which is no address"),
    ],
)
def test_a_list_that_never_ends_or_goes_on_nowhere_is_refused(
    office: Office,
    lists: Lists,
    monkeypatch: pytest.MonkeyPatch,
    next_page: Any,
    most: tuple[str, int],
    said: str,
) -> None:
    monkeypatch.setattr(http_fetch, *most)
    lists.put("a.txt")
    lists.next = next_page
    report, _ = office.go()
    assert (report.status, said in (report.message or "")) == ("failed", True), report.message


def test_bytes_that_trickle_do_not_hold_a_run(
    office: Office, lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists.put("a.txt")
    lists.put("slow.txt", SLOW)
    monkeypatch.setattr(http_fetch, "_REQUEST_S", 3.0)
    _, notes = office.go()
    assert outputs(office) == ["a.txt"]
    assert "'slow.txt' (" in notes[0]
    assert "it took more than 3 s)" in notes[0]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (401, "answers with status 401"),
        (403, "answers with status 403"),
        (404, "answers with status 404"),
        (500, "answers with status 500"),
        (CUT, "cannot be fetched: "),
        ((302, {"Location": "http://example.org/x"}), "'example.org' is not allowed"),
        ("<!DOCTYPE html><html>Log in</html>", "it is a web page now"),
    ],
)
def test_a_document_that_the_server_does_not_give_takes_no_other_and_is_fetched_later(
    office: Office, lists: Lists, fault: Any, said: str
) -> None:
    lists.put("bad.pdf", fault)
    lists.put("a.txt", "one")
    lists.put("b.txt", "two")
    report, notes = office.go()
    assert (report.status, outputs(office)) == ("completed", ["a.txt", "b.txt"])
    assert "1 document of " in notes[0]
    assert said in notes[0]
    assert "is away" not in notes[0]
    lists.answers["/d/0"] = "%PDF-"
    office.go()
    assert (office.folder / "copies/bad.pdf").read_text() == "%PDF-"


def test_the_third_document_of_a_batch_that_fails_ends_it(office: Office, lists: Lists) -> None:
    for number in range(30):
        lists.put(f"{number}.txt", 500)
    _, notes = office.go()
    n_asked = len([path for path, _ in lists.asked if path.startswith("/d/")])
    assert 3 <= n_asked < 3 + N_AT_ONCE  # those behind it were on their way
    assert "is away" in notes[0]
    lists.answers.update({f"/d/{number}": "text" for number in range(3, 30)})
    office.go()
    assert len(outputs(office)) == 27, "the others come first"


def test_a_list_that_refuses_ends_the_run(office: Office, lists: Lists) -> None:
    lists.answers["/list"] = 401
    assert "status 401" in (office.go()[0].message or "")


def test_the_same_server_is_shown_the_headers_behind_a_redirect_and_another_is_not(
    office: Office, lists: Lists
) -> None:
    with Lists() as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        lists.put("a.txt", (307, {"Location": "/elsewhere"}))
        lists.put("b.txt", (307, {"Location": f"{other.url}/b"}))
        lists.answers["/elsewhere"], other.answers["/b"] = "one", "two"
        office.edit('["127.0.0.1"]', f'["127.0.0.1:{lists.server_port}", "{other.url[7:]}"]')
        office.go()
        other.shutdown()
    assert outputs(office) == ["a.txt", "b.txt"]
    assert dict(lists.asked)["/elsewhere"]["Authorization"] == "T"
    assert "Authorization" not in dict(other.asked)["/b"]


def test_a_name_that_is_also_a_folder_gets_another(office: Office, lists: Lists) -> None:
    lists.put("d", "one")
    lists.put("d/e.txt", "two")
    lists.put("f/g.txt", "three")
    lists.put("f", "four")
    report, notes = office.go()
    assert (report.status, notes) == ("completed", [])
    assert outputs(office) == ["d", "d-2-e.txt", "f-2", "f-g.txt"]
    report, _ = office.go()
    assert report.returns["fresh"] == 4


def test_a_lost_index_doubles_nothing_and_takes_no_file_of_another(
    office: Office, lists: Lists
) -> None:
    lists.put("a.txt", "one")
    lists.put("a.txt", "two")
    office.write("copies/b.txt", "mine")
    lists.put("b.txt", "three")
    office.go()
    before = {path.name: path.read_text() for path in (office.folder / "copies").glob("*.txt")}
    assert before == {"a.txt": "one", "a-2.txt": "two", "b.txt": "mine", "b-2.txt": "three"}
    (index,) = (office.folder / ".paddock/places").glob("listing-*.json")
    index.unlink()
    report, _ = office.go()
    assert report.returns["fresh"] == 4
    after = {path.name: path.read_text() for path in (office.folder / "copies").glob("*.txt")}
    assert after == before


def test_two_documents_of_one_id_are_refused_and_one_that_is_listed_twice_is_one(
    office: Office, lists: Lists
) -> None:
    lists.put("a.txt", "one")
    lists.rows.append(lists.rows[0])
    office.go()
    assert outputs(office) == ["a.txt"]
    lists.put("b.txt", "two", kind="k")
    lists.rows[0]["kind"] = "k"
    office.edit('version: "{v}"', 'id: "{kind}", version: "{v}"')
    report, _ = office.go()
    assert "lists two documents, 'a.txt' and 'b.txt' as 'k'. Correct `id`." in (
        report.message or ""
    )
