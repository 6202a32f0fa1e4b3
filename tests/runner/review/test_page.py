"""The review page's API: who may use it, what it sends of large documents, what it refuses."""

import json
import os
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier, Event, current_thread
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from paddock.engine.models.well_known import MEASURED
from paddock.engine.trial_process import TrialProcess
from paddock.runner.cli.console_actions import ConsoleSources
from paddock.runner.cli.web_console import WebConsole
from paddock.runner.review import page_access
from paddock.runner.review.page import ReviewPage
from paddock.runner.review.page_access import PageAccess
from paddock.runner.review.page_server import FolderReviews
from paddock.runner.settings import read_settings
from paddock.steps.readers import documents
from tests.fakes.pdf import pdf
from tests.runner.cli.commands.shell import invoke
from tests.runner.core.test_rules_of_decisions import FILING, NEXT, PIPELINE, TRUE, Desk, bill
from tests.runner.review.served_page import SCHEMA, TEXT, ServedPage, client, quote, signed_out
from tests.waiting import PATIENCE_S

API = "/review/api"
CONSOLE = ("/ui/pipelines", "/ui/runs", "/ui/runs/x/y", "/ui/runs/x/y/item", "/ui/settings")


@pytest.fixture
def served_page(tmp_path: Path) -> ServedPage:
    return ServedPage(tmp_path)


@pytest.fixture
def address(served_page: ServedPage) -> Iterator[str]:
    sources = ConsoleSources(lambda: [served_page.folder], read_settings(served_page.folder))
    with served_page.served(
        extra_routes=lambda access: WebConsole(access, sources).routes()
    ) as url:
        yield url


@pytest.fixture
def ann(address: str) -> Iterator[httpx.Client]:
    with client(address) as session:
        yield session


def of(id_: str, act: str = "") -> str:
    return f"{API}/reviews/{id_}{act}"


def rows(session: httpx.Client | TestClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = session.get(f"{API}/queue").json()["rows"]
    return found


def decide(session: httpx.Client | TestClient, id_: str, verb: str, **fields: Any) -> Any:
    question = session.get(of(id_)).json()["question"]
    return session.post(of(id_, "/decide"), json={"question": question, "verb": verb, **fields})


# Who may use it


def test_the_address_with_its_token_becomes_a_cookie_that_no_script_reads(address: str) -> None:
    answer = httpx.get(address, trust_env=False, verify=False, timeout=PATIENCE_S)
    assert (answer.status_code, answer.headers["location"]) == (303, "/review")
    cookie = answer.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=strict", "path=/review"))
    assert "path=/ui;" in cookie
    assert "path=/;" not in cookie
    assert "token" not in answer.headers["location"]


def test_without_a_token_or_with_another_ones_nothing_is_shown(
    served_page: ServedPage, address: str
) -> None:
    (review,) = served_page.ask("a.txt")
    base = address.partition("/review")[0]
    remedy = "`paddock review` printed it when it started last."
    unknown = f"This token is not known: it has expired, or is another page's. {remedy}"
    with signed_out(base) as session:
        for path in ("/queue", "/decided", f"/reviews/{review.id}", f"/reviews/{review.id}/text"):
            answer = session.get(API + path)
            assert (answer.status_code, answer.json()) == (
                401, {"error": f"This page needs a token. {remedy}"},
            )  # fmt: skip
        foreign = {"Authorization": "Bearer yesterdays"}
        answer = session.get(f"{API}/queue", headers=foreign)
        assert (answer.status_code, answer.json()["error"]) == (401, unknown)
        answer = session.get("/review?token=yesterdays")
        assert (answer.status_code, answer.text) == (403, unknown + "\n")
        for path in CONSOLE:
            answer = session.get(path)
            assert (answer.status_code, f"<p>This page needs a token. {remedy}</p>") == (
                401, re.findall("<p>.*</p>", answer.text)[0],
            )  # fmt: skip
            assert str(served_page.folder) not in answer.text
            assert session.get(path, headers=foreign).status_code == 401
        answer = session.post("/ui/sign-in", data={"token": "yesterdays"})
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
        decision = {"question": review.question, "verb": "accept"}
        assert session.post(of(review.id, "/decide"), json=decision).status_code == 401
    assert served_page.review(review.id).state == "open"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
    ],
)
def test_pages_of_other_origins_are_refused_even_with_the_cookie(
    served_page: ServedPage, ann: httpx.Client, headers: dict[str, str]
) -> None:
    (review,) = served_page.ask("a.txt")
    assert ann.get(f"{API}/queue", headers=headers).status_code == 403
    decision = {"question": review.question, "verb": "accept"}
    assert ann.post(of(review.id, "/decide"), json=decision, headers=headers).status_code == 403
    for path in CONSOLE:
        refused = ann.get(path, headers=headers)
        assert refused.status_code == 403
        assert str(served_page.folder) not in refused.text
    assert served_page.review(review.id).state == "open"


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"},
     {"Sec-Fetch-Site": "same-site", "Origin": "null"}],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/review", "/ui/sign-in"])
def test_a_page_of_another_origin_signs_no_one_in(
    address: str, headers: dict[str, str], path: str
) -> None:
    page, _, token = address.partition("?token=")
    with signed_out(page.removesuffix("/review")) as session:
        assert session.post(path, data={"token": token}, headers=headers).status_code == 403
        own = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}  # pages send no referrer
        assert session.post(path, data={"token": token}, headers=own).status_code in (200, 303)


def test_the_page_loads_nothing_but_its_own(ann: httpx.Client) -> None:
    pages = ("/review", "/ui/pipelines", "/ui/runs", "/ui/models")
    for path in (
        *pages,
        "/review/page.css",
        "/review/page.js",
        "/ui/console.css",
        "/ui/console.js",
    ):
        answer = ann.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    assert "--paper:#0d1117" in ann.get("/review/page.css").text


@pytest.mark.parametrize("path", ["/review", f"{API}/accept", f"{API}/reviews/x/decide"])
def test_a_client_that_leaves_in_the_middle_of_its_request_is_no_fault(
    address: str, ann: httpx.Client, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    host, _, port = address.partition("//")[2].partition("/")[0].partition(":")
    head = f"Host: {host}:{port}\r\nAuthorization: Bearer {address.partition('token=')[2]}\r\n"
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\n{head}Content-Length: 999\r\n\r\n{{".encode())
        assert ann.get(f"{API}/queue").status_code == 200  # it was read by then
    assert ann.get(f"{API}/queue").status_code == 200
    assert "Exception in ASGI application" not in caplog.text


@pytest.mark.parametrize("path", ["/review", "/ui/sign-in", f"{API}/accept"])
def test_a_body_that_does_not_arrive_is_not_waited_for(
    address: str, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(page_access, "_BODY_S", 0.2)
    host, _, port = address.partition("//")[2].partition("/")[0].partition(":")
    head = f"Host: {host}:{port}\r\nAuthorization: Bearer {address.partition('token=')[2]}\r\n"
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\n{head}Content-Length: 99\r\n\r\n{{".encode())
        assert connection.recv(12) in (b"HTTP/1.1 403", b"HTTP/1.1 413")


# Lists and documents


def test_of_a_text_of_ten_million_characters_a_window_is_sent(
    served_page: ServedPage, ann: httpx.Client
) -> None:
    text = ("A long line about ropes and sails 😀.\n" * 300_000)[:10_000_000] + TEXT
    evidence = {"total": quote(text, "84.50")}
    source = {"name": "text", "path": None, "media_type": "text/plain", "text": text}
    (review,) = served_page.ask("big.txt", sources=[source], evidence=evidence)
    detail = ann.get(of(review.id))
    assert len(detail.content) < 10_000
    start = detail.json()["fields"][1]["evidence"]["start"]
    window = ann.get(of(review.id, f"/text?start={start - 1000}")).json()
    assert window["total"] == len(text)
    assert window["end"] == len(text)
    assert ["84.50", ["total"]] in window["parts"]
    assert "".join(words for words, _ in window["parts"]) == text[window["start"] :]
    assert text[window["start"] - 1] == "\n"
    middle = ann.get(of(review.id, "/text?start=5000000&n=99999999")).json()
    assert middle["end"] == 5_040_000


def test_a_source_without_a_picture_and_a_broken_document_are_a_sentence(
    served_page: ServedPage, ann: httpx.Client, tmp_path: Path
) -> None:
    (known, says), *_ = MEASURED.items()
    (plain,) = served_page.ask("a.txt", digest=known)
    assert ann.get(of(plain.id)).json()["measured"] == says
    answer = ann.get(of(plain.id, "/picture"))
    assert (answer.status_code, answer.json()) == (
        409, {"error": "This source has no pages to show."},
    )  # fmt: skip
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.7 this is none")
    source = {"name": "bad.pdf", "path": "bad.pdf", "media_type": "application/pdf", "text": ""}
    (broken,) = served_page.ask("bad.pdf", sources=[source])
    answer = ann.get(of(broken.id, "/picture?page=1"))
    assert answer.status_code == 409
    assert answer.json()["error"].startswith("'bad.pdf'")
    (tmp_path / "bad.pdf").unlink()
    os.mkfifo(tmp_path / "bad.pdf")  # a process that opens it as a file waits for ever
    answer = ann.get(of(broken.id, "/picture?page=1"))
    assert (answer.status_code, answer.json()["error"]) == (
        409,
        "'bad.pdf' cannot be shown: it is a device or a pipe. This is its text as the model read "
        "it.",
    )


# Decisions


def test_an_edit_is_typed_by_the_schema_and_checked_before_it_is_sent(
    served_page: ServedPage, ann: httpx.Client
) -> None:
    (open_review,) = served_page.ask("a.txt")

    def faults(**body: Any) -> Any:
        return ann.post(of(open_review.id, "/check"), json=body).json()["faults"]

    assert faults(changes={"total": "84,000"}) == [  # 84, or 84 thousand
        {"path": "total", "message": "'84,000' may be two numbers. Write 84000 or 84.0000."}
    ]
    assert faults(changes={"total": "84,00", "pay_by": "3. Mai 2024"}) == []
    assert faults(changes={"pay_by": "tomorrow"}) == [
        {"path": "pay_by", "message": "'tomorrow' is not a 'date'. Write it as 2026-10-28."}
    ]
    assert faults(changes={"total": "5000"}) == [
        {"path": "", "message": "This must be true: output.total < 1000."}
    ]
    assert "this is no JSON" in faults(json="{")[0]["message"]
    assert faults(changes={"total": "84.00", "pay_by": ""}) == []
    named = {"net price": {"type": "number"}, "`x`: y": {"type": "number"}}
    (odd,) = served_page.ask("b.txt", answer=dict.fromkeys(named, 1), schema={"properties": named},
                             checks=["one_of(output['`x`: y'], [1])"])  # fmt: skip
    for changes, path in (({"net price": "a"}, "net price"), ({"`x`: y": "2"}, "`x`: y")):
        (found,) = ann.post(of(odd.id, "/check"), json={"changes": changes}).json()["faults"]
        assert found["path"] == path
    refused = decide(ann, open_review.id, "edit", changes={"total": "5000"})
    assert refused.status_code == 409
    assert "This must be true" in refused.json()["error"]
    made = decide(ann, open_review.id, "edit", changes={"total": "84.00", "pay_by": ""})
    assert (made.status_code, made.json()["state"]) == (200, "edited")
    review = served_page.review(open_review.id)
    assert review.value == {
        "number": "R-1042", "total": 84.0, "kind": "invoice", "pay_by": None,
    }  # fmt: skip
    assert (review.by, review.state) == ("ann", "edited")
    detail = ann.get(of(open_review.id)).json()
    assert detail["was"] == {"total": "84.5", "pay_by": "2026-02-28"}
    shown = {field["path"]: field for field in detail["fields"]}
    assert (shown["total"]["text"], shown["total"]["evidence"]["match"]) == ("84.0", "none")


def test_wrong_requests_are_a_sentence_and_decide_nothing(
    served_page: ServedPage, ann: httpx.Client
) -> None:
    (review,) = served_page.ask("a.txt")
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"verb": "accept", "question": "other"}, 409, "was changed meanwhile"),
        ({"verb": "burn", "question": review.question}, 409, "There is no decision 'burn'."),
        ({"verb": ["accept"], "question": review.question}, 409, "There is no decision"),
        ({"verb": "reject", "question": review.question}, 409, "needs a reason"),
        ({"verb": "edit", "question": review.question}, 400, "An edit has `changes`"),
        (
            {"verb": "edit", "question": review.question, "changes": {"totl": "1"}},
            422,
            "the answer has no field 'totl'.",
        ),
    ]
    for body, status, words in cases:
        answer = ann.post(of(review.id, "/decide"), json=body)
        assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    for content in (b"[1]", b"{", b"\xff", b"[" * 50_000, b" " * 5_000_000):
        answer = ann.post(of(review.id, "/decide"), content=content)
        assert answer.status_code in (400, 413), answer.text
        assert answer.json()["error"]
    unknown = ann.post(of("0" * 12, "/decide"), json={"verb": "accept", "question": ""})
    assert unknown.json()["error"].startswith("There is no review '000000000000'")
    assert served_page.review(review.id).state == "open"


def test_a_decision_is_undone_and_what_was_decided_before_is_shown(
    served_page: ServedPage, ann: httpx.Client
) -> None:
    (review,) = served_page.ask("a.txt")
    assert decide(ann, review.id, "edit", changes={"total": "12"}).status_code == 200
    assert [row["item"] for row in ann.get(f"{API}/decided").json()["rows"]] == ["a.txt"]
    assert rows(ann) == []
    assert ann.post(of(review.id, "/undo"), json={}).json()["state"] == "open"
    assert ann.get(of(review.id)).json()["earlier"] == []  # as if nothing had been decided
    assert decide(ann, review.id, "edit", changes={"total": "12"}).status_code == 200
    served_page.ask("a.txt", document_sha256="d2")
    (before,) = ann.get(of(review.id)).json()["earlier"]
    assert (before["state"], before["by"], before["fields"]["total"]) == ("edited", "ann", "12")
    assert before["is_other_document"] is True


def test_what_was_decided_is_shown_with_its_places_also_after_an_undo(
    served_page: ServedPage, ann: httpx.Client
) -> None:
    (review,) = served_page.ask("a.txt", checks=[])
    edit = {"changes": {"pay_by": "2026-01-31"}, "places": {"pay_by": [1, 2]}}
    assert decide(ann, review.id, "edit", **edit).status_code == 200

    def shown() -> tuple[str, str, list[str]]:
        detail = ann.get(of(review.id)).json()
        field = next(field for field in detail["fields"] if field["path"] == "pay_by")
        parts = ann.get(of(review.id, "/text")).json()["parts"]
        marked = [words for words, paths in parts if "pay_by" in paths]
        return field["text"], field["evidence"]["match"], [detail["was"]["pay_by"], *marked]

    as_decided = ("2026-01-31", "exact", ["2026-02-28", "2026-01-31"])
    assert shown() == as_decided
    over = ann.get(of(review.id)).json()["decided_at"]
    again = decide(ann, review.id, "edit", over=over, changes={"total": "80.00"})
    assert again.json()["state"] == "edited"
    assert served_page.review(review.id).value["pay_by"] == "2026-01-31"
    assert decide(ann, review.id, "edit", over=over, changes={"total": "1"}).status_code == 409
    assert ann.post(of(review.id, "/undo"), json={}).json()["state"] == "open"
    assert shown() == as_decided
    assert decide(ann, review.id, "accept").json()["state"] == "edited"
    assert served_page.review(review.id).value["total"] == 80.0


def left_over(text: str, *words: str) -> dict[str, Any]:
    """Return readings of which two fields are open for words that are new, and one more misses."""
    left = [[part, text.index(part), text.index(part) + len(part), part] for part in words]
    missing = ["Thank you", -1, -1, "gone"]
    return {"readings": {
        "number": {"by": "rule", "decision": "x", "label": "Invoice"},
        "total": {"open": "left_over", "left": left},
        "kind": {"open": "left_over", "left": [*left, missing]},
    }}  # fmt: skip


def test_what_is_left_over_is_marked_where_it_stands_and_an_answer_to_it_is_kept(
    served_page: ServedPage, ann: httpx.Client
) -> None:
    rope = "Rope, 12 m"
    (review,) = served_page.ask("a.txt", outputs=left_over(TEXT, rope), open=["total", "kind"])
    new, missing = ann.get(of(review.id)).json()["left"]
    assert (new["text"], new["fields"], new["is_missing"]) == (rope, ["total", "kind"], False)
    assert (missing["text"], missing["fields"], missing["is_missing"]) == (
        "Thank you", ["kind"], True
    )  # fmt: skip
    parts = ann.get(of(review.id, "/text")).json()["parts"]
    assert [words for words, paths in parts if new["path"] in paths] == [rope]
    marks = {new["key"]: "never", "gone": "always", "invented": "never"}
    assert decide(ann, review.id, "accept", marks=marks).status_code == 200
    assert served_page.review(review.id).subject.marks == {rope: "never", "gone": "always"}
    (odd,) = served_page.ask("b.txt", outputs=left_over(TEXT, rope))
    assert decide(ann, odd.id, "accept", marks={rope: ["never"], "gone": 1}).status_code == 200
    assert served_page.review(odd.id).subject.marks == {}


def test_a_filed_paper_is_shown_where_it_lies(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "harbour", FILING)
    (desk.folder / "inbox").mkdir(parents=True, exist_ok=True)
    (desk.folder / "inbox/a.pdf").write_bytes(pdf([bill()]))
    desk.work()
    desk.decide("a.pdf", "edit", TRUE)
    desk.work()
    assert not (desk.folder / "inbox/a.pdf").exists()
    with shown(tmp_path, "harbour") as (page, _):
        (row,) = page.get(f"{API}/decided").json()["rows"]
        picture = page.get(of(row["id"], "/picture?source=0&page=1"))
        assert (picture.status_code, picture.headers["content-type"]) == (200, "image/png")
        fields = {f["path"]: f for f in page.get(of(row["id"])).json()["fields"]}
        assert fields["number"]["evidence"]["match"] == "exact"
        assert fields["number"]["evidence"]["box"]


def test_what_one_person_has_open_no_other_decides(
    served_page: ServedPage, ann: httpx.Client
) -> None:
    (review,) = served_page.ask("a.txt")
    assert ann.post(of(review.id, "/lease"), json={}).json()["lease"] == "ann"
    with served_page.served("ben", port=0) as other, client(other) as ben:
        assert rows(ben)[0]["lease"] == "ann"
        refused = ben.post(of(review.id, "/lease"), json={})
        assert refused.status_code == 409
        assert refused.json()["error"].startswith("ann looks at 'a.txt' (step 'bill') until ")
        assert decide(ben, review.id, "accept").status_code == 409
        ann.post(of(review.id, "/release"), json={})
        assert decide(ben, review.id, "accept").json()["by"] == "ben"
    late = ann.post(of(review.id, "/decide"), json={"question": review.question, "verb": "accept"})
    assert "was accepted by ben" in late.json()["error"]


def test_all_that_are_shown_are_accepted_in_one_decision_and_undone_as_one(
    served_page: ServedPage, ann: httpx.Client
) -> None:
    served_page.ask("a.txt", "b.txt", least=0.97)
    served_page.ask("bens.txt", by=["ben"], least=0.99)
    (changed,) = served_page.ask("changed.txt", least=0.96)
    shown = [[row["id"], row["question"]] for row in rows(ann)]
    assert {row["item"]: row["least"] for row in rows(ann)}["a.txt"] == 0.97
    served_page.ask("changed.txt", document_sha256="d2")
    done = ann.post(f"{API}/accept", json={"rows": [*shown, ["0" * 12, "0" * 16]]})
    result = done.json()
    assert (done.status_code, result["accepted"], len(result["left"])) == (200, 2, 3)
    assert any("'ann' may not decide on 'bens.txt'" in why for why in result["left"])
    assert any("was changed meanwhile" in why for why in result["left"])
    assert served_page.review(changed.id).state == "open"
    found = ann.get(f"{API}/decided").json()["rows"]
    assert {row["item"]: row["state"] for row in found} == {
        "a.txt": "accepted", "b.txt": "accepted",
    }  # fmt: skip
    assert {row["together"] for row in found} == {*result["together"]}
    undone = ann.post(f"{API}/undo", json={"together": result["together"]})
    assert undone.json() == {"opened": 2}
    assert len(rows(ann)) == 4
    bodies: tuple[Any, ...] = ({}, {"together": result["together"]}, {"together": [None, {}]})
    for body in bodies:
        assert ann.post(f"{API}/undo", json=body).status_code == 409
    wrong: tuple[Any, ...] = (None, [], {}, [["a"]], [[1, 2]], ["ab"], [["a", "b"]] * 20_001)
    for pairs in wrong:
        assert ann.post(f"{API}/accept", json={"rows": pairs}).status_code == 400
    short = ann.post(f"{API}/accept", json={"rows": [[shown[0][0], shown[0][1][:4]]]}).json()
    assert (short["accepted"], len(short["left"])) == (0, 1)


# Several folders


@contextmanager
def shown(
    root: Path, *folders: str, keys: Path | None = None
) -> Iterator[tuple[TestClient, ReviewPage]]:
    """Yield a client of the owner for the page of several folders, as `paddock up` has it."""
    all_reviews = FolderReviews(lambda: [root / name for name in folders])
    page = ReviewPage(
        all_reviews, PageAccess("the-token-of-the-owner", "owner", "It is here.", keys=keys)
    )
    app = Starlette(routes=page.routes())
    with TestClient(app, "http://localhost", follow_redirects=False) as session:
        assert session.post("/review", data={"token": "the-token-of-the-owner"}).status_code == 303
        yield session, page
        assert session.portal is not None
        session.portal.call(page.close, all_reviews.close)


def test_copies_of_a_folder_are_told_apart_and_decided_each_for_itself(tmp_path: Path) -> None:
    served_pages = {name: ServedPage(tmp_path / name) for name in ("harbour", "old/harbour")}
    for name, served_page in served_pages.items():
        served_page.folder.mkdir(parents=True)
        (review,) = served_page.ask("a.txt", text=f"Total 84.50 of {name}")
    with shown(tmp_path, *served_pages) as (page, _):
        found = {row["folder"]: row["id"] for row in rows(page)}
        assert sorted(found) == ["harbour", "old/harbour"]
        for name, id_ in found.items():
            text = page.get(of(id_, "/text")).json()["parts"][0][0]
            assert text == f"Total 84.50 of {name}"
            assert page.get(of(id_)).json()["folder"] == name
        assert page.get(of(review.id)).status_code == 409  # of which folder?
        assert decide(page, found["old/harbour"], "accept").status_code == 200
        assert [row["folder"] for row in rows(page)] == ["harbour"]
        assert [served_pages[name].review(review.id).state for name in served_pages] == [
            "open",
            "accepted",
        ]
        assert page.post(of(found["old/harbour"], "/undo"), json={}).status_code == 200
        every = [[row["id"], row["question"]] for row in rows(page)]
        result = page.post(f"{API}/accept", json={"rows": every}).json()
        assert (result["accepted"], result["left"], len(result["together"])) == (2, [], 2)
        undone = page.post(f"{API}/undo", json={"together": result["together"]}).json()
        assert undone == {"opened": 2}
        assert [served_pages[name].review(review.id).state for name in served_pages] == [
            "open",
            "open",
        ]


def test_where_values_stand_is_found_by_readers_for_several_people_and_only_if_a_check_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served_page, both = ServedPage(tmp_path / "harbour"), Barrier(2)
    served_page.folder.mkdir()
    asked: dict[str, Any] = {"checks": ["evidence.total.match != 'none'"]}
    (own,) = served_page.ask("a.txt", **asked)
    asked["outputs"] = {"readings": {"total": {"by": "rule"}}}
    pair = served_page.ask("b.txt", "c.txt", **asked, text=TEXT + "\n", evidence={})
    found, locate = [], documents.locate_values_now

    def located(*request: Any) -> Any:
        found.append(locate(*request))
        both.wait(PATIENCE_S)
        return found[-1]

    monkeypatch.setattr(documents, "locate_values_now", located)
    with shown(tmp_path, "harbour") as (page, _), ThreadPoolExecutor(2) as people:
        ids = {row["item"]: row["id"] for row in rows(page)}
        assert decide(page, ids["a.txt"], "accept").status_code == 200
        assert (found, served_page.review(own.id).state) == ([], "accepted")
        edits = {"b.txt": "84.50", "c.txt": "12"}
        sent = [
            people.submit(decide, page, ids[item], "edit", changes={"total": total})
            for item, total in edits.items()
        ]
        assert [each.result().status_code for each in sent] == [200, 200]
    assert len(found) == 2
    assert [served_page.review(each.id).state for each in pair] == ["edited", "edited"]


def test_a_comparison_that_may_take_seconds_holds_no_other_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served_page, begun, may_end = ServedPage(tmp_path / "harbour"), Event(), Event()
    served_page.folder.mkdir()
    schema = {**SCHEMA, "patternProperties": {"^z": {"$ref": "#/properties/total"}}}
    (own,) = served_page.ask("a.txt", schema=schema)
    ask, asked = TrialProcess.ask, []

    def ask_slowly(trials: TrialProcess, *of: Any) -> Any:
        asked.append(of)
        begun.set()
        assert may_end.wait(PATIENCE_S)
        return ask(trials, *of)

    monkeypatch.setattr(TrialProcess, "ask", ask_slowly)
    with shown(tmp_path, "harbour") as (page, _), ThreadPoolExecutor(2) as people:
        (row,) = rows(page)
        sent = people.submit(decide, page, row["id"], "edit", changes={"total": "84.50"})
        assert begun.wait(PATIENCE_S)
        assert people.submit(rows, page).result(PATIENCE_S) == [row]
        may_end.set()
        assert sent.result().status_code == 200
    assert (len(asked), served_page.review(own.id).state) == (1, "edited")


def test_a_picture_of_which_no_words_are_known_has_none(tmp_path: Path) -> None:
    served_page = ServedPage(tmp_path / "harbour")
    served_page.folder.mkdir()
    served_page.ask("a.txt")
    with shown(tmp_path, "harbour") as (page, _):
        (row,) = rows(page)
        assert page.get(of(row["id"], "/words?source=0&page=1")).json() == {"words": []}


def test_a_paper_that_a_further_decision_opens_again_is_shown_as_open(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "harbour")
    credit = {"number": "RE-103", "date": "2027-03-29"}
    desk.arrive(a=bill(), b=bill(**NEXT), c=bill(**credit))
    desk.work()
    with shown(tmp_path, "harbour") as (page, _):
        ids = {row["item"]: row["id"] for row in rows(page)}
        decide(page, ids["a.txt"], "edit", json=json.dumps(TRUE))
        assert [row["answered"] for row in rows(page)] == ["a.txt", "a.txt"]
        true = json.dumps({**TRUE, **credit, "kind": "credit note"})
        assert decide(page, ids["c.txt"], "edit", json=true).json()["opened"] == [ids["b.txt"]]
        assert [row.get("answered") for row in rows(page)] == [None]


def test_papers_that_a_decision_answers_are_checked_beside_the_page_and_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costly = "{type: object, patternProperties: {'^z': {type: string}}, "
    desk = Desk(tmp_path / "harbour", PIPELINE.replace("{type: object, ", costly))
    names = [f"b{n}.txt" for n in range(4)]
    desk.arrive(a=bill(), **{name[:2]: bill(**NEXT) for name in names})
    desk.work()
    ask, threads = TrialProcess.ask, list[str]()

    def asked(trials: TrialProcess, *of: Any) -> Any:
        threads.append(current_thread().name)
        return ask(trials, *of)

    monkeypatch.setattr(TrialProcess, "ask", asked)
    with shown(tmp_path, "harbour") as (page, _):
        found = rows(page)
        first = next(row["id"] for row in found if row["item"] == "a.txt")
        true = {"json": json.dumps(TRUE)}
        assert sorted(page.post(of(first, "/check"), json=true).json()["answers"]) == names
        assert len(decide(page, first, "edit", **true).json()["answers"]) == 4
        assert {row["answered"] for row in rows(page)} == {"a.txt"}
        every = {"rows": [[row["id"], row["question"]] for row in found if row["id"] != first]}
        done = page.post(f"{API}/accept", json=every).json()
        assert (done["accepted"], len(done["left"])) == (0, 4)
        assert len(threads) == 5 + 5 + 4
        assert not [name for name in threads if name.startswith("review")]

        monkeypatch.setattr("paddock.runner.review.page.NEAR_S", 0)
        assert page.post(of(first, "/undo")).status_code == 200
        assert page.post(of(first, "/check"), json=true).json()["answers"] == []
        monkeypatch.setattr("paddock.runner.review.page.TOGETHER_S", 0)
        done = page.post(f"{API}/accept", json=every).json()
        assert (done["accepted"], len(done["left"])) == (0, 4)
        assert "was not checked in time" in done["left"][0]
    assert len(desk.waiting()) == 5


@pytest.mark.parametrize("door", ["page", "command"])
def test_what_a_decision_answers_is_not_accepted_as_the_model_had_it(
    tmp_path: Path, door: str
) -> None:
    desk = Desk(tmp_path / "harbour")
    desk.arrive(a=bill(), b=bill(**NEXT), c=bill(sender="Osier"))
    desk.work()
    with shown(tmp_path, "harbour") as (page, _):
        stale = {row["item"]: [row["id"], row["question"]] for row in rows(page)}
        true = json.dumps(TRUE)
        assert decide(page, stale.pop("a.txt")[0], "edit", json=true).status_code == 200
        if door == "page":
            told = page.post(f"{API}/accept", json={"rows": [*stale.values()]}).json()
        else:
            told = json.loads(invoke("review", str(desk.folder), "--accept-all", "--json").output)
    assert (told["accepted"], len(told["left"])) == (1, 1)
    assert told["left"][0].startswith("'b.txt' (step 'bill') is answered by another decision")
    assert {*desk.waiting()} == {"b.txt"}
    desk.work()
    assert desk.outputs()["b.txt"] == ("RE-102", 60.0)
