"""A run as a page: in the console, and saved as one file that needs no server.

The saved page has all that the ledger knows of the run, within bounds: of 10,000 documents, those
that failed or took longest.
"""

from __future__ import annotations

import os
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from paddock.runner.progress.report import HELD_REMEDY, not_taken_in_words, sums_by_outcome

from .html_page import html_page, render
from .run_details import RunCall, RunDetails

MAX_FAILURES, MAX_ITEMS, MAX_ERROR_CHARS = 200, 1_000, 2_000
MAX_REVIEWS, MAX_REVIEW_FIELDS = 1_000, 40
_RANKS = {"open": 0, "none": 2}  # what waits is first, what was not reviewed last
_TEMPLATE = "run.html"


def live_run_page(details: RunDetails, progress: str | None, **shown: Any) -> Markup:
    """Return a run's page in the console; `progress` of a run that goes on."""
    return render(_TEMPLATE, **_values(details, progress) | shown)


def saved_run_page(details: RunDetails, target: Path) -> str:
    """Return the page as a file, whose links lead from there to documents and outputs."""
    items = sorted(
        (*details.known, *details.items), key=lambda item: (not item.is_bad, -item.seconds)
    )
    values = _values(details, None) | {
        "found": items,
        "shown": items[:MAX_ITEMS],
        "most": MAX_FAILURES,
        "most_chars": MAX_ERROR_CHARS,
        "link": partial(_file_address, target.parent.resolve()),
    }
    return html_page(f"{details.past.row.pipeline}: {details.past.row.run}", _TEMPLATE, **values)


def _values(details: RunDetails, progress: str | None) -> dict[str, Any]:
    groups: dict[tuple[str, str], list[RunCall]] = defaultdict(list)
    for call in details.calls:
        groups[call.step, call.model or call.kind].append(call)
    notes = []
    if details.counts.get("held", 0):
        kept = "are held: outputs were edited, or others wrote them, and are kept"
        notes.append(f"{details.counts['held']:,} {kept}. {HELD_REMEDY}")
    if n := details.n_taken_over:
        notes.append(f"{n:,} were redone by later runs; their details in this run are gone.")
    if not_taken := not_taken_in_words(details.past.summary.get("not_taken") or {}):
        notes.append(not_taken)
    outcomes = sums_by_outcome(details.counts) if progress is None else {}
    return {
        "details": details,
        "past": details.past,
        "progress": progress,
        "counts": {**outcomes, **details.sums},
        "notes": notes,
        "bad": [item for item in details.items if item.is_bad],
        "items": (*details.known, *details.items),
        "groups": sorted(groups.items()),
        "answers": sorted(
            details.reviewed.answers,
            key=lambda answer: (_RANKS.get(answer.state, 1), answer.item, answer.step),
        ),
        "max_answers": MAX_REVIEWS,
        "max_fields": MAX_REVIEW_FIELDS,
        "address": "",
        "link": str,
        "file_name": os.path.basename,
    }


def _file_address(folder: Path, path: str) -> str:
    try:
        near = os.path.relpath(path, folder)
    except ValueError:  # another drive
        near = path
    # File names are bytes: quote those that are not text as they are.
    address = quote(os.fsencode(near.replace(os.sep, "/")))
    # A name with a colon before any slash would be read as a scheme.
    return address if address.startswith(("/", ".")) else f"./{address}"
