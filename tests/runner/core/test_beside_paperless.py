"""`examples/paperless` beside a stand-in for its server: what a person entered stays, once each."""

import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import ChatRequest
from paddock.runner.progress.report import Report
from paddock.steps.sources import mirror
from tests.fakes.paperless import TOKEN, Paperless, paperless
from tests.fakes.pdf import pdf
from tests.fakes.pool import FakePool
from tests.forked import ForkServer
from tests.runner.killed_runs import kill_runs
from tests.runner.world import Notes, ReviewedWorld, World, carried_out

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "paperless"
N_KILLS = int(os.environ.get("PADDOCK_TEST_KILLS", "8"))
SENDER = "Harbour Chandlery"


def bill(number: int, total: str = "84.00") -> bytes:
    lines = [SENDER, "INVOICE", f"Number: 26-{number:03}", f"Total: {total} EUR"]
    return pdf(["\n".join([*lines, "Due: 2026-12-15", "Thank you for your order."])])


ANSWER = {
    **{"sender": SENDER, "correspondent": SENDER, "document_type": "Invoice", "tag": "boat"},
    **{"other_tag": "no tag", "number": "26-007", "total": 84.0, "currency": "EUR"},
    "due": "2026-12-15",
}


def says(request: ChatRequest) -> str:
    """Answer as a model that reads a bill right."""
    number = re.search(r"26-\d{3}", request.messages[-1].content)
    return json.dumps({**ANSWER, "number": number and number[0]})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Paperless]:
    monkeypatch.setenv("PAPERLESS_TOKEN", TOKEN)
    with paperless() as server:
        server.add("correspondents", "Other", SENDER)
        server.add("document_types", "Letter", "Invoice")
        server.add("tags", "inbox", is_inbox_tag=True)
        server.add("tags", "boat", "mine", "to check", is_inbox_tag=False)
        server.add("custom_fields", "Total", data_type="monetary")
        server.add("custom_fields", "number", "note", data_type="string")
        yield server


class Desk(ReviewedWorld):
    def __init__(self, folder: Path, server: Paperless) -> None:
        shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
        text = (EXAMPLE / "pipeline.yaml").read_text()
        super().__init__(folder, text.replace("http://127.0.0.1:8000", server.url))
        self.server = server

    def put(self, number: int, **fields: Any) -> int:
        return self.server.put(bill(number), f"scan_{number}.pdf", **{"tags": [1], **fields})

    def go(self, **wishes: Any) -> tuple[Report, list[str]]:
        notes = Notes()
        return carried_out(self, pool=FakePool(answer=says), observer=notes, **wishes), notes.texts


def test_what_is_decided_is_written_once_and_the_next_of_the_sender_without_a_question(
    tmp_path: Path, server: Paperless
) -> None:
    desk = Desk(tmp_path, server)
    first = desk.put(1)
    desk.go()
    assert (server.documents[first]["title"], server.documents[first]["tags"]) == ("scan_1", [1, 4])
    desk.decide_all("accept")
    others = [desk.put(number) for number in range(2, 32)]  # in two pages
    report, notes = desk.go()
    assert (report.status, notes) == ("completed", [])
    for number, document in enumerate((server.documents[each] for each in [first, *others]), 1):
        assert document["title"] == f"Invoice 26-{number:03} {SENDER}"
        assert (document["correspondent"], document["document_type"]) == (2, 2)
        assert document["tags"] == [1, 2]
        values = {each["field"]: each["value"] for each in document["custom_fields"]}
        assert values == {1: "EUR84.00", 2: f"26-{number:03}"}
    n_changes = len(server.changes())
    assert n_changes == 1 + 3 * 31  # the doubt's tag once; of each fields, custom fields, tags
    again, _ = desk.go()
    assert len(server.changes()) == n_changes
    assert {item.state for item in again.items} == {"fresh"}


def test_what_a_person_entered_stays_also_what_comes_in_between(
    tmp_path: Path, server: Paperless
) -> None:
    desk = Desk(tmp_path, server)
    fields = [{"field": 2, "value": "mine"}, {"field": 3, "value": "note"}]
    one = desk.put(1, title="My title", correspondent=1, tags=[1, 3], custom_fields=fields)
    two = desk.put(2, custom_fields=[{"field": 1, "value": ""}])
    desk.go()
    server.documents[two]["document_type"] = 1  # while Paddock's page asks

    def comes_in_between() -> None:
        for document in server.documents.values():
            document["tags"] = [*{*document["tags"], 3}]
            if 3 not in {each["field"] for each in document["custom_fields"]}:
                document["custom_fields"] += [{"field": 3, "value": 0}]

    server.before_write = comes_in_between
    desk.decide_all("accept")
    report, _ = desk.go()
    assert report.status == "completed"
    first, second = server.documents[one], server.documents[two]
    assert (first["title"], first["correspondent"], first["document_type"]) == ("My title", 1, 2)
    assert (second["correspondent"], second["document_type"]) == (2, 1)
    assert first["tags"] == second["tags"] == [1, 2, 3]
    values = [
        {each["field"]: each["value"] for each in of["custom_fields"]} for of in (first, second)
    ]
    assert values == [{2: "mine", 3: "note", 1: "EUR84.00"}, {1: "EUR84.00", 2: "26-002", 3: 0}]


@pytest.mark.parametrize("faults", [[500, 500], [503], ["cut"], [401], [400], [404]])
def test_a_server_that_breaks_off_or_refuses_is_written_once_in_the_end(
    tmp_path: Path, server: Paperless, faults: list[int | str]
) -> None:
    desk = Desk(tmp_path, server)
    number = desk.put(1)
    desk.go()
    desk.decide_all("accept")
    server.faults.extend(faults)
    desk.go()
    for _ in range(2):
        desk.decide_all("accept")  # what a cut left unknown did arrive
        desk.go(retry_failed=True)
    document = server.documents[number]
    assert (document["title"], document["correspondent"]) == (f"Invoice 26-001 {SENDER}", 2)
    assert (document["tags"], len(document["custom_fields"])) == ([1, 2], 2)
    answered = [json.dumps(each) for each in server.changes()]
    assert len(answered) - len({*answered}) == len([each for each in faults if each != "cut"])


def test_a_document_that_is_gone_and_a_server_that_is_away_take_nothing_from_others(
    tmp_path: Path, server: Paperless
) -> None:
    desk = Desk(tmp_path, server)
    first = desk.put(1)
    desk.go()
    desk.decide_all("accept")
    gone, other = desk.put(2), desk.put(3)
    del server.files[gone]
    desk.go()
    del server.documents[first], server.documents[gone]
    assert server.documents[other]["correspondent"] == 2
    desk.put(4)
    server.tokens = {"another"}
    report, _ = desk.go()
    assert report.status == "failed"
    assert "status 401" in (report.message or "")
    assert TOKEN not in (report.message or "")
    server.tokens = {TOKEN}
    report, notes = desk.go()
    assert (report.status, notes) == ("completed", [])
    assert server.documents[4]["correspondent"] == 2


def test_runs_that_are_killed_at_random_write_each_document_once(
    tmp_path: Path, server: Paperless, fork_server: ForkServer
) -> None:
    dice, desk = random.Random(74), Desk(tmp_path, server)
    desk.put(1)
    desk.go()
    desk.decide_all("accept")
    desk.go()
    server.delay_s = 0.02

    def more_documents() -> None:
        for _ in range(dice.randrange(1, 12)):
            desk.put(len(server.documents) + 1)

    kill_runs(fork_server, desk, N_KILLS, dice, more_documents)
    desk.go()
    for _ in range(3):  # a document has at most three requests
        for key, review in desk.waiting().items():
            document = server.documents[int(key.split("/")[0])]
            has = {"fill": document["correspondent"], "complete": document["custom_fields"]}
            is_there = has.get(review.step, 2 in document["tags"])
            desk.decide(key, "accept" if is_there else "reject")  # as a person who looks there
        report, _ = desk.go(retry_failed=True)
    assert (report.status, desk.waiting()) == ("completed", {})
    changed = [json.dumps(each) for each in server.changes()]
    assert [each for each in changed if changed.count(each) > 1] == []
    for document in server.documents.values():
        assert (document["correspondent"], document["tags"]) == (2, [1, 2])
        assert len(document["custom_fields"]) == 2


def test_an_export_is_gold_and_has_the_lists(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    world = World(tmp_path, (EXAMPLE / "export.yaml").read_text(), name="export.yaml")

    def record(model: str, pk: int, **fields: Any) -> dict[str, Any]:
        return {"model": f"documents.{model}", "pk": pk, "fields": fields}

    pks = {"correspondent": 1, "document_type": 1}
    values = {"value_text": None, "value_date": None, "value_monetary": "EUR84.00"}
    document = record("document", 7, title="A bill", tags=[1, 2], **pks)
    manifest = [
        record("correspondent", 1, name=SENDER, owner=None),
        record("documenttype", 1, name="Invoice", match=""),
        record("tag", 1, name="inbox", is_inbox_tag=True),
        record("tag", 2, name="boat", is_inbox_tag=False),
        record("customfield", 1, name="Total", data_type="monetary"),
        record("customfield", 2, name="note", data_type="string"),
        record("customfieldinstance", 1, **values, document=7, field=1),
        {"model": "auth.user", "pk": 3, "fields": {"username": "ann", "tags": "none"}},
        {**document, "__exported_file_name__": "2026 A bill.pdf"},
    ]
    world.write("export/manifest.json", json.dumps(manifest))
    (tmp_path / "export" / "2026 A bill.pdf").write_bytes(bill(7))
    said = {key: value for key, value in ANSWER.items() if key != "other_tag"}
    report = carried_out(world, pool=FakePool(answer=lambda _: json.dumps(said)))
    assert (report.status, report.returns["counts"]["done"]) == ("completed", 1)
    row = f"2026 A bill.pdf,{SENDER},Invoice,boat,,84.00,"
    assert world.output("gold.csv").splitlines()[1:] == [row]


def test_a_document_that_the_server_cannot_give_holds_up_no_other(
    tmp_path: Path, server: Paperless, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_BATCH", 2)
    desk = Desk(tmp_path, server)
    broken, *others = [desk.put(number) for number in range(1, 6)]
    server.broken.add(broken)
    _, notes = desk.go()
    assert f"/api/documents/{broken}/download/?original=true' answers with status 500)" in notes[0]
    desk.go()
    copies = {path.parent.name for path in (tmp_path / "documents").rglob("*.pdf")}
    assert copies == {*map(str, others)}
    server.broken.clear()
    _, notes = desk.go()
    assert not [note for note in notes if "is away" in note]
    assert (tmp_path / f"documents/{broken}/scan_1.pdf").exists()


def test_a_new_version_is_fetched_and_a_name_leads_nowhere_else(
    tmp_path: Path, server: Paperless
) -> None:
    desk = Desk(tmp_path, server)
    one, two = desk.put(1), server.put(bill(2), f"../../{'n' * 300}.pdf", tags=[1])
    _, notes = desk.go()
    assert any("not fetched: its path leads out of the folder: " in note for note in notes)
    assert [path.name for path in (tmp_path / "documents").rglob("*.pdf")] == ["scan_1.pdf"]
    server.documents[two]["original_file_name"] = f"{'n' * 300}.pdf"
    server.files[one] = bill(3)
    server.documents[one]["versions"] = [{"id": 9, "checksum": "another", "is_root": False}]
    desk.go()
    assert (tmp_path / f"documents/{one}/scan_1.pdf").read_bytes() == bill(3)
    (copy,) = (tmp_path / f"documents/{two}").iterdir()
    assert copy.read_bytes() == bill(2)


def test_a_server_without_the_tag_is_told_and_one_without_custom_fields_is_served(
    tmp_path: Path, server: Paperless
) -> None:
    tag = server.lists["tags"].pop()
    server.lists["custom_fields"].clear()
    desk = Desk(tmp_path, server)
    number = desk.put(1)
    report, _ = desk.go()
    assert 'Paperless has no tag "to check". Make it there.' in (report.message or "")
    server.lists["tags"].append(tag)
    desk.go()
    desk.decide_all("accept")
    report, _ = desk.go()
    document = server.documents[number]
    assert (report.status, document["correspondent"]) == ("completed", 2)
    assert (document["tags"], document["custom_fields"]) == ([1, 2], [])
