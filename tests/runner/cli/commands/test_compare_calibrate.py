"""`paddock compare --calibrate`: a threshold is proposed, adopted and costs no call."""

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from paddock.engine.request import ChatRequest, Pool, Reply, TokenLogprob
from paddock.engine.system.records import replace
from paddock.runner.core.calls import model_pools
from tests.fakes.pool import FakePool
from tests.runner.cli.commands.test_compare import compare
from tests.runner.compare.bills import BILLS, N_BILLS, Bills, clerk

TEXT = BILLS.replace(
    "  clerk: {ref: small, ctx: 2k}   # the clerk\n",
    "  clerk: {ref: small, ctx: 2k}   # the clerk\n  boss: {ref: big, ctx: 2k}\n",
).replace(
    "          evidence: steps.text\n        review: {when: evidence.missing}\n",
    "          evidence: steps.text\n          confidence: true\n"
    "        escalate: {to: boss, when: confidence.min < 0.99 or evidence.missing}   # how sure\n",
)
GOAL = "target=0.8,delta=0.2"


class SurePool(FakePool):
    """A pool whose model `small` is 0.4 sure of the kind of a bill that it gets wrong, else 0.9."""

    async def _reply(self, request: ChatRequest) -> Reply:
        reply = await super()._reply(request)
        at = reply.text.index('"kind": "') + len('"kind": "')
        n = int(json.loads(reply.text)["number"].partition("-")[2])
        p = 0.4 if request.model.ref == "small" and n % 2 else 0.9
        tokens = [TokenLogprob(char.encode(), 0.0) for char in reply.text]
        chosen, other = reply.text[at], "t" if reply.text[at] == "f" else "f"
        top = [(token.encode(), math.log(q)) for token, q in ((chosen, p), (other, 1 - p))]
        tokens[at] = TokenLogprob(chosen.encode(), math.log(p), top)
        return replace(reply, logprobs=tuple(tokens))


@pytest.fixture
def bills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bills:
    bills = Bills(tmp_path / "bills", TEXT)

    @asynccontextmanager
    async def opened(*_: Any) -> AsyncIterator[Pool]:
        yield bills.made

    bills.made = SurePool(answer=clerk)
    monkeypatch.setattr(model_pools._PoolOpener, "default", opened)
    monkeypatch.chdir(bills.folder)
    monkeypatch.setenv("PADDOCK_HOME", str(tmp_path / "home"))
    return bills


def test_a_threshold_is_proposed_by_gold_and_costs_each_call_once(bills: Bills) -> None:
    done = compare(".", "--calibrate", GOAL)
    assert done.exit_code == 0, done.output
    assert (
        "Proposed: `when: confidence.min < 0.41 or evidence.missing`. It agrees with at least 0.8 "
        "with probability 0.8, on documents of which these are a random sample; on these 20 it is "
        "1.000, and 10 (50%) are escalated."
    ) in done.stdout
    assert "C   bill.escalate.when=confidence.min < 0.41 or evidence.missing   1.00" in done.stdout
    assert [request.model.ref for request in bills.made.chats] == ["small"] * N_BILLS + [
        "big"
    ] * N_BILLS


def test_without_gold_the_larger_model_is_right(bills: Bills) -> None:
    bills.edit("gold: {from: gold.csv, key: doc.relpath, metrics: {total: {number: 0.01}}}\n", "")
    done = compare(".", "--calibrate", GOAL, "--json")
    comparison = json.loads(done.stdout)
    assert comparison["gold"] == {"from": "what 'boss alone' says", "items": N_BILLS}
    assert comparison["threshold"] == {
        "target": 0.8, "delta": 0.2, "when": "confidence.min < 0.41 or evidence.missing",
        "agreement": 1.0, "items": 20, "escalated": 10,
    }  # fmt: skip


def test_what_cannot_be_promised_is_a_sentence_below_the_figures(bills: Bills) -> None:
    done = compare(".", "--calibrate", "target=0.95,delta=0.05")
    assert done.exit_code == 1
    assert (
        "20 items with a known answer cannot show an agreement of 0.95 with probability 0.95: it "
        "takes 59, even where all agree."
    ) in done.stdout
    assert "boss alone" in done.stdout
