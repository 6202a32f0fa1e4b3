"""What reads a block's results where its items failed is left as it was, or lacks theirs.

What later blocks made of an item goes where it is decided that it has no result, and stays else.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from paddock.engine.backends.neutral_request import NEUTRAL_TEXT
from paddock.engine.errors import BadRequest, WorkerLost
from paddock.engine.request import ChatRequest
from tests.fakes.pool import FakePool, echo
from tests.runner.world import ReviewedWorld, World, each_document, states

LABELS = each_document("""\
      - {id: label, uses: chat, with: {prompt: "Label: {{ steps.text.text }}"}}
    returns: {file: doc.relpath, label: steps.label.text}
  - {id: table, uses: files.write, with: {path: out/labels.csv, rows: "{{ steps.each.results }}"}}
  - {id: told, uses: files.write, with: {path: out/told.txt, text: "{{ steps.table.path }}"}}
  - id: faults
    uses: files.write
    with: {path: out/faults.txt, text: "n={{ steps.each.failed | length }}"}
  - id: copies
    for_each: row in steps.each.results
    key: row.file
    do: [{uses: files.write, with: {path: "out/{{ row.file }}", text: "{{ row.label }}"}}]
returns: {table: steps.table.path}
""")


def refusing(*words: str) -> FakePool:
    """Return a pool that refuses documents with one of the words; each, where none is named."""

    def answer(request: ChatRequest) -> str:
        text = request.messages[-1].content
        is_refused = any(word in text for word in words) if words else text != NEUTRAL_TEXT
        if is_refused:
            raise BadRequest("no")
        return echo(request)

    return FakePool(answer=answer)


@pytest.mark.parametrize("on_error", ["quarantine", "skip"])
def test_an_output_over_results_stays_where_all_items_failed(tmp_path: Path, on_error: str) -> None:
    world = World(
        tmp_path,
        LABELS.replace("  - id: each\n", f"  - id: each\n    on_error: {on_error}\n"),
        n_documents=3,
    )
    assert world.run().status == "completed"
    names = ("labels.csv", "told.txt", *(f"{n}.txt" for n in range(3)))
    before = {name: world.output(name) for name in names}
    world.edit("Label:", "The label:")
    for _ in range(2):
        report = world.run(pool=refusing())
        assert {name: world.output(name) for name in names} == before
        assert {
            "'table' is left as it is: all 3 items of 'each' failed.",
            "'copies' is left as it is: all 3 items of 'each' failed.",
            "'told' is left as it is: 'table' is, since all 3 items of 'each' failed.",
        } <= set(report.notes)
        assert report.returns is None
        assert (report.exit_status(), report.exit_status("never")) == (3, 0)
    assert world.output("faults.txt") == ("n=3" if on_error == "quarantine" else "n=0")
    if on_error == "skip":
        return
    done = world.run(retry_failed=True)
    assert (done.status, done.exit_status()) == ("completed", 0)
    assert world.output("labels.csv") != before["labels.csv"]


def test_an_output_over_results_says_which_items_it_lacks(tmp_path: Path) -> None:
    world = World(tmp_path, LABELS, n_documents=3)
    for _ in range(2):
        report = world.run(pool=refusing("Document 1"))
        note = "'table' is made without 1 of 3 items of 'each': 1 failed (1.txt)."
        assert note in report.notes
        assert not any("'faults'" in note for note in report.notes)
        assert len(world.output("labels.csv").splitlines()) == 3
    assert report.exit_status() == 0
    assert report.exit_status("any") == 3


NESTED = each_document("""\
      - id: lines
        for_each: line in steps.text.text.splitlines()
        do: [{id: sum, uses: chat, with: {prompt: "Sum up: {{ line }}"}}]
        returns: steps.sum.text
      - uses: files.write
        with: {path: "out/{{ doc.relpath }}", text: "{{ steps.lines.results | join(',') }}"}
""")


def test_an_item_fails_where_all_items_of_its_block_did(tmp_path: Path) -> None:
    world = World(tmp_path, NESTED, {"inbox/a.txt": "one\ntwo", "inbox/b.txt": "three\nfour"})
    world.run()
    before = world.output("a.txt")
    world.edit("Sum up:", "Sum:")
    report = world.run(pool=refusing("one", "two", "three"))
    assert states(report) == {"a.txt": "quarantined", "b.txt": "stale"}
    error = next(item.error for item in report.items if item.key == "a.txt")
    assert error == ("step '(files.write)': all 2 items of 'lines' failed: step 'sum': no")
    assert world.output("a.txt") == before


BEHIND = each_document("""\
      - {id: label, uses: chat, with: {prompt: "{{ steps.text.text }}"}}
      - {uses: files.write, with: {path: "out/1/{{ doc.relpath }}", text: "{{ steps.label.text }}"}}
    returns: {file: doc.relpath, label: steps.label.text}
  - id: more
    for_each: row in steps.each.results
    do: [{uses: files.write, with: {path: "out/2/{{ row.file }}", text: "{{ row.label }}"}}]
    returns: {file: row.file, label: row.label}
  - id: third
    for_each: row in steps.more.results
    do: [{uses: files.write, with: {path: "out/3/{{ row.file }}", text: "{{ row.label }}"}}]
  - {id: table, uses: files.write, with: {path: out/t.csv, rows: "{{ steps.more.results }}"}}
""")
OF_X = {f"out/{n}/x.txt" for n in (1, 2, 3)}


def with_keys(text: str) -> str:
    return text.replace("    do: [{uses", "    key: row.file\n    do: [{uses")


def lost_for_x(request: ChatRequest) -> str:
    if "new" in request.messages[-1].content:
        raise WorkerLost("m", "signal 9")
    return echo(request)


DECIDED = {
    "it is quarantined": (BEHIND, refusing("new")),
    "it is skipped as it fails": (
        BEHIND.replace("  - id: each\n", "  - id: each\n    on_error: skip\n"),
        refusing("new"),
    ),
    "`where` excludes it": (
        BEHIND.replace("    do:\n", "    where: doc.size < 6\n    do:\n", 1),
        FakePool(),
    ),
    "a filter leaves it out": (
        BEHIND.replace("- {id: label, ", "- {id: label, if: \"'new' not in steps.text.text\", "),
        FakePool(),
    ),
}


@pytest.mark.parametrize("names", [str, with_keys], ids=["content", "keys"])
@pytest.mark.parametrize("case", DECIDED)
def test_what_later_blocks_made_of_a_document_goes_with_its_result(
    tmp_path: Path, case: str, names: Callable[[str], str]
) -> None:
    text, pool = DECIDED[case]
    world = World(tmp_path, names(text), {"inbox/x.txt": "old x", "inbox/y.txt": "y"})
    world.run()
    world.write("inbox/x.txt", "a new x")
    for _ in range(2):
        assert {*world.run(pool=pool).outdated} == OF_X
        assert {*world.plan().outdated} == OF_X
        assert world.plan(prune=True).removed.keys() == OF_X
        assert "x.txt" not in world.output("t.csv")
    assert world.run(pool=pool, prune=True).outdated == {}
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == [
        "t.csv", "y.txt", "y.txt", "y.txt"
    ]  # fmt: skip
    world.write("inbox/x.txt", "old x")
    assert world.run(prune=True).outdated == {}
    assert all((tmp_path / path).exists() for path in OF_X)


@pytest.mark.parametrize("names", [str, with_keys], ids=["content", "keys"])
@pytest.mark.parametrize("case", ["it waits for review", "it is tried again"])
def test_what_later_blocks_made_of_a_document_stays_while_that_is_not_decided(
    tmp_path: Path, case: str, names: Callable[[str], str]
) -> None:
    text, pool = names(BEHIND), FakePool(answer=lost_for_x)
    if case == "it waits for review":
        text = text.replace("{id: label, ", "{id: label, review: {when: \"'new' in text\"}, ")
        pool = FakePool()
    world = ReviewedWorld(tmp_path, text, {"inbox/x.txt": "old x", "inbox/y.txt": "y"})
    world.run()
    world.write("inbox/x.txt", "a new x")
    for _ in range(2):
        report = world.run(pool=pool, prune=True)
        assert report.outdated == {}
        assert "'more' is made without 1 of 2 items of 'each'" in " ".join(report.notes)
        assert all((tmp_path / path).exists() for path in OF_X)
    if case == "it waits for review":
        world.decide("x.txt", "reject", reason="no")
    else:
        report = world.run(pool=pool, prune=True)  # the third time it is given up
    assert world.run(pool=pool, prune=True).outdated == {}
    assert not any((tmp_path / path).exists() for path in OF_X)
