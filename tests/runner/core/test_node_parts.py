"""Which difference is the reason, decided on plain values."""

import json
from typing import Any, cast

import pytest

from paddock.runner.core.traces.block_items import default_key
from paddock.runner.ledger.entries import Entry
from paddock.runner.progress.item_states import WAITS, ItemState, Wait
from tests.runner.core.judged import judged


def entry(parts: dict[str, str], state: str = "done", error: str | None = None) -> Entry:
    return Entry(key="a", hash="h", parts=json.dumps(parts), state=state, error=error)


def test_the_key_is_relpath_then_path_then_content() -> None:
    assert default_key({"path": "/in/a.md", "relpath": "a.md"}) == "a.md"
    assert default_key({"path": "/in/b.md"}) == "/in/b.md"
    assert default_key({"x": 1}) == default_key({"x": 1}) != default_key({"x": 2})
    assert default_key("a text") == default_key("a text")


def test_what_is_read_of_an_item_may_change_without_its_content() -> None:
    before = entry({"content": "1", "sum.prompt": "1", "sum.parameters": "1"})
    for prompt, why in (
        ("2", "prompt changed (step 'sum')"),
        ("1", "what it reads of the item changed"),
    ):
        now = {"content": "2", "sum.prompt": prompt, "sum.parameters": "1"}
        verdict = judged(before, "other", now, content_then="1")
        assert (verdict.state, verdict.why) == ("stale", why)


def test_an_item_that_waits_for_no_person_waits_until_what_it_depends_on_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wait = Wait("is postponed", "are postponed", is_for_people=False)
    monkeypatch.setitem(cast(Any, WAITS), ItemState.MISSING, wait)
    for state, verdict in (("missing", "missing"), ("waiting", "stale")):
        assert judged(entry({}, state), "h", {}).state == verdict


def test_what_is_known_to_fail_is_not_work_and_what_failed_by_chance_is() -> None:
    known = judged(entry({}, "quarantined", "it is empty"), "h", {})
    assert (known.state, known.why) == ("quarantined", "it is empty") and not known.is_work
    again = judged(entry({}, "failed", "no answer"), "h", {})
    assert (again.state, again.why) == ("stale", "it failed before: no answer") and again.is_work
