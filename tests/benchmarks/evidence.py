"""How long it takes to find 1,000 values of an answer in a long text.

uv run python tests/benchmarks/evidence.py

The text has pages of prose with amounts and days among it; the answer has names as they are,
amounts and days in another notation than the text's, and phrases of which one in ten is misspelled
and one in ten is nowhere. The time has the index of the text in it; the model and the reading of a
PDF are not in it. The bound is 2 s for 200 pages.
"""

import argparse
import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddock.pipelines.checking.evidence import SourceText, locate
from tests.benchmarks.harness import circumstances, table

FULL_PAGES = (50, 200, 800)
FIELDS_OF_AN_ITEM = 4
LINES_OF_A_PAGE = 45
WORDS_OF_A_LINE = 11
SYLLABLES = [f"{first}{last}" for first in "bdfgklmnprstvz" for last in "aeiou"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fields", type=int, default=1000)
    parser.add_argument("--pages", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="200 pages, 3 rounds instead of 7")
    args = parser.parse_args()
    n_rounds: int = args.rounds or (3 if args.quick else 7)
    rows = []
    several = (200,) if args.quick else FULL_PAGES
    for n_pages in (args.pages,) if args.pages else several:
        source, answer = document(n_pages, args.fields)
        seconds = statistics.median(timed(source, answer) for _ in range(n_rounds))
        found = locate(answer, True, [source])
        n = Counter(leaf["match"] for item in found for leaf in item.values())
        megabytes = len(source.text) / 1e6
        rows.append(
            [n_pages, megabytes, args.fields, seconds, seconds / megabytes]
            + [n[match] for match in ("exact", "normalised", "fuzzy", "none")]
        )
    print(circumstances(rounds=n_rounds))
    headings = ["pages", "million signs", "fields", "CPU s, median", "a million signs"]
    print(table([*headings, "exact", "normalised", "fuzzy", "none"], rows))


def timed(source: SourceText, answer: Any) -> float:
    """Return the processor's seconds: other work on the machine does not count."""
    start = time.process_time()
    locate(answer, True, [source])
    return time.process_time() - start


def document(n_pages: int, n_fields: int) -> tuple[SourceText, list[dict[str, Any]]]:
    """Make a document, and an answer of some of the items that are in it."""
    chance = random.Random(5)
    words = ["".join(chance.choices(SYLLABLES, k=chance.randint(1, 4))) for _ in range(8000)]
    items: list[dict[str, Any]] = []
    pages: list[str] = []
    for number in range(1, n_pages + 1):
        lines = [f"Page {number} of {n_pages}"]
        for at in range(LINES_OF_A_PAGE):
            prose = chance.choices(words, k=WORDS_OF_A_LINE)
            if at % 3 == 0:
                item, written = _item(chance, prose)
                items.append(item)
                lines.append(written)
            else:
                lines.append(" ".join(prose))
        pages.append("\n".join(lines))
    starts, at = [], 0
    for page in pages:
        starts.append(at)
        at += len(page) + 2
    answer = chance.sample(items, n_fields // FIELDS_OF_AN_ITEM)
    return SourceText("report", "\n\n".join(pages), tuple(starts)), answer


def _item(chance: random.Random, prose: list[str]) -> tuple[dict[str, Any], str]:
    """Return the values of a line, and the line."""
    cents, day = chance.randint(10_000, 10_000_000), chance.randint(1, 28)
    year = chance.randint(1990, 2025)
    amount = f"{cents / 100:,.2f}".translate(str.maketrans(",.", ".,"))
    written = f"{' '.join(prose[:9])} {amount} EUR on {day} May {year}"
    phrase, kind = prose[3:8], chance.random()
    if kind < 0.1:
        at = max(range(len(phrase)), key=lambda one: len(phrase[one]))
        phrase[at] = f"{phrase[at][:-1]}y"
    elif kind < 0.2:
        phrase = [f"{word}xu" for word in phrase]
    found = {"name": " ".join(prose[:3]), "amount": cents / 100, "day": f"{year}-05-{day:02}"}
    return {**found, "phrase": " ".join(phrase)}, written


if __name__ == "__main__":
    main()
