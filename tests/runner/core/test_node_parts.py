"""Which difference is the reason, decided on plain values."""

import json

from paddock.runner.core.traces.block_items import default_key
from paddock.runner.core.traces.node_parts import outer_value
from paddock.runner.core.traces.parts import spec_parts
from paddock.runner.ledger.entries import Entry
from tests.runner.core.judged import judged

FILE = {
    "path": "/in/a.md", "relpath": "a.md", "name": "a.md", "stem": "a", "suffix": ".md",
    "size": 3, "modified": "2026-01-01T00:00:00Z", "sha256": "abc",
}  # fmt: skip


def entry(parts: dict[str, str], state: str = "done", error: str | None = None) -> Entry:
    return Entry(key="a", hash="h", parts=json.dumps(parts), state=state, error=error)


def test_the_key_is_relpath_then_path_then_content() -> None:
    assert default_key(FILE) == "a.md"
    assert default_key({"path": "/in/b.md"}) == "/in/b.md"
    assert default_key({"x": 1}) == default_key({"x": 1}) != default_key({"x": 2})
    assert default_key("a text") == default_key("a text")


def test_a_changed_content_goes_before_every_other_reason_and_all_are_named() -> None:
    before = entry({"content": "1", "sum.prompt": "1"})
    now = {"content": "2", "sum.prompt": "2"}
    expected = ("changed", "content changed; prompt changed (step 'sum')")
    for content_then in (None, "3"):
        verdict = judged(before, "other", now, content_then=content_then)
        assert (verdict.state, verdict.why) == expected


def test_what_is_read_of_an_item_may_change_without_its_content() -> None:
    before = entry({"content": "1", "sum.prompt": "1"})
    for prompt, why in (
        ("2", "prompt changed (step 'sum')"),
        ("1", "what it reads of the item changed"),
    ):
        verdict = judged(before, "other", {"content": "2", "sum.prompt": prompt}, content_then="1")
        assert (verdict.state, verdict.why) == ("stale", why)


def test_what_is_known_to_fail_is_not_work_and_what_failed_by_chance_is() -> None:
    known = judged(entry({}, "quarantined", "it is empty"), "h", {})
    assert (known.state, known.why) == ("quarantined", "it is empty") and not known.is_work
    again = judged(entry({}, "failed", "no answer"), "h", {})
    assert (again.state, again.why) == ("stale", "it failed before: no answer") and again.is_work


def test_a_step_s_texts_are_its_prompt_and_what_cannot_change_the_result_is_nothing() -> None:
    def parts(**changes: object) -> dict[str, str]:
        given = {"prompt": "Sum up", "words": 80, **changes}
        control = {"uses": "chat", "retry": changes.get("retry"), "with": given}
        return spec_parts("sum", control)

    assert parts(prompt="Other")["sum.prompt"] != parts()["sum.prompt"]
    assert parts(prompt="Other")["sum.parameters"] == parts()["sum.parameters"]
    assert parts(words=90)["sum.parameters"] != parts()["sum.parameters"]
    assert parts(model="other") == parts()


def test_outer_values_are_followed_and_files_are_their_content() -> None:
    variables = {"steps": {"docs": {"files": [FILE]}}, "doc": FILE}
    touched = {"steps": {"docs": {"files": [{**FILE, "size": 9}]}}}
    path = ("steps", "docs", "files")
    assert outer_value(path, variables) == outer_value(path, touched)
    assert outer_value(("doc", "path"), variables) == "abc"
    assert outer_value(("steps", "none", "text"), variables) is None
