"""Blocks within blocks, conditions, what is skipped, what a block offers, what else is read."""

from pathlib import Path

from paddock.engine.request import ChatRequest
from paddock.runner.progress.events import Observer
from tests.fakes.pool import FakePool, echo
from tests.runner.world import World, each_document

NESTED = """\
inputs:
  words: {type: list, default: [red, blue]}
""" + each_document("""\
      - id: colours
        for_each: word in inputs.words
        key: word
        do:
          - {id: say, uses: chat, with: {prompt: "{{ word }} of {{ steps.text.text }}"}}
        returns: steps.say.text
      - uses: files.write
        with: {path: "out/{{ doc.name }}", text: "{{ steps.colours.results | join('; ') }}"}
    returns: {n: steps.colours.results | length, failed: steps.colours.failed}
returns: steps.each.results
""")


def test_an_inner_failure_is_tried_again_when_asked_for(tmp_path: Path) -> None:
    world = World(tmp_path, NESTED, n_documents=2)

    def broken(request: ChatRequest) -> str:
        if request.messages[-1].content.startswith("red of Document 1"):
            raise ValueError("a bug")
        return echo(request)

    report = world.run(pool=FakePool(answer=broken))
    assert report.status == "quarantined"
    assert report.returns[1] == {
        "n": 1, "failed": [{"key": "red", "error": "step 'say': ValueError: a bug"}]
    }  # fmt: skip
    assert report.log is not None and "ValueError: a bug" in Path(report.log).read_text()
    assert world.run().calls == 0
    assert world.run(retry_failed=True).returns[1] == {"n": 2, "failed": []}


SKIPS = """\
inputs:
  wanted: {type: bool, default: false}
steps:
  - {id: a, uses: prompt, if: inputs.wanted, with: {template: "A"}}
  - {id: b, uses: prompt, with: {template: "{{ steps.a.text }} and B"}}
  - {id: c, uses: prompt, with: {template: "skipped: {{ steps.a.skipped }}, {{ steps.b.skipped }}"}}
  - {id: d, uses: prompt, needs: [a], with: {template: "D"}}
  - {id: e, uses: prompt, with: {template: "{{ 'E' if steps.a.skipped else steps.a.text }}"}}
  - {id: f, uses: prompt, if: not steps.a.skipped, with: {template: "{{ steps.a.text }}"}}
returns: {a: steps.a.text, c: steps.c.text, d: steps.d.text, e: steps.e.text, f: steps.f.text}
"""


def test_what_reads_a_skipped_step_is_skipped_and_what_asks_is_not(tmp_path: Path) -> None:
    world = World(tmp_path, SKIPS)
    assert world.run().returns == {
        "a": None, "c": "skipped: True, True", "d": "D", "e": "E", "f": None
    }  # fmt: skip
    assert world.run({"wanted": True}).returns == {
        "a": "A", "c": "skipped: False, False", "d": "D", "e": "A", "f": "A"
    }  # fmt: skip


OFFERS = each_document("""\
    returns: steps.text.text
returns:
  results: steps.each.results
  counts: steps.each.counts
  changed: steps.each.changed
  failed: steps.each.failed
""")


def test_a_block_offers_results_in_order_counts_changes_and_failures(tmp_path: Path) -> None:
    world = World(tmp_path, OFFERS)
    for name in ("a", "b", "c"):
        world.write(f"inbox/{name}.txt", name)
    world.write("inbox/bb.txt", "")
    offered = world.run().returns
    assert offered["results"] == ["a", "b", "c"]
    assert offered["counts"]["new"] == 3 and offered["counts"]["quarantined"] == 1
    assert offered["failed"] == [{"key": "bb.txt", "error": "step 'text': 'bb.txt' is empty."}]
    (world.folder / "inbox/a.txt").unlink()
    world.write("inbox/c.txt", "C")
    offered = world.run().returns
    assert offered["results"] == ["b", "C"]
    assert sorted(offered["changed"], key=lambda item: item["key"]) == [
        {"key": "a.txt", "state": "deleted"}, {"key": "c.txt", "state": "changed"},
    ]  # fmt: skip
    assert offered["failed"][0]["key"] == "bb.txt"


EMBEDS = """\
steps:
  - id: each
    for_each: "text in [{'t': 'red'}, {'t': 'blue'}]"
    key: text.t
    do:
      - {id: e, uses: embed, with: {texts: ["{{ text.t }}"]}}
    returns: steps.e.vectors
returns: steps.each.results
"""


def test_vectors_are_kept_and_come_back_the_same(tmp_path: Path) -> None:
    world = World(tmp_path, EMBEDS)
    first = world.run()
    assert first.calls == 2 and len(first.returns[0][0]) == 8
    assert world.run().returns == first.returns
    forced = world.run(force=["each"])
    assert (forced.calls, forced.returns) == (2, first.returns)
    world.edit("returns: steps.e.vectors", "returns: {v: steps.e.vectors}")
    again = world.run()
    assert (again.calls, again.cached_calls) == (0, 2)
    assert again.returns == [{"v": result} for result in first.returns]


def test_max_parallel_bounds_what_is_in_flight(tmp_path: Path) -> None:
    world = World(tmp_path, n_documents=12)
    world.edit("    do:", "    max_parallel: 3\n    do:")
    world.run(pool=FakePool(together=3))
    assert world.pool.n_running_most == 3
    world.edit("    max_parallel: 3\n", "")
    world.edit("Sum up:", "Again:")
    world.run(pool=FakePool(together=7))
    assert world.pool.n_running_most > 6


def test_a_time_limit_holds_for_steps_without_a_model(tmp_path: Path) -> None:
    world = World(tmp_path, OFFERS)
    world.edit(
        "{id: text, uses: files.read,", "{id: text, uses: files.read, timeout: {total: 1ms},"
    )
    world.write("inbox/a.csv", "a,b\n" + "1,2\n" * 300_000)
    report = world.run()
    assert next(item.error for item in report.items) == (
        "step 'text': no answer within 0.001 s (timeout.total)"
    )


class _Seen(Observer):
    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def began(self, run: str, pipeline: str, steps: object) -> None:
        self.events.append(("began", pipeline, steps))

    def step(self, step: str, total: int | None, fresh: int) -> None:
        self.events.append(("step", step, total, fresh))

    def item(self, step: str, key: str, state: str, detail: str | None) -> None:
        self.events.append(("item", step, key, state, detail))

    def ended(self, report: object) -> None:
        self.events.append(("ended",))


def test_an_observer_is_told_everything_in_order(tmp_path: Path) -> None:
    world = World(tmp_path, n_documents=1)
    seen = _Seen()
    world.run(observer=seen)
    assert seen.events == [
        ("began", "summaries", ["docs", "each", "digest", "report"]),
        ("step", "docs", None, 0),
        ("item", "docs", "", "running", None),
        ("item", "docs", "", "done", None),
        ("step", "each", 1, 0),
        ("item", "each", "0.txt", "running", None),
        ("item", "each", "0.txt", "running", "sum"),
        ("item", "each", "0.txt", "done", None),
        ("step", "digest", 1, 0),
        ("item", "digest", "", "running", None),
        ("item", "digest", "", "running", "digest"),
        ("item", "digest", "", "done", None),
        ("step", "report", None, 0),
        ("item", "report", "", "running", None),
        ("item", "report", "", "done", None),
        ("ended",),
    ]
