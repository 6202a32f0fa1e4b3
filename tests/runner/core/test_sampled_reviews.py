"""`review.also`: a random share of sure answers is asked about; figures say what they are of."""

import json
import random
from pathlib import Path

import pytest

from paddock.engine.system.item_samples import SEED, draw
from paddock.engine.system.records import replace
from paddock.pipelines.errors import PipelineError
from paddock.runner.calibration.confidence_calibration import (
    CalibrationKey,
    DecidedAnswer,
    DecidedField,
    ReviewSampling,
    StepCalibration,
)
from paddock.runner.calibration.isotonic_fit import reliability
from paddock.runner.review.csv_and_gold_data import gold_jsonl
from tests.runner.core.test_waiting import BILLS, Bills
from tests.runner.world import reasons

SHARE = 0.2
NAMES = [f"{number:02}" for number in range(40)]
KEY = CalibrationKey("p", "bill", "m", "q", "s")


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


# --- what figures are made of


def answer(
    number: int, *, is_right: bool, is_sampled: bool, is_in_doubt: bool = False
) -> DecidedAnswer:
    fields = (DecidedField(("total",), 0.97, is_right),)
    return DecidedAnswer(
        ("s", str(number)), f"d{number}", fields, is_sampled, is_in_doubt or not is_sampled
    )


def decided_population(
    seed: int, n_documents: int = 4_000, decided: tuple[float, float] = (1, 1)
) -> tuple[StepCalibration, float]:
    """Return the table of one population, and the share of it that was really right.

    A tenth of its documents is in doubt, and of these 60 % are right; of the others 98 %, and 5 %
    are asked about. `decided`: how much of both kinds is.
    """
    chance = random.Random(seed)
    found, n_right, n_open = [], 0, [0, 0]
    for number in range(n_documents):
        is_doubtful = chance.random() < 0.1
        is_right = chance.random() < (0.6 if is_doubtful else 0.98)
        n_right += is_right
        if is_doubtful or chance.random() < 0.05:
            if chance.random() < decided[not is_doubtful]:
                found.append(answer(number, is_right=is_right, is_sampled=not is_doubtful))
            else:
                n_open[not is_doubtful] += 1
    return table(found, ReviewSampling(0.05, *n_open)), n_right / n_documents


def table(answers: list[DecidedAnswer], sampling: ReviewSampling) -> StepCalibration:
    return StepCalibration(KEY, "m", 0.0, tuple(answers), sampling=sampling)


@pytest.mark.parametrize("decided", [(1, 1), (1, 0.4)])
def test_weights_make_the_share_that_was_right_that_of_all_answers(
    decided: tuple[float, float],
) -> None:
    weighted, plain, n_within = 0.0, 0.0, 0
    for seed in range(60):
        made, truth = decided_population(seed, decided=decided)
        (row,) = made.fits.own["total",].rows
        weighted += row.share - truth
        plain += row.n_right / row.n - truth
        n_within += row.interval[0] <= truth <= row.interval[1]
    assert abs(weighted / 60) < 0.011
    assert plain / 60 < -0.08  # what all decisions alike would say
    assert n_within >= 52  # 95 % of 60, less three standard deviations


def test_a_table_says_of_which_answers_it_is() -> None:
    made, _ = decided_population(1)
    n_sampled = sum(answer.is_sampled for answer in made.answers)
    assert made.basis == (
        f"of all answers: {len(made.answers) - n_sampled} answers in doubt, and {n_sampled} of a "
        "random 5% of the others, which count for as many as they stand for"
    )
    doubtful = [answer for answer in made.answers if not answer.is_sampled]
    assert table(doubtful, made.sampling).basis == (
        "of answers in doubt alone, which are wrong more often than the others"
    )
    partly = table([*made.answers], ReviewSampling(0.05, n_open_sampled=40))
    assert f"of the others ({n_sampled} of {n_sampled + 40} decided), which" in partly.basis


def test_a_few_sampled_answers_say_less_than_as_many_of_equal_weight() -> None:
    even = [(0.95, True)] * 20
    (alike,) = reliability(even)
    answers = [answer(n, is_right=True, is_sampled=n < 1) for n in range(20)]
    answers[0] = replace(answers[0], weight=20.0)
    (uneven,) = reliability(field for each in answers for _, field in each.weighted_fields())
    assert (uneven.n, uneven.n_right) == (20, 20)
    assert uneven.interval[0] < alike.interval[0]
    assert uneven.bounds.endswith("too few to calibrate")
