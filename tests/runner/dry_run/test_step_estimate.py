"""A plan's bounds hold where a run does otherwise than the answers alone say."""

from pathlib import Path
from typing import Any

import pytest

from tests.fakes.pool import FakePool
from tests.runner.dry_run.test_item_estimate import (
    ABOUT_TEXT,
    EACH,
    IN_PIPELINE,
    WRITE,
    chat,
    summed,
)
from tests.runner.world import ALL, ReviewedWorld, World


def bounded(world: World, *, pool: FakePool | None = None, **options: Any) -> tuple[int, int]:
    """Plan and run; return how many calls were made, and the most that the plan has told."""
    planned = world.plan(**options)
    made = world.run(pool=pool, **options).calls
    assert planned.calls is not None and planned.least_calls is not None
    assert planned.least_calls <= made <= planned.calls
    assert made == planned.calls or planned.calls_are != "exact"
    return made, planned.calls


REVIEWED = ", review: {when: 'true'}"


ALL_SUMS = '  - {id: all, uses: chat, with: {prompt: "Of {{ steps.each.results }}"}}\n'
KIND = ", reply: {schema: {kind: 'enum[bill, letter]'}}"


@pytest.mark.parametrize(
    "more",
    [
        chat("t", "About {{ steps.sum.output.kind }}s"),
        "    returns: steps.sum.output.kind\n" + ALL_SUMS,
    ],
)
def test_a_label_that_is_not_known_is_not_taken_for_the_first(tmp_path: Path, more: str) -> None:
    def kind(label: str) -> FakePool:
        return FakePool(
            answer=lambda request: f'{{"kind": "{label}"}}' if request.constraint else ""
        )

    world = World(tmp_path, EACH + summed(KIND) + more, n_documents=2)
    world.run(pool=kind("bill"))
    world.write("inbox/0.txt", "A letter.")
    assert bounded(world, pool=kind("letter")) == (2, 2)


NO = ", reply: {check: [\"'no' in text\"], repair: 0}"
NESTED = f"""\
      - id: p
        for_each: word in ['a']
        do: [{{id: a, uses: chat, with: {{prompt: "{{{{ word }}}}"}}{REVIEWED}}}]
"""
ROWS = """\
steps:
  - {id: rows, uses: files.rows, with: {path: rows.jsonl}}
  - id: each
    for_each: row in steps.rows.rows
    do: [{uses: prompt, with: {template: "{{ row.name }}"}}]
    returns: row.price
"""
THREE = """\
steps:
  - {id: a, uses: chat, with: {prompt: Hi}}
  - {id: b, uses: chat, with: {prompt: "Of {{ steps.a.text }}"}MORE}
  - {id: c, uses: chat, with: {prompt: "About {{ steps.b.text }}"}}
"""


@pytest.mark.parametrize(
    ("text", "of_inner", "expected"),
    [
        (EACH + IN_PIPELINE + ABOUT_TEXT, NO, (1, 2)),
        (EACH + IN_PIPELINE + ABOUT_TEXT, REVIEWED, (1, 2)),
        (EACH + NESTED + ABOUT_TEXT, "", (1, 2)),
        (EACH + summed(NO) + "    returns: steps.sum.text\n" + ALL_SUMS, "", (1, 2)),
        (ROWS + ALL_SUMS, "", (0, 1)),
        (THREE.replace("MORE", REVIEWED), "", (2, 3)),
        (THREE.replace("MORE", ", if: \"'no' in steps.a.text\""), "", (1, 3)),
    ],
    ids=[
        "a pipeline may fail", "a pipeline may wait", "a block may wait", "all items may fail",
        "returns fail", "a step may wait", "a step may be skipped",
    ],
)  # fmt: skip
def test_what_is_behind_what_may_end_there_is_asked_at_most(
    tmp_path: Path, text: str, of_inner: str, expected: tuple[int, int]
) -> None:
    step_of = f'{{id: a, uses: chat, with: {{prompt: "{{{{ inputs.text }}}}"}}{of_inner}}}'
    inner = f"inputs: {{text: {{type: str}}}}\nsteps: [{step_of}]\n"
    beside = {"inner.yaml": inner, "rows.jsonl": '{"name": "a"}'}
    assert bounded(World(tmp_path, text, beside, n_documents=1)) == expected


def test_an_item_that_only_lacks_a_file_has_a_result(tmp_path: Path) -> None:
    checked = summed(", reply: {check: [\"'1' in text\"], repair: 0}")
    text = EACH + checked + WRITE + "    returns: steps.sum.text\n" + ALL_SUMS
    world = World(tmp_path, text, n_documents=2)
    world.run()
    (tmp_path / "out/1.txt").unlink()
    assert not any("is left" in remark for remark in world.plan().remarks)
    assert bounded(world) == (0, 0)


TOP = "steps:\n  - {id: a, uses: chat, with: {prompt: Hi}%s}\n"


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        (TOP % REVIEWED, ""),
        (EACH + summed(REVIEWED), ""),
        ("steps: [{id: p, uses: pipeline, with: {file: inner.yaml}}]\n", TOP % REVIEWED),
    ],
    ids=["top", "item", "inner"],
)
def test_what_a_person_rejected_is_asked_for_again_wherever_it_stands(
    tmp_path: Path, text: str, inner: str
) -> None:
    models = "models: {chat: {ref: small}, large: {ref: big}}\n"
    world = ReviewedWorld(tmp_path, models + text, {"inner.yaml": models + inner}, n_documents=1)
    world.run()
    assert world.decide_all("reject", reason="no") == 1
    assert bounded(world) == (0, 0)
    assert bounded(world, retry_failed=True)[0] == 1


@pytest.mark.parametrize(
    "body", [EACH + summed(REVIEWED + ", cache: off"), TOP % (REVIEWED + ", cache: off")]
)
@pytest.mark.parametrize("verb", ["accept", "reject"])
def test_an_answer_that_was_decided_is_not_asked_for_where_no_cache_has_it(
    tmp_path: Path, body: str, verb: str
) -> None:
    world = ReviewedWorld(tmp_path, body, n_documents=1)
    world.run()
    world.decide_all(verb, reason="no")
    assert bounded(world) == (0, 0)


WRITES = "{id: made, uses: files.write, with: {path: out/a.txt, text: First}}"
FILLS = "{id: fill, uses: embed, with: {texts: [First], store: s}}"
OF_PIPELINE = "{id: made, uses: pipeline, with: {file: inner.yaml}}"
READ = "files.read, with: {path: out/a.txt}"
FOUND = "search, with: {store: s, query: F}"


@pytest.mark.parametrize(
    ("made", "inner", "read"),
    [(WRITES, "", READ), (OF_PIPELINE, WRITES, READ), (OF_PIPELINE, FILLS, FOUND)],
    ids=["file", "file of a pipeline", "store of a pipeline"],
)
def test_what_reads_what_a_step_before_it_will_change_is_not_taken_as_it_is(
    tmp_path: Path, made: str, inner: str, read: str
) -> None:
    steps = f"""\
models: {{embed: minilm}}
steps:
  - {made}
  - {{id: second, uses: {read}, needs: [made]}}
  - {{id: third, uses: chat, with: {{prompt: "{{{{ steps.second }}}}"}}}}
"""
    beside = {"inner.yaml": f"models: {{embed: minilm}}\nsteps: [{inner}]\n"}
    world = World(tmp_path, steps, beside)
    world.run()
    for name in ("pipeline.yaml", "inner.yaml"):
        world.write(name, (tmp_path / name).read_text().replace("First", "Changed"))
    assert bounded(world)[0] > 0


def test_a_step_that_runs_each_time_is_named_by_a_plan_with_nothing_to_do(tmp_path: Path) -> None:
    text = """\
steps:
  - {id: own, uses: ./own.py:say, with: {text: hello}}
  - {id: list, uses: run, with: {command: [ls]}}
"""
    world = World(tmp_path, text, {"own.py": "def say(text): return text\n"})
    world.run(allow=ALL)
    plan = world.plan(allow=ALL)
    assert (plan.has_work, list(plan.remarks)) == (
        False,
        [
            "'own' is done in each run: it is outside of blocks.",
            "'list' is done in each run: it is outside of blocks.",
        ],
    )
