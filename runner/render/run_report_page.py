"""Report of a run as one HTML page: failures, timelines, tokens, documents.

The size is bounded: of 10,000 documents, those that failed or took longest are listed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from paddock.runner.progress.report import HELD_REMEDY, not_taken_in_words, sums_by_outcome

from .html_page import html_page
from .run_details import RunCall, RunDetails
from .timelines import LEGEND, PATTERNS, calls_chart, items_chart, occupancy_chart

MAX_FAILURES, MAX_ITEMS, MAX_ERROR_CHARS = 200, 1_000, 2_000
MAX_REVIEWS, MAX_REVIEW_FIELDS = 1_000, 40
_RANKS = {"open": 0, "none": 2}  # what waits is first, what was not reviewed last


def run_report_page(story: RunDetails, target: Path) -> str:
    past = story.past
    bad = [item for item in story.items if item.is_bad]
    n_told = sum(item.state == "quarantined" for item in bad)
    groups: dict[tuple[str, str], list[RunCall]] = {}
    for call in story.calls:
        groups.setdefault((call.step, call.model or call.kind), []).append(call)
    items = sorted(story.items, key=lambda item: (not item.is_bad, -item.seconds))[:MAX_ITEMS]
    is_whole = past.status in ("completed", "quarantined")
    n_left = len(story.items) - len(items)
    notes = []
    if n_left:
        notes.append(f"{n_left:,} more, all done and faster than these.")
    if n := story.n_taken_over:
        notes.append(f"{n:,} were redone by later runs; their details in this run are gone.")
    if n := story.counts.get("fresh", 0):
        notes.append(f"{n:,} were fresh: nothing had to be done.")
    if n := story.counts.get("held", 0):
        kept = "outputs were edited, or others wrote them, and are kept"
        notes.append(f"{n:,} were held: {kept}. {HELD_REMEDY}")
    return html_page(
        f"{past.row.pipeline}: {past.row.run}",
        "run_report.html",
        **run_summary(story),
        bad=bad[:MAX_FAILURES],
        n_bad=len(bad),
        n_known=max(0, story.counts.get("quarantined", 0) - n_told),
        max_error_chars=MAX_ERROR_CHARS,
        answers=sorted(
            story.reviewed.answers,
            key=lambda answer: (_RANKS.get(answer.state, 1), answer.item, answer.step),
        ),
        max_answers=MAX_REVIEWS,
        max_fields=MAX_REVIEW_FIELDS,
        legend_words=LEGEND,
        patterns=PATTERNS,
        items_chart=items_chart(story),
        calls_chart=calls_chart(story),
        occupancy=occupancy_chart(story),
        groups=groups,
        items=items,
        notes=" ".join(notes),
        nothing="Nothing had to be done." if is_whole else "No item was finished.",
        link=partial(_file_address, target.parent.resolve()),
        file_name=os.path.basename,
    )


def run_summary(story: RunDetails, progress: str | None = None) -> Mapping[str, Any]:
    """Return the values of `run_summary.html`; `progress` of a run that goes on."""
    outcomes = sums_by_outcome(story.counts) if progress is None else {}
    return {
        "story": story,
        "past": story.past,
        "progress": progress,
        "counts": {**outcomes, **story.sums},
        "not_taken": not_taken_in_words(story.past.summary.get("not_taken") or {}),
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
