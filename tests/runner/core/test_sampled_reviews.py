"""`review.also`: a random share of sure answers is asked about; figures say what they are of."""

import json
from pathlib import Path

import pytest

from paddock.engine.system.item_samples import SEED, draw
from paddock.pipelines.errors import PipelineError
from paddock.runner.review.csv_and_gold_data import gold_jsonl
from tests.runner.core.test_waiting import BILLS, Bills
from tests.runner.world import reasons

SHARE = 0.2
NAMES = [f"{number:02}" for number in range(40)]


def drawn(share: float) -> set[str]:
    return {f"{name}.txt" for name in NAMES if draw(SEED, f"review\nbill\n{name}.txt") < share}


@pytest.fixture
def bills(tmp_path: Path) -> Bills:
    text = BILLS.replace('when: "output.total > 50"', 'when: "output.total > 50", also: 20%')
    bills = Bills(tmp_path, text)
    bills.bills(**{name: 60 if name in ("00", "01") else 5 for name in NAMES})
    return bills


def test_a_random_share_of_sure_answers_is_asked_about_and_marked(bills: Bills) -> None:
    report = bills.work()
    waiting = bills.waiting()
    assert set(waiting) == drawn(SHARE) | {"00.txt", "01.txt"}
    assert report.counts["waiting"] == len(waiting)
    assert {key for key, review in waiting.items() if review.subject.is_sampled} == drawn(SHARE) - {
        "00.txt",
        "01.txt",
    }
    doubtful, sampled = waiting["00.txt"], waiting[min(drawn(SHARE) - {"00.txt", "01.txt"})]
    assert (doubtful.subject.is_sampled, doubtful.subject.share) == (False, SHARE)
    assert sampled.subject.due == ("A random check: 20% of those that are sure",)
    bills.write("inbox/99.txt", "bill 99\ntotal 1\n")
    bills.work()
    assert set(bills.waiting()) - {"99.txt"} == set(waiting)


def test_what_was_decided_of_the_share_is_told_in_the_gold_data(bills: Bills) -> None:
    bills.work()
    for key in bills.waiting():
        bills.decide(key, "accept")
    with bills.reviews() as reviews:
        rows = [
            json.loads(line) for line in gold_jsonl(reviews.decided(is_whole=True)).splitlines()
        ]
    marks = {row["item"]: (row["is_sampled"], row["share"]) for row in rows}
    assert marks["00.txt"] == (False, SHARE)
    assert sum(is_sampled for is_sampled, _ in marks.values()) == len(marks) - 2
    report = bills.work()
    assert (report.calls, report.counts.get("waiting", 0)) == (0, 0)


def test_a_random_check_is_not_accepted_together_with_others_unseen(bills: Bills) -> None:
    bills.work()
    with bills.reviews() as reviews:
        questions = [(review.id, review.question) for review in reviews.waiting()]
        done = reviews.accept_together(questions, "ann")
    assert {review.key for review in done.reviews} == {"00.txt", "01.txt"}
    assert set(done.left.values()) == {
        f"'{key}' (step 'bill') is a random check, which a person has to look at."
        for key in drawn(SHARE) - {"00.txt", "01.txt"}
    }
    assert set(bills.waiting()) == drawn(SHARE) - {"00.txt", "01.txt"}


def test_a_share_that_changes_asks_about_more_at_no_call(bills: Bills) -> None:
    bills.work()
    before = set(bills.waiting())
    bills.edit("also: 20%", "also: 50%")
    assert set(reasons(bills.plan()).values()) == {"`review.also` changed (step 'bill')"}
    assert bills.work().calls == 0
    assert set(bills.waiting()) == before | drawn(0.5)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("also: 0%", "'also' must be more than 0; it is '0%'."),
        ("also: 0.05", "'also' must be a percentage such as 50%; it is '0.05'."),
        ("also: 120%", "'also' must be a percentage such as 50%; it is '120%'."),
        (
            "when: true, also: 5%",
            "`when: true` asks about every answer; remove `also`, or change `when`",
        ),
    ],
)
def test_a_share_that_cannot_be_is_a_fault(bills: Bills, written: str, words: str) -> None:
    bills.edit('when: "output.total > 50", also: 20%', written)
    with pytest.raises(PipelineError) as caught:
        bills.work()
    assert words in str(caught.value)
