"""The sides of what is killed: a person who decides, or runs that continue what was decided."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddock.engine.request import ChatRequest
from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews.reviews import DecisionRefused, Review
from paddock.runner.review.decisions import LedgerReviews, Verb
from tests.fakes.pool import FakePool
from tests.runner.world import World, each_document

BILLS = each_document("""\
      - id: bill
        uses: chat
        with: {prompt: "{{ steps.text.text }}"}
        reply: {schema: {number: str}}
        review: {}
      - uses: files.write
        with: {path: "out/{{ doc.stem }}", text: "{{ steps.bill.output.number }}"}
""")


def answer(request: ChatRequest) -> str:
    return json.dumps({"number": request.messages[-1].content.split()[0]})


def choice(review: Review) -> tuple[Verb, Any, str]:
    """Return the decision on an item: the same each time."""
    number = int(review.key.removesuffix(".txt"))
    kinds: tuple[Verb, ...] = ("accept", "edit", "reject")
    verb = kinds[number % 3]
    return verb, {"number": f"edited-{number}"} if verb == "edit" else None, "no" * (number % 3 > 1)


def noted(folder: Path) -> list[Mapping[str, str]]:
    """Return what people were told is decided; the last line may be cut short by a kill."""
    file = folder / "decided"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def decide(folder: Path) -> None:
    """Decide on whatever waits, and write down each decision once it is said to be durable."""
    with Ledger(folder / ".paddock") as ledger, (folder / "decided").open("a") as log:
        log.write("\n")  # after a line that a kill has cut short
        reviews = LedgerReviews(ledger)
        while True:
            for review in reviews.waiting():
                verb, value, reason = choice(review)
                try:
                    done = reviews.decide(
                        review.id, review.question, verb, value, reason=reason, by="ann"
                    )
                except DecisionRefused:
                    continue
                line = {"id": done.id, "question": done.question, "state": done.state}
                log.write(json.dumps(line) + "\n")
                log.flush()
                os.fsync(log.fileno())
            time.sleep(0.01)


def run(folder: Path) -> None:
    world = World(folder, BILLS)
    while True:
        world.run(pool=FakePool(answer=answer, delay_s=0.005))
