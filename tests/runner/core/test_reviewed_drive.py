"""Sixty letters reviewed by a person through the commands: what confidence is worth afterwards."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from paddock.runner.cli.application import application
from tests.fakes.clerk import Clerk, Said, clerk, pipeline

N_LETTERS = 60
RAW = (0.55, 0.57, 0.93, 0.95, 0.97)


def paddock(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(application(arguments[0]), list(arguments))
    assert result.exit_code == status, result.output
    return result.output


def is_right(number: int) -> bool:
    """Totals near 0.56 are right in half of the letters, those near 0.95 in five of six."""
    return number % 20 in (0, 5, 6, 10) if RAW[number % 5] < 0.6 else number % 10 != 4


def true_answer(number: int) -> dict[str, Any]:
    return {"number": f"R-{number}", "total": 100.0 + number, "pay_by": "2026-01-31"}


class Letters:
    """A folder with letters, the clerk who reads them, and a person who reviews all answers."""

    def __init__(self, folder: Path, model: Clerk) -> None:
        self.folder, self.model = folder, model
        (folder / "inbox").mkdir()
        text = pipeline(model.url, '{when: "true"}')
        self.write(text.replace("steps.bill.output | tojson", "steps.bill.confidence | tojson"))

    def write(self, text: str) -> None:
        (self.folder / "bills.yaml").write_text(text)

    def edit(self, old: str, new: str) -> None:
        text = (self.folder / "bills.yaml").read_text()
        assert old in text
        self.write(text.replace(old, new))

    def receive(self, number: int, raw: float, *, right: bool = True) -> None:
        truth = true_answer(number)
        facts = f"Letter <{number}>: R-{number}, {truth['total']}, 2026-01-31\n"
        (self.folder / "inbox" / f"{number}.txt").write_text(facts)
        answer = truth if right else {**truth, "total": 1.0}
        self.model.answers[f"<{number}>"] = Said(answer, {"total": (raw, "7.0")})

    def run(self, status: int = 0) -> str:
        return paddock("run", "bills.yaml", "--local", "--allow", "network", status=status)

    def review(self) -> int:
        """Accept what is right and correct what is wrong, in the table that a person fills in."""
        paddock("review", "--export", "open.csv")
        with (self.folder / "open.csv").open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            number = int(Path(row["document"]).stem)
            truth = str(true_answer(number)[row["field"]])
            row["decision"] = "accept" if row["value"] == truth else ""
            row["new value"] = "" if row["value"] == truth else truth
        with (self.folder / "open.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
        paddock("review", "--import", "open.csv", "--as", "ann")
        return len({row["id"] for row in rows})

    def confidence(self, number: int) -> Any:
        return json.loads((self.folder / "out" / f"{number}.txt.json").read_text())


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Letters]:
    folder = tmp_path_factory.mktemp("letters")
    with pytest.MonkeyPatch.context() as patch, clerk({}) as model:
        patch.setenv("PADDOCK_HOME", str(tmp_path_factory.mktemp("home")))
        patch.chdir(folder)
        letters = Letters(folder, model)
        for number in range(N_LETTERS):
            letters.receive(number, RAW[number % 5], right=is_right(number))
        letters.run()
        assert letters.review() == N_LETTERS
        letters.run()
        yield letters


@pytest.fixture(scope="module")
def new(letters: Letters) -> dict[float, Any]:
    """Return the confidence of new letters' totals by the probability that the model had."""
    raws = (0.3, 0.56, 0.75, 0.91, 0.95, 0.999)
    for number, raw in enumerate(raws, start=100):
        letters.receive(number, raw)
    letters.run()
    letters.review()
    output = letters.run()
    assert "no longer count" not in output
    return {raw: letters.confidence(number)["total"] for number, raw in enumerate(raws, start=100)}


def test_new_answers_have_the_share_that_was_right(new: dict[float, Any]) -> None:
    right = {n: [is_right(m) for m in range(N_LETTERS) if RAW[m % 5] == n] for n in RAW}
    low, high = [*right[0.55], *right[0.57]], right[0.95]
    assert (sum(low), len(low), sum(high), len(high)) == (12, 24, 12, 12)
    assert new[0.56]["p"] == pytest.approx(0.5, abs=0.1)
    # It never falls: totals at 0.97 were right in 6 of 12 letters, so these count for 0.95 too.
    assert new[0.95]["p"] == pytest.approx(30 / 36, abs=0.02)
    assert [new[raw]["is_calibrated"] for raw in (0.56, 0.95)] == [True, True]


def test_no_letter_counts_for_its_own_confidence(letters: Letters, new: dict[float, Any]) -> None:
    """Of the totals at 0.55 and 0.57 twelve of 24 were right: without a right one, 11 of 23."""
    own = [letters.confidence(number) for number in range(N_LETTERS) if is_right(number)]
    totals = [confidence["total"] for confidence in own if confidence["total"]["raw"] < 0.6]
    assert {(total["p"], total["is_calibrated"]) for total in totals} == {(round(11 / 23, 4), True)}


def test_a_plan_escalates_by_the_confidence_that_decisions_give(
    letters: Letters, new: dict[float, Any]
) -> None:
    text = (letters.folder / "bills.yaml").read_text()
    larger = f'models:\n  larger: {{ref: clerk, ctx: 4096, pool: {{url: "{letters.model.url}"}}}}'
    escalated = "escalate: {to: larger, when: confidence.total.p < 0.9}\n        review:"
    letters.write(text.replace("models:", larger).replace("review:", escalated))
    told = json.loads(paddock("plan", "bills.yaml", "--json"))
    assert told["calls"] >= 60, "those at 0.93 and above too, which were right in 30 of 36 letters"
    letters.write(text)
