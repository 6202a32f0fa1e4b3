"""`paddock review`: list, page, CSV out and in, gold data."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from paddock.runner.calibration.confidence_calibration import reviewed_fields
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.reviews.reviews import Question, Review, Subject
from paddock.runner.review.decisions import LedgerReviews
from tests.runner.cli.commands.shell import invoke
from tests.runner.cli.commands.terminal import CTRL_C, terminal

TEXT = "Invoice A-17\nTotal 84,00 EUR\nplease pay by 3 May 2024\n"
SCHEMA = {
    "type": "object",
    "properties": {
        "number": {"type": "string"},
        "total": {"type": "number"},
        "note": {"type": ["string", "null"]},
    },
    "required": ["number", "total"],
    "additionalProperties": False,
}
ANSWER = {"number": "A-17", "total": 62.0, "note": None}
EVIDENCE = {
    "number": {"quote": "A-17", "source": "a.txt", "page": 2, "start": 8, "end": 12, "line": 1,
               "column": 9, "box": None, "match": "exact", "ratio": None, "others": 1},
    "total": {"quote": None, "match": "none", "others": 0},
    "note": None,
}  # fmt: skip
CONFIDENCE = {
    "number": {"p": 0.98, "raw": 0.98, "second": None, "second_p": None, "is_calibrated": False},
    "total": {"p": 0.62, "raw": 0.62, "second": 84.0, "second_p": 0.31, "is_calibrated": False},
    "note": None,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a pipeline, the current one."""
    folder = tmp_path / "bills"
    folder.mkdir()
    (folder / "bills.yaml").write_text("name: bills\nsteps: []\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOGNAME", "ann")
    return folder


def ask(folder: Path, key: str = "a.txt", answer: Any = ANSWER, **subject: Any) -> Review:
    defaults = {
        "pipeline": "bills.yaml", "block": "each", "item": key, "document": f"inbox/{key}",
        "document_sha256": "d1", "answer": answer, "schema": SCHEMA, "checks": [], "scope": {},
        "by": [], "on_expiry": "quarantine", "when": "confidence.min < 0.8", "model": "clerk",
        "digest": "m1", "evidence": EVIDENCE, "confidence": CONFIDENCE,
        "sources": [{"name": "a.txt", "text": TEXT, "page_starts": []}],
    }  # fmt: skip
    with Ledger(folder / ".paddock") as ledger:
        question = Question("s", key, "bill", "swift-otter", Subject.of({**defaults, **subject}))
        return ReviewStore(ledger).ask(question)


def decided(folder: Path) -> dict[str, Review]:
    with Ledger(folder / ".paddock", is_readonly=True) as ledger:
        return {review.key: review for review in LedgerReviews(ledger).decided(is_whole=True)}


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def sheet(rows: list[dict[str, str]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def exported() -> list[dict[str, str]]:
    return rows_of(invoke("review", "--export", "-").stdout)


# --- listing


def test_what_waits_is_listed_with_what_a_person_needs(folder: Path) -> None:
    first = ask(folder, by=["ann", "bob"], due=["total stands nowhere"])
    ask(folder, "b.txt")
    with Ledger(folder / ".paddock") as ledger:
        LedgerReviews(ledger).take_lease(first.id, "bob")
    shown = invoke("review", "--list")
    assert shown.exit_code == 0, shown.output
    head, row, other = (" ".join(line.split()) for line in shown.stdout.splitlines())
    assert head == "ID ITEM STEP PIPELINE ASKED LEFT FOR WHY"
    due = "total stands nowhere; bob looks at it"
    assert row == f"{first.id} inbox/a.txt bill bills.yaml just now ann, bob {due}"
    assert "inbox/b.txt" in other


def test_a_program_reads_what_waits_as_one_object(folder: Path) -> None:
    review = ask(folder)
    (row,) = json.loads(invoke("review", "--list", "--json").stdout)["waiting"]
    assert (row["id"], row["question"], row["item"]) == (review.id, review.question, "a.txt")
    assert row["expires"] is row["held_by"] is None


def test_a_folder_where_nothing_ran_has_nothing_to_review(folder: Path) -> None:
    shown = invoke("review", "bills")
    assert shown.exit_code == 2
    assert shown.stderr == (
        "No run has been recorded for 'bills', so nothing waits for review.\n"
        "  Run a pipeline with `review` first: `paddock run bills`.\n"
    )
    assert invoke("review", "nothing.yaml").stderr == "There is no file or folder 'nothing.yaml'.\n"


def test_a_pipeline_is_named_where_its_folder_has_several(folder: Path) -> None:
    ask(folder)
    ask(folder, "c.txt", pipeline="contracts.yaml")
    shown = json.loads(invoke("review", "bills.yaml", "--list", "--json").stdout)
    assert [row["item"] for row in shown["waiting"]] == ["a.txt"]


@pytest.mark.parametrize("wanted", [("--list",), ("--export", "csv")])
def test_the_reviews_of_a_pipeline_that_was_renamed_are_not_nothing(
    folder: Path, wanted: tuple[str, ...]
) -> None:
    ask(folder)
    (folder / "bills.yaml").rename(folder / "letters.yaml")
    shown = invoke("review", "letters.yaml", *wanted)
    assert shown.stderr.startswith(
        "'letters.yaml' has no review; there are some of 'bills.yaml', without a file.\n"
        "  If that was renamed, run it once: `paddock run letters.yaml`.\n"
    )


# --- CSV


def test_the_csv_has_a_row_for_each_field_with_its_quote_and_confidence(folder: Path) -> None:
    review = ask(folder)
    number, total, note = exported()
    assert number == {
        "id": review.id, "question": review.question, "document": "inbox/a.txt", "field": "number",
        "asked": "true", "why": "", "value": "A-17", "confidence": "0.98", "quote": "A-17",
        "page": "2", "decision": "", "new value": "", "reason": "",
    }  # fmt: skip
    assert (total["value"], total["quote"], note["value"]) == ("62.0", "", "")


def test_a_csv_comes_back_with_decisions_of_all_three_kinds(folder: Path) -> None:
    for key in ("a.txt", "b.txt", "c.txt", "d.txt"):
        ask(folder, key)
    assert invoke("review", "--export", "todo.csv").exit_code == 0
    rows = rows_of((folder / "todo.csv").read_text("utf-8"))
    rows[0]["decision"] = "accept"
    rows[4]["new value"] = "84"
    rows[6] |= {"decision": "Reject", "reason": "no invoice"}
    (folder / "todo.csv").write_text(sheet(rows), "utf-8")
    done = invoke("review", "--import", "todo.csv")
    assert (done.exit_code, done.stdout) == (
        0, "3 decisions taken. `paddock run` continues with what was decided.\n",
    )  # fmt: skip
    found = decided(folder)
    assert {key: (review.state, review.by) for key, review in found.items()} == {
        "a.txt": ("accepted", "ann"), "b.txt": ("edited", "ann"), "c.txt": ("rejected", "ann"),
    }  # fmt: skip
    assert found["b.txt"].value == {"number": "A-17", "total": 84, "note": None}
    assert found["c.txt"].reason == "no invoice"
    again = invoke("review", "--import", "todo.csv", "--as", "bob")
    assert again.stdout.startswith("0 decisions taken, 3 were decided so before.")


def test_what_begins_a_fraction_is_told_by_the_other_new_values_of_a_csv(folder: Path) -> None:
    for key in ("a.txt", "b.txt"):
        ask(folder, key)
    rows = exported()
    rows[1]["new value"] = "1.234"
    (folder / "todo.csv").write_text(sheet(rows), "utf-8")
    done = invoke("review", "--import", "todo.csv")
    assert (done.exit_code, decided(folder)) == (1, {})
    assert "'1.234' may be two numbers. Write 1234 or 1.2340." in done.stderr
    rows[4]["new value"] = "61,40"
    (folder / "todo.csv").write_text(sheet(rows), "utf-8")
    assert invoke("review", "--import", "todo.csv").exit_code == 0
    totals = [review.value["total"] for _, review in sorted(decided(folder).items())]
    assert totals == [1234, 61.4]


def test_nothing_of_a_faulty_csv_is_taken_and_each_fault_has_its_line(folder: Path) -> None:
    for key in ("a.txt", "b.txt", "c.txt"):
        ask(folder, key)
    rows = exported()
    rows[0]["decision"] = "accept"
    rows[4]["new value"] = "84 or 85"
    rows[6]["decision"] = "reject"
    rows += [{**rows[7], "decision": "akzept"}, {**rows[7], "id": "ffff", "decision": "accept"}]
    rows += [{**rows[8], "field": "sum", "new value": "1", "id": rows[8]["id"]}]
    (folder / "todo.csv").write_text(sheet(rows), "utf-8")
    done = invoke("review", "--import", "todo.csv")
    assert done.exit_code == 1
    assert done.stdout == (
        "Nothing was decided: 5 faults. Correct them, or take the sound ones with `--skip-bad`.\n"
    )
    lines = done.stderr.splitlines()
    assert [line.partition(": ")[2].partition(":")[0] for line in lines] == [
        "line 6", "line 8", "line 11", "line 12", "line 13"
    ]  # fmt: skip
    assert "total" in lines[0]
    assert lines[2] == (
        "todo.csv: line 11: 'akzept' is no decision. Write accept, edit, reject, never or always."
    )
    assert decided(folder) == {}
    some = invoke("review", "--import", "todo.csv", "--skip-bad", "--json")
    assert (some.exit_code, json.loads(some.stdout)["decided"]) == (1, 1)
    assert set(decided(folder)) == {"a.txt"}
    again = invoke("review", "--import", "todo.csv", "--skip-bad")
    assert again.stdout.startswith("0 decisions taken, 1 was decided so before.")
    misspelt = [{**row, "decision": "akzept"} for row in rows if row["id"] == rows[3]["id"]]
    (folder / "todo.csv").write_text(sheet([*rows[:3], *misspelt]), "utf-8")
    again = invoke("review", "--import", "todo.csv", "--skip-bad")
    assert again.stdout.startswith("0 decisions taken, 1 was decided so before.")
    (folder / "bad.csv").write_text(sheet([{**rows[7], "decision": "akzept"}]), "utf-8")
    none = invoke("review", "--import", "bad.csv", "--skip-bad")
    assert none.stdout == "Nothing was decided: 1 fault.\n"


def test_a_csv_of_another_ledger_decides_nothing(folder: Path) -> None:
    ask(folder / "other")
    ask(folder, "mine.txt")
    text = invoke("review", "other", "--export", "-").stdout
    rows = rows_of(text)
    rows[0]["decision"] = "accept"
    done = invoke("review", "bills.yaml", "--import", "-", given=sheet(rows))
    assert f"line 2: there is no review '{rows[0]['id']}' here" in done.stderr or (
        "was changed meanwhile" in done.stderr
    )
    rows[0]["id"] = "1.23457E+11"
    done = invoke("review", "bills.yaml", "--import", "-", given=sheet(rows))
    assert "there is no review '1.23457E+11' here: a spreadsheet has changed the id." in done.stderr
    assert decided(folder) == {}


def test_a_decision_about_an_answer_that_changed_is_refused(folder: Path) -> None:
    ask(folder)
    rows = exported()
    rows[0]["decision"] = "accept"
    ask(folder, answer={**ANSWER, "total": 84.0}, document_sha256="d2")
    done = invoke("review", "--import", "-", given=sheet(rows))
    assert done.stderr == (
        "-: line 2: 'a.txt' (step 'bill') was changed meanwhile: its document or its answer is "
        "another one. Look at it again; nothing was decided.\n"
    )


PAID = "You have already paid 30.00 EUR"
LEFT = [[PAID, 13, 44, "k1"], ["Storno", 60, 66, "k2"]]


def test_a_csv_says_what_is_new_on_a_paper_and_takes_back_what_is_said_of_it(folder: Path) -> None:
    readings = {
        "total": {"open": "left_over", "left": LEFT[:1]},
        "note": {"open": "left_over", "left": LEFT},
        "number": {"open": "no_place"},
    }
    for key in ("a.txt", "b.txt", "c.txt"):
        ask(folder, key, outputs={"readings": readings})
    rows = exported()
    assert {row["field"]: row["why"] for row in rows[:3]} == {
        "number": "its value stood nowhere, or each time elsewhere",
        "total": f"new on this paper: “{PAID}”", "note": f"new on this paper: “{PAID}”, “Storno”",
    }  # fmt: skip
    rows[1]["decision"] = "never"
    rows[4] |= {"decision": "always", "new value": "32.00"}
    rows[5]["decision"] = "never"
    rows[6]["decision"] = "never"  # of a field for which nothing is new
    (folder / "todo.csv").write_text(sheet(rows), "utf-8")
    done = invoke("review", "--import", "todo.csv", "--skip-bad")
    assert "line 8: 'never' is said of what is new, and nothing is at 'number'" in done.stderr
    found = decided(folder)
    assert {key: (r.state, r.subject.marks) for key, r in found.items()} == {
        "a.txt": ("accepted", {"k1": "never"}),
        "b.txt": ("edited", {"k1": "always", "k2": "never"}),
    }
    gold = invoke("review", "--export", "jsonl").stdout.splitlines()
    assert [json.loads(line)["marks"] for line in gold] == [
        found[json.loads(line)["item"]].subject.marks for line in gold
    ]


def test_a_decided_answer_is_edited_by_a_csv_and_never_over_a_newer_decision(folder: Path) -> None:
    review = ask(folder)
    with Ledger(folder / ".paddock") as ledger:
        LedgerReviews(ledger).decide(review.id, review.question, "accept", by="ann")
    invoke("review", "--export", "done.csv", "--decided")
    rows = rows_of((folder / "done.csv").read_text("utf-8"))
    rows[1]["new value"] = "84.00"
    (folder / "done.csv").write_text(sheet(rows), "utf-8")
    assert invoke("review", "--import", "done.csv").exit_code == 0
    found = decided(folder)["a.txt"]
    assert (found.state, found.value["total"], len(found.earlier)) == ("edited", 84.0, 1)
    rows[1]["new value"] = "85.00"
    (folder / "done.csv").write_text(sheet(rows), "utf-8")
    late = invoke("review", "--import", "done.csv")
    assert "was edited by ann" in late.stderr and "Undo that to decide again" in late.stderr
    assert decided(folder)["a.txt"] == found
    assert "belongs to `--export FILE.csv`" in invoke("review", "--list", "--decided").stderr


def test_what_a_spreadsheet_would_compute_leaves_and_comes_back_as_text(folder: Path) -> None:
    ask(folder, answer={"number": "=HYPERLINK(A1)", "total": -1.5})
    number, total = exported()
    assert (number["value"], total["value"]) == ("'=HYPERLINK(A1)", "-1.5")
    number["new value"] = "'=1+1"
    invoke("review", "--import", "-", given=sheet([number, total]))
    assert decided(folder)["a.txt"].value["number"] == "=1+1"


def test_a_spreadsheet_in_another_encoding_and_with_semicolons_is_read(folder: Path) -> None:
    ask(folder)
    rows = exported()
    rows[0]["new value"] = "Ä-17"
    text = sheet(rows).replace(",", ";")
    done = invoke("review", "--import", "-", given=text.encode("cp1252"))
    assert done.stderr.startswith("standard input: its encoding is not clear: it can be read as ")
    assert done.stderr.rstrip().endswith("Save the sheet as CSV in UTF-8.")
    rows[0]["new value"] = "Müller & Söhne"
    text = sheet(rows).replace(",", ";")
    done = invoke("review", "--import", "-", given=text.encode("cp1252"))
    assert done.exit_code == 0, done.stderr
    assert decided(folder)["a.txt"].value["number"] == "Müller & Söhne"


def test_who_may_not_decide_is_refused_in_a_csv(folder: Path) -> None:
    ask(folder, by=["bob"])
    rows = exported()
    rows[0]["decision"] = "accept"
    done = invoke("review", "--import", "-", given=sheet(rows))
    assert done.stderr == (
        "-: line 2: 'ann' may not decide on 'a.txt' (step 'bill'). Its reviewers are: bob.\n"
    )
    assert invoke("review", "--import", "-", "--as", "bob", given=sheet(rows)).exit_code == 0


# --- gold data


def test_decisions_are_gold_data_with_the_models_answer(folder: Path) -> None:
    for key in ("a.txt", "b.txt", "c.txt"):
        ask(folder, key)
    rows = exported()
    rows[0]["decision"] = "accept"
    rows[4]["new value"] = "84"
    rows[6] |= {"decision": "reject", "reason": "no invoice"}
    invoke("review", "--import", "-", given=sheet(rows))
    export = invoke("review", "--export", "jsonl")
    gold = {row["item"]: row for row in map(json.loads, export.stdout.splitlines())}
    assert export.stderr == "3 decisions → jsonl.\n"
    assert [gold[key]["decision"] for key in sorted(gold)] == ["accepted", "edited", "rejected"]
    assert gold["a.txt"]["value"] == gold["a.txt"]["answer"] == ANSWER
    assert gold["b.txt"]["value"]["total"] == 84
    assert gold["b.txt"]["answer"]["total"] == 62.0
    assert (gold["c.txt"]["value"], gold["c.txt"]["reason"]) == (None, "no invoice")
    assert {row["by"] for row in gold.values()} == {"ann"}
    assert gold["a.txt"]["model"] == "clerk"


@pytest.mark.parametrize(
    ("now", "document_sha256", "result"),
    [
        (ANSWER, "same", {"a.txt": "accepted", "b.txt": "edited", "c.txt": "rejected"}),
        ({**ANSWER, "total": 7.0}, "same", {"a.txt": "edited", "b.txt": "edited"}),
        ({**ANSWER, "total": 7.0}, "other", {}),
    ],
    ids=["the same answers", "other answers", "other documents"],
)
def test_decisions_of_another_ledger_are_taken_over_for_the_same_documents(
    folder: Path, now: Any, document_sha256: str, result: dict[str, str]
) -> None:
    for key in ("a.txt", "b.txt", "c.txt"):
        ask(folder, key, document_sha256="same")
    invoke("review", "--accept-all", "--filter", "a.txt")
    rows = exported()
    rows[1]["new value"] = "84"
    rows[3] |= {"decision": "reject", "reason": "no invoice"}
    invoke("review", "--import", "-", given=sheet(rows))
    text = invoke("review", "--export", "jsonl").stdout
    assert len(text.splitlines()) == 3
    shutil.rmtree(folder / ".paddock")
    for key in ("a.txt", "b.txt", "c.txt"):
        ask(folder, key, now, document_sha256=document_sha256)
    done = invoke("review", "--import", "-", "--skip-bad", "--as", "bob", given=text)
    found = {review.subject.item: review for review in decided(folder).values()}
    assert {key: review.state for key, review in found.items()} == result
    assert {review.by for review in found.values()} <= {"ann"}, "who decided"
    assert (found["b.txt"].value["total"] == 84) if found else done.exit_code
    if len(result) < 3:
        assert "was changed meanwhile" in done.stderr


@pytest.mark.parametrize("line", ["{", '{"id": "x"}', "{}", '{"id": 1, "decision": "expired"}'])
def test_a_line_that_is_no_decision_is_told(folder: Path, line: str) -> None:
    ask(folder)
    done = invoke("review", "--import", "-", given=line)
    assert "line 1: is no decision. Import a file that" in done.stderr


# --- many in one decision


def test_all_that_are_shown_are_accepted_and_undone_as_one(folder: Path) -> None:
    sure = [ask(folder, f"sure-{n}.txt", least=0.97) for n in range(3)]
    ask(folder, "unsure.txt", least=0.62)
    ask(folder, "unknown.txt")
    held = ask(folder, "sure-held.txt", least=0.99)
    with Ledger(folder / ".paddock") as ledger:
        LedgerReviews(ledger).take_lease(held.id, "bob")
    chosen = ("--least", "0.95", "--filter", "SURE-")
    shown = json.loads(invoke("review", "--list", "--json", *chosen).stdout)["waiting"]
    assert {row["id"] for row in shown} == {*(review.id for review in sure), held.id}
    done = invoke("review", "--accept-all", *chosen)
    assert done.exit_code == 0, done.output
    assert "left: bob looks at 'sure-held.txt' (step 'bill') until" in done.stderr
    assert done.stdout.startswith("3 answers accepted as one decision: `paddock review --undo ")
    found = decided(folder)
    assert {key: review.state for key, review in found.items()} == dict.fromkeys(
        ("sure-0.txt", "sure-1.txt", "sure-2.txt"), "accepted"
    )
    (together,) = {str(review.together) for review in found.values()}
    assert {review.reason for review in found.values()} == {
        f"one of 3 that were accepted together ({together})"
    }
    assert all(reviewed_fields(review) == [] for review in found.values())  # no one looked at them
    kept = invoke("review", "--undo", together, "--json")  # it listed what waits, and undid nothing
    assert (kept.exit_code, "Leave out `--json`" in kept.stderr) == (2, True)
    undone = invoke("review", "--undo", together)
    assert undone.stdout == "Undone: 3 answers wait again.\n"
    assert decided(folder) == {}
    again = invoke("review", "--undo", together)
    assert (again.exit_code, "There is no review" in again.stderr) == (2, True)
    lost = invoke("review", "--no-browser", "--least", "0.9")
    assert "`--least` and `--filter` belong to `--list` and `--accept-all`." in lost.stderr


def test_control_characters_of_a_document_do_not_reach_the_terminal(folder: Path) -> None:
    ask(folder, document="inbox/\x1b[2Jgone.txt")
    assert "\x1b" not in invoke("review", "--list").stdout


# --- the page


def test_the_page_is_served_until_ctrl_c_and_says_what_was_decided(folder: Path) -> None:
    review = ask(folder)
    with terminal("review", "--no-browser", environ={}, cwd=folder) as screen:
        screen.wait_for("1 answer waits for review. Ctrl-C ends the page.")
        screen.wait_for("http://127.0.0.1:")
        line = screen.wait_for("It asks for this token where it was not opened for you: ")
        assert "token=" not in line  # a terminal that opens the address puts it into `ps`
        with Ledger(folder / ".paddock") as ledger:
            LedgerReviews(ledger).decide(review.id, review.question, "accept", by="ann")
        screen.type(CTRL_C)
        screen.wait_for("0 decisions here. Nothing waits for review.")
        assert screen.ended() == 0
