"""What makes a run do things again: --only, --force, --retry-failed, --refresh, --resume, edits."""

from pathlib import Path

import pytest

from paddock.engine.request import ChatRequest
from paddock.pipelines.errors import PipelineError
from paddock.runner.cli.commands.run import resumed_run
from paddock.runner.cli.exit_status import CommandError
from paddock.runner.core.traces.block_items import default_key
from paddock.steps.llm.chat import Chat
from tests.fakes.pool import FakePool, echo
from tests.fakes.readers import has_readers
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


OCR, PLUGIN_1, PLUGIN_2 = ("ocr",), ("ocr", "plugin 1"), ("ocr", "plugin 2")


@pytest.mark.parametrize(
    ("then", "now", "is_refreshed", "of_read", "of_failed"),
    [
        ((), OCR, False, "fresh", "stale"),  # the first that is installed
        (OCR, PLUGIN_1, False, "fresh", "stale"),
        (OCR, PLUGIN_1, True, "stale", "stale"),
        (PLUGIN_1, PLUGIN_2, False, "stale", "stale"),
        (PLUGIN_1, OCR, False, "fresh", "stale"),  # what is missing here would undo it
    ],
)
def test_more_that_can_be_read_tries_again_what_failed_and_nothing_that_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: tuple[str, ...], now: tuple[str, ...],
    is_refreshed: bool, of_read: str, of_failed: str,
) -> None:  # fmt: skip
    world = World(tmp_path, beside={"inbox/3.txt": "A fourth one."}, n_documents=1)
    has_readers(monkeypatch, *then)
    world.run(pool=FakePool(answer=_unless_fourth))
    has_readers(monkeypatch, *now)
    plan = world.plan(refresh=is_refreshed)
    found = {item.key: item.state for item in plan.items if item.step == "each"}
    assert found == {"0.txt": of_read, "3.txt": of_failed}


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


def test_the_key_is_relpath_then_path_then_content() -> None:
    assert default_key({"path": "/in/a.md", "relpath": "a.md"}) == "a.md"
    assert default_key({"path": "/in/b.md"}) == "/in/b.md"
    assert default_key({"x": 1}) == default_key({"x": 1}) != default_key({"x": 2})
    assert default_key("a text") == default_key("a text")
