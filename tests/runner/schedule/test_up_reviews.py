"""`paddock up` continues an item as soon as it is decided, wherever that was."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import httpx
import pytest

from paddock.runner.ledger.ledger import Ledger
from paddock.runner.review.decisions import LedgerReviews
from tests.fakes.clerk import Clerk, Said, clerk, pipeline
from tests.runner.schedule.up_process import UpFolder
from tests.waiting import PATIENCE_S

API = "/review/api"
NAMES = ("rope", "sail", "mast")
ON = "on: {webhook: [{path: /bills}]}\nmodels:"


def answer_with(number: str) -> Said:
    bill = {"number": number, "total": 84.5, "pay_by": "2026-01-31"}
    return Said(bill, {"total": (0.5, "84.0")})


@pytest.fixture
def model() -> Iterator[Clerk]:
    with clerk({name: answer_with(name) for name in NAMES}) as served:
        yield served


@pytest.fixture
def up(up: UpFolder, model: Clerk) -> UpFolder:
    made = up
    made.environ["PADDOCK_ALLOW"] = "network"
    made.write("bills/pipeline.yaml", pipeline(model.url).replace("models:", ON, 1))
    for name in NAMES:
        text = f"Invoice {name}\nTotal 84.50\nPay by 2026-01-31\n"
        made.write(f"bills/inbox/{name}.txt", text)
    return made


def rows(page: httpx.Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.get(f"{API}/queue").json()["rows"]
    return found


def table(up: UpFolder) -> dict[str, float]:
    """Return the totals of the table."""
    rows = json.loads(up.output("bills", "all.json") or "[]")
    return {row["file"]: row["bill"]["total"] for row in rows}


def test_a_decision_anywhere_continues_its_item_at_once(up: UpFolder, model: Clerk) -> None:
    up.start()
    token = (up.folder.parent / "home/review.token").read_text().strip()
    assert f"{up.url}/review shows what waits for review" in up.log_text()
    assert up.post("/bills", b"{}", {})[0] == 202
    with httpx.Client(base_url=up.url, trust_env=False, verify=False, timeout=PATIENCE_S) as page:
        refused = page.get(f"{API}/queue")
        assert (refused.status_code, "review.token" in refused.json()["error"]) == (401, True)
        assert page.get("/review", params={"token": token}).status_code == 303
        up.until(lambda: len(rows(page)) == 3)
        assert "/bills" in page.get("/ui/pipelines").text
        by_item = {row["item"]: row for row in rows(page)}
        n_asked = len(model.asked)
        rope = by_item["rope.txt"]["id"]
        question = page.get(f"{API}/reviews/{rope}").json()["question"]
        decision = {"question": question, "verb": "edit", "changes": {"total": "85.00"}}
        assert page.post(f"{API}/reviews/{rope}/decide", json=decision).status_code == 200
        written = up.until(lambda: up.output("bills", "rope.txt.json"))
        assert json.loads(str(written))["total"] == 85.0
        with Ledger(up.folder / "bills/.paddock") as ledger:  # another process
            sail = LedgerReviews(ledger).get(by_item["sail.txt"]["id"].rpartition("-")[2])
            LedgerReviews(ledger).decide(sail.id, sail.question, "accept", by="ben")
        written = up.until(lambda: up.output("bills", "sail.txt.json"))
        assert json.loads(str(written))["total"] == 84.5
        assert [row["item"] for row in rows(page)] == ["mast.txt"]
    assert len(model.asked) == n_asked
    assert up.output("bills", "mast.txt") is None
    assert up.log_text().count("has begun (review)") == 2

    def has_begun(times: int) -> bool:
        return up.log_text().count("has begun (review)") == times

    def is_in_the_table(total: float) -> bool:
        return table(up).get("sail.txt") == total

    for n, total in enumerate((86.0, 87.0)):  # corrected while `up` looks on
        with Ledger(up.folder / "bills/.paddock") as ledger:
            LedgerReviews(ledger).undo(sail.id, "ben")
        up.until(partial(has_begun, 3 + 2 * n))
        up.until(lambda: table(up) == {"rope.txt": 85.0})
        with Ledger(up.folder / "bills/.paddock") as ledger:
            answer = {"number": "sail", "total": total, "pay_by": "2026-01-31"}
            LedgerReviews(ledger).decide(sail.id, sail.question, "edit", answer, by="ben")
        up.until(partial(is_in_the_table, total))
        assert json.loads(str(up.output("bills", "sail.txt.json")))["total"] == total
    n_begun = up.log_text().count("has begun (review)")
    assert (n_begun, len(model.asked)) == (6, n_asked)
    up.stop()
    up.start()  # nothing is decided since, so nothing is run again
    assert up.post("/bills", b'{"again": 1}', {})[0] == 202
    up.until(lambda: up.log_text().count("has begun (webhook") == 2)
    assert up.log_text().count("has begun (review)") == n_begun
