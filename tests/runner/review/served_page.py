"""A ledger with questions, and the review page over it in a thread."""

import asyncio
import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from paddock.runner.ledger.ledger import Ledger
from paddock.runner.ledger.reviews.review_store import ReviewStore
from paddock.runner.ledger.reviews.reviews import Question, Review, Subject, review_id
from paddock.runner.review.decisions import LedgerReviews
from paddock.runner.review.page_server import ReviewPageOptions, serve_pages
from tests.waiting import PATIENCE_S

SCHEMA = {
    "type": "object",
    "properties": {
        "number": {"type": "string", "description": "As printed at the top."},
        "total": {"type": "number"},
        "kind": {"enum": ["invoice", "credit note"]},
        "pay_by": {"type": ["string", "null"], "format": "date"},
    },
    "required": ["number", "total", "kind", "pay_by"],
    "additionalProperties": False,
}
TEXT = "Harbour Supplies\nInvoice R-1042\n\nRope, 12 m\nTotal 84.50 EUR\nPay by 2026-01-31\n"


def quote(text: str, words: str, **fields: Any) -> dict[str, Any]:
    start = text.index(words)
    return {
        "quote": words, "source": "text", "page": None, "start": start, "end": start + len(words),
        "line": text[:start].count("\n") + 1, "column": 1, "box": None, "match": "exact",
        "ratio": None, "others": 0, **fields,
    }  # fmt: skip


NOT_FOUND = {
    **dict.fromkeys(("quote", "source", "page", "start", "end", "line", "column", "box", "ratio")),
    "match": "none", "others": 0,
}  # fmt: skip


def sure(p: float, second: Any = None, second_p: float | None = None) -> dict[str, Any]:
    """Return a field's confidence; a second value has what is left, if nothing else is said."""
    rest = round(1 - p, 4) if second is not None and second_p is None else second_p
    return {"p": p, "raw": p, "second": second, "second_p": rest, "is_calibrated": False}


def subject(item: str = "a.txt", text: str = TEXT, **fields: Any) -> dict[str, Any]:
    """Return what a question is about: an invoice whose total the model was not sure of."""
    answer = {"number": "R-1042", "total": 84.5, "kind": "invoice", "pay_by": "2026-02-28"}
    evidence = {
        "number": quote(text, "R-1042"), "total": quote(text, "84.50"), "kind": None,
        "pay_by": NOT_FOUND,
    } if text == TEXT else None  # fmt: skip
    confidence = {
        "number": sure(0.99),
        "total": sure(0.62, "84.00"),
        "kind": sure(0.9),
        "pay_by": sure(0.4),
    }
    return {
        "pipeline": "bills.yaml", "block": "each", "item": item, "document": f"inbox/{item}",
        "document_sha256": "d1", "model": "clerk", "digest": "m1", "answer": answer,
        "schema": SCHEMA, "checks": ["output.total < 1000"], "scope": {}, "evidence": evidence,
        "confidence": confidence, "when": "confidence.min < 0.8", "by": [],
        "on_expiry": "quarantine",
        "sources": [{"name": "text", "path": None, "media_type": "text/plain", "text": text,
                     "page_starts": []}],
        **fields,
    }  # fmt: skip


KINDS = {"kind": {"path": "kinds.csv", "keys": {"choose": "steps.kinds.rows", "by": "kind"}}}
"""The field `kind` is chosen from this table."""


@dataclass
class ServedPage:
    """A folder with a ledger; `served` shows it."""

    folder: Path
    addresses: list[str] = field(default_factory=list)

    def ask(self, *items: str, **subject_of: Any) -> list[Review]:
        with Ledger(self.folder / ".paddock") as ledger:
            store = ReviewStore(ledger)
            return [
                store.ask(Question("s", item, "bill", "swift-otter", Subject.of(about)))
                for item, about in ((item, subject(item, **subject_of)) for item in items)
            ]

    def ask_many(self, items: Sequence[str]) -> None:
        """Ask many questions of the same kind in one transaction."""
        (first,) = self.ask(items[0])
        with contextlib.closing(sqlite3.connect(self.folder / ".paddock/ledger.sqlite")) as file:
            names = [row[1] for row in file.execute("pragma table_info(reviews)")]
            row = dict(zip(names, file.execute("select * from reviews").fetchone(), strict=True))
            marks = ", ".join(f":{name}" for name in names)
            for n, item in enumerate(items[1:], 1):
                head = json.dumps({**json.loads(row["head"]), "item": item})
                values = {"key": item, "id": review_id("s", item, "bill"), "head": head,
                        "asked_at": first.asked_at + n / 1000,
                        "subject": json.dumps(subject(item))}  # fmt: skip
                file.execute(f"insert into reviews values ({marks})", {**row, **values})
            file.commit()

    def review(self, id_: str) -> Review:
        with Ledger(self.folder / ".paddock") as ledger:
            return LedgerReviews(ledger).get(id_)

    @contextmanager
    def served(self, by: str = "ann", **options: Any) -> Iterator[str]:
        """Serve the page until the block ends; yield its address with the token."""

        async def serve(tell: Callable[[str, str], None]) -> None:
            with Ledger(self.folder / ".paddock") as ledger:
                wish = ReviewPageOptions(by=by, opens_browser=False, tell=tell, **options)
                await serve_pages(lambda: (LedgerReviews(ledger),), ledger.folder, wish)

        with in_thread(serve) as address:
            yield address


@contextmanager
def in_thread(
    serve: Callable[[Callable[[str, str], None]], Coroutine[Any, Any, None]],
) -> Iterator[str]:
    """Serve in a loop of its own until the block ends; yield the address with the token."""
    addresses: list[str] = []
    is_up, loops = threading.Event(), []

    def tell(address: str, token: str) -> None:
        addresses.append(f"{address}?token={token}")
        is_up.set()

    async def noted() -> None:
        loops.append((asyncio.get_running_loop(), asyncio.current_task()))
        await serve(tell)

    thread = threading.Thread(target=lambda: asyncio.run(noted()), daemon=True)
    thread.start()
    until = time.monotonic() + PATIENCE_S
    while not is_up.wait(0.05):
        assert thread.is_alive() and time.monotonic() < until, "the page was not served"
    try:
        yield addresses[0]
    finally:
        loop, task = loops[0]
        assert task is not None
        loop.call_soon_threadsafe(task.cancel)
        thread.join(PATIENCE_S)


def signed_out(base: str) -> httpx.Client:
    """Return a client without a session; it asks no proxy and loads no certificates."""
    return httpx.Client(base_url=base, trust_env=False, verify=False, timeout=PATIENCE_S)


@contextmanager
def client(address: str) -> Iterator[httpx.Client]:
    with signed_out(address.partition("/review")[0]) as session:
        assert session.get(address).status_code == 303
        yield session
