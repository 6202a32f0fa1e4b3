"""A digest of many documents costs one path of its tree, and a plan says so before."""

from __future__ import annotations

from pathlib import Path

from paddock.engine.errors import WorkerLost
from paddock.engine.request import ChatRequest
from tests.fakes.pool import FakePool, echo
from tests.runner.world import World

PIPELINE = """\
steps:
  - {id: docs, uses: files.scan, with: {root: ./inbox}}
  - id: each
    for_each: doc in steps.docs.files
    do:
      - {id: text, uses: files.read, with: {path: "{{ doc.path }}"}}
      - {id: sum, uses: chat, with: {prompt: "Sum up: {{ steps.text.text }}"}}
    returns: {file: doc.relpath, sum: steps.sum.text}
  - id: digest
    uses: reduce
    with: {over: "{{ steps.each.results }}", fanin: 4, prompt: "All: {{ notes | join(' ') }}"}
  - {id: report, uses: files.write, with: {path: out/DIGEST.md, text: "{{ steps.digest.text }}"}}
returns: {text: steps.digest.text, levels: steps.digest.levels}
"""


def digest_calls(pool: FakePool) -> int:
    return sum(one.messages[-1].content.startswith("All: ") for one in pool.chats)


def test_one_document_more_changed_or_gone_costs_one_path_and_the_plan_tells_it(
    tmp_path: Path,
) -> None:
    here = World(tmp_path, PIPELINE)
    here.documents(40)
    first = here.plan()
    here.run()
    whole = digest_calls(here.pool)
    assert whole > 12
    assert first.calls == 40 + whole, "the shape of the tree is known before anything has run"
    assert (here.plan().calls, here.run().calls) == (0, 0)

    def change(act: str) -> int:
        """Do something to the documents; gives the digest's calls, which the plan has told."""
        if act == "new":
            here.write("inbox/20-more.txt", "About the harbour.")
        elif act == "changed":
            here.write("inbox/7.txt", "Document 7, about something else.")
        else:
            (tmp_path / "inbox" / "31.txt").unlink()
        is_more = act != "gone"
        plan = here.plan()
        [item] = [item for item in plan.items if item.step == "digest"]
        report = here.run()
        n = digest_calls(here.pool)
        assert plan.calls == report.calls == n + is_more
        assert item.state == "stale"
        n_calls = report.calls + report.cached_calls - is_more
        assert item.why is not None
        assert item.why.endswith(f"{n} of its {n_calls} calls are to be made")
        assert 0 < n < whole / 2
        assert here.run().calls == 0
        return n

    assert change("changed") == here.run().returns["levels"]
    change("new")
    change("gone")
    answer = here.run().returns
    scratch = World(tmp_path / "scratch", PIPELINE)
    for document in (tmp_path / "inbox").iterdir():
        scratch.write(f"inbox/{document.name}", document.read_text("utf-8"))
    assert scratch.run().returns == answer


def test_an_empty_folder_has_no_digest_and_is_no_failure(tmp_path: Path) -> None:
    here = World(tmp_path, PIPELINE)
    (tmp_path / "inbox").mkdir()
    report = here.run()
    assert report.status == "completed"
    assert report.calls == 0
    assert not (tmp_path / "out").exists()


def test_a_run_that_died_within_the_tree_asks_for_no_part_of_it_again(tmp_path: Path) -> None:
    here = World(tmp_path, PIPELINE)
    here.documents(30)
    n_answered = 0

    def dying(request: ChatRequest) -> str:
        nonlocal n_answered
        if n_answered == 36:
            raise WorkerLost("gone", "died")
        n_answered += 1
        return echo(request)

    died = here.run(pool=FakePool(answer=dying))
    assert died.status == "failed"
    rest = here.run()
    scratch = World(tmp_path / "scratch", PIPELINE)
    scratch.documents(30)
    assert n_answered + rest.calls == scratch.run().calls
    assert rest.returns == scratch.run().returns
