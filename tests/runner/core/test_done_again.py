"""What makes a run do things again: --only, --force, --retry-failed, --refresh, --resume, edits."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from paddock.engine.request import ChatRequest
from paddock.engine.system.records import Struct
from paddock.pipelines.errors import PipelineError
from paddock.runner.cli.commands.run import resumed_run
from paddock.runner.cli.exit_status import CommandError
from paddock.runner.core.traces import world as traces
from paddock.runner.core.traces.block_items import default_key
from paddock.runner.core.traces.dependencies import Trace
from paddock.runner.core.traces.past_items import PastItems, SpecChanges
from paddock.runner.core.traces.verdicts import ItemVerdict
from paddock.runner.core.traces.verify import CurrentItem, verify
from paddock.runner.ledger.entries import Entry
from paddock.steps.llm.chat import Chat
from tests.fakes.pool import FakePool, echo
from tests.runner.world import SUMMARIES, World, reasons, states


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, n_documents=3)
    world.run()
    return world


def test_only_does_these_items_and_leaves_what_reads_them(world: World) -> None:
    world.edit("Sum up:", "In short:")
    report = world.run(only=["1.txt"])
    assert states(report) == {"0.txt": "skipped", "1.txt": "stale", "2.txt": "skipped"}
    assert report.calls == 1
    assert list(report.notes) == [
        "'digest' is left as it is: only some items of 'each' were done.",
        "'report' is left as it is: only some items of 'digest' were done.",
    ]
    assert states(world.plan()) == {"0.txt": "stale", "2.txt": "stale"}


def test_force_asks_again_though_all_is_fresh_and_known(world: World) -> None:
    assert world.run().calls == 0
    report = world.run(force=["sum"], only=["2.txt"])
    assert (reasons(report), report.calls) == ({"2.txt": "forced"}, 1)
    assert world.run(force=["digest"]).calls == 1
    with pytest.raises(PipelineError, match="there is no step 'sums' to force"):
        world.run(force=["sums"])


def test_retry_failed_tries_what_is_quarantined_and_nothing_else(world: World) -> None:
    world.write("inbox/3.txt", "A fourth one.")
    report = world.run(pool=FakePool(answer=_unless_fourth))
    assert states(report)["3.txt"] == "quarantined"
    assert states(world.run()) == {"3.txt": "quarantined"}
    report = world.run(retry_failed=True)
    assert states(report) == {"3.txt": "stale"}
    assert reasons(report) == {"3.txt": "what failed is tried again"}


def _unless_fourth(request: object) -> str:
    text = str(request)
    if "fourth" in text and "All:" not in text:
        raise ValueError("not today")
    return "Yes."


def test_a_run_goes_on_with_what_it_was_given(world: World, tmp_path: Path) -> None:
    report = world.run({"tone": "merry"})
    path, given = resumed_run(report.run, world.file, {})
    assert (path, given) == (world.file, {"tone": "merry"})
    assert world.run(given).counts == {"fresh": 4}
    assert resumed_run(report.run, world.file, {"tone": "sad"})[1] == {"tone": "sad"}


def test_a_run_that_is_not_known_is_refused_with_the_nearest_name(world: World) -> None:
    run = world.run().run
    with pytest.raises(CommandError) as caught:
        resumed_run(f"{run}x", world.file, {})
    assert str(caught.value) == f"There is no run '{run}x' here.\n  Did you mean '{run}'?"


def test_a_secret_input_is_kept_nowhere_and_asked_for_again(tmp_path: Path) -> None:
    world = World(tmp_path, n_documents=1)
    world.edit("  tone:", "  password: {type: str, secret: true}\n  tone:")
    report = world.run({"password": "abracadabra", "tone": "merry"})
    with pytest.raises(CommandError) as caught:
        resumed_run(report.run, world.file, {})
    assert str(caught.value) == (
        f"Run '{report.run}' had the input 'password', which was not recorded: it is secret, "
        "or rows that a program gave.\n"
        f"  Give it again: `paddock run --resume {report.run} -i password=…`."
    )
    assert resumed_run(report.run, world.file, {"password": "x"})[1] == {
        "password": "x",
        "tone": "merry",
    }
    for file in (world.folder / ".paddock").rglob("*"):
        assert not file.is_file() or b"abracadabra" not in file.read_bytes()


def test_what_a_compatible_older_version_of_a_step_did_stays_until_it_is_refreshed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Chat.version
    monkeypatch.setattr(Chat, "version", 99)
    assert set(reasons(world.plan()).values()) == {"step version changed (step 'sum')"}
    older = World(world.folder, world.text)
    before: frozenset[int] = getattr(Chat, "compatible_versions", frozenset())
    monkeypatch.setattr(Chat, "compatible_versions", before | {written}, raising=False)
    assert not older.plan().has_work
    assert older.run().counts == {"fresh": 4}
    report = older.run(refresh=True)
    assert set(reasons(report).values()) == {"step version changed (step 'sum')"}
    # Its requests are the same, so nothing is asked again; but it is recorded again.
    assert report.calls == 0
    assert older.run(refresh=True).counts == {"fresh": 4}


def test_more_that_can_be_read_tries_again_what_failed_and_nothing_that_was_read() -> None:
    def verdict(was: str | None, now: str, state: str = "done", *, refresh: bool = False) -> str:
        others = {"text.parameters": "1"}
        parts = others if was is None else {**others, "text.readers": was}
        entry = Entry(key="a", hash="h", parts=json.dumps(parts), state=state)
        older: dict[str, frozenset[str]] | None = None if refresh else {}
        return judged(entry, "other", {**others, "text.readers": now}, older).state

    assert verdict("", "ocr") == "fresh"
    assert verdict("", "ocr", "quarantined") == "stale"
    assert verdict("ocr", "ocr\nplugin 1") == "fresh"
    assert verdict("ocr", "ocr\nplugin 1", "quarantined") == "stale"
    assert verdict("ocr", "ocr\nplugin 1", refresh=True) == "stale"
    assert verdict("ocr\nplugin 1", "ocr\nplugin 2") == "stale"
    assert verdict("ocr\nplugin 1", "ocr") == "fresh", "what is missing here would undo it"
    assert verdict(None, "ocr", "quarantined") == "quarantined"  # an older Paddock's entry


def test_a_document_that_changes_before_its_item_reads_it_is_done_again(tmp_path: Path) -> None:
    world = World(tmp_path, SUMMARIES.replace("    do:\n", "    max_parallel: 1\n    do:\n"))
    world.documents(2)
    changed: dict[str, str] = {}

    def answer(request: ChatRequest) -> str:
        asked = request.messages[-1].content
        for name, text in ("0.txt", "Document 0"), ("1.txt", "Document 1"):
            if not changed and asked.startswith("Sum up") and text not in asked:
                changed[name] = (tmp_path / "inbox" / name).read_text()
                world.write(f"inbox/{name}", "In between.")
        return echo(request)

    world.run(pool=FakePool(answer=answer))
    ((name, text),) = changed.items()
    world.write(f"inbox/{name}", text)
    assert reasons(world.plan()) == {name: "content changed"}
    world.run()
    assert text.split(",")[0] in world.output(name)
    assert not world.plan().has_work


# --- the verdict on an item by its parts alone


class Since(SpecChanges, frozen=True):
    content: str | None = None

    def content_then(self, item: Any) -> str | None:
        return self.content


class Past(Struct):
    """Today's item would have had this content then."""

    content: str | None

    def changes(self, key: str) -> SpecChanges:
        return Since(content=self.content)


def judged(
    entry: Entry,
    hash_: str,
    parts: Mapping[str, str],
    older: Mapping[str, Collection[str]] | None = None,
    content_then: str | None = None,
) -> ItemVerdict:
    world = traces.PreparedWorld(*cast(Any, [None] * 4))
    now = CurrentItem(hash_, json.dumps(parts), older=older, key=entry.key)
    return verify(Trace("", entry, cast("PastItems", Past(content_then))), now, world)


def test_the_key_is_relpath_then_path_then_content() -> None:
    assert default_key({"path": "/in/a.md", "relpath": "a.md"}) == "a.md"
    assert default_key({"path": "/in/b.md"}) == "/in/b.md"
    assert default_key({"x": 1}) == default_key({"x": 1}) != default_key({"x": 2})
    assert default_key("a text") == default_key("a text")
