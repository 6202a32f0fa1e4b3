"""`escalate`: the small model first, the larger one where it is not sure; each is loaded once."""

import json
import multiprocessing
import os
import re
import signal
import time
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.errors import Busy
from paddock.engine.request import ChatRequest
from paddock.engine.system.item_samples import SEED, draw
from paddock.pipelines.errors import PipelineError
from paddock.runner.cli.plan_text import plan_text
from paddock.runner.core.run_records import read_lineage
from paddock.runner.ledger.lineage_store import LineageStore
from tests.fakes.pool import FakePool
from tests.runner.bind.pipeline_faults import sentences
from tests.runner.world import ReviewedWorld, each_document, reasons, states

BILLS = """\
name: bills
models: {clerk: {ref: small}, boss: {ref: big, params: {temperature: 0.1}}}
""" + each_document("""\
      - id: bill
        uses: chat
        with: {model: clerk, prompt: "Read: {{ steps.text.text }}"}
        reply: {schema: {number: str, total: float}, check: ["output.total < 1000"], repair: 0}
        escalate: {to: boss, when: "output.total > 50 or output.number == '?'"}
    returns: {n: steps.bill.output.number, total: steps.bill.output.total,
              told: steps.bill.escalated}
  - uses: files.write
    with: {path: out/ALL, text: "{{ steps.each.results | tojson }}"}
""")


def answer_to(request: ChatRequest) -> str:
    """Answer rightly as `big`; `small` is off by one above 50, and knows no number of bill `x`."""
    text = request.messages[-1].content
    number = re.findall(r"bill (\S+)", text)[-1]
    total = float(re.findall(r"total (\S+)", text)[-1])
    if request.model.ref == "small":
        total += total > 50
        number = "?" if number == "x" else number
    return json.dumps({"number": number, "total": total})


class Bills(ReviewedWorld):
    """Documents `a.txt` …, and what was asked of which model, in order."""

    def bills(self, **totals: float) -> None:
        for name, total in totals.items():
            self.write(f"inbox/{name}.txt", f"bill {name}\ntotal {total}\n")

    def add_step(self, step: str, returns: str = "") -> None:
        """Add a step behind `bill`, and what the block returns of it."""
        self.edit("    returns: {n:", f"      {step}\n    returns: {{{returns}n:")

    def work(self, **options: Any) -> Any:
        return self.run(pool=options.pop("pool", None) or FakePool(answer=answer_to), **options)

    @property
    def models_called(self) -> list[str]:
        return [request.model.ref for request in self.pool.chats]

    @property
    def n_swaps(self) -> int:
        """How often another model than before was asked."""
        return len(list(groupby(self.models_called)))

    def results(self) -> dict[str, Any]:
        return {result["n"]: result for result in json.loads(self.output("ALL"))}

    def totals(self) -> dict[str, float]:
        return {name: result["total"] for name, result in self.results().items()}

    def calls_of(self, item: str) -> Any:
        """Return what the ledger has of the step `bill` of an item, and its calls."""
        with self.ledger() as ledger:
            ((scope,),) = ledger.rows("select scope from scopes where step = 'each'")
            made = LineageStore(ledger).of_scope(str(scope))[item]
            (bill,) = [step for step in read_lineage(made).steps if step.id == "bill"]
            return bill, [ledger.call(call.hash) for call in bill.calls]


@pytest.fixture
def bills(tmp_path: Path) -> Bills:
    world = Bills(tmp_path, BILLS)
    world.bills(a=10, b=60, c=70, x=5)
    return world


def test_the_larger_model_answers_where_the_condition_holds(bills: Bills) -> None:
    report = bills.work()
    assert states(report) == dict.fromkeys(("a.txt", "b.txt", "c.txt", "x.txt"), "new")
    assert bills.totals() == {"a": 10, "b": 60, "c": 70, "x": 5}
    found = bills.results()
    assert found["a"]["told"] is None
    assert found["b"]["told"] == {
        "to": "boss", "why": ["Total: 61"],
        "was": {"number": "b", "total": 61.0},
    }  # fmt: skip
    assert (report.calls, report.cached_calls) == (7, 0)


def test_the_larger_model_is_asked_the_same_with_its_own_parameters(bills: Bills) -> None:
    bills.work()
    requests = [chat for chat in bills.pool.chats if "bill b" in chat.messages[-1].content]
    small, big = ([chat for chat in requests if chat.model.ref == ref] for ref in ("small", "big"))
    assert [request.messages for request in small] == [request.messages for request in big]
    assert big[0].model.params == {"temperature": 0.1}


def test_what_other_models_are_asked_behind_it_waits_for_a_pass_of_its_own(bills: Bills) -> None:
    asks = 'prompt: "Sum: {{ steps.bill.text }} bill q total 1"'
    bills.add_step(
        f"- {{id: sum, uses: chat, with: {{model: clerk, {asks}}}}}", "s: steps.sum.text, "
    )
    bills.bills(**{f"n{number}": number for number in range(45, 60)})
    report = bills.work()
    assert bills.n_swaps == 3
    assert report.calls == len(bills.pool.chats) == 19 + 12 + 19
    assert len(bills.results()) == 19


@pytest.mark.parametrize("options", [{"force": ["bill"]}, {"force": ["bill"], "no_cache": True}])
def test_a_forced_run_asks_each_model_once_for_an_item(
    bills: Bills, options: dict[str, Any]
) -> None:
    bills.work()
    report = bills.work(**options)
    assert sorted(bills.models_called) == ["big"] * 3 + ["small"] * 4
    assert bills.n_swaps == 2
    assert report.calls == 7


def test_another_condition_asks_nothing_that_is_known(bills: Bills) -> None:
    bills.work()
    bills.edit("output.total > 50 or", "output.total > 65 or")
    report = bills.work()
    assert set(reasons(report).values()) == {"`escalate` changed (step 'bill')"}
    assert (report.calls, bills.models_called) == (0, [])
    assert bills.totals() == {"a": 10, "b": 61, "c": 70, "x": 5}
    bills.edit("output.total > 65 or", "output.total > 5 or")
    report = bills.work()
    assert bills.models_called == ["big"]
    assert bills.results()["a"]["told"]["was"] == {"number": "a", "total": 10}


def test_an_answer_that_fails_its_checks_is_escalated(bills: Bills) -> None:
    def answer(request: ChatRequest) -> str:
        is_small = request.model.ref == "small" and "bill a" in request.messages[-1].content
        return '{"number": "a", "total": 5000}' if is_small else answer_to(request)

    report = bills.work(pool=FakePool(answer=answer))
    assert report.exit_status() == 0
    assert bills.results()["a"]["told"] == {
        "to": "boss", "why": ["its answer failed its checks"], "was": None,
    }  # fmt: skip
    assert "escalated to 'boss', since its answer failed its checks" in "\n".join(report.notes)


def test_a_larger_model_that_cannot_be_used_quarantines_no_small_answer(
    bills: Bills, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paddock.runner.core.failures._DEFAULT_GROWTH", 0.01)

    def answer(request: ChatRequest) -> str:
        if request.model.ref == "big":
            raise Busy.of("big", 3)
        return answer_to(request)

    report = bills.work(pool=FakePool(answer=answer))
    assert states(report)["a.txt"] == "new"
    assert states(report)["b.txt"] in ("failed", "quarantined")
    assert set(bills.results()) == {"a"}
    report = bills.work()
    assert sorted(bills.models_called) == ["big"] * 3


def test_lineage_names_the_model_that_answered_and_both_calls(bills: Bills) -> None:
    bills.work()
    bill, rows = bills.calls_of("b.txt")
    assert bill.model == "big"
    assert [row.model for row in rows if row is not None] == ["small", "big"]


SUMMARY = """\
name: sums
models: {clerk: small, boss: big}
""" + each_document("""\
      - id: sum
        uses: summarise
        with: {model: clerk, text: "{{ steps.text.text }}"}
        escalate: {to: boss, when: "'unsure' in text"}
    returns: {n: doc.relpath, text: steps.sum.text}
  - id: whole
    uses: reduce
    with: {model: clerk, over: "{{ steps.each.results }}", prompt: Combine these.}
    escalate: {to: boss, when: "'unsure' in text"}
  - {uses: files.write, with: {path: out/ALL, text: "{{ steps.each.results | tojson }}"}}
  - {uses: files.write, with: {path: out/WHOLE, text: "{{ steps.whole.text }}"}}
""")


def test_summarise_and_reduce_escalate_as_well(tmp_path: Path) -> None:
    bills = Bills(tmp_path, SUMMARY)
    bills.bills(a=1, b=2)
    pool = FakePool(
        answer=lambda request: (
            "I am unsure." if request.model.ref == "small" else f"surely {request.model.ref}"
        )
    )
    bills.work(pool=pool)
    assert [result["text"] for result in bills.results().values()] == ["surely big"] * 2
    assert bills.output("WHOLE") == "surely big"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("to: boss", "to: clerk", "`escalate.to`: 'clerk' is the model that step 'bill' has. "
         "Name a larger one."),
        ("to: boss", "to: bos", "step 'bill' asks for model 'bos', which is not under `models`."),
        ("output.total > 50 or", "confidence.min < 0.8 or", "`escalate.when` reads `confidence`, "
         "which this step does not have. Add `confidence: true` under `reply`."),
        ("output.total > 50 or", "output.totl > 50 or", "`escalate.when`: `output` has no field "
         "'totl'."),
        ("escalate: {to: boss, when:", "escalate: {when:", "the key 'to' is missing here."),
        ("uses: chat", "uses: agent", "step 'agent' cannot `escalate`: no other model can be asked "
         "the same. 'chat', 'decide', 'reduce' and 'summarise' without `how: extract` can."),
        ("escalate: {to: boss, when:", "review: {when: 'true'}\n        escalate: {to: boss, when:",
         "step 'bill' has `review`, so that no larger model is asked. Remove `escalate`; "
         "`review: {when: unsure}` asks what no decision tells."),
        ("escalate: {to: boss, when:", "escalate: {to: boss, also: 2%, target: 0.9, when:",
         "unknown key 'target'. Compare thresholds by `paddock compare --set STEP.escalate.when="),
    ],
)  # fmt: skip
def test_what_cannot_be_escalated_is_a_sentence(
    bills: Bills, old: str, new: str, fault: str
) -> None:
    bills.edit(old, new)
    with pytest.raises(PipelineError) as error:
        bills.work()
    assert fault in " ".join(sentences(error.value.faults))


def test_a_plan_counts_the_calls_of_both_models(bills: Bills) -> None:
    planned = bills.plan()
    assert (planned.calls, planned.calls_are, planned.loads) == (8, "at most", 2)
    assert planned.models == {"small": 4, "big": 4}
    assert planned.least_models == {"small": 4}
    assert "4 to 8 model calls (4 of small, at most 4 of big)" in plan_text(planned)
    bills.work()
    assert bills.plan().calls == 0
    bills.edit("output.total > 50 or", "output.total > 9 or")
    planned = bills.plan()
    assert (planned.calls, planned.calls_are, planned.models) == (1, "exact", {"big": 1})
    report = bills.work()
    assert report.calls == 1


def test_a_random_share_of_the_other_answers_is_asked_as_well(bills: Bills) -> None:
    bills.edit("output.number == '?'\"}", "output.number == '?'\", also: 20%}")
    names = [f"n{number:03}" for number in range(60)]
    bills.bills(**dict.fromkeys(names, 5))
    drawn = {name for name in names if draw(SEED, f"escalate\nbill\n{name}.txt") < 0.2}
    report = bills.work()
    found = bills.results()
    checked = {name for name in names if found[name]["told"] is not None}
    assert checked == drawn
    assert all(found[name]["told"]["why"] == ["a random check"] for name in drawn)
    notes = "\n".join(report.notes)
    n_checked = len(drawn) + (draw(SEED, "escalate\nbill\na.txt") < 0.2)
    assert f"'bill': {n_checked} answers asked of 'boss' as well, as a random check" in notes
    bills.edit("also: 20%", "also: 30%")
    report = bills.work()
    assert set(reasons(report).values()) == {"`escalate.also` changed (step 'bill')"}
    assert set(bills.models_called) == {"big"}


def _n_recorded(folder: Path) -> int:
    with Bills(folder, BILLS).ledger() as ledger:
        ((n,),) = ledger.rows("select count(*) from calls")
    return int(n)


def run_until_the_larger_model_is_asked(folder: Path) -> None:
    """Run the bills; `kill -9` this process as the second pass begins."""

    def answer(request: ChatRequest) -> str:
        if request.model.ref == "big":
            while _n_recorded(folder) < 4:  # by another thread
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return answer_to(request)

    Bills(folder, BILLS).run(pool=FakePool(answer=answer))


def test_a_run_that_is_killed_between_the_passes_asks_the_larger_model_alone(bills: Bills) -> None:
    killed = multiprocessing.get_context("spawn").Process(
        target=run_until_the_larger_model_is_asked, args=(bills.folder,)
    )
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    report = bills.work()
    assert (bills.models_called, report.calls) == (["big"] * 3, 3)
    assert bills.totals() == {"a": 10, "b": 60, "c": 70, "x": 5}

    notes = "\n".join(report.notes)
    assert "'bill': 2 answers escalated to 'boss', since output.total > 50" in notes
    assert bills.work().counts == {"fresh": 4}
